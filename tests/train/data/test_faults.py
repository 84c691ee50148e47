"""Damage in a set ends a run with the shard and the key; what was given before is right, and nothing is skipped."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError
from griffon_train.data.dry_read import RankSettings, ReadSample, hashed, read_steps
from griffon_train.data.loader import Loader
from griffon_train.data.plan import Plan

from ..conftest import Run
from ..damage import cut_short, flip_bit, late_shard, remove, shard_of, stall

GLOBAL_BATCH = 6
READ = ("--global-batch", GLOBAL_BATCH, "--image-px", 32, "--json")


def plan_of(root: Path) -> Plan:
    return Plan([open_set(root)], seed=0, global_batch=GLOBAL_BATCH)


@pytest.fixture(scope="module")
def whole(frozen_set: Path) -> list[ReadSample]:
    """The samples of the undamaged set, from step 0 on."""
    settings = RankSettings(world_size=1, micro_batch=1, workers=0, start=0, stop=20, image_px=32, stall_s=60)
    return [sample for step in read_steps(plan_of(frozen_set), settings) for sample in step]


def test_a_flipped_bit_anywhere_in_a_sample_is_found(copy_of_set: Path) -> None:
    plan = plan_of(copy_of_set)
    for i in range(0, 40, 8):
        row = int(plan.step(i).rows[1])
        for offset in (0.001, 0.2, 0.5, 0.9, 0.9999):
            where = flip_bit(copy_of_set, row, offset)
            with pytest.raises(DataError) as refused:
                list(Loader(plan, micro_batch=2, workers=0, start=i, stop=i + 1, image_px=8))
            assert str(refused.value).startswith(f"{where}: damaged")
            flip_bit(copy_of_set, row, offset)  # back


FROZEN = "damaged, its bytes do not match their checksum in the index"
DAMAGE: dict[str, tuple[Callable[[Path, int], str], str, int]] = {
    "a flipped bit, found by a worker": (flip_bit, FROZEN, 2),
    "a flipped bit, found by a rank": (flip_bit, FROZEN, 0),
    "a shard cut short": (cut_short, FROZEN, 1),
    "a missing shard": (remove, "the shard is missing", 1),
}


@pytest.mark.parametrize(("damage", "message", "workers"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_and_what_came_before_is_right(
    train: Run,
    copy_of_set: Path,
    whole: list[ReadSample],
    damage: Callable[[Path, int], str],
    message: str,
    workers: int,
) -> None:
    step, row = late_shard(plan_of(copy_of_set))
    where = damage(copy_of_set, row)
    ended = train("read", copy_of_set, *READ, "--steps", 20, "--workers", workers, "--world-size", 2)
    assert ended.returncode == 1
    assert re.fullmatch(rf"error: rank [01]: {re.escape(where)}: {message}.*\n", ended.stderr)
    assert samples_in(ended.stdout) == whole[: step * GLOBAL_BATCH]


def samples_in(stdout: str) -> list[ReadSample]:
    """At least a step's."""
    result = [ReadSample(**orjson.loads(line)) for line in stdout.splitlines()]
    assert result
    return result


def test_a_shard_that_is_a_folder_is_named(copy_of_set: Path) -> None:
    row = plan_of(copy_of_set).step(0).rows[0]
    shard = shard_of(copy_of_set, row)
    shard.unlink()
    shard.mkdir()
    with pytest.raises(DataError, match=r"\.tar.*directory") as refused:
        list(Loader(plan_of(copy_of_set), micro_batch=1, workers=0, stop=1, image_px=8))
    assert str(shard) in str(refused.value)


def test_an_image_that_does_not_decode_is_named(train: Run, demo_data: Path, tmp_path: Path) -> None:
    """A set frozen with `--check none` can hold one; the run ends, and does not put another in its place."""
    data = shutil.copytree(demo_data, tmp_path / "data")
    line = next(line for line in (data / "manifest.txt").read_text().splitlines() if line.startswith("DET_"))
    manifest = tmp_path / "manifest.txt"
    manifest.write_text(f"{line}\n")
    damaged = sorted(path for path in (data / line.split(" & ")[2]).rglob("*") if path.suffix in (".jpg", ".png"))[1]
    damaged.write_bytes(damaged.read_bytes()[:300])
    options = ("--manifest", str(manifest), "--data-root", str(data), "--out", str(tmp_path / "set"), "--check", "none")
    subprocess.run([sys.executable, "-m", "griffon_prep", "build", *options], check=True, capture_output=True)
    ended = train("read", tmp_path / "set", *READ, "--steps", 4, "--workers", 1)
    assert ended.returncode == 1
    assert "its image cannot be decoded" in ended.stderr
    assert f"{tmp_path / 'set'}/DET_" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stdout.splitlines()) % GLOBAL_BATCH == 0


def test_storage_that_stalls_is_named(train: Run, copy_of_set: Path, whole: list[ReadSample]) -> None:
    step, row = late_shard(plan_of(copy_of_set))
    where = stall(copy_of_set, row)
    ended = train("read", copy_of_set, *READ, "--steps", 20, "--workers", 1, "--stall", 2)
    assert ended.returncode == 1
    stalls = f"storage stalled: nothing was read for 2 s, while waiting for step {step}: {where}"
    assert ended.stderr == f"error: rank 0: {stalls}\n"
    assert samples_in(ended.stdout) == whole[: step * GLOBAL_BATCH]


def test_a_damaged_sample_is_never_given_by_a_loader_that_continues(copy_of_set: Path) -> None:
    """Gone on with after the error, the loader does not leave the damaged micro-batch out."""
    plan = plan_of(copy_of_set)
    row = plan.step(1).rows[2]
    where = flip_bit(copy_of_set, row)
    given: list[ReadSample] = []
    with pytest.raises(DataError) as refused:
        for batch in Loader(plan, micro_batch=2, workers=1, stop=3, image_px=8):
            given += hashed(batch)
    assert str(refused.value).startswith(where)
    assert open_set(copy_of_set).key(row) not in {sample.key for sample in given}
