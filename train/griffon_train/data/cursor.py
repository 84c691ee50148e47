"""The cursor: how many optimizer steps of which plan are done. Resuming needs only the cursor and the plan."""

from collections.abc import Mapping
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.data.plan import Plan
from griffon_train.data.steering import Steering

_AS_PLANNED = Steering()


def cursor_state(plan: Plan, steps_done: int, steering: Steering = _AS_PLANNED) -> dict[str, Any]:
    """Return a cursor as a plain dict for a checkpoint.

    It counts optimizer steps, never prefetched batches, and includes the part of `steering` that affected them.
    """
    state = {"steps_done": steps_done, "plan_digest": plan.digest, "plan": plan.identity}
    taken = steering.before(steps_done)
    return state | ({"steering": taken.state()} if taken != _AS_PLANNED else {})


def restore_cursor(state: Mapping[str, Any], plan: Plan, steering: Steering = _AS_PLANNED) -> int:
    """Return the step to resume from.

    Raises:
        SettingsError: the cursor belongs to another plan, or its steps had another steering. The message states each
            difference with both values.
    """
    if not isinstance(state, Mapping):
        raise SettingsError(f"not a cursor: {type(state).__name__}, expected a dict")
    steps_done, digest, identity = (state.get(name) for name in ("steps_done", "plan_digest", "plan"))
    if (
        not isinstance(digest, str)
        or not isinstance(identity, Mapping)
        or type(steps_done) is not int
        or steps_done < 0
    ):
        raise SettingsError(f"not a cursor: expected steps_done of at least 0, plan_digest and plan, got {list(state)}")
    if digest != plan.digest:
        differences = "; ".join(
            f"{name} was {identity.get(name)!r} and is {plan.identity.get(name)!r}"
            for name in {**identity, **plan.identity}
            if identity.get(name) != plan.identity.get(name)
        )
        raise SettingsError(
            f"the checkpoint belongs to another plan ({differences or f'{digest} and {plan.digest}'}), so the samples "
            "that follow would differ; resume with the original settings and sets, or start a new run"
        )
    taken = Steering.from_state(state.get("steering", {}))
    given = steering.before(steps_done)
    if taken != given:
        raise SettingsError(
            f"the steps before {steps_done} were trained with {taken}, but {given} is given; "
            f"repeat the original options, new ones may only affect steps from {steps_done} on"
        )
    return steps_done
