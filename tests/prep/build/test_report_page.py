"""`report.html`: beside the set and no part of it, the same bytes whatever happened to the build, and safe to open."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from griffon_prep.build import report_page
from griffon_prep.build.report_page import Example
from griffon_shards import open_set, verify_set
from griffon_shards.stats import count_set, html_page
from griffon_shards.stats.html_page import sections

from ...waiting import TIMEOUT_S
from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
IMAGE = re.compile(r'src="data:image/jpeg;base64,([^"]*)"')


def arguments(data: Path, out: Path, *more: object) -> list[object]:
    manifest = ["--manifest", data / "manifest.txt", "--data-root", data]
    return ["build", *manifest, "--out", out, "--samples-per-shard", 5, *more]


@pytest.fixture(scope="module")
def built(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of the small data with its report."""
    from ..conftest import run_prep

    out = tmp_path_factory.mktemp("undisturbed") / "set"
    result = run_prep(*arguments(small_data, out, "--workers", 2))
    assert result.returncode == 0, result.stderr
    return out


def page_of(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_the_page_has_the_figures_of_stats(built: Path) -> None:
    assert sections(count_set(built, workers=1)) in page_of(built)


def test_nine_images_of_each_source_with_their_boxes(built: Path) -> None:
    page, frozen = page_of(built), open_set(built)
    for source in frozen.lock.sources:
        own = page.split(f"<h3><bdi>{source.tag}</bdi></h3>")[1].split("<h3>")[0].split("</section>")[0]
        rows = frozen.rows_of_source(source.tag)[:9]
        assert own.count("<figure>") == len(rows)
        assert all(f"<b><bdi>{frozen.key(row)}</bdi></b>" in own for row in rows)
        images = [Image.open(BytesIO(b64decode(data))) for data in IMAGE.findall(own)]
        assert len(images) == sum(bool(frozen.index[row]["has_image"]) for row in rows)
        assert all(image.format == "JPEG" and max(image.size) <= 280 for image in images)


def test_boxes_are_drawn_on_the_examples(tmp_path: Path, prep: Prep) -> None:
    Image.new("RGB", (560, 400), "#808080").save(tmp_path / "p.png")
    record = {"width": 560, "height": 400, "image_path": "p.png", "expression": "it", "bboxes": [[100, 100, 300, 200]]}
    (tmp_path / "vg.jsonl").write_bytes(orjson.dumps(record))
    (tmp_path / "m.txt").write_text("VG & vg.jsonl & .\n")
    prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / "set")
    (data,) = IMAGE.findall(page_of(tmp_path / "set"))
    image = Image.open(BytesIO(b64decode(data)))
    assert image.size == (280, 200)
    pixels = np.asarray(image, np.int64)
    redness = pixels[..., 0] - pixels[..., 1]
    assert redness[100, 60:140].min() > 40, "the lower edge of the box, at half the size"
    assert abs(redness[66:94, 66:140]).max() < 12


def test_the_page_loads_and_runs_nothing(built: Path) -> None:
    page = page_of(built)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#x27;none&#x27;; ") and policy[1].endswith("; img-src data:")
    assert set(re.findall(r'(?:src|href|srcset|action)="([^:"]*:)', page)) == {"data:"}
    assert not re.search(r"<(script|link|iframe|object|embed|form|base|a)\b|https?://|url\(", page)
    assert len(page.encode()) < 4_000_000


