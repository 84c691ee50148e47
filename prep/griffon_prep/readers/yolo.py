"""The `yolo` format: Ultralytics' `data.yaml`, and a text file of boxes for each image, in fractions of its sides.

A line is a class and a box (centre and size), the corners of an oriented box, or the points of an outline; with
`kpt_shape` a box and keypoints. Lines are judged as by Ultralytics (`verify_image_label` in ultralytics/data/utils.py).
"""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.fields import short
from griffon_prep.readers.folders import IMAGES, Names, files_below, write_names
from griffon_prep.readers.written_numbers import check_fractions, number_in
from griffon_prep.readers.yolo_data import SPLIT, YoloData, YoloSplit, find_split, read_data_yaml
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import counted
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ("split",)
COMPANIONS = ()
EXAMPLES = {
    "data.yaml": """\
path: .
train: train.txt  # or a folder such as images/train, or a list of folders
names: {0: cat, 1: dog}
""",
    "train.txt": "./images/train/a.jpg\n",
    "labels/train/a.txt": """\
0 0.094 0.25 0.156 0.417
1 0.5 0.1 0.6 0.1 0.6 0.3 0.5 0.3
""",
}
_TABLE = "names.bin"
_BOX = 5  # columns


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return head.member == "yaml" and "names" in head.element


