"""The settings of a training run: one table with the name, type, constraints, default and help of each.

The command line, recipe checks, `--print-config` and stored settings are all derived from it. Does not import torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import click
import msgspec

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import BOX_STYLES
from griffon_train.config.freezing import Freezing
from griffon_train.config.options import (
    DATA,
    LOGGING,
    MEMORY,
    MODEL,
    OPTIMIZER,
    RUN,
    TRAINED,
    Count,
    Epochs,
    NotNegative,
    Option,
    Positive,
    Share,
    StepsOrNone,
    click_type,
    one_of,
)
from griffon_train.data.plan import DEFAULT_WINDOW
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.text.chat_templates import CHATS
from griffon_train.text.tokenization import OVERLONG

STAGES = ("alignment", "pretrain", "sft", "visual_referring", "custom")
"""Training stages in the order they are run; each has a recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a training run. Each option's help text says what it means.

    Paths are as given; a run stores them absolute. Exactly one of `steps` and `epochs` is not None.
    """

    stage: Annotated[str, one_of(*STAGES), Option(RUN, "Training stage; its recipe sets the defaults.")]
    shards: Annotated[
        tuple[Path, ...], Option(RUN, "Shard folder made by griffon-prep build; repeat for several folders.")
    ]
    output_dir: Annotated[Path, Option(RUN, "Folder for checkpoints, metrics and the trained model.")]
    from_run: Annotated[
        Path | None,
        Option(RUN, "Output folder of a finished run; training starts from its model.", unset="none", spelling="from"),
    ] = None

    model: Annotated[
        str | None,
        Option(
            MODEL,
            "Preset name, or folder of a saved Griffon model or of a language model.",
            unset="the model of --from",
            reference_name="model_name_or_path",
        ),
    ] = None
    tokenizer: Annotated[Path | None, Option(MODEL, "Folder of a tokenizer.", unset="the model's")] = None
    vision_tower: Annotated[
        Path | None,
        Option(MODEL, "Folder of the CLIP vision tower; needed with a language model.", unset="the model's"),
    ] = None
    region_tower: Annotated[
        Path | None, Option(MODEL, "Folder of the CLIP tower for <region>, if the model has none.", unset="the model's")
    ] = None
    pretrain_mm_mlp_adapter: Annotated[
        Path | None,
        Option(MODEL, "File with trained projector weights to start from, such as mm_projector.bin.", unset="none"),
    ] = None
    projector: Annotated[
        Annotated[str, one_of("conv_reduce", "linear", "mlp2x_gelu")] | None,
        Option(
            MODEL,
            "Type of the projector in a new model.",
            unset="the model's; conv_reduce in a new model",
            reference_name="mm_projector_type",
        ),
    ] = None
    select_layer: Annotated[
        int | None,
        Option(
            MODEL,
            "Hidden layer of the vision tower whose output a new model uses.",
            unset="the model's; -2 in a new model",
            reference_name="mm_vision_select_layer",
        ),
    ] = None
    boxes: Annotated[
        Annotated[str, one_of(*BOX_STYLES)] | None,
        Option(
            MODEL,
            "How boxes are written: as text, or as bin tokens, which are added to a model without them.",
            unset="the model's",
        ),
    ] = None
    chat: Annotated[
        Annotated[str, one_of(*CHATS)] | None,
        Option(MODEL, "Chat template.", unset="the model's", reference_name="version"),
    ] = None
    attention: Annotated[
        str,
        one_of("auto", "eager", "sdpa", "flex_attention", "flash_attention_2"),
        Option(
            MODEL,
            "Attention implementation; auto picks the fastest that the model supports.",
            reference_name="attn_implementation",
        ),
    ] = "auto"

    tune_mm_mlp_adapter: Annotated[bool, Option(TRAINED, "Train only the projector.")] = False
    tune_region_projector: Annotated[
        bool, Option(TRAINED, "Train only the region projector.", reference_name="unshared_visual_encoder")
    ] = False
    freeze_llm: Annotated[bool, Option(TRAINED, "Train only the projector and the vision tower.")] = False
    freeze_mm_mlp_adapter: Annotated[bool, Option(TRAINED, "Freeze the projector.")] = False
    freeze_vision_tower: Annotated[bool, Option(TRAINED, "Freeze the vision tower.")] = False

    max_length: Annotated[
        int,
        msgspec.Meta(ge=16),
        Option(DATA, "Maximum sample length in tokens, including image tokens.", reference_name="model_max_length"),
    ] = 4096
    overlong: Annotated[
        str,
        one_of(*OVERLONG),
        Option(DATA, "Samples longer than --max-length: truncate them, truncate and mask them from the loss, or stop."),
    ] = "truncate"
    global_batch: Annotated[Count, Option(DATA, "Samples per optimizer step, over all ranks.")] = 128
    micro_batch: Annotated[
        Count, Option(DATA, "Samples per forward pass on each rank.", reference_name="per_device_train_batch_size")
    ] = 1
    steps: Annotated[
        Count | None,
        Option(
            DATA,
            "Number of optimizer steps; replaces --epochs.",
            StepsOrNone,
            unset="set by --epochs",
            reference_name="max_steps",
        ),
    ] = None
    epochs: Annotated[
        Positive | None,
        Option(
            DATA,
            "Number of passes over the shards, such as 1 or 0.5.",
            Epochs,
            unset="set by --steps",
            reference_name="num_train_epochs",
        ),
    ] = 1
    seed: Annotated[int, Option(DATA, "Seed of the sample order and of new weights.")] = 0
    grouping: Annotated[
        str,
        one_of(*GROUPINGS),
        Option(DATA, "Make every batch of samples of one modality (text or image) or one task."),
    ] = "none"
    window: Annotated[
        Count, Option(DATA, "Batches whose samples are sorted by length together, to reduce padding; 1 to disable.")
    ] = DEFAULT_WINDOW
    lengths: Annotated[
        tuple[Path, ...],
        Option(
            DATA,
            "Length table from griffon-train lengths; one per --shards, in the same order.",
            unset="estimated lengths",
        ),
    ] = ()
    weights: Annotated[
        tuple[str, ...],
        Option(
            DATA,
            "Passes over the source TAG in each epoch, such as 2, 0.5 or 1/3; repeat for several sources.",
            unset="as stored in the shards",
            spelling="weight",
        ),
    ] = ()
    workers: Annotated[
        int,
        msgspec.Meta(ge=0),
        Option(
            DATA,
            "Data loading processes per rank; 0 loads in the training process.",
            reference_name="dataloader_num_workers",
        ),
    ] = 2

    lr: Annotated[Positive, Option(OPTIMIZER, "Peak learning rate.", reference_name="learning_rate")] = 2e-5
    projector_lr: Annotated[
        Positive | None,
        Option(
            OPTIMIZER, "Peak learning rate of the projector.", unset="same as --lr", reference_name="mm_projector_lr"
        ),
    ] = None
    vision_tower_lr: Annotated[
        Positive | None,
        Option(
            OPTIMIZER,
            "Peak learning rate of the vision tower.",
            unset="same as --lr",
            reference_name="mm_vision_tower_lr",
        ),
    ] = None
    schedule: Annotated[
        str,
        one_of("cosine", "constant"),
        Option(OPTIMIZER, "Learning rate schedule after the warmup.", reference_name="lr_scheduler_type"),
    ] = "cosine"
    warmup_ratio: Annotated[Share, Option(OPTIMIZER, "Fraction of the steps used for linear warmup.")] = 0.03
    weight_decay: Annotated[NotNegative, Option(OPTIMIZER, "AdamW weight decay; biases and norms are excluded.")] = 0.0
    clip: Annotated[
        NotNegative, Option(OPTIMIZER, "Maximum gradient norm; 0 disables clipping.", reference_name="max_grad_norm")
    ] = 1.0
    beta1: Annotated[Share, Option(OPTIMIZER, "AdamW beta1.", reference_name="adam_beta1")] = 0.9
    beta2: Annotated[Share, Option(OPTIMIZER, "AdamW beta2.", reference_name="adam_beta2")] = 0.999
    epsilon: Annotated[Positive, Option(OPTIMIZER, "AdamW epsilon.", reference_name="adam_epsilon")] = 1e-8
    skip_steps: Annotated[
        tuple[str, ...], Option(OPTIMIZER, "Skip steps A to B - 1; repeat for several ranges.", unset="none")
    ] = ()
    lr_from: Annotated[
        tuple[str, ...],
        Option(
            OPTIMIZER,
            "Change --lr to LR from step STEP on, and the other rates in proportion; repeat for several steps.",
            unset="none",
        ),
    ] = ()

    zero: Annotated[int, msgspec.Meta(ge=2, le=3), Option(MEMORY, "DeepSpeed ZeRO stage.")] = 2
    offload: Annotated[
        str,
        one_of("none", "optimizer", "all"),
        Option(MEMORY, "Keep the optimizer state, or all (also the weights; needs --zero 3), in CPU memory."),
    ] = "none"
    deepspeed: Annotated[
        Path | None, Option(MEMORY, "Custom DeepSpeed JSON file.", unset="a built-in one for --zero and --offload")
    ] = None
    dtype: Annotated[
        str,
        one_of("auto", "bfloat16", "float32"),
        Option(MEMORY, "Data type of the weights; auto is bfloat16 on CUDA and float32 on CPU."),
    ] = "auto"
    device: Annotated[
        str, one_of("auto", "cpu", "cuda"), Option(MEMORY, "Device to train on; auto is CUDA if available.")
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool, Option(MEMORY, "Recompute activations in the backward pass; saves memory, costs time.")
    ] = False
    deterministic: Annotated[bool, Option(MEMORY, "Use deterministic GPU algorithms; slower.")] = False

    save_steps: Annotated[Count, Option(LOGGING, "Save a checkpoint every N steps.")] = 1000
    keep: Annotated[
        Count, Option(LOGGING, "Number of latest checkpoints to keep.", reference_name="save_total_limit")
    ] = 3
    val_shards: Annotated[
        tuple[Path, ...], Option(LOGGING, "Shard folder to validate on; repeat for several folders.", unset="none")
    ] = ()
    val_steps: Annotated[
        Count | None, Option(LOGGING, "Validate every N steps.", unset="no validation", reference_name="eval_steps")
    ] = None
    log_every: Annotated[Count, Option(LOGGING, "Print progress every N steps.", reference_name="logging_steps")] = 10
    log_hook: Annotated[
        str | None,
        Option(LOGGING, "Python function, as module:function, called with every metrics record.", unset="none"),
    ] = None
    stall_s: Annotated[
        Positive, Option(LOGGING, "End the run with an error after this many seconds without progress.")
    ] = 600.0

    @property
    def freezing(self) -> Freezing:
        """The freezing flags."""
        return Freezing(**{flag.name: getattr(self, flag.name) for flag in fields(Freezing)})


TYPES: Mapping[str, Any] = get_type_hints(Settings, include_extras=True)
"""The annotated type of each setting, in order."""

OPTIONS: Mapping[str, Option] = {
    name: next(extra for extra in hint.__metadata__ if isinstance(extra, Option)) for name, hint in TYPES.items()
}
"""The option of each setting, in order."""

VALUE_TYPES: Mapping[str, click.ParamType[Any]] = {name: click_type(hint) for name, hint in TYPES.items()}
"""The click type of each setting's value, or of one value where there may be several."""


