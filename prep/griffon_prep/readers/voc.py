"""The `voc` format: a folder of Pascal VOC's XML files, one per image, as VOC, ImageNet and LabelImg write them.

XML is read without document types, entities and references to anything outside (defusedxml).

Pixels are counted from 1 and a box includes its last pixel, as the VOC2012 development kit defines them: "The top-left
pixel in the image has coordinates (1, 1)" (section 3.3). A box of xmin 1 and xmax W covers the whole width, as in
detectron2's reader. With `first_pixel=0` the numbers are corners as they are.
"""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import own_units
from griffon_prep.readers.fields import short
from griffon_prep.readers.folders import IMAGES, Names, files_below, packed_notes, write_names
from griffon_prep.readers.written_numbers import number_in
from griffon_prep.records import Record, Region, Rejected, is_blank
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import counted
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ("split", "difficult", "first_pixel", "boxes")
COMPANIONS = ()
EXAMPLES = {
    "Annotations/000007.xml": """\
<annotation>
  <folder>VOC2007</folder>
  <filename>000007.jpg</filename>
  <size><width>640</width><height>480</height><depth>3</depth></size>
  <object>
    <name>cat</name><truncated>0</truncated><difficult>0</difficult>
    <bndbox><xmin>11</xmin><ymin>21</ymin><xmax>110</xmax><ymax>220</ymax></bndbox>
  </object>
</annotation>
""",
}
DIFFICULT = ("keep", "drop", "drop-truncated")
"""Values of `difficult=`: all boxes; without those marked `difficult`; and without those marked `truncated`, too."""

_TABLE, _SPLIT = "names.bin", "split"
_ENDINGS = frozenset({".xml"})
_SUFFIXES = (".jpg", ".JPEG", ".jpeg", ".png", ".JPG", ".PNG", ".bmp", ".webp", ".tif", ".tiff")
_MOST_BYTES = 64 << 20
_MAX_SIDE_PX = 1 << 20
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_MARKS = {"0": False, "1": True, "false": False, "true": True}


def recognises(head: Head) -> bool:
    """Whether a folder with this first file has this format."""
    return head.member == "folder of XML" and "annotation" in head.element


