"""Manifest files: one source per line, `TAG & annotation & image root`, optionally with ` & key=value, key=value`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from io import StringIO

from griffon_prep.readers.box_form import boxes_fault
from griffon_prep.readers.voc import DIFFICULT
from griffon_prep.sources.part import PARTS
from griffon_shards.storage import Location
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import TASKS

_SEPARATOR = re.compile(r"\s+&(?:\s+|$)")
_TAG = re.compile(r"[A-Za-z0-9_]+")
_MAX_TAG = 80  # so that a tag with the record number and `.json` fits into the 100 bytes of a tar name
_FORM = "TAG & annotation & image root [& key=value, key=value]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestLine:
    """One source, as written in the manifest.

    Attributes:
        line_no: line number in the manifest, from 1.
        tag: `TASK` or `TASK_name`, unique in the manifest.
        task: one of `TASKS`.
        annotation: path of the annotation file, as written.
        image_root: path of the image folder, as written.
        options: validated values of the options (see `_OPTION_FAULT`), as written.
    """

    line_no: int
    tag: str
    task: str
    annotation: str
    image_root: str
    options: Mapping[str, str]

    @property
    def weight(self) -> Fraction:
        """Number of times that a training epoch shows the source."""
        return Fraction(self.options.get("weight", "1"))

    @property
    def limit(self) -> int | None:
        """Maximum number of records to use, in shuffled order, or None for all."""
        return int(self.options["limit"]) if "limit" in self.options else None


def read_manifest(path: Location) -> list[ManifestLine]:
    """Read the sources of a manifest, in order.

    Raises:
        SettingsError: the file cannot be read, or lines are invalid; one line per fault.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: the manifest cannot be read ({error.strerror}); give --manifest a file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 at byte {error.start}; save the manifest as UTF-8") from None
    lines: list[ManifestLine] = []
    faults: list[str] = []
    first_use: dict[str, int] = {}
    for line_no, line in enumerate(StringIO(text, newline=None), 1):  # str.splitlines also splits at U+0085 and others
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            parsed = _parse_line(line_no, line.strip())
            if parsed.tag in first_use:
                raise ValueError(
                    f"tag {parsed.tag!r} is already used in line {first_use[parsed.tag]}; choose another name"
                )
        except ValueError as error:
            faults.append(f"{path}:{line_no}: {error}")
        else:
            first_use[parsed.tag] = line_no
            lines.append(parsed)
    if not lines and not faults:
        faults.append(f"{path}: the manifest has no sources; expected lines of the form {_FORM}")
    if faults:
        raise SettingsError("\n".join(faults))
    return lines


def single_line(annotation: str, image_root: str) -> ManifestLine:
    """The manifest line that `--data-path FILE --image-folder DIR` is equivalent to."""
    return ManifestLine(line_no=1, tag="LAZY", task="LAZY", annotation=annotation, image_root=image_root, options={})


def _parse_line(line_no: int, line: str) -> ManifestLine:
    fields = [field.strip() for field in _SEPARATOR.split(line)]
    if len(fields) not in (3, 4) or not all(fields):
        raise ValueError(f"expected {_FORM}, got {len(fields)} field(s): {line!r}; put spaces around each '&'")
    tag, annotation, image_root = fields[:3]
    task = tag.partition("_")[0]
    if task not in TASKS or not _TAG.fullmatch(tag) or len(tag) > _MAX_TAG or tag.endswith("_"):
        raise ValueError(
            f"tag {tag!r} is not TASK or TASK_name; TASK is one of {', '.join(TASKS)}, "
            f"name has letters, digits and underscores, and the tag has at most {_MAX_TAG} characters"
        )
    options = _parse_options(fields[3]) if len(fields) == 4 else {}
    return ManifestLine(
        line_no=line_no, tag=tag, task=task, annotation=annotation, image_root=image_root, options=options
    )


def _parse_options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not name or not value:
            raise ValueError(f"option {item.strip()!r} is not of the form key=value")
        if name not in _OPTION_FAULT:
            raise ValueError(f"unknown option {name!r}; expected one of {', '.join(_OPTION_FAULT)}")
        if name in options:
            raise ValueError(f"option {name!r} is given twice")
        if fault := _OPTION_FAULT[name](value):
            raise ValueError(f"option {name}={value}: {fault}")
        options[name] = value
    return options


def _weight_fault(value: str) -> str | None:
    try:
        positive = Fraction(value) > 0
    except (ValueError, ZeroDivisionError):
        positive = False
    return None if positive else "expected a number above 0, such as 2, 0.5 or 1/3"


def _count_fault(value: str) -> str | None:
    return None if value.isascii() and value.isdecimal() and int(value) > 0 else "expected a whole number above 0"


def _any_word(_value: str) -> str | None:
    return None  # the reader checks the names of formats and splits; files are looked for later


def _part_fault(value: str) -> str | None:
    return None if value in PARTS else f"expected {' or '.join(PARTS)}"


def _difficult_fault(value: str) -> str | None:
    return None if value in DIFFICULT else f"expected one of {', '.join(DIFFICULT)}"


def _first_pixel_fault(value: str) -> str | None:
    return None if value in ("0", "1") else "expected 0 or 1, the number of the first pixel of a row"


def _orientation_fault(value: str) -> str | None:
    return None if value == "shown" else "expected shown: boxes refer to images as their EXIF orientation shows them"


_OPTION_FAULT = {
    "format": _any_word,
    "weight": _weight_fault,
    "limit": _count_fault,
    "split": _any_word,
    "rounds": _count_fault,
    "difficult": _difficult_fault,
    "first_pixel": _first_pixel_fault,
    "boxes": boxes_fault,
    "orientation": _orientation_fault,
    "part": _part_fault,
    "exclude": _any_word,
    "image_data": _any_word,
}
