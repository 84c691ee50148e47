"""The checkpoint with the best validation is kept beside the last ones."""

from pathlib import Path

import orjson
import pytest

from .conftest import checkpoint_of
from .launcher import Launcher
from .test_reports import board_of

FIGURE = "source/DET_shapes"


def command(shards: Path, run: Path, val_shards: Path, *options: object) -> list[object]:
    fixed = ("--stage", "custom", "--model", "tiny-qwen2", "--global-batch", 4, "--micro-batch", 2, "--workers", 0)
    validation = ("--val-shards", val_shards, "--val-steps", 1, "--keep-best", FIGURE)
    # From step 3 on the rate is so high that the steps before are the best ones.
    rates = ("--lr", 1e-3, "--schedule", "constant", "--warmup-ratio", 0, "--lr-from", "3=3")
    steps = ("--steps", 5, *rates, "--save-steps", 100, "--keep", 1)
    return ["run", *fixed, "--shards", shards, "--output-dir", run, *steps, *validation, *options]


def test_the_best_checkpoint_stays_beside_the_last(
    launcher: Launcher, frozen_set: Path, small_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = launcher.run(*command(frozen_set, run, small_set), world_size=1)
    assert ended.codes == [0], ended.said
    lines = [orjson.loads(line) for line in (run / "validation.jsonl").read_bytes().splitlines()]
    losses = {line["step"] + 1: line["by_source"]["DET_shapes"] for line in lines}
    best = min(losses, key=lambda done: losses[done])
    assert len(losses) == 5
    assert best < 5, "the last checkpoint is kept anyway"
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {checkpoint_of(run, best).name, checkpoint_of(run, 5).name}
    noted = orjson.loads((run / "best.json").read_bytes())
    assert noted == {"figure": FIGURE, "value": losses[best], "checkpoint": f"checkpoints/step-{best:08d}"}


def test_answers_are_scored_and_the_best_scores_are_kept(
    launcher: Launcher, frozen_set: Path, small_set: Path, tmp_path: Path
) -> None:
    """The scores are those that `evaluate` gives to the checkpoint, on two ranks as on one."""
    run, figure = tmp_path / "run", "score/LAZY_caption/loss_per_token"
    options = ("--steps", 2, "--val-generate", 2, "--keep-best", figure)
    ended = launcher.run(*command(frozen_set, run, small_set, *options), world_size=2)
    assert ended.codes == [0, 0], ended.said
    lines = [orjson.loads(line) for line in (run / "validation.jsonl").read_bytes().splitlines()]
    losses = [line["scores"]["LAZY_caption"]["loss_per_token"] for line in lines]
    assert orjson.loads((run / "best.json").read_bytes())["value"] == min(losses)
    evaluated = launcher.run(
        "evaluate", run, "--from", "best", "--shards", small_set, "--limit", 2, "--out", tmp_path / "out", world_size=1
    )
    assert evaluated.codes == [0], evaluated.said
    metrics = orjson.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert metrics["sources"]["LAZY_caption"]["loss_per_token"] == pytest.approx(min(losses), abs=1e-5)
    board = board_of(run)
    assert [event.value for event in board.Scalars(f"validation/{figure}")] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (("--zero", 3), "--val-generate 2 (command line) needs complete weights on every device"),
        (("--keep-best", "score/DET_shapes/accuracy@0.5"), "validation has no such figure; it has all, "),
    ],
)
def test_scores_that_validation_cannot_give(
    option: tuple[object, ...], problem: str, launcher: Launcher, frozen_set: Path, small_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = launcher.run(*command(frozen_set, run, small_set, "--val-generate", 2, *option), world_size=1)
    assert ended.codes == [2], ended.said
    assert problem in ended.said[0]


@pytest.mark.parametrize(
    ("figure", "problem"),
    [
        ("source/DET_nowhere", "validation has no such figure; it has all, "),
        ("", "expected a value, got an empty text"),
    ],
)
def test_a_figure_that_validation_lacks(
    figure: str, problem: str, launcher: Launcher, frozen_set: Path, small_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = launcher.run(*command(frozen_set, run, small_set, "--keep-best", figure), world_size=1)
    assert ended.codes == [2], ended.said
    assert problem in ended.said[0]
    assert not run.exists()


def test_without_validation_there_is_no_best(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    options = ("--stage", "custom", "--model", "tiny-qwen2", "--shards", frozen_set, "--output-dir", tmp_path / "run")
    ended = launcher.run("run", *options, "--steps", 1, "--keep-best", "all", world_size=1)
    assert ended.codes == [2], ended.said
    assert "--keep-best all (command line) needs a validation; also give --val-shards and --val-steps" in ended.said[0]
