"""The loss of a step, and what the optimizer makes of it, against plain torch: one process, one sample at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location
from griffon_train.config.settings import Settings, settings_from_json, weights_by_tag
from griffon_train.data.images import cropped, decode, resized
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import split_slots
from griffon_train.model.freezing import freeze
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import (
    IGNORE,
    IMAGE_TOKEN_ID,
    REGION_TOKEN_ID,
    Encoded,
    encode,
    expand_and_truncate,
)
from griffon_train.training.model_loading import load_model

from .conftest import Options, command, metrics_of
from .launcher import Ended, Launcher

CHAT = "gemma_instruct"
LONG = 4096


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two cores are enough for two ranks or for one process of many threads, not for what runs beside them, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Training again, in this process.

    Attributes:
        settings: of a run.
        model: as the run began with it.
        tokenizer: the model's.
        plan: as the settings have it.
    """

    settings: Settings
    model: GriffonForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    plan: Plan

    @property
    def frozen(self) -> FrozenSet:
        return self.plan.sets[0]

    def rows(self, step: int) -> list[int]:
        rows: list[int] = self.plan.step(step).rows.tolist()
        return rows

    def encoded(self, row: int) -> Encoded:
        """A sample's tokens, images spread, however many they are."""
        sample = self.frozen[row]
        sees, is_shown = sample.image is not None, sample.region_xyxy_px is not None
        result = encode(CHAT, sample.turns, self.tokenizer, images=int(sees), regions=int(is_shown))
        return expand_and_truncate(result, LONG, "error", self.model.image_tokens, "")[0]

    def loss_sum(self, row: int) -> tuple[torch.Tensor, int]:
        """The sum over a sample's learned tokens, of those that `max_length` leaves, and how many they are."""
        encoded = self.encoded(row)
        ids, labels = (torch.tensor(item)[: self.settings.data.max_length] for item in (encoded.ids, encoded.labels))
        sample = self.frozen[row]
        pixels = regions = None
        if sample.image is not None:
            picture = decode(sample, "")
            assert int((ids == IMAGE_TOKEN_ID).sum()) == self.model.image_tokens
            pixels = self.squared(resized(picture, self.tower("vision").image_size))
            if sample.region_xyxy_px is not None and REGION_TOKEN_ID in ids:
                crop = cropped(picture, sample.region_xyxy_px)
                regions = self.squared(resized(crop, self.tower("region").image_size))
        logits = self.model(ids[None], pixel_values=pixels, region_values=regions, use_cache=False).logits[0]
        assert logits.dtype == torch.float32
        loss = F.cross_entropy(logits[:-1].double(), labels[1:], ignore_index=IGNORE, reduction="sum")
        return loss, int((labels[1:] != IGNORE).sum())

    def tower(self, name: str) -> Any:  # noqa: ANN401 - transformers' own
        return getattr(self.model.config, f"{name}_config")

    def squared(self, pixels: object) -> torch.Tensor:
        return normalised(torch.tensor(pixels)[None], torch.float32)


def alone(run: Path) -> Alone:
    settings = settings_from_json(orjson.loads((run / "settings.json").read_bytes()))
    model, tokenizer = load_model(settings, torch.float32)
    freeze(model, settings.freezing)
    weights = weights_by_tag(settings.data.weights)
    plan = plan_of(settings.shards[0], settings.data.seed, settings.data.global_batch, settings.data.window, weights)
    return Alone(settings=settings, model=model.train(), tokenizer=tokenizer, plan=plan)


def plan_of(
    shards: Location, seed: int, global_batch: int, window: int, weights: Mapping[str, str] | None = None
) -> Plan:
    return Plan([open_set(shards)], seed=seed, global_batch=global_batch, window=window, weights=weights)


def chars_by_rank(plan: Plan, world_size: int) -> list[int]:
    """Characters that are answers, on each rank, in the first step."""
    step = plan.step(0)
    reported = [
        sum(len(turn.text) for turn in plan.sets[0][row].turns if turn.role == "gpt") for row in step.rows.tolist()
    ]
    split = split_slots(step.lengths, world_size, 1).reshape(world_size, -1).tolist()
    return [sum(reported[slot] for slot in slots if slot >= 0) for slots in split]


def unlike_seed(shards: Path, global_batch: int, world_size: int) -> int:
    """A seed with which one rank has many times the targets of another: a long DET answer here, a short REG there."""

    def unlikeness(seed: int) -> float:
        chars = chars_by_rank(plan_of(shards, seed, global_batch, 1), world_size)
        return max(chars) / min(chars)

    result = max(range(60), key=unlikeness)
    assert unlikeness(result) > 5
    return result


@pytest.mark.parametrize(("world_size", "global_batch", "stage"), [(2, 2, 2), (2, 3, 3), (4, 5, 2)])
def test_the_first_loss_is_that_of_one_process(
    world_size: int,
    global_batch: int,
    stage: int,
    launcher: Launcher,
    zero: Mapping[int, Options],
    frozen_set: Path,
    tmp_path: Path,
) -> None:
    """Padding, dummies, micro-batches and ranks change nothing; each sample counts as much as it has targets."""
    seed = unlike_seed(frozen_set, global_batch, world_size)
    options = (
        "--steps",
        1,
        "--global-batch",
        global_batch,
        "--window",
        1,
        "--seed",
        seed,
        "--workers",
        0,
        *zero[stage],
    )
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *options), world_size=world_size)
    assert ended.codes == [0] * world_size, ended.said
    (metrics,) = metrics_of(tmp_path / "run")
    one = alone(tmp_path / "run")
    with torch.no_grad():
        sums, counts = zip(*map(one.loss_sum, one.rows(0)), strict=True)
    assert metrics["targets"] == sum(counts)
    assert metrics["loss"] == pytest.approx(float(sum(sums)) / sum(counts), rel=1e-6, abs=0)
    of_means = sum(float(total) / count for total, count in zip(sums, counts, strict=True)) / global_batch
    assert metrics["loss"] != pytest.approx(of_means, rel=1e-5, abs=0)  # what is easily taken for it


