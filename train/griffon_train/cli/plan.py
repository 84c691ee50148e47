"""`griffon-train plan` and `lengths`: the order of samples, and their lengths in tokens."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import orjson
from tqdm import tqdm

from griffon_shards.frozen_set import open_set
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import guard
from griffon_shards.support.logs import verbosity_option
from griffon_shards.support.tables import table
from griffon_train.config.settings import OPTIONS, weights_by_tag
from griffon_train.data.lengths import Lengths, count_lengths, default_table_path
from griffon_train.data.padding_report import epoch_report, merge_reports
from griffon_train.data.plan import DEFAULT_WINDOW, Plan, Step
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.text.chat_templates import CHATS
from griffon_train.training.data_checks import remarks_on_order

_log = logging.getLogger(__name__)

_PATH = click.Path(path_type=Path)


def plan_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that define the order of samples and the steps to show."""
    for option in reversed(
        [
            click.argument("roots", metavar="DIR...", nargs=-1, required=True, type=LOCATION),
            click.option(
                "--global-batch",
                type=click.IntRange(1),
                required=True,
                help="Samples per optimizer step, over all ranks.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sample order."),
            click.option(
                "--grouping",
                type=click.Choice(list(GROUPINGS)),
                default="none",
                show_default=True,
                help=OPTIONS["grouping"].help,
            ),
            click.option(
                "--window",
                type=click.IntRange(1),
                default=DEFAULT_WINDOW,
                show_default=True,
                help=OPTIONS["window"].help,
            ),
            click.option(
                "--weight",
                "weights",
                metavar="TAG=W",
                multiple=True,
                help=f"{OPTIONS['weights'].help}  [default: {OPTIONS['weights'].unset}]",
            ),
            click.option(
                "--lengths",
                "tables",
                type=_PATH,
                multiple=True,
                help="Length table from griffon-train lengths; one per DIR, in order.  [default: estimated lengths]",
            ),
            click.option(
                "--from", "start", type=click.IntRange(0), default=0, show_default=True, help="First step to show."
            ),
            click.option("--steps", type=click.IntRange(1), help="Number of steps to show.  [default: 1]"),
            click.option("--json", "as_json", is_flag=True, help="Print JSON lines."),
        ]
    ):
        command = option(command)
    return command


def make_plan(roots: Sequence[Location], tables: Sequence[Path], weights: Sequence[str], **settings: Any) -> Plan:  # noqa: ANN401
    """Build the plan that the options define, and log remarks on it."""
    sets = [open_set(root) for root in roots]
    lengths = Lengths.counted(sets, tables) if tables else Lengths.estimated(sets)
    by_tag = weights_by_tag(weights)
    plan = Plan(sets, lengths=lengths, weights=by_tag, **settings)
    for line in remarks_on_order(plan, by_tag):
        _log.warning(line)
    return plan


@click.command("plan")
@plan_options
@click.option("--epoch-report", is_flag=True, help="Print the steps, tokens and padding of an epoch by group instead.")
@click.option("--epoch", type=click.IntRange(0), default=0, show_default=True, help="Epoch for --epoch-report.")
@verbosity_option
@guard
def plan_command(
    start: int,
    steps: int | None,
    as_json: bool,
    epoch_report: bool,
    epoch: int,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Show which samples each training step uses, without reading them.

    DIR is a shard folder made by griffon-prep build, or its URL; give several to mix them.
    """
    plan = make_plan(**settings)
    if epoch_report:
        same = {"seed": settings["seed"], "lengths": plan.lengths, "weights": weights_by_tag(settings["weights"])}
        _report(plan, Plan(plan.sets, global_batch=plan.global_batch, window=1, **same), epoch)
        return
    for step_no in range(start, start + (steps or 1)):
        step = plan.step(step_no)
        keys = [plan.sets[set_no].key(row) for set_no, row in zip(step.sets.tolist(), step.rows.tolist(), strict=True)]
        if as_json:
            click.echo(orjson.dumps({"step": step_no, "epoch": step.epoch, "group": step.group, "keys": keys}))
        else:
            click.echo(f"step {step_no}  epoch {step.epoch}  {step.group}  {_lengths_of(step)}")
            click.echo("  " + " ".join(keys))


def _lengths_of(step: Step) -> str:
    return f"{int(step.lengths.min()):,} to {int(step.lengths.max()):,} tokens"


def _report(plan: Plan, random: Plan, epoch: int) -> None:
    groups = epoch_report(plan, epoch)
    rows = [(name, group.steps, f"{group.tokens:,}", f"{group.waste:.2%}") for name, group in groups.items()]
    total, random_total = merge_reports(groups), merge_reports(epoch_report(random, epoch))
    rows.append(("all", total.steps, f"{total.tokens:,}", f"{total.waste:.2%}"))
    rows.append(("random batches", random_total.steps, f"{random_total.tokens:,}", f"{random_total.waste:.2%}"))
    click.echo(table((f"epoch {epoch}", "steps", "tokens", "padding"), rows))
    click.echo(f"plan {plan.digest}")


@click.command("lengths")
@click.argument("root", metavar="DIR", type=LOCATION)
@click.option("--tokenizer", required=True, metavar="FOLDER", help="Folder of a tokenizer saved by transformers.")
@click.option("--chat", type=click.Choice(list(CHATS)), required=True, help="Chat template.")
@click.option(
    "--out",
    type=_PATH,
    help="File to write the lengths to.  [default: DIR.lengths-CHAT]",
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Number of processes.")
@verbosity_option
@guard
def lengths_command(root: Location, tokenizer: str, chat: str, out: Path | None, workers: int) -> None:
    """Count the tokens of every sample, so that training can batch samples of similar length.

    DIR is a shard folder made by griffon-prep build, or its URL.
    """
    path = out or default_table_path(root, chat)
    frozen = open_set(root)
    frozen.check_shards()
    rows = len(frozen)
    shown = sys.stderr.isatty() and _log.isEnabledFor(logging.INFO)
    with tqdm(total=rows, unit=" rows", disable=not shown) as bar:
        sha256 = count_lengths(root, tokenizer, chat, path, workers=workers, done=lambda count: bool(bar.update(count)))
    click.echo(f"{rows:,} rows counted into {path}")
    click.echo(f"sha256 {sha256}")
    click.echo(f"next: griffon-train plan {root} --global-batch 128 --lengths {path} --epoch-report")