def test_it_is_no_part_of_the_set(built: Path, small_data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    out = tmp_path / "set"
    result = prep(*arguments(small_data, out, "--no-report"))
    assert result.returncode == 0, result.stderr
    assert not (out / "report.html").exists()
    assert not list(out.glob(".griffon-build/*.counts"))
    assert lock_of(out) == lock_of(built)
    assert list(verify_set(built)) == []
    again = prep(*arguments(small_data, out))
    assert again.returncode == 0 and "up to date" in again.stderr
    assert re.search(r"counting \d+ shards \([\d.]+ [kM]B\) for report\.html; --no-report leaves it out", again.stderr)
    assert page_of(out) == page_of(built)
    assert lock_of(out) == lock_of(built)
    assert "counting" not in prep(*arguments(small_data, out)).stderr


def test_the_page_does_not_depend_on_workers(built: Path, small_data: Path, tmp_path: Path, prep: Prep) -> None:
    result = prep(*arguments(small_data, tmp_path / "elsewhere", "--workers", 1))
    assert result.returncode == 0, result.stderr
    assert page_of(tmp_path / "elsewhere") == page_of(built)


def test_the_page_of_a_build_that_was_killed(built: Path, small_data: Path, tmp_path: Path, prep: Prep) -> None:
    out = tmp_path / "set"
    for reports in (3, 8, 14):
        process = subprocess.Popen(
            [sys.executable, "-m", "griffon_prep", *map(str, arguments(small_data, out, "--workers", 2))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + TIMEOUT_S
        while len(list(out.glob(".griffon-build/*/*.report"))) < reports:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    counts = sorted(out.glob(".griffon-build/*/*.counts"))
    counts[0].write_bytes(counts[0].read_bytes()[:100])  # a power cut
    counts[1].unlink()
    assert prep(*arguments(small_data, out)).returncode == 0
    assert page_of(out) == page_of(built)


def test_a_page_that_is_missing_is_written_again(built: Path, small_data: Path, tmp_path: Path, prep: Prep) -> None:
    """As after a kill between the lock and the page."""
    out = shutil.copytree(built, tmp_path / "set")
    (out / "report.html").unlink()
    result = prep(*arguments(small_data, out))
    assert "up to date" in result.stderr
    assert page_of(out) == page_of(built)


@pytest.mark.parametrize("counted", [True, False])
def test_reused_sources_are_counted(built: Path, small_data: Path, tmp_path: Path, prep: Prep, counted: bool) -> None:
    """From the counts that the other set keeps or, where it has none, from its shards."""
    old = shutil.copytree(built, tmp_path / "old")
    if not counted:
        for path in old.glob(".griffon-build/*.counts"):
            path.unlink()
    result = prep(*arguments(small_data, tmp_path / "set", "--reuse", old))
    assert result.returncode == 0, result.stderr
    assert ("finished shards" in result.stderr) is not counted
    assert page_of(tmp_path / "set") == page_of(built)


def test_shards_of_a_build_without_report_are_counted_on_resume(
    built: Path, small_data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf
) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "griffon_prep", *map(str, arguments(small_data, out, "--no-report"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + TIMEOUT_S
    while len(list(out.glob(".griffon-build/*/*.report"))) < 5:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert prep(*arguments(small_data, out)).returncode == 0
    assert page_of(out) == page_of(built)


def test_rejects_and_hostile_text_are_text(tmp_path: Path, prep: Prep) -> None:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "p.jpg")
    record = {"width": 64, "height": 48, "image_path": "p.jpg", "expression": HOSTILE, "bboxes": [[1, 2, 30, 40]]}
    boxes = [[1, 2, 30, 40], [9, 9, 3, 3]]
    records = [record, {**record, "image_path": f"{HOSTILE}.jpg"}, {**record, "width": 65}, {**record, "bboxes": boxes}]
    (tmp_path / "vg.jsonl").write_bytes(b"\n".join(map(orjson.dumps, records)))
    (tmp_path / "m.txt").write_text("VG_x & vg.jsonl & .\n")
    out = tmp_path / "set"
    result = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", out)
    assert result.returncode == 0, result.stderr
    page = page_of(out)
    assert "<p>4 records, 2 samples, 2 rejected records.</p>" in page
    for cells in (
        ("VG_x", "picture_not_found", "1", "1: &lt;script&gt;alert(1)&lt;/script&gt;&quot;"),
        ("VG_x", "size_mismatch", "1", "2: p.jpg: the image is 64x48, the record says 65x48"),
        ("VG_x", "inverted", "1"),
    ):
        assert re.search(r"[^\n]*".join(map(re.escape, cells)), page)
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;img src=x onerror=alert(2)&gt;") >= 3


def test_a_damaged_image_shows_its_fault(tmp_path: Path, prep: Prep) -> None:
    image = BytesIO()
    Image.effect_noise((64, 48), 90).save(image, "JPEG")
    (tmp_path / "p.jpg").write_bytes(image.getvalue()[:600])
    record = {"width": 64, "height": 48, "image_path": "p.jpg", "expression": "it", "bboxes": [[1, 2, 30, 40]]}
    (tmp_path / "vg.jsonl").write_bytes(orjson.dumps(record))
    (tmp_path / "m.txt").write_text("VG & vg.jsonl & .\n")
    manifest = ["--manifest", tmp_path / "m.txt", "--data-root", tmp_path]
    result = prep("build", *manifest, "--out", tmp_path / "set", "--check", "none")
    assert result.returncode == 0, result.stderr
    assert "<p><bdi>VG-000000000: its image does not decode: a damaged JPEG" in page_of(tmp_path / "set")


def test_hundreds_of_sources_fit(built: Path) -> None:
    example = Example(key="DET-000000000", question="q", answer="a", jpeg=bytes(20_000), fault="")
    part = report_page._examples_section({f"DET_{i}": [example] * 9 for i in range(100)}, 250)
    assert 2_000_000 < len(part) < 3_100_000
    shown = part.count("<h3>")
    assert f"and {250 - shown} more sources, for which there is no room here" in part
    assert html_page(count_set(built, workers=1), "x", after=part).endswith(f"{part}</body>\n</html>\n")
