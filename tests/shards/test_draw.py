"""Boxes on images: every edge is seen, and nothing but edges and labels is painted over."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from griffon_shards import DataError, Sample
from griffon_shards.draw import draw_sample, labelled_boxes

Make = Callable[..., Sample]
Pixels = NDArray[np.uint8]

WIDTH_PX, HEIGHT_PX = 400, 200
GREY = 128
BOX = "[0.250,0.500,0.500,0.900]"  # x 100 to 200, y 100 to 180


def drawn(sample: Sample, style: str = "text") -> Pixels:
    picture = draw_sample(sample, style)
    assert (picture.mode, picture.size) == ("RGB", (WIDTH_PX, HEIGHT_PX))
    return np.asarray(picture)


def painted_YX(pixels_YXC: Pixels) -> NDArray[np.bool_]:
    """Where the grey of the image is no longer seen."""
    painted: NDArray[np.bool_] = (pixels_YXC != GREY).any(axis=2)
    return painted


def edges(pixels_YXC: Pixels, x1: int, y1: int, x2: int, y2: int) -> list[Pixels]:
    """The four edges of a box, pixel by pixel."""
    return [pixels_YXC[y, x1 : x2 + 1] for y in (y1, y2)] + [pixels_YXC[y1 : y2 + 1, x] for x in (x1, x2)]


def test_a_box_without_label_is_a_frame_and_nothing_more(make_sample: Make) -> None:
    pixels_YXC = drawn(make_sample("VISJ-000000000", BOX, size_px=(WIDTH_PX, HEIGHT_PX)))
    expected = np.zeros((HEIGHT_PX, WIDTH_PX), np.bool_)
    expected[100:181, 100:201] = True
    expected[101:180, 101:200] = False
    assert np.array_equal(painted_YX(pixels_YXC), expected)
    assert len({tuple(pixel) for edge in edges(pixels_YXC, 100, 100, 200, 180) for pixel in edge.tolist()}) == 1


def test_a_label_stands_on_its_box(make_sample: Make) -> None:
    pixels_YXC = drawn(make_sample("DET-000000000", f"cat-{BOX}", size_px=(WIDTH_PX, HEIGHT_PX)))
    painted = painted_YX(pixels_YXC)
    assert all(painted_YX(edge[None]).all() for edge in edges(pixels_YXC, 100, 100, 200, 180))
    assert painted[90:100, 100:115].mean() > 0.5
    assert not painted[101:180, 101:200].any()
    painted[85:181, 100:201] = False
    assert not painted.any()
    assert (pixels_YXC[85:100, 100:130] > 200).all(axis=2).any()  # white letters


def test_edges_on_the_edge_of_the_image_are_visible(make_sample: Make) -> None:
    whole = "[0.000,0.000,1.000,1.000]"
    pixels_YXC = drawn(make_sample("VISJ-000000000", whole, size_px=(WIDTH_PX, HEIGHT_PX)))
    frame = edges(pixels_YXC, 0, 0, WIDTH_PX - 1, HEIGHT_PX - 1)
    assert all(painted_YX(edge[None]).all() for edge in frame)
    narrow = "[0.999,0.000,1.000,1.000]"
    pixels_YXC = drawn(make_sample("VISJ-000000000", narrow, size_px=(WIDTH_PX, HEIGHT_PX)))
    assert painted_YX(pixels_YXC)[:, -1].all()


def test_each_label_has_its_colour(make_sample: Make) -> None:
    boxes = [f"{label}-[0.{x}00,0.100,0.{x}50,0.900]" for label, x in (("cat", 1), ("dog", 3), ("cat", 5), ("猫", 7))]
    pixels_YXC = drawn(make_sample("VG-000000000", "&".join(boxes), size_px=(WIDTH_PX, HEIGHT_PX)))
    cat, dog, second_cat, chinese = (tuple(pixels_YXC[180, x].tolist()) for x in (40, 120, 200, 280))
    assert cat == second_cat
    assert len({cat, dog, chinese, (GREY, GREY, GREY)}) == 4


def test_the_box_of_a_referred_region_comes_from_the_question(make_sample: Make) -> None:
    sample = make_sample("REG-000000000", "a cat", question=f"What is in {BOX}?", size_px=(WIDTH_PX, HEIGHT_PX))
    assert labelled_boxes(sample, "text") == [("a cat", (0.25, 0.5, 0.5, 0.9))]
    assert painted_YX(drawn(sample))[100:181, 200].all()


def test_the_region_of_a_visual_search_is_yellow(make_sample: Make) -> None:
    size_px = (WIDTH_PX, HEIGHT_PX)
    for region in ((20.0, 30.0, 60.0, 70.0), (20.0, 30.0, float(WIDTH_PX), float(HEIGHT_PX))):
        pixels_YXC = drawn(make_sample("VISJ-000000000", "None", size_px=size_px, region_xyxy_px=region))
        x1, y1, x2, y2 = map(int, region)
        for edge in edges(pixels_YXC, x1, y1, min(x2, WIDTH_PX - 1), min(y2, HEIGHT_PX - 1)):
            assert (edge == (0xFF, 0xE1, 0x19)).all()


def test_bins_are_drawn_where_text_is(make_sample: Make) -> None:
    size_px = (WIDTH_PX, HEIGHT_PX)
    as_text = drawn(make_sample("DET-000000000", f"cat-{BOX}", size_px=size_px))
    bins = "cat-<bin_250><bin_500><bin_500><bin_900>"
    assert np.array_equal(drawn(make_sample("DET-000000000", bins, size_px=size_px), "bin"), as_text)


@pytest.mark.parametrize("key", ["LAZY-000000000", "DET-000000000"])
def test_without_boxes_the_image_is_as_it_was(make_sample: Make, key: str) -> None:
    assert not painted_YX(drawn(make_sample(key, "None", size_px=(WIDTH_PX, HEIGHT_PX)))).any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_are_drawn_on(make_sample: Make, mode: str) -> None:
    out = BytesIO()
    Image.new(mode, (WIDTH_PX, HEIGHT_PX)).save(out, "TIFF")
    sample = replace(make_sample("DET-000000000", f"cat-{BOX}"), image=out.getvalue())
    assert tuple(drawn(sample)[150, 200]) != tuple(drawn(sample)[150, 300])


def test_a_text_only_sample_is_refused(make_sample: Make) -> None:
    with pytest.raises(DataError, match="LAZY-000000000: has no image"):
        draw_sample(make_sample("LAZY-000000000", size_px=None), "text")


def test_an_image_that_does_not_decode_is_refused(make_sample: Make) -> None:
    sample = make_sample("DET-000000000", size_px=(WIDTH_PX, HEIGHT_PX))
    assert sample.image is not None
    for image in (sample.image[: len(sample.image) // 2], b"", b"no picture"):
        with pytest.raises(DataError, match="DET-000000000: its image does not decode"):
            draw_sample(replace(sample, image=image), "text")
