"""Rejects by reason, their images, and the statistics."""

import json
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from griffon_shards.stats import count_set, json_text
from griffon_shards.types import Sample

from ...waiting import TIMEOUT_S
from .conftest import View

REJECTS = [
    ("DET_a", 0, "size_mismatch", "cats/a.jpg: 3x3, expected 4x4"),
    ("DET_a", 1, "size_mismatch", "a.jpg: found two folders further down"),
    ("DET_a", 2, "picture_not_found", "cats/none.jpg: not found"),
    ("DET_a", 3, "path_outside_root", "../secret.jpg: outside"),
    ("DET_a", 4, "path_outside_root", "cats/../../secret.jpg: outside"),
    ("DET_a", 5, "path_outside_root", "{root}/../secret.jpg: absolute"),
    ("DET_a", 6, "picture_unreadable", "notes.txt: not an image"),
    ("DET_b", 7, "bad_record", "no image is named"),
    ("DET_b", 8, "bad_record", "cats: a folder"),
    ("DET_b", 9, "bad_record", "a\0b.jpg: NUL"),
    ("DET_b", 10, "bad_record", "x" * 5000 + ": long"),
    ("DET_b", 11, "bad_record", "<img src=x onerror=alert(1)>: 左"),
]


@pytest.fixture(scope="module")
def view(
    tmp_path_factory: pytest.TempPathFactory,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
    open_view: Callable[..., View],
) -> View:
    base = tmp_path_factory.mktemp("rejects")
    root = base / "data"
    (root / "pictures" / "dogs").mkdir(parents=True)
    (root / "cats").mkdir()
    Image.new("RGB", (3, 3), "red").save(root / "cats" / "a.jpg")
    Image.new("RGB", (5, 5), "blue").save(root / "pictures" / "dogs" / "a.jpg")
    Image.new("RGB", (7, 7)).save(base / "secret.jpg")
    (root / "notes.txt").write_text("root:x:0:0\n")
    made = write_set(base / "set", [make_sample("DET_a-000000000"), make_sample("DET_b-000000000")])
    lines = [
        {"source": source, "record": record, "reason": reason, "detail": detail.replace("{root}", str(root))}
        for source, record, reason, detail in REJECTS
    ]
    (made / "rejects.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return open_view(made, data_root=root)


def test_rejects_are_listed_by_reason_and_source(view: View) -> None:
    everything = view.get("/api/rejects")
    assert everything["total"] == len(REJECTS)
    assert [item["detail"] for item in everything["rejects"]][-1] == REJECTS[-1][-1]
    assert [item["record"] for item in view.get("/api/rejects", reason="size_mismatch")["rejects"]] == [0, 1]
    some = view.get("/api/rejects", reason="bad_record", source="DET_b", offset=1, limit=2)
    assert (some["total"], [item["record"] for item in some["rejects"]]) == (5, [8, 9])
    assert view.get("/api/rejects", reason="nothing") == {"total": 0, "rejects": []}


def test_images_come_from_below_the_data_root_alone(view: View) -> None:
    shown = {item["record"]: item["image"] for item in view.get("/api/rejects")["rejects"]}
    assert [record for record, image in shown.items() if image] == [0, 1]
    sizes = [Image.open(BytesIO(view.client.get(f"/reject-image/0/{number}").content)).size for number in (0, 1)]
    assert sizes[0] == (3, 3)
    assert sizes[1] in ((3, 3), (5, 5))
    for number in range(2, len(REJECTS)):
        assert view.error(f"/reject-image/0/{number}")[0] == 422, REJECTS[number]


def test_counts_are_those_of_the_build(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], open_view: Callable[..., View]
) -> None:
    made = write_set(tmp_path / "set", [make_sample("DET_a-000000000")], rejected=3)
    view = open_view(made)
    count = {"set": 0, "reason": "picture_not_found", "source": "DET_a", "count": 3}
    assert view.get("/api/sets")["rejects"] == [count]
    assert not any(item["image"] for item in view.get("/api/rejects")["rejects"])  # without a data root
    (made / "rejects.jsonl").write_text('{"source": "DET_a"}\n')
    assert open_view(made).error("/api/rejects")[0] == 422
    (made / "rejects.jsonl").unlink()
    assert open_view(made).get("/api/rejects") == {"total": 0, "rejects": []}


def statistics(view: View) -> tuple[int, bytes]:
    """The answer once it is no longer counted."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        answer = view.client.get("/api/statistics/0")
        if answer.status_code != 202:
            return answer.status_code, answer.content
        assert 0 <= answer.json()["progress"] <= 1
        time.sleep(0.05)
    raise AssertionError("the statistics are never ready")


def test_statistics_are_those_of_the_command(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], open_view: Callable[..., View]
) -> None:
    made = write_set(tmp_path / "set", [make_sample(f"DET_a-{number:09d}") for number in range(3)])
    status, body = statistics(open_view(made, cache=tmp_path / "cache"))
    assert (status, body.decode()) == (200, json_text(count_set(made, workers=1)))
    shutil.rmtree(made / "DET_a")
    again = open_view(made, cache=tmp_path / "cache")
    assert again.client.get("/api/statistics/0").content == body  # kept in the cache
    other = open_view(made, cache=tmp_path / "other")
    assert statistics(other)[0] == 422


def test_statistics_are_shown_though_the_cache_cannot_be_written(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], open_view: Callable[..., View]
) -> None:
    made = write_set(tmp_path / "set", [make_sample("DET_a-000000000")])
    cache = tmp_path / "cache"
    view = open_view(made, cache=cache)
    cache.rename(tmp_path / "gone")
    assert statistics(view) == (200, json_text(count_set(made, workers=1)).encode())
