"""The command line `griffon-shards`."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from griffon_shards.copying.command import copy_command
from griffon_shards.diff.command import diff_command
from griffon_shards.draw import draw_sample
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.listing import ORDERS, matching, rows_by_smallest_box, sorted_rows
from griffon_shards.lock import read_lock
from griffon_shards.overlap.command import overlap_command
from griffon_shards.sample_json import encode_sample
from griffon_shards.stats import count_set, html_page, json_text, terminal
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.summary import info, selections, totals_table
from griffon_shards.support.command_line import guard, json_option, workers_option
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.tables import counted, printable, size
from griffon_shards.terminal_image import encode_for_terminal
from griffon_shards.terminal_query import Terminal, find_terminal
from griffon_shards.types import TASKS, Sample
from griffon_shards.verify import verify_set
from griffon_shards.view.command import view_command

_TERMINAL = Path("-")
_KEPT = "\n\t\xa0\u3000\u200c\u200d\u200e\u200f"  # lines, spaces, and what joins or directs letters


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="griffon-pipeline", prog_name="griffon-shards")
def main() -> None:
    """Inspect, check and copy frozen shard sets. DIR is a folder, or a URL such as s3://bucket/sets/mine."""


@main.command("info")
@click.argument("root", metavar="DIR", type=LOCATION)
@json_option
@guard
def info_command(root: Location, as_json: bool) -> None:
    """Show the sources, tasks, counts, settings and digest of a set."""
    lock = read_lock(root)
    if as_json:
        click.echo(json.dumps(info(lock), ensure_ascii=False))
        return
    click.echo(totals_table(lock))
    click.echo("")
    for task in TASKS:
        sources = [source for source in lock.sources if source.task == task]
        if sources:
            samples = sum(source.samples for source in sources)
            names = ", ".join(
                source.tag if source.weight == "1" else f"{source.tag} (weight {source.weight})" for source in sources
            )
            click.echo(f"{task:8}{samples:>12,} {'sample ' if samples == 1 else 'samples'}  {names}")
    click.echo("")
    for line in selections(lock):
        click.echo(line)
    click.echo(f"settings {', '.join(f'{name}={value}' for name, value in lock.render.items())}")
    click.echo(f"digest {lock.digest}")


def _choose(root: Location, source: str | None, task: str | None) -> tuple[FrozenSet, list[range]]:
    """Open a set and select rows by source and task: a range for each source, in the order of the set."""
    shards = open_set(root).in_order()
    if source is not None:
        shards.rows_of_source(source)  # an unknown source raises an error that lists the sources
    tags = [s.tag for s in shards.lock.sources if source in (None, s.tag) and task in (None, s.task)]
    return shards, [shards.rows_of_source(tag) for tag in tags]


_SOURCE = click.option("--source", help="Only samples of this source.")
_TASK = click.option("--task", type=click.Choice(TASKS), help="Only samples of this task.")


@main.command("ls")
@click.argument("root", metavar="DIR", type=LOCATION)
@_SOURCE
@_TASK
@click.option("--category", metavar="NAME", help="Only samples with a box of this label, ignoring case.")
@click.option("--search", metavar="TEXT", help="Only samples with this text in a question or an answer, ignoring case.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(ORDERS),
    help="By key; by number of boxes or length of text, most first; or by area of the smallest box, smallest first.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order of --sort.")
@click.option("--limit", type=click.IntRange(1), help="List at most this many samples.")
@guard
def ls_command(
    root: Location,
    source: str | None,
    task: str | None,
    category: str | None,
    search: str | None,
    order: str | None,
    reverse: bool,
    limit: int | None,
) -> None:
    """List samples, one a line: key, task, shard, bytes, image or text only, boxes, characters of text.

    Only --category, --search and --sort box-area read the samples; all else is in the index. Samples are listed as
    they are found, except with --sort box-area.
    """
    if reverse and order is None:
        raise SettingsError("--reverse: there is no order to reverse; give --sort, too")
    shards, ranges = _choose(root, source, task)
    listed: Iterator[tuple[int, str]]
    if order == "box-area":
        candidates = _with_bar(chain.from_iterable(ranges), sum(map(len, ranges)))
        by_area = rows_by_smallest_box(shards, matching(shards, candidates, category, search), reverse=reverse)
        areas = ("" if np.isnan(area) else f"  smallest box {area:,.0f} px²" for area in by_area[1])
        listed = zip(map(int, by_area[0]), areas, strict=True)
    else:
        rows: Iterable[int] = chain.from_iterable(ranges)
        if order is not None:
            selected = np.concatenate([np.arange(0), *(np.arange(part.start, part.stop) for part in ranges)])
            rows = sorted_rows(shards, selected, order, reverse=reverse)
        listed = ((row, "") for row in matching(shards, rows, category, search))
    for row, area in islice(listed, limit):
        facts = shards.index[row]
        name = shards.lock.shards[int(facts["shard"])].name
        kind = "image" if facts["has_image"] else "text"
        boxes, chars = int(facts["boxes"]), int(facts["text_chars"])
        click.echo(
            f"{shards.key(row)}  {TASKS[int(facts['task'])]:8}{name}  {int(facts['bytes']):>10,} B  {kind:6}"
            f"{boxes:>4} {'box  ' if boxes == 1 else 'boxes'}  {chars:>7,} character{'' if chars == 1 else 's'}{area}"
        )


def _with_bar(rows: Iterable[int], total: int) -> Iterator[int]:
    """The same rows, with a progress bar on a terminal."""
    yield from tqdm(
        rows, total=total, unit=" samples", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()
    )


