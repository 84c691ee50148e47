"""`griffon-train seen`: the samples that a run has used, from its settings and the indexes of its sets."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson

from griffon_shards.frozen_set import open_set
from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import table
from griffon_train.config.order import plan_of
from griffon_train.config.run_folder import METRICS, stored_settings
from griffon_train.data.batch_id import batch_id_of, place_id
from griffon_train.data.plan import Plan, Step
from griffon_train.data.seen import Seen, SourceShowings
from griffon_train.data.steering import Steering

_TAIL_BYTES = 1 << 20
"""Enough of the end of metrics.jsonl for its last complete lines."""

_STEPS = 3
_CHECKPOINT = "checkpoints/step-[0-9]*[0-9]"


@click.command("seen")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--key", help="Show every step that used this sample.")
@click.option("--source", metavar="TAG", help="Show how often this source was used, and its first step.")
@click.option("--step", "number", type=click.IntRange(0), help="Show the samples of this step.")
@click.option(
    "--before-step",
    "before",
    type=click.IntRange(0),
    help="Count only steps before this one; without --key and --source, show the samples of the last steps before it.",
)
@click.option("--group", help="With --before-step: show only steps of this group of the plan, such as text.")
@click.option(
    "--steps",
    type=click.IntRange(1),
    help=f"With --before-step: number of steps to show.  [default: {_STEPS}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@guard
def seen_command(
    run: Path,
    key: str | None,
    source: str | None,
    number: int | None,
    before: int | None,
    group: str | None,
    steps: int | None,
    as_json: bool,
) -> None:
    """Show which samples a training run has used, and when.

    RUN is the output folder of a run, finished or not. Without options, shows how often each source was used. Neither
    samples nor weights are read: the order of samples is computed from the run's settings and the indexes of its
    shard folders.
    """
    asked = [name for name, given in (("--key", key), ("--source", source), ("--step", number)) if given is not None]
    if len(asked) > 1 or (number is not None and before is not None):
        raise SettingsError(f"{' and '.join(asked)}: give one of --key, --source, and --step or --before-step")
    if (group is not None or steps is not None) and (asked or before is None):
        raise SettingsError("--group and --steps need --before-step, without --key and --source")
    seen, taken = _open(run, before)
    if key is not None:
        _show_key(seen, key, as_json)
    elif number is not None:
        if number >= taken:
            raise SettingsError(f"--step {number}: {run} has taken {taken:,} steps so far, numbered from 0")
        _show_steps(seen, [seen.plan.step(number)], as_json)
    elif before is not None and source is None:
        if group is not None and group not in seen.plan.groups:
            raise SettingsError(
                f"--group {group}: the run's plan has the groups {', '.join(seen.plan.groups)} (its --grouping)"
            )
        shown = seen.last_steps(steps or _STEPS, group)
        if not shown and not as_json:
            of_group = "" if group is None else f" of group {group}"
            click.echo(f"no step{of_group} was taken before step {before}")
        _show_steps(seen, shown, as_json)
    else:
        _show_sources(seen, source, as_json)


def _open(run: Path, before: int | None) -> tuple[Seen, int]:
    """Return the samples that a run has used before a step, and the number of steps that it has taken.

    Raises:
        SettingsError: there is no such run, or it has not come that far.
        DataError: the sets are not those that the run was trained on.
    """
    settings = stored_settings(run)
    logged = _last_logged(run)
    taken = int(logged[-1]["step"]) + 1 if logged else 0
    saved = max((int(path.name.removeprefix("step-")) for path in run.glob(_CHECKPOINT)), default=0)
    if saved > taken:
        raise DataError(
            f"{run / METRICS}: ends after {taken:,} steps, but there is a checkpoint after {saved:,}: the log was "
            "truncated or replaced, and what it does not list cannot be ruled out; restore it from a copy"
        )
    if before is not None and before > taken:
        raise SettingsError(f"--before-step {before}: {run} has taken {taken:,} steps so far, numbered from 0")
    steering = Steering.of(settings.optimizer.skip_steps, settings.optimizer.lr_from)
    sets = [open_set(path) for path in settings.shards]
    seen = Seen(plan_of(sets, settings.data), taken if before is None else before, steering)
    last = next((fields for fields in reversed(logged) if "batch_id" in fields), None)  # a skipped step has none
    if last is not None:
        step = seen.plan.step(last["step"])
        batch_id = batch_id_of(sum(place_id(slot, key) for slot, key in enumerate(seen.keys(step))))
        if batch_id != last["batch_id"]:
            given = ", ".join(map(str, settings.shards))
            raise DataError(
                f"{run}: step {step.number} used other samples (batch_id {last['batch_id']}) than {given} would give "
                f"now ({batch_id}): a set or a length table was replaced since; put the original ones back"
            )
    return seen, taken


def _last_logged(run: Path) -> list[dict[str, Any]]:
    """The last complete lines of a run's metrics, in order; none before the first step."""
    path = run / METRICS
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]  # the last one is empty, or is being written
    logged = []
    for line in lines:
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(fields, dict) and type(fields.get("step")) is int:
            logged.append(fields)
    return logged