@pytest.mark.parametrize("stage", [2, 3])
def test_steps_are_those_of_plain_adamw(
    stage: int, launcher: Launcher, zero: Mapping[int, Options], frozen_set: Path, tmp_path: Path
) -> None:
    """Three of them, clipped; the projector at a rate of its own, decay of matrices alone."""
    steps, rate, own_rate, decay, clip = 3, 1e-4, 5e-4, 0.5, 1.0
    rates = ("--lr", rate, "--projector-lr", own_rate, "--weight-decay", decay, "--clip", clip)
    batches = ("--steps", steps, "--global-batch", 5, "--micro-batch", 2, "--max-length", 400)
    regions = ("--weight", "VISJ_shapes=10", "--window", 1)  # so that their projector has something to learn
    run = tmp_path / "run"
    ended = launcher.run(*command(frozen_set, run, *batches, *regions, *rates, "--workers", 0, *zero[stage]))
    assert ended.codes == [0, 0], ended.said

    one = alone(run)
    before = {name: parameter.detach().clone() for name, parameter in one.model.named_parameters()}
    trained = {name: parameter for name, parameter in one.model.named_parameters() if parameter.requires_grad}
    groups = [
        {
            "params": [
                parameter
                for name, parameter in trained.items()
                if (name.startswith("projector."), parameter.dim() > 1) == (own, wide)
            ],
            "weight_decay": decay if wide else 0.0,
        }
        for own in (False, True)
        for wide in (False, True)
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    for step, metrics in enumerate(metrics_of(run)):
        factor = metrics["lr"] / rate
        for group, full in zip(optimizer.param_groups, (rate, rate, own_rate, own_rate), strict=True):
            group["lr"] = full * factor
        optimizer.zero_grad()
        sums, counts = zip(*map(one.loss_sum, one.rows(step)), strict=True)
        loss = torch.stack(sums).sum() / sum(counts)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), clip))
        optimizer.step()
        assert metrics["targets"] == sum(counts)
        assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6, abs=0)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5, abs=0)
        assert norm > 2 * clip
    assert [metrics["lr"] / rate for metrics in metrics_of(run)] == pytest.approx([1, 1, 0.5])

    after = load_file(run / "model" / "model.safetensors")
    apart = {
        name: float((parameter.detach() - after[name]).abs().max())
        for name, parameter in one.model.named_parameters()
        if name in after
    }
    assert len(apart) > 80
    assert max(apart.values()) < 1e-6, max(apart, key=lambda name: apart[name])
    assert all(not torch.equal(before[name], after[name]) for name in trained if name in after)


Overlong = Callable[..., Ended]


@pytest.fixture
def with_limit(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> Overlong:
    """Trains for two steps with a largest length."""

    def train(max_length: int, overlong: str) -> Ended:
        batches = ("--steps", 2, "--global-batch", 6, "--micro-batch", 3, "--window", 1, "--workers", 0)
        limit = ("--max-length", max_length, "--overlong", overlong)
        return launcher.run(*command(frozen_set, tmp_path / "run", *batches, *limit))

    return train


def learned(labels: Sequence[int]) -> int:
    return sum(label != IGNORE for label in labels[1:])


@pytest.mark.parametrize("overlong", ["truncate", "mask"])
def test_overlong_samples_are_counted(overlong: str, with_limit: Overlong, tmp_path: Path) -> None:
    limit = 150
    ended = with_limit(limit, overlong)
    assert ended.codes == [0, 0], ended.said
    one = alone(tmp_path / "run")
    cut = 0
    for step, metrics in enumerate(metrics_of(tmp_path / "run")):
        samples = [one.encoded(row) for row in one.rows(step)]
        longer = [len(sample.ids) > limit for sample in samples]
        assert metrics["overlong"] == sum(longer)
        left = [limit if is_long and overlong == "truncate" else 0 if is_long else LONG for is_long in longer]
        assert metrics["targets"] == sum(
            learned(sample.labels[:end]) for sample, end in zip(samples, left, strict=True)
        )
        cut += sum(longer)
    assert 0 < cut < 12


def test_nothing_is_learned_where_all_is_masked(with_limit: Overlong, tmp_path: Path) -> None:
    ended = with_limit(16, "mask")
    assert ended.codes == [1, 1], ended.said
    assert "not one token was learned" in ended.said[0]
    for metrics in metrics_of(tmp_path / "run"):
        assert (metrics["overlong"], metrics["targets"], metrics["loss"], metrics["grad_norm"]) == (6, 0, 0, 0)
        assert metrics["without_targets"] == 6
    assert not (tmp_path / "run" / "model").exists()


def test_an_overlong_sample_is_an_error_if_requested(with_limit: Overlong, tmp_path: Path) -> None:
    limit = 150
    ended = with_limit(limit, "error")
    one = alone(tmp_path / "run")
    longer = [one.frozen.where(row) for row in one.rows(0) if len(one.encoded(row).ids) > limit]
    assert longer
    assert ended.codes == [1, 1], ended.said
    lines = [line for output in ended.said for line in output.splitlines() if line.startswith("error: ")]
    reported = [line for line in lines if any(line.startswith(f"error: {where}: ") for where in longer)]
    assert reported and all(f"at most {limit} are allowed" in line for line in reported)
    assert all("another rank has ended" in line for line in lines if line not in reported)
    assert metrics_of(tmp_path / "run") == []
