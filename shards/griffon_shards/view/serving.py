"""Opens the sets, and runs the server until it is stopped."""

import contextlib
import errno
import logging
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click
import uvicorn
from starlette.types import ASGIApp
from tqdm import tqdm

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.logs import configure
from griffon_shards.support.processes import available_cores
from griffon_shards.support.worker_pool import LocalPool
from griffon_shards.view import DEFAULT_PORT
from griffon_shards.view.access import Access, is_loopback
from griffon_shards.view.key_rows import KeyRows
from griffon_shards.view.marks import Marks, marks_path
from griffon_shards.view.predictions import Predictions
from griffon_shards.view.rejects import Rejects
from griffon_shards.view.server import make_app, static_files
from griffon_shards.view.sidecar import Sidecar
from griffon_shards.view.sidecar_build import FEW_ROWS, ensure_sidecar, is_complete, remove_unfinished, sidecar_path
from griffon_shards.view.statistics import Statistics
from griffon_shards.view.viewed_set import ViewedSet
from griffon_shards.view.web_images import Thumbnails

_THUMBNAILS_BYTES = 500_000_000
_READERS = 4  # processes that read samples; writing the sidecar takes a quarter of the time of reading
_BACKLOG = 2048
_LOG = logging.getLogger(__name__)


def view(
    roots: Sequence[Location],
    *,
    host: str,
    port: int | None,
    browse: bool,
    data_root: Path | None,
    predictions: Path | None,
    marks: Path | None,
    cache: Path,
) -> None:
    """Serve sets until the process is interrupted. The arguments are those of the command.

    Raises:
        SettingsError: the address cannot be used, or the predictions are of other sets.
        DataError: a set or a file beside it is damaged.
        OSError: the cache cannot be written.
    """
    sets = open_sets(roots, data_root=data_root, predictions=predictions, marks=marks, cache=cache)
    statistics = [Statistics(item.frozen, cache) for item in sets]
    app = make_app(sets, Thumbnails(cache / "thumbnails.sqlite", _THUMBNAILS_BYTES), statistics, static_files())
    listening = listen(host, port)
    with listening:
        port = int(listening.getsockname()[1])
        token = None if is_loopback(host) else secrets.token_urlsafe(24)
        click.echo(f"showing {', '.join(map(str, roots))} at {_link(host, port, token)}")
        if browse:
            threading.Thread(target=webbrowser.open, args=(_link(host, port, token),), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # how a server is stopped
            make_server(Access(app, host=host, token=token, cookie=f"griffon-view-{port}")).run(sockets=[listening])


def open_sets(
    roots: Sequence[Location], *, data_root: Path | None, predictions: Path | None, marks: Path | None, cache: Path
) -> list[ViewedSet]:
    """Open sets, and build the sidecars that the cache lacks. Arguments and errors are those of `view`."""
    opened = [open_set(root, cache) for root in roots]
    asked = [None if predictions is None else Predictions(predictions, frozen) for frozen in opened]
    if predictions is not None and not any(asked):
        others = sorted({digest for item in asked if item is not None for digest in item.other_sets})
        raise SettingsError(
            f"--predictions {predictions}: has predictions of no set that is shown (digest "
            f"{', '.join(frozen.lock.digest for frozen in opened)}), "
            + (f"but of digest {', '.join(others)}; give the set that was evaluated" if others else "and of no other")
        )
    return [
        ViewedSet(
            number=number,
            name=str(root),
            frozen=frozen,
            key_rows=KeyRows(frozen),
            sidecar=Sidecar(_built_sidecar(frozen, cache)),
            predictions=answers or None,
            marks=Marks(marks or marks_path(root)),
            rejects=Rejects(frozen, data_root, cache),
        )
        for number, (root, frozen, answers) in enumerate(zip(roots, opened, asked, strict=True))
    ]


def _built_sidecar(frozen: FrozenSet, cache: Path) -> Path:
    """The sidecar of a set. A large one is built by a process of its own, whose memory is free again afterwards."""
    path = sidecar_path(cache, frozen)
    if is_complete(path, frozen):
        return path
    if len(frozen) <= FEW_ROWS:
        return ensure_sidecar(frozen, cache, workers=1)
    _LOG.info("reading the categories and texts of %s, once: %s samples", frozen.root, f"{len(frozen):,}")
    try:
        with LocalPool(1) as pool:
            (path,) = pool.run(_build_sidecar, [(frozen.root, cache)])
    except BaseException:  # the process was killed, for example by Ctrl-C
        with contextlib.suppress(DataError, OSError):
            remove_unfinished(cache, frozen)
        raise
    return path


def _build_sidecar(job: tuple[Location, Path]) -> Path:
    """Build the sidecar of a set in a cache, with a progress bar on a terminal."""
    root, cache = job
    configure()
    frozen = open_set(root, cache)
    with tqdm(total=len(frozen), unit=" samples", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        return ensure_sidecar(frozen, cache, workers=min(_READERS, available_cores()), done=bar.update)


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens on an address, and on any free port if none is given and the usual one is taken.

    Raises:
        SettingsError: the address cannot be used.
    """
    if not host:  # Python listens on all addresses then
        raise SettingsError("--host: is empty; give an address of this machine")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in [DEFAULT_PORT, 0] if port is None else [port]:
        try:
            return socket.create_server((host, attempt), family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None and attempt:
                continue
            reason = str(error.strerror or error).partition(" (while")[0]  # Python repeats the address
            raise SettingsError(
                f"--host {host} --port {attempt}: {reason}; give an address of this machine and a free port"
            ) from None
    raise AssertionError("port 0 is never taken")


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application, whose `run` takes the sockets."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        ws="none",
    )
    return uvicorn.Server(config)


def _link(host: str, port: int, token: str | None) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={token}")
