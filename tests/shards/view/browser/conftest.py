"""A real browser on a real server. Without Chromium or Playwright, the tests are skipped."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from griffon_shards import open_set
from griffon_shards.types import Sample

from .known import hostile_samples, known_predictions, known_rejects, known_samples, png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 60_000
"""Generous, as `tests/waiting.py` has it: a wait ends late only if something is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The server.

    Attributes:
        url: of the page.
        marks: the file of marks of set 0.
    """

    url: str
    marks: Path


@pytest.fixture(scope="session")
def known_set(
    tmp_path_factory: pytest.TempPathFactory, make_sample: Callable[..., Sample], write_set: Callable[..., Path]
) -> Path:
    root = write_set(tmp_path_factory.mktemp("known") / "zoo", known_samples(make_sample), rejected=2)
    (root / "rejects.jsonl").write_text(known_rejects(), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def hostile_set(
    tmp_path_factory: pytest.TempPathFactory, make_sample: Callable[..., Sample], write_set: Callable[..., Path]
) -> Path:
    root = write_set(tmp_path_factory.mktemp("hostile") / "odd", hostile_samples(make_sample))
    shard = root / "LAZY_odd" / "LAZY_odd-000001.tar"
    shard.write_bytes(shard.read_bytes().replace(b"Flip me", b"Flip mE"))
    return root


@pytest.fixture(scope="session")
def predictions(known_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    path.write_text(known_predictions(open_set(known_set)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def site(
    known_set: Path, hostile_set: Path, predictions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Both sets on a real server, in a thread."""
    pytest.importorskip("uvicorn")
    from griffon_shards.view.access import Access
    from griffon_shards.view.server import make_app, static_files
    from griffon_shards.view.serving import listen, make_server, open_sets
    from griffon_shards.view.statistics import Statistics
    from griffon_shards.view.web_images import Thumbnails

    cache, images = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("images")
    (images / "left.png").write_bytes(png(120, 90))
    roots = [known_set, hostile_set]
    sets = open_sets(roots, data_root=images, predictions=predictions, marks=None, cache=cache)
    thumbnails = Thumbnails(cache / "thumbnails.sqlite", 10_000_000)
    app = make_app(sets, thumbnails, [Statistics(item.frozen, cache) for item in sets], static_files())
    with listen("127.0.0.1", 0) as listening:
        port = int(listening.getsockname()[1])
        server = make_server(Access(app, host="127.0.0.1", token=None, cookie="griffon-view-test"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield Site(url=f"http://127.0.0.1:{port}/", marks=known_set.with_name("zoo.marks.jsonl"))
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A browser for each module: while one runs, Playwright's event loop forbids any other in this thread."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip("needs Debian's Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        api.expect.set_options(timeout=WAIT_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=WAIT_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: "Browser") -> "BrowserContext":
    clipboard = ["clipboard-read", "clipboard-write"]
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, permissions=clipboard, reduced_motion="reduce", color_scheme="light"
    )
    context.set_default_timeout(WAIT_MS)
    return context


@pytest.fixture
def page(context: "BrowserContext") -> "Iterator[Page]":
    """An empty page. At the end: nothing ran that must not, and nothing was reported on the console."""
    page = context.new_page()
    reports: list[str] = []
    page.on("console", lambda message: reports.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: reports.append(str(error)))
    page.on("dialog", lambda dialog: reports.append(f"dialog: {dialog.message}"))
    yield page
    assert page.evaluate("window.broken") is None
    page.close()
    assert [report for report in reports if "Failed to load resource" not in report] == []


@pytest.fixture
def grid(page: "Page", site: Site) -> "Page":
    """The same page on the grid of set 0."""
    page.goto(site.url)
    return page
