"""`griffon-shards stats`: every figure against a computation from all samples at once, in lists."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from griffon_shards import FrozenSet, open_set
from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer
from griffon_shards.stats import Figures, SetCounts, count_set, json_text, make_figures
from griffon_shards.stats.figures import Distribution, Group
from griffon_shards.types import BoxXYXY, Sample

Cli = Callable[..., subprocess.CompletedProcess[str]]
Labelled = list[tuple[str, BoxXYXY]]


@pytest.fixture(scope="module")
def shards(frozen_set: Path) -> FrozenSet:
    return open_set(frozen_set)


@pytest.fixture(scope="module")
def figures(frozen_set: Path) -> Figures:
    return count_set(frozen_set, workers=1)


def samples_of(shards: FrozenSet, group: Group) -> list[Sample]:
    samples = [shards[row] for row in range(len(shards))]
    if group.name == "all":
        return samples
    return [sample for sample in samples if group.name in (sample.task, sample.key.rpartition("-")[0])]


def boxes_of(sample: Sample) -> Labelled:
    """Labels and exact boxes, in pixels."""
    if sample.task not in ANSWERED_WITH_BOXES:
        return []
    answers = [turn.text for turn in sample.turns if turn.role == "gpt"]
    labels = [label for answer in answers for label, _ in parse_answer(answer, sample.task, "text")]
    assert sample.boxes_xyxy_px is not None
    return list(zip(labels, sample.boxes_xyxy_px, strict=True))


def values_of(name: str, samples: Sequence[Sample]) -> list[float]:
    """All values of a distribution."""
    boxes = [(sample, box) for sample in samples for _, box in boxes_of(sample)]
    images = [sample for sample in samples if sample.image is not None]
    values: dict[str, Callable[[], list[float]]] = {
        "turns": lambda: [len(s.turns) for s in samples],
        "question_chars": lambda: [sum(len(t.text) for t in s.turns if t.role == "human") for s in samples],
        "answer_chars": lambda: [sum(len(t.text) for t in s.turns if t.role == "gpt") for s in samples],
        "boxes_per_sample": lambda: [len(boxes_of(s)) for s in samples if s.task in ANSWERED_WITH_BOXES],
        "box_area_share": lambda: [
            int((x2 - x1) * (y2 - y1) / (s.width_px * s.height_px) * 1e6) / 1e6 for s, (x1, y1, x2, y2) in boxes
        ],
        "box_aspect": lambda: [int((x2 - x1) / (y2 - y1) * 1e3) / 1e3 for _, (x1, y1, x2, y2) in boxes],
        "image_width_px": lambda: [s.width_px for s in images],
        "image_height_px": lambda: [s.height_px for s in images],
        "image_bytes": lambda: [len(s.image or b"") for s in images],
    }
    return values[name]()


def check_distribution(name: str, shown: Distribution, values: Sequence[float]) -> None:
    ordered = sorted(values)
    assert (shown.count, shown.least, shown.most) == (len(values), ordered[0], ordered[-1])
    assert shown.mean == pytest.approx(sum(values) / len(values))
    for percent, percentile in ((10, shown.p10), (50, shown.p50), (90, shown.p90), (99, shown.p99)):
        exact = ordered[-(-percent * len(values) // 100) - 1]
        units = {"box_area_share": 1e6, "box_aspect": 1e3}.get(name, 1)
        digits = str(round(exact * units))
        assert round(percentile * units) == int(digits[:3].ljust(len(digits), "0")), (name, percent)
    assert [item.count for item in shown.bins] == [sum(b.start <= v < b.stop for v in values) for b in shown.bins]
    assert sum(item.count for item in shown.bins) == len(values)
    assert all(item.stop == following.start for item, following in zip(shown.bins, shown.bins[1:], strict=False))


def test_every_distribution_is_that_of_all_samples(shards: FrozenSet, figures: Figures) -> None:
    names = set()
    for group in (figures.total, *figures.tasks, *figures.sources):
        samples = samples_of(shards, group)
        assert group.samples == len(samples) > 0
        for name, shown in group.distributions.items():
            check_distribution(name, shown, values_of(name, samples))
            names.add(name)
    assert len(names) == 9  # all but tokens
    assert [group.name for group in figures.tasks] == ["LAZY", "DET", "RANDDET", "REG", "VG", "VISJ"]
    assert [group.name for group in figures.sources] == [source.tag for source in shards.lock.sources]


def test_boxes_are_counted_by_size_and_place(shards: FrozenSet, figures: Figures) -> None:
    for group in (figures.total, *figures.tasks, *figures.sources):
        samples = samples_of(shards, group)
        boxes = [(sample, box) for sample in samples for _, box in boxes_of(sample)]
        with_boxes = [sample for sample in samples if sample.task in ANSWERED_WITH_BOXES]
        assert group.boxes == len(boxes)
        assert group.without_boxes == sum(not boxes_of(sample) for sample in with_boxes)
        areas = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in boxes]
        small, large = sum(area < 32 * 32 for area in areas), sum(area >= 96 * 96 for area in areas)
        assert group.box_sizes == {"small": small, "medium": len(areas) - small - large, "large": large}
        cells = Counter(
            (min(int((y1 + y2) / 2 / s.height_px * 32), 31), min(int((x1 + x2) / 2 / s.width_px * 32), 31))
            for s, (x1, y1, x2, y2) in boxes
        )
        assert {(y, x): n for y, row in enumerate(group.heat) for x, n in enumerate(row) if n} == cells
    assert figures.total.without_boxes > 0


def test_categories_are_ranked_and_their_tail_counted(shards: FrozenSet, figures: Figures) -> None:
    samples = [sample for sample in samples_of(shards, figures.total) if sample.task in ("DET", "RANDDET")]
    boxes = Counter(label for sample in samples for label, _ in boxes_of(sample))
    holders = Counter(label for sample in samples for label in {label for label, _ in boxes_of(sample)})
    ranked = sorted(boxes, key=lambda label: (-boxes[label], label))
    assert [(c.name, c.boxes, c.samples) for c in figures.categories] == [(n, boxes[n], holders[n]) for n in ranked]
    total = sum(boxes.values())
    for share, shown in ((0.5, figures.long_tail.half), (0.9, figures.long_tail.nine_tenths)):
        assert sum(boxes[name] for name in ranked[:shown]) >= share * total > sum(boxes[n] for n in ranked[: shown - 1])
    assert figures.long_tail.at_most == {n: sum(count <= n for count in boxes.values()) for n in (1, 10, 100)}
    assert figures.total.categories == len(ranked) > 20


def test_images_are_compared_by_their_bytes(shards: FrozenSet, figures: Figures) -> None:
    keys: dict[bytes, list[str]] = {}
    for row in range(len(shards)):
        if (image := shards[row].image) is not None:
            keys.setdefault(image, []).append(shards.key(row))
    for group in (figures.total, *figures.tasks, *figures.sources):
        samples = [sample for sample in samples_of(shards, group) if sample.image is not None]
        assert (group.images, group.distinct_images) == (len(samples), len({sample.image for sample in samples}))
        assert group.formats == Counter(sample.image_format for sample in samples)
    order = [source.tag for source in shards.lock.sources]
    holders = [sorted({key.rpartition("-")[0] for key in same}, key=order.index) for same in keys.values()]
    pairs = Counter(pair for tags in holders for pair in combinations(tags, 2))
    assert {pair.sources: pair.images for pair in figures.shared_images} == pairs
    assert [pair.images for pair in figures.shared_images] == sorted(pairs.values(), reverse=True)
    firsts = [
        (len(same), min(same, key=lambda key: (order.index(key.rpartition("-")[0]), key))) for same in keys.values()
    ]
    firsts.sort(key=lambda item: (-item[0], order.index(item[1].rpartition("-")[0]), item[1]))
    assert [(image.samples, image.first_key) for image in figures.repeated_images] == firsts[:10]


def test_an_image_that_is_alone_is_not_a_duplicate(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> None:
    sizes_px = {"DET_a": (10, 20, 10), "DET_b": (20, 30, 30)}
    samples = [
        make_sample(f"{tag}-{record:09d}", size_px=(side_px, 9))
        for tag, sides_px in sizes_px.items()
        for record, side_px in enumerate(sides_px)
    ]
    figures = count_set(write_set(tmp_path / "set", samples), workers=1)
    assert [(group.images, group.distinct_images) for group in figures.sources] == [(3, 2), (3, 2)]
    assert (figures.total.images, figures.total.distinct_images) == (6, 3)
    assert [(pair.sources, pair.images) for pair in figures.shared_images] == [(("DET_a", "DET_b"), 1)]
    assert [image.first_key for image in figures.repeated_images] == [
        *("DET_a-000000000", "DET_a-000000001", "DET_b-000000001")
    ]


def test_any_number_of_workers_gives_the_same_bytes(frozen_set: Path, figures: Figures) -> None:
    done: list[int] = []
    shared = count_set(frozen_set, workers=2, rows_per_job=23, done=done.append)
    assert json_text(shared) == json_text(figures) == json_text(count_set(frozen_set, workers=1, rows_per_job=7))
    assert sum(done) == 288
    assert len(done) == 13


def test_the_command_prints_tables_or_json(frozen_set: Path, figures: Figures, shards_cli: Cli) -> None:
    result = shards_cli("stats", frozen_set, "--workers", 1)
    assert (result.returncode, result.stderr) == (0, "")
    total, sources = figures.total, figures.sources
    numbers = (total.samples, total.images, total.distinct_images, total.boxes, total.without_boxes)
    assert re.search("^all" + "".join(f" +{number}" for number in numbers) + " ", result.stdout, re.M)
    assert all(re.search(rf"^{source.name} +{source.samples} ", result.stdout, re.M) for source in sources)
    assert re.search(rf"^boxes a sample +{total.distributions['boxes_per_sample'].least} ", result.stdout, re.M)
    for category in (figures.categories[0], figures.categories[-1]):
        assert re.search(rf"^ *{category.boxes} +{category.samples}  {category.name}$", result.stdout, re.M)
    for image in figures.repeated_images:
        assert re.search(rf"^ *{image.samples}  {image.first_key}$", result.stdout, re.M)
    assert result.stdout.endswith(f"digest {figures.digest}\n")
    result = shards_cli("stats", frozen_set, "--json", "--workers", 1)
    assert result.stdout == json_text(figures) + "\n"
    assert json.loads(result.stdout)["total"]["boxes"] == total.boxes


def as_older(sample: Sample) -> Sample:
    """The sample as sets had it before samples had boxes."""
    return replace(sample, renderings=tuple(replace(item, boxes_xyxy_px=None) for item in sample.renderings))


def test_without_exact_boxes_those_of_the_answers_are_counted(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> None:
    sample = make_sample(
        "DET-000000000", "cat-[0.100,0.200,0.300,0.400]&a-b-[0.500,0.500,1.000,1.000]", size_px=(100, 50)
    )
    old = write_set(tmp_path / "old", [as_older(sample)], render={"boxes": "text", "render_version": 2})
    new = write_set(tmp_path / "new", [sample])
    counted, exact = count_set(old, workers=1), count_set(new, workers=1)
    assert replace(counted, digest="") == replace(exact, digest="")
    assert counted.total.distributions["box_area_share"].most == 0.25
    assert counted.total.distributions["box_aspect"].bins[-1].count == 2  # both are twice as wide as high
    assert [category.name for category in counted.categories] == ["a-b", "cat"]
    assert (counted.total.heat[9][6], counted.total.heat[24][24]) == (1, 1)


def test_exact_boxes_are_preferred_to_rounded_ones(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> None:
    sample = make_sample("VISJ-000000000", "[0.000,0.000,0.500,0.500]", size_px=(1000, 1000))
    rendering = replace(sample.renderings[0], boxes_xyxy_px=((0.0, 0.0, 500.4, 499.6),))
    figures = count_set(write_set(tmp_path / "set", [replace(sample, renderings=(rendering,))]), workers=1)
    assert figures.total.distributions["box_aspect"].least == 1.001


def test_bins_are_read_too(variants_set: Path) -> None:
    figures = count_set(variants_set, workers=1)
    shards = open_set(variants_set)
    assert figures.total.samples == len(shards)
    assert figures.total.boxes == sum(len(shards[row].boxes_xyxy_px or ()) for row in range(len(shards)))


def test_a_flat_box_has_no_aspect(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> None:
    sample = make_sample("DET-000000000", "line-[0.100,0.200,0.100,0.400]", size_px=(100, 100))
    total = count_set(write_set(tmp_path / "set", [sample]), workers=1).total
    assert (total.boxes, total.flat_boxes, total.box_sizes["small"]) == (1, 1, 1)
    assert "box_aspect" not in total.distributions


def test_a_box_that_is_flat_but_for_a_rounding_error(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> None:
    sample = make_sample("VISJ-000000000", "[0.100,0.200,0.900,0.200]", size_px=(1000, 1000))
    rendering = replace(sample.renderings[0], boxes_xyxy_px=((100.0, 200.0, 900.0, 200.0 + 2**-44),))
    total = count_set(write_set(tmp_path / "set", [replace(sample, renderings=(rendering,))]), workers=1).total
    assert (total.boxes, total.flat_boxes, total.box_sizes["small"]) == (1, 0, 1)
    assert total.distributions["box_aspect"].most >= 1e9


@pytest.mark.parametrize("options", [["--json"], [], ["--html"]])
@pytest.mark.parametrize("kind", ["empty", "text"])
def test_sets_without_samples_or_images(
    tmp_path: Path,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
    shards_cli: Cli,
    kind: str,
    options: list[str],
) -> None:
    texts = [make_sample(f"LAZY-{record:09d}", "答" * 9, size_px=None) for record in range(3)]
    root = write_set(tmp_path / "set", texts if kind == "text" else [])
    result = shards_cli("stats", root, *options, *([tmp_path / "a.html"] if "--html" in options else []))
    assert (result.returncode, result.stderr) == (0, "")
    if options == ["--json"]:
        total: dict[str, Any] = json.loads(result.stdout)["total"]
        assert (total["samples"], total["images"], total["boxes"]) == (3 if kind == "text" else 0, 0, 0)
        assert total["distributions"].get("answer_chars", {}).get("p50") == (9 if kind == "text" else None)


def test_more_samples_than_are_counted_at_a_time(make_sample: Callable[..., Sample]) -> None:
    """Counts in several goes, and of parts that are added up, are those of all values at once."""
    counts, parts = SetCounts("text"), [SetCounts("text") for _ in range(4)]
    lengths = [(7 * place) % 3001 for place in range(20_000)]
    for place, length in enumerate(lengths):
        sample = make_sample(f"LAZY-{place:09d}", "x" * length, size_px=None)
        counts.add(sample)
        parts[place % 3 + 1].add(sample)
    for part in parts[1:]:
        parts[0].merge(part)
    figures, merged = (make_figures(chosen, [("LAZY", "LAZY")], digest="") for chosen in (counts, parts[0]))
    assert json_text(figures) == json_text(merged)
    check_distribution("answer_chars", figures.total.distributions["answer_chars"], lengths)


def test_damage_is_named(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], shards_cli: Cli
) -> None:
    root = write_set(tmp_path / "set", [make_sample("DET-000000007", "cat [1]")])
    result = shards_cli("stats", root)
    assert result.returncode == 1
    assert "DET-000000007: not an answer of task DET" in result.stderr
    assert f"griffon-shards verify --deep {root}" in result.stderr
    longer = replace(make_sample("DET-000000000"), renderings=make_sample("DET-000000000").renderings)
    rendering = replace(longer.renderings[0], boxes_xyxy_px=())
    root = write_set(tmp_path / "boxes", [replace(longer, renderings=(rendering,))])
    assert "lists 0 boxes, its answers hold 1" in shards_cli("stats", root).stderr
    assert shards_cli("stats", tmp_path).returncode == 1


def test_tokens_are_counted_with_a_tokenizer(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], shards_cli: Cli
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.enable_truncation(2)
    (tmp_path / "words").mkdir()
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    sample = make_sample("LAZY-000000000", "a cat and a cat", question="<image>\nwhat is here ?")
    root = write_set(tmp_path / "set", [sample])
    result = shards_cli("stats", root, "--json", "--tokenizer", tmp_path / "words")
    shown = json.loads(result.stdout)
    assert shown["tokenizer"] == "words"
    assert {name: shown["total"]["distributions"][name]["most"] for name in ("question_tokens", "answer_tokens")} == {
        "question_tokens": 4,
        "answer_tokens": 5,
    }


def test_a_tokenizer_that_cannot_be_used_is_refused(
    tmp_path: Path, small_set: Path, shards_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    result = shards_cli("stats", small_set, "--tokenizer", tmp_path)
    assert result.returncode == 2
    assert "pip install tokenizers" in result.stderr
    monkeypatch.undo()
    pytest.importorskip("tokenizers")
    assert "has no tokenizer.json" in shards_cli("stats", small_set, "--tokenizer", tmp_path).stderr
    (tmp_path / "tokenizer.json").write_text("{}")
    result = shards_cli("stats", small_set, "--tokenizer", tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "cannot be read" in result.stderr
