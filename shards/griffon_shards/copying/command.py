"""`griffon-shards copy`."""

import sys
import time
from pathlib import Path

import click
from tqdm import tqdm

from griffon_shards.copying.copy_set import CopyPlan, plan_copy, run_copy
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import resumable
from griffon_shards.support.tables import counted, size


@click.command("copy")
@click.argument("source", metavar="SRC", type=LOCATION)
@click.argument("target", metavar="DST", type=LOCATION)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Number of files that are copied at once.",
)
@click.option(
    "--no-verify", is_flag=True, help="Keep files that DST already has in the right size, without reading them."
)
@click.option("--dry-run", is_flag=True, help="Print what would be copied, and write nothing.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder for temporary files of copies between object stores, one per worker.  [default: that of the system]",
)
@resumable
def copy_command(
    source: Location, target: Location, workers: int, no_verify: bool, dry_run: bool, work: Path | None
) -> None:
    """Copy the frozen set SRC to DST; both are folders or URLs. Rerun the same command to resume.

    Shards and index are checked against their hashes in the lock while they are copied. The lock is written last, so
    nothing takes an incomplete copy for a set.
    """
    plan = plan_copy(source, target)
    if plan.up_to_date:
        click.echo(f"up to date: {target} has the digest {plan.lock.digest}")
    elif dry_run:
        click.echo(f"would copy {_amount(plan, kept=False)}, and keep {_amount(plan, kept=True)}")
    else:
        _copy(plan, workers, not no_verify, work)


def _copy(plan: CopyPlan, workers: int, verify: bool, work: Path | None) -> None:
    start = time.monotonic()
    total = sum(file.size_bytes for file in plan.files)
    with tqdm(
        total=total, unit="B", unit_scale=True, dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        copied = run_copy(plan, workers=workers, verify=verify, work=work, moved=bar.update)
    size_bytes, passed_s = sum(file.size_bytes for file in copied), time.monotonic() - start
    kept = len(plan.files) - len(copied)
    reread = " (read again)" if verify else ""
    click.echo(
        f"copied {counted(len(copied), 'file')}, {size(size_bytes)} in {passed_s:.1f} s "
        f"({size(size_bytes / passed_s)}/s)" + (f"; kept {counted(kept, 'file')}{reread}" if kept else "")
    )
    click.echo(f"digest {plan.lock.digest}")


def _amount(plan: CopyPlan, *, kept: bool) -> str:
    files = [file for file in plan.files if (file.name in plan.kept) == kept]
    return f"{counted(len(files), 'file')} ({size(sum(file.size_bytes for file in files))})"
