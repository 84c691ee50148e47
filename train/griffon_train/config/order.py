"""The order of samples that the settings of a run give."""

from collections.abc import Sequence

from griffon_shards.frozen_set import FrozenSet
from griffon_train.config.groups import DataSettings
from griffon_train.config.settings import weights_by_tag
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan


def plan_of(sets: Sequence[FrozenSet], data: DataSettings) -> Plan:
    """The plan of a run over its sets.

    Raises:
        SettingsError: the sets do not have the sources or tables that the settings name, or have no rows.
        DataError: a length table is damaged.
    """
    return Plan(
        sets,
        seed=data.seed,
        global_batch=data.global_batch,
        grouping=data.grouping,
        window=data.window,
        lengths=Lengths.counted(sets, data.lengths) if data.lengths else Lengths.estimated(sets),
        weights=weights_by_tag(data.weights),
    )


def steps_of(data: DataSettings, plan: Plan) -> int:
    """Number of steps of the run."""
    if data.steps is not None:
        return data.steps
    assert data.epochs is not None, "a run has steps or epochs"
    return plan.steps_of(data.epochs)
