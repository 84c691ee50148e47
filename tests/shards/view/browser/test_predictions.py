"""A model's answers beside the true ones."""

import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site

RIGHT, WRONG, UNPARSED = (f"DET_zoo-{record:09d}" for record in (1, 2, 3))


def wait_for(page: "Page", *keys: str) -> None:
    expect(page.locator(".card .key")).to_have_text(list(keys))


def test_the_worst_come_first(grid: "Page") -> None:
    grid.get_by_role("button", name="Worst first").click()
    expect(grid.locator(".card .key").first).to_have_text(UNPARSED)
    assert grid.locator(".card .key").all_inner_texts()[:3] == [UNPARSED, WRONG, RIGHT]
    badges = grid.locator(".card .badge")
    assert badges.all_inner_texts()[:3] == ["unparsed · IoU 0.00", "wrong · IoU 0.25", "right · IoU 1.00"]
    grid.get_by_label("Sort by").select_option("iou")
    grid.get_by_role("button", name="order: ascending").click()
    expect(grid.locator(".card .key").first).to_have_text(RIGHT)


def test_filters_by_verdict_and_iou(grid: "Page") -> None:
    for verdict, key in (("right", RIGHT), ("wrong", WRONG), ("unparsed", UNPARSED)):
        grid.get_by_label("Prediction", exact=True).select_option(verdict)
        wait_for(grid, key)
    grid.get_by_label("Prediction", exact=True).select_option("")
    expect(grid.locator(".card")).to_have_count(60)
    grid.get_by_label("IoU of the prediction: at least").fill("0.2")
    grid.get_by_label("IoU of the prediction: at least").press("Enter")
    wait_for(grid, RIGHT, WRONG)
    grid.get_by_label("IoU of the prediction: at most").fill("0.9")
    grid.get_by_label("IoU of the prediction: at most").press("Enter")
    wait_for(grid, WRONG)


def test_predicted_boxes_are_dashed_beside_the_true_ones(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?sample=2")
    predicted, true = page.locator("g.box.predicted"), page.locator("g.box.true")
    expect(predicted).to_have_count(2)
    expect(true).to_have_count(2)
    dashes = "group => getComputedStyle(group.querySelector('.line')).strokeDasharray"
    assert predicted.first.evaluate(dashes) != "none"
    assert true.first.evaluate(dashes) == "none"
    section = page.get_by_role("region", name="Prediction")
    expect(section).to_contain_text("wrong · IoU 0.25")
    predicted.last.focus()
    names = sorted(str(box.get_attribute("aria-label")) for box in predicted.all())
    assert names == ["cat, predicted, IoU 1.00", "dog, predicted, IoU 0.00"]
    section.locator(".box-text").last.hover()
    expect(page.locator("g.box.predicted.lit")).to_have_attribute("aria-label", "dog, predicted, IoU 0.00")
    page.keyboard.press("o")
    expect(page.locator("g.box.predicted:visible")).to_have_count(0)
    expect(page.locator("g.box.true:visible")).to_have_count(2)


def test_why_an_answer_was_not_parsed(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?sample=3")
    section = page.get_by_role("region", name="Prediction")
    expect(section).to_contain_text("no_box")
    expect(section).to_contain_text("I cannot say.")


def test_a_set_without_predictions_has_no_filter_for_them(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?set=1")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("9 samples"))
    expect(page.get_by_label("Prediction", exact=True)).to_have_count(0)
    expect(page.get_by_role("button", name="Worst first")).to_be_hidden()
