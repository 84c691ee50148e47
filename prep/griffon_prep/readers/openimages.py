"""The `openimages` format: the CSV files of Open Images; boxes by image in fractions of its sides, and verified labels.

Boxes stand as XMin, XMax, YMin, YMax. A label that a human verified as absent (Confidence 0) is the only one
that may be called absent, because an image was searched for few of the 600 classes.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.csv_groups import CsvGroups, write_groups
from griffon_prep.readers.fields import short
from griffon_prep.readers.written_numbers import check_fractions, number_in
from griffon_prep.records import Record, Region, Rejected, is_blank
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ()
COMPANIONS = ()
EXAMPLES = {
    "train-annotations-bbox.csv": """\
ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
000026e7ee790996,xclick,/m/01yrx,1,0.071905,0.145346,0.206591,0.391306,0,1,0,0,0
000026e7ee790996,xclick,/m/0bt9lr,1,0.439756,0.572466,0.264153,0.435122,0,1,1,0,0
""",
    "class-descriptions-boxable.csv": "/m/01yrx,Cat\n/m/0bt9lr,Dog\n/m/01xq0k1,Cattle\n",
    "train-annotations-human-imagelabels-boxable.csv": """\
ImageID,Source,LabelName,Confidence
000026e7ee790996,verification,/m/01yrx,1
000026e7ee790996,verification,/m/01xq0k1,0
""",
}
_BOXES, _LABELS = "boxes.bin", "labels.bin"
_DESCRIPTIONS, _VERIFIED = "class descriptions", "image labels"
_IMAGE = "ImageID"
_EDGES = ("XMin", "YMin", "XMax", "YMax")
_NEEDED = {_IMAGE, "LabelName", *_EDGES}
_GROUPS = {"1": True, "0": False, "-1": False, "": False}  # -1: unknown
_VERSION = re.compile(r"oidv[0-9]+-")
_SUFFIXES = ("", ".gz", ".zst")


def recognises(head: Head) -> bool:
    """Whether a file with these columns has this format."""
    return head.member == "csv" and head.element.keys() >= _NEEDED


def further_inputs(annotation: Path, _options: Mapping[str, str]) -> dict[str, Path]:
    """Return the class descriptions and, if it is there, the file of verified labels, both next to the boxes.

    Raises:
        SettingsError: the class descriptions are missing.
    """
    split = annotation.name.partition("annotations-bbox")[0]  # such as oidv6-train-
    splits = dict.fromkeys((split, _VERSION.sub("", split)))
    versions = sorted(
        {file.name.partition("class-")[0] for file in annotation.parent.glob("oidv*-class-descriptions*")}
    )
    descriptions = [
        f"{version}class-descriptions{kind}.csv" for kind in ("-boxable", "") for version in ("", *versions)
    ]
    labels = [f"{name}annotations-human-imagelabels{kind}.csv" for kind in ("-boxable", "") for name in splits]
    inputs = {}
    for what, names in ((_DESCRIPTIONS, descriptions), (_VERIFIED, labels)):
        paths = (annotation.with_name(name + suffix) for name in names for suffix in _SUFFIXES)
        if (path := next(filter(Path.is_file, paths), None)) is not None:
            inputs[what] = path
    if _DESCRIPTIONS not in inputs:
        raise SettingsError(
            f"{annotation}: format openimages needs {descriptions[0]} in the same folder, for the names of the "
            "classes; add the file"
        )
    return inputs


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the indexes of boxes and of labels into the work folder."""
    names = _names(inputs.companions[_DESCRIPTIONS])
    images = write_groups(inputs.annotation, inputs.work / _BOXES, _IMAGE)
    notes: tuple[str, ...] = ()
    if _VERIFIED in inputs.companions:
        write_groups(inputs.companions[_VERIFIED], inputs.work / _LABELS, _IMAGE)
    elif inputs.task != "VISJ":
        notes = (
            "no file of verified labels is next to the boxes (annotations-human-imagelabels-boxable.csv), so no "
            "category is called absent",
        )
    vocabulary = tuple(sorted({name for name in names.values() if IMAGE_TOKEN not in name}))
    return Scan(records=images, vocabulary=vocabulary, notes=notes)


