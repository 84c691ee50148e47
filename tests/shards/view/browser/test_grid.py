"""The grid as a person uses it: pages, labels, sort, search, random order, back and forward."""

import re
from typing import TYPE_CHECKING

import pytest

from .known import boxes_of

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site

SAMPLES = 85


def keys(page: "Page") -> list[str]:
    return page.locator(".card .key").all_inner_texts()


def wait_for(page: "Page", samples: int) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(rf"^{samples} samples?$"))


def test_the_grid_shows_every_sample_with_the_boxes_of_its_answer(grid: "Page") -> None:
    wait_for(grid, SAMPLES)
    expect(grid.locator(".card")).to_have_count(60)
    for record in range(6):
        card = grid.get_by_role("link", name=re.compile(rf"^DET_zoo-{record:09d},"))
        expect(card.locator("g.box.true")).to_have_count(len(boxes_of(record)))
    grid.get_by_role("link", name="next page").click()
    expect(grid.locator(".card")).to_have_count(SAMPLES - 60)
    expect(grid.locator(".card").last).to_contain_text("LAZY_talk-000000000")
    grid.go_back()
    expect(grid.locator(".card")).to_have_count(60)
    grid.go_forward()
    expect(grid.locator(".card")).to_have_count(SAMPLES - 60)


def test_a_box_shows_its_label_when_it_is_hovered(grid: "Page") -> None:
    card = grid.locator(".card").nth(2)
    box = card.locator("g.box.true").last
    expect(card.locator(".label:visible")).to_have_count(0)
    box.hover()
    expect(card.locator(".label:visible")).to_have_count(1)
    assert card.locator(".label:visible").inner_text() in ("cat", "dog")
    grid.mouse.move(0, 0)
    expect(card.locator(".label:visible")).to_have_count(0)
    grid.keyboard.press("l")
    expect(grid).to_have_url(re.compile("labels=1"))
    expect(grid.locator(".card").nth(2).locator(".label.true:visible")).to_have_count(2)


def test_categories_have_the_same_colour_everywhere(grid: "Page") -> None:
    colour = "getComputedStyle({}.querySelector('.line')).stroke"
    grid.locator(".card").nth(4).locator("g.box").first.wait_for()
    by_label = grid.evaluate(
        "() => [...document.querySelectorAll('.card .overlay')].flatMap(overlay => {"
        "  const labels = overlay.querySelectorAll('.label'), boxes = overlay.querySelectorAll('g.box');"
        f"  return [...boxes].map((box, i) => [labels[i].textContent.split(',')[0], {colour.format('box')}]);"
        "})"
    )
    colours = {label: {colour for other, colour in by_label if other == label} for label, _ in by_label}
    assert sorted(colours) == ["cat", "dog", "red bird"]
    assert all(len(own) == 1 for own in colours.values())
    assert len(set.union(*colours.values())) == 3


def test_samples_are_sorted(grid: "Page") -> None:
    wait_for(grid, SAMPLES)
    grid.get_by_label("Sort by").select_option("boxes")
    expect(grid).to_have_url(re.compile(r"sort=boxes"))
    expect(grid.locator(".card").first).not_to_contain_text("DET_zoo-000000004")
    grid.get_by_role("button", name="order: ascending").click()
    expect(grid.locator(".card g.box.true").nth(3)).to_be_attached()
    expect(grid.locator(".card").first.locator("g.box.true")).to_have_count(4)
    grid.get_by_label("Sort by").select_option("key")
    expect(grid.locator(".card .key").first).to_have_text("DET_zoo-000000000")


def test_search_finds_questions_and_answers(grid: "Page", site: "Site") -> None:
    wait_for(grid, SAMPLES)
    grid.keyboard.press("/")
    grid.keyboard.type("number17")
    wait_for(grid, 1)
    expect(grid.locator(".card .key")).to_have_text(["DET_zoo-000000017"])
    expect(grid).to_have_url(re.compile("q=number17"))
    grid.get_by_label("Search questions and answers").fill('"another zoo"')
    expect(grid.locator(".card .key")).to_have_text(["LAZY_talk-000000000"])
    grid.get_by_label("Search questions and answers").fill('"')
    expect(grid.locator(".cards .error")).to_be_visible()
    grid.get_by_label("Search questions and answers").fill("nothing has this word")
    expect(grid.get_by_text("No sample matches these filters.")).to_be_visible()
    grid.get_by_role("button", name="remove the filter search: nothing has this word").click()
    wait_for(grid, SAMPLES)
    grid.goto(f"{site.url}?q=tiger")
    wait_for(grid, 1)
    expect(grid.get_by_label("Search questions and answers")).to_have_value("tiger")


@pytest.mark.parametrize("name", ["nothing", "constructor", "__proto__"])
def test_an_unknown_view_is_the_grid(grid: "Page", site: "Site", name: str) -> None:
    grid.goto(f"{site.url}?view={name}")
    expect(grid.locator(".card")).to_have_count(60)


def test_a_random_order_is_named_by_its_seed(grid: "Page", site: "Site") -> None:
    wait_for(grid, SAMPLES)
    grid.get_by_role("button", name="Random", exact=True).click()
    expect(grid).to_have_url(re.compile(r"random=\d+"))
    expect(grid.get_by_role("button", name=re.compile(r"^Random, seed \d+$"))).to_be_visible()
    wait_for(grid, SAMPLES)
    first, url = keys(grid), grid.url
    assert first != sorted(first)
    grid.keyboard.press("r")
    expect(grid).not_to_have_url(url)
    grid.goto(site.url)
    grid.goto(url)
    expect(grid.locator(".card .key")).to_have_text(first)


def test_keys_move_open_and_come_back(grid: "Page") -> None:
    wait_for(grid, SAMPLES)
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp"):
        grid.keyboard.press(key)
    focused = grid.locator(".card:focus")
    expect(focused.locator(".key")).to_have_text("DET_zoo-000000001")
    grid.keyboard.press("Enter")
    expect(grid.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000001")
    grid.keyboard.press("ArrowRight")
    expect(grid.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000002")
    grid.keyboard.press("Escape")
    expect(grid.locator(".card:focus .key")).to_have_text("DET_zoo-000000002")
    grid.keyboard.press("n")
    expect(grid.locator(".card")).to_have_count(SAMPLES - 60)
    grid.keyboard.press("?")
    expect(grid.get_by_role("dialog", name="Keys")).to_contain_text("mark the sample, with a note")
    grid.keyboard.press("Escape")
    expect(grid.get_by_role("dialog")).to_have_count(0)


def test_back_returns_to_where_the_grid_was(grid: "Page") -> None:
    wait_for(grid, SAMPLES)
    card = grid.locator(".card").nth(50)
    card.scroll_into_view_if_needed()
    before = grid.evaluate("scrollY")
    assert before > 0
    card.click()
    expect(grid.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000050")
    grid.wait_for_function("scrollY === 0")
    grid.go_back()
    expect(grid.locator(".card")).to_have_count(60)
    grid.wait_for_function("y => Math.abs(scrollY - y) < 2", arg=before)


def test_the_other_set_is_chosen_by_its_name(grid: "Page") -> None:
    wait_for(grid, SAMPLES)
    grid.get_by_label("set", exact=True).select_option("1")
    wait_for(grid, 9)
    expect(grid).to_have_url(re.compile(r"\?set=1$"))
    grid.go_back()
    wait_for(grid, SAMPLES)
