"""`griffon-shards ls`: filters by category and text, and orders, against a look at every sample."""

import math
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from griffon_shards import FrozenSet, Sample, open_set
from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer, parse_boxes_in
from griffon_shards.storage import Location
from griffon_shards.types import BoxXYXY

Cli = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., Sample]
Write = Callable[..., Path]


@pytest.fixture(scope="module", params=["frozen_set", "variants_set"])
def shards(request: pytest.FixtureRequest) -> FrozenSet:
    return open_set(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def samples(shards: FrozenSet) -> list[Sample]:
    return [shards[row] for row in range(len(shards))]


def listed(cli: Cli, root: Location, *options: object) -> list[str]:
    result = cli("ls", root, *options)
    assert (result.returncode, result.stderr) == (0, "")
    return [line.split()[0] for line in result.stdout.splitlines()]


def written_boxes(sample: Sample, style: str) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (fractions) that the answers of all variants write."""
    if sample.task not in ANSWERED_WITH_BOXES:
        return []
    answers = [turn.text for item in sample.renderings for turn in item.turns if turn.role == "gpt"]
    return [box for answer in answers for box in parse_answer(answer, sample.task, style)]


def area_px2(sample: Sample, style: str) -> float:
    """The smallest box of a sample; infinite without boxes."""
    if sample.task == "REG":
        fractions = [box for item in sample.renderings for box in parse_boxes_in(item.turns[0].text, style)]
        width, height = sample.width_px, sample.height_px
        boxes = [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in fractions]
    else:
        boxes = [box for item in sample.renderings for box in item.boxes_xyxy_px or ()]
    return min(((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes), default=math.inf)


@pytest.mark.parametrize("name", ["black oval", "BLACK Oval", "oval", "nothing like this"])
def test_category(shards: FrozenSet, samples: Sequence[Sample], shards_cli: Cli, name: str) -> None:
    style = shards.lock.render["boxes"]
    expected = [
        sample.key
        for sample in samples
        if any(label.lower() == name.lower() for label, _ in written_boxes(sample, style))
        or (sample.task == "REG" and any(i.turns[1].text.lower() == name.lower() for i in sample.renderings))
    ]
    assert listed(shards_cli, shards.root, "--category", name) == expected
    assert bool(expected) == (" " in name and "like" not in name)


@pytest.mark.parametrize("text", ["black OVAL", "find", "图", "None", "nothing like this"])
def test_search_looks_into_questions_and_answers_of_all_variants(
    shards: FrozenSet, samples: Sequence[Sample], shards_cli: Cli, text: str
) -> None:
    expected = [
        sample.key
        for sample in samples
        if any(text.lower() in turn.text.lower() for item in sample.renderings for turn in item.turns)
    ]
    assert listed(shards_cli, shards.root, "--search", text) == expected


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("order", ["key", "boxes", "length", "box-area"])
def test_orders(shards: FrozenSet, samples: Sequence[Sample], shards_cli: Cli, order: str, reverse: bool) -> None:
    style = shards.lock.render["boxes"]
    facts = {sample.key: shards.index[row] for row, sample in enumerate(samples)}
    areas = {sample.key: area_px2(sample, style) for sample in samples}
    sign = -1 if reverse else 1
    keys: dict[str, Callable[[str], float]] = {
        "boxes": lambda key: -sign * int(facts[key]["boxes"]),
        "length": lambda key: -sign * int(facts[key]["text_chars"]),
        "box-area": lambda key: sign * areas[key] if math.isfinite(areas[key]) else math.inf,
    }
    names = [sample.key for sample in samples]
    expected = sorted(names, reverse=reverse) if order == "key" else sorted(names, key=keys[order])
    options = ["--sort", order, *["--reverse"] * reverse]
    assert listed(shards_cli, shards.root, *options) == expected
    assert listed(shards_cli, shards.root, *options, "--limit", 7) == expected[:7]


def test_filters_and_orders_together(frozen_set: Path, shards_cli: Cli) -> None:
    by_area = listed(shards_cli, frozen_set, "--sort", "box-area")
    oval = set(listed(shards_cli, frozen_set, "--category", "black oval"))
    pink = set(listed(shards_cli, frozen_set, "--search", "pink"))
    task = set(listed(shards_cli, frozen_set, "--task", "DET"))
    options = ["--task", "DET", "--category", "black oval", "--search", "pink"]
    expected = [key for key in by_area if key in oval & pink & task]
    assert expected
    assert listed(shards_cli, frozen_set, *options, "--sort", "box-area") == expected
    assert set(listed(shards_cli, frozen_set, *options, "--sort", "boxes")) == set(expected)
    assert listed(shards_cli, frozen_set, "--task", "DET", "--source", "LAZY_text", "--sort", "key") == []


def test_the_smallest_box_is_shown(frozen_set: Path, shards_cli: Cli) -> None:
    shards = open_set(frozen_set)
    lines = shards_cli("ls", frozen_set, "--task", "VISJ", "--sort", "box-area").stdout.splitlines()
    for line in lines:
        sample = shards[shards.row(line.split()[0])]
        assert line.endswith(f" characters  smallest box {area_px2(sample, 'text'):,.0f} px²")
    lines = shards_cli("ls", frozen_set, "--task", "LAZY", "--sort", "box-area").stdout.splitlines()
    assert lines
    assert all(line.endswith(" characters") for line in lines)


def test_a_set_without_boxes_in_pixels_is_sorted_by_those_that_are_written(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    answers = {"DET-000000000": "cat-[0.000,0.000,0.500,0.500]", "DET-000000001": "cat-[0.000,0.000,0.100,0.100]"}
    newer = [make_sample(key, answer, size_px=(100, 50)) for key, answer in answers.items()]
    older = [replace(s, renderings=(replace(s.renderings[0], boxes_xyxy_px=None),)) for s in newer]
    root = write_set(tmp_path / "old", older, render={"boxes": "text", "render_version": 2})
    text = shards_cli("ls", root, "--sort", "box-area").stdout
    assert re.findall(r"^(\S+) .*smallest box ([\d,]+) px²$", text, re.MULTILINE) == [
        ("DET-000000001", "50"),
        ("DET-000000000", "1,250"),
    ]


def test_what_the_index_rules_out_is_not_read(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    samples = [make_sample("DET-000000000"), make_sample("LAZY-000000001", "A cat.", size_px=None)]
    root = write_set(tmp_path / "set", samples)
    (root / "LAZY/LAZY-000000.tar").unlink()
    assert listed(shards_cli, root, "--category", "cat") == ["DET-000000000"]
    assert listed(shards_cli, root, "--sort", "box-area") == ["DET-000000000", "LAZY-000000001"]
    result = shards_cli("ls", root, "--search", "cat")
    assert result.returncode == 1
    assert result.stdout.startswith("DET-000000000 ")  # what was listed before the damage
    assert result.stderr.startswith(f"error: {root}/LAZY/LAZY-000000.tar, sample LAZY-000000001: the shard is missing")


def test_an_answer_that_does_not_parse_is_named(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    root = write_set(tmp_path / "set", [make_sample("DET-000000000", "cat-[0.1,0.2,0.3,0.4]")])
    result = shards_cli("ls", root, "--category", "cat")
    assert (result.returncode, result.stdout) == (1, "")
    assert "DET-000000.tar, sample DET-000000000: not an answer of task DET" in result.stderr


def test_a_row_of_an_unknown_source_is_an_error_and_no_crash(
    tmp_path: Path, write_set: Write, make_sample: Make, shards_cli: Cli
) -> None:
    def damage(rows: NDArray[np.void]) -> None:
        rows["source"][0] = 700

    made = write_set(tmp_path / "set", [make_sample(f"DET_a-{number:09d}") for number in range(2)], edit=damage)
    result = shards_cli("ls", made, "--sort", "key")
    assert result.stdout.startswith("DET_a-000000001 ")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "row 0 is damaged" in result.stderr


def test_reverse_needs_an_order(frozen_set: Path, shards_cli: Cli) -> None:
    result = shards_cli("ls", frozen_set, "--reverse")
    assert (result.returncode, result.stdout) == (2, "")
    assert "give --sort, too" in result.stderr