def further_inputs(annotation: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders and lists of the split, and the folders of their labels, which records are read from.

    Raises:
        DataError: `data.yaml` is damaged.
        SettingsError: it has no such split, or the split's images are not there.
    """
    split = find_split(read_data_yaml(annotation), options.get("split", SPLIT))
    inputs: dict[str, Path] = {}
    for part in split.parts:
        inputs[_name(part, split)] = part
        # The images of a list may be anywhere below the root.
        labels = _labels_of(part, split) if part.is_dir() else split.root
        if labels.is_dir():
            inputs.setdefault(_name(labels, split), labels)
    return inputs


def _name(path: Path, split: YoloSplit) -> str:
    return posixpath.relpath(path, split.root)


def _labels_of(folder: Path, split: YoloSplit) -> Path:
    return (split.root / _label_paths(f"{_name(folder, split)}/x.jpg")[0]).parent


def _label_paths(image: str) -> tuple[str, str]:
    """Return where the label of an image may be: in `labels` instead of `images`, or beside the image."""
    stem, _ = posixpath.splitext(f"/{image}")
    return "/labels/".join(stem.rsplit("/images/", 1))[1:] + ".txt", stem[1:] + ".txt"


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the names of the split's images into the work folder.

    Raises:
        DataError: `data.yaml` or a list is damaged, or the split has no images.
        SettingsError: there is no label at all.
    """
    data = read_data_yaml(inputs.annotation)
    split = find_split(data, inputs.options.get("split", SPLIT))
    others: list[str] = []
    listed = [name for part in split.parts for name in _images(part, split, others)]
    images = sorted(set(listed), key=str.encode)
    if not images:
        raise DataError(f"{split.parts[0]}: has no images; correct the split's path in {inputs.annotation}")
    unlabelled = [image for image in images if _label(split.root, image) is None]
    if len(unlabelled) == len(images):
        raise SettingsError(
            f"{inputs.annotation}: none of {counted(len(images), 'image')} has a label; expected "
            f"{_label_paths(images[0])[0]} for {images[0]}, in {split.root}"
        )
    write_names(inputs.work / _TABLE, images)
    notes = []
    if unlabelled:
        notes.append(
            f"{len(unlabelled):,} of {len(images):,} images without a label, such as {unlabelled[0]}; counted as "
            "images without objects"
        )
    if len(listed) > len(images):
        repeated = counted(len(listed) - len(images), "image is", "images are")
        notes.append(f"{repeated} listed more than once, and read once")
    if others:
        notes.append(
            f"{counted(len(others), 'line is', 'lines are')} skipped for lack of an image's ending, such as "
            f"{others[0]}; each line names an image with its ending"
        )
    if without_image := _labels_without_image(split, images):
        notes.append(
            f"{counted(len(without_image), 'label has', 'labels have')} no image, such as {without_image[0]}, and will "
            "not be used; if images are missing, finish the download"
        )
    names = {name for name in data.names.values() if IMAGE_TOKEN not in name}
    return Scan(records=len(images), vocabulary=tuple(sorted(names)), notes=tuple(notes))


def _labels_without_image(split: YoloSplit, images: Sequence[str]) -> list[str]:
    """Return the labels that no image has, in the folders of the labels; lists choose some of the images on purpose."""
    folders = dict.fromkeys(_labels_of(part, split) for part in split.parts if part.is_dir() and part.name != "labels")
    labels = {
        posixpath.normpath(posixpath.join(_name(folder, split), name))
        for folder in folders
        if folder.is_dir() and folder not in split.parts
        for name in files_below(folder, frozenset({".txt"}))
        if posixpath.basename(name) != "classes.txt"  # LabelImg's list of names
    }
    return sorted(labels.difference(posixpath.normpath(_label_paths(image)[0]) for image in images))


def _images(part: Path, split: YoloSplit, others: list[str]) -> Iterator[str]:
    """Yield the images of a folder or list, relative to the root; lines of a list that name none go to `others`."""
    if part.is_dir():
        prefix = _name(part, split)
        prefix = "" if prefix == "." else f"{prefix}/"
        yield from (prefix + name for name in files_below(part, IMAGES))
        return
    root = os.fspath(split.root)
    for line_no, line in enumerate(part.read_bytes().split(b"\n"), 1):
        try:
            path = line.decode("utf-8-sig").strip().replace("\\", "/")
        except UnicodeDecodeError:
            raise DataError(f"{part}, line {line_no}: not UTF-8; save the list as UTF-8") from None
        if "\0" in path:
            raise DataError(f"{part}, line {line_no}: has a NUL character, so this is not a list of images")
        if posixpath.splitext(path)[1].lower() in IMAGES:
            image = _listed(path, os.fspath(part.parent), root)
            if image.startswith("../"):  # its label would be outside what is hashed
                raise DataError(
                    f"{part}, line {line_no}: {short(path)} is outside {split.root}; let path of data.yaml name the "
                    "folder that has all images"
                )
            yield image
        elif path:
            others.append(short(path))


def _listed(path: str, beside: str, root: str) -> str:
    """Return a path of a list relative to the root; the list may be of another machine."""
    below = [posixpath.join(beside, path), posixpath.join(root, path)]
    if path.startswith("/") or path[1:3] == ":/":
        parts = [part for part in path.split("/") if part]
        below += [posixpath.join(root, *parts[first:]) for first in range(1, len(parts))]
    found = next(filter(posixpath.exists, below), posixpath.join(root, path.lstrip("/")))
    return posixpath.relpath(found, root)


def _label(root: Path, image: str) -> str | None:
    """Return the path of an image's label, or None if it has none."""
    paths = (posixpath.join(root, path) for path in _label_paths(image))
    return next(filter(posixpath.isfile, paths), None)


class Reader:
    """Reads one scanned `yolo` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._data = read_data_yaml(inputs.annotation)
        self._root = find_split(self._data, inputs.options.get("split", SPLIT)).root.absolute()
        self._names = Names(inputs.work / _TABLE)

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        image = self._names[record_no]
        label, image_file = _label(self._root, image), posixpath.join(self._root, image)
        if label is None and not posixpath.exists(image_file):
            raise Rejected("picture_not_found", f"{image}: neither the image nor its label is there")
        return Record(
            record_no=record_no,
            image_path=re.sub(r"^(?:\.\./)+", "", image),
            image_file=image_file,
            units_per_side=1,
            regions=_regions(label, self._data) if label is not None else (),
        )


def _regions(label: str, data: YoloData) -> tuple[Region, ...]:
    """Return the boxes of a label, as fractions."""
    name = posixpath.basename(label)
    try:
        text = Path(label).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected("bad_record", f"{name}: not UTF-8 at byte {error.start}") from None
    regions = []
    for line_no, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            regions.append(_region(line.strip(), data))
        except Rejected as rejected:
            raise Rejected("bad_record", f"{name}, line {line_no}: {rejected.detail}") from None
    return tuple(regions)


def _region(line: str, data: YoloData) -> Region:
    """Return the box of a line."""
    fields = line.split()
    if "," in line:
        # Between five fields only: in `0 0,5 0,5 0,2 0,3` the comma is a decimal point.
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != _BOX:
            raise Rejected("bad_record", f"expected {_BOX} numbers separated by spaces, got {short(line)}")
    number, *values = (number_in(field, "label") for field in fields)
    if number not in data.names:
        classes = f"{min(data.names)} to {max(data.names)}"
        raise Rejected("bad_record", f"class {fields[0]:.20} is not in names of {data.file.name}, which has {classes}")
    return Region(phrase=data.names[int(number)], box_xyxy_px=_box(values, data.columns))


def _box(values: Sequence[float], columns: int) -> BoxXYXY:
    """Return the box of a line's numbers, without its class."""
    count = len(values) + 1
    if columns and count not in (_BOX, columns):
        raise Rejected("bad_record", f"expected {columns} columns by kpt_shape, or {_BOX} for a box, got {count}")
    outline = not columns and count >= 7 and count % 2 == 1
    if count != _BOX and not outline and not columns:
        confidence = ", which has no confidence: remove the sixth column" if count == _BOX + 1 else ""
        what = f"expected {_BOX} columns for a box{confidence}, or 7, 9, ... for an outline"
        raise Rejected("bad_record", f"{what}, got {count}")
    check_fractions(*(values if outline else values[: _BOX - 1]))
    if outline:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values[: _BOX - 1]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
