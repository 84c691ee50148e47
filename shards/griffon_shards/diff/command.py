"""`griffon-shards diff`."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Never

import click
from tqdm import tqdm

from griffon_shards.diff.locks import changed_sources
from griffon_shards.diff.report import as_text, plain_data
from griffon_shards.diff.rows import Rows, match_rows, open_checked
from griffon_shards.diff.sets import ChangedSample, SourceDiff, compare_locks, compare_source, read_changed
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.lock import read_lock
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import comparing, json_option
from griffon_shards.support.errors import SettingsError


@click.command("diff")
@click.argument("a", metavar="A", type=LOCATION)
@click.argument("b", metavar="B", type=LOCATION)
@json_option
@click.option("--keys", is_flag=True, help="Print a line for every sample that differs, and nothing else.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Number of examples for each source: of keys in one set only, and of samples in which the same parts changed.",
)
@comparing
def diff_command(a: Location, b: Location, as_json: bool, keys: bool, limit: int) -> None:
    """Show how set B differs from set A: settings, inputs, sources and samples.

    Samples are matched by key, and only those whose checksums differ are read. A line of --keys has `only A`, `only B`
    or `changed`, the key, and the parts that changed, separated by tabs.

    Exits with 0 if the sets are alike (have the same digest), with 1 if they differ, and with 2 after any error.
    """
    if as_json and keys:
        raise SettingsError("--json and --keys exclude each other; give one of them")
    diff = compare_locks(read_lock(a), read_lock(b))
    if not diff.alike:
        sources = _compare_sources(open_checked(a), open_checked(b), limit=limit, print_keys=keys)
        diff = replace(diff, sources=tuple(sources))
    if as_json:
        click.echo(json.dumps(plain_data(diff, a, b), ensure_ascii=False))
    elif not keys:
        click.echo("\n\n".join(as_text(diff, a, b)))
    sys.stdout.flush()  # here, so that `comparing` handles a closed pipe or a full disk
    if not diff.alike:
        sys.exit(1)


def _compare_sources(a: FrozenSet, b: FrozenSet, *, limit: int, print_keys: bool) -> Iterator[SourceDiff]:
    facts_by_tag = changed_sources(a.lock, b.lock)
    matches = [match_rows(a, b, tag) for tag in facts_by_tag]
    to_read = sum(len(rows.changed_a) for rows in matches)
    shown = sys.stderr.isatty() and not (print_keys and sys.stdout.isatty())
    with tqdm(total=to_read, unit=" samples", dynamic_ncols=True, leave=False, disable=not shown) as bar:
        for rows, facts in zip(matches, facts_by_tag.values(), strict=True):
            if print_keys:
                _print_keys("only A", a, rows.only_a)
                _print_keys("only B", b, rows.only_b)
            changed = _reported(read_changed(a, b, rows), bar, print_keys=print_keys)
            yield compare_source(a, b, rows, facts=facts, changed=changed, limit=limit)


def _print_keys(kind: str, frozen: FrozenSet, rows: Rows) -> None:
    for row in rows:
        click.echo(f"{kind}\t{frozen.key(int(row))}")


def _reported(changed: Iterator[ChangedSample], bar: "tqdm[Never]", *, print_keys: bool) -> Iterator[ChangedSample]:
    for sample in changed:
        bar.update()
        if print_keys:
            click.echo(f"changed\t{sample.key}\t{','.join(sample.part_names)}")
        yield sample
