"""The settings of a training run: one table of what each is called, what it may be, and what it is by default.

The command line, `--print-config` and the stored settings of a run are all made from it. Without torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import click
import msgspec

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import BOX_STYLES
from griffon_train.config.freezing import Freezing
from griffon_train.data.plan import DEFAULT_WINDOW
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.text.chat_templates import CHATS
from griffon_train.text.tokenization import OVERLONG

STAGES = ("alignment", "pretrain", "sft", "visual_referring", "custom")
"""Each has a recipe, in the order in which they are run."""


class _Whole(click.IntRange):
    """A whole number, also written as `500.0`, as transformers takes it."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """As an int."""
        whole = re.fullmatch(r"(\d+)\.0*", str(value))
        return super().convert(int(whole[1]) if whole else value, param, ctx)


class _StepsOrNone(_Whole):
    """A number of steps; transformers' -1 is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """As an int, or None."""
        return None if str(value) == "-1" else super().convert(value, param, ctx)


class _Passes(click.FloatRange):
    """A number of epochs, of which the last may be a part."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """As an int where it is whole, else as a float."""
        found = super().convert(value, param, ctx)
        return int(found) if float(found).is_integer() else found


COUNT = _Whole(1)
SHARE = click.FloatRange(0, 1, max_open=True)
NOT_NEGATIVE = click.FloatRange(0)
POSITIVE = click.FloatRange(0, min_open=True)


RUN = "Run"
MODEL = "Model"
TRAINED = "Trained parts (default: all except the region tower)"
DATA = "Data"
OPTIMIZER = "Optimizer"
MEMORY = "Memory and speed"
LOGGING = "Checkpoints, validation and logs"


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting appears on the command line.

    Attributes:
        section: title of the help section that lists it.
        help: the help text.
        kind: accepted values, where the setting's Python type does not define them.
        unset: shown instead of a value when the option is not given.
        reference_name: the option's name in the reference's training script, where it differs.
        spelling: the option's name, where it differs from the setting's.
    """

    section: str
    help: str
    kind: click.ParamType[Any] | None = None
    unset: str = ""
    reference_name: str = ""
    spelling: str = ""


