"""The page that `griffon-shards stats --html` writes: it holds the figures, loads nothing, and shows text as text."""

import re
import subprocess
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from griffon_shards.stats import SetCounts, count_set, html_page, make_figures
from griffon_shards.types import Sample

Cli = Callable[..., subprocess.CompletedProcess[str]]

VOID = {"meta"}
NASTY = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
ADDRESSES = {"href", "src", "style", "action", "srcset", "xlink:href"}


class Page(HTMLParser):
    """Reads a page and checks that every element is closed where it should be."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.policy = ""
        self.style = ""
        self.texts: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        fields = dict(attrs)
        if fields.get("http-equiv") == "Content-Security-Policy":
            self.policy = fields["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)


@pytest.fixture
def written(shards_cli: Cli, tmp_path: Path) -> Callable[[Path], str]:
    def write(root: Path) -> str:
        path = tmp_path / "page.html"
        result = shards_cli("stats", root, "--html", path, "--workers", 1)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.endswith(f"\nwrote {path}\n")
        return path.read_text(encoding="utf-8")

    return write


def test_the_page_holds_the_figures(frozen_set: Path, written: Callable[[Path], str]) -> None:
    content = written(frozen_set)
    page, figures = Page(content), count_set(frozen_set, workers=1)
    assert len(content.encode()) < 100_000
    texts = "".join(page.texts)
    assert f"{figures.total.samples} samples, {figures.total.samples - figures.total.images} of them" in texts
    assert all(text in page.texts for text in ("all", *(group.name for group in (*figures.sources, *figures.tasks))))
    assert figures.digest in page.texts
    for category in (figures.categories[0], figures.categories[-1]):
        row = rf"<bdi>{category.name}</bdi></td><td>{category.boxes}</td><td>{category.samples}</td>"
        assert re.search(row, content)
    bars = re.findall(r"<rect class=\"bar\".*?</rect>", content)
    assert len(bars) == sum(len(values.bins) for values in figures.total.distributions.values())
    heat_map = content.split('aria-label="box centres of all')[1].split("</svg>")[0]
    cells = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", heat_map)}
    assert cells == {(x, y) for y, row in enumerate(figures.total.heat) for x, count in enumerate(row) if count}


def test_the_page_loads_and_runs_nothing(frozen_set: Path, written: Callable[[Path], str]) -> None:
    page = Page(written(frozen_set))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a"}
    assert not page.attributes & ADDRESSES
    assert not any(name.startswith("on") for name in page.attributes)
    assert "url(" not in page.style
    assert "@import" not in page.style
    digest = b64encode(sha256(page.style.encode()).digest()).decode()
    assert page.policy == f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"


def test_text_of_annotations_stays_text(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], written: Callable[[Path], str]
) -> None:
    names = [NASTY, "a\0\x1b[31m\nb", "كلب\N{RIGHT-TO-LEFT OVERRIDE}", "长" * 1000, "javascript:alert(3)"]
    answer = "&".join(f"{name}-[0.100,0.100,0.{place}00,0.500]" for place, name in enumerate(names, 3))
    samples = [
        make_sample("DET_x-000000000", answer, question=NASTY),
        make_sample("LAZY_x-000000000", NASTY, question=f"<image>{NASTY}"),
    ]
    content = written(write_set(tmp_path / "<b>set & co", samples))
    page = Page(content)
    assert not page.tags & {"script", "img", "b"}
    assert NASTY in "".join(page.texts)
    assert page.texts.count("<b>set & co: statistics") == 2  # in the title and as the heading
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m b" in page.texts
    assert max(map(len, page.texts)) < 200
    assert "\0" not in content
    assert "\x1b" not in content


def test_the_terminal_gets_no_control_characters(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], shards_cli: Cli
) -> None:
    sample = make_sample("DET-000000000", "\x1b]0;gone\x07\x9b31m\ncat-[0.100,0.200,0.300,0.400]")
    shown = shards_cli("stats", write_set(tmp_path / "set", [sample])).stdout
    assert re.search(r"^ *1 +1  �\]0;gone��31m cat$", shown, re.MULTILINE)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)


def test_many_sources_categories_and_long_names_fit(make_sample: Callable[..., Sample]) -> None:
    tags = [f"DET_{'s' * 60}{i}" for i in range(250)]
    counts = SetCounts("text")
    for i, tag in enumerate(tags):
        names = [f"{'é' * 300}{i}-{j}" for j in range(50)]
        answer = "&".join(f"{name}-[0.1{j:02},0.100,0.9{j:02},0.900]" for j, name in enumerate(names))
        counts.add(make_sample(f"{tag}-000000000", answer, size_px=(9, 9)))
    content = html_page(make_figures(counts, [(tag, "DET") for tag in tags], digest="0"), "set")
    Page(content)
    assert len(content.encode()) < 1_000_000
    assert "In DET and RANDDET, 12,500 categories: half of all boxes are in the 6,250 most frequent" in content
    assert "and 50 more sources; <code>griffon-shards stats --json</code> has all" in content
    assert "and 31,100 more pairs; <code>griffon-shards stats --json</code> has all" in content
