"""From what is given, a stage's recipe and the defaults to the settings of a run; contradictions end it here.

Every value remembers where it came from. Nothing is loaded yet, and torch is not needed.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import click

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import table
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.freezing import Freezing
from griffon_train.config.settings import OPTIONS, STAGES, Settings, option_name, shown, weights_by_tag
from griffon_train.data.steering import Steering

RECIPES = Path(__file__).parent / "recipes"
"""A TOML file for each stage."""

_GIVEN = "command line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings, and where each came from.

    Attributes:
        settings: of a run.
        origins: by setting: `default`, `recipe STAGE`, `command line`, or that it was not given.
    """

    settings: Settings
    origins: Mapping[str, str]

    def table(self) -> str:
        """For people: setting, value, and where it is from."""
        rows = [(name, shown(name, getattr(self.settings, name)), origin) for name, origin in self.origins.items()]
        return table(("setting", "value", "from"), rows)


def resolve(given: Mapping[str, Any], *, complete: bool = True) -> Resolved:
    """The settings of a run: what is given, else the recipe's, else the default.

    Args:
        given: by setting, from the command line.
        complete: whether shards, model and output folder must be known; without, one can look at a recipe.

    Raises:
        SettingsError: no stage, an impossible value, a contradiction, or something is missing.
    """
    stage = given.get("stage")
    if stage not in STAGES:
        raise SettingsError(f"--stage: expected one of {', '.join(STAGES)}, got {stage or 'nothing'}")
    recipe = read_recipe(stage)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for each in fields(Settings):
        if each.name in given:
            values[each.name], origins[each.name] = given[each.name], _GIVEN
        elif each.name in recipe:
            values[each.name], origins[each.name] = recipe[each.name], f"recipe {stage}"
        elif each.default is MISSING:
            values[each.name], origins[each.name] = None, "not given"
        else:
            values[each.name], origins[each.name] = each.default, "default"
    _one_end(values, origins)
    settings = Settings(**values)
    for problem in _problems(settings, origins):
        raise SettingsError(problem)
    if complete:
        _need(settings)
    return Resolved(settings=settings, origins=origins)


def read_recipe(stage: str) -> dict[str, Any]:
    """What the recipe of a stage sets, by setting."""
    return tomllib.loads((RECIPES / f"{stage}.toml").read_text(encoding="utf-8"))


def _one_end(values: dict[str, Any], origins: dict[str, str]) -> None:
    """A run ends after steps or after epochs; steps that are given put the epochs of a recipe out of force."""
    if values["steps"] is None:
        return
    if origins["epochs"] == _GIVEN and values["epochs"] is not None:
        raise SettingsError(
            f"--steps {values['steps']} and --epochs {values['epochs']} contradict each other: each says when the run "
            "ends; give one"
        )
    values["epochs"], origins["epochs"] = None, f"steps, {origins['steps']}"


def _need(settings: Settings) -> None:
    missing = [option_name(name) for name in ("shards", "output_dir") if not getattr(settings, name)]
    if settings.model is None and settings.from_run is None:
        missing.append("--model (or --from)")
    if missing:
        raise SettingsError(f"{', '.join(missing)}: missing; give each")


def _problems(settings: Settings, origins: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with settings, a line each: what, got, how to fix."""

    def named(name: str) -> str:
        return f"{option_name(name)} {shown(name, getattr(settings, name))} ({origins[name]})"

    yield from _impossible(settings, named)
    contradictions = (
        (
            settings.micro_batch > settings.global_batch,
            f"{named('micro_batch')} is more than {named('global_batch')}; "
            f"give --micro-batch {settings.global_batch} or less",
        ),
        (
            settings.offload == "all" and settings.zero == 2,
            f"{named('offload')} needs --zero 3, as ZeRO-2 keeps all weights on every device; got {named('zero')}",
        ),
        (
            settings.val_steps is not None and not settings.val_shards,
            f"{named('val_steps')} has nothing to validate on; give --val-shards, too",
        ),
        (
            settings.val_steps is None and len(settings.val_shards) > 0,
            f"{named('val_shards')} would never be read; give --val-steps, too",
        ),
        (
            settings.from_run is not None and settings.pretrain_mm_mlp_adapter is not None,
            f"{named('from_run')} and {named('pretrain_mm_mlp_adapter')} contradict each other: each brings a "
            "projector; give one",
        ),
        (
            settings.from_run is not None and settings.from_run == settings.output_dir,
            f"{named('from_run')} is the --output-dir, too; give the new run a folder of its own",
        ),
        (
            settings.log_hook is not None and not re.fullmatch(r"[\w.]+:\w+", settings.log_hook),
            f"{named('log_hook')}: expected module:function, such as my_logs:to_wandb",
        ),
        (
            len(settings.lengths) not in (0, len(settings.shards or settings.lengths)),
            f"{named('lengths')}: expected a table for each of {named('shards')}, in their order",
        ),
    )
    yield from (problem for wrong, problem in contradictions if wrong)
    flags = [named(each.name) for each in fields(Freezing) if getattr(settings, each.name)]
    try:
        settings.freezing.trained_parts()
    except SettingsError as error:
        yield f"{', '.join(flags)}: {error}"
    weights_by_tag(settings.weights)
    Steering.of(settings.skip_steps, settings.lr_from)
    zero_config(settings)


def _impossible(settings: Settings, named: Callable[[str], str]) -> Iterator[str]:
    """Values that the command line would have refused, from wherever they are."""
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        if value == "" and option.kind is None:
            yield f"{option_name(name)}: expected a value, got an empty text"
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{named(name)}: expected a finite number"
        if value is not None and option.kind is not None:
            try:
                option.kind.convert(value, None, None)
            except click.BadParameter as error:
                yield f"{named(name)}: {error.message}"
