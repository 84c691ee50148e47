"""The cursor: how many steps the optimizer has taken of which plan. With the plan it is all that resuming needs."""

from collections.abc import Mapping
from typing import Any

from griffon_shards.errors import SettingsError
from griffon_train.plan import Plan


def cursor_state(plan: Plan, steps_done: int) -> dict[str, Any]:
    """A cursor as a plain dict, for a checkpoint: steps taken by the optimizer, never batches prefetched."""
    return {"steps_done": steps_done, "plan_digest": plan.digest, "plan": plan.identity}


def restore_cursor(state: Mapping[str, Any], plan: Plan) -> int:
    """The step to go on with.

    Raises:
        SettingsError: the cursor is of another plan; the message names each difference, both sides.
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
    return steps_done
