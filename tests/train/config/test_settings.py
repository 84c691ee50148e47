"""Settings: the origin of each value, contradictions, and storing them as JSON."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import orjson
import pytest

from griffon_shards.storage import as_location
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.groups import PROJECTOR_TYPES
from griffon_train.config.resolve import RECIPES, read_recipe, resolve
from griffon_train.config.settings import (
    OPTIONS,
    RESUME_FREE,
    STAGES,
    VALUE_TYPES,
    Settings,
    differences,
    from_values,
    settings_as_json,
    settings_from_json,
    values_of,
    weights_by_tag,
)
from griffon_train.model.projector import PROJECTORS

NEEDED = {"shards": (Path("set"),), "output_dir": Path("run"), "model": "tiny-gemma2"}


def settings_of(stage: str = "custom", **given: object) -> Settings:
    return resolve({"stage": stage, **NEEDED, **given}).settings


def test_the_command_line_goes_before_the_recipe_and_that_before_the_default() -> None:
    resolved = resolve({"stage": "sft", **NEEDED, "lr": 1e-4})
    assert (resolved.settings.optimizer.lr, resolved.origins["lr"]) == (1e-4, "command line")
    assert (resolved.settings.optimizer.vision_tower_lr, resolved.origins["vision_tower_lr"]) == (2e-6, "recipe sft")
    assert (resolved.settings.optimizer.beta2, resolved.origins["beta2"]) == (0.999, "default")
    assert list(resolved.origins) == list(OPTIONS)


@pytest.mark.parametrize("stage", STAGES)
def test_a_recipe_is_settings_and_says_where_its_numbers_are_from(stage: str) -> None:
    recipe = read_recipe(stage)
    assert recipe.keys() <= OPTIONS.keys()
    assert not recipe.keys() & {"stage", "shards", "output_dir", "model", "from_run"}
    text = (RECIPES / f"{stage}.toml").read_text(encoding="utf-8")
    unsaid = [
        splitline
        for splitline in text.splitlines()
        if " = " in splitline and not re.search("# .*(reference|ours)", splitline)
    ]
    assert not unsaid or (stage == "visual_referring" and "no recipe of this stage was released" in text.lower())


def test_recipes_are_the_references() -> None:
    alignment, pretrain, sft, referring, _ = stages = [settings_of(stage) for stage in STAGES]
    named = ("lr", "vision_tower_lr", "max_length", "zero", "micro_batch", "global_batch", "grouping")
    numbers = [tuple(values_of(settings)[name] for name in named) for settings in stages[:3]]
    assert numbers == [
        (1e-3, None, 2048, 2, 4, 256, "none"),
        (2e-5, None, 4096, 3, 2, 128, "modality"),
        (2e-5, 2e-6, 4096, 3, 2, 64, "task"),
    ]
    assert alignment.model.chat == "plain"
    assert (referring.optimizer.lr, referring.memory.zero, referring.data.max_length) == (1e-3, 2, 4096)
    for settings in (alignment, pretrain, sft, referring):
        rates = settings.optimizer
        assert (rates.schedule, rates.warmup_ratio, rates.weight_decay, rates.clip) == ("cosine", 0.03, 0.0, 1.0)
        assert (settings.data.epochs, settings.data.steps) == (1, None)
        assert (settings.memory.gradient_checkpointing, settings.checkpointing.keep) == (True, 3)
    everything = ("vision_tower", "projector", "language_model", "region_projector")
    trained = [settings.freezing.trained_parts() for settings in stages]
    assert trained == [("projector",), everything, everything, ("region_projector",), everything]


def test_the_model_has_the_projectors_that_can_be_chosen() -> None:
    assert tuple(PROJECTORS) == PROJECTOR_TYPES


@pytest.mark.parametrize(
    ("given", "size"), [("500GB", 500 * 10**9), ("1.5 TB", 1500 * 10**9), ("64MB", 64 * 10**6), ("7", 7)]
)
def test_sizes_have_units(given: str, size: int) -> None:
    assert VALUE_TYPES["cache_size"].convert(given, None, None) == size


@pytest.mark.parametrize("given", ["500G", "GB", "-1GB", "0", "5 gigabytes"])
def test_sizes_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(click.BadParameter):
        VALUE_TYPES["cache_size"].convert(given, None, None)


def test_steps_override_the_recipes_epochs() -> None:
    resolved = resolve({"stage": "pretrain", **NEEDED, "steps": 40})
    assert (resolved.settings.data.steps, resolved.settings.data.epochs) == (40, None)
    assert resolved.origins["epochs"] == "steps, command line"
    assert settings_of("pretrain", epochs=3).data.epochs == 3


def test_a_warmup_in_steps_puts_the_recipe_s_ratio_out_of_force() -> None:
    found = resolve({"stage": "pretrain", **NEEDED, "warmup_steps": 0})
    optimizer = found.settings.optimizer
    assert (optimizer.warmup_steps, optimizer.warmup_ratio) == (0, None)
    assert found.origins["warmup_ratio"] == "warmup_steps, command line"
    assert settings_of("pretrain", warmup_ratio=0.1).optimizer.warmup_ratio == 0.1


CONTRADICTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no stage": ("", {}, "--stage: expected one of alignment, pretrain, .*, got nothing"),
    "no shards": ("sft", {"shards": ()}, "--shards: missing"),
    "nothing": ("sft", {"shards": (), "output_dir": None, "model": None}, r"--shards, --output-dir, --model \(or --fr"),
    "micro-batch": (
        "alignment",
        {"global_batch": 2},
        r"--micro-batch 4 \(recipe alignment\) is more than --global-batch 2 \(command line\); give --micro-batch 2 or",
    ),
    "ends": ("sft", {"steps": 4, "epochs": 2}, "--steps 4 and --epochs 2 contradict each other: .*; give one"),
    "a cache without a size": (
        "sft",
        {"cache": Path("nvme")},
        r"--cache nvme \(command line\) and --cache-size \(no cache\) \(default\) need each other; give both or "
        "neither",
    ),
    "warm-ups": (
        "sft",
        {"warmup_steps": 4, "warmup_ratio": 0.1},
        "--warmup-steps 4 and --warmup-ratio 0.1 contradict each other: each sets the length of the warmup; give one",
    ),
    "warm-up of steps below": ("sft", {"warmup_steps": -1}, r"--warmup-steps -1 \(command line\): .*x>=0"),
    "warm-up": ("sft", {"warmup_ratio": 1.0}, r"--warmup-ratio 1.0 \(command line\): .*0<=x<1"),
    "warm-up below": ("sft", {"warmup_ratio": -0.1}, r"--warmup-ratio -0.1 \(command line\): .*0<=x<1"),
    "short": ("sft", {"max_length": 15}, r"--max-length 15 .*x>=16"),
    "lr": ("sft", {"lr": 0.0}, r"--lr 0.0 .*x>0"),
    "lr of no number": ("sft", {"lr": float("nan")}, "--lr nan .*finite"),
    "lr without end": ("sft", {"vision_tower_lr": float("inf")}, "--vision-tower-lr inf .*finite"),
    "only both": (
        "alignment",
        {"freeze_llm": True},
        r"--tune-mm-mlp-adapter true \(recipe alignment\), --freeze-llm true \(command line\): .* give one",
    ),
    "referring": ("visual_referring", {"tune_mm_mlp_adapter": True}, "tune_mm_mlp_adapter and tune_region_projector"),
    "all frozen": ("alignment", {"freeze_mm_mlp_adapter": True}, "nothing is left to train"),
    "val steps": ("sft", {"val_steps": 5}, "--val-steps 5 .* nothing to validate on; also give --val-shards"),
    "val shards": ("sft", {"val_shards": (Path("v"),)}, "--val-shards v .* never be read; also give --val-steps"),
    "offload": (
        "alignment",
        {"offload": "all"},
        r"--offload all \(command line\) needs --zero 3.*--zero 2 \(recipe alignment\)",
    ),
    "two projectors": (
        "sft",
        {"from_run": Path("a"), "pretrain_mm_mlp_adapter": Path("b")},
        "--from a .* and --pretrain-mm-mlp-adapter b .*; give one",
    ),
    "from itself": ("sft", {"from_run": Path("run")}, "--from run .* is also the --output-dir"),
    "hook": ("sft", {"log_hook": "wandb"}, "--log-hook wandb .*: expected module:function"),
    "lengths": (
        "sft",
        {"lengths": (Path("a"), Path("b"))},
        "--lengths a b .*: expected one table for each of --shards set",
    ),
    "weight": ("sft", {"weights": ("DET",)}, "--weight DET: expected TAG=W"),
    "chat": ("sft", {"chat": "vicuna"}, "--chat vicuna .*'vicuna' is not one of 'plain'"),
}


@pytest.mark.parametrize(("stage", "given", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_are_reported_in_a_line(stage: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(stage, **given)
    assert re.match(message, str(caught.value)) or re.search(message, str(caught.value)), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_need_not_be_named_where_a_run_is() -> None:
    assert settings_of("sft", model=None, from_run=Path("pretrained")).model.model is None


EVERYTHING = {
    "shards": (Path("a"), Path("../b"), as_location("s3://bucket/c")),
    "cache": Path("nvme"),
    "cache_size": 500_000_000_000,
    "from_run": Path("before"),
    "lengths": (Path("x"), Path("y"), Path("z")),
    "weights": ("DET=1/3", "REG=2"),
    "projector_lr": 3e-4,
    "val_shards": (Path("v"),),
    "val_steps": 7,
    "log_hook": "hooks:told",
    "freeze_vision_tower": True,
}


@pytest.mark.parametrize("given", [{}, EVERYTHING], ids=["few", "many"])
@pytest.mark.parametrize("stage", STAGES)
def test_settings_come_back_from_json_as_they_were(stage: str, given: dict[str, Any]) -> None:
    settings = settings_of(stage, **given)
    plain = settings_as_json(settings)
    assert settings_from_json(json.loads(json.dumps(plain))) == settings
    assert settings_from_json(orjson.loads(orjson.dumps(plain))) == settings
    assert list(plain) == list(OPTIONS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": "fast"}, r"\$\.lr"),
        ({"flavour": 1}, "have flavour, which this version does not know"),
        ({"shards": None}, r"\$\.shards"),
        ({"lr": 0.0}, r"\$\.lr"),
        ({"projector_lr": -1.0}, r"\$\.projector_lr"),
        ({"steps": 0}, r"\$\.steps"),
        ({"zero": 1}, r"\$\.zero"),
        ({"chat": "vicuna"}, r"\$\.chat"),
    ],
)
def test_invalid_stored_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        settings_from_json(settings_as_json(settings_of()) | change)


@pytest.mark.parametrize(("stored", "given"), [(1, 1), (1, 1.0), (1.0, 1), (0.5, 0.5)])
def test_epochs_stored_by_any_version_are_the_same_ones(stored: float, given: float) -> None:
    plain = settings_as_json(settings_of("sft")) | {"epochs": stored}
    assert differences(settings_from_json(plain), settings_of("sft", epochs=given)) == []


def test_differences_are_sorted_by_whether_a_run_stays_the_same() -> None:
    old = settings_of("sft")
    changes = {"lr": 1e-4, "workers": 9, "seed": 3, "shards": (Path("moved"),), "chat": "qwen2", "val_steps": 4}
    new = from_values(values_of(old) | changes)
    assert differences(old, old) == []
    assert differences(old, new) == [
        "chat: (the model's) before, qwen2 now",
        "seed: 0 before, 3 now",
        "lr: 2e-05 before, 0.0001 now",
    ]
    free = [line.partition(":")[0] for line in differences(old, new, free=True)]
    assert free == ["shards", "workers", "val_steps"]


def test_the_settings_that_define_a_run_may_not_change() -> None:
    assert OPTIONS.keys() > RESUME_FREE
    identity = {"stage", "lr", "steps", "epochs", "global_batch", "seed", "chat", "model", "grouping", "max_length"}
    assert not RESUME_FREE & (identity | {"dtype", "weights", "clip", "freeze_llm", "vision_tower_lr", "image_px"})


def test_weights_by_tag() -> None:
    assert weights_by_tag(("DET=1/3", "REG=2")) == {"DET": "1/3", "REG": "2"}
    with pytest.raises(SettingsError, match="DET already has weight 2"):
        weights_by_tag(("DET=2", "DET=3"))


def test_recipes_and_deepspeed_files_are_installed() -> None:
    root = Path(__file__).resolve().parents[3]
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    assert {"config/recipes/*.toml", "config/deepspeed/*.json"} <= set(data["griffon_train"])
    assert {item.stem for item in RECIPES.glob("*.toml")} == set(STAGES)
