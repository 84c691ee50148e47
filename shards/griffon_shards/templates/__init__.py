"""Question templates: JSON lists of strings with placeholders, built in or from a custom folder.

Builds render questions from them, and a model is asked with the same ones.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import orjson

from griffon_shards.support.errors import SettingsError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN

_FILES = {
    "DET": ("nvn.json", "<category set>"),
    "RANDDET": ("1vn.json", "<expr>"),
    "REG": ("REG.json", "<objs>"),
    "VG": ("1vn.json", "<expr>"),
    "VISJ": ("visual_search.json", REGION_TOKEN),
}
"""Template file of each rendered task, and the placeholder that each of its templates must have exactly once."""

_ANSWER_FORMAT = "answer_format.json"
_WITH_FORMAT_LINE = ("DET", "VISJ")
_PLACEHOLDERS = {placeholder for _, placeholder in _FILES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The templates of a build.

    Attributes:
        questions: templates by task.
        answer_format: the last line of DET and VISJ questions, by task, or by `TASK_bin` for bin boxes.
        sha256: hash of all templates; part of the lock.
    """

    questions: Mapping[str, tuple[str, ...]]
    answer_format: Mapping[str, str]
    sha256: str

    def question(self, task: str, template: str, filling: str, style: str) -> str:
        """Fill in a template of a task; questions of DET and VISJ end with a line on the format of boxes."""
        question = fill(template, placeholder_of(task), filling)
        return question + self._answer_line(task, style) if task in _WITH_FORMAT_LINE else question

    def _answer_line(self, task: str, style: str) -> str:
        """Return the answer format line of a task for a box style, or the plain one if there is none for the style."""
        return self.answer_format.get(f"{task}_{style}", self.answer_format[task])


def load_templates(folder: Path | None) -> Templates:
    """Load the templates of a folder, or the built-in ones.

    Raises:
        SettingsError: a file is missing or is not a list of templates; the message names the file and the template.
    """
    built_in = resources.files("griffon_shards.templates")
    root: Traversable = folder if folder is not None else built_in
    questions = {task: _read_list(root / name, placeholder) for task, (name, placeholder) in _FILES.items()}
    custom_format = root / _ANSWER_FORMAT
    answer_format = _read_lines(custom_format if custom_format.is_file() else built_in / _ANSWER_FORMAT)
    content = orjson.dumps([questions, answer_format], option=orjson.OPT_SORT_KEYS)
    return Templates(questions=questions, answer_format=answer_format, sha256=hashlib.sha256(content).hexdigest())


def fill(template: str, placeholder: str, text: str) -> str:
    """Replace the placeholder by `text`, and put `<image>` in front if the template does not contain it."""
    before, _, after = template.partition(placeholder)
    front = "" if IMAGE_TOKEN in template else f"{IMAGE_TOKEN}\n"
    return f"{front}{before}{text}{after}"


def placeholder_of(task: str) -> str:
    """Return the placeholder in the templates of a task."""
    return _FILES[task][1]


def _read_json(path: Traversable) -> object:
    try:
        value: object = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); --templates takes a folder with the files "
            f"{', '.join(sorted({name for name, _ in _FILES.values()}))}"
        ) from None
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"{path}: not valid JSON ({error})") from None
    return value


def _read_list(path: Traversable, placeholder: str) -> tuple[str, ...]:
    value = _read_json(path)
    if not isinstance(value, list) or not value:
        raise SettingsError(f"{path}: expected a JSON list of templates, got {value!r:.80}")
    for template_no, template in enumerate(value, 1):
        if not isinstance(template, str) or template.count(placeholder) != 1 or template.count(IMAGE_TOKEN) > 1:
            raise SettingsError(
                f"{path}: template {template_no} must be text with {placeholder} once and {IMAGE_TOKEN} at most once, "
                f"got {template!r:.120}"
            )
        if others := sorted(_PLACEHOLDERS.intersection(re.findall("<[^<>]+>", template)) - {placeholder}):
            raise SettingsError(
                f"{path}: template {template_no} has {', '.join(others)}, a placeholder of another task; "
                f"expected only {placeholder}"
            )
    return tuple(value)


def _read_lines(path: Traversable) -> dict[str, str]:
    value = _read_json(path)
    if not isinstance(value, dict) or not {"DET", "VISJ"} <= set(value):
        raise SettingsError(f"{path}: expected a JSON object with the keys DET and VISJ, got {value!r:.80}")
    for task, line in value.items():
        if not isinstance(line, str):
            raise SettingsError(f"{path}: {task}: expected text, got {line!r:.80}")
    return dict(value)