def option_name(setting: str) -> str:
    """The option's name on the command line, such as `--global-batch`."""
    return "--" + (OPTIONS[setting].spelling or setting).replace("_", "-")


RESUME_FREE: frozenset[str] = frozenset(
    # locations; the plan's digest shows whether the contents are the same
    {"shards", "lengths", "output_dir", "val_shards"}
    # ways to compute the same sums
    | {"micro_batch", "workers", "zero", "offload", "deepspeed", "device", "attention", "gradient_checkpointing"}
    | {"deterministic"}
    # what is logged and kept
    | {"save_steps", "keep", "val_steps", "log_every", "log_hook", "stall_s"}
)
"""Settings that may change when a run is resumed: the results stay the same up to rounding."""


STEERING: frozenset[str] = frozenset({"skip_steps", "lr_from"})
"""Settings that may change for steps not trained yet; the cursor checks this."""


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """Convert settings to JSON types, to store them with a run or a checkpoint."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def settings_from_json(stored: Mapping[str, Any]) -> Settings:
    """Restore settings from the output of `settings_as_json`.

    Raises:
        DataError: the stored settings are damaged or from another version.
    """
    unknown = sorted(set(stored) - OPTIONS.keys())
    if unknown:
        raise DataError(f"stored settings have {', '.join(unknown)}, which this version does not know; use a newer one")
    try:
        return msgspec.convert(stored, Settings, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise DataError(f"stored settings: {error}; they are damaged or from another version") from error


def differences(old: Settings, new: Settings, *, free: bool = False) -> list[str]:
    """List the settings that differ, one line each, in the order of `Settings`.

    Args:
        old: settings of a run.
        new: settings to resume it with.
        free: list settings that may differ (`RESUME_FREE`) instead of those that may not.
    """
    return [
        f"{name}: {shown(name, was)} before, {shown(name, now)} now"
        for name in OPTIONS
        if name not in STEERING
        and (name in RESUME_FREE) == free
        and (was := getattr(old, name)) != (now := getattr(new, name))
    ]


def shown(setting: str, value: Any) -> str:  # noqa: ANN401 - of any setting
    """Format a value as on the command line; an unset one as its meaning in parentheses."""
    if value is None or value == ():
        return f"({OPTIONS[setting].unset or 'missing'})"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if setting == "epochs" else str(value)


def weights_by_tag(given: Sequence[str]) -> dict[str, str]:
    """Split `TAG=W` options into tags and weights. The plan checks that both are valid.

    Raises:
        SettingsError: an option is not TAG=W, or a tag has two weights.
    """
    weights: dict[str, str] = {}
    for option in given:
        tag, equals, weight = option.rpartition("=")
        if not equals or not tag:
            raise SettingsError(f"--weight {option}: expected TAG=W, such as DET=2 or DET=1/3")
        if tag in weights:
            raise SettingsError(f"--weight {option}: {tag} already has weight {weights[tag]}; give one per source")
        weights[tag] = weight
    return weights
