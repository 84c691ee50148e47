"""`verify` names every damage by shard and, where there is one, by sample, and finds nothing in a complete set."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from griffon_shards import Sample, open_set, verify_set
from griffon_shards.index import INDEX_NAME
from griffon_shards.lock import LOCK_NAME, REJECTS_NAME
from griffon_shards.tar import BLOCK

Cli = Callable[..., subprocess.CompletedProcess[str]]

SHARD = "VG_shapes/VG_shapes-000001.tar"
ROW_IN_SHARD = 4


def flip(path: Path, offset: int, bit: int = 3) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def row_of(root: Path) -> int:
    return open_set(root).rows_of_source("VG_shapes")[20 + ROW_IN_SHARD]


def key_of(root: Path) -> str:
    return open_set(root).key(row_of(root))


def flip_in_sample(part: str) -> Callable[[Path], list[str]]:
    """Flips a bit in one part of a sample in the middle of a shard; shard and key must be named."""

    def damage(root: Path) -> list[str]:
        shards = open_set(root)
        row, key = row_of(root), key_of(root)
        begin, size = int(shards.index[row]["offset"]), int(shards.index[row]["bytes"])
        image = shards[row].image
        assert image is not None
        json_header = begin + BLOCK + len(image) + -len(image) % BLOCK
        offset = {
            "name": begin + 3,
            "checksum": begin + 150,
            "picture": begin + BLOCK + len(image) // 2,
            "padding of the picture": json_header - 1,
            "header of the JSON": json_header + 130,
            "JSON": json_header + BLOCK + 20,
            "padding of the JSON": begin + size - 1,
        }[part]
        flip(root / SHARD, offset)
        return [f"{SHARD}, sample {key}: damaged", f"{SHARD}: its SHA-256"]

    return damage


def flip_end_of_archive(root: Path) -> list[str]:
    flip(root / SHARD, -1)
    return [f"{SHARD}: does not end with the two zero blocks of a tar", f"{SHARD}: its SHA-256"]


def flip_in(name: str, offset: int, *expected: str) -> Callable[[Path], list[str]]:
    def damage(root: Path) -> list[str]:
        flip(root / name, offset)
        return list(expected)

    return damage


def cut(root: Path) -> list[str]:
    shards, key = open_set(root), key_of(root)
    path = root / SHARD
    path.write_bytes(path.read_bytes()[: int(shards.index[row_of(root)]["offset"]) + 5])
    last = shards.key(shards.rows_of_source("VG_shapes")[39])
    return [f"{SHARD}: .* bytes, the lock says", f"{SHARD}, sample {key}: damaged", f"{SHARD}, sample {last}: damaged"]


def cut_one_byte(root: Path) -> list[str]:
    (root / SHARD).write_bytes((root / SHARD).read_bytes()[:-1])
    return [f"{SHARD}: .* bytes, the lock says .*: truncated or altered"]


def append(root: Path) -> list[str]:
    (root / SHARD).write_bytes((root / SHARD).read_bytes() + bytes(10240))
    return [f"{SHARD}: .* bytes, the lock says .*: truncated or altered"]


def swap_two_samples(root: Path) -> list[str]:
    """Both samples are complete, but not where the index says."""
    shards, row = open_set(root), row_of(root)
    data = (root / SHARD).read_bytes()
    begin = int(shards.index[row]["offset"])
    first, second = shards.raw(row), shards.raw(row + 1)
    end = begin + len(first) + len(second)
    (root / SHARD).write_bytes(data[:begin] + second + first + data[end:])
    return [f"{SHARD}, sample {shards.key(row)}: damaged", f"{SHARD}, sample {shards.key(row + 1)}: damaged"]


def remove(name: str, expected: str) -> Callable[[Path], list[str]]:
    def damage(root: Path) -> list[str]:
        (root / name).unlink()
        return [expected]

    return damage


def add_tar(name: str) -> Callable[[Path], list[str]]:
    def damage(root: Path) -> list[str]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((root / SHARD).read_bytes())
        return [f"{name}: not in the lock"]

    return damage


def add_lines(root: Path, *lines: str) -> None:
    with (root / REJECTS_NAME).open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def add_reject(root: Path) -> list[str]:
    add_lines(root, '{"source":"VG_shapes","record":1,"reason":"x","detail":""}')
    return [f"{REJECTS_NAME}: lists 1 record of VG_shapes as x, the lock counts 0"]


def add_rejects_of_a_stranger(root: Path) -> list[str]:
    add_lines(root, *['{"source":"VG_old","record":1,"reason":"x","detail":""}'] * 2)
    return [f"{REJECTS_NAME}: lists 2 records of 'VG_old', a source that is not in the lock"]


def add_no_reject(line: str) -> Callable[[Path], list[str]]:
    def damage(root: Path) -> list[str]:
        number = len((root / REJECTS_NAME).read_bytes().splitlines()) + 1
        add_lines(root, line)
        return [f"{REJECTS_NAME}: line {number} is damaged"]

    return damage


# Each damages a set and gives patterns of what must be said, one of each fault.
DAMAGES: dict[str, Callable[[Path], list[str]]] = {
    **{
        f"bit in {part}": flip_in_sample(part)
        for part in (
            "name",
            "checksum",
            "picture",
            "padding of the picture",
            "header of the JSON",
            "JSON",
            "padding of the JSON",
        )
    },
    "bit in end of archive": flip_end_of_archive,
    "bit in index header": flip_in(INDEX_NAME, 30, f"{INDEX_NAME}: damaged, its SHA-256"),
    "bit in padding of index header": flip_in(INDEX_NAME, 500, f"{INDEX_NAME}: damaged, its SHA-256"),
    "bit in index rows": flip_in(INDEX_NAME, 512 + 34 * 100 + 30, f"{INDEX_NAME}: damaged, its SHA-256"),
    "bit in last index row": flip_in(INDEX_NAME, -1, f"{INDEX_NAME}: damaged, its SHA-256"),
    "bit in offsets": flip_in(f"{SHARD}.idx", 9, rf"{SHARD}\.idx: its offsets do not match the shard"),
    "bit in end of offsets": flip_in(f"{SHARD}.idx", -1, rf"{SHARD}\.idx: its offsets do not match the shard"),
    **{
        f"bit in lock at {offset}": flip_in(LOCK_NAME, offset, LOCK_NAME) for offset in (0, 5, 100, 700, 2500, -200, -3)
    },
    "shard cut": cut,
    "shard cut by a byte": cut_one_byte,
    "shard with more": append,
    "samples swapped": swap_two_samples,
    "shard missing": remove(SHARD, f"{SHARD}: missing"),
    "offsets missing": remove(f"{SHARD}.idx", rf"{SHARD}\.idx: missing"),
    "rejects missing": remove(REJECTS_NAME, f"{REJECTS_NAME}: missing"),
    "rejects with more": add_reject,
    "rejects of another set's source": add_rejects_of_a_stranger,
    "a reject without its record": add_no_reject('{"source":"VG_shapes","reason":"x","detail":""}'),
    "a reject that is a list": add_no_reject("[1]"),
    "a reject of a list": add_no_reject('{"source":["VG_shapes"],"record":1,"reason":"x","detail":""}'),
    "index missing": remove(INDEX_NAME, f"{INDEX_NAME}: missing"),
    "lock missing": remove(LOCK_NAME, f"not a frozen set, it has no {LOCK_NAME}"),
    "tar too many": add_tar("VG_shapes/VG_shapes-000099.tar"),
    "tar at the top": add_tar("old.tar"),
    "tar in a folder of its own": add_tar("backup/VG_shapes-000001.tar"),
}


@pytest.mark.parametrize("deep", [False, True])
def test_a_complete_set_has_no_fault(frozen_set: Path, shards_cli: Cli, deep: bool) -> None:
    assert list(verify_set(frozen_set, deep=deep)) == []
    result = shards_cli("verify", frozen_set, *["--deep"] * deep)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("ok: every checksum")
    assert "288 samples in 18 shards" in result.stdout
    assert ("every answer" in result.stdout) == deep
    assert f"digest {open_set(frozen_set).lock.digest}\n" in result.stdout


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_every_damage_is_named(copy_of_set: Path, shards_cli: Cli, damage: Callable[[Path], list[str]]) -> None:
    whole_shards = {shard.name for shard in open_set(copy_of_set).lock.shards} - {SHARD}
    expected = damage(copy_of_set)
    faults = list(verify_set(copy_of_set))
    for pattern in expected:
        assert [fault for fault in faults if re.search(pattern, fault)], (pattern, faults)
    assert not [name for name in whole_shards if any(name in fault for fault in faults)]
    assert all(str(copy_of_set) in fault and "\n" not in fault for fault in faults)
    result = shards_cli("verify", copy_of_set)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"error: {fault}" for fault in faults]


def test_all_damaged_shards_are_named_not_only_the_first(copy_of_set: Path) -> None:
    names = [shard.name for shard in open_set(copy_of_set).lock.shards]
    for name in names[::2]:
        flip(copy_of_set / name, 700)
    assert [name for name in names if any(name in fault for fault in verify_set(copy_of_set))] == names[::2]


def test_no_flipped_bit_of_a_shard_goes_unnoticed(small_set: Path) -> None:
    for entry in open_set(small_set).lock.shards:
        tar = small_set / entry.name
        data = tar.read_bytes()
        for offset in range(0, len(data), 41):
            flip(tar, offset, offset % 8)
            assert any(entry.name in fault for fault in verify_set(small_set)), offset
        tar.write_bytes(data)


@pytest.mark.parametrize("what", ["an empty folder", "no folder", "a file"])
def test_what_is_not_a_set_is_refused(tmp_path: Path, shards_cli: Cli, what: str) -> None:
    root = tmp_path / "here"
    if what == "an empty folder":
        root.mkdir()
    if what == "a file":
        root.touch()
    (fault,) = verify_set(root)
    assert str(root) in fault
    result = shards_cli("verify", root)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {fault}\n")


def test_rejects_are_counted(
    tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path]
) -> None:
    root = write_set(tmp_path / "set", [make_sample()], rejected=3)
    assert list(verify_set(root)) == []
    kept = (root / REJECTS_NAME).read_bytes().splitlines(keepends=True)[:2]
    (root / REJECTS_NAME).write_bytes(b"".join(kept))
    (fault,) = verify_set(root)
    assert fault.endswith(f"{REJECTS_NAME}: lists 2 records of DET as picture_not_found, the lock counts 3")
    (root / REJECTS_NAME).write_bytes(b"".join([*kept, b"not json\n"]))
    assert f"{root / REJECTS_NAME}: line 3 is damaged" in list(verify_set(root))


@pytest.mark.parametrize(
    "name", ["wids.json", ".huggingface.yaml", ".nv-meta/.info.json", ".nv-meta/split.yaml", ".nv-meta/dataset.yaml"]
)
def test_what_others_read_is_checked_too(copy_of_set: Path, name: str) -> None:
    path = copy_of_set / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert list(verify_set(copy_of_set)) == [f"{path}: altered, its content is not what was frozen"]
    path.unlink()
    assert list(verify_set(copy_of_set)) == [f"{path}: missing"]


def test_json_for_programs(copy_of_set: Path, shards_cli: Cli) -> None:
    result = shards_cli("verify", copy_of_set, "--json", "--deep")
    digest = orjson.loads((copy_of_set / LOCK_NAME).read_bytes())["digest"]
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"ok": True, "deep": True, "digest": digest, "faults": []}
    flip(copy_of_set / SHARD, 700)
    result = shards_cli("verify", copy_of_set, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    faults = list(verify_set(copy_of_set))
    assert json.loads(result.stdout) == {"ok": False, "deep": False, "digest": None, "faults": faults}