def _one_of(*names: str) -> click.Choice[str]:
    return click.Choice(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a training run. Each option's help text says what it means.

    Paths are as given; a run stores them absolute. Exactly one of `steps` and `epochs` is not None.
    """

    stage: Annotated[str, Option(RUN, "Training stage; its recipe sets the defaults.", _one_of(*STAGES))]
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
        Path | None,
        Option(MODEL, "Folder of the CLIP tower for <region>, if the model has none.", unset="the model's"),
    ] = None
    pretrain_mm_mlp_adapter: Annotated[
        Path | None,
        Option(MODEL, "File with trained projector weights to start from, such as mm_projector.bin.", unset="none"),
    ] = None
    projector: Annotated[
        str | None,
        Option(
            MODEL,
            "Type of the projector in a new model.",
            _one_of("conv_reduce", "linear", "mlp2x_gelu"),
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
        str | None,
        Option(
            MODEL,
            "How boxes are written: as text, or as bin tokens, which are added to a model without them.",
            _one_of(*BOX_STYLES),
            unset="the model's",
        ),
    ] = None
    chat: Annotated[
        str | None,
        Option(MODEL, "Chat template.", _one_of(*CHATS), unset="the model's", reference_name="version"),
    ] = None
    attention: Annotated[
        str,
        Option(
            MODEL,
            "Attention implementation; auto picks the fastest that the model supports.",
            _one_of("auto", "eager", "sdpa", "flex_attention", "flash_attention_2"),
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
        Option(
            DATA,
            "Maximum sample length in tokens, including image tokens.",
            click.IntRange(16),
            reference_name="model_max_length",
        ),
    ] = 4096
    overlong: Annotated[
        str,
        Option(
            DATA,
            "Samples longer than --max-length: truncate them, truncate and mask them from the loss, or stop.",
            _one_of(*OVERLONG),
        ),
    ] = "truncate"
    global_batch: Annotated[int, Option(DATA, "Samples per optimizer step, over all ranks.", COUNT)] = 128
    micro_batch: Annotated[
        int,
        Option(DATA, "Samples per forward pass on each rank.", COUNT, reference_name="per_device_train_batch_size"),
    ] = 1
    steps: Annotated[
        int | None,
        Option(
            DATA,
            "Number of optimizer steps; replaces --epochs.",
            _StepsOrNone(1),
            unset="set by --epochs",
            reference_name="max_steps",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        Option(
            DATA,
            "Number of passes over the shards, such as 1 or 0.5.",
            _Passes(0, min_open=True),
            unset="set by --steps",
            reference_name="num_train_epochs",
        ),
    ] = 1
    seed: Annotated[int, Option(DATA, "Seed of the sample order and of new weights.")] = 0
    grouping: Annotated[
        str,
        Option(DATA, "Make every batch of samples of one modality (text or image) or one task.", _one_of(*GROUPINGS)),
    ] = "none"
    window: Annotated[
        int,
        Option(DATA, "Batches whose samples are sorted by length together, to reduce padding; 1 to disable.", COUNT),
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
        Option(
            DATA,
            "Data loading processes per rank; 0 loads in the training process.",
            click.IntRange(0),
            reference_name="dataloader_num_workers",
        ),
    ] = 2

    lr: Annotated[float, Option(OPTIMIZER, "Peak learning rate.", POSITIVE, reference_name="learning_rate")] = 2e-5
    projector_lr: Annotated[
        float | None,
        Option(
            OPTIMIZER,
            "Peak learning rate of the projector.",
            POSITIVE,
            unset="same as --lr",
            reference_name="mm_projector_lr",
        ),
    ] = None
    vision_tower_lr: Annotated[
        float | None,
        Option(
            OPTIMIZER,
            "Peak learning rate of the vision tower.",
            POSITIVE,
            unset="same as --lr",
            reference_name="mm_vision_tower_lr",
        ),
    ] = None
    schedule: Annotated[
        str,
        Option(
            OPTIMIZER,
            "Learning rate schedule after the warmup.",
            _one_of("cosine", "constant"),
            reference_name="lr_scheduler_type",
        ),
    ] = "cosine"
    warmup_ratio: Annotated[float, Option(OPTIMIZER, "Fraction of the steps used for linear warmup.", SHARE)] = 0.03
    weight_decay: Annotated[
        float, Option(OPTIMIZER, "AdamW weight decay; biases and norms are excluded.", NOT_NEGATIVE)
    ] = 0.0
    clip: Annotated[
        float,
        Option(OPTIMIZER, "Maximum gradient norm; 0 disables clipping.", NOT_NEGATIVE, reference_name="max_grad_norm"),
    ] = 1.0
    beta1: Annotated[float, Option(OPTIMIZER, "AdamW beta1.", SHARE, reference_name="adam_beta1")] = 0.9
    beta2: Annotated[float, Option(OPTIMIZER, "AdamW beta2.", SHARE, reference_name="adam_beta2")] = 0.999
    epsilon: Annotated[float, Option(OPTIMIZER, "AdamW epsilon.", POSITIVE, reference_name="adam_epsilon")] = 1e-8
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

    zero: Annotated[int, Option(MEMORY, "DeepSpeed ZeRO stage.", click.IntRange(2, 3))] = 2
    offload: Annotated[
        str,
        Option(
            MEMORY,
            "Keep the optimizer state, or all (also the weights; needs --zero 3), in CPU memory.",
            _one_of("none", "optimizer", "all"),
        ),
    ] = "none"
    deepspeed: Annotated[
        Path | None,
        Option(MEMORY, "Custom DeepSpeed JSON file.", unset="a built-in one for --zero and --offload"),
    ] = None
    dtype: Annotated[
        str,
        Option(
            MEMORY,
            "Data type of the weights; auto is bfloat16 on CUDA and float32 on CPU.",
            _one_of("auto", "bfloat16", "float32"),
        ),
    ] = "auto"
    device: Annotated[
        str, Option(MEMORY, "Device to train on; auto is CUDA if available.", _one_of("auto", "cpu", "cuda"))
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool, Option(MEMORY, "Recompute activations in the backward pass; saves memory, costs time.")
    ] = False
    deterministic: Annotated[bool, Option(MEMORY, "Use deterministic GPU algorithms; slower.")] = False

    save_steps: Annotated[int, Option(LOGGING, "Save a checkpoint every N steps.", COUNT)] = 1000
    keep: Annotated[
        int, Option(LOGGING, "Number of latest checkpoints to keep.", COUNT, reference_name="save_total_limit")
    ] = 3
    val_shards: Annotated[
        tuple[Path, ...],
        Option(LOGGING, "Shard folder to validate on; repeat for several folders.", unset="none"),
    ] = ()
    val_steps: Annotated[
        int | None,
        Option(LOGGING, "Validate every N steps.", COUNT, unset="no validation", reference_name="eval_steps"),
    ] = None
    log_every: Annotated[
        int, Option(LOGGING, "Print progress every N steps.", COUNT, reference_name="logging_steps")
    ] = 10
    log_hook: Annotated[
        str | None,
        Option(LOGGING, "Python function, as module:function, called with every metrics record.", unset="none"),
    ] = None
    stall_s: Annotated[
        float, Option(LOGGING, "End the run with an error after this many seconds without progress.", POSITIVE)
    ] = 600.0

    @property
    def freezing(self) -> Freezing:
        """What is frozen."""
        return Freezing(**{each.name: getattr(self, each.name) for each in fields(Freezing)})


def _options() -> dict[str, Option]:
    hints = get_type_hints(Settings, include_extras=True)
    return {name: next(each for each in hint.__metadata__ if isinstance(each, Option)) for name, hint in hints.items()}


OPTIONS: Mapping[str, Option] = _options()
"""By setting, in order."""


def option_name(setting: str) -> str:
    """As it is given on the command line, such as `--global-batch`."""
    return "--" + (OPTIONS[setting].spelling or setting).replace("_", "-")


RESUME_FREE: frozenset[str] = frozenset(
    # where things lie; that they are the same things is seen by the plan's digest
    {"shards", "lengths", "output_dir", "val_shards"}
    # how the same sums are computed
    | {"micro_batch", "workers", "zero", "offload", "deepspeed", "device", "attention", "gradient_checkpointing"}
    | {"deterministic"}
    # what is seen and kept of them
    | {"save_steps", "keep", "val_steps", "log_every", "log_hook", "stall_s"}
)
"""Settings that may be others when a run is resumed, for it is the same run still, but for rounding."""


STEERING: frozenset[str] = frozenset({"skip_steps", "lr_from"})
"""Settings that may be others for steps that are not trained yet; the cursor sees to it."""


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """In plain types, for a checkpoint or a run to keep."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def settings_from_json(stored: Mapping[str, Any]) -> Settings:
    """What `settings_as_json` has made.

    Raises:
        DataError: it is not that, or another version's.
    """
    unknown = sorted(set(stored) - OPTIONS.keys())
    if unknown:
        raise DataError(f"stored settings have {', '.join(unknown)}, which this version does not know")
    try:
        return msgspec.convert(stored, Settings, dec_hook=lambda kind, value: kind(value))
    except msgspec.ValidationError as error:
        raise DataError(f"stored settings: {error}; they are damaged, or of another version") from error


def differences(old: Settings, new: Settings, *, free: bool = False) -> list[str]:
    """What is set otherwise, a line each, in the order of the settings.

    Args:
        old: of a run.
        new: that it is to be resumed with.
        free: tell of what may differ (`RESUME_FREE`) instead of what may not.
    """
    return [
        f"{each.name}: {shown(each.name, was)} before, {shown(each.name, now)} now"
        for each in fields(Settings)
        if each.name not in STEERING
        and (each.name in RESUME_FREE) == free
        and (was := getattr(old, each.name)) != (now := getattr(new, each.name))
    ]


def shown(setting: str, value: Any) -> str:  # noqa: ANN401 - of any setting
    """A value as it is given on the command line, or what it means that it is not."""
    if value is None or value == ():
        return f"({OPTIONS[setting].unset or 'missing'})"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).removesuffix(".0") if setting == "epochs" else str(value)


def weights_by_tag(given: Sequence[str]) -> dict[str, str]:
    """TAG=W each; that they are tags and numbers is the plan's to see.

    Raises:
        SettingsError: one is not TAG=W, or a tag has two.
    """
    found: dict[str, str] = {}
    for each in given:
        tag, equals, weight = each.rpartition("=")
        if not equals or not tag:
            raise SettingsError(f"--weight {each}: expected TAG=W, such as DET=2 or DET=1/3")
        if tag in found:
            raise SettingsError(f"--weight {each}: {tag} has {found[tag]} already; give one weight for each source")
        found[tag] = weight
    return found
