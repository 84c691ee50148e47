"""All stages one after the other, for every family: what each leaves, what it starts from, and what it changes."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoTokenizer

from griffon_train.config.freezing import PARTS
from griffon_train.config.settings import settings_from_json
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.training.model_loading import load_model

from ..model_folders import FAMILIES, language_model_folder, tower_folder
from .conftest import Options
from .launcher import Launcher

STEPS = 2
SMALL = ("--steps", STEPS, "--global-batch", 4, "--micro-batch", 2, "--workers", 0)
MANY_REFERRING = ("--weight", "VISJ_shapes=100")
"""Nearly all samples have a region."""

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run that has ended.

    Attributes:
        run: its folder.
        before: weights that it began with, as the one before left them.
        after: weights that it left.
        metrics: of its steps.
        said: by its first rank.
    """

    run: Path
    before: Weights
    after: Weights
    metrics: Sequence[Mapping[str, Any]]
    said: str

    def change(self, part: str) -> float:
        """The largest of a part's weights."""
        names = [name for name in self.after if name.startswith(part + ".")]
        return max(float((self.after[name] - self.before[name]).abs().max()) for name in names)

    @property
    def changed(self) -> set[str]:
        """Parts that are not bit for bit what they were."""
        return {part for part in PARTS if self.change(part) > 0}

    @property
    def seen(self) -> set[str]:
        """Kinds of tasks that were trained on."""
        return {task for step in self.metrics for task in step["loss_by_task"]}

    @property
    def settings(self) -> Mapping[str, Any]:
        stored: Mapping[str, Any] = orjson.loads((self.run / "settings.json").read_bytes())
        return stored


