"""`--profile-steps`: a trace of each rank with the steps asked for, whatever the run did in between."""

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from .conftest import command, metrics_of
from .launcher import Launcher

SMALL = ("--global-batch", 2, "--workers", 0, "--device", "cpu")


def operations(path: Path) -> list[dict[str, Any]]:
    """The operations of PyTorch in a trace."""
    events: list[dict[str, Any]] = orjson.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return [event for event in events if event.get("cat") == "cpu_op"]


def test_each_rank_writes_a_trace(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """One run ends within the steps to profile; neither changes what is learned."""
    runs = {}
    for name, options in (("plain", ()), ("inside", ("--profile-steps", "1:2")), ("cut", ("--profile-steps", "2:9"))):
        runs[name] = tmp_path / name
        ended = launcher.run(*command(frozen_set, runs[name], "--steps", 3, *SMALL, *options))
        assert ended.codes == [0, 0], ended.said
    assert not (runs["plain"] / "profile").exists()
    for name, steps in (("inside", "1-2"), ("cut", "2-3")):
        traces = sorted((runs[name] / "profile").iterdir())
        assert [trace.name for trace in traces] == [f"steps-{steps}.rank-0000{rank}.json.gz" for rank in range(2)]
        assert all("aten::embedding" in {event["name"] for event in operations(trace)} for trace in traces)
        assert metrics_of(runs[name]) == metrics_of(runs["plain"])


def test_a_trace_ends_before_a_skipped_step(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """Otherwise it would hold what comes after that step, too."""
    traces = {}
    for name, options in (("one", ()), ("skipped", ("--skip-steps", "1:2"))):
        steps = "0:1" if name == "one" else "0:2"
        arguments = command(frozen_set, tmp_path / name, "--steps", 4, *SMALL, "--profile-steps", steps, *options)
        ended = launcher.run(*arguments, world_size=1)
        assert ended.codes == [0], ended.said
        (traces[name],) = (tmp_path / name / "profile").iterdir()
    assert traces["skipped"].name == traces["one"].name == "steps-0-1.rank-00000.json.gz"
    counts = [sum(event["name"] == "aten::embedding" for event in operations(traces[name])) for name in traces]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("steps", ["3:3", "5:2", "x", "-1:2"])
def test_steps_that_are_none_are_refused(launcher: Launcher, steps: str, frozen_set: Path, tmp_path: Path) -> None:
    ended = launcher.run(*command(frozen_set, tmp_path / "run", f"--profile-steps={steps}"), world_size=1)
    assert ended.codes == [2]
    assert f"--profile-steps {steps}: expected A:B with A below B" in ended.said[0]
    assert not (tmp_path / "run").exists()
