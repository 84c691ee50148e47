"""The command line `griffon-shards`."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from griffon_shards.draw import draw_sample
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.lock import read_lock
from griffon_shards.sample_json import encode_sample
from griffon_shards.summary import info, totals_table
from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import size
from griffon_shards.types import TASKS
from griffon_shards.verify import verify_set

_SET = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="griffon-pipeline", prog_name="griffon-shards")
def main() -> None:
    """Look at frozen shard sets, and check them."""


@main.command("info")
@click.argument("root", metavar="DIR", type=_SET)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@guard
def info_command(root: Path, as_json: bool) -> None:
    """Sources, tasks, counts, settings and digest of a set."""
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
            click.echo(f"{task:8}{samples:>12,} samples  {names}")
    click.echo("")
    click.echo(f"settings {', '.join(f'{name}={value}' for name, value in lock.render.items())}")
    click.echo(f"digest {lock.digest}")


def _choose(root: Path, source: str | None, task: str | None) -> tuple[FrozenSet, Iterator[int]]:
    """The rows of a set that a command is asked for, in its order."""
    shards = open_set(root)
    if source is not None:
        shards.rows_of_source(source)  # names the sources there are, if this is none of them
    tags = [s.tag for s in shards.lock.sources if source in (None, s.tag) and task in (None, s.task)]
    return shards, (row for tag in tags for row in shards.rows_of_source(tag))


_SOURCE = click.option("--source", help="Only this source.")
_TASK = click.option("--task", type=click.Choice(TASKS), help="Only this task.")


@main.command("ls")
@click.argument("root", metavar="DIR", type=_SET)
@_SOURCE
@_TASK
@click.option("--limit", type=click.IntRange(1), help="Only the first so many.")
@guard
def ls_command(root: Path, source: str | None, task: str | None, limit: int | None) -> None:
    """List samples: key, task, shard, bytes, picture, boxes, characters of text."""
    shards, rows = _choose(root, source, task)
    for count, row in enumerate(rows):
        if limit is not None and count >= limit:
            break
        facts = shards.index[row]
        name = shards.lock.shards[int(facts["shard"])].name
        picture = "picture" if facts["has_image"] else "text"
        click.echo(
            f"{shards.key(row)}  {TASKS[int(facts['task'])]:8}{name}  {int(facts['bytes']):>10,} B  {picture:8}"
            f"{int(facts['boxes']):>4} boxes  {int(facts['text_chars']):>7,} characters"
        )


@main.command("show")
@click.argument("root", metavar="DIR", type=_SET)
@click.argument("key")
@click.option("--draw", type=click.Path(path_type=Path, dir_okay=False), help="Write the picture with its boxes there.")
@guard
def show_command(root: Path, key: str, draw: Path | None) -> None:
    """Show one sample: its conversation, where it came from, and with --draw its boxes on the picture."""
    shards = open_set(root)
    row = shards.row(key)
    sample = shards[row]
    click.echo(f"{sample.key}  {sample.task}")
    click.echo(f"from   record {sample.origin.record} of {sample.origin.annotation}")
    click.echo(f"in     {shards.lock.shards[int(shards.index[row]['shard'])].name}")
    if sample.image is not None:
        click.echo(f"image  {sample.image_format} {sample.width_px}x{sample.height_px}, {size(len(sample.image))}")
    for number, rendering in enumerate(sample.renderings):
        if len(sample.renderings) > 1:
            click.echo(f"\nvariant {number}")
        if rendering.region_xyxy_px is not None:
            click.echo("region {:.1f}, {:.1f}, {:.1f}, {:.1f} px".format(*rendering.region_xyxy_px))
        for turn in rendering.turns:
            click.echo(f"\n[{turn.role}] {turn.text}")
    if draw is not None:
        picture = draw_sample(sample, shards.lock.render["boxes"])
        try:
            picture.save(draw)
        except ValueError as error:  # Pillow's, for an extension that it does not know
            raise SettingsError(f"--draw {draw}: {error}; name it .png or .jpg") from None
        click.echo(f"\nwrote {draw}")


@main.command("cat")
@click.argument("root", metavar="DIR", type=_SET)
@_SOURCE
@_TASK
@click.option("--key", help="Only this sample.")
@guard
def cat_command(root: Path, source: str | None, task: str | None, key: str | None) -> None:
    """Write samples as JSONL: the key as `__key__`, and what their KEY.json holds."""
    shards, rows = _choose(root, source, task)
    out = sys.stdout.buffer
    chosen: Iterable[int] = rows if key is None else [shards.row(key)]
    for row in chosen:
        sample = shards[row]
        out.write(b'{"__key__":' + json.dumps(sample.key).encode() + b"," + encode_sample(sample)[1:] + b"\n")
    out.flush()  # here, where a closed pipe or a full disk is met by `guard`


@main.command("verify")
@click.argument("root", metavar="DIR", type=_SET)
@click.option("--deep", is_flag=True, help="Also decode every picture and parse every answer back to boxes.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@guard
def verify_command(root: Path, deep: bool, as_json: bool) -> None:
    """Check every checksum, offset and member of a set; exit code 1 and a line for each fault."""
    faults = list(verify_set(root, deep=deep))
    if as_json:
        digest = None if faults else read_lock(root).digest
        click.echo(json.dumps({"ok": not faults, "deep": deep, "digest": digest, "faults": faults}, ensure_ascii=False))
    elif not faults:
        lock = read_lock(root)
        samples = sum(shard.samples for shard in lock.shards)
        what = "every checksum, offset and member" + (", every picture and every answer" if deep else "")
        click.echo(f"ok: {what} of {samples:,} samples in {len(lock.shards):,} shards")
        click.echo(f"digest {lock.digest}")
    for fault in faults if not as_json else ():
        click.echo(f"error: {fault}", err=True)
    if faults:
        sys.exit(1)
