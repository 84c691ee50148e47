"""Published files as `.gz` and `.zst`, the files beside them too: the same records; and what is damaged is named."""

import gzip
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import zstandard

from griffon_prep.readers import FORMATS
from griffon_prep.records import Record
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_prep.sources.scan import scan_source
from griffon_shards.support.errors import DataError

from .published import box, coco, picture, ref, write

Pack = Callable[[bytes], bytes]
PACKS: dict[str, Pack] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
REFS = [ref(1, "left cat", "a cat"), ref(2, "dog")]
IMAGE_DATA = [{"image_id": 7, "width": 200, "height": 100, "url": "http://x/VG_100K/7.jpg"}]
GOOD: dict[str, tuple[str, Mapping[str, object]]] = {
    "coco": ("DET", {"instances.json": coco()}),
    "mdetr": ("VG", {"m.json": coco([picture(caption="left cat")], [box(tokens_positive=[])])}),
    "visual_genome": (
        "DET",
        {
            "objects.json": [{"image_id": 7, "objects": [{"x": 1, "y": 2, "w": 3, "h": 4, "names": ["cat"]}]}],
            "image_data.json": IMAGE_DATA,
        },
    ),
    "refcoco": ("REG", {"refs(unc).p": pickle.dumps(REFS), "instances.json": coco(None, [box(), box(2)])}),
}


def read(folder: Path, name: str, file: str) -> list[Record]:
    task = GOOD[name][0]
    line = ManifestLine(line_no=1, tag=task, task=task, annotation=file, image_root=".", options={})
    (source,) = find_sources([line], folder, "m.txt")
    assert source.format == name
    scanned = scan_source(source, dict.fromkeys(source.files, "0" * 64), folder / "work")
    reader = FORMATS[name].Reader(scanned.files)
    return [reader.read(number) for number in range(scanned.records)]


def write_packed(folder: Path, files: Mapping[str, object], suffixes: list[str], cut: str = "") -> None:
    """The files with these endings; of the one that is to be cut, the last bytes are missing."""
    write(folder, files)
    for name, suffix in zip(files, suffixes, strict=True):
        packed = PACKS[suffix]((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / (name + suffix)).write_bytes(packed[:-6] if name == cut else packed)


@pytest.mark.parametrize("annotation", PACKS)
@pytest.mark.parametrize("companion", PACKS)
@pytest.mark.parametrize("name", GOOD)
def test_compressed_or_not_the_records_are_the_same(tmp_path: Path, name: str, annotation: str, companion: str) -> None:
    files = GOOD[name][1]
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    for folder in (plain, packed):
        folder.mkdir()
    write(plain, files)
    write_packed(packed, files, [annotation, companion][: len(files)])
    expected = read(plain, name, next(iter(files)))
    assert expected
    assert read(packed, name, next(iter(files)) + annotation) == expected


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(("name", "cut"), [(name, file) for name, (_, files) in GOOD.items() for file in files])
def test_a_truncated_compressed_file_is_named(tmp_path: Path, name: str, cut: str, suffix: str) -> None:
    files = GOOD[name][1]
    write_packed(tmp_path, files, [suffix] * len(files), cut)
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, next(iter(files)) + suffix)
    assert f"{tmp_path / cut}{suffix}: damaged or truncated" in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", GOOD)
def test_a_file_truncated_before_compression_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    """The message gives the name that the user knows, not that of the uncompressed copy."""
    files = dict(GOOD[name][1])
    spoilt = list(files)[-1]
    whole = write(tmp_path, {spoilt: files[spoilt]}).read_bytes()
    write_packed(tmp_path, {**files, spoilt: whole[:-3]}, [suffix] * len(files))
    with pytest.raises(DataError) as caught:
        read(tmp_path, name, next(iter(files)) + suffix)
    assert f"{tmp_path / spoilt}{suffix}: truncated" in str(caught.value)
    assert "unpacked" not in str(caught.value)
