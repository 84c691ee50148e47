"""Rejects by reason, and statistics."""

import re
from typing import TYPE_CHECKING

import pytest

from .known import boxes_of

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site

BOXES = sum(len(boxes_of(record)) for record in range(80)) + 3


def test_rejects_by_reason_with_the_image_where_it_is_found(grid: "Page") -> None:
    grid.get_by_role("link", name="Rejects").click()
    rows = grid.get_by_role("list", name="rejected records").get_by_role("listitem")
    expect(rows).to_have_count(3)
    image = rows.first.get_by_role("img", name="image of record 900")
    assert image.evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 120
    expect(rows.nth(1)).to_contain_text("no image found")
    expect(rows.nth(1)).to_contain_text("<script>window.broken = 1</script>")
    grid.get_by_role("row", name=re.compile("VG_zoo")).get_by_role("link").click()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("gone.png: not there")
    grid.go_back()
    expect(rows).to_have_count(3)


def test_statistics_of_the_set_and_of_a_task(grid: "Page") -> None:
    grid.get_by_role("link", name="Statistics").click()
    expect(grid.get_by_role("heading", level=1)).to_have_text(re.compile("^Statistics of "))
    tiles = grid.locator(".tiles")
    expect(tiles).to_contain_text(re.compile(rf"boxes\s*{BOXES}"))
    expect(grid.get_by_role("img", name=re.compile("^box centres of all"))).to_be_visible()
    expect(grid.get_by_role("region", name="figures by task").get_by_role("row")).to_have_count(6)
    grid.get_by_label("Figures of").select_option("task:VG")
    expect(tiles).to_contain_text(re.compile(r"samples\s*2\D"))
    expect(grid).to_have_url(re.compile("group=task%3AVG"))


def test_a_bar_and_a_category_lead_to_their_samples(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?view=statistics")
    page.get_by_role("link", name=re.compile("^3 to below 5: 32$")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("32 samples")
    page.go_back()
    page.get_by_role("region", name="categories").get_by_role("link", name="red bird").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("32 samples")
    expect(page.get_by_role("checkbox", name="red bird")).to_be_checked()
