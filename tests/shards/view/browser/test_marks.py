"""Samples that somebody doubts: marked, listed, changed and unmarked."""

import json
import re
from typing import TYPE_CHECKING

import pytest

from .known import HOSTILE

pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Site


def notes(site: "Site") -> dict[str, str]:
    lines = [json.loads(line) for line in site.marks.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: line["note"] for line in lines}


def test_a_sample_is_marked_changed_and_unmarked_by_keyboard(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?sample=7")
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000007")
    page.keyboard.press("m")
    expect(page.get_by_role("textbox", name="note")).to_be_focused()
    page.keyboard.type("the cat is a dog?")
    page.keyboard.press("Enter")
    expect(page.get_by_text("marked: the cat is a dog?")).to_be_visible()
    assert notes(site) == {"DET_zoo-000000007": "the cat is a dog?"}

    page.keyboard.press("g")
    card = page.get_by_role("link", name=re.compile("^DET_zoo-000000007,"))
    expect(card).to_contain_text("marked")
    page.get_by_role("link", name=re.compile("^DET_zoo-000000008,")).focus()
    page.keyboard.press("m")
    page.get_by_role("textbox", name="note").fill(HOSTILE.replace("\0", ""))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name=re.compile("^DET_zoo-000000008,"))).to_be_focused()
    expect(page.get_by_role("link", name=re.compile("^DET_zoo-000000008,"))).to_contain_text("marked")
    page.get_by_label("only marked samples").check()
    expect(page.locator(".card")).to_have_count(2)

    page.get_by_role("link", name="Marks").click()
    rows = page.get_by_role("list", name="marked samples").get_by_role("listitem")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("<script>")
    expect(page.get_by_text("--exclude-keys")).to_contain_text("zoo.marks.jsonl")
    page.get_by_role("button", name="edit the mark of DET_zoo-000000007").click()
    page.get_by_role("textbox", name="note").fill("it is a dog")
    page.keyboard.press("Enter")
    expect(rows.first).to_contain_text("it is a dog")
    page.get_by_role("button", name="remove the mark of DET_zoo-000000008").click()
    expect(rows).to_have_count(1)
    rows.get_by_role("link", name="DET_zoo-000000007").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000007")
    page.get_by_role("button", name="Edit mark").click()
    page.get_by_role("button", name="Remove mark").click()
    expect(page.get_by_role("button", name="Mark", exact=True)).to_be_visible()
    assert notes(site) == {}


def test_a_mark_that_is_not_saved_leaves_nothing(page: "Page", site: "Site") -> None:
    page.goto(f"{site.url}?sample=9")
    page.get_by_role("button", name="Mark", exact=True).click()
    page.keyboard.type("m n p ? /")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_have_text("DET_zoo-000000009")
    expect(page.get_by_role("button", name="Mark", exact=True)).to_be_focused()
    assert not site.marks.exists() or "DET_zoo-000000009" not in notes(site)
