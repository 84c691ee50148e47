"""Every filter and every order, against reading all samples one by one."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from griffon_shards import open_set
from griffon_shards.draw import labelled_boxes
from griffon_shards.types import Sample

from .conftest import View

WORD = re.compile(r"[^_\W]+")
BOXES = re.compile(r"\[[0-9.,]+\]|<image>|<region>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the filters ask for, of one sample."""

    row: int
    sample: Sample
    source: str
    labels: set[str]
    boxes: int
    area_px2: float
    percent: float
    length: int
    words: str


@pytest.fixture(scope="module")
def facts(frozen_set: Path) -> list[Facts]:
    shards = open_set(frozen_set)
    return [read(row, shards[row]) for row in range(len(shards))]


def read(row: int, sample: Sample) -> Facts:
    labelled = labelled_boxes(sample, "text")
    boxes = sample.boxes_xyxy_px or [
        (x1 * sample.width_px, y1 * sample.height_px, x2 * sample.width_px, y2 * sample.height_px)
        for _, (x1, y1, x2, y2) in labelled
    ]
    area = min(((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes), default=math.nan)
    texts = [BOXES.sub(" ", turn.text) for turn in sample.turns]
    return Facts(
        row=row,
        sample=sample,
        source=sample.key.rpartition("-")[0],
        labels={label for label, _ in labelled if label},
        boxes=len(labelled),
        area_px2=area,
        percent=100 * area / (sample.width_px * sample.height_px) if sample.width_px else math.nan,
        length=sum(len(turn.text) for turn in sample.turns),
        words=f" {' '.join(word for text in texts for word in WORD.findall(text.casefold()))} ",
    )


FILTERS: dict[str, tuple[dict[str, object], Callable[[Facts], bool]]] = {
    "nothing": ({}, lambda f: True),
    "source": ({"source": "DET_shapes"}, lambda f: f.source == "DET_shapes"),
    "sources": ({"source": ["DET_shapes", "LAZY_text"]}, lambda f: f.source in ("DET_shapes", "LAZY_text")),
    "unknown source": ({"source": "nobody"}, lambda f: False),
    "task": ({"task": "REG"}, lambda f: f.sample.task == "REG"),
    "tasks": ({"task": ["REG", "VG"]}, lambda f: f.sample.task in ("REG", "VG")),
    "category": ({"category": "purple star"}, lambda f: "purple star" in f.labels),
    "categories": (
        {"category": ["red ring", "black cross"]},
        lambda f: bool({"red ring", "black cross"} & f.labels),
    ),
    "unknown category": ({"category": "unicorn"}, lambda f: False),
    "boxes": ({"boxes": "2-4"}, lambda f: 2 <= f.boxes <= 4),
    "boxes from": ({"boxes": "5-"}, lambda f: f.boxes >= 5),
    "boxes to": ({"boxes": "-1"}, lambda f: f.boxes <= 1),
    "boxes exactly": ({"boxes": "3"}, lambda f: f.boxes == 3),
    "boxes, upside down": ({"boxes": "5-2"}, lambda f: False),
    "smallest": ({"smallest": "0.5-2.25"}, lambda f: 0.5 <= f.percent <= 2.25),
    "smallest to": ({"smallest": "-1"}, lambda f: f.percent <= 1),
    "width": ({"width": "300-500"}, lambda f: 300 <= f.sample.width_px <= 500),
    "text only": ({"width": "-0"}, lambda f: f.sample.image is None),
    "height": ({"height": "400-"}, lambda f: f.sample.height_px >= 400),
    "length": ({"length": "100-300"}, lambda f: 100 <= f.length <= 300),
    "word": ({"q": "oval"}, lambda f: " oval " in f.words),
    "words": ({"q": "red OVAL"}, lambda f: " oval " in f.words and " red " in f.words),
    "phrase": ({"q": '"purple star"'}, lambda f: " purple star " in f.words),
    "no such word": ({"q": "zebra"}, lambda f: False),
    "all at once": (
        {"task": "DET", "boxes": "2-", "q": "oval", "width": "200-", "category": ["purple oval", "pink oval"]},
        lambda f: (
            f.sample.task == "DET"
            and f.boxes >= 2
            and " oval " in f.words
            and f.sample.width_px >= 200
            and bool({"purple oval", "pink oval"} & f.labels)
        ),
    ),
}
EMPTY = ("unknown source", "unknown category", "boxes, upside down", "no such word")


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_passes_the_samples_that_it_should(view: View, facts: list[Facts], name: str) -> None:
    parameters, passes = FILTERS[name]
    expected = [item.row for item in facts if passes(item)]
    assert view.rows(**parameters) == expected
    assert bool(expected) == (name not in EMPTY)


def missing_last(value: Callable[[Facts], float]) -> Callable[[Facts], tuple[bool, float]]:
    return lambda f: (math.isnan(value(f)), value(f))


SORTS: dict[str, Callable[[Facts], object]] = {
    "order": lambda f: f.row,
    "key": lambda f: f.sample.key,
    "boxes": lambda f: f.boxes,
    "length": lambda f: f.length,
    "area": missing_last(lambda f: f.area_px2),
    "smallest": missing_last(lambda f: f.percent),
}


@pytest.mark.parametrize("name", SORTS)
def test_an_order_is_that_of_its_values(view: View, facts: list[Facts], name: str) -> None:
    value = SORTS[name]
    rows = view.rows(sort=name, task=["DET", "VG", "LAZY", "REG"])
    values = [value(facts[row]) for row in rows]
    assert values == sorted(values)  # type: ignore[type-var]
    assert len({*values}) > 5
    down = view.rows(sort=name, desc=1, task=["DET", "VG", "LAZY", "REG"])
    with_value = [row for row in rows if not (name in ("area", "smallest") and math.isnan(facts[row].area_px2))]
    assert down[: len(with_value)] == with_value[::-1]
    assert sorted(down) == sorted(rows)
    assert (len(with_value) < len(rows)) == (name in ("area", "smallest"))


def test_a_random_order_is_one_of_the_seed(view: View) -> None:
    everything = view.rows(task="DET")
    once, again, other = (view.rows(task="DET", random=seed) for seed in (3, 3, 4))
    assert once == again != other
    assert sorted(once) == sorted(other) == everything != once


@pytest.mark.parametrize("order", [{"sort": "area", "desc": 1}, {"random": 5}, {}])
def test_the_neighbours_of_a_sample_are_those_of_its_choice(view: View, order: dict[str, object]) -> None:
    rows = view.rows(task="VG", **order)
    for place in (0, 1, len(rows) // 2, len(rows) - 1):
        shown = view.get(f"/api/samples/0/{rows[place]}", task="VG", **order)
        assert shown["previous"] == (rows[place - 1] if place else None)
        assert shown["next"] == (rows[place + 1] if place + 1 < len(rows) else None)
    stranger = view.rows(task="LAZY")[0]
    assert view.get(f"/api/samples/0/{stranger}", task="VG", **order)["next"] is None


def test_pages_are_parts_of_the_choice(view: View) -> None:
    rows = view.rows(sort="length")
    page = view.get("/api/samples", sort="length", offset=7, limit=5)
    assert ([card["row"] for card in page["samples"]], page["total"]) == (rows[7:12], len(rows))
    assert view.get("/api/samples", limit=0) == {"total": len(rows), "samples": []}
    assert view.get("/api/samples", offset=10**15)["samples"] == []
    assert len(view.get("/api/samples")["samples"]) == 60


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("task", "VISION"),
        ("boxes", "few"),
        ("boxes", "nan-nan"),
        ("sort", "rowid; DROP TABLE text"),
        ("desc", "yes"),
        ("limit", "201"),
        ("limit", "-1"),
        ("offset", "9" * 30),
        ("random", "-"),
        ("random", "٣"),
        ("verdict", "right"),
        ("verdict", "perfect"),
        ("iou", "0-1"),
        ("sort", "iou"),
        ("marked", "maybe"),
        ("q", "a" * 501),
        ("q", " ".join("ab" for _ in range(40))),
        ("q", '"'),
        ("q", "!? ..."),
        ("source", [str(number) for number in range(101)]),
        ("set", "one"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(view: View, parameter: str, value: object) -> None:
    status, message = view.error("/api/samples", **{parameter: value})
    assert status == 400
    assert "\n" not in message
    assert len(message) < 300


def test_what_does_not_exist_is_not_found(view: View) -> None:
    samples = len(view.sets[0].frozen)
    paths = ["/api/samples/1/0", "/image/0/-1", "/reject-image/0/9"]
    for path in (*paths, f"/api/samples/0/{samples}", f"/image/0/{samples}"):
        assert view.error(path)[0] == 404, path
    assert view.error("/api/samples", set=1)[0] == 404


@pytest.mark.parametrize("filters", [{}, {"task": "DET"}, {"q": "star"}, {"category": "black cross", "boxes": "3-"}])
def test_categories_are_counted_by_sample(view: View, facts: list[Facts], filters: dict[str, object]) -> None:
    rows = set(view.rows(**filters))
    counts: dict[str, int] = {}
    for item in facts:
        for label in item.labels if item.row in rows else ():
            counts[label] = counts.get(label, 0) + 1
    answer = view.get("/api/categories", **filters)
    assert dict(answer["categories"]) == counts
    assert answer["total"] == len(counts) > 5
    shown = [count for _, count in answer["categories"]]
    assert shown == sorted(shown, reverse=True)
    some = view.get("/api/categories", prefix="BLACK", **filters)
    assert dict(some["categories"]) == {name: count for name, count in counts.items() if name.startswith("black")}
    assert some["total"] == len(some["categories"]) > 0


def test_variants_are_looked_at_too(variants_set: Path, open_view: Callable[..., View]) -> None:
    """Boxes as bins, and questions in two wordings: a word of either finds the sample, and numbers find nothing."""
    view = open_view(variants_set)
    frozen = view.sets[0].frozen
    row = next(row for row in range(len(frozen)) if frozen[row].task == "DET")
    second = frozen[row].renderings[1].turns[0].text
    phrase = re.sub(r"<[^>]*>|\W+", " ", second).strip()
    assert row in view.rows(q=f'"{phrase[:80].rpartition(" ")[0]}"')
    assert view.rows(q="bin_1") == view.rows(q="bin_500") == []