@main.command("show")
@click.argument("root", metavar="DIR", type=LOCATION)
@click.argument("key")
@click.option(
    "--draw",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the image with its boxes to this file, or with `-` show it in the terminal.",
)
@guard
def show_command(root: Location, key: str, draw: Path | None) -> None:
    """Show one sample: its conversation and its origin. With --draw, also draw its boxes on its image."""
    terminal = _image_terminal() if draw == _TERMINAL else None  # ask before anything is written
    shards = open_set(root)
    row = shards.row(key)
    sample = shards[row]
    _print_sample(sample, shards.lock.shards[int(shards.index[row]["shard"])].name)
    if draw is None:
        return
    drawing = draw_sample(sample, shards.lock.render["boxes"])
    if terminal is not None:
        click.echo("")
        click.echo(encode_for_terminal(drawing, terminal.protocol, terminal.size_px), nl=False)
        return
    try:
        drawing.save(draw)
    except ValueError as error:  # Pillow does not know the extension
        raise SettingsError(f"--draw {draw}: {error}; name it .png or .jpg") from None
    click.echo(f"\nwrote {draw}")


def _print_sample(sample: Sample, shard: str) -> None:
    click.echo(f"{sample.key}  {sample.task}")
    click.echo(f"from   record {sample.origin.record} of {printable(sample.origin.annotation)}")
    click.echo(f"in     {shard}")
    if sample.image is not None:
        click.echo(f"image  {sample.image_format} {sample.width_px}x{sample.height_px}, {size(len(sample.image))}")
        if sample.origin.image:
            click.echo(f"       {printable(sample.origin.image)}")
    for variant, rendering in enumerate(sample.renderings):
        if len(sample.renderings) > 1:
            click.echo(f"\nvariant {variant}")
        if rendering.region_xyxy_px is not None:
            click.echo("region {:.1f}, {:.1f}, {:.1f}, {:.1f} px".format(*rendering.region_xyxy_px))
        for place, box in enumerate(rendering.boxes_xyxy_px or ()):
            click.echo("{:7}{:.2f}, {:.2f}, {:.2f}, {:.2f} px".format("" if place else "boxes", *box))
        for turn in rendering.turns:
            click.echo(f"\n[{turn.role}] {printable(turn.text, _KEPT)}")


def _image_terminal() -> Terminal:
    if not sys.stdout.isatty():
        raise SettingsError("--draw -: standard output is not a terminal; give a file instead: --draw FILE.png")
    terminal = find_terminal(os.environ)
    if terminal is None:
        raise SettingsError(
            "--draw -: this terminal does not show images (it knows neither sixel graphics nor the protocols of kitty "
            "and iTerm2); give a file instead: --draw FILE.png"
        )
    return terminal


@main.command("cat")
@click.argument("root", metavar="DIR", type=LOCATION)
@_SOURCE
@_TASK
@click.option("--key", help="Only this sample.")
@guard
def cat_command(root: Location, source: str | None, task: str | None, key: str | None) -> None:
    """Print samples as JSON lines: the fields of KEY.json, and the key as `__key__`."""
    shards, ranges = _choose(root, source, task)
    out = sys.stdout.buffer
    selected = chain.from_iterable(ranges) if key is None else [shards.row(key)]
    for row in selected:
        sample = shards[row]
        out.write(b'{"__key__":' + json.dumps(sample.key).encode() + b"," + encode_sample(sample)[1:] + b"\n")
    out.flush()  # here, so that `guard` handles a closed pipe or a full disk


@main.command("stats")
@click.argument("root", metavar="DIR", type=LOCATION)
@click.option(
    "--tokenizer",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="Also count tokens, with the tokenizer.json of FOLDER.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Also write a page with plots to this file."
)
@json_option
@workers_option
@guard
def stats_command(root: Location, tokenizer: Path | None, html: Path | None, as_json: bool, workers: int) -> None:
    """Count samples, boxes, categories, lengths and images, by source and task. Every sample is read."""
    with tqdm(unit=" samples", total=len(open_set(root)), disable=not sys.stderr.isatty(), dynamic_ncols=True) as bar:
        figures = count_set(root, workers=workers, tokenizer=tokenizer, done=bar.update)
    if html is not None:
        write_whole(html, html_page(figures, root.resolve().name).encode())
    click.echo(json_text(figures) if as_json else terminal.text(figures))
    if html is not None and not as_json:
        click.echo(f"\nwrote {html}")


@main.command("verify")
@click.argument("root", metavar="DIR", type=LOCATION)
@click.option(
    "--deep",
    is_flag=True,
    help="Also decode every image, parse every answer, and compare its boxes with those in pixels.",
)
@json_option
@guard
def verify_command(root: Location, deep: bool, as_json: bool) -> None:
    """Check every checksum, offset and tar member of a set.

    Prints a line for each fault, and exits with 1 if there is any.
    """
    faults = list(verify_set(root, deep=deep))
    if as_json:
        digest = None if faults else read_lock(root).digest
        click.echo(json.dumps({"ok": not faults, "deep": deep, "digest": digest, "faults": faults}, ensure_ascii=False))
    elif not faults:
        lock = read_lock(root)
        samples = sum(shard.samples for shard in lock.shards)
        checked = "every checksum, offset and member" + (", every image and every answer" if deep else "")
        click.echo(f"ok: {checked} of {counted(samples, 'sample')} in {counted(len(lock.shards), 'shard')}")
        click.echo(f"digest {lock.digest}")
    for fault in faults if not as_json else ():
        click.echo(f"error: {fault}", err=True)
    if faults:
        sys.exit(1)


main.add_command(copy_command)
main.add_command(diff_command)
main.add_command(view_command)
main.add_command(overlap_command)