def _show_key(seen: Seen, key: str, as_json: bool) -> None:
    rows = _rows_of(seen.plan, key)
    showings = [
        (str(seen.plan.sets[set_no].root), showing)
        for set_no, row in rows.items()
        for showing in seen.of_row(set_no, row)
    ]
    if as_json:
        for root, showing in showings:
            click.echo(orjson.dumps({"key": key, "set": root, **asdict(showing)}))
        return
    times = f"used {len(showings)} time{'s' * (len(showings) != 1)}" if showings else "never used"
    click.echo(f"{key}: {times} in {_extent(seen)}")
    if showings:
        lines = [(each.step, each.epoch, each.slot, each.variant, root) for root, each in showings]
        click.echo(table(("step", "epoch", "slot", "variant", "set"), lines))


def _rows_of(plan: Plan, key: str) -> dict[int, int]:
    """The row of a key in each set that has it, by the set's index in the plan."""
    tags = [[source.tag for source in frozen.lock.sources] for frozen in plan.sets]
    tag = key.rpartition("-")[0]
    rows, problem = {}, None
    for set_no, frozen in enumerate(plan.sets):
        if tag in tags[set_no]:
            try:
                rows[set_no] = frozen.row(key)
            except DataError as error:
                problem = error
    if not rows:
        known = ", ".join(dict.fromkeys(tag for of_set in tags for tag in of_set))
        raise problem or DataError(f"no sample has the key {key!r}; the run's sources are {known}")
    return rows


def _show_sources(seen: Seen, tag: str | None, as_json: bool) -> None:
    sources = [each for each in seen.of_sources() if tag in (None, each.tag)]
    if not sources:
        known = ", ".join(source.tag for frozen in seen.plan.sets for source in frozen.lock.sources)
        raise SettingsError(f"--source {tag}: the run's sources are {known}")
    roots = [str(frozen.root) for frozen in seen.plan.sets]
    if as_json:
        for each in sources:
            fields = {"set": roots[each.set_no], **asdict(each), "before_step": seen.stop, "skipped": seen.skipped}
            del fields["set_no"]
            click.echo(orjson.dumps(fields))
        return
    click.echo(_extent(seen))
    click.echo(
        table(("source", "samples", "used", "per sample", "first step", "set"), [_row(each, roots) for each in sources])
    )


def _row(source: SourceShowings, roots: list[str]) -> tuple[object, ...]:
    first = "never" if source.first is None else f"{source.first:,}"
    return source.tag, source.samples, source.shown, f"{source.shown / source.samples:.2f}", first, roots[source.set_no]


def _show_steps(seen: Seen, steps: list[Step], as_json: bool) -> None:
    for step in steps:
        keys, variants = seen.keys(step), step.variants.tolist()
        skipped = step.number in seen.steering
        if as_json:
            fields = {"step": step.number, "epoch": step.epoch, "group": step.group, "skipped": skipped}
            click.echo(orjson.dumps({**fields, "keys": keys, "variants": variants}))
            continue
        note = "  skipped (--skip-steps): these samples were not used" if skipped else ""
        click.echo(f"step {step.number}  epoch {step.epoch}  {step.group}{note}")
        slots = [(slot, *each) for slot, each in enumerate(zip(keys, variants, step.lengths.tolist(), strict=True))]
        click.echo(table(("slot", "key", "variant", "tokens"), slots))


def _extent(seen: Seen) -> str:
    if not seen.stop:
        return "0 steps"
    skipped = f" ({seen.skipped:,} skipped)" if seen.skipped else ""
    return f"steps 0 to {seen.stop - 1:,}{skipped}"
