"""`griffon-shards view`."""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from griffon_shards.storage import Location
from griffon_shards.storage.node_cache import default_cache
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import SettingsError
from griffon_shards.view import DEFAULT_PORT

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXISTING_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("view")
@click.argument("roots", metavar="DIR...", nargs=-1, required=True, type=LOCATION)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Listen on this address. All but loopback need a token.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help=f"Listen on this port.  [default: {DEFAULT_PORT}, or any free one]"
)
@click.option("--open/--no-browser", "browse", default=True, help="Open the page in a browser, or only print the link.")
@click.option(
    "--data-root",
    type=_EXISTING_FOLDER,
    help="Folder of the images, to show those of rejected records.",
)
@click.option("--predictions", type=_FILE, help="A predictions.jsonl of griffon-train evaluate.")
@click.option(
    "--marks",
    type=_FILE,
    help="File of the marked samples.  [default: DIR.marks.jsonl; of a set at a URL, in the current folder]",
)
@click.option(
    "--cache", type=_FOLDER, help="Folder for sidecars, statistics and thumbnails.  [default: the user's cache folder]"
)
@guard
def view_command(
    roots: tuple[Location, ...],
    host: str,
    port: int | None,
    browse: bool,
    data_root: Path | None,
    predictions: Path | None,
    marks: Path | None,
    cache: Path | None,
) -> None:
    """Show sets in the browser: samples with their boxes, filters, search, predictions, rejects, statistics.

    Sets are only read. Marks are kept in a JSONL file beside the set, which griffon-prep build --exclude-keys takes.
    Stop with Ctrl-C.
    """
    if marks is not None and len(roots) > 1:
        raise SettingsError("--marks: a file of marks belongs to one set; give one DIR, or leave it out")
    try:
        serving = import_module("griffon_shards.view.serving")  # its libraries are not in the base install
    except ModuleNotFoundError as error:
        raise SettingsError(f"griffon-shards view needs {error.name}: pip install 'griffon-pipeline[view]'") from None
    serving.view(
        roots,
        host=host,
        port=port,
        browse=browse and _has_display(),
        data_root=data_root,
        predictions=predictions,
        marks=marks,
        cache=cache or default_cache(),
    )


def _has_display() -> bool:
    """Whether a browser can open a window. On a terminal alone, a text browser would take the terminal over."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
