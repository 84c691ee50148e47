"""The page of a sample: boxes and their texts, zoom, variants, the crop, and the command."""

import json
import re
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from .known import GREY, boxes_of

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from .conftest import Site

TWO_BOXES, FOUR_BOXES, VARIANTS, REGION, REFERRED, CONVERSATION = 2, 4, 80, 82, 83, 84


def open_sample(page: "Page", site: "Site", row: int, more: str = "") -> None:
    page.goto(f"{site.url}?sample={row}{more}")
    expect(page.locator(".panel .turn").first).to_be_visible()


def lit(page: "Page", where: str) -> "Locator":
    return page.locator(f"{where}.lit")


def test_hovering_a_text_lights_its_box_and_the_other_way_round(page: "Page", site: "Site") -> None:
    open_sample(page, site, FOUR_BOXES, "&hide=predicted")
    texts = page.locator(".turn.gpt .box-text")
    expect(texts).to_have_count(4)
    assert texts.all_inner_texts() == boxes_of(FOUR_BOXES)
    for place in (0, 3):
        texts.nth(place).hover()
        expect(lit(page, "g.box")).to_have_count(1)
        link = texts.nth(place).get_attribute("data-link")
        expect(lit(page, "g.box")).to_have_attribute("data-link", str(link))
        page.locator(f"g.box[data-link='{link}']").hover()
        expect(lit(page, ".box-text")).to_have_text(boxes_of(FOUR_BOXES)[place])
    page.mouse.move(0, 0)
    expect(lit(page, ".box-text")).to_have_count(0)
    page.get_by_role("button", name="cat × 2").hover()
    expect(lit(page, "g.box")).to_have_count(2)


def test_boxes_and_texts_are_reached_by_keyboard(page: "Page", site: "Site") -> None:
    open_sample(page, site, FOUR_BOXES)
    page.locator(".turn.gpt .box-text").first.focus()
    page.keyboard.press("ArrowRight")
    expect(lit(page, ".box-text")).to_have_text(boxes_of(FOUR_BOXES)[1])
    expect(lit(page, "g.box")).to_have_attribute("aria-label", "dog")
    expect(page.locator(".label.lit")).to_have_text("dog")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"box=t1\.3"))
    page.reload()
    expect(lit(page, ".box-text")).to_have_text(boxes_of(FOUR_BOXES)[3])
    page.locator("g.box").first.focus()
    page.keyboard.press("Home")
    assert len(lit(page, "g.box").all()) == 2


def drawn_edges(page: "Page", row: list[float]) -> list[float]:
    """Where the lines of the only box are in a screenshot of the image: left, top, right, bottom, in CSS pixels.

    `row` is the box as fractions: the lines are looked for across its middle.
    """
    pixels = np.asarray(Image.open(BytesIO(page.locator(".stage").screenshot())).convert("RGB")).astype(int)
    differs = np.abs(pixels - np.array([int(GREY[i : i + 2], 16) for i in (1, 3, 5)])).max(axis=2) > 24
    differs[:2] = differs[-2:] = differs[:, :2] = differs[:, -2:] = False  # a part of a pixel at the image's edge
    height, width = differs.shape
    across = np.flatnonzero(differs[round((row[1] + row[3]) / 2 * height)])
    down = np.flatnonzero(differs[:, round((row[0] + row[2]) / 2 * width)])
    middles = []
    for places, middle in ((across, (row[0] + row[2]) / 2 * width), (down, (row[1] + row[3]) / 2 * height)):
        middles += [(places[places < middle]).mean() + 0.5, (places[places > middle]).mean() + 0.5]
    left, right, top, bottom = (float(value) for value in middles)
    return [left, top, right, bottom]


@pytest.mark.parametrize("keys", ["1", "0", "1++", "0-"], ids=["actual", "fit", "larger", "smaller"])
def test_a_box_is_drawn_where_the_answer_has_it_to_one_pixel(page: "Page", site: "Site", keys: str) -> None:
    open_sample(page, site, 81, "&labels=0")
    box = [0.5, 0.5, 0.9, 0.9]
    expect(page.locator(".turn.gpt .box-text")).to_have_text("the tiger-[0.500,0.500,0.900,0.900]")
    for key in keys:
        page.keyboard.press(key)
    page.mouse.move(0, 0)
    stage, frame = page.locator(".stage").bounding_box(), page.locator(".viewport").bounding_box()
    assert stage is not None
    assert frame is not None
    if keys == "1":
        assert (stage["width"], stage["height"]) == (400, 300)
    assert frame["x"] <= stage["x"]
    assert stage["x"] + stage["width"] <= frame["x"] + frame["width"] + 1
    sides = (stage["width"], stage["height"]) * 2
    expected = [value * side for value, side in zip(box, sides, strict=True)]
    assert drawn_edges(page, box) == pytest.approx(expected, abs=1)


