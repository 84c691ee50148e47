"""`griffon-shards overlap`."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from tqdm import tqdm

from griffon_shards.lock import read_lock
from griffon_shards.overlap.examine import perceptual_installed, read_image_data
from griffon_shards.overlap.find import Found, compare, compare_with_itself, read_side
from griffon_shards.overlap.inputs import Input, open_inputs
from griffon_shards.overlap.report import as_text, list_text, pair_counts, plain_data
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import guard, json_option, workers_option
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.tables import counted
from griffon_shards.support.worker_pool import InProcess, LocalPool

_log = logging.getLogger(__name__)
_PATH = click.Path(path_type=Path)
_SHOWN = 3


@click.command("overlap")
@click.argument("train", metavar="[TRAIN]...", nargs=-1, type=LOCATION)
@click.option(
    "--eval", "evaluation", metavar="EVAL", multiple=True, type=LOCATION, help="Evaluation set; can be repeated."
)
@click.option("--self", "own", is_flag=True, help="Find images that occur more than once in TRAIN, instead of --eval.")
@click.option("--image-data", type=_PATH, help="Visual Genome's image_data.json, which says which images are COCO's.")
@click.option("--no-perceptual", is_flag=True, help="Compare only names and bytes, without decoding images.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write these images to a list for `griffon-prep build --exclude`.",
)
@json_option
@workers_option
@guard
def overlap_command(
    train: tuple[Location, ...],
    evaluation: tuple[Location, ...],
    own: bool,
    image_data: Path | None,
    no_perceptual: bool,
    out: Path | None,
    as_json: bool,
    workers: int,
) -> None:
    """Find images of TRAIN that are also in EVAL, by name, bytes and perceptual hash.

    TRAIN and EVAL are frozen sets (folders or URLs), folders of images, or lists (file names, COCO ids or SHA-256s, one
    a line). Without TRAIN, --out lists all images of EVAL.
    """
    _check(train, evaluation, own=own, out=out)
    if image_data is not None:
        read_image_data(image_data)  # report faults before processes start
    perceptual = not no_perceptual and (bool(train) or own)
    if perceptual and not perceptual_installed():
        _log.warning(
            "perceptual hashes are left out, because their library is not installed; identities and SHA-256s are "
            "compared. Install it with `pip install 'griffon-pipeline[overlap]'`"
        )
        perceptual = False
    first = open_inputs(train)
    second = first if own else open_inputs(evaluation)
    _warn_of_names(first if own else (*first, *second))
    total = sum(one.images for one in (*first, *second))
    with LocalPool(workers) if workers > 1 else InProcess() as pool, _bar(total) as done:
        found = read_side(second, image_data, pool, perceptual=perceptual, listed=not train, done=done)
        unreadable = found.unreadable
        if train:
            found = (
                compare_with_itself(found.side, pool, done)
                if own
                else compare(first, found.side, image_data, pool, perceptual=perceptual, done=done)
            )
            found.unreadable += unreadable
    _warn(found, out)
    _print(found, first, second, own=own, perceptual=perceptual, json_wanted=as_json)
    if out is not None:
        against = ", ".join(one.path.resolve().name for one in second)
        title = f"images that stand in {against}" + (" a second time" if own else "")
        write_whole(out, list_text(found.lines, title).encode())
        if not as_json:
            click.echo(f"wrote {counted(len(found.lines), 'line')} to {out}")


def _check(train: Sequence[Location], evaluation: Sequence[Location], *, own: bool, out: Path | None) -> None:
    if own == bool(evaluation):
        raise SettingsError("give either --eval EVAL or --self" + (", not both" if own else ""))
    if not train and (own or out is None):
        raise SettingsError(
            "no TRAIN; give the sets, folders or lists to look at, or with --eval an --out for its images"
        )
    if out is not None and not out.absolute().parent.is_dir():  # said now, and not after hours of comparing
        raise SettingsError(f"--out {out}: there is no folder {out.parent}; create it")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar over all images, on a terminal."""
    with tqdm(total=total, unit=" images", dynamic_ncols=True, leave=False, disable=not sys.stderr.isatty()) as bar:
        yield bar.update


def _warn_of_names(inputs: Sequence[Input]) -> None:
    """Warn about images that no key can find: file names in a list that do not say which image it is."""
    for one in inputs:
        if one.unnamed:
            _log.warning(
                f"{one.path}: {one.unnamed:,} of {counted(one.images, 'name')} cannot be compared, for lack of a "
                "number that identifies the image; give the folder of the images instead"
            )
        old = one.kind == "set" and not read_lock(one.path).has_image_paths
        if old:
            _log.warning(f"{one.path}: its samples lack the paths of their images, so it has no identities; rebuild it")


def _warn(found: Found, out: Path | None) -> None:
    for message in found.unreadable[:_SHOWN]:
        _log.warning(f"unreadable image: {message}")
    if len(found.unreadable) > _SHOWN:
        _log.warning(f"... and {counted(len(found.unreadable) - _SHOWN, 'more unreadable image')}")
    if found.unlisted and out is not None:
        unlisted = counted(found.unlisted, "image is", "images are")
        _log.warning(f"{unlisted} not in {out}: no line could name only that image")


def _print(
    found: Found,
    first: Sequence[Input],
    second: Sequence[Input],
    *,
    own: bool,
    perceptual: bool,
    json_wanted: bool,
) -> None:
    names, other_names = ([name for one in side for name in one.sources] for side in (first, second))
    if not first:
        return
    pairs = pair_counts(found, names, other_names)
    if json_wanted:
        facts = plain_data(pairs, found, other_names, own=own, perceptual=perceptual)
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        click.echo(as_text(pairs, found, other_names, own=own, perceptual=perceptual))
