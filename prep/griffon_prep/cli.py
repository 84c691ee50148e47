"""The command line `griffon-prep`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from griffon_prep.build.engines import LOCAL, find_engine
from griffon_prep.build.options import source_options
from griffon_prep.build.parts import build_part
from griffon_prep.build.plan import BuildPart
from griffon_prep.build.run import build, check
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard_jobs import SourceCount, check_counts
from griffon_prep.readers import COMMON_OPTIONS, FORMATS
from griffon_prep.sample_data import write_plain_data, write_sample_data
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.summary import TOTALS_HEAD, totals_row, totals_table
from griffon_shards.support.command_line import guard, resumable
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import counted, table
from griffon_shards.types import TASKS


def _build_part(_context: click.Context, _option: click.Parameter, value: str | None) -> BuildPart | None:
    """Parse a part such as `3/16`."""
    if value is None:
        return None
    number, _, count = value.partition("/")
    digits = number.isdecimal() and count.isdecimal()
    if not digits or not 1 <= int(number) <= int(count):
        raise click.BadParameter(f"{value!r} is not a part; expected K/N with K from 1 to N, for example 3/16")
    return BuildPart(number=int(number), count=int(count))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="griffon-pipeline", prog_name="griffon-prep")
def main() -> None:
    """Convert annotations and images into a frozen set of WebDataset shards."""


@main.command("build")
@click.option("--out", type=LOCATION, metavar="DIR", help="Output folder or URL.  [default: frozen/<manifest name>]")
@click.option(
    "--reuse",
    type=LOCATION,
    metavar="DIR",
    help="Frozen set from which to take the shards of sources that have not changed: hard-linked on the same disk, "
    "copied otherwise.",
)
@click.option(
    "--recheck",
    is_flag=True,
    help="If the set is already frozen, make its shards again in memory, to check that no image has changed.",
)
@click.option("--overwrite", is_flag=True, help="Delete the set in the output folder first. Not for URLs.")
@click.option("--no-report", is_flag=True, help="Do not write report.html (statistics, rejects and example images).")
@click.option(
    "--part",
    callback=_build_part,
    metavar="K/N",
    help="Make only part K of N of the shards. Parts may run at the same time, on machines that share the output "
    "folder or URL; --finish then freezes the set.",
)
@click.option(
    "--engine",
    metavar="NAME",
    default=LOCAL,
    show_default=True,
    help="Where the jobs run. local: in processes on this machine; ray: on a Ray cluster; MODULE:FACTORY: in the "
    "concurrent.futures.Executor that FACTORY(workers) returns.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="With --engine ray: address of a running cluster, auto or HOST:PORT.  [default: RAY_ADDRESS; without it, a "
    "cluster is started on this machine for the build]",
)
@click.option("--finish", is_flag=True, help="Freeze the set once all parts are made, or list the missing shards.")
@resumable
@source_options
def build_command(
    settings: BuildSettings,
    name: str,
    out: Location | None,
    reuse: Location | None,
    recheck: bool,
    overwrite: bool,
    no_report: bool,
    part: BuildPart | None,
    finish: bool,
    engine: str,
    ray_address: str | None,
) -> None:
    """Build a frozen set: WebDataset shards, an index, and a lock with their hashes.

    Run the same command again to resume an interrupted build. A frozen set is never changed.
    """
    given = [option for option, value in (("--part", part), ("--finish", finish)) if value]
    others = [option for option, value in (("--overwrite", overwrite), ("--recheck", recheck)) if value]
    if len(given + others) > 1 and given:
        how = "delete the output folder yourself" if overwrite else "leave out all but one of them"
        raise SettingsError(f"{' and '.join(given + others)}: cannot be combined; {how}")
    out = out or Path("frozen") / name
    if engine != LOCAL:
        out = out.absolute()  # workers on other machines have another current folder
    settings = replace(settings, report=not no_report, engine=engine, ray_address=ray_address)
    find_engine(settings)  # reports a missing package before the annotations are read
    if part is not None:
        click.echo(_part_summary(part, build_part(settings, out, part, reuse=reuse)))
        return
    lock = build(settings, out, reuse=reuse, recheck=recheck, overwrite=overwrite, finish=finish)
    click.echo(totals_table(lock))
    click.echo(f"digest {lock.digest}")


def _part_summary(part: BuildPart, counts: Mapping[str, SourceCount] | None) -> str:
    if counts is None:
        return f"part {part}: nothing to do, the set is frozen"
    shards, samples = (sum(getattr(count, name) for count in counts.values()) for name in ("shards", "samples"))
    rejects = sum(count.rejected.total() for count in counts.values())
    made = ", ".join((counted(shards, "shard"), counted(samples, "sample"), counted(rejects, "reject")))
    return f"part {part}: {made}; once all parts are complete, run the same command with --finish instead of --part"


@main.command("check")
@guard
@source_options
def check_command(settings: BuildSettings, name: str) -> None:
    """Read and render every record as `build` does, report what would be rejected, and write nothing."""
    scanned, counts = check(settings)
    records = {source.source.tag: source.records for source in scanned}
    rows = [
        totals_row(tag, records[tag], count.samples, count.rejected, count.dropped_boxes, count.shards, count.bytes)
        for tag, count in counts.items()
    ]
    click.echo(table(TOTALS_HEAD, rows))
    check_counts(scanned, counts, settings)


@main.command("formats")
@guard
def formats_command() -> None:
    """List the supported annotation formats, with a small complete example of each."""
    rows = []
    for name, module in FORMATS.items():
        companions = ", ".join(module.COMPANIONS) or "-"
        rows.append(
            (name, " ".join(module.TASKS), " ".join(f"{option}=" for option in module.OPTIONS) or "-", companions)
        )
    click.echo(table(("format", "tasks", "options", "additional files"), rows))
    options = ", ".join(f"{option}=" for option in COMMON_OPTIONS)
    click.echo(f"Every format accepts {options}. Files compressed as .gz or .zst are read directly.")
    for name, module in FORMATS.items():
        for file, content in module.EXAMPLES.items():
            click.echo(f"\n{name}: {file}\n{content}")


@main.command("sample-data")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--images", type=click.IntRange(1), default=48, show_default=True, help="Number of images.")
@click.option("--plain", is_flag=True, help="Draw few plain shapes, far apart: easy for a small model to learn.")
@click.option("--tasks", metavar="T,T,...", help=f"With --plain: tasks to annotate.  [default: {','.join(TASKS)}]")
@click.option(
    "--permute-labels", is_flag=True, help="With --plain: give every image the annotations of another, as a control."
)
@guard
def sample_data_command(
    out: Path, seed: int, images: int, plain: bool, tasks: str | None, permute_labels: bool
) -> None:
    """Generate a small synthetic data set with exact boxes for every task."""
    if not plain and (tasks is not None or permute_labels):
        given = "--tasks" if tasks is not None else "--permute-labels"
        raise SettingsError(f"{given}: only for --plain; add it, or leave {given} out")
    if plain:
        chosen = TASKS if tasks is None else tasks.split(",")
        manifest = write_plain_data(out, seed=seed, images=images, tasks=chosen, permute_labels=permute_labels)
    else:
        manifest = write_sample_data(out, seed=seed, images=images)
    click.echo(f"wrote {counted(images, 'image')} with annotations to {out}")
    click.echo(f"next: griffon-prep build --manifest {manifest} --data-root {out}")
