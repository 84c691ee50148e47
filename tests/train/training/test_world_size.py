"""One run on two ranks, then one, then four: the same batches, and the same weights but for rounding."""

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from safetensors.torch import load_file

from griffon_shards.frozen_set import open_set
from griffon_train.config.settings import settings_from_json
from griffon_train.data.loader import rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY
from griffon_train.model.freezing import freeze
from griffon_train.training.model_loading import load_model

from .conftest import Options, checkpoint_of, command, metrics_of, steps_told, wait_for_step
from .launcher import Launcher

GLOBAL_BATCH, MICRO_BATCH = 5, 2
TEXT, WEIGHT = "LAZY_text", "3"
"""A source without pictures, and how often it comes an epoch."""

WINDOW = 1
"""So that batches are not of one length, and texts come together with pictures."""

OPTIONS = (
    *("--global-batch", GLOBAL_BATCH, "--micro-batch", MICRO_BATCH, "--window", WINDOW, "--weight", f"{TEXT}={WEIGHT}"),
    *("--max-length", 512, "--workers", 0),
    *("--freeze-llm", "--lr", 2e-5, "--vision-tower-lr", 5e-6, "--weight-decay", 0.1),
)


def sees_images(frozen_set: Path, step: int, world_size: int) -> list[list[bool]]:
    """Return, for each rank and micro-batch of a step, whether it has an image."""
    frozen = open_set(frozen_set)
    plan = Plan([frozen], seed=0, global_batch=GLOBAL_BATCH, window=WINDOW, weights={TEXT: WEIGHT})
    return [
        [
            any(slot.row != DUMMY and bool(frozen.index["has_image"][slot.row]) for slot in slots)
            for slots in rank_slots(plan, step, rank, world_size, MICRO_BATCH)
        ]
        for rank in range(world_size)
    ]


def some_rank_is_blind(frozen_set: Path, steps: range, world_size: int) -> bool:
    """Return whether a rank has no image in a micro-step in which another rank has one."""
    columns = (column for step in steps for column in np.array(sees_images(frozen_set, step, world_size)).T.tolist())
    return any(len(set(column)) == 2 for column in columns)


def check_metrics(run: Path, whole: Path, steps: int) -> None:
    ours, theirs = metrics_of(run), metrics_of(whole)
    assert [item["step"] for item in ours] == list(range(steps))
    for our, their in zip(ours, theirs, strict=True):
        for name in ("batch_id", "targets", "overlong", "lr", "epoch", "group"):
            assert our[name] == their[name], (our["step"], name)
        for name in ("loss", "grad_norm"):
            assert our[name] == pytest.approx(their[name], rel=1e-5, abs=0), (our["step"], name)


def weights_of(run: Path) -> Mapping[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def initial_weights(run: Path, tmp_path: Path) -> tuple[Mapping[str, torch.Tensor], set[str]]:
    """Return the initial weights of a run, as they are saved, and the names of those that train."""
    settings = settings_from_json(orjson.loads((run / "settings.json").read_bytes()))
    model, _ = load_model(settings, torch.float32)
    freeze(model, settings.freezing)
    model.save_pretrained(tmp_path / "model")
    return weights_of(tmp_path), {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def as_after(whole: Path, steps: int, run: Path) -> None:
    """Make, of a run that has ended, the run that it was after some steps; `test_resume` shows that it is the same."""
    shutil.copytree(whole, run)
    shutil.rmtree(run / "model")
    for path in (run / "checkpoints").iterdir():
        if path != checkpoint_of(run, steps):
            shutil.rmtree(path)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:steps]))


@pytest.mark.parametrize(("stage", "steps"), [(2, 40), (3, 20)])
def test_another_world_size(
    stage: int, steps: int, launcher: Launcher, zero: Mapping[int, Options], frozen_set: Path, tmp_path: Path
) -> None:
    """Half of the steps on two ranks, a quarter on one, the rest on four; against all on two."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    half, three_quarters = steps // 2, steps * 3 // 4
    options = ("--steps", steps, *OPTIONS, *zero[stage], "--save-steps", half)
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said

    as_after(whole, half, run)
    alone = launcher.start(command(frozen_set, run, *options), 1)
    wait_for_step(alone, run, three_quarters)
    alone.signal(signal.SIGTERM)
    ended = alone.wait()
    assert ended.codes == [128 + signal.SIGTERM], ended.said
    assert f"resuming at step {half} of {steps}" in ended.said[0]
    stopped = steps_told(run)
    assert three_quarters <= stopped < steps - 3
    ended = launcher.run(*command(frozen_set, run, *options), world_size=4)
    assert ended.codes == [0] * 4, ended.said
    assert f"resuming at step {stopped} of {steps}" in ended.said[0]
    assert some_rank_is_blind(frozen_set, range(half), 2)
    assert some_rank_is_blind(frozen_set, range(stopped, steps), 4)

    check_metrics(run, whole, steps)
    check_weights(weights_of(run), weights_of(whole), *initial_weights(whole, tmp_path))


def check_weights(
    ours: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    trained: set[str],
) -> None:
    assert ours.keys() == theirs.keys() == before.keys()
    assert len(trained) > 20 and {name.partition(".")[0] for name in trained} == {"vision_tower", "projector"}
    for name, weight in theirs.items():
        if name in trained:
            assert float((ours[name] - weight).abs().max()) < 1e-5, name
            moved = float((before[name] - weight).abs().max())
            assert moved > 2e-5 or name.endswith("k_proj.bias"), name  # which attention does not depend on
        else:
            assert torch.equal(ours[name], before[name]), name
            assert torch.equal(weight, before[name]), name
