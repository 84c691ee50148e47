"""IoU, and which answered box is compared with which true one."""

import random
from itertools import permutations

import pytest

from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.matching import area, in_pixels, iou, mark, matched, reaches, size_of

from .made_up import CAT, DOG, FAR, HEIGHT_PX, WIDTH_PX, jittered, pointed, predicted, random_box


def iou_by_counting(box: BoxXYXY, other: BoxXYXY) -> float:
    """IoU of boxes of whole numbers, by the cells that they cover."""
    cells, other_cells = (
        {(x, y) for x in range(int(x1), int(x2)) for y in range(int(y1), int(y2))} for x1, y1, x2, y2 in (box, other)
    )
    return len(cells & other_cells) / len(cells | other_cells) if cells | other_cells else 0.0


def test_iou_is_the_share_of_cells() -> None:
    draws = random.Random(0)
    for _ in range(300):
        x1, y1, x2, y2, x3, y3, x4, y4 = (draws.randint(0, 12) for _ in range(8))
        box, other = (x1, y1, x2, y2), (x3, y3, x4, y4)
        assert iou(box, other) == pytest.approx(iou_by_counting(box, other))


def test_a_box_without_an_area_overlaps_nothing() -> None:
    for flat in ((0.1, 0.1, 0.1, 0.5), (0.5, 0.5, 0.1, 0.1), (0.5, 0.1, 0.1, 0.5)):
        assert area(flat) == iou(flat, flat) == iou(flat, CAT) == 0.0


def test_an_iou_at_the_threshold_is_right_by_one_convention() -> None:
    for halves in (((0.057, 0.1, 0.657, 0.7), (0.057, 0.1, 0.357, 0.7)), ((0.0, 0.0, 0.1, 0.3), (0.0, 0.0, 0.1, 0.6))):
        (pair,) = matched(*([box] for box in halves))
        assert pair.iou == 0.5
        assert not reaches(pair.iou, 0.5, "gt") and reaches(pair.iou, 0.5, "ge")


def test_iou_does_not_depend_on_the_shape_of_the_image() -> None:
    draws = random.Random(1)
    for _ in range(100):
        box, other = random_box(draws), random_box(draws)
        in_image = iou(in_pixels(box, WIDTH_PX, HEIGHT_PX), in_pixels(other, WIDTH_PX, HEIGHT_PX))
        assert sum(pair.iou for pair in matched([box], [other])) == pytest.approx(in_image)


def test_pairs_are_one_to_one_and_as_many_as_can_be_for_boxes_that_are_apart() -> None:
    """Boxes that overlap at most slightly have one matching at IoU 0.5, however it is found."""
    draws = random.Random(2)
    for _ in range(30):
        grid = draws.sample([(x / 4, y / 4, (x + 1) / 4, (y + 1) / 4) for x in range(4) for y in range(4)], 4)
        answered = draws.sample([jittered(box, draws, 0.25) for box in grid], 4)
        pairs = [pair for pair in matched(answered, grid) if pair.iou > 0.5]
        assert len({pair.answered for pair in pairs}) == len({pair.true for pair in pairs}) == len(pairs)
        best = max(
            sum(iou(answered[i], grid[j]) > 0.5 for i, j in enumerate(order)) for order in permutations(range(4))
        )
        assert len(pairs) == best


def test_the_closest_boxes_are_paired_first() -> None:
    close = (0.1, 0.1, 0.5, 0.52)
    assert [(pair.answered, pair.true) for pair in matched([DOG, close, CAT], [CAT])] == [(2, 0)]
    assert matched([], [CAT]) == matched([CAT], []) == matched([FAR], [CAT]) == []


def test_names_matter_in_detection_and_not_in_pointing() -> None:
    for task, hits in (("DET", 0), ("RANDDET", 0), ("VG", 1)):
        swapped = predicted(task, "cat-[0.100,0.100,0.500,0.500]", "dog-[0.100,0.100,0.500,0.500]")
        assert mark(swapped).hits(0.5, "gt") == hits
    other_case = predicted("DET", "Red  cow-[0.100,0.100,0.500,0.500]", "red cow-[0.100,0.100,0.500,0.500]")
    assert mark(other_case).exact(0.5, "gt")


def test_f1_of_a_set() -> None:
    for truth, answer, f1 in (
        ([CAT, DOG], [DOG, CAT], 1.0),
        ([CAT, DOG], [CAT], 2 / 3),
        ([CAT], [CAT, CAT], 2 / 3),
        ([CAT, DOG], [CAT, FAR], 0.5),
        ([CAT], [], 0.0),
        ([], [CAT], 0.0),
        ([], [], 1.0),
    ):
        item = mark(pointed(truth, answer, "k"))
        assert item.f1(0.5, "gt") == pytest.approx(f1)
        assert item.exact(0.5, "gt") == (f1 == 1.0)
    assert mark(predicted("VG", "None", "what?")).f1(0.5, "gt") == 0.0
    assert not mark(predicted("VG", "None", "None", complete=False)).exact(0.5, "gt")


def test_sizes_are_those_of_coco() -> None:
    sizes = {31.9: "small", 32: "medium", 95.9: "medium", 96: "large"}
    assert {side: size_of((10, 10, 10 + side, 10 + side)) for side in sizes} == sizes
