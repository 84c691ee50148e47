"""Recognises files that cannot be annotations by their first bytes, and says what to do about them."""

import re
from collections.abc import Iterable

LOOK_AT_BYTES = 512
"""Bytes needed from the start of a file."""

_ARCHIVE = "extract it and use the file inside"
_TABLE = "convert its rows to JSONL"
_AGAIN = "download the file again, from the URL of the file itself"
_FOREIGN = (
    (
        rb"(?:\xff\xfe\0\0|\0\0\xfe\xff|[\[{ \r\n]\0\0\0|\0\0\0[\[{ \r\n])",
        "text in UTF-32",
        "convert it with `iconv -t UTF-8`",
    ),
    (rb"(?:\xff\xfe|\xfe\xff|[\[{ \r\n]\0|\0[\[{ \r\n])", "text in UTF-16", "convert it with `iconv -t UTF-8`"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (
        rb"/annex/objects/|\.\./\S*\.git/annex/",
        "a git-annex pointer, not the file itself",
        "run `git annex get`",
    ),
    (rb"\s*(?i:<!doctype html|<html|<head|<body|<title)", "an HTML page", _AGAIN),
    (
        rb"(?s:\s*(?:<\?.*?\?>\s*)?<annotation\b)",
        "the annotation of one image in Pascal VOC's XML",
        "give the folder of all of them",
    ),
    (rb"\s*<", "XML or HTML", "expected JSON, JSONL, or RefCOCO's pickles; convert it"),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "a zip archive", _ARCHIVE),
    (rb"(?s:.{257})ustar", "a tar archive", _ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
    (rb"Rar!\x1a\x07", "a rar archive", _ARCHIVE),
    (rb"\x1f\x8b", "still compressed with gzip after decompression", _ARCHIVE),
    (rb"\x28\xb5\x2f\xfd", "still compressed with zstd after decompression", _ARCHIVE),
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2", "decompress it with `bunzip2`; .gz and .zst are read directly"),
    (rb"\xfd7zXZ\0", "compressed with xz", "decompress it with `unxz`; .gz and .zst are read directly"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4", "decompress it with `unlz4`; .gz and .zst are read directly"),
    (rb"PAR1|PARE", "a Parquet file", _TABLE),
    (rb"ARROW1|FEA1|\xff\xff\xff\xff.{3}\0", "an Arrow file", _TABLE),
    (rb"SQLite format 3\0", "an SQLite database", _TABLE),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _TABLE),
    (rb"\x93NUMPY", "a NumPy array", _TABLE),
    (rb"%PDF-", "a PDF file", _AGAIN),
    (
        rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|II\*\0|MM\0\*|RIFF.{4}WEBP|BM.{4}\0{4}",
        "an image",
        "the annotation comes first in a manifest line, the image root second",
    ),
    (rb"\0{16}", "zero bytes, as an unfinished download leaves them", _AGAIN),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), what, remedy) for pattern, what, remedy in _FOREIGN)


def foreign_kind(start: bytes) -> str | None:
    """Describe a file by its first bytes, with a remedy; None if it may be JSON, JSONL or a pickle."""
    return next((f"{what}; {remedy}" for pattern, what, remedy in _PATTERNS if pattern.match(start)), None)


_AS_COCO = "export the annotations as COCO"
_AS_LLAVA = "convert it to LLaVA's conversations of from and value"
_MAKES = (
    ({"_via_img_metadata"}, f"a VGG Image Annotator project; {_AS_COCO}"),
    ({"shapes", "imagePath"}, "labelme's annotations of one image; give the folder of all of them"),
    ({"id", "data", "annotations"}, f"annotations in Label Studio's own format; {_AS_COCO}"),
    ({"categories", "items"}, f"annotations in Datumaro's own format; {_AS_COCO}"),
    ({"image", "annotations"}, f"annotations for CreateML; {_AS_COCO}"),
    (
        {"image_id", "category_id"},
        "COCO's annotations or results only; use the complete COCO file, which has images too",
    ),
    ({"instruction", "output"}, f"instructions in Alpaca's format; {_AS_LLAVA}"),
    ({"question", "answer"}, f"questions and answers; {_AS_LLAVA}"),
)
"""Formats of other tools, by the members of their objects."""

_IMAGE_NAME = re.compile(r".+\.(?:jpe?g|png|bmp|tiff?|webp)(?:-?\d+)?", re.IGNORECASE)


def other_make(keys: Iterable[str]) -> str | None:
    """Describe another tool's JSON file by the keys of its object or first element, with a remedy; None if unknown."""
    present = set(keys)
    if present and all(map(_IMAGE_NAME.fullmatch, present)):
        return f"an object keyed by image names, as the VGG Image Annotator's own JSON; {_AS_COCO}"
    return next((what for members, what in _MAKES if members <= present), None)