def further_inputs(annotation: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the list of the images of the split, if the manifest line names one.

    Raises:
        SettingsError: there is no such list.
    """
    if _SPLIT not in options:
        return {}
    folders = [folder / "ImageSets" / "Main" for folder in (annotation, annotation.parent)]
    name = f"{options[_SPLIT].removesuffix('.txt')}.txt"
    for folder in folders:
        if "/" not in name and (folder / name).is_file():
            return {_SPLIT: folder / name}
    raise SettingsError(
        f"{annotation}: split={options[_SPLIT]}: there is no {folders[0] / name}, nor {folders[1] / name}"
    )


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the paths of the XML files into the work folder, and collect the category names."""
    in_pixels = own_units(inputs.options, "voc") is None
    files = files_below(inputs.annotation, _ENDINGS)
    if _SPLIT in inputs.companions:
        files = of_split(inputs.companions[_SPLIT], files)
    write_names(inputs.work / _TABLE, files)
    names: set[str] = set()
    counts: Counter[str] = Counter()
    for file in files:
        try:
            root = parse_annotation(inputs.annotation / file)
            boxes = [(_name(item), _numbers(item)) for item in root.findall("object")]
        except Rejected:
            continue
        names.update(name for name, _ in boxes if IMAGE_TOKEN not in name)
        counts["boxes"] += len(boxes)
        counts["at 0"] += sum(min(box[:2]) < 1 for _, box in boxes)
    notes = [*packed_notes(inputs.annotation, _ENDINGS)]
    if counts["at 0"] and in_pixels and _first_pixel(inputs.options) == 1:
        notes.append(
            f"of {counted(counts['boxes'], 'box', 'boxes')}, {counted(counts['at 0'], 'begins', 'begin')} before "
            "pixel 1, the first of VOC; if the program that wrote the files counts from 0, add first_pixel=0 to the "
            "manifest line"
        )
    return Scan(records=len(files), vocabulary=tuple(sorted(names)), notes=tuple(notes))


def of_split(listing: Path, files: list[str]) -> list[str]:
    """Return the files that a list of ImageSets names, in the order of all files.

    Raises:
        DataError: it is not a list of names, or a file is missing.
    """
    try:
        lines = listing.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: not UTF-8 at byte {error.start}; save the list as UTF-8") from None
    wanted = {line.strip(): number for number, line in enumerate(lines, 1) if line.strip()}
    chosen = [file for file in files if wanted.pop(posixpath.splitext(file)[0].rpartition("/")[2], None) is not None]
    if wanted:
        name, number = next(iter(wanted.items()))
        raise DataError(
            f"{listing}, line {number}: there is no XML file named {short(name)} in the folder "
            f"({len(wanted):,} are missing); expected one name in each line, without its ending"
        )
    return chosen


def _first_pixel(options: Mapping[str, str]) -> int:
    return int(options.get("first_pixel", "1"))


class Reader:
    """Reads one scanned `voc` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._folder = inputs.annotation
        self._names = Names(inputs.work / _TABLE)
        self._units = own_units(inputs.options, "voc")
        self._first_pixel = _first_pixel(inputs.options) if self._units is None else 0
        chosen = DIFFICULT.index(inputs.options.get("difficult", "keep"))
        self._left_out = ("difficult", "truncated")[:chosen]

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        file = self._names[record_no]
        try:
            root = parse_annotation(self._folder / file)
            width_px, height_px = size_of(root)
            image_path, *elsewhere = _image_paths(file, root)
            return Record(
                record_no=record_no,
                image_path=image_path,
                width_px=width_px,
                height_px=height_px,
                units_per_side=self._units,
                regions=tuple(map(self._region, root.findall("object"))),
                image_elsewhere=tuple(elsewhere),
                tool_turns_images=True,  # LabelImg does
            )
        except Rejected as rejected:
            raise Rejected(rejected.reason, f"{file}: {rejected.detail}") from None

    def _region(self, item: Element) -> Region:
        name, (xmin, ymin, xmax, ymax) = _name(item), _numbers(item)
        shift = self._first_pixel
        box = (
            # An inverted box stays inverted, and is dropped: shifting could make it one without an area.
            (xmin - shift if xmin <= xmax else xmin, ymin - shift if ymin <= ymax else ymin, xmax, ymax)
        )
        return Region(phrase=name, box_xyxy_px=box, left_out=any(_marked(item, mark) for mark in self._left_out))


def parse_annotation(path: Path) -> Element:
    """Return the root of an XML file.

    Raises:
        Rejected: it is not XML, has a document type or entities, or is not an annotation.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise Rejected("bad_record", f"larger than {_MOST_BYTES >> 20} MiB")
    try:
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except DefusedXmlException:
        raise Rejected("bad_record", "has a document type or entities, which are not read; remove <!DOCTYPE") from None
    except (ParseError, ValueError, LookupError) as error:
        raise Rejected("bad_record", f"not XML that can be read ({short(str(error))}); save it as UTF-8") from None
    if root.tag != "annotation":
        raise Rejected("bad_record", f"expected an annotation, got {short(root.tag)}")
    return root


def _child(item: Element, tag: str) -> Element | None:
    """Return the only child with this tag, or None. The boxes of an object's parts are not children of the object."""
    children = item.findall(tag)
    if len(children) > 1:
        raise Rejected("bad_record", f"{item.tag}: has {len(children)} of {tag}, expected one")
    return children[0] if children else None


def text_of(item: Element, tag: str) -> str:
    """Return the text of a child; `""` if there is none."""
    child = _child(item, tag)
    if child is not None and len(child):
        raise Rejected("bad_record", f"{tag}: expected text, got elements")
    return "" if child is None else (child.text or "").strip()


def _name(item: Element) -> str:
    name = text_of(item, "name")
    if is_blank(name):
        raise Rejected("bad_record", "an object has no name")
    return name


def _numbers(item: Element) -> BoxXYXY:
    """Return xmin, ymin, xmax and ymax as they are written."""
    box = _child(item, "bndbox")
    if box is None:
        raise Rejected("bad_record", f"object {short(_name(item))} has no bndbox")
    xmin, ymin, xmax, ymax = (number_in(text_of(box, edge), edge) for edge in _EDGES)
    return xmin, ymin, xmax, ymax


def _marked(item: Element, mark: str) -> bool:
    text = text_of(item, mark).lower()
    if text and text not in _MARKS:
        raise Rejected("bad_record", f"{mark}: expected 0 or 1, got {short(text)}")
    return _MARKS.get(text, False)


def size_of(root: Element) -> tuple[int, int]:
    """Return the size that the file states; zeros if it states none, as LabelImg does for images it cannot read."""
    size = _child(root, "size")
    if size is None:
        return 0, 0
    width_px, height_px = (number_in(text_of(size, side), side) for side in ("width", "height"))
    if not width_px or not height_px:
        return 0, 0
    for side_px in (width_px, height_px):
        if not 0 < side_px <= _MAX_SIDE_PX or side_px != int(side_px):
            raise Rejected("bad_record", f"size: expected whole numbers of pixels above 0, got {side_px:g}")
    return int(width_px), int(height_px)


def _image_paths(file: str, root: Element) -> Iterator[str]:
    """Yield where the image may be, likeliest first.

    That is the image with the name of the XML file, as LabelImg, detectron2 and others pair them, because `filename`
    may lack its ending (ImageNet) or be from before a renaming.
    """
    folders, _, name = file.rpartition("/")
    stem = posixpath.splitext(name)[0]
    below = [folder for folder in folders.split("/") if folder and folder.lower() != "annotations"]
    stated = text_of(root, "filename").replace("\\", "/").rpartition("/")[2]
    ending = posixpath.splitext(stated)[1]
    suffixes = dict.fromkeys([ending] if ending.lower() in IMAGES else [])
    suffixes.update(dict.fromkeys(_SUFFIXES))
    first, *others = suffixes
    yield "/".join([*below, stem + first])
    yield "/".join(["JPEGImages", stem + first])
    yield from ("/".join([*below, stem + suffix]) for suffix in others)
    if ending.lower() in IMAGES and stated != stem + first:
        yield stated