def _names(file: Path) -> dict[str, str]:
    """Return the names of the classes by their ids.

    Raises:
        DataError: the file is damaged, or a class has two names.
    """
    names: dict[str, str] = {}
    for line_no, (label, name) in _pairs(file):
        if names.setdefault(label, name) != name:
            both = f"{short(names[label])} and {short(name)}"
            raise DataError(f"{file}, line {line_no}: {short(label)} is called {both}; remove the wrong line")
    if not names:
        raise DataError(f"{file}: has no classes; download it again")
    return names


def _pairs(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield line number, id and name of each class. Some versions begin with a line of column names, others do not."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            for fields in reader:
                if not fields or fields[0] == "LabelName":
                    continue
                if len(fields) != 2 or is_blank(fields[0]) or is_blank(fields[1]):
                    raise DataError(
                        f"{file}, line {reader.line_num}: expected the id of a class and its name, got "
                        f"{short(fields)}; fix the line, or download the file again"
                    )
                yield reader.line_num, (fields[0].strip(), fields[1].strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: damaged, not CSV in UTF-8 ({error}); download it again") from None


class Reader:
    """Reads one scanned `openimages` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._names = _names(inputs.companions[_DESCRIPTIONS])
        self._boxes = CsvGroups(inputs.annotation, inputs.work / _BOXES, _IMAGE)
        self._labels = None
        if _VERIFIED in inputs.companions:
            self._labels = CsvGroups(inputs.companions[_VERIFIED], inputs.work / _LABELS, _IMAGE)

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        rows = self._boxes[record_no]
        image = rows[0][_IMAGE]
        if is_blank(image):
            raise Rejected("bad_record", f"{_IMAGE}: expected text, got {short(image)}")
        try:
            return Record(
                record_no=record_no,
                image_path=f"{image}.jpg",
                units_per_side=1,
                regions=tuple(map(self._region, rows)),
                absent_phrases=self._absent(image),
                only_these_absent=True,
                image_elsewhere=(f"train_{image[0]}/{image}.jpg",),  # as the archives of the images are packed
            )
        except Rejected as rejected:
            raise Rejected(rejected.reason, f"{image}: {rejected.detail}") from None

    def _region(self, row: Mapping[str, str]) -> Region:
        label = row["LabelName"]
        if label not in self._names:
            raise Rejected("bad_record", f"LabelName: {short(label)} is not in the class descriptions")
        group = row.get("IsGroupOf", "")
        if group not in _GROUPS:
            raise Rejected("bad_record", f"IsGroupOf: expected 1, 0 or -1, got {short(group)}")
        return Region(phrase=self._names[label], box_xyxy_px=_box(row), crowd=_GROUPS[group])

    def _absent(self, image: str) -> tuple[str, ...]:
        """Return the names of the classes that were verified as absent, and never as present."""
        verdicts: dict[str, float] = {}
        for row in self._labels.of(image) if self._labels is not None else ():
            label, confidence = row.get("LabelName", ""), number_in(row.get("Confidence", ""), "Confidence")
            if not 0 <= confidence <= 1:
                raise Rejected("bad_record", f"Confidence: expected 0 to 1, got {confidence:g}")
            verdicts[label] = max(verdicts.get(label, 0), confidence)
        return tuple(self._names[label] for label, most in verdicts.items() if most == 0 and label in self._names)


def _box(row: Mapping[str, str]) -> BoxXYXY:
    x1, y1, x2, y2 = (number_in(row[edge], edge) for edge in _EDGES)
    check_fractions(x1, y1, x2, y2)
    return x1, y1, x2, y2
