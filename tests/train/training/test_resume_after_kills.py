"""Runs that are killed at any moment and resumed: bit for bit the run that nobody killed."""

import random
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from ...waiting import TIMEOUT_S
from .conftest import (
    BATCHES,
    RATES,
    Options,
    command,
    differences,
    metrics_of,
    result_of,
    steps_of,
    wait_for_line,
    wait_for_step,
)
from .launcher import Launcher, Running

KILLS = 5
WHILE_SAVING = 2
"""Which of the kills comes while a checkpoint is written."""

LORA = ("--lora-r", 4, "--lora-dropout", 0.1)


def unfinished(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob(".tmp-step-*")]


def stop_while_saving(running: Running, run: Path, timeout_s: float = TIMEOUT_S) -> None:
    """Stop the ranks once a checkpoint is being written; if it is complete by then, wait for the next."""
    end = time.monotonic() + timeout_s
    while True:
        while not unfinished(run):  # without a pause: it takes milliseconds
            assert time.monotonic() < end, running.said()
        running.signal(signal.SIGSTOP)
        time.sleep(0.02)
        if unfinished(run):
            return
        running.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("stage", "steps", "kills", "more"), [(2, 40, KILLS, ()), (3, 20, 3, ()), (2, 40, KILLS, LORA)]
)
def test_killed_at_any_moment(
    stage: int,
    steps: int,
    kills: int,
    more: Options,
    launcher: Launcher,
    zero: Mapping[int, Options],
    frozen_set: Path,
    tmp_path: Path,
) -> None:
    """Bit for bit the run that nobody killed, which lies in another folder; ZeRO-3 is slow, hence fewer."""
    options = ("--steps", steps, "--save-steps", steps // 7, *BATCHES, *RATES, *zero[stage], *more, "--workers", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said

    draws = random.Random(stage)
    cut_short = ""
    for i in range(kills):
        running = launcher.start(command(frozen_set, killed, *options), 2)
        moment = (i + draws.uniform(0.2, 0.7)) * steps / kills
        wait_for_line(running, cut_short)
        wait_for_step(running, killed, moment)
        if i == WHILE_SAVING:
            stop_while_saving(running, killed)
        else:
            time.sleep(draws.uniform(0, 0.1))
        running.signal(signal.SIGKILL)
        ended = running.wait()
        assert ended.codes[0] == -signal.SIGKILL, ended.said
        if cut_short:
            assert f"{cut_short} is incomplete (writing it was interrupted): skipped" in ended.said[0]
        cut_short = unfinished(killed)[0].removeprefix(".tmp-") if i == WHILE_SAVING else ""
        assert cut_short or i != WHILE_SAVING
    ended = launcher.run(*command(frozen_set, killed, *options))
    assert ended.codes == [0, 0], ended.said
    assert "resuming at step" in ended.said[0]

    assert differences(whole, killed) == []
    assert len(result_of(whole)) == 4
    assert [step["step"] for step in metrics_of(whole)] == list(range(steps))
    assert len({step["batch_id"] for step in metrics_of(whole)}) == steps
    assert len({step["loss"] for step in metrics_of(whole)}) > steps - 5  # of some nothing is left to be learned
    assert steps_of(killed / "timing.jsonl") == list(range(steps))
    assert unfinished(killed) == []
