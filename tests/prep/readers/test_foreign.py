"""Files that are not annotations are identified, whatever their names; compression is recognised by content."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from PIL import Image

from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_shards.support.errors import DataError

from ..sources.test_scan import ARRAY, LINES, read, scan, scanned_source
from .published import box, coco, picture, ref


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.json", ARRAY)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.json"))
    return out.getvalue()


def database(folder: Path) -> bytes:
    path = folder / "x.db"
    connection = sqlite3.connect(path)
    connection.execute("create table a (b)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def in_image(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 9)).save(out, kind)
    return out.getvalue()


def as_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n"
TEXT = ARRAY.decode()
FOREIGN: dict[str, tuple[bytes, str]] = {
    **{
        f"{coding} of {start}": (text.encode(coding), f"is text in {coding[:6].upper()}; convert it with `iconv")
        for coding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")
        for start, text in (("an array", TEXT), ("lines", LINES.decode()), ("blanks", "\n " + TEXT))
    },
    "zip": (zipped(), "is a zip archive; extract it"),
    "tar": (tarred(), "is a tar archive; extract it"),
    "bzip2": (bz2.compress(ARRAY), "is compressed with bzip2; decompress it with `bunzip2`"),
    "xz": (lzma.compress(ARRAY), "is compressed with xz; decompress it with `unxz`"),
    "gzip twice": (gzip.compress(gzip.compress(ARRAY)), "is still compressed with gzip"),
    "zstd in gzip": (gzip.compress(zstandard.compress(ARRAY)), "is still compressed with zstd"),
    "tar.gz": (gzip.compress(tarred()), "is a tar archive; extract it"),
    "encrypted Parquet": (b"PARE\x15\x04\x15 \x15$L", "is a Parquet file; convert its rows to JSONL"),
    "Arrow": (b"ARROW1\0\0\xff\xff\xff\xff", "is an Arrow file; convert its rows to JSONL"),
    "Arrow's stream": (b"\xff\xff\xff\xff\xb0\x01\0\0\x10\0\0\0", "is an Arrow file"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is an HTML page; download the file again"),
    "HTML behind blanks": (b'\r\n  <HTML lang="en"><head>', "is an HTML page; download the file again"),
    "XML": (b'<?xml version="1.0"?><boxes><folder>x', "is XML or HTML; expected JSON"),
    "Pascal VOC": (
        b"<annotation>\n\t<folder>VOC2012</folder>",
        "is the annotation of one image in Pascal VOC's XML; give the folder of all",
    ),
    "LFS": (LFS, "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
    "annex": (b"/annex/objects/SHA256E-s132--4d7a.json\n", "is a git-annex pointer"),
    "NumPy": (as_array(), "is a NumPy array"),
    **{kind: (in_image(kind), "is an image; the annotation comes first") for kind in ("JPEG", "PNG", "WEBP", "GIF")},
    "PDF": (b"%PDF-1.7\n", "is a PDF file"),
    "nothing but NUL": (bytes(5000), "is zero bytes, as an unfinished download leaves them"),
    "pickle": (pickle.dumps([{"id": 1}]), "is a pickle"),
    "empty": (b"", "has no records, the file is empty; download it again"),
    "blank": (b"\xef\xbb\xbf \r\n\n", "has no records, the file is empty; download it again"),
    "packed and empty": (gzip.compress(b""), "has no records, the file is empty; download it again"),
}


@pytest.mark.parametrize("options", [{}, {"format": "llava"}], ids=["by content", "by name"])
@pytest.mark.parametrize("name", FOREIGN)
def test_an_invalid_annotation_is_named(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    content, message = FOREIGN[name]
    for file in ("a.json", "a.json.gz", "refs(unc).p"):
        with pytest.raises(DataError) as caught:
            scan(tmp_path, file, content, **options)
        assert str(caught.value).startswith(f"m.txt:1: LAZY_x: {tmp_path / file}: {message}")
        assert "\n" not in str(caught.value)


def test_a_database_is_identified(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: is an SQLite database; convert its rows to JSONL"):
        scan(tmp_path, "a.json", database(tmp_path))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("companion", ["instances.json", "image_data.json"])
def test_an_invalid_companion_is_named(tmp_path: Path, companion: str, name: str, packed: bool) -> None:
    content, message = FOREIGN[name]
    of_genome = companion == "image_data.json"
    annotation = json.dumps([{"id": 1, "regions": []}]).encode() if of_genome else pickle.dumps([ref(1, "a")])
    file = companion + ".gz" * packed
    (tmp_path / file).write_bytes(gzip.compress(content) if packed and content[:2] != b"\x1f\x8b" else content)
    with pytest.raises(DataError) as caught:
        scan(tmp_path, "a", annotation, "VG")
    assert f"{tmp_path / file}: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("task", "name"), [("LAZY", ""), ("DET", ""), ("VG", "coco"), ("VG", "ccmd"), ("REG", "visual_genome")]
)
def test_a_pickle_is_read_as_references_only(tmp_path: Path, task: str, name: str) -> None:
    (tmp_path / "instances.json").write_text(json.dumps(coco([picture(7)], [box(1, 7)])), encoding="utf-8")
    content = pickle.dumps([ref(1, "a")])
    assert scan(tmp_path, "a.json", content, "VG").source.format == "refcoco"
    with pytest.raises(DataError, match="the only supported pickles are RefCOCO references, for the tasks REG and VG"):
        scan(tmp_path, "a.json", content, task, **({"format": name} if name else {}))


@pytest.mark.parametrize("content", [ARRAY, LINES], ids=["array", "lines"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("name", ["a.json", "a", "a.json.gz", "a.json.zst", "a.gz.json"])
def test_compression_is_recognised_by_content(tmp_path: Path, content: bytes, pack: Any, name: str) -> None:  # noqa: ANN401
    """Browsers unpack a .gz and keep its name; others leave the name without its ending."""
    scanned = scan(tmp_path, name, pack(content))
    assert [record.turns[0].text for record in read(scanned)] == [f"{number}猫" for number in range(300)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_compression_of_a_companion_is_recognised_by_content(tmp_path: Path, pack: Any, suffix: str) -> None:  # noqa: ANN401
    instances = json.dumps(coco([picture(7)], [box(1, 7)])).encode()
    (tmp_path / f"instances.json{suffix}").write_bytes(pack(instances))
    (tmp_path / "refs.p").write_bytes(pickle.dumps([ref(1, "a cat", image_id=7)]))
    line = ManifestLine(line_no=1, tag="VG", task="VG", annotation="refs.p", image_root=".", options={})
    (source,) = find_sources([line], tmp_path, "m.txt")
    scanned = scanned_source(source, tmp_path / "work")
    assert scanned.records == 1
