"""Runs that are killed, damaged, or started with other settings: how they resume, and what they refuse."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest

from ...waiting import TIMEOUT_S
from .conftest import (
    Options,
    checkpoint_of,
    command,
    differences,
    metrics_of,
    result_of,
    steps_told,
    wait_for_line,
    wait_for_step,
)
from .launcher import Launcher, Running

KILLS = 5
WHILE_SAVING = 2
"""Which of the kills comes while a checkpoint is written."""

BATCHES = ("--global-batch", 5, "--micro-batch", 2, "--max-length", 256)
RATES = ("--lr", 1e-3, "--vision-tower-lr", 1e-4, "--weight-decay", 0.1)

LORA = ("--lora-r", 4, "--lora-dropout", 0.1)

FEW = 12
SHORT = ("--steps", FEW, "--save-steps", 4, *BATCHES, *RATES)
"""With checkpoints after 4, 8 and 12 steps."""


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


@pytest.mark.parametrize(("stage", "steps", "more"), [(2, 40, ()), (3, 20, ()), (2, 40, LORA)])
def test_killed_at_any_moment(
    stage: int,
    steps: int,
    more: Options,
    launcher: Launcher,
    zero: Mapping[int, Options],
    frozen_set: Path,
    tmp_path: Path,
) -> None:
    """Bit for bit the run that nobody killed, which lies in another folder; ZeRO-3 is slow, hence fewer steps."""
    options = ("--steps", steps, "--save-steps", steps // 7, *BATCHES, *RATES, *zero[stage], *more, "--workers", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said

    draws = random.Random(stage)
    cut_short = ""
    for i in range(KILLS):
        running = launcher.start(command(frozen_set, killed, *options), 2)
        moment = (i + draws.uniform(0.2, 0.7)) * steps / KILLS
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


def steps_of(path: Path) -> list[int]:
    return [orjson.loads(line)["step"] for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def finished(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing happened to."""
    run = tmp_path_factory.mktemp("finished") / "run"
    ended = launcher.run(*command(frozen_set, run, *SHORT))
    assert ended.codes == [0, 0], ended.said
    return run


@pytest.fixture
def broken_off(finished: Path, tmp_path: Path) -> Path:
    """The same, killed in the middle of its last line, before its last checkpoint: those after 4 and 8 steps are left.

    What it told of the four steps since is there.
    """
    run = shutil.copytree(finished, tmp_path / "broken off")
    shutil.rmtree(run / "model")
    shutil.rmtree(checkpoint_of(run, FEW))
    for name in ("metrics.jsonl", "timing.jsonl"):
        path = run / name
        path.write_bytes(path.read_bytes()[:-20])
    return run


