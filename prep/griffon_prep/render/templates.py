"""Question templates: JSON lists of strings with placeholders, ours or a folder of the reference's files."""

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
"""For each rendered task the file of its templates and the placeholder that each of them must have once."""

_ANSWER_FORMAT = "answer_format.json"
_PLACEHOLDERS = {placeholder for _, placeholder in _FILES.values()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The wordings of a build.

    Attributes:
        questions: templates by task.
        answer_format: the line that DET and VISJ questions end with, by task and, for bin boxes, `TASK_bin`.
        sha256: hash of all of them, which enters the lock.
    """

    questions: Mapping[str, tuple[str, ...]]
    answer_format: Mapping[str, str]
    sha256: str

    def answer_line(self, task: str, style: str) -> str:
        """The answer-format line of a task for a box style; the plain one where the folder has none for bins."""
        return self.answer_format.get(f"{task}_{style}", self.answer_format[task])


def load_templates(folder: Path | None) -> Templates:
    """The templates in a folder, or our own.

    Raises:
        SettingsError: a file is missing or not a list of templates; the message names file and template.
    """
    ours = resources.files("griffon_prep.templates")
    root: Traversable = folder if folder is not None else ours
    questions = {task: _read_list(root / name, placeholder) for task, (name, placeholder) in _FILES.items()}
    answer_format = _read_lines(root / _ANSWER_FORMAT if (root / _ANSWER_FORMAT).is_file() else ours / _ANSWER_FORMAT)
    content = orjson.dumps([questions, answer_format], option=orjson.OPT_SORT_KEYS)
    return Templates(questions=questions, answer_format=answer_format, sha256=hashlib.sha256(content).hexdigest())


def fill(template: str, placeholder: str, text: str) -> str:
    """Put `text` at the placeholder's place, and `<image>` in front where the template does not say where it goes."""
    before, _, after = template.partition(placeholder)
    front = "" if IMAGE_TOKEN in template else f"{IMAGE_TOKEN}\n"
    return f"{front}{before}{text}{after}"


def placeholder_of(task: str) -> str:
    """The placeholder in the templates of a task."""
    return _FILES[task][1]


def _read_json(path: Traversable) -> object:
    try:
        value: object = orjson.loads(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be read ({error.strerror}); --templates takes a folder with "
            f"{', '.join(sorted({name for name, _ in _FILES.values()}))}"
        ) from None
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"{path}: not JSON ({error})") from None
    return value


def _read_list(path: Traversable, placeholder: str) -> tuple[str, ...]:
    value = _read_json(path)
    if not isinstance(value, list) or not value:
        raise SettingsError(f"{path}: expected a JSON list of templates, got {value!r:.80}")
    for number, template in enumerate(value, 1):
        if not isinstance(template, str) or template.count(placeholder) != 1 or template.count(IMAGE_TOKEN) > 1:
            raise SettingsError(
                f"{path}: template {number} must be text with {placeholder} once and {IMAGE_TOKEN} at most once, "
                f"got {template!r:.120}"
            )
        if strange := sorted(_PLACEHOLDERS.intersection(re.findall("<[^<>]+>", template)) - {placeholder}):
            raise SettingsError(f"{path}: template {number} has {', '.join(strange)}, which its task does not fill")
    return tuple(value)


def _read_lines(path: Traversable) -> dict[str, str]:
    value = _read_json(path)
    if not isinstance(value, dict) or not {"DET", "VISJ"} <= set(value):
        raise SettingsError(f"{path}: expected a JSON object with the lines DET and VISJ, got {value!r:.80}")
    for task, line in value.items():
        if not isinstance(line, str):
            raise SettingsError(f"{path}: {task}: expected text, got {line!r:.80}")
    return dict(value)
