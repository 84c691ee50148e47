"""Readers: one module a format, all of the shape `Format`, and one dict to choose by.

Scanning runs once over a file that may be larger than memory, and leaves in a work folder whatever any process needs to
read any record alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from griffon_prep.readers import ccmd, llava
from griffon_prep.readers.json_records import first_elements
from griffon_prep.records import Record
from griffon_shards.errors import DataError, SettingsError

_LOOK_AT = 100  # elements; the first that parses decides


class Reader(Protocol):
    """What every format's `Reader` does."""

    def read(self, record_no: int) -> Record:
        """The record of this number.

        Raises:
            Rejected: it cannot become a sample.
        """


class Format(Protocol):
    """What a format module has."""

    @property
    def TASKS(self) -> Sequence[str]:
        """The tasks it gives."""

    @property
    def OPTIONS(self) -> Sequence[str]:
        """Manifest options it takes besides `format`, `weight` and `limit`."""

    @property
    def Reader(self) -> Callable[[Path, str, Mapping[str, str], Path], Reader]:
        """Made of annotation, task, options and work folder, after `scan`."""

    def recognises(self, element: Mapping[str, Any], /) -> bool:
        """Whether an element of a file is one of this format."""

    def scan(
        self, annotation: Path, task: str, options: Mapping[str, str], work: Path, /
    ) -> tuple[int, tuple[str, ...]]:
        """Make ready for reading; gives the number of records, and the sorted names that negatives are drawn from."""


FORMATS: dict[str, Format] = {"llava": llava, "ccmd": ccmd}


def find_format(annotation: Path, task: str, options: Mapping[str, str]) -> str:
    """The format of an annotation: the one the manifest names, else by content.

    Args:
        annotation: the file, not compressed.
        task: what its records are to be used for.
        options: the manifest's, of which `format=` counts here.

    Raises:
        SettingsError: no such format, none recognises the content, or the format cannot give this task or does not take
            one of these options.
        DataError: the file is empty or damaged.
    """
    found = options.get("format") or _recognise(annotation)
    if found not in FORMATS:
        raise SettingsError(f"no format {found!r}; format= takes {', '.join(FORMATS)}")
    if task not in FORMATS[found].TASKS:
        raise SettingsError(f"format {found} gives {', '.join(FORMATS[found].TASKS)}, not {task}")
    if strange := set(options) - {"format", "weight", "limit", *FORMATS[found].OPTIONS}:
        raise SettingsError(f"format {found} does not take the option {', '.join(sorted(strange))}")
    return found


def _recognise(annotation: Path) -> str:
    elements = list(first_elements(annotation, _LOOK_AT))
    for element in elements:
        for name, module in FORMATS.items():
            if isinstance(element, dict) and module.recognises(element):
                return name
    if not elements:
        raise DataError("has no records")
    raise SettingsError(
        f"its content is of no known format ({', '.join(FORMATS)}); "
        "see the README's table of formats, or name one with format="
    )


def open_reader(name: str, annotation: Path, task: str, options: Mapping[str, str], work: Path) -> Reader:
    """The reader of a source that has been scanned into `work`."""
    return FORMATS[name].Reader(annotation, task, options, work)
