"""The output of a run: its files, TensorBoard, hooks, lines of progress, rates, and the loss on validation sets."""

import importlib
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_train.config.settings import settings_from_json
from griffon_train.data.images import cropped, decode, resized
from griffon_train.data.plan import Plan
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import IGNORE, IMAGE_TOKEN_ID, encode
from griffon_train.training.model_loading import load_model

from ...waiting import TIMEOUT_S
from ..streams import shown
from .conftest import checkpoint_of, command, metrics_of, steps_told
from .launcher import Launcher

pytestmark = pytest.mark.xdist_group("reports")  # one process makes the fixtures, which take long

STEPS, GLOBAL_BATCH, SAVE_STEPS, WARMUP = 12, 4, 3, 3
MAX_LENGTH = 160
IMAGE_TOKENS = 9  # tiny models': 70 px are 5 x 5 patches, of which the projector makes 3 x 3
LR = 1e-3
TASK_GROUPS = {
    **dict.fromkeys(("DET", "RANDDET", "REG", "VG"), "localization"),
    "VISJ": "referring",
}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def board_of(run: Path) -> Any:  # noqa: ANN401
    """Return what TensorBoard reads from a run."""
    events: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    return events.EventAccumulator(str(run / "tensorboard")).Reload()


@pytest.fixture(scope="module")
def resumed(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was killed once and finished, and its first rank's stderr of both starts."""
    run = tmp_path_factory.mktemp("reports") / "run"
    fixed = ("--steps", STEPS, "--global-batch", GLOBAL_BATCH, "--micro-batch", 2, "--workers", 1)
    rates = ("--lr", LR, "--warmup-ratio", WARMUP / STEPS, "--grouping", "task", "--max-length", MAX_LENGTH)
    kept = ("--save-steps", SAVE_STEPS, "--keep", 2, "--log-every", 5)
    arguments = command(frozen_set, run, *fixed, *rates, *kept)
    running = launcher.start(arguments, 2)
    running.wait_until(lambda: steps_told(run) >= SAVE_STEPS + 1)
    running.signal(signal.SIGKILL)
    killed = running.wait()
    ended = launcher.run(*arguments)
    assert ended.codes == [0, 0], ended.said
    return run, [killed.said[0], ended.said[0]]


def test_metrics_have_a_line_for_each_step(resumed: tuple[Path, list[str]], frozen_set: Path) -> None:
    run, _ = resumed
    plan = Plan([open_set(frozen_set)], seed=0, global_batch=GLOBAL_BATCH, grouping="task")
    metrics = metrics_of(run)
    assert [line["step"] for line in metrics] == list(range(STEPS))
    for line in metrics:
        step = plan.step(line["step"])
        assert (line["epoch"], line["group"]) == (step.epoch, step.group)
        assert line["loss_by_task"] == pytest.approx({step.group: line["loss"]} if line["targets"] else {})
        assert (0 < line["loss"] < 10) if line["targets"] else line["loss"] == 0
        assert (0 < line["grad_norm"] < 100) if line["targets"] else line["grad_norm"] == 0
        assert (line["targets"], line["overlong"]) == counted(plan, line["step"])
    assert any(line["overlong"] for line in metrics) and all(line["targets"] for line in metrics[:2])
    assert len({line["batch_id"] for line in metrics}) == STEPS


def counted(plan: Plan, number: int) -> tuple[int, int]:
    """Count the targets of a step's samples, and the samples that were too long."""
    targets = overlong = 0
    for set_no, row, variant in shown(plan.step(number)):
        ids, labels, *_ = one_sample(plan.sets[set_no], row, variant)
        overlong += len(ids) > MAX_LENGTH
        targets += sum(label != IGNORE for label in labels[1:MAX_LENGTH])
    return targets, overlong


def one_sample(
    frozen: FrozenSet, row: int, variant: int = 0
) -> tuple[list[int], list[int], torch.Tensor | None, torch.Tensor | None]:
    """Make tokens, labels, image and region of a sample, for tiny Gemma."""
    sample = frozen[row]
    rendering = sample.renderings[variant]
    box = rendering.region_xyxy_px
    pictures, regions = int(sample.image is not None), int(box is not None)
    encoded = encode("gemma_instruct", rendering.turns, byte_tokenizer(), images=pictures, regions=regions)
    ids: list[int] = []
    labels: list[int] = []
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        times = IMAGE_TOKENS if token == IMAGE_TOKEN_ID else 1
        ids += [token] * times
        labels += [label] * times
    if sample.image is None:
        return ids, labels, None, None
    picture = decode(sample, "")
    pixels, crop = (
        None if image is None else normalised(torch.tensor(resized(image, side))[None], torch.float32)
        for image, side in ((picture, 70), (None if box is None else cropped(picture, box), 28))
    )
    return ids, labels, pixels, crop


def test_rates_rise_and_fall(resumed: tuple[Path, list[str]]) -> None:
    """They rise linearly to the full rate, then follow half a cosine that would reach 0 one step after the last."""
    run, _ = resumed
    rising = [LR * (step + 1) / WARMUP for step in range(WARMUP)]
    falling = [LR * math.cos(math.pi / 2 * step / (STEPS - WARMUP)) ** 2 for step in range(STEPS - WARMUP)]
    assert [item["lr"] for item in metrics_of(run)] == pytest.approx(rising + falling, rel=1e-12)


def test_timing_has_its_own_file(resumed: tuple[Path, list[str]]) -> None:
    run, _ = resumed
    lines = lines_of(run / "timing.jsonl")
    assert [line["step"] for line in lines] == list(range(STEPS))
    for line in lines:
        assert line.keys() == {
            "step",
            "seconds",
            "samples_per_s",
            "tokens_per_s",
            "tokens_per_s_per_device",
            "data_wait",
        }
        assert line["seconds"] > 0
        assert line["samples_per_s"] * line["seconds"] == pytest.approx(GLOBAL_BATCH, rel=0.01)
        assert 4 < line["tokens_per_s"] / line["samples_per_s"] < MAX_LENGTH * 1.01
        assert 0 <= line["data_wait"] <= 1
    assert not lines[0].keys() & metrics_of(run)[0].keys() - {"step"}


def test_tensorboard_shows_the_losses(resumed: tuple[Path, list[str]]) -> None:
    """Every step once, also those that came twice because the run was killed."""
    run, _ = resumed
    board = board_of(run)
    metrics = metrics_of(run)
    for name in ("loss", "lr", "grad_norm"):
        events = board.Scalars(f"train/{name}")
        assert [event.step for event in events] == list(range(STEPS))
        assert [event.value for event in events] == pytest.approx([line[name] for line in metrics], rel=1e-6)
    for group in {line["group"] for line in metrics}:
        events = board.Scalars(f"train/loss/{group}")
        learned = [line["step"] for line in metrics if line["group"] == group and line["targets"]]
        assert [event.step for event in events] == learned
    assert {"train/data_wait", "train/samples_per_s"} <= set(board.Tags()["scalars"])


def test_lines_of_progress(resumed: tuple[Path, list[str]]) -> None:
    run, output = resumed
    line = re.compile(
        r"^[\d-]+ [\d:]+ \[rank 0\] step (\d+)/12  loss ([\d.]+)  lr (\S+)  "
        r"norm (\S+)  [\d.]+ samples/s  [\d,]+ tokens/s per device  "
        r"data wait \d+%  (?:overlong \d+%  )?(?:without targets \d+%  )?\d+:\d\d:\d\d left$",
        re.MULTILINE,
    )
    first = int(re.findall(r"resuming at step (\d+) of 12", output[1])[0])
    assert first in range(SAVE_STEPS, STEPS)
    shown_at = sorted({first + 1, *(step for step in (5, 10, 12) if step > first)})
    actual = line.findall(output[1])
    assert [int(item[0]) for item in actual] == shown_at
    for step, loss, rate, _ in actual:
        metrics = metrics_of(run)[int(step) - 1]
        assert (float(loss), float(rate)) == pytest.approx((metrics["loss"], metrics["lr"]), rel=1e-2)
    assert line.findall(output[0])[0][0] == "1"
    assert str(run / "model") in output[1].splitlines()[-1], "at the end, what was written where"


def test_only_so_many_checkpoints_are_kept(resumed: tuple[Path, list[str]]) -> None:
    run, _ = resumed
    actual = sorted((run / "checkpoints").iterdir())
    assert actual == [checkpoint_of(run, STEPS - SAVE_STEPS), checkpoint_of(run, STEPS)]


def test_each_part_has_its_rate(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """AdamW's first step moves each weight by its rate, besides its decay: which biases and norms have not."""
    run, decay = tmp_path / "run", 10.0
    rates = {"language_model": 1e-3, "projector": 5e-4, "vision_tower": 1e-5, "region_projector": 1e-3}
    given = ("--lr", 1e-3, "--projector-lr", 5e-4, "--vision-tower-lr", 1e-5, "--weight-decay", decay, "--clip", 0)
    options = (
        "--global-batch",
        2,
        "--workers",
        0,
        "--warmup-ratio",
        0,
        "--weight",
        "VISJ_shapes=100",
        "--steps",
        1,
        "--seed",
        1,
    )
    ended = launcher.run(*command(frozen_set, run, "--model", "tiny-llama2", *given, *options), world_size=1)
    assert ended.codes == [0], ended.said
    assert "referring" in metrics_of(run)[0]["loss_by_task"]
    settings = settings_from_json(orjson.loads((run / "settings.json").read_bytes()))
    before, _ = load_model(settings, torch.float32)
    after = GriffonForConditionalGeneration.from_pretrained(run / "model")
    moved: dict[str, list[float]] = {part: [] for part in rates}
    starts = dict(before.named_parameters())
    for name, weight in after.named_parameters():
        part = name.partition(".")[0]
        if part in rates and not torch.equal(weight, starts[name]):
            start = starts[name].detach()
            kept = start * (1 - rates[part] * decay) if start.dim() > 1 else start
            moved[part].append(float((weight.detach() - kept).abs().max()) / rates[part])
    for part, value in moved.items():
        assert value, part
        assert max(value) < 1.02, part
        assert max(value) > 0.9, part


HOOK = """
import json, pathlib, sys
lost = [1]
def to_file(step, figures):
    if step in lost:
        lost.clear()
        raise ConnectionError("no answer")
    with pathlib.Path(__file__).with_name("told.jsonl").open("a") as file:
        file.write(json.dumps([step, dict(figures)]) + "\\n")
    pathlib.Path(__file__).with_name("modules.txt").write_text("\\n".join(sys.modules))
    figures.clear()
"""


def test_a_hook_is_given_every_step(frozen_set: Path, tmp_path: Path) -> None:
    """Even the one for which it fails; it cannot change the figures. Its module is found on PYTHONPATH.

    It also sees that a run without LoRA does not import peft.
    """
    (tmp_path / "my_logs.py").write_text(HOOK)
    run = tmp_path / "run"
    options = ("--steps", 3, "--global-batch", 2, "--workers", 0, "--log-hook", "my_logs:to_file")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-m", "griffon_train", *map(str, command(frozen_set, run, *options))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stderr
    assert "--log-hook my_logs:to_file: ConnectionError: no answer; the run continues" in ended.stderr
    reported = [orjson.loads(line) for line in (tmp_path / "told.jsonl").read_bytes().splitlines()]
    expected = [{**one, **other} for one, other in zip(metrics_of(run), lines_of(run / "timing.jsonl"), strict=True)]
    assert reported == [[index, item] for index, item in enumerate(expected)]
    assert len(reported) == 3
    modules = (tmp_path / "modules.txt").read_text().splitlines()
    assert "deepspeed" in modules and "peft" not in modules


@pytest.mark.parametrize("hook", ["no_such_module:f", "json:no_such_function", "json:decoder"])
def test_a_hook_that_does_not_exist(hook: str, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    options = ("--steps", 3, "--global-batch", 2, "--log-hook", hook)
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *options))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        (line,) = output.splitlines()  # nothing was loaded
        assert line.startswith(f"error: --log-hook {hook}: ")
    assert not (tmp_path / "run").exists()


@torch.no_grad()
def losses_by_name(folder: Path, shards: Path) -> Mapping[str, float]:
    """Mean over the learned tokens of all samples of a task group or source, computed one by one."""
    model: Any = GriffonForConditionalGeneration.from_pretrained(folder)
    frozen = open_set(shards)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for row in range(len(frozen)):
        ids, labels, pixels, region = one_sample(frozen, row)
        given = torch.tensor([ids])
        logits = model(given, attention_mask=torch.ones_like(given), pixel_values=pixels, region_values=region).logits
        likely = torch.log_softmax(logits[0].double(), dim=-1)
        learned = [(place, label) for place, label in enumerate(labels) if label != IGNORE and place]
        loss = -sum(float(likely[place - 1, label]) for place, label in learned)
        group = TASK_GROUPS.get(frozen[row].task) or ("text" if pixels is None else "general")
        for name in ("all", group, frozen.key(row).rpartition("-")[0]):
            sums[name] = sums.get(name, 0.0) + loss
            counts[name] = counts.get(name, 0) + len(learned)
    return {name: sums[name] / counts[name] for name in sums}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch's threads wait for each other in circles, which takes ages where other processes are at work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_validation(launcher: Launcher, frozen_set: Path, small_set: Path, tmp_path: Path) -> None:
    """After every so many steps and at the end: on one rank and on two, what comes of the samples one by one."""
    options = ("--steps", 3, "--global-batch", 5, "--micro-batch", 2, "--workers", 1, "--lr", 1e-2)
    for world_size, every, steps in ((1, 3, [2]), (2, 2, [1, 2])):
        run = tmp_path / f"run on {world_size}"
        validation = ("--val-shards", small_set, "--val-steps", every)
        ended = launcher.run(*command(frozen_set, run, *options, *validation), world_size=world_size)
        assert ended.codes == [0] * world_size, ended.said
        lines = lines_of(run / "validation.jsonl")
        assert [line["step"] for line in lines] == steps
        expected = losses_by_name(run / "model", small_set)
        groups = {"all", "text", "general", "localization", "referring"}
        of_groups = {name: loss for name, loss in expected.items() if name in groups}
        of_sources = {name: loss for name, loss in expected.items() if name not in groups}
        assert (set(of_groups), len(of_sources)) == (groups, 4)
        assert lines[-1]["validation_loss"] == pytest.approx(of_groups, rel=1e-5)
        assert lines[-1]["by_source"] == pytest.approx(of_sources, rel=1e-5)
        assert lines[-1]["by_set"] == pytest.approx({small_set.name: expected["all"]}, rel=1e-5)
        assert lines[-1]["validation_loss"] != lines[0]["validation_loss"] or len(lines) == 1
        assert f"step 3/3  validation  all {expected['all']:.4f}" in ended.said[0]
        board = board_of(run)
        assert [event.value for event in board.Scalars("validation/all")] == pytest.approx(
            [line["validation_loss"]["all"] for line in lines], rel=1e-6
        )
        assert board.Scalars("validation/source/DET_shapes")[-1].value == pytest.approx(
            expected["DET_shapes"], rel=1e-5
        )
        assert len(metrics_of(run)) == 3, "validation takes nothing from training"
