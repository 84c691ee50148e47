"""Make the screenshots of `griffon-shards view` in docs/images: `python docs/make_screenshots.py`.

Everything in them is drawn by `griffon-prep sample-data`. The predictions are the true boxes, moved by keyed draws, so
that no model is needed. It takes Debian's Chromium and Playwright, as the tests of the page do.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from griffon_shards import FrozenSet, open_set
from griffon_shards.grammar import format_answer, parse_answer
from griffon_shards.types import BoxXYXY, Sample

IMAGES = Path(__file__).parent / "images"
MAX_BYTES = 150_000
COLOURS = 256
CHROMIUM = "/usr/bin/chromium"
FORMATS = ("llava/", "ccmd/")
TASKS = ("DET", "VG")
ASKED = "?task=DET&task=VG&sort=iou&iou=0.2-&size=large"
WINDOW = {"width": 1200, "height": 760}
WAIT_MS = 60_000


def main() -> None:
    """Draw the data, freeze them, view them, and write the images."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, root, predictions = folder / "data", folder / "demo" / "shards", folder / "predictions.jsonl"
        _run("griffon_prep", "sample-data", data, "--images", 30)
        lines = (data / "manifest.txt").read_text(encoding="utf-8").splitlines()
        chosen = [line for line in lines if any(f"& {name}" in line for name in FORMATS)]
        (folder / "manifest.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        paths = ("--manifest", folder / "manifest.txt", "--data-root", data, "--out", root)
        _run("griffon_prep", "build", *paths, "--workers", 1)
        frozen = open_set(root)
        predictions.write_text("".join(_predictions(frozen)), encoding="utf-8")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for name, scheme, address, options in (
                ("view-grid", "light", "?task=DET&sort=boxes&desc=1", ()),
                ("view-sample", "dark", f"?task=DET&sample={frozen.row('DET_shapes-000000018')}", ()),
                ("view-statistics", "light", "?view=statistics", ()),
                ("view-predictions", "light", ASKED, ("--predictions", predictions)),
            ):
                with _served(folder, "demo/shards", *options) as url:
                    page = browser.new_page(viewport=WINDOW, color_scheme=scheme)  # type: ignore[arg-type]
                    page.set_default_timeout(WAIT_MS)
                    page.goto(url + address)
                    _ready(page, name)
                    _write(IMAGES / f"{name}.png", page.screenshot())
            browser.close()


def _ready(page: Page, name: str) -> None:
    """Wait until everything is there, and point at something."""
    page.wait_for_selector(".card" if name in ("view-grid", "view-predictions") else ".panel .turn, .plots .map")
    page.wait_for_load_state("networkidle")
    if name == "view-sample":
        page.locator(".turn.gpt .box-text").nth(2).hover()
    if name == "view-grid":
        page.locator(".card").nth(1).locator("g.box").first.hover()


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _served(folder: Path, *arguments: object) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    options = ("--no-browser", "--port", "0", "--cache", folder / "cache", *arguments)
    command = [sys.executable, "-m", "griffon_shards", "view", *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def _predictions(frozen: FrozenSet) -> Iterator[str]:
    """Lines as `griffon-train evaluate` writes them."""
    for row in range(len(frozen)):
        sample = frozen[row]
        if sample.task in TASKS:
            yield json.dumps(_prediction(frozen, sample)) + "\n"


def _prediction(frozen: FrozenSet, sample: Sample) -> dict[str, Any]:
    draws = Random(sample.key)
    true = parse_answer(sample.turns[1].text, sample.task, "text")
    moved_by = draws.choice((0.004, 0.015, 0.03))
    boxes = [_moved(box, draws, moved_by) for _, box in true]
    answered = [(label, box) for (label, _), box in zip(true, boxes, strict=True)]
    iou = min((_iou(box, other) for (_, box), other in zip(true, boxes, strict=True)), default=None)
    width_px, height_px = sample.width_px, sample.height_px
    return {
        "set": frozen.lock.digest,
        "key": sample.key,
        "task": sample.task,
        "round": 0,
        "question": sample.turns[0].text,
        "truth": sample.turns[1].text,
        "answer": format_answer(answered, "text"),
        "width": width_px,
        "height": height_px,
        "iou": iou,
        "right": iou is None or iou > 0.5,
        "unparsed": None,
        "boxes_px": [[x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px] for x1, y1, x2, y2 in boxes],
    }


def _moved(box: BoxXYXY, draws: Random, by: float) -> BoxXYXY:
    x1, y1, x2, y2 = (min(1.0, max(0.0, round(value + draws.gauss(0, by), 3))) for value in box)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _iou(a: BoxXYXY, b: BoxXYXY) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def _write(path: Path, screenshot: bytes) -> None:
    """Write a screenshot with few colours."""
    image = (
        Image.open(BytesIO(screenshot))
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    image.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes")  # noqa: T201 - a script
    assert size < MAX_BYTES


if __name__ == "__main__":
    main()
