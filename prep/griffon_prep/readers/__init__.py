"""Readers: one module a format, all of the shape `Format`, and one dict to choose by.

Scanning runs once over a file that may be larger than memory, and leaves in a work folder whatever any process needs to
read any record alone.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO

from griffon_prep.readers import ccmd, coco, llava, mdetr, refcoco, visual_genome
from griffon_prep.readers.base import Format
from griffon_prep.readers.sniff import described, file_heads
from griffon_shards.support.errors import SettingsError

FORMATS: dict[str, Format] = {
    "llava": llava,
    "ccmd": ccmd,
    "mdetr": mdetr,
    "coco": coco,
    "visual_genome": visual_genome,
    "refcoco": refcoco,
}
"""By name; the first that recognises a file reads it."""

ROUNDS_TASKS = ("REG", "VG")
"""Tasks that take `rounds=`."""


def find_format(
    opened: Callable[[], AbstractContextManager[BinaryIO]], name: str, task: str, options: Mapping[str, str]
) -> str:
    """The format of an annotation: the one the manifest names, else by content.

    Args:
        opened: opens the annotation at its start, unpacked.
        name: of the file, for errors.
        task: what its records are to be used for.
        options: the manifest's, of which `format=` counts here.

    Raises:
        SettingsError: no such format, none recognises the content, or the format cannot give this task or does not take
            one of these options.
        DataError: the file is empty or damaged.
    """
    found = options.get("format") or _recognise(opened, name)
    if found not in FORMATS:
        raise SettingsError(f"no format {found!r}; format= takes {', '.join(FORMATS)}")
    if task not in FORMATS[found].TASKS:
        gives = ", ".join(FORMATS[found].TASKS)
        raise SettingsError(
            f"{name}: format {found} gives {gives}, not {task}; ask for one of these by the TAG of a manifest line"
        )
    if strange := set(options) - {"format", "weight", "limit", *FORMATS[found].OPTIONS}:
        raise SettingsError(f"{name}: format {found} does not take the option {', '.join(sorted(strange))}")
    if "rounds" in options and task not in ROUNDS_TASKS:
        raise SettingsError(f"{name}: rounds= is for {' and '.join(ROUNDS_TASKS)}, not {task}")
    return found


def _recognise(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> str:
    for head in file_heads(opened, name):
        for found, module in FORMATS.items():
            if module.recognises(head):
                return found
    raise SettingsError(
        f"{name}: its content is of no known format ({', '.join(FORMATS)}), {described(opened, name)}; "
        "see `griffon-prep formats`; a manifest can name one with format="
    )
