"""A run that would learn nothing, or learns nothing: it ends with what to change, and never with a model."""

from pathlib import Path

import pytest

from ..synthetic import Source, write_synthetic
from .conftest import Options, command, metrics_of
from .launcher import Launcher

SMALL: Options = ("--global-batch", 4, "--micro-batch", 2, "--workers", 0)
BEHIND_THE_CUT: Options = ("--max-length", 20, *SMALL)
"""A tiny model's picture and what stands before the answer are more than that."""


@pytest.mark.parametrize(
    ("sources", "stage", "says"),
    [
        ([Source(tag="DET", rows=4)], "visual_referring", "the region projector"),
        ([Source(tag="LAZY", rows=4, pictured=lambda _: False)], "alignment", "the projector"),
    ],
    ids=["no region", "no picture"],
)
def test_a_run_does_not_start_if_a_trained_part_gets_no_input(
    sources: list[Source], stage: str, says: str, launcher: Launcher, tmp_path: Path
) -> None:
    for shard in write_synthetic(tmp_path / "set", sources).lock.shards:
        path = tmp_path / "set" / shard.name
        path.parent.mkdir()
        path.write_bytes(bytes(shard.bytes))
    ended = launcher.run(*command(tmp_path / "set", tmp_path / "run", *SMALL, "--stage", stage, "--steps", 2))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        assert says in output.splitlines()[-1]
        assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("steps", "ends_after", "options"),
    [(3, 3, ()), (60, 50, ()), (3, 3, ("--overlong", "mask"))],
    ids=["to its end", "in its first steps", "masked"],
)
def test_a_run_that_learns_nothing_ends_with_what_to_change(
    steps: int, ends_after: int, options: Options, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    arguments = command(frozen_set, tmp_path / "run", *BEHIND_THE_CUT, *options, "--steps", steps, "--save-steps", 2)
    ended = launcher.run(*arguments, world_size=1)
    assert ended.codes == [1], ended.said
    lines = ended.said[0].splitlines()
    assert lines[-1].startswith(f"error: not one token was learned in {ends_after} steps: ")
    assert "raise --max-length" in lines[-1]
    assert any("samples" in line and "are longer than --max-length 20" in line for line in lines)
    assert "overlong 100%  without targets 100%" in ended.said[0]
    assert len(metrics_of(tmp_path / "run")) == ends_after
    assert {step["without_targets"] for step in metrics_of(tmp_path / "run")} == {4}
    assert not (tmp_path / "run" / "model").exists()
    again = launcher.run(*arguments, world_size=2)
    assert again.codes == [1, 1], again.said
    assert f"not one token was learned in {ends_after} steps: " in again.said[0]
    assert not (tmp_path / "run" / "model").exists()


def test_truncation_is_reported_and_a_run_that_learns_continues(
    launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    options = ("--max-length", 80, "--steps", 3, *SMALL)
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *options), world_size=1)
    assert ended.codes == [0], ended.said
    assert "are longer than --max-length 80" in ended.said[0]
    steps = metrics_of(tmp_path / "run")
    last = ended.said[0].split("step 3/3")[1].splitlines()[0]
    cut, untaught = (sum(step[name] for step in steps[1:]) / 8 for name in ("overlong", "without_targets"))
    assert (f"overlong {cut:.0%}" in last) == (cut > 0)
    assert (f"without targets {untaught:.0%}" in last) == (untaught > 0)
    assert sum(step["targets"] for step in steps) > 0