def train(launcher: Launcher, run: Path, before: Weights | None, *arguments: object) -> Trained:
    """Run a stage on two ranks; without weights to begin with, it begins with those of its model."""
    ended = launcher.run("run", *arguments, *SMALL, "--output-dir", run)
    assert ended.codes == [0, 0], ended.said
    assert f"step {STEPS}/{STEPS}  loss " in ended.said[0]
    metrics = [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    assert [item["step"] for item in metrics] == list(range(STEPS))
    before = before or beginning(run)
    model_folder, projector = run / "model", run / "mm_projector.bin"
    if projector.exists():
        assert not model_folder.exists()
        after: Weights = {**before, **projector_of(projector)}
    else:
        after = saved(model_folder)
    assert after.keys() == before.keys()
    assert all(torch.isfinite(item).all() for item in after.values())
    return Trained(run=run, before=before, after=after, metrics=metrics, said=ended.said[0])


def beginning(run: Path) -> Weights:
    """Return the model of a run as it was before the first step."""
    model, _ = load_model(settings_from_json(orjson.loads((run / "settings.json").read_bytes())), torch.float32)
    return {name: value.clone() for name, value in model.state_dict().items()}


def saved(folder: Path) -> Weights:
    """Load a folder with transformers; no weight may be missing or left over."""
    loaded: Any = GriffonForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    model, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"]
    weights: Weights = model.state_dict()
    return weights


def projector_of(path: Path) -> Weights:
    """An `mm_projector.bin`, loaded as LLaVA's code does, by our names."""
    result = torch.load(path, weights_only=True)
    assert set(result) == {
        f"model.mm_projector.{name}" for name in ("conv.weight", "conv.bias", "linear.weight", "linear.bias")
    }
    return {name.replace("model.mm_projector.", "projector."): value for name, value in result.items()}


def ranks_of_parameters(run: Path) -> Mapping[str, set[int]]:
    """On which ranks the weights of each parameter that trains were."""
    index = orjson.loads((run / "checkpoints" / f"step-{STEPS:08d}" / "checkpoint.json").read_bytes())
    where: dict[str, set[int]] = {}
    for rank, file in enumerate(index["files"]):
        for name, *_ in file["fragments"]:
            where.setdefault(name, set()).add(rank)
    return where


def attention_told(said: str) -> Mapping[str, str]:
    """Return the attention of each part from the table at the start."""
    return dict(re.findall(r"^(\w+) +[\d,]+ +[\d,]+ +(\w+) *$", said, re.MULTILINE))


def check_zero(trained: Trained, stage: int) -> None:
    """ZeRO-3 cuts every parameter in two, ZeRO-2 the row of all of a group: one parameter at most."""
    assert trained.settings["zero"] == stage
    where = ranks_of_parameters(trained.run)
    assert set().union(*where.values()) == {0, 1}
    shared = sum(ranks == {0, 1} for ranks in where.values())
    assert shared == len(where) if stage == 3 else shared <= 2 * len(PARTS)
    assert stage == 3 or shared < len(where)


def check_change(trained: Trained, part: str, rate: float) -> None:
    """Two steps of AdamW, both at the full rate, move a weight by about twice that, whatever the gradient is."""
    assert rate / 2 < trained.change(part) < 2.5 * rate, part


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_continue_from_each_other(family: str, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """From the folders of a language model and of towers, as a user begins.

    A weight that has moved no further than two steps can take it stood where the stage before had left it.
    """
    shards = ("--shards", frozen_set)
    parts = (
        *("--model", os.path.relpath(language_model_folder(tmp_path / "language", family))),
        *("--vision-tower", tower_folder(tmp_path / "tower")),
        *("--region-tower", tower_folder(tmp_path / "region", whole=True, image_size=28)),
    )
    alignment = train(launcher, tmp_path / "alignment", None, "--stage", "alignment", *parts, *shards)
    assert attention_told(alignment.said) == {
        "language_model": "eager" if family == "gemma2" else "sdpa",  # sdpa would leave out Gemma-2's capping
        "vision_tower": "sdpa",
        "region_tower": "sdpa",
    }
    assert alignment.settings["model"] == str(tmp_path / "language")  # wherever the next stage is started
    assert alignment.changed == {"projector"}
    check_change(alignment, "projector", 1e-3)
    check_zero(alignment, 2)
    assert {step["group"] for step in alignment.metrics} == {"all"}

    pretrain = train(
        launcher, tmp_path / "pretrain", alignment.after, "--stage", "pretrain", "--from", alignment.run, *shards
    )
    assert {"language_model", "projector", "vision_tower"} <= pretrain.changed
    assert "region_tower" not in pretrain.changed
    assert ("region_projector" in pretrain.changed) == ("referring" in pretrain.seen)
    for part in ("projector", "vision_tower", "language_model"):
        check_change(pretrain, part, 2e-5)
    check_zero(pretrain, 3)
    for step in pretrain.metrics:
        assert step["group"] == "text" if set(step["loss_by_task"]) == {"text"} else "image"
        assert "text" not in step["loss_by_task"] or len(step["loss_by_task"]) == 1

    sft = train(
        *(launcher, tmp_path / "sft", pretrain.after, "--stage", "sft", "--from", pretrain.run, *shards),
        *(*MANY_REFERRING, "--attention", "eager"),
    )
    assert set(attention_told(sft.said).values()) == {"eager"}
    assert sft.changed == {"language_model", "projector", "vision_tower", "region_projector"}
    check_change(sft, "vision_tower", 2e-6)
    for part in ("projector", "language_model", "region_projector"):
        check_change(sft, part, 2e-5)
    check_zero(sft, 3)
    assert all(set(step["loss_by_task"]) == {step["group"]} for step in sft.metrics)

    name = "visual_referring"
    referring = train(
        launcher, tmp_path / name, sft.after, "--stage", name, "--from", sft.run, *shards, *MANY_REFERRING
    )
    assert referring.changed == {"region_projector"}
    check_change(referring, "region_projector", 1e-3)
    check_zero(referring, 2)
    assert {step["group"] for step in referring.metrics} == {"all"}


@pytest.mark.parametrize(
    ("family", "flag", "trains"),
    [
        ("tiny-gemma2", "--freeze-llm", {"vision_tower", "projector"}),
        ("tiny-llama2", "--freeze-vision-tower", {"projector", "language_model", "region_projector"}),
        ("tiny-qwen2", "--freeze_mm_mlp_adapter=True", {"vision_tower", "language_model", "region_projector"}),
    ],
)
def test_a_custom_stage_trains_what_the_flags_leave(
    family: str, flag: str, trains: set[str], launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    arguments = ("--stage", "custom", "--model", family, "--shards", frozen_set, flag, *MANY_REFERRING)
    custom = train(launcher, tmp_path / "run", None, *arguments)
    assert custom.changed == trains
    check_zero(custom, 2)
    for part in trains:
        check_change(custom, part, 2e-5)
    table = dict(re.findall(r"^(\w+) +[\d,]+ +([\d,]+)\b", custom.said, re.MULTILINE))
    assert {part for part in PARTS if table[part] != "0"} == trains


@pytest.mark.parametrize(("family", "tied"), [("gemma2", True), ("qwen2", False)])
def test_a_language_model_learns_bin_boxes_under_zero_3(
    family: str, tied: bool, zero: Mapping[int, Options], launcher: Launcher, bin_set: Path, tmp_path: Path
) -> None:
    """The next stage loads the result, which has as many embeddings as its configuration says."""
    shards = ("--shards", bin_set)
    parts = (
        *("--model", language_model_folder(tmp_path / "language", family, tie_word_embeddings=tied)),
        *("--vision-tower", tower_folder(tmp_path / "tower")),
        *("--region-tower", tower_folder(tmp_path / "region", image_size=28)),
    )
    custom = ("--stage", "custom", *shards, *zero[3])
    first = train(launcher, tmp_path / "first", None, *custom, *parts, "--boxes", "bin")
    check_zero(first, 3)
    second = train(launcher, tmp_path / "second", first.after, *custom, "--from", first.run)
    config = orjson.loads((second.run / "model/config.json").read_bytes())
    embeddings = second.after["language_model.model.embed_tokens.weight"]
    assert config["text_config"]["vocab_size"] == len(embeddings) > 1001
    assert torch.equal(embeddings, second.after["language_model.lm_head.weight"]) == tied
    for part in ("projector", "language_model"):
        check_change(second, part, 2e-5)
