"""Each filter as a person sets it; the address and the chips that follow."""

import re
from typing import TYPE_CHECKING

import pytest

from .known import boxes_of

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site

BOXED = {record: len(boxes_of(record)) for record in range(80)}


def wait_for(page: "Page", samples: int) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(rf"^{samples} samples?$"))


def test_task_and_source(grid: "Page") -> None:
    filters = grid.get_by_role("form", name="filters")
    filters.get_by_label("VISJ", exact=False).first.check()
    wait_for(grid, 1)
    filters.get_by_role("group", name="Task").get_by_label("REG").check()
    wait_for(grid, 2)
    grid.get_by_role("button", name="remove the filter task: VISJ").click()
    wait_for(grid, 1)
    expect(filters.get_by_role("group", name="Task").get_by_label("VISJ")).not_to_be_checked()
    grid.get_by_role("button", name="Clear filters").click()
    wait_for(grid, 85)
    filters.get_by_role("group", name="Source").get_by_label("LAZY_talk").check()
    wait_for(grid, 1)
    expect(grid.locator(".card .key")).to_have_text("LAZY_talk-000000000")


def test_category_is_found_by_its_first_letters(grid: "Page") -> None:
    category = grid.get_by_role("group", name="Category")
    expect(category.get_by_role("checkbox").first).to_be_visible()
    category.get_by_label("Find a category").press_sequentially("red")
    expect(category.get_by_role("checkbox")).to_have_count(1)
    grid.keyboard.press("Enter")
    wait_for(grid, sum(count >= 3 for count in BOXED.values()))
    expect(grid).to_have_url(re.compile(r"category=red\+bird"))
    category.get_by_label("Find a category").fill("dog")
    category.get_by_role("checkbox", name="dog").check()
    wait_for(grid, sum(count >= 2 for count in BOXED.values()))


@pytest.mark.parametrize(
    ("name", "least", "most", "samples"),
    [
        ("Number of boxes", "3", "", sum(count >= 3 for count in BOXED.values())),
        ("Number of boxes", "", "0", sum(count == 0 for count in BOXED.values()) + 2),
        ("Image width, px", "300", "309", 10),
        ("Image height, px", "300", "300", 4),
        ("Question and answer, characters", "0", "80", None),
        ("Smallest box, % of the image", "15", "", 2),
    ],
)
def test_ranges(grid: "Page", name: str, least: str, most: str, samples: int | None) -> None:
    wait_for(grid, 85)
    if least:
        grid.get_by_label(f"{name}: at least").fill(least)
        grid.keyboard.press("Tab")
    if most:
        grid.get_by_label(f"{name}: at most").fill(most)
        grid.keyboard.press("Enter")
    if samples is None:
        expect(grid.get_by_role("heading", level=1)).not_to_have_text("85 samples")
    else:
        wait_for(grid, samples)
    expect(grid.locator(".chip")).to_have_count(1)
    grid.go_back()
    if least and most:
        grid.go_back()
    wait_for(grid, 85)


def test_filters_are_set_from_a_link(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?task=DET&boxes=2-3&category=dog&width=-340&sort=boxes&desc=1")
    wait_for(page, sum(2 <= count <= 3 and record <= 40 for record, count in BOXED.items()))
    expect(page.get_by_role("group", name="Task").get_by_label("DET")).to_be_checked()
    expect(page.get_by_label("Number of boxes: at least")).to_have_value("2")
    expect(page.get_by_label("Number of boxes: at most")).to_have_value("3")
    expect(page.get_by_label("Image width, px: at most")).to_have_value("340")
    expect(page.get_by_role("checkbox", name="dog")).to_be_checked()
    expect(page.get_by_label("Sort by")).to_have_value("boxes")
    expect(page.get_by_role("button", name="order: descending")).to_be_visible()


def test_next_and_previous_stay_within_the_filter(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?boxes=4-")
    page.get_by_role("link", name=re.compile("^DET_zoo-000000009,")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000009")
    page.get_by_role("link", name="next sample").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000014")
    expect(page.get_by_role("link", name="next sample")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000019")
    page.keyboard.press("p")
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000014")


def test_an_address_that_makes_no_sense_says_so(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?task=NOTHING")
    expect(page.locator(".cards .error")).to_contain_text("NOTHING")
    page.goto(f"{site.url}?sample=999999")
    expect(page.get_by_role("alert")).to_contain_text("999999")
    page.goto(f"{site.url}?set=7")
    expect(page.get_by_role("alert")).to_contain_text("there is no set 7")
    page.get_by_role("link", name="all samples").click()
    wait_for(page, 85)