@pytest.mark.parametrize("lines", [9, FEW])
def test_lines_of_repeated_steps_are_truncated(
    lines: int, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """Whether the run was killed in the first line after the checkpoint, or three lines later."""
    reported = (finished / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (broken_off / "metrics.jsonl").write_bytes(b"".join(reported[:lines])[:-20])
    assert steps_told(broken_off) == lines - 1
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step 8 of {FEW}, from {checkpoint_of(broken_off, 8)}" in ended.said[0]
    assert ": skipped" not in ended.said[0]
    assert differences(finished, broken_off) == []
    assert steps_of(broken_off / "timing.jsonl") == list(range(FEW))


@pytest.mark.parametrize("name", ["rank-00001.safetensors", "checkpoint.json"])
def test_a_checkpoint_with_a_truncated_file_is_skipped(
    name: str, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    path = checkpoint_of(broken_off, 8) / name
    path.write_bytes(path.read_bytes()[:-1])
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    (line,) = [line for line in ended.said[0].splitlines() if ": skipped" in line]
    assert "step-00000008" in line
    assert name in line or name == "checkpoint.json"
    assert f"resuming at step 4 of {FEW}" in ended.said[0]
    assert differences(finished, broken_off) == []


def test_a_checkpoint_whose_index_says_otherwise_is_skipped(
    broken_off: Path, launcher: Launcher, finished: Path, frozen_set: Path
) -> None:
    """The index holds the optimizer's count of steps, for instance, which nothing else would show to be wrong."""
    path = checkpoint_of(broken_off, 8) / "checkpoint.json"
    path.write_bytes(path.read_bytes().replace(b'"optimizer_steps":8', b'"optimizer_steps":9'))
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert "step-00000008/checkpoint.json is damaged" in ended.said[0]
    assert (broken_off / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoints_in(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("rank", [0, 1])
def test_a_checkpoint_with_a_flipped_bit_is_skipped(
    rank: int, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """The run resumes from the one before, and ends with the same bytes."""
    path = checkpoint_of(broken_off, 8) / f"rank-{rank:05d}.safetensors"
    flip(path)
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"step-00000008/{path.name} is damaged (its SHA-256 is not the recorded one): skipped" in ended.said[0]
    assert f"resuming at step 4 of {FEW}" in ended.said[0]
    assert differences(finished, broken_off) == []


def senseless(folder: Path) -> None:
    (folder / "checkpoint.json").write_text("7")


def another(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-00000004"), folder)


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "weights": lambda folder: flip(folder / "rank-00000.safetensors"),
    "index": lambda folder: flip(folder / "checkpoint.json"),
    "index without sense": senseless,
    "no index": lambda folder: (folder / "checkpoint.json").unlink(),
    "another's name": another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_does_not_outlive_complete_ones(
    damage: str, broken_off: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """With one to keep, the latest complete one is kept; the damaged one only until its step is reached again."""
    DAMAGES[damage](checkpoint_of(broken_off, 8))
    options = (*SHORT, "--save-steps", 3, "--keep", 1, "--workers", 0)
    running = launcher.start(command(frozen_set, broken_off, *options), 1)
    running.wait_until(lambda: not checkpoint_of(broken_off, 4).exists())
    running.signal(signal.SIGKILL)
    running.wait()
    there = [name for name in checkpoints_in(broken_off) if not name.startswith(".tmp-")]
    assert there == ["aside-step-00000008", "step-00000006"] or there[-1] == "step-00000009"  # if it was faster
    ended = launcher.run(*command(frozen_set, broken_off, *options), world_size=1)
    assert ended.codes == [0], ended.said
    assert f"resuming at step {there[-1][-1]} of {FEW}" in ended.said[0]
    assert checkpoints_in(broken_off) == ["step-00000012"]


def test_checkpoints_that_are_none_of_the_line_are_not_counted(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Copies under other names are never deleted; a damaged one between complete ones does not count."""
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(checkpoint_of(run, FEW))
    shutil.copytree(checkpoint_of(run, 4), run / "checkpoints" / "step-00000099.bak")
    shutil.copytree(checkpoint_of(run, 4), checkpoint_of(run, 6))
    (checkpoint_of(run, 6) / "rank-00000.safetensors").unlink()
    ended = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 2))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step 8 of {FEW}" in ended.said[0]
    assert checkpoints_in(run) == ["step-00000008", "step-00000012", "step-00000099.bak"]
    more = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 1))  # of a run that is done, and with more to keep
    assert more.codes == [0, 0], more.said
    assert checkpoints_in(run) == ["step-00000012", "step-00000099.bak"]
    more = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 50))
    assert (more.codes, checkpoints_in(run)) == ([0, 0], ["step-00000012", "step-00000099.bak"])


def test_killed_between_a_checkpoint_and_the_deletion_of_older_ones(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Or in the middle of a deletion: the next start deletes the rest."""
    run = shutil.copytree(finished, tmp_path / "run")
    moved = checkpoint_of(run, 8).rename(tmp_path / "on another disk")
    checkpoint_of(run, 8).symlink_to(moved)
    checkpoint_of(run, 4).rename(run / "checkpoints" / ".tmp-removed-step-00000004")
    (run / "checkpoints" / ".tmp-removed-step-00000004" / "checkpoint.json").unlink()
    ended = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 1))
    assert ended.codes == [0, 0], ended.said
    assert ": skipped" not in ended.said[0]
    assert checkpoints_in(run) == ["step-00000012"]
    assert (moved / "checkpoint.json").exists(), "only the link to it is deleted"


def test_a_run_without_a_complete_checkpoint_is_refused(broken_off: Path, launcher: Launcher, frozen_set: Path) -> None:
    """Otherwise all training would be lost silently. Nothing is deleted or restarted."""
    for step in (4, 8):
        flip(checkpoint_of(broken_off, step) / "rank-00001.safetensors")
    before = state_of(broken_off / "checkpoints")
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [1, 1], ended.said
    for output in ended.said:
        line = output.splitlines()[-1]
        assert line.startswith(
            f"error: none of the checkpoints in {broken_off / 'checkpoints'} is complete (step-00000008/"
        )
        assert line.endswith(f"restore one from a copy, or delete {broken_off} to start over")
        assert "Traceback" not in output
    assert state_of(broken_off / "checkpoints") == before


def test_a_finished_run_is_left_as_it_is(finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "again")
    before = state_of(run / "model"), state_of(run / "checkpoints")
    ended = launcher.run(*command(frozen_set, run, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"done: {FEW} steps" in ended.said[0]
    assert "loss" not in ended.said[0]
    assert differences(finished, run) == []
    assert (state_of(run / "model"), state_of(run / "checkpoints")) == before


def test_the_same_in_another_folder_with_the_set_elsewhere(
    finished: Path, launcher: Launcher, copy_of_set: Path, tmp_path: Path
) -> None:
    ended = launcher.run(*command(copy_of_set, tmp_path / "elsewhere", *SHORT, "--save-steps", 5, "--workers", 1))
    assert ended.codes == [0, 0], ended.said
    assert differences(finished, tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (("--lr", 2e-3), "lr: 0.001 before, 0.002 now"),
        (("--seed", 1), "seed: 0 before, 1 now"),
        (("--steps", FEW + 1), f"steps: {FEW} before, {FEW + 1} now"),
        (("--steps", FEW - 5), f"steps: {FEW} before, {FEW - 5} now"),
        (
            ("--steps", -1, "--epochs", 0.5),
            f"steps: {FEW} before, (set by --epochs) now; epochs: (set by --steps) before, 0.5 now",
        ),
        (("--model", "tiny-qwen2"), "model: tiny-gemma2 before, tiny-qwen2 now"),
    ],
)
def test_other_settings_are_refused(
    changed: Options, told: str, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    before = state_of(finished)
    ended = launcher.run(*command(frozen_set, finished, *SHORT, *changed))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        assert output.splitlines()[-1].startswith(f"error: {finished} holds a run with other settings: {told}. ")
        assert (
            f"This run has ended: give --from {finished} and another --output-dir to start a new run"
            in output.splitlines()[-1]
        )
        assert "Traceback" not in output
    assert state_of(finished) == before


def test_a_run_that_has_not_ended_is_not_made_longer(broken_off: Path, launcher: Launcher, frozen_set: Path) -> None:
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT, "--steps", FEW + 1))
    assert ended.codes == [2, 2], ended.said
    reported = ended.said[0].splitlines()[-1]
    assert f"steps: {FEW} before, {FEW + 1} now. Give the same settings, or another --output-dir. " in reported
    assert f"let it end, then give --from {broken_off} and another --output-dir to start a new run" in reported


def test_a_run_at_a_constant_rate_is_made_longer(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """It is, bit for bit, the run that had so many steps from the start; no other run of more steps would be."""
    constant = (*BATCHES, *RATES, "--schedule", "constant", "--warmup-steps", 2, "--save-steps", 3)
    for run, steps in (("whole", 5), ("longer", 3), ("longer", 5), ("longer", 5)):
        ended = launcher.run(*command(frozen_set, tmp_path / run, "--steps", steps, *constant), world_size=1)
        assert ended.codes == [0], ended.said
    assert differences(tmp_path / "whole", tmp_path / "longer") == []
    assert orjson.loads((tmp_path / "longer" / "settings.json").read_bytes())["steps"] == 5
    for changed in (("--steps", 4), ("--steps", 6, "--schedule", "cosine"), ("--steps", 6, "--lr", 2e-3)):
        ended = launcher.run(*command(frozen_set, tmp_path / "longer", "--steps", 5, *constant, *changed), world_size=1)
        assert ended.codes == [2], ended.said


def test_a_run_continues_from_what_another_has_left(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """The refusal suggests it: the weights are taken over, and the schedule starts again."""
    arguments = command(frozen_set, tmp_path / "longer", *SHORT, "--steps", 3, "--from", finished)
    ended = launcher.run(*(argument for argument in arguments if argument not in ("--model", "tiny-gemma2")))
    assert ended.codes == [0, 0], ended.said
    first, longer = metrics_of(finished), metrics_of(tmp_path / "longer")
    assert longer[0]["loss"] < first[0]["loss"]
    assert (longer[0]["lr"], longer[0]["batch_id"]) == (first[0]["lr"], first[0]["batch_id"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda _content: b"",
        lambda content: content[:-20],
        lambda content: bytes(len(content)),
        lambda content: b"[" + content + b"]",
        lambda content: content.replace(b'"lr"', b'"rl"'),
        lambda content: content.replace(b'"lr": 0.001', b'"lr": "0.001"'),
        lambda content: content.replace(b'"stage": "custom",', b""),
        lambda _content: b"\xff\xfe{\x00}\x00",
    ],
    ids=["empty", "cut short", "nulls", "a list", "an unknown setting", "another type", "one is missing", "UTF-16"],
)
def test_damaged_settings_are_named(
    damage: Callable[[bytes], bytes], finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Nothing is loaded, restarted or written: the settings of the run are not known."""
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "settings.json"
    path.write_bytes(damage(path.read_bytes()))
    before = state_of(run)
    ended = launcher.run(*command(frozen_set, run, *SHORT))
    assert ended.codes == [1, 1], ended.said
    for output in ended.said:
        (line,) = output.splitlines()
        assert line.startswith("error: ") and f" in {path}: " in line and "restore the file" in line
    assert state_of(run) == before


def state_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("changed", "equal"),
    [(("--workers", 0), True), (("--micro-batch", 1), False), (("--zero", 3), False)],
    ids=["workers", "micro-batch", "zero"],
)
def test_resumes_with_what_computes_the_same_in_another_way(
    changed: tuple[str, int],
    equal: bool,
    broken_off: Path,
    finished: Path,
    launcher: Launcher,
    zero: Mapping[int, Options],
    frozen_set: Path,
) -> None:
    options = zero[3] if changed[0] == "--zero" else changed
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT, *options))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step 8 of {FEW}" in ended.said[0]
    if equal:
        assert differences(finished, broken_off) == []
    for ours, theirs in zip(metrics_of(broken_off), metrics_of(finished), strict=True):
        assert ours["batch_id"] == theirs["batch_id"]
        for name in ("loss", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=0), (ours["step"], name)
