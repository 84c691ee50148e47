"""A new model trains: `run` takes what `new-model` makes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from griffon_train.model.presets import FAMILIES

from ..conftest import Run
from .conftest import metrics_of
from .launcher import Launcher

SIZE = ("--width", 16, "--layers", 1, "--heads", 2, "--vision-width", 16, "--vision-heads", 2, "--image-size", 28)
STEPS = ("--steps", 10, "--global-batch", 4, "--micro-batch", 4, "--workers", 0, "--lr", 3e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_model_takes_steps(
    family: str, train_cli: Run, launcher: Launcher, plain_sets: Mapping[str, Path], tmp_path: Path
) -> None:
    shards = plain_sets["bin" if family == "qwen2" else "text"]
    made = train_cli("new-model", tmp_path / "model", "--like", family, *SIZE, "--tokenizer", shards)
    assert made.returncode == 0, made.stderr
    run = ("run", "--stage", "custom", "--model", tmp_path / "model", "--shards", shards, *STEPS)
    ended = launcher.run(*run, "--output-dir", tmp_path / "run", world_size=1)
    assert ended.codes == [0], ended.said
    first, *_, last = (step["loss"] for step in metrics_of(tmp_path / "run"))
    assert last < first - 0.2
