"""The folder that `--from` names: the output folder of a run, or an adapter."""

from pathlib import Path

from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import ModelSettings
from griffon_train.config.run_folder import ADAPTER_NAME, MODEL_NAME, PROJECTOR_NAME
from griffon_train.config.settings import option_name
from griffon_train.model.folders import Kind, recognised
from griffon_train.model.presets import PRESETS
from griffon_train.training.adapter_files import adapter_folder

_REMEDIES = {
    Kind.MODEL: "give it as --model",
    Kind.CHECKPOINT: "rerun the command of the run to resume it, or give the run once it has ended",
}


def check_starting_folder(run: Path, given: ModelSettings) -> None:
    """Check that a run can start from a folder, and that the model that is given beside it does not contradict it.

    Raises:
        SettingsError: the folder is something else or has no result, or it has a part already that is given.
    """
    kind = recognised("--from", run, (Kind.RUN, Kind.ADAPTER), _REMEDIES)
    results = (MODEL_NAME, ADAPTER_NAME, PROJECTOR_NAME)
    if kind is Kind.RUN and not any((run / result).exists() for result in results):
        raise SettingsError(
            f"--from {run}: it holds neither {MODEL_NAME}/, {ADAPTER_NAME}/ nor {PROJECTOR_NAME}; the run has not "
            "ended, or its result has moved"
        )
    _refuse_parts_of_adapted(run, given)
    parts = [option_name(name) for name in ("model", "vision_tower") if getattr(given, name) is not None]
    if parts and (run / MODEL_NAME).is_dir():
        raise SettingsError(f"--from {run} has a complete model already; leave out {' and '.join(parts)}")
    if given.model in PRESETS:
        raise SettingsError(
            f"--model {given.model}: --from {run} already decides the model; leave out --model, or leave out --from to "
            "train this preset from random weights"
        )


def _refuse_parts_of_adapted(run: Path, given: ModelSettings) -> None:
    """Refuse towers for the base model of an adapter, unless they are parts of one that is given, too."""
    for name in ("vision_tower", "region_tower"):
        tower, option = getattr(given, name), option_name(name)
        if tower is not None and given.model is None and adapter_folder(run) is not None:
            raise SettingsError(
                f"{option} {tower}: {run} has an adapter, whose base model has its own; leave out {option}, or also "
                "give the folder of the base model as --model"
            )
