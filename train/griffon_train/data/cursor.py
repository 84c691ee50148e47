"""The cursor: how many steps the optimizer has taken of which plan. With the plan it is all that resuming needs."""

from collections.abc import Mapping
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.data.plan import Plan
from griffon_train.data.steering import Steering

_AS_PLANNED = Steering()


def cursor_state(plan: Plan, steps_done: int, steering: Steering = _AS_PLANNED) -> dict[str, Any]:
    """A cursor as a plain dict, for a checkpoint: steps taken by the optimizer, never batches prefetched.

    With it goes what of `steering` these steps were taken with.
    """
    state = {"steps_done": steps_done, "plan_digest": plan.digest, "plan": plan.identity}
    taken = steering.before(steps_done)
    return state | ({"steering": taken.state()} if taken != _AS_PLANNED else {})


def restore_cursor(state: Mapping[str, Any], plan: Plan, steering: Steering = _AS_PLANNED) -> int:
    """The step to go on with.

    Raises:
        SettingsError: the cursor is of another plan, or its steps were steered otherwise; the message names each
            difference, both sides.
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
        raise SettingsError(f"not a cursor: expected steps_done from 0 on, plan_digest and plan, got {list(state)}")
    if digest != plan.digest:
        differences = "; ".join(
            f"{name} was {identity.get(name)!r} and is {plan.identity.get(name)!r}"
            for name in {**identity, **plan.identity}
            if identity.get(name) != plan.identity.get(name)
        )
        raise SettingsError(
            f"the checkpoint is of another plan ({differences or f'{digest} and {plan.digest}'}): what comes "
            "next would not be what would have come; give the run the settings and sets it had, or begin a new run"
        )
    taken = Steering.from_state(state.get("steering", {}))
    given = steering.before(steps_done)
    if taken != given:
        raise SettingsError(
            f"the steps before {steps_done} were trained with {taken}, and {given} is given: "
            f"give what they had again; what is new may concern steps from {steps_done} on"
        )
    return steps_done
