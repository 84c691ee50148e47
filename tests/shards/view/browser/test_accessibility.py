"""Names, roles and contrast by axe-core, and layout at the narrowest and the widest window; light and dark."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")
VIEWS = {
    "grid": ("?labels=1&boxes=4-", ".card g.box"),
    "filtered": ("?q=number17&task=DET&boxes=1-4", ".chip"),
    "empty": ("?q=nothing", ".cards .notice"),
    "sample": ("?sample=4", ".panel .command"),
    "prediction": ("?sample=2&box=t1.0", ".turn.predicted"),
    "region": ("?sample=82", ".crop img"),
    "conversation": ("?sample=84", ".turn"),
    "hostile": ("?set=1&labels=1", ".card g.box"),
    "long text": ("?set=1&sample=6", ".turn"),
    "marks": ("?view=marks", ".prose code"),
    "rejects": ("?view=rejects", ".rejects li"),
    "statistics": ("?view=statistics", ".plots .map"),
}


def findings(page: "Page") -> list[dict[str, Any]]:
    """Serious and critical findings of axe-core."""
    page.evaluate(AXE)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        {"id": item["id"], "nodes": [(node["html"][:200], node["failureSummary"]) for node in item["nodes"]]}
        for item in result["violations"]
        if item["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_no_serious_finding_in_light_and_dark(page: "Page", site: "Site", view: str) -> None:
    address, sign = VIEWS[view]
    page.goto(site.url + address)
    page.locator(sign).first.wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert findings(page) == [], scheme
    page.emulate_media(color_scheme="light")


def test_dialogs_have_no_serious_finding(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?sample=4")
    page.locator(".turn").first.wait_for()
    for key in ("?", "m"):
        page.keyboard.press(key)
        page.get_by_role("dialog").wait_for()
        assert findings(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("width", [400, 2560])
def test_every_view_fits_the_window(page: "Page", site: "Site", width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for view, (address, sign) in VIEWS.items():
        page.goto(site.url + address)
        page.locator(sign).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    page.set_viewport_size({"width": 1280, "height": 900})


def test_every_control_of_the_grid_is_reached_by_the_tab_key(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?q=number17")
    expect(page.locator(".card")).to_have_count(1)
    page.locator("body").press("Tab")
    reached = set()
    for _ in range(60):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert page.evaluate("document.activeElement.matches('body, :focus-visible')")
        page.keyboard.press("Tab")
    filters = ("task-DET", "category-search", "boxes-min", "iou-max", "verdict", "marked", "clear-filters")
    tools = ("sort", "desc", "worst", "shuffle", "size")
    assert {"skip", "home", "search", "view-statistics", *filters, *tools, "sample-0-17"} <= reached
