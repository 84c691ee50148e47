"""Processes that are killed in the middle of a run: an error that says which and where, at once, and none left over."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError
from griffon_train.data.dry_read import RankSettings, ReadSample, read_steps
from griffon_train.data.loader import Loader
from griffon_train.data.plan import Plan

from ...waiting import TIMEOUT_S
from ..damage import children_of, late_shard, left_over, stall
from ..streams import sequence

GLOBAL_BATCH = 6


def plan_of(root: Path) -> Plan:
    return Plan([open_set(root)], seed=0, global_batch=GLOBAL_BATCH)


def command(root: Path, *options: object) -> list[str]:
    """`griffon-train read` without an end to speak of."""
    fixed = ("--global-batch", GLOBAL_BATCH, "--steps", 10**6, "--json", "--image-px", 32)
    return [sys.executable, "-m", "griffon_train", "read", *map(str, (root, *fixed, *options))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A command that runs in a session of its own, and what it writes."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def await_steps(self, steps: int) -> None:
        """Wait until so many steps have been written."""
        end = time.monotonic() + TIMEOUT_S
        while self.stdout.read_bytes().count(b"\n") < steps * GLOBAL_BATCH:
            assert self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)

    def ended(self) -> tuple[int, str]:
        """Exit code, and what it complained of."""
        return self.process.wait(TIMEOUT_S), self.stderr.read_text()


@contextmanager
def reading(folder: Path, root: Path, *options: object) -> Iterator[Reading]:
    """The command, running; at the end nothing of it is left."""
    stdout, stderr = folder / "stdout", folder / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(command(root, *options), stdout=out, stderr=err, start_new_session=True)
    try:
        yield Reading(process=process, stdout=stdout, stderr=stderr)
    finally:
        if failed := process.poll() is None:
            process.kill()
            process.wait()
        result = left_over(process.pid)
        for item in result:
            os.kill(item, signal.SIGKILL)
    assert not failed
    assert not result


def check_samples(stdout: Path, root: Path) -> int:
    """All that was said is the plan's sequence, and the first of it has the right tensors; how many steps it is."""
    given = [
        ReadSample(**orjson.loads(line)) for line in stdout.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"
    ]
    steps = len(given) // GLOBAL_BATCH
    assert [(item.step, item.slot, item.key) for item in given] == sequence(plan_of(root), 0, steps + 1)[: len(given)]
    settings = RankSettings(world_size=1, micro_batch=1, workers=0, start=0, stop=4, image_px=32, stall_s=60)
    expected = [sample for step in read_steps(plan_of(root), settings) for sample in step]
    assert given[: len(expected)] == expected
    return steps


def test_a_killed_worker_ends_the_run(frozen_set: Path, tmp_path: Path) -> None:
    """The run notices the death itself; it does not wait for data until a timeout."""
    with reading(tmp_path, frozen_set, "--world-size", 2, "--workers", 2, "--stall", 600) as run:
        run.await_steps(5)
        rank = children_of(run.process.pid)[1]
        os.kill(children_of(rank)[0], signal.SIGKILL)
        code, output = run.ended()
    steps = check_samples(run.stdout, frozen_set)
    lost = (
        r"error: rank 1: a worker process was killed, possibly for lack of memory, while waiting for step (\d+): (.*)\n"
    )
    match = re.fullmatch(lost, output)
    assert match, output
    assert code == 1
    assert int(match[1]) >= steps
    plan = plan_of(frozen_set)
    assert match[2] in {plan.sets[0].where(row) for row in plan.step(int(match[1])).rows}


def test_a_killed_rank_ends_the_run(frozen_set: Path, tmp_path: Path) -> None:
    with reading(tmp_path, frozen_set, "--world-size", 3, "--workers", 1) as run:
        run.await_steps(5)
        os.kill(children_of(run.process.pid)[1], signal.SIGKILL)
        code, output = run.ended()
    steps = check_samples(run.stdout, frozen_set)
    assert (code, output) == (1, f"error: rank 1 was killed at step {steps}, possibly for lack of memory\n")


@pytest.mark.parametrize("word", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_ends_with_a_line(frozen_set: Path, tmp_path: Path, word: signal.Signals) -> None:
    """Ctrl-C reaches every process of the command, a scheduler's SIGTERM perhaps only the first."""
    with reading(tmp_path, frozen_set, "--world-size", 2, "--workers", 1) as run:
        run.await_steps(5)
        (os.killpg if word == signal.SIGINT else os.kill)(run.process.pid, word)
        code, output = run.ended()
    check_samples(run.stdout, frozen_set)
    assert (code, output) == (130, "error: interrupted\n")


@pytest.mark.parametrize("stalls", [False, True], ids=["reading", "stalling"])
def test_a_run_that_is_killed_leaves_no_process(copy_of_set: Path, tmp_path: Path, stalls: bool) -> None:
    """Neither ranks whose pipe nobody reads any more, nor workers that wait for a disk."""
    step, row = late_shard(plan_of(copy_of_set))
    if stalls:
        stall(copy_of_set, row)
    with reading(tmp_path, copy_of_set, "--world-size", 2, "--workers", 1, "--stall", 600) as run:
        run.await_steps(step)
        run.process.kill()
        code, output = run.ended()
    assert (code, output) == (-signal.SIGKILL, "")


def test_a_reader_that_goes_away_ends_the_run(frozen_set: Path) -> None:
    """`griffon-train read ... | head -1`."""
    with subprocess.Popen(
        command(frozen_set, "--world-size", 2, "--workers", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait(TIMEOUT_S)) == (b"", 1)
        assert not left_over(process.pid)


def test_a_worker_that_is_lost_during_a_step_is_found_at_the_next_batch(frozen_set: Path) -> None:
    """The training step, between two batches, is not interrupted."""
    before = set(children_of(os.getpid()))
    batches = iter(Loader(plan_of(frozen_set), workers=1, micro_batch=2, stop=40, image_px=16))
    assert next(batches).step == 0
    (worker,) = set(children_of(os.getpid())) - before
    os.kill(worker, signal.SIGKILL)
    while worker in children_of(os.getpid()):
        time.sleep(0.01)  # an error would be raised here
    with pytest.raises(DataError, match=r"a worker process was killed.*while waiting for step \d+: .*\.tar, sample "):
        list(batches)
