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


@dataclass(frozen=True, slots=True)
class Option:
    """What a setting is on the command line, where its name, with hyphens or underscores, is an option.

    Attributes:
        help: what it means.
        kind: what it may be, where its type does not say that.
        unset: what it means that it is not given.
        called: what the reference calls it, where that is another name.
        shown: the option's name, where that is not the setting's.
    """

    help: str
    kind: click.ParamType[Any] | None = None
    unset: str = ""
    called: str = ""
    shown: str = ""


def _one_of(*names: str) -> click.Choice[str]:
    return click.Choice(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a training run depends on. What each means is its option's help.

    Paths are as they were given; a run stores them absolute. Exactly one of `steps` and `epochs` is not None.
    """

    stage: Annotated[str, Option("Whose recipe to follow.", _one_of(*STAGES))]
    shards: Annotated[tuple[Path, ...], Option("Folder of a frozen set; once for each.")]
    output_dir: Annotated[Path, Option("Folder of the run: checkpoints, metrics, the model.")]
    from_run: Annotated[Path | None, Option("Folder of an earlier run to start from.", unset="none", shown="from")] = (
        None
    )

    model: Annotated[
        str | None,
        Option(
            "Preset, or folder of a saved Griffon model or of a language model.",
            unset="that of --from",
            called="model_name_or_path",
        ),
    ] = None
    tokenizer: Annotated[Path | None, Option("Folder of a tokenizer.", unset="the model's")] = None
    vision_tower: Annotated[Path | None, Option("CLIP tower for a language model's folder.", unset="the model's")] = (
        None
    )
    region_tower: Annotated[
        Path | None, Option("CLIP tower for <region>, where there is none.", unset="the model's")
    ] = None
    pretrain_mm_mlp_adapter: Annotated[
        Path | None, Option("An mm_projector.bin, or its like, to start from.", unset="none")
    ] = None
    projector: Annotated[
        str | None,
        Option(
            "Kind of a new projector.",
            _one_of("conv_reduce", "linear", "mlp2x_gelu"),
            unset="the model's; conv_reduce for a new one",
            called="mm_projector_type",
        ),
    ] = None
    select_layer: Annotated[
        int | None,
        Option(
            "Of a new model: the tower's hidden state to take.",
            unset="the model's; -2 for a new one",
            called="mm_vision_select_layer",
        ),
    ] = None
    boxes: Annotated[
        str | None, Option("bin teaches a model its tokens.", _one_of(*BOX_STYLES), unset="as the model does")
    ] = None
    chat: Annotated[str | None, Option("Chat template.", _one_of(*CHATS), unset="the model's", called="version")] = None
    attention: Annotated[
        str,
        Option(
            "How attention is computed.",
            _one_of("auto", "eager", "sdpa", "flex_attention", "flash_attention_2"),
            called="attn_implementation",
        ),
    ] = "auto"

    tune_mm_mlp_adapter: Annotated[bool, Option("Train the projector alone.")] = False
    tune_region_projector: Annotated[
        bool, Option("Train the region projector alone.", called="unshared_visual_encoder")
    ] = False
    freeze_llm: Annotated[bool, Option("Train only projector and vision tower.")] = False
    freeze_mm_mlp_adapter: Annotated[bool, Option("Do not train the projector.")] = False
    freeze_vision_tower: Annotated[bool, Option("Do not train the vision tower.")] = False

    max_length: Annotated[
        int, Option("Tokens of a sample at most, picture included.", click.IntRange(16), called="model_max_length")
    ] = 4096
    overlong: Annotated[str, Option("What to do with longer samples.", _one_of(*OVERLONG))] = "truncate"
    global_batch: Annotated[int, Option("Samples of an optimizer step, over all ranks.", COUNT)] = 128
    micro_batch: Annotated[
        int, Option("Samples that a rank computes at once.", COUNT, called="per_device_train_batch_size")
    ] = 1
    steps: Annotated[
        int | None,
        Option("Optimizer steps, instead of epochs.", _StepsOrNone(1), unset="as epochs", called="max_steps"),
    ] = None
    epochs: Annotated[
        float | None,
        Option(
            "Passes over the shards, such as 1 or 0.5.",
            _Passes(0, min_open=True),
            unset="as steps",
            called="num_train_epochs",
        ),
    ] = 1
    seed: Annotated[int, Option("Of the order and of new weights.")] = 0
    grouping: Annotated[str, Option("What the samples of a batch have in common.", _one_of(*GROUPINGS))] = "none"
    window: Annotated[int, Option("Batches sorted by length together.", COUNT)] = DEFAULT_WINDOW
    lengths: Annotated[tuple[Path, ...], Option("Counted lengths, one for each set.", unset="estimated")] = ()
    weights: Annotated[
        tuple[str, ...],
        Option("TAG=W: passes over a source an epoch (2, 0.5, 1/3).", unset="the sets'", shown="weight"),
    ] = ()
    workers: Annotated[
        int, Option("Reading processes of a rank.", click.IntRange(0), called="dataloader_num_workers")
    ] = 2

    lr: Annotated[float, Option("Learning rate.", POSITIVE, called="learning_rate")] = 2e-5
    projector_lr: Annotated[
        float | None, Option("Of the projector.", POSITIVE, unset="lr", called="mm_projector_lr")
    ] = None
    vision_tower_lr: Annotated[
        float | None, Option("Of the vision tower.", POSITIVE, unset="lr", called="mm_vision_tower_lr")
    ] = None
    schedule: Annotated[
        str, Option("Of the learning rates.", _one_of("cosine", "constant"), called="lr_scheduler_type")
    ] = "cosine"
    warmup_ratio: Annotated[float, Option("Share of the steps in which they rise.", SHARE)] = 0.03
    weight_decay: Annotated[float, Option("AdamW's, of all but biases and norms.", NOT_NEGATIVE)] = 0.0
    clip: Annotated[float, Option("Largest norm of the gradient; 0 for any.", NOT_NEGATIVE, called="max_grad_norm")] = (
        1.0
    )
    beta1: Annotated[float, Option("AdamW's.", SHARE, called="adam_beta1")] = 0.9
    beta2: Annotated[float, Option("AdamW's.", SHARE, called="adam_beta2")] = 0.999
    epsilon: Annotated[float, Option("AdamW's.", POSITIVE, called="adam_epsilon")] = 1e-8
    skip_steps: Annotated[tuple[str, ...], Option("A:B: leave out the steps A to B - 1.", unset="none")] = ()
    lr_from: Annotated[
        tuple[str, ...],
        Option("STEP=LR: another --lr from a step on; other rates in proportion.", unset="none"),
    ] = ()

    zero: Annotated[int, Option("DeepSpeed's ZeRO stage.", click.IntRange(2, 3))] = 2
    offload: Annotated[str, Option("What is kept in the CPU's memory.", _one_of("none", "optimizer", "all"))] = "none"
    deepspeed: Annotated[Path | None, Option("DeepSpeed JSON of one's own.", unset="as zero and offload say")] = None
    dtype: Annotated[str, Option("Of the weights; auto: bfloat16 on CUDA.", _one_of("auto", "bfloat16", "float32"))] = (
        "auto"
    )
    device: Annotated[str, Option("Where to compute.", _one_of("auto", "cpu", "cuda"))] = "auto"
    gradient_checkpointing: Annotated[bool, Option("Compute activations twice, for less memory.")] = False
    deterministic: Annotated[bool, Option("Bit-identical on a GPU, too; slower.")] = False

    save_steps: Annotated[int, Option("Steps between checkpoints.", COUNT)] = 1000
    keep: Annotated[int, Option("Checkpoints to keep.", COUNT, called="save_total_limit")] = 3
    val_shards: Annotated[tuple[Path, ...], Option("Frozen set to validate on; once for each.", unset="none")] = ()
    val_steps: Annotated[int | None, Option("Steps between validations.", COUNT, unset="none", called="eval_steps")] = (
        None
    )
    log_every: Annotated[int, Option("Steps between lines of progress.", COUNT, called="logging_steps")] = 10
    log_hook: Annotated[str | None, Option("module:function that is given every metric.", unset="none")] = None
    stall_s: Annotated[float, Option("Seconds without progress before the run ends itself.", POSITIVE)] = 600.0

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
    return "--" + (OPTIONS[setting].shown or setting).replace("_", "-")


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