def test_zoom_by_wheel_keys_and_buttons_is_in_the_address(page: "Page", site: "Site") -> None:
    open_sample(page, site, FOUR_BOXES)
    percent = page.get_by_label("zoom", exact=True)
    fitted = percent.inner_text()
    page.get_by_role("button", name="1:1").click()
    expect(percent).to_have_text("100 %")
    page.locator(".viewport").hover()
    page.mouse.wheel(0, -1500)
    expect(percent).not_to_have_text("100 %")
    expect(page).to_have_url(re.compile(r"zoom=\d"))
    wheeled = percent.inner_text()
    page.reload()
    expect(percent).to_have_text(wheeled)
    page.keyboard.press("-")
    expect(percent).not_to_have_text(wheeled)
    page.keyboard.press("0")
    expect(percent).to_have_text(fitted)
    expect(page).not_to_have_url(re.compile("zoom="))


def test_a_zoomed_image_is_moved_by_dragging_and_by_arrow_keys(page: "Page", site: "Site") -> None:
    open_sample(page, site, FOUR_BOXES)
    for _ in range(6):
        page.get_by_role("button", name="zoom in").click()
    stage, frame = page.locator(".stage"), page.locator(".viewport").bounding_box()
    assert frame is not None

    def corner() -> tuple[float, float]:
        box = stage.bounding_box()
        assert box is not None
        return box["x"], box["y"]

    left, top = corner()
    middle = (frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 30, middle[1] + 20, steps=4)
    page.mouse.up()
    assert corner() == pytest.approx((left + 30, top + 20), abs=2)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000004")
    assert corner() == pytest.approx((left + 30 - 80, top + 20), abs=2)
    page.keyboard.press("n")
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000005")


def test_boxes_and_labels_can_be_hidden(page: "Page", site: "Site") -> None:
    open_sample(page, site, FOUR_BOXES)
    expect(page.locator("g.box.true:visible")).to_have_count(4)
    page.keyboard.press("b")
    expect(page.locator("g.box.true:visible")).to_have_count(0)
    expect(page).to_have_url(re.compile("hide=boxes"))
    page.get_by_role("button", name="Boxes").click()
    expect(page.locator(".label.true:visible")).to_have_count(4)
    page.keyboard.press("l")
    expect(page.locator(".label.true:visible")).to_have_count(0)


def test_all_variants(page: "Page", site: "Site") -> None:
    open_sample(page, site, VARIANTS)
    expect(page.locator(".turn.gpt")).to_contain_text("the quiet cat-[0.100,0.100,0.400,0.600]")
    page.get_by_role("navigation", name="variants").get_by_role("link", name="1").click()
    expect(page.locator(".turn.gpt")).to_contain_text("the cat, quietly-[0.100,0.100,0.400,0.600]")
    expect(page).to_have_url(re.compile("variant=1"))
    page.keyboard.press("v")
    expect(page.locator(".turn.gpt")).to_contain_text("the quiet cat-")


def test_the_crop_of_visual_search(page: "Page", site: "Site") -> None:
    open_sample(page, site, REGION)
    crop = page.get_by_role("img", name="the region that the question points at")
    expect(crop).to_be_visible()
    sides = "async image => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
    assert crop.evaluate(sides) == [120, 150]
    expect(page.locator("g.box.region")).to_have_count(1)
    crop.hover()
    expect(lit(page, "g.box.region")).to_have_count(1)


def test_the_box_that_is_referred_to_is_in_the_question(page: "Page", site: "Site") -> None:
    open_sample(page, site, REFERRED)
    page.locator(".turn.human .box-text").hover()
    expect(lit(page, "g.box")).to_have_count(1)
    expect(page.locator(".turn.gpt")).to_contain_text("the parrot on the left")


def test_a_sample_without_an_image_is_a_conversation(page: "Page", site: "Site") -> None:
    open_sample(page, site, CONVERSATION)
    turns = page.locator(".turn")
    expect(turns).to_have_count(4)
    texts = [turn.split("\n")[-1] for turn in turns.all_inner_texts()]
    assert texts == ["What is this?", "A zoo.", "And that?", "Another zoo."]
    expect(page.locator(".image-view")).to_be_hidden()


def test_where_it_lies_and_how_the_terminal_shows_it(page: "Page", site: "Site") -> None:
    open_sample(page, site, TWO_BOXES)
    command = page.locator(".command code").inner_text()
    assert re.fullmatch(r"griffon-shards show \S+/zoo DET_zoo-000000002 --draw DET_zoo-000000002.png", command)
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command
    facts = page.get_by_role("region", name="Origin")
    for text in ("DET_zoo/DET_zoo-000001.tar", "offset", "注释/det.jsonl", "record"):
        expect(facts).to_contain_text(text)
    page.get_by_text("as stored in the shard").click()
    shown = json.loads(page.locator(".json pre").inner_text())
    assert shown["conversations"][1]["value"] == "&".join(boxes_of(TWO_BOXES))
