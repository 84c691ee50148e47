"""What a file is that cannot be an annotation, told by how it begins, and what to do about it."""

import re
from collections.abc import Iterable

LOOK_AT_BYTES = 512
"""How much of a file's start is needed."""

_ARCHIVE = "unpack it and give the file inside"
_TABLE = "write its rows as JSONL"
_AGAIN = "fetch the file again, from the address of the file itself"
_FOREIGN = (
    (
        rb"(?:\xff\xfe\0\0|\0\0\xfe\xff|[\[{ \r\n]\0\0\0|\0\0\0[\[{ \r\n])",
        "text in UTF-32",
        "`iconv -t UTF-8` writes UTF-8",
    ),
    (rb"(?:\xff\xfe|\xfe\xff|[\[{ \r\n]\0|\0[\[{ \r\n])", "text in UTF-16", "`iconv -t UTF-8` writes UTF-8"),
    (rb"version https://git-lfs", "a Git LFS pointer and not the file", "`git lfs pull` fetches the file"),
    (
        rb"/annex/objects/|\.\./\S*\.git/annex/",
        "a git-annex pointer and not the file",
        "`git annex get` fetches the file",
    ),
    (rb"\s*(?i:<!doctype html|<html|<head|<body|<title)", "an HTML page", _AGAIN),
    (rb"\s*<", "XML or HTML", "expected JSON, JSONL, or RefCOCO's pickles; convert it"),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "a zip archive", _ARCHIVE),
    (rb"(?s:.{257})ustar", "a tar archive", _ARCHIVE),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _ARCHIVE),
    (rb"Rar!\x1a\x07", "a rar archive", _ARCHIVE),
    (rb"\x1f\x8b", "packed with gzip once more", _ARCHIVE),
    (rb"\x28\xb5\x2f\xfd", "packed with zstd once more", _ARCHIVE),
    (rb"BZh[1-9]1AY&SY", "packed with bzip2", "`bunzip2` unpacks it; .gz and .zst are read as they are"),
    (rb"\xfd7zXZ\0", "packed with xz", "`unxz` unpacks it; .gz and .zst are read as they are"),
    (rb"\x04\x22\x4d\x18", "packed with lz4", "`unlz4` unpacks it; .gz and .zst are read as they are"),
    (rb"PAR1|PARE", "a Parquet file", _TABLE),
    (rb"ARROW1|FEA1|\xff\xff\xff\xff.{3}\0", "an Arrow file", _TABLE),
    (rb"SQLite format 3\0", "an SQLite database", _TABLE),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", _TABLE),
    (rb"\x93NUMPY", "a NumPy array", _TABLE),
    (rb"%PDF-", "a PDF file", _AGAIN),
    (
        rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|II\*\0|MM\0\*|RIFF.{4}WEBP|BM.{4}\0{4}",
        "a picture",
        "the annotation comes first, the image root second",
    ),
    (rb"\0{16}", "empty space, as an unfinished download leaves it", _AGAIN),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), what, remedy) for pattern, what, remedy in _FOREIGN)


def foreign_kind(start: bytes) -> str | None:
    """What a file that begins so is, and how to get at what is wanted; None if it may be JSON, JSONL or a pickle."""
    return next((f"{what}; {remedy}" for pattern, what, remedy in _PATTERNS if pattern.match(start)), None)


_AS_COCO = "export them as COCO"
_MAKES = (
    ({"_via_img_metadata"}, f"a project of the VGG Image Annotator, whose annotations it exports as COCO; {_AS_COCO}"),
    ({"shapes", "imagePath"}, "labelme's annotations of one picture; labelme2coco makes one COCO file of all"),
    ({"id", "data", "annotations"}, f"annotations as Label Studio keeps them; {_AS_COCO}"),
    ({"categories", "items"}, f"annotations as Datumaro keeps them; {_AS_COCO}"),
    ({"image", "annotations"}, f"annotations for CreateML; {_AS_COCO}"),
    (
        {"image_id", "category_id"},
        "COCO's annotations or results alone; give the file that has images, too",
    ),
    ({"messages"}, "conversations as messages of role and content; LLaVA has them as conversations of from and value"),
    ({"instruction", "output"}, "instructions as Alpaca has them; LLaVA has them as conversations of from and value"),
    ({"question", "answer"}, "questions and answers; LLaVA has them as conversations of from and value"),
)
"""Files of other tools, by members that their objects have."""

_IMAGE_NAME = re.compile(r".+\.(?:jpe?g|png|bmp|tiff?|webp)(?:-?\d+)?", re.IGNORECASE)


def other_make(keys: Iterable[str]) -> str | None:
    """What a JSON file of other tools is whose object, or first element, has these members, and what to do with it."""
    found = set(keys)
    if found and all(map(_IMAGE_NAME.fullmatch, found)):
        return f"an object by pictures' names, as the VGG Image Annotator's own JSON; {_AS_COCO}"
    return next((what for members, what in _MAKES if members <= found), None)
