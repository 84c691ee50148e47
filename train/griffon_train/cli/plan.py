"""`griffon-train plan` and `lengths`: the order of samples, and their lengths."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from tqdm import tqdm

from griffon_shards.frozen_set import open_set
from griffon_shards.support.command_line import guard
from griffon_shards.support.tables import table
from griffon_train.config.settings import weights_by_tag
from griffon_train.data.lengths import Lengths, count_lengths, default_table_path
from griffon_train.data.padding_report import epoch_report, merge_reports
from griffon_train.data.plan import DEFAULT_WINDOW, Plan, Step
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.text.chat_templates import CHATS
from griffon_train.training.data_checks import remarks_on_order

_PATH = click.Path(path_type=Path)


def plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """What decides the order of samples."""
    for option in reversed(
        [
            click.argument("roots", metavar="DIR...", nargs=-1, required=True, type=_PATH),
            click.option("--global-batch", type=click.IntRange(1), required=True, help="Samples of a step."),
            click.option("--seed", type=int, default=0, show_default=True, help="Of every shuffle."),
            click.option("--grouping", type=click.Choice(list(GROUPINGS)), default="none", show_default=True),
            click.option(
                "--window",
                type=click.IntRange(1),
                default=DEFAULT_WINDOW,
                show_default=True,
                help="Batches sorted by length together; 1 for none.",
            ),
            click.option(
                "--weight",
                "weights",
                metavar="TAG=W",
                multiple=True,
                help="Passes over a source an epoch (2, 0.5, 1/3), instead of its set's; for each that differs.",
            ),
            click.option("--lengths", "tables", type=_PATH, multiple=True, help="Counted lengths, one for each DIR."),
            click.option("--from", "start", type=click.IntRange(0), default=0, show_default=True, help="First step."),
            click.option("--steps", type=click.IntRange(1), help="How many steps."),
            click.option("--json", "as_json", is_flag=True, help="A line of JSON for each."),
        ]
    ):
        command = option(command)
    return command


def make_plan(roots: Sequence[Path], tables: Sequence[Path], weights: Sequence[str], **settings: Any) -> Plan:  # noqa: ANN401
    """The plan that the options ask for."""
    sets = [open_set(root) for root in roots]
    lengths = Lengths.counted(sets, tables) if tables else Lengths.estimated(sets)
    by_tag = weights_by_tag(weights)
    plan = Plan(sets, lengths=lengths, weights=by_tag, **settings)
    for line in remarks_on_order(plan, by_tag):
        click.echo(line, err=True)
    return plan


@click.command("plan")
@plan_options
@click.option("--epoch-report", is_flag=True, help="Steps by group, and how much of them is padding.")
@click.option("--epoch", type=click.IntRange(0), default=0, show_default=True, help="That the report is of.")
@guard
def plan_command(
    start: int,
    steps: int | None,
    as_json: bool,
    epoch_report: bool,
    epoch: int,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Show which samples come when, without reading one."""
    plan = make_plan(**settings)
    if epoch_report:
        same = {"seed": settings["seed"], "lengths": plan.lengths, "weights": weights_by_tag(settings["weights"])}
        _report(plan, Plan(plan.sets, global_batch=plan.global_batch, window=1, **same), epoch)
        return
    for number in range(start, start + (steps or 1)):
        step = plan.step(number)
        keys = [plan.sets[set_no].key(row) for set_no, row in zip(step.sets.tolist(), step.rows.tolist(), strict=True)]
        if as_json:
            click.echo(orjson.dumps({"step": number, "epoch": step.epoch, "group": step.group, "keys": keys}))
        else:
            click.echo(f"step {number}  epoch {step.epoch}  {step.group}  {_lengths_of(step)}")
            click.echo("  " + " ".join(keys))


def _lengths_of(step: Step) -> str:
    return f"{int(step.lengths.min()):,} to {int(step.lengths.max()):,} tokens"


def _report(plan: Plan, random: Plan, epoch: int) -> None:
    groups = epoch_report(plan, epoch)
    rows = [(name, group.steps, f"{group.tokens:,}", f"{group.waste:.2%}") for name, group in groups.items()]
    whole, scattered = merge_reports(groups), merge_reports(epoch_report(random, epoch))
    rows.append(("all", whole.steps, f"{whole.tokens:,}", f"{whole.waste:.2%}"))
    rows.append(("random batches", scattered.steps, f"{scattered.tokens:,}", f"{scattered.waste:.2%}"))
    click.echo(table((f"epoch {epoch}", "steps", "tokens", "padding"), rows))
    click.echo(f"plan {plan.digest}")


@click.command("lengths")
@click.argument("root", metavar="DIR", type=_PATH)
@click.option("--tokenizer", required=True, metavar="FOLDER", help="A tokenizer as transformers stores it.")
@click.option("--chat", type=click.Choice(list(CHATS)), required=True, help="Chat template.")
@click.option("--out", type=_PATH, help="Where to write the table.  [default: DIR.lengths-CHAT]")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@guard
def lengths_command(root: Path, tokenizer: str, chat: str, out: Path | None, workers: int) -> None:
    """Count the tokens of every sample, for batches of like lengths."""
    path = out or default_table_path(root, chat)
    frozen = open_set(root)
    frozen.check_shards()
    rows = len(frozen)
    with tqdm(total=rows, unit=" rows", disable=not sys.stderr.isatty()) as bar:
        sha256 = count_lengths(root, tokenizer, chat, path, workers=workers, done=lambda count: bool(bar.update(count)))
    click.echo(f"{rows:,} rows counted into {path}")
    click.echo(f"sha256 {sha256}")
    click.echo(f"next: griffon-train plan {root} --global-batch 128 --lengths {path} --epoch-report")
