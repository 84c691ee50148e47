"""YOLO's `data.yaml`: the names of the classes, and where the images of each split are.

Paths are resolved as Ultralytics does (`check_det_dataset` in ultralytics/data/utils.py), and in addition next to the
file itself, because `path` is often that of another machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath

import yaml

from griffon_prep.readers.fields import short
from griffon_shards.support.errors import DataError, SettingsError

SPLIT = "train"
"""The split that is read unless the manifest line names another one."""

_MOST_BYTES = 16 << 20
_PROBLEMS = (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError)


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloData:
    """The content of a `data.yaml`.

    Attributes:
        file: the file.
        names: class names by number.
        root: the value of `path`, or `""`.
        splits: for every other entry that may be a split, its paths as written.
        columns: numbers in a line of a label if it has keypoints (`kpt_shape`), or 0.
    """

    file: Path
    names: Mapping[int, str]
    root: str
    splits: Mapping[str, tuple[str, ...]]
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloSplit:
    """A split on this machine: the folder that paths of images are relative to, and folders or lists of images."""

    root: Path
    parts: tuple[Path, ...]


def read_data_yaml(file: Path) -> YoloData:
    """Read a `data.yaml`. No tag of YAML is followed: whatever it holds is text, lists and mappings.

    Raises:
        DataError: it is not YAML, or its names are missing, doubled or not text.
    """
    if file.stat().st_size > _MOST_BYTES:
        raise DataError(f"{file}: larger than {_MOST_BYTES >> 20} MiB, so it is no data.yaml; give the file itself")
    try:
        node = yaml.compose(file.read_bytes().decode("utf-8-sig"), Loader=yaml.BaseLoader)
    except _PROBLEMS as error:
        what = " ".join(str(error).split())
        raise DataError(f"{file}: not YAML ({short(what)}); fix the file there") from None
    entries = dict(_entries(node, file))
    if "names" not in entries:
        raise DataError(f"{file}: has no names; add the names of the classes, such as names: [cat, dog]")
    names = _names(entries["names"], file)
    shape = [_text(item, "kpt_shape", file) for item in _items(entries.get("kpt_shape"))]
    if not all(side.isascii() and side.isdecimal() and len(side) < 6 for side in shape):
        raise DataError(f"{file}: kpt_shape: expected two whole numbers, got {', '.join(map(short, shape))}")
    splits = {
        key: tuple(filter(None, (_text(item, key, file).replace("\\", "/") for item in _items(value, file, key))))
        for key, value in entries.items()
        if key in _SPLITS
    }
    root = _text(entries["path"], "path", file).replace("\\", "/") if "path" in entries else ""
    columns = 5 + prod(map(int, shape)) if shape else 0
    return YoloData(file=file, names=names, root=root, splits=splits, columns=columns)


_SPLITS = ("train", "val", "test", "minival")


def _entries(node: yaml.Node | None, file: Path) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the entries of a mapping, with its keys as text."""
    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"{file}: expected entries such as train and names, got another value")
    seen = set()
    for key, value in node.value:
        name = _text(key, "a key", file)
        if name in seen:
            raise DataError(f"{file}, line {key.start_mark.line + 1}: {short(name)} is given twice; remove one of them")
        seen.add(name)
        yield name, value


def _items(node: yaml.Node | None, file: Path | None = None, key: str = "") -> list[yaml.Node]:
    """Return the items of a list; a single value is a list of one."""
    if isinstance(node, yaml.MappingNode):
        raise DataError(f"{file}: {key}: expected a path or a list of paths, got a mapping")
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    return [] if node is None else [node]


def _text(node: yaml.Node, key: str, file: Path) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise DataError(f"{file}: {key}: expected text, got a list or a mapping")
    return str(node.value).strip()


def _names(node: yaml.Node, file: Path) -> dict[int, str]:
    """Return the class names: a list, or a mapping from their numbers."""
    names: dict[int, str] = {}
    if isinstance(node, yaml.SequenceNode):
        numbered = [(str(number), item) for number, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        numbered = list(_entries(node, file))
    else:
        raise DataError(f"{file}: names: expected a list or a mapping, got {short(node.value)}")
    for number, item in numbered:
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise DataError(f"{file}: names: expected whole numbers from 0 as keys, got {short(number)}")
        if int(number) in names:
            raise DataError(f"{file}: names: class {int(number)} is given twice; remove one of them")
        names[int(number)] = _text(item, f"names: class {number}", file)
        if not names[int(number)]:
            raise DataError(f"{file}: names: class {number} has no name; give it one")
    if not names:
        raise DataError(f"{file}: names: has no classes; add their names, such as names: [cat, dog]")
    return names


def find_split(data: YoloData, split: str) -> YoloSplit:
    """Find the folders or lists of a split.

    Raises:
        SettingsError: the file has no such split, or a path of it does not exist.
    """
    paths = data.splits.get(split)
    if not paths:
        present = ", ".join(name for name, values in data.splits.items() if values) or "none"
        raise SettingsError(f"{data.file}: has no split {split!r}, only {present}; choose one with split=")
    beside = data.file.parent
    roots = [beside / data.root, beside, beside / "datasets" / data.root, beside.parent / "datasets" / data.root]
    for root in dict.fromkeys(roots):
        parts = [_existing(root, path) for path in paths]
        if all(part is not None for part in parts):
            return YoloSplit(root=root, parts=tuple(part for part in parts if part is not None))
    path = next(path for path in paths if _existing(roots[0], path) is None)
    raise SettingsError(
        f"{data.file}: {split}: there is no {roots[0] / path}, nor {path} in the file's own folder; "
        "correct path or the split's own path there"
    )


def _existing(root: Path, path: str) -> Path | None:
    """Return the folder or file that a split's path means, or None."""
    candidates = [path]
    if path.startswith("../"):  # as Roboflow writes it, for a folder beside data.yaml
        candidates.append(path[3:])
    if path.startswith("/") or path[1:3] == ":/":  # of another machine
        parts = PurePosixPath(path).parts[1:]
        tails = ["/".join(parts[first:]) for first in range(len(parts))]
        candidates += [tail for tail in tails if tail != "images"]  # that may hold all splits
    return next((root / candidate for candidate in candidates if (root / candidate).exists()), None)
