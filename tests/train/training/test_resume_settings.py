"""A run that is resumed with other settings, or whose settings are damaged: what may change, and what is refused."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest

from .conftest import BATCHES, FEW, RATES, SHORT, Options, command, differences, metrics_of, state_of
from .launcher import Launcher


@pytest.mark.parametrize(
    ("changed", "reported"),
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
    changed: Options, reported: str, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    before = state_of(finished)
    ended = launcher.run(*command(frozen_set, finished, *SHORT, *changed))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        assert output.splitlines()[-1].startswith(f"error: {finished} holds a run with other settings: {reported}. ")
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
        line = output.rstrip("\n")
        assert "\n" not in line, output
        assert line.startswith("error: ") and f" in {path}: " in line and "restore the file" in line
    assert state_of(run) == before
