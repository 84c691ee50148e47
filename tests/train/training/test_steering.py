"""Runs after a loss that is not a number: resumed with a batch skipped or a lower rate, and still bit-identical."""

import shutil
from pathlib import Path

import orjson
import pytest
import torch

from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config

from .conftest import Options, checkpoint_of, command, differences, metrics_of
from .launcher import Launcher

STEPS = 10
OPTIONS: Options = (
    *("--steps", STEPS, "--save-steps", 4, "--global-batch", 5, "--micro-batch", 2, "--max-length", 256),
    *("--lr", 1e-3, "--vision-tower-lr", 1e-4, "--workers", 1),
)
DIVERGES: Options = ("--lr-from", "4=1e38")


@pytest.fixture(scope="module")
def diverged(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that has a checkpoint after 4 steps and a loss that is not a number in step 5; and its last line."""
    run = tmp_path_factory.mktemp("diverged") / "run"
    ended = launcher.run(*command(frozen_set, run, *OPTIONS, *DIVERGES))
    assert ended.codes == [1, 1], ended.said
    assert checkpoint_of(run, 4).exists()
    assert not checkpoint_of(run, 8).exists()
    return run, ended.said[0].splitlines()[-1]


def test_a_loss_that_is_not_a_number_names_the_remedies(diverged: tuple[Path, str]) -> None:
    _, line = diverged
    assert line.startswith("error: step 5: the loss is nan") or line.startswith("error: step 5: the loss is inf")
    assert "--skip-steps 5:6" in line
    assert "--lr-from 4=0.0005" in line
    assert "the model's weights" not in line  # steps were trained before


@pytest.mark.parametrize(("skipped", "step"), [((), 0), (("--skip-steps", "0:2"), 2)], ids=["step 0", "step 2"])
def test_weights_that_are_not_numbers_are_named_as_a_cause(
    skipped: Options, step: int, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Skipping batches does not help then, nor does a lower learning rate."""
    model = GriffonForConditionalGeneration(preset_config("tiny-gemma2"))
    with torch.no_grad():
        for weight in model.projector.parameters():
            weight.fill_(torch.nan)
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    ended = launcher.run(
        *command(frozen_set, tmp_path / "run", *OPTIONS, "--model", tmp_path / "model", *skipped), world_size=1
    )
    assert ended.codes == [1], ended.said
    line = ended.said[0].splitlines()[-1]
    assert line.startswith(f"error: step {step}: the loss is nan") and "the model's weights may hold NaN" in line


STEERED = {
    "left out": (("--skip-steps", "5:7"), [5, 6]),
    "a lower rate": (("--lr-from", "4=1e-4"), []),
    "both, twice": (("--skip-steps", 9, "--lr-from", "4=1e-4", "--skip-steps", "6:7", "--lr-from", "8=1e-5"), [6, 9]),
}


@pytest.mark.parametrize(("steering", "skipped"), STEERED.values(), ids=STEERED)
def test_it_continues_as_the_run_that_was_steered_from_its_beginning(
    steering: Options,
    skipped: list[int],
    diverged: tuple[Path, str],
    launcher: Launcher,
    frozen_set: Path,
    tmp_path: Path,
) -> None:
    whole, resumed = tmp_path / "whole", shutil.copytree(diverged[0], tmp_path / "resumed")
    before = orjson.loads((resumed / "settings.json").read_bytes())
    for run in (whole, resumed):
        ended = launcher.run(*command(frozen_set, run, *OPTIONS, *steering))
        assert ended.codes == [0, 0], ended.said
    assert "resuming at step 4 of 10" in ended.said[0]
    assert differences(whole, resumed) == []

    metrics = metrics_of(resumed)
    assert [step["step"] for step in metrics] == list(range(STEPS))
    assert [step["step"] for step in metrics if step.get("skipped")] == skipped
    assert {tuple(step) for step in metrics if step.get("skipped")} <= {("step", "skipped", "epoch", "group")}
    assert ("4=1e-4" in steering) == (metrics[3]["lr"] > 5 * metrics[4]["lr"])
    pairs = list(zip(steering[::2], steering[1::2], strict=True))
    given = {
        name: [str(value) for option, value in pairs if option == spelled]
        for name, spelled in (("skip_steps", "--skip-steps"), ("lr_from", "--lr-from"))
    }
    assert orjson.loads((resumed / "settings.json").read_bytes()) == before | given
    cursor = orjson.loads((checkpoint_of(resumed, STEPS) / "checkpoint.json").read_bytes())["cursor"]
    assert [step for first, stop in cursor["steering"]["skipped"] for step in range(first, stop)] == skipped


def test_a_checkpoint_before_the_first_trained_step(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """The optimizer has no moments yet; a run that is killed there can be resumed nevertheless."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = (*OPTIONS, "--steps", 6, "--save-steps", 2, "--skip-steps", "0:3")
    for run in (whole, killed):
        ended = launcher.run(*command(frozen_set, run, *options))
        assert ended.codes == [0, 0], ended.said
    for step in (4, 6):
        shutil.rmtree(checkpoint_of(killed, step))
    shutil.rmtree(killed / "model")
    ended = launcher.run(*command(frozen_set, killed, *options))
    assert ended.codes == [0, 0], ended.said
    assert "resuming at step 2 of 6" in ended.said[0]
    assert differences(whole, killed) == []


def test_settings_of_trained_steps_do_not_change(
    diverged: tuple[Path, str], launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(diverged[0], tmp_path / "run")
    before = (run / "settings.json").read_bytes()
    ended = launcher.run(*command(frozen_set, run, *OPTIONS, "--skip-steps", "3:5"))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        assert "the steps before 4 were trained with neither --skip-steps nor --lr-from" in output.splitlines()[-1]
        assert "may only affect steps from 4 on" in output.splitlines()[-1]
        assert "Traceback" not in output
    assert (run / "settings.json").read_bytes() == before
