"""The DeepSpeed configuration: built-in files by the settings, or a custom file that does not contradict them."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.config.deepspeed import CONFIGS, deepspeed_config, scheduler_passed_over
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings


def settings_of(stage: str, **given: object) -> Settings:
    needed = {"stage": stage, "shards": (Path("set"),), "output_dir": Path("run"), "model": "tiny-gemma2"}
    return resolve(needed | given).settings


@pytest.mark.parametrize(
    ("zero", "offload"), [(2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"), (3, "all")]
)
def test_deepspeed_is_told_what_the_settings_say(zero: int, offload: str) -> None:
    settings = settings_of("sft", zero=zero, offload=offload, clip=0.5)
    config = deepspeed_config(settings.memory, settings.optimizer, micro_batch=3, accumulation=5, dtype="bfloat16")
    section = config["zero_optimization"]
    assert section["stage"] == zero
    assert ("offload_optimizer" in section, "offload_param" in section) == (offload != "none", offload == "all")
    assert config["train_micro_batch_size_per_gpu"] == 3
    assert config["gradient_accumulation_steps"] == 5
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"] == {"enabled": True}
    assert deepspeed_config(settings.memory, settings.optimizer, micro_batch=1, accumulation=1, dtype="float32")[
        "bf16"
    ] == {"enabled": False}
    assert not {"optimizer", "scheduler", "fp16", "train_batch_size"} & config.keys()
    assert "auto" not in orjson.dumps(config).decode()


def test_deepspeed_knows_all_that_our_files_say() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    known = {name for value in DeepSpeedZeroConfig.model_fields.items() for name in (value[0], value[1].alias)}
    for path in CONFIGS.glob("*.json"):
        section = json.loads(path.read_text(encoding="utf-8"))["zero_optimization"]
        assert section.keys() <= known
        assert DeepSpeedZeroConfig(**section).stage == section["stage"]
    assert len(list(CONFIGS.glob("*.json"))) == 5


OWN: dict[str, Any] = {
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "wall_clock_breakdown": True,
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_max_live_parameters": 5,
    },
}


def own(folder: Path, **changes: object) -> Path:
    path = folder / "own.json"
    path.write_text(json.dumps({name: value for name, value in (OWN | changes).items() if value is not None}))
    return path


def test_a_file_of_ones_own_is_filled_where_it_says_auto(tmp_path: Path) -> None:
    settings = settings_of("sft", deepspeed=own(tmp_path))
    config = deepspeed_config(settings.memory, settings.optimizer, micro_batch=2, accumulation=4, dtype="bfloat16")
    ours = json.loads((CONFIGS / "zero3.json").read_text(encoding="utf-8"))["zero_optimization"]
    assert config["zero_optimization"] == {
        "stage": 3,
        "overlap_comm": True,
        "reduce_bucket_size": ours["reduce_bucket_size"],
        "stage3_max_live_parameters": 5,
    }
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (2, 4)
    assert (config["bf16"], config["wall_clock_breakdown"]) == ({"enabled": True}, True)
    assert config["zero_allow_untested_optimizer"] is True
    assert "fp16" not in config


_ALL_AUTO = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16, "min_loss_scale": 1},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "steps_per_print": 1e5,
    "wall_clock_breakdown": False,
}
_AUTO_ADAM_W = {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")}
_TO_CPU = {"device": "cpu", "pin_memory": True}
_STAGE_3 = {
    "stage": 3,
    "overlap_comm": True,
    "contiguous_gradients": True,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "LLaVA zero2": {"bf16": {"enabled": "auto"}, "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}},
    "LLaVA zero3": {
        "bf16": {"enabled": "auto"},
        "zero_optimization": _STAGE_3 | {"stage3_gather_16bit_weights_on_model_save": True},
    },
    "LLaVA zero3_offload": {
        "bf16": {"enabled": True},
        "optimizer": _AUTO_ADAM_W,
        "scheduler": {
            "type": "WarmupLR",
            "params": dict.fromkeys(("warmup_min_lr", "warmup_max_lr", "warmup_num_steps"), "auto"),
        },
        "zero_optimization": _STAGE_3
        | {"offload_optimizer": _TO_CPU, "offload_param": _TO_CPU, "gather_16bit_weights_on_model_save": True},
    },
    "ms-swift zero2": {
        "bf16": {"enabled": "auto"},
        "optimizer": _AUTO_ADAM_W,
        "scheduler": {
            "type": "WarmupCosineLR",
            "params": dict.fromkeys(("total_num_steps", "warmup_num_steps"), "auto"),
        },
        "zero_optimization": {
            "stage": 2,
            "offload_optimizer": {"device": "none", "pin_memory": True},
            "allgather_bucket_size": 2e8,
            "reduce_bucket_size": 2e8,
        },
    },
    "of a guide": {
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": [0.9, 0.999], "eps": 1e-8, "torch_adam": True, "adam_w_mode": True},
        },
        "zero_optimization": {"stage": 2},
    },
    "LLaMA-Factory ds_z3_offload": {
        "bf16": {"enabled": "auto"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": _STAGE_3 | {"offload_optimizer": _TO_CPU, "offload_param": _TO_CPU},
    },
}
"""As published for DeepSpeed with transformers, but for sizes."""


@pytest.mark.parametrize("published", PUBLISHED.values(), ids=PUBLISHED)
def test_published_files_that_leave_all_to_the_settings_are_taken(tmp_path: Path, published: dict[str, Any]) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    path = tmp_path / "own.json"
    path.write_text(json.dumps(_ALL_AUTO | published))
    stage = published["zero_optimization"]["stage"]
    settings = settings_of("sft", deepspeed=path, zero=stage, dtype="bfloat16")
    config = deepspeed_config(settings.memory, settings.optimizer, micro_batch=2, accumulation=4, dtype="bfloat16")
    assert "auto" not in orjson.dumps(config).decode()
    assert not {"optimizer", "scheduler", "fp16", "train_batch_size"} & config.keys()
    assert config["bf16"] == {"enabled": True}
    assert DeepSpeedZeroConfig(**config["zero_optimization"]).stage == stage
    output = scheduler_passed_over(settings.memory, settings.optimizer)
    assert (output is None) == ("scheduler" not in published)
    if output is not None:
        assert "--schedule cosine and --warmup-ratio 0.03" in output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": 8}, "train_batch_size follows from --global-batch; remove it"),
        ({"train_micro_batch_size_per_gpu": 2}, ".*follows from --micro-batch"),
        ({"gradient_clipping": 1.0}, "gradient_clipping follows from --clip"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 0.5}}}, "optimizer follows from --lr"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": [0.8, 0.999]}}}, "optimizer follows from"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": "auto", "amsgrad": True}}}, "optimizer follows from --lr"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer follows from --lr"),
        ({"optimizer": {"type": "Adam", "params": {"lr": "auto", "adam_w_mode": False}}}, "optimizer follows from"),
        ({"optimizer": {"type": "OneBitAdam", "params": {"lr": "auto"}}}, "optimizer follows from --lr"),
        ({"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 3e-5}}}, "scheduler follows from --schedule"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler follows from --schedule"),
        ({"fp16": {"enabled": True}}, "fp16 is on, but .*--dtype bfloat16"),
        ({"bf16": {"enabled": True}}, "bf16 follows from --dtype"),
        ({"zero_optimization": {"stage": 2}}, "its ZeRO stage is 2, but --zero is 3"),
        ({"zero_optimization": None}, "expected an object with a section zero_optimization"),
    ],
)
def test_a_file_of_ones_own_that_contradicts_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"--deepspeed .*own.json: {message}"):
        settings_of("sft", deepspeed=own(tmp_path, **changes))


def test_a_file_of_ones_own_that_is_invalid_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("stage: 3")
    for name, message in (("nowhere", "no such file"), ("text", "expected a JSON file")):
        with pytest.raises(SettingsError, match=message):
            settings_of("sft", deepspeed=tmp_path / name)
    with pytest.raises(SettingsError, match="the file defines offloading; give one"):
        settings_of("sft", deepspeed=own(tmp_path), offload="all")
