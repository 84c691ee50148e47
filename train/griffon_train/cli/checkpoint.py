"""`griffon-train checkpoint`: list, verify and delete the checkpoints of a run."""

from pathlib import Path

import click

from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.logs import verbosity_option
from griffon_shards.support.tables import size, table
from griffon_train.config.options import Finite

_RUN = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))


@click.group("checkpoint")
def checkpoint() -> None:
    """List, verify and delete the checkpoints of a run."""


@checkpoint.command("ls")
@_RUN
@verbosity_option
@guard
def ls_command(run: Path) -> None:
    """List the checkpoints of RUN, the output folder of a run.

    Checks only the sizes of their files; verify reads every byte.
    """
    _show(run, read=False)


@checkpoint.command("verify")
@_RUN
@verbosity_option
@guard
def verify_command(run: Path) -> None:
    """Read every file of the checkpoints of RUN and compare it with its SHA-256.

    Exits with 1 if a checkpoint is incomplete or damaged.
    """
    damaged = _show(run, read=True)
    if damaged:
        raise DataError(
            f"{run}: {damaged} of its checkpoints are incomplete or damaged; it resumes from the latest intact one"
        )


def _show(run: Path, *, read: bool) -> int:
    """Print a table and a line with the totals; return the number of checkpoints with a problem."""
    from griffon_train.training.checkpoint_care import checkpoints_of  # torch takes seconds to import

    states = list(checkpoints_of(run, read=read))
    good = "intact" if read else "complete"
    rows = [
        (state.step, size(state.size_bytes), state.ranks, "best" if state.best else "", state.problem or good)
        for state in states
    ]
    click.echo(table(("step", "size", "ranks", "", "state"), rows))
    total_bytes = sum(state.size_bytes for state in states)
    click.echo(f"total: {len(states)} checkpoint{'s' * (len(states) != 1)}, {size(total_bytes)}")
    return sum(bool(state.problem) for state in states)


@checkpoint.command("prune")
@_RUN
@click.option("--keep", type=click.IntRange(1), help="Number of latest intact checkpoints to keep.")
@click.option(
    "--save-total-gb",
    type=Finite(0, min_open=True),
    help="Delete old checkpoints that exceed N GB (1e9 bytes) in all; the latest and the best always stay.",
)
@verbosity_option
@guard
def prune_command(run: Path, keep: int | None, save_total_gb: float | None) -> None:
    """Delete old and damaged checkpoints of RUN, which must not be running.

    Give --keep, --save-total-gb, or both. The best checkpoint of a run with --keep-best is kept, too. Checkpoints to
    keep are first read completely, so that a damaged one is never kept in place of an intact one.
    """
    if keep is None and save_total_gb is None:
        raise SettingsError("prune needs a limit; give --keep N, --save-total-gb N, or both")
    from griffon_train.training.checkpoint_care import prune_run  # torch takes seconds to import

    total_bytes = None if save_total_gb is None else save_total_gb * 1e9
    kept, deleted = prune_run(run, count=keep, total_bytes=total_bytes)
    freed = size(sum(state.size_bytes for state in deleted))
    click.echo(f"kept: {', '.join(str(state.step) for state in kept) or 'none'}")
    click.echo(f"deleted: {', '.join(str(state.step) for state in deleted) or 'none'} ({freed})")
