"""The settings of a training run, in groups; a group is a section of the help.

Files, the command line and recipes name a setting without its group. Does not import torch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import click
import msgspec

from griffon_shards.storage import as_location
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.freezing import Freezing
from griffon_train.config.groups import (
    CheckpointSettings,
    DataSettings,
    LoggingSettings,
    MemorySettings,
    ModelSettings,
    OptimizerSettings,
)
from griffon_train.config.lora import LoraSettings
from griffon_train.config.options import Option, SetRoot, click_type, one_of

STAGES = ("alignment", "pretrain", "sft", "visual_referring", "custom")
"""Training stages in the order they are run; each has a recipe."""

_OUTPUT = "Checkpoints, validation and logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of a training run. Each option's help text says what it means.

    The annotation of a group is the title of its section in the help; settings outside a group are in the section Run.
    Paths are as given; a run stores them absolute.
    """

    stage: Annotated[str, one_of(*STAGES), Option("Training stage; its recipe sets the defaults.")]
    shards: Annotated[
        tuple[SetRoot, ...], Option("Shard folder made by griffon-prep build, or its URL; repeat for several folders.")
    ]
    output_dir: Annotated[Path, Option("Folder for checkpoints, metrics and the trained model.")]
    from_run: Annotated[
        Path | None,
        Option("Output folder of a finished run; training starts from its model.", unset="none", spelling="from"),
    ] = None
    model: Annotated[ModelSettings, "Model"] = field(default_factory=ModelSettings)
    freezing: Annotated[Freezing, "Trained parts (default: all except the region tower)"] = field(
        default_factory=Freezing
    )
    lora: Annotated[LoraSettings, "LoRA"] = field(default_factory=LoraSettings)
    data: Annotated[DataSettings, "Data"] = field(default_factory=DataSettings)
    optimizer: Annotated[OptimizerSettings, "Optimizer"] = field(default_factory=OptimizerSettings)
    memory: Annotated[MemorySettings, "Memory and speed"] = field(default_factory=MemorySettings)
    checkpointing: Annotated[CheckpointSettings, _OUTPUT] = field(default_factory=CheckpointSettings)
    logging: Annotated[LoggingSettings, _OUTPUT] = field(default_factory=LoggingSettings)


def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


_GROUPS: Mapping[str, Any] = {
    name: hint.__origin__ for name, hint in _types(Settings).items() if is_dataclass(hint.__origin__)
}

_GROUP_OF: Mapping[str, str] = {name: group for group, kind in _GROUPS.items() for name in _types(kind)}
"""The group of each setting that has one. A setting and a group may have the same name, such as `model`."""

TYPES: Mapping[str, Any] = {name: hint for name, hint in _types(Settings).items() if name not in _GROUPS} | {
    name: hint for kind in _GROUPS.values() for name, hint in _types(kind).items()
}
"""The annotated type of each setting, in order."""

DEFAULTS: Mapping[str, Any] = {
    setting.name: setting.default
    for kind in (Settings, *_GROUPS.values())
    for setting in fields(kind)
    if setting.default is not MISSING
}
"""The default of each setting that has one."""

OPTIONS: Mapping[str, Option] = {
    name: next(extra for extra in hint.__metadata__ if isinstance(extra, Option)) for name, hint in TYPES.items()
}
"""The option of each setting, in order."""

VALUE_TYPES: Mapping[str, click.ParamType[Any]] = {name: click_type(hint) for name, hint in TYPES.items()}
"""The click type of each setting's value, or of one value where there may be several."""


def option_name(setting: str) -> str:
    """The option's name on the command line, such as `--global-batch`."""
    return "--" + (OPTIONS[setting].spelling or setting).replace("_", "-")


def section(setting: str) -> str:
    """The title of the help section that lists a setting."""
    return _types(Settings)[_GROUP_OF[setting]].__metadata__[0] if setting in _GROUP_OF else "Run"


def values_of(settings: Settings) -> dict[str, Any]:
    """The value of each setting by name, in order."""
    owners = {name: getattr(settings, _GROUP_OF[name]) if name in _GROUP_OF else settings for name in TYPES}
    return {name: getattr(owner, name) for name, owner in owners.items()}


def from_values(values: Mapping[str, Any]) -> Settings:
    """Settings from values by name, which are not checked; the others have their defaults."""
    return _grouped(values, lambda kind, given: kind(**given))


def _grouped(values: Mapping[str, Any], make: Callable[[type, dict[str, Any]], Any]) -> Settings:
    """Settings from values by name; `make` makes an object of a type from its attributes."""

    def given(group: str | None) -> dict[str, Any]:
        return {name: value for name, value in values.items() if _GROUP_OF.get(name) == group}

    settings: Settings = make(Settings, given(None))
    return replace(settings, **{group: make(kind, given(group)) for group, kind in _GROUPS.items()})


RESUME_FREE: frozenset[str] = frozenset(
    # locations; the plan's digest shows whether the contents are the same
    {"shards", "lengths", "output_dir", "val_shards"}
    # ways to compute the same sums
    | {"micro_batch", "workers", "cache", "cache_size", "zero", "offload", "deepspeed", "device", "attention"}
    | {"gradient_checkpointing"}
    | {"deterministic", "optimizer"}
    # what is logged and kept
    | {
        "save_steps",
        "keep",
        "save_total_gb",
        "keep_best",
        "val_steps",
        "val_generate",
        "log_every",
        "log_hook",
        "stall_s",
    }
    | {"profile_steps"}
)
"""Settings that may change when a run is resumed: the results stay the same up to rounding."""


STEERING: frozenset[str] = frozenset({"skip_steps", "lr_from"})
"""Settings that may change for steps not trained yet; the cursor checks this."""


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """Convert settings to JSON types, to store them with a run or a checkpoint."""
    plain: dict[str, Any] = msgspec.to_builtins(values_of(settings), enc_hook=str)
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
        return _grouped(stored, lambda kind, given: msgspec.convert(given, kind, dec_hook=_decoded))
    except msgspec.ValidationError as error:
        raise DataError(f"stored settings: {error}; they are damaged or from another version") from error


def _decoded(kind: Any, value: Any) -> Any:  # noqa: ANN401 - of any setting
    return as_location(value) if kind is SetRoot else kind(value)


def differences(old: Settings, new: Settings, *, free: bool = False) -> list[str]:
    """List the settings that differ, one line each, in the order of `Settings`.

    Args:
        old: settings of a run.
        new: settings to resume it with.
        free: list settings that may differ (`RESUME_FREE`) instead of those that may not.
    """
    after = values_of(new)
    return [
        f"{name}: {shown(name, value)} before, {shown(name, after[name])} now"
        for name, value in values_of(old).items()
        if name not in STEERING and (name in RESUME_FREE) == free and value != after[name]
    ]


def prolongs(old: Settings, new: Settings) -> bool:
    """Whether a run goes on with more steps, and every step before has the learning rate that it had.

    That is so after a warm-up in steps, at a constant rate.
    """
    if old.data.steps is None or new.data.steps is None or new.data.steps <= old.data.steps:
        return False
    lasting = new.optimizer.schedule == "constant" and new.optimizer.warmup_steps is not None
    return lasting and not differences(old, replace(new, data=replace(new.data, steps=old.data.steps)))


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
