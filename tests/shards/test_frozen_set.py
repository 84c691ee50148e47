"""Reading a set by row and by key: what was frozen comes back, or an error that names shard and key."""

import gc
import resource
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import orjson
import pytest

from griffon_shards import DataError, FrozenSet, Sample, open_set
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME
from griffon_shards.lock import LOCK_NAME

HEADER_BYTES = 512


def flip(path: Path, offset: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def test_samples_are_those_of_the_annotations(frozen_set: Path, demo_data: Path) -> None:
    shards = open_set(frozen_set)
    records = [orjson.loads(line) for line in (demo_data / "ccmd/vg.jsonl").read_bytes().splitlines()]
    rows = shards.rows_of_source("VG_shapes")
    assert sorted(shards[row].origin.record for row in rows) == list(range(len(records)))
    for row in rows:
        sample = shards[row]
        record = records[sample.origin.record]
        assert sample.key == f"VG_shapes-{sample.origin.record:09d}"
        assert sample.origin.annotation == "ccmd/vg.jsonl"
        assert sample.image == (demo_data / "pictures" / record["image_path"]).read_bytes()
        assert (sample.width_px, sample.height_px) == (record["width"], record["height"])
        assert record["expression"] in sample.turns[0].text
        assert (sample.turns[-1].text == "None") == (not record["bboxes"])


def test_length_and_iteration_cover_every_sample_once(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    assert len(shards) == 288
    seen: list[Sample] = list(shards)  # type: ignore[call-overload]
    assert [sample.key for sample in seen] == [shards.key(row) for row in range(288)]
    assert len({sample.key for sample in seen}) == 288
    assert shards[-1] == seen[-1]
    with pytest.raises(IndexError):
        shards[288]


def test_the_order_of_a_source_is_shuffled(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    for source in shards.lock.sources:
        records = shards.index["record"][shards.rows_of_source(source.tag)].tolist()
        assert records != sorted(records)


def test_a_key_leads_to_its_row_and_back(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    for row in range(len(shards)):
        assert shards.row(shards.key(row)) == row


@pytest.mark.parametrize(
    "key",
    [
        "VG_shapes-000000060",
        "VG_shapes-5",
        "VG_shapes-0000000005",
        "VG_shapes--00000005",
        "VG_shapes-00000000x",
        "VG_shapes-٠٠٠٠٠٠٠٠٥",
        "VG-000000005",
        "VG_shapes",
        "VG_shapes-",
        "VG_shapes-99999999999999999999",
        "",
    ],
)
def test_an_unknown_key_is_refused_by_name(frozen_set: Path, key: str) -> None:
    with pytest.raises(DataError, match="no sample has the key") as caught:
        open_set(frozen_set).row(key)
    assert repr(key) in str(caught.value)


def test_sources_stand_together_in_the_order_of_the_manifest(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    tags = ["LAZY_caption", "LAZY_text", "DET_shapes", "RANDDET_shapes", "REG_shapes", "VG_shapes", "VISJ_shapes"]
    assert [source.tag for source in shards.lock.sources] == tags
    assert [row for tag in tags for row in shards.rows_of_source(tag)] == list(range(len(shards)))
    with pytest.raises(DataError, match="no source 'VG'; it has LAZY_caption, LAZY_text"):
        shards.rows_of_source("VG")


@pytest.fixture
def few_files() -> Iterator[None]:
    """This process may open 100 more files."""
    gc.collect()  # files of other tests
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 100, hard)
    )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def many_shards(tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path]) -> Path:
    """A set of 200 shards."""
    return write_set(tmp_path / "many", [make_sample(f"LAZY-{record:09d}", size_px=None) for record in range(400)])


def test_a_set_may_have_more_shards_than_a_process_may_open_files(few_files: None, many_shards: Path) -> None:
    shards = open_set(many_shards)
    assert len(shards.lock.shards) == 200
    assert [shards[row].key for row in range(400)] == [f"LAZY-{record:09d}" for record in range(400)]


def test_many_threads_read_what_one_reads(many_shards: Path) -> None:
    """All of them open every shard at about the same time, while others are closed; a race is met in a few rounds."""
    alone = list(open_set(str(many_shards)))[::2]  # type: ignore[call-overload]
    for _ in range(20):
        shards = open_set(many_shards)
        at_once = Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            for seen in pool.map(_read_even_rows, [shards] * 8, [at_once] * 8):
                assert seen == alone


def _read_even_rows(shards: FrozenSet, at_once: Barrier) -> list[Sample]:
    at_once.wait()
    return [shards[row] for row in range(0, len(shards), 2)]


def test_a_set_without_samples_is_a_set(tmp_path: Path, write_set: Callable[..., Path]) -> None:
    assert len(open_set(write_set(tmp_path / "none", []))) == 0


@pytest.mark.parametrize("part", ["picture", "json", "header", "padding"])
def test_a_damaged_sample_is_refused_by_shard_and_key_and_the_others_are_read(copy_of_set: Path, part: str) -> None:
    shards = open_set(copy_of_set)
    whole = [shards[row] for row in range(len(shards))]
    row = shards.rows_of_source("DET_shapes")[3]
    begin, size = int(shards.index[row]["offset"]), int(shards.index[row]["bytes"])
    offset = begin + {"header": 100, "picture": 512 + 40, "json": size - 600, "padding": size - 1}[part]
    name = "DET_shapes/DET_shapes-000000.tar"
    flip(copy_of_set / name, offset)
    damaged = open_set(copy_of_set)
    with pytest.raises(DataError) as caught:
        damaged[row]
    assert name in str(caught.value)
    assert shards.key(row) in str(caught.value)
    assert [damaged[other] for other in range(len(damaged)) if other != row] == whole[:row] + whole[row + 1 :]


def test_a_truncated_shard_gives_its_complete_samples_and_refuses_the_rest(copy_of_set: Path) -> None:
    shards = open_set(copy_of_set)
    rows = shards.rows_of_source("LAZY_text")
    tar = copy_of_set / "LAZY_text/LAZY_text-000000.tar"
    cut = int(shards.index[rows[7]]["offset"]) + 900
    tar.write_bytes(tar.read_bytes()[:cut])
    cut_short = open_set(copy_of_set)
    assert [cut_short[row].key for row in rows[:7]] == [shards.key(row) for row in rows[:7]]
    for row in rows[7:20]:
        with pytest.raises(DataError, match=rf"LAZY_text-000000\.tar, sample {shards.key(row)}: damaged"):
            cut_short[row]


def test_a_missing_shard_is_refused_by_name(copy_of_set: Path) -> None:
    (copy_of_set / "LAZY_text/LAZY_text-000001.tar").unlink()
    shards = open_set(copy_of_set)
    row = shards.rows_of_source("LAZY_text")[20]
    with pytest.raises(DataError, match=rf"LAZY_text-000001\.tar, sample {shards.key(row)}: the shard is missing"):
        shards[row]


def test_no_flipped_bit_of_a_shard_gives_wrong_data(small_set: Path) -> None:
    whole = list(open_set(small_set))  # type: ignore[call-overload]
    for entry in open_set(small_set).lock.shards:
        tar = small_set / entry.name
        data = tar.read_bytes()
        for offset in range(0, len(data), 23):
            flip(tar, offset, offset % 8)
            refused = _refused_or_equal(small_set, whole)
            assert len(refused) == (offset < len(data) - 1024), offset
            tar.write_bytes(data)


def test_no_flipped_bit_of_the_index_gives_wrong_data(small_set: Path) -> None:
    """Nor does it give the right data for a wrong key, or an IndexError, which would silently end a `for` loop."""
    whole = list(open_set(small_set))  # type: ignore[call-overload]
    path = small_set / INDEX_NAME
    data = path.read_bytes()
    refused_by_field: Counter[str] = Counter()
    assert INDEX_DTYPE.fields is not None
    starts = {at: name for name, (_, at, *_) in INDEX_DTYPE.fields.items()}
    tried = (0, 4, 7)
    places = [
        (HEADER_BYTES + INDEX_DTYPE.itemsize * row + at, at) for row in tried for at in range(INDEX_DTYPE.itemsize)
    ]
    for offset, at in places:
        field = starts[max(start for start in starts if start <= at)]
        for bit in range(8):
            flip(path, offset, bit)
            refused_by_field[field] += len(_refused_or_equal(small_set, whole))
            path.write_bytes(data)
    bits = {name: 8 * INDEX_DTYPE[name].itemsize * len(tried) for name in starts.values()}
    for name in ("shard", "offset", "bytes", "crc32", "record", "source"):
        assert refused_by_field[name] == bits[name], name


def _refused_or_equal(root: Path, whole: list[Sample]) -> list[int]:
    """The rows that are refused with a DataError; every other row must give what it gave when the set was complete."""
    shards = open_set(root)
    refused = []
    for row, expected in enumerate(whole):
        try:
            assert shards[row] == expected
            assert shards.key(row) == expected.key
        except DataError as error:
            assert str(root) in str(error)
            refused.append(row)
    return refused


def test_what_is_not_completely_frozen_is_refused(copy_of_set: Path) -> None:
    (copy_of_set / INDEX_NAME).rename(copy_of_set / "elsewhere.npy")
    with pytest.raises(DataError, match=rf"{INDEX_NAME}: missing"):
        open_set(copy_of_set)
    (copy_of_set / LOCK_NAME).unlink()
    with pytest.raises(DataError, match="not a frozen set"):
        open_set(copy_of_set)


def test_an_index_of_another_set_is_refused(small_set: Path, copy_of_set: Path) -> None:
    shutil.copy(small_set / INDEX_NAME, copy_of_set / INDEX_NAME)
    with pytest.raises(DataError, match="has 8 rows, expected the 288 samples of the lock"):
        open_set(copy_of_set)
