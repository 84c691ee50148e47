"""Damaged validation sets: found at the start if a quick check suffices, otherwise after a checkpoint."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set

from ..damage import flip_bit
from .conftest import checkpoint_of, differences
from .launcher import Launcher

STEPS = 4


def command(shards: Path, run: Path, *options: object) -> list[object]:
    fixed = ("--stage", "custom", "--model", "tiny-qwen2", "--global-batch", 4, "--micro-batch", 2, "--workers", 0)
    return ["run", *fixed, "--shards", shards, "--output-dir", run, "--steps", STEPS, "--max-length", 512, *options]


@pytest.fixture
def held_out(small_set: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(small_set, tmp_path / "held out")


def last_shard(shards: Path) -> Path:
    return shards / open_set(shards).lock.shards[-1].name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-512])


LACKS: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "{set}: no such folder; "),
    "no lock": (lambda shards: (shards / "griffon.lock.json").unlink(), "{set}: not a frozen set, "),
    "a damaged lock": (lambda shards: cut(shards / "griffon.lock.json"), "{set}/griffon.lock.json: "),
    "a cut index": (lambda shards: cut(shards / "index.npy"), "{set}/index.npy: truncated"),
    "no shard": (lambda shards: last_shard(shards).unlink(), "{shard}: the shard is missing; "),
    "a cut shard": (lambda shards: cut(last_shard(shards)), "{shard}: has "),
}


@pytest.mark.parametrize("option", ["--val-shards", "--shards"])
@pytest.mark.parametrize("lack", LACKS)
def test_what_a_set_lacks_is_reported_before_anything_is_loaded(
    lack: str, option: str, held_out: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    damage, output = LACKS[lack]
    shard = last_shard(held_out)
    damage(held_out)
    every = ("--val-steps", 2) if option == "--val-shards" else ()
    ended = launcher.run(*command(frozen_set, tmp_path / "run", option, held_out, *every), world_size=1)
    assert ended.codes == [1], ended.said
    (line,) = ended.said[0].splitlines()
    assert line.startswith("error: " + output.format(set=held_out, shard=shard))
    assert not (tmp_path / "run").exists()


def test_a_failed_validation_loses_nothing_else(
    held_out: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """The training is saved. The run resumes without the set, or with a complete one, and then validates."""
    validation = ("--val-shards", held_out, "--val-steps", 2, "--save-steps", 2)
    whole, run, without = tmp_path / "whole", tmp_path / "run", tmp_path / "without"
    ended = launcher.run(*command(frozen_set, whole, *validation))
    assert ended.codes == [0, 0], ended.said
    shutil.move(held_out, tmp_path / "sound")
    shutil.copytree(tmp_path / "sound", held_out)
    where = flip_bit(held_out, len(open_set(held_out)) - 1)

    for start in (0, 2):  # the same command fails in the same way, and does not train again
        ended = launcher.run(*command(frozen_set, run, *validation))
        assert ended.codes == [1, 1], ended.said
        errors = [line for output in ended.said for line in output.splitlines() if line.startswith("error: validating")]
        assert errors and all(line.startswith(f"error: validating after step 1: {where}") for line in errors)
        assert (
            "The checkpoint at step 2 is intact" in errors[0] and "leave --val-shards and --val-steps out" in errors[0]
        )
        assert (f"resuming at step {start} of {STEPS}" in ended.said[0]) == bool(start)
        assert "Traceback" not in "".join(ended.said)
        assert checkpoint_of(run, 2).exists()
    shutil.copytree(run, without)

    ended = launcher.run(*command(frozen_set, without))
    assert ended.codes == [0, 0], ended.said
    assert differences(whole, without) == []

    shutil.rmtree(held_out)
    shutil.move(tmp_path / "sound", held_out)
    ended = launcher.run(*command(frozen_set, run, *validation))
    assert ended.codes == [0, 0], ended.said
    assert differences(whole, run) == []
    assert (run / "validation.jsonl").read_bytes() == (whole / "validation.jsonl").read_bytes()
    steps = [orjson.loads(line)["step"] for line in (run / "validation.jsonl").read_bytes().splitlines()]
    assert steps == [1, 3]

    before = (run / "validation.jsonl").read_bytes()
    ended = launcher.run(*command(frozen_set, run, *validation))
    assert ended.codes == [0, 0], ended.said
    assert (run / "validation.jsonl").read_bytes() == before, "what is told is not told again"
