"""The lock: its digest is pinned, says what was frozen and nothing else, and an altered lock is refused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from griffon_shards.lock import LOCK_NAME, Lock, ShardEntry, SourceEntry, read_lock, write_lock
from griffon_shards.support.errors import DataError

SOURCE = SourceEntry(
    tag="DET_猫",
    task="DET",
    format="ccmd",
    annotation="注释/det.jsonl",
    annotation_bytes=12345,
    annotation_sha256="ab" * 32,
    options={"limit": "10"},
    records=12,
    samples=9,
    rejected={"size_mismatch": 1, "picture_not_found": 2},
    weight="1/2",
)
SHARD = ShardEntry(name="DET_0/DET_0-000000.tar", samples=9, bytes=4096, sha256="cd" * 32, dropped_boxes={"outside": 3})
LOCK = Lock(
    tool_version="0.1.0",
    library_versions={"pillow": "13.0.0", "numpy": "2.4.6"},
    render={"seed": 0, "boxes": "text", "samples_per_shard": [1000, 10000]},
    sources=(SOURCE,),
    shards=(SHARD,),
    index_sha256="ef" * 32,
)
PINNED = "08834e0a6b86099eaa6545c868d9e5ac7849ff9bcdf55efbc79961bbdbaea52d"


def with_source(**changes: object) -> Lock:
    changed = replace(SOURCE, **changes)  # type: ignore[arg-type]
    return replace(LOCK, sources=(changed,))


def with_shard(**changes: object) -> Lock:
    changed = replace(SHARD, **changes)  # type: ignore[arg-type]
    return replace(LOCK, shards=(changed,))


def test_the_digest_is_pinned() -> None:
    assert LOCK.computed_digest() == PINNED


def test_the_digest_is_the_hash_of_canonical_json() -> None:
    fields = asdict(LOCK)
    for name in ("digest", "tool_version", "library_versions"):
        del fields[name]
    for name in ("weight", "companions", "excluded"):  # a source without companions or lists has no such field
        del fields["sources"][0][name]
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == PINNED


@pytest.mark.parametrize(
    "other",
    [
        with_source(weight="7"),
        replace(LOCK, tool_version="9.9.9"),
        replace(LOCK, library_versions={}),
        replace(LOCK, digest="0" * 64),
        replace(LOCK, render=dict(reversed(list(LOCK.render.items())))),
        with_source(rejected={"picture_not_found": 2, "size_mismatch": 1}),
    ],
)
def test_weights_versions_and_the_order_of_names_leave_the_digest(other: Lock) -> None:
    assert other.computed_digest() == PINNED


@pytest.mark.parametrize(
    "other",
    [
        replace(LOCK, format_version=2),
        replace(LOCK, render={**LOCK.render, "seed": 1}),
        replace(LOCK, sources=()),
        replace(LOCK, sources=(SOURCE, SOURCE)),
        replace(LOCK, shards=()),
        replace(LOCK, index_sha256="00" * 32),
        *(
            with_source(**{name: value})
            for name, value in {
                "tag": "DET_1",
                "task": "VG",
                "format": "coco",
                "annotation": "det.jsonl",
                "annotation_bytes": 1,
                "annotation_sha256": "00" * 32,
                "options": {},
                "records": 13,
                "samples": 8,
                "rejected": {"size_mismatch": 2, "picture_not_found": 1},
            }.items()
        ),
        *(
            with_shard(**{name: value})
            for name, value in {
                "name": "DET_0/DET_0-000001.tar",
                "samples": 8,
                "bytes": 4097,
                "sha256": "00" * 32,
                "dropped_boxes": {"outside": 4},
            }.items()
        ),
    ],
)
def test_everything_else_changes_the_digest(other: Lock) -> None:
    assert other.computed_digest() != PINNED


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_lock(tmp_path, LOCK)
    assert written == replace(LOCK, digest=PINNED)
    assert read_lock(tmp_path) == written
    assert json.loads((tmp_path / LOCK_NAME).read_text(encoding="utf-8"))["digest"] == PINNED


def test_a_lock_holds_no_absolute_path_no_host_and_no_clock(
    frozen_set: Path, tmp_path: Path, freeze_demo: Callable[..., Path]
) -> None:
    """The same data frozen elsewhere and later give the same file, not only the same digest."""
    again = freeze_demo(tmp_path / "again", "--samples-per-shard", "20", "--workers", "1")
    assert (again / LOCK_NAME).read_bytes() == (frozen_set / LOCK_NAME).read_bytes()


def test_a_flipped_bit_in_any_byte_that_the_digest_covers_is_refused(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    path = tmp_path / LOCK_NAME
    whole = path.read_bytes()
    left_out = [b'"weight": "1/2"', b'"tool_version": "0.1.0"', b'"numpy": "2.4.6"', b'"pillow": "13.0.0"']
    skipped = {offset for part in left_out for offset in range(whole.index(part), whole.index(part) + len(part))}
    assert len(skipped) < len(whole) / 8
    for offset in sorted(set(range(len(whole))) - skipped):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=LOCK_NAME):
            read_lock(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", '{"format_version": 1}', '{"format_version": 2}'])
def test_what_is_not_a_lock_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    with pytest.raises(DataError, match=LOCK_NAME):
        read_lock(tmp_path)


def test_a_lock_of_another_format_version_is_named(tmp_path: Path) -> None:
    write_lock(tmp_path, replace(LOCK, format_version=2))
    with pytest.raises(DataError, match="format_version is not 1"):
        read_lock(tmp_path)


def test_a_lock_altered_by_hand_is_named_with_both_digests(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    path = tmp_path / LOCK_NAME
    path.write_text(path.read_text(encoding="utf-8").replace('"samples": 9', '"samples": 8'), encoding="utf-8")
    with pytest.raises(DataError, match=rf"altered, its content has digest [0-9a-f]{{64}}, it states {PINNED}"):
        read_lock(tmp_path)


def test_a_missing_field_and_one_too_many_are_named(tmp_path: Path) -> None:
    fields = asdict(write_lock(tmp_path, LOCK))
    for damaged in ({**fields, "more": 1}, {name: value for name, value in fields.items() if name != "shards"}):
        (tmp_path / LOCK_NAME).write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=r"damaged, .*(more|shards)"):
            read_lock(tmp_path)


def test_folders_that_are_no_set_are_distinguished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a frozen set, it has no"):
        read_lock(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read_lock(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no such folder"):
        read_lock(tmp_path / "file")
