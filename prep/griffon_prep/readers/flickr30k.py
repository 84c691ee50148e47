"""The `flickr30k` format: Flickr30k Entities as published, a folder with `Sentences/` and `Annotations/`.

A sentence marks its phrases with the chain of each, `[/EN#283585/people Two young guys]`; the XML file of the same name
has the boxes of every chain. A record is a phrase of an image with all boxes of its chain. A phrase that several
sentences have, or that is of several chains, is one record with all their boxes: the question would be the same.

Pixels are counted from 1, and 1 is subtracted from all four edges, as `get_annotations` of the publishers does
(flickr30k_entities_utils.py).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

import orjson

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.fields import box_of, list_field, short, text_field
from griffon_prep.readers.folders import files_below
from griffon_prep.readers.jsonscan.records import JsonRecords, scan_json
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.readers.voc import of_split, parse_annotation, size_of, text_of
from griffon_prep.readers.written_numbers import number_in
from griffon_prep.records import Record, Region, Rejected, is_blank
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import whole_file
from griffon_shards.support.tables import counted
from griffon_shards.types import BoxXYXY

TASKS = ("VG",)
OPTIONS = ("split", "rounds")
COMPANIONS = ()
EXAMPLES = {
    "Sentences/1000092795.txt": """\
[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] look at [/EN#3/bodyparts their hands] .
[/EN#1/people Two men] are standing in [/EN#4/scene a garden] .
""",
    "Annotations/1000092795.xml": """\
<annotation>
  <filename>1000092795.jpg</filename>
  <size><width>333</width><height>500</height><depth>3</depth></size>
  <object><name>1</name><bndbox><xmin>78</xmin><ymin>81</ymin><xmax>215</xmax><ymax>500</ymax></bndbox></object>
  <object><name>1</name><bndbox><xmin>184</xmin><ymin>1</ymin><xmax>333</xmax><ymax>500</ymax></bndbox></object>
  <object><name>2</name><bndbox><xmin>122</xmin><ymin>81</ymin><xmax>170</xmax><ymax>140</ymax></bndbox></object>
  <object><name>3</name><name>2</name>
    <bndbox><xmin>100</xmin><ymin>200</ymin><xmax>150</xmax><ymax>260</ymax></bndbox></object>
  <object><name>4</name><scene>1</scene><nobndbox>1</nobndbox></object>
</annotation>
""",
}
SENTENCES, ANNOTATIONS = "Sentences", "Annotations"
_SPLIT = "split"
_ROWS, _TABLE = "records.jsonl", "spans.bin"
_MOST_BYTES = 1 << 20
_PHRASE = re.compile(r"\[/EN#([0-9]+)(?:/[^\s/\]]+)+ ([^\[\]]+)\]")
_MARK = re.compile(r"/EN#|[\[\]]")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def recognises(head: Head) -> bool:
    """Whether a folder with this first file has this format."""
    return head.member == "folder of sentences"


def further_inputs(annotation: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the list of the images of the split (`train.txt`, as published), if the manifest line names one.

    Raises:
        SettingsError: there is no such list.
    """
    if _SPLIT not in options:
        return {}
    name = f"{options[_SPLIT].removesuffix('.txt')}.txt"
    for folder in (annotation, annotation.parent):
        if "/" not in name and (folder / name).is_file():
            return {_SPLIT: folder / name}
    raise SettingsError(f"{annotation}: split={options[_SPLIT]}: there is no {name} in this folder or beside it")


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the phrases of all images, with their boxes, into the work folder."""
    files = files_below(inputs.annotation / SENTENCES, frozenset({".txt"}))
    if _SPLIT in inputs.companions:
        files = of_split(inputs.companions[_SPLIT], files)
    round_keys = RoundKeys(inputs.task)
    without_box = 0
    with whole_file(inputs.work / _ROWS) as out:
        for file in files:
            try:
                size_px, by_phrase, skipped = _phrases_of(inputs.annotation, file)
            except Rejected as rejected:
                reject = {"reason": rejected.reason, "rejected": f"{file}: {rejected.detail}"}
                out.write(orjson.dumps(reject) + b"\n")
                round_keys.add(image_key(file.encode()), None, [])
                continue
            without_box += skipped
            for phrase, boxes in by_phrase.items():
                row = {"file": file, "size": size_px, "phrase": phrase, "boxes": boxes}
                out.write(orjson.dumps(row) + b"\n")
                round_keys.add(image_key(file.encode()), phrase, boxes)
    notes = (f"{counted(without_box, 'phrase')} skipped for lack of a box",) if without_box else ()
    return Scan(records=scan_json(inputs.work / _ROWS, inputs.work / _TABLE, None), round_keys=round_keys, notes=notes)


class Reader:
    """Reads one scanned `flickr30k` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.work / _ROWS, inputs.work / _TABLE)

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, _ = self._records[record_no]
        if "rejected" in fields:
            raise Rejected(fields["reason"], fields["rejected"])
        phrase = text_field(fields, "phrase")
        width_px, height_px = fields["size"]
        return Record(
            record_no=record_no,
            image_path=fields["file"].removesuffix(".txt") + ".jpg",
            width_px=width_px,
            height_px=height_px,
            regions=tuple(
                Region(phrase=phrase, box_xyxy_px=box_of(box, "bndbox")) for box in list_field(fields, "boxes")
            ),
        )


def _phrases_of(folder: Path, file: str) -> tuple[tuple[int, int], dict[str, list[BoxXYXY]], int]:
    """Return the size of an image, the boxes of each of its phrases, and the number of phrases without a box.

    Raises:
        Rejected: the sentences or the boxes cannot be read.
    """
    phrases: dict[str, dict[str, None]] = {}
    for phrase, chain in _marked_phrases(folder / SENTENCES / file):
        phrases.setdefault(phrase, {})[chain] = None
    annotation = folder / ANNOTATIONS / f"{file.removesuffix('.txt')}.xml"
    if not annotation.is_file():
        raise Rejected("bad_record", f"there is no {ANNOTATIONS}/{annotation.name}")
    root = parse_annotation(annotation)
    boxes_of = _boxes_by_chain(root)
    by_phrase = {
        # A box may be of several chains of a phrase.
        phrase: list(dict.fromkeys(box for chain in chains for box in boxes_of.get(chain, ())))
        for phrase, chains in phrases.items()
    }
    with_boxes = {phrase: boxes for phrase, boxes in by_phrase.items() if boxes}
    return size_of(root), with_boxes, len(by_phrase) - len(with_boxes)


def _marked_phrases(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the marked phrases of a file of sentences, each with its chain."""
    if path.stat().st_size > _MOST_BYTES:
        raise Rejected("bad_record", f"larger than {_MOST_BYTES >> 20} MiB")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Rejected("bad_record", f"not UTF-8 at byte {error.start}") from None
    for line_no, line in enumerate(text.split("\n"), 1):
        if _MARK.search(_PHRASE.sub("", line)):
            raise Rejected(
                "bad_record", f"line {line_no}: expected phrases like [/EN#1/people Two men], got {short(line)}"
            )
        for match in _PHRASE.finditer(line):
            phrase = " ".join(match[2].split())
            if is_blank(phrase):
                raise Rejected("bad_record", f"line {line_no}: a phrase of {short(line)} is blank")
            yield phrase, str(int(match[1]))


def _boxes_by_chain(root: Element) -> dict[str, list[BoxXYXY]]:
    """Return the boxes of each chain; a box may be of several."""
    boxes: dict[str, list[BoxXYXY]] = {}
    for item in root.findall("object"):
        names = [(name.text or "").strip() for name in item.findall("name")]
        if not names or not all(name.isascii() and name.isdecimal() for name in names):
            raise Rejected("bad_record", f"an object has the names {short(names)}, expected numbers of chains")
        found = item.findall("bndbox")
        if not found:
            if text_of(item, "nobndbox") != "1" and text_of(item, "scene") != "1":
                raise Rejected("bad_record", f"object {names[0]} has neither bndbox nor nobndbox")
            continue
        for box in found:
            x1, y1, x2, y2 = (number_in(text_of(box, edge), edge) - 1 for edge in _EDGES)
            for name in dict.fromkeys(str(int(name)) for name in names):
                boxes.setdefault(name, []).append((x1, y1, x2, y2))
    return boxes
