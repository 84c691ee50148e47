"""`--optimizer`: implementations of AdamW that train alike and resume each other's checkpoints."""

import shutil
from pathlib import Path

import orjson
import pytest

from .conftest import checkpoint_of, command, metrics_of, result_of
from .launcher import Launcher

STEPS, EVERY = 4, 2
SMALL = (
    "--steps",
    STEPS,
    "--save-steps",
    EVERY,
    "--global-batch",
    4,
    "--workers",
    0,
    "--lr",
    "1e-3",
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def with_adamw(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("optimizers") / "adamw"
    ended = launcher.run(*command(frozen_set, run, *SMALL, "--optimizer", "adamw"))
    assert ended.codes == [0, 0], ended.said
    return run


def test_auto_is_adamw_on_a_cpu(launcher: Launcher, with_adamw: Path, frozen_set: Path, tmp_path: Path) -> None:
    """With a compiler or without: the bytes are the same."""
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *SMALL, "--optimizer", "auto"))
    assert ended.codes == [0, 0], ended.said
    assert "optimizer: adamw\n" in ended.said[0]
    assert result_of(tmp_path / "run") == result_of(with_adamw)


def test_an_offloaded_run_takes_the_same_steps(
    launcher: Launcher, with_adamw: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """But for the last digit of the gradient norm, which DeepSpeed sums in another order."""
    run = tmp_path / "run"
    ended = launcher.run(*command(frozen_set, run, *SMALL, "--offload", "optimizer"))
    assert ended.codes == [0, 0], ended.said
    assert "optimizer: adamw\n" in ended.said[0]
    for name in ("loss", "grad_norm"):
        values = [[line[name] for line in metrics_of(each)] for each in (run, with_adamw)]
        assert values[0] == pytest.approx(values[1], rel=1e-6)


@pytest.mark.parametrize("zero", [2, 3])
def test_the_fused_one_resumes_a_run_and_goes_on_alike(
    zero: int, launcher: Launcher, with_adamw: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """Weights, moments and the number of steps are those that the other one left: a wrong number would be seen."""
    run = shutil.copytree(with_adamw, tmp_path / "run")
    shutil.rmtree(checkpoint_of(run, STEPS))
    shutil.rmtree(run / "model")
    ended = launcher.run(*command(frozen_set, run, *SMALL, "--optimizer", "adamw_fused", "--zero", zero))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step {EVERY} of {STEPS}" in ended.said[0]
    losses = [[line["loss"] for line in metrics_of(each)] for each in (run, with_adamw)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    index = orjson.loads((checkpoint_of(run, STEPS) / "checkpoint.json").read_bytes())
    assert index["optimizer_steps"] == STEPS


def test_one_that_cannot_be_compiled_is_refused_if_asked_for(
    launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    arguments = command(frozen_set, tmp_path / "run", *SMALL, "--optimizer", "cpu_adam")
    ended = launcher.start(arguments, 2, PATH=str(tmp_path)).wait()
    assert ended.codes == [2, 2]
    assert (
        "--optimizer cpu_adam: ninja or a C++ compiler is missing; give --optimizer adamw_fused instead"
        in ended.said[0]
    )
    assert not (tmp_path / "run").exists()
