"""Whatever annotations hold is text: nothing runs, nothing is loaded from elsewhere, and the layout holds."""

from typing import TYPE_CHECKING

import pytest

from .known import CHINESE, HOSTILE, LONG_NAME, LONG_TEXT, RIGHT_TO_LEFT

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from .conftest import Site

SHOWN = HOSTILE.replace("\0", "\u2400").replace("\x1b", "\u241b")


def wide(page: "Page") -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_the_grid_shows_hostile_texts_as_texts(page: "Page", site: "Site") -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{site.url}?set=1&labels=1")
    expect(page.locator(".card")).to_have_count(9)
    expect(page.locator(".card").first.locator(".label")).to_have_text(SHOWN)
    expect(page.locator(".card", has_text="DET_odd-000000009").locator(".error")).to_contain_text("DET_odd-000000009")
    assert not wide(page)
    assert page.locator("script").count() == 1
    assert all(url.startswith(site.url) for url in requests)


@pytest.mark.parametrize(("row", "text"), list(enumerate([SHOWN, LONG_NAME, RIGHT_TO_LEFT, CHINESE])))
def test_a_category_of_any_name(page: "Page", site: "Site", row: int, text: str) -> None:
    page.goto(f"{site.url}?set=1&sample={row}")
    span = page.locator(".box-text")
    expect(span).to_have_text(f"{text}-[0.100,0.100,0.500,0.500]")
    span.hover()
    expect(page.locator(".label.lit")).to_have_text(text)
    frame, label = page.locator(".viewport").bounding_box(), page.locator(".label.lit").bounding_box()
    assert frame is not None
    assert label is not None
    assert label["width"] <= frame["width"]
    assert label["height"] <= 200
    assert not wide(page)


def test_a_very_long_text_is_in_a_box_that_scrolls(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?set=1&sample=6")
    text = page.locator(".turn.gpt .text")
    expect(text).to_have_text(LONG_TEXT)
    assert text.evaluate("node => node.scrollHeight > node.clientHeight && node.scrollWidth <= node.clientWidth")
    assert not wide(page)
    text.focus()
    page.keyboard.press("PageDown")
    page.wait_for_function("node => node.scrollTop > 0", arg=text.element_handle())
    page.goto(f"{site.url}?set=1&sample=7")
    assert page.locator(".turn.human .text").evaluate("node => getComputedStyle(node).direction") == "rtl"
    expect(page.locator(".turn.gpt .text")).to_have_text(CHINESE * 200)


def test_a_damaged_sample_shows_its_error_in_its_place(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?set=1")
    card = page.locator(".card", has_text="LAZY_odd-000000003")
    expect(card.locator(".error")).to_contain_text("LAZY_odd-000001.tar")
    card.click()
    expect(page.get_by_role("alert")).to_contain_text("LAZY_odd-000001.tar")
    page.keyboard.press("p")
    expect(page.locator(".turn.gpt")).to_contain_text(CHINESE)


def test_an_image_that_does_not_decode_shows_why(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?set=1&sample=4")
    expect(page.locator(".stage .error")).to_contain_text("DET_odd-000000009")
    expect(page.locator(".turn.gpt .box-text")).to_have_count(1)


def test_hostile_addresses_search_and_filters(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?set=1&q=%3Cimg%20src%3Dx%20onerror%3Dwindow.broken%3D1%3E&view=%22%3E&sort=key")
    expect(page.locator(".chip")).to_contain_text("<img src=x onerror=window.broken=1>")
    page.goto(f"{site.url}?set=1&sample=javascript:alert(1)")
    expect(page.get_by_role("alert")).to_contain_text("javascript:alert(1)")
    page.goto(f"{site.url}?set=1")
    group = page.get_by_role("group", name="Category")
    group.locator("label", has_text="nnnn").get_by_role("checkbox").check()
    expect(page.locator(".card")).to_have_count(1)
    assert not wide(page)


def test_inline_script_and_other_hosts_are_refused_by_the_policy(context: "BrowserContext", site: "Site") -> None:
    page = context.new_page()
    page.goto(site.url)
    refused = page.evaluate(
        "async () => {"
        "  const seen = [];"
        "  document.addEventListener('securitypolicyviolation', event => seen.push(event.effectiveDirective));"
        "  document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.broken = 1'}));"
        "  document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.2:9/x.png'}));"
        "  await fetch('http://127.0.0.2:9/').catch(() => null);"
        "  while (seen.length < 3) await new Promise(resolve => setTimeout(resolve, 10));"
        "  return seen.sort();"
        "}"
    )
    assert refused == ["connect-src", "img-src", "script-src-elem"]
    assert page.evaluate("window.broken") is None
    page.close()
