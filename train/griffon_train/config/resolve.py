"""Resolve the settings of a run from the command line, the stage's recipe and the defaults; refuse contradictions.

The origin of every value is recorded. Nothing is loaded, and torch is not imported.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import table
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.freezing import Freezing
from griffon_train.config.lora import lora_problems
from griffon_train.config.settings import (
    DEFAULTS,
    OPTIONS,
    STAGES,
    VALUE_TYPES,
    Settings,
    from_values,
    option_name,
    shown,
    values_of,
    weights_by_tag,
)
from griffon_train.data.steering import Steering, steps_between

RECIPES = Path(__file__).parent / "recipes"
"""Holds a TOML file for each stage."""

_GIVEN = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings and the origin of each.

    Attributes:
        settings: settings of a run.
        origins: by setting: `default`, `recipe STAGE`, `command line` or `not given`.
    """

    settings: Settings
    origins: Mapping[str, str]

    def table(self) -> str:
        """A table of setting, value and origin."""
        values = values_of(self.settings)
        rows = [(name, shown(name, values[name]), origin) for name, origin in self.origins.items()]
        return table(("setting", "value", "from"), rows)


def resolve(given: Mapping[str, Any], *, complete: bool = True) -> Resolved:
    """Resolve each setting: the given value, else the recipe's, else the default.

    Args:
        given: values by setting, from the command line.
        complete: require shards, model and output folder; pass False to look at a recipe without them.

    Raises:
        SettingsError: the stage is missing, a value is invalid, settings contradict each other, or one is missing.
    """
    stage = given.get("stage")
    if stage not in STAGES:
        raise SettingsError(f"--stage: expected one of {', '.join(STAGES)}, got {stage or 'nothing'}")
    recipe = read_recipe(stage)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name in OPTIONS:
        if name in given:
            values[name], origins[name] = given[name], _GIVEN
        elif name in recipe:
            values[name], origins[name] = recipe[name], f"recipe {stage}"
        elif name in DEFAULTS:
            values[name], origins[name] = DEFAULTS[name], "default"
        else:
            values[name], origins[name] = None, "not given"
    _replace(values, origins, "epochs", by="steps", sets="the length of the run")
    _replace(values, origins, "warmup_ratio", by="warmup_steps", sets="the length of the warmup")
    settings = from_values(values)
    for problem in _problems(settings, origins):
        raise SettingsError(problem)
    if complete:
        _require(values)
    return Resolved(settings=settings, origins=origins)


def read_recipe(stage: str) -> dict[str, Any]:
    """The values that a stage's recipe sets, by setting."""
    return tomllib.loads((RECIPES / f"{stage}.toml").read_text(encoding="utf-8"))


def _replace(values: dict[str, Any], origins: dict[str, str], name: str, *, by: str, sets: str) -> None:
    """Unset a setting of the recipe or the defaults if another one is given that sets the same."""
    if values[by] is None:
        return
    if origins[name] == _GIVEN and values[name] is not None:
        raise SettingsError(
            f"{option_name(by)} {values[by]} and {option_name(name)} {values[name]} contradict each other: each sets "
            f"{sets}; give one"
        )
    values[name], origins[name] = None, f"{by}, {origins[by]}"


def _require(values: Mapping[str, Any]) -> None:
    missing = [option_name(name) for name in ("shards", "output_dir") if not values[name]]
    if values["model"] is None and values["from_run"] is None:
        missing.append("--model (or --from)")
    if missing:
        raise SettingsError(f"{', '.join(missing)}: missing; these options are required")


def _problems(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """Problems with the settings, one line each: what is wrong, the value, how to fix it."""
    values = values_of(settings)

    def named(name: str) -> str:
        return f"{option_name(name)} {shown(name, values[name])} ({origins[name]})"

    yield from _impossible(values, named)
    model, data, memory, logging = settings.model, settings.data, settings.memory, settings.logging
    contradictions = (
        (
            data.micro_batch > data.global_batch,
            f"{named('micro_batch')} is more than {named('global_batch')}; "
            f"give --micro-batch {data.global_batch} or less",
        ),
        (
            memory.offload == "all" and memory.zero == 2,
            f"{named('offload')} needs --zero 3, as ZeRO-2 keeps all weights on every device; got {named('zero')}",
        ),
        *_validation_contradictions(settings, named),
        (
            (data.cache is None) != (data.cache_size is None),
            f"{named('cache')} and {named('cache_size')} need each other; give both or neither",
        ),
        (
            settings.from_run is not None and model.pretrain_mm_mlp_adapter is not None,
            f"{named('from_run')} and {named('pretrain_mm_mlp_adapter')} contradict each other: each provides a "
            "projector; give one",
        ),
        (
            settings.from_run is not None and settings.from_run == settings.output_dir,
            f"{named('from_run')} is also the --output-dir; give the new run another --output-dir",
        ),
        (
            logging.log_hook is not None and not re.fullmatch(r"[\w.]+:\w+", logging.log_hook),
            f"{named('log_hook')}: expected module:function, such as my_logs:to_wandb",
        ),
        (
            len(data.lengths) not in (0, len(settings.shards or data.lengths)),
            f"{named('lengths')}: expected one table for each of {named('shards')}, in the same order",
        ),
    )
    yield from (problem for wrong, problem in contradictions if wrong)
    flags = ", ".join(named(flag.name) for flag in fields(Freezing) if values[flag.name])
    try:
        yield from lora_problems(settings.lora, settings.freezing.trained_parts(), named, flags)
    except SettingsError as error:
        yield f"{flags}: {error}"
    weights_by_tag(data.weights)
    Steering.of(settings.optimizer.skip_steps, settings.optimizer.lr_from)
    if logging.profile_steps is not None:
        steps_between("--profile-steps", logging.profile_steps, "profiles")
    zero_config(memory, settings.optimizer)


def _validation_contradictions(settings: Settings, named: Callable[[str], str]) -> tuple[tuple[bool, str], ...]:
    """Whether each contradiction about validation holds, and its message."""
    logging = settings.logging
    return (
        (
            logging.val_steps is not None and not logging.val_shards,
            f"{named('val_steps')} has nothing to validate on; also give --val-shards",
        ),
        (
            logging.val_steps is None and len(logging.val_shards) > 0,
            f"{named('val_shards')} would never be read; also give --val-steps",
        ),
        (
            logging.val_generate is not None and not logging.val_shards,
            f"{named('val_generate')} has nothing to ask about; also give --val-shards and --val-steps",
        ),
        (
            logging.val_generate is not None and settings.memory.zero == 3,
            f"{named('val_generate')} needs complete weights on every device, which {named('zero')} does not keep; "
            "give --zero 2, or evaluate checkpoints with griffon-train evaluate",
        ),
        (
            settings.checkpointing.keep_best is not None and not logging.val_shards,
            f"{named('keep_best')} needs a validation; also give --val-shards and --val-steps",
        ),
    )


def _impossible(values: Mapping[str, Any], named: Callable[[str], str]) -> Iterator[str]:
    """Report values that the command line would refuse, whatever their origin."""
    for name, value in values.items():
        if value == "":
            yield f"{option_name(name)}: expected a value, got an empty text"
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{named(name)}: expected a finite number"
        if value is not None and not isinstance(value, Path | tuple):
            try:
                VALUE_TYPES[name].convert(value, None, None)
            except click.BadParameter as error:
                yield f"{named(name)}: {error.message}"
