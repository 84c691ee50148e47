"""The figures of a set as one HTML file: no scripts, no addresses, nothing to load, so that it can be mailed.

Every text that comes from the set goes through `text`, and the page's policy forbids everything but its own style.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from griffon_shards.stats.figures import Category, Distribution, Figures, Group
from griffon_shards.stats.plots import heat_map, histogram, rank_plot
from griffon_shards.stats.wording import TITLES, box_sizes, long_tail, number, one_line
from griffon_shards.support.tables import counted

_NAME_CHARS = 120
_CATEGORIES = 25
_PAIRS = 25
_GROUPS = 200
_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c1e21; --soft: #5a6068; --line: #d5d9de; --ink: #1f5fbf;
  --field: #f1f3f6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --text: #e8eaed; --soft: #a4abb5; --line: #3a3f46; --ink: #7fb0ff; --field: #22262b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 16px; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 2em 0 0.5em; }
p { margin: 0.4em 0; max-width: 75ch; }
code { overflow-wrap: anywhere; font-size: 0.9em; }
.soft, figcaption { color: var(--soft); }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid var(--ink); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; min-width: 5em; max-width: 8em; }
section > .wide + .wide { margin-top: 1.5em; }
td.name, th.name { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 12em; max-width: 40em; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr)); gap: 20px; }
figure { margin: 0; }
figure h3 { font-size: 1em; margin: 0 0 4px; overflow-wrap: anywhere; }
figcaption { font-size: 0.87em; }
section > h3 { font-size: 1em; margin: 1.5em 0 0.5em; overflow-wrap: anywhere; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(240px, 100%), 1fr)); gap: 20px; }
.examples img { display: block; max-width: 100%; height: auto; }
.examples figcaption { overflow-wrap: anywhere; }
svg.plot { width: 100%; height: auto; }
svg.map { width: 100%; max-width: 320px; height: auto; }
svg text { font: 10px system-ui, sans-serif; fill: var(--soft); }
svg text.left { text-anchor: end; }
.bar { fill: var(--ink); }
.field { fill: var(--field); }
.axis { stroke: var(--soft); fill: none; }
.line { stroke: var(--ink); stroke-width: 2; fill: none; }
""" + "".join(f".heat{level} {{ fill: var(--ink); fill-opacity: {level / 8}; }}\n" for level in range(1, 9))
_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-"
    + b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    + "'"
)


def html_page(figures: Figures, name: str, more: str = "", after: str = "", *, with_images: bool = False) -> str:
    """The complete page.

    Args:
        figures: what it shows.
        name: the set's name, for the title.
        more: further sections as HTML, whose texts are escaped already; they stand before those of the figures.
        after: further sections that stand after them.
        with_images: allow images that are part of the page, as `data:` URLs.
    """
    title = f"{escape(one_line(name, _NAME_CHARS))}: statistics"
    policy = f"{_POLICY}; img-src data:" if with_images else _POLICY
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f'<p class="soft">set <code>{text(figures.digest)}</code></p>\n'
        f"{more}{sections(figures)}{after}</body>\n</html>\n"
    )


def sections(figures: Figures) -> str:
    """The sections of the page below its title, as HTML."""
    total = figures.total
    parts = [
        section(
            "Samples", _summary(total), _groups("task", (*figures.tasks, total)), _groups("source", figures.sources)
        )
    ]
    texts = ("question_chars", "answer_chars", "question_tokens", "answer_tokens", "turns")
    note = f"<p>Tokens are those of the tokenizer {text(figures.tokenizer)}.</p>" if figures.tokenizer else ""
    parts.append(section("Texts", note, _histograms(total, texts)))
    if total.boxes:
        plots = _histograms(total, ("boxes_per_sample", "box_area_share", "box_aspect"))
        parts.append(section("Boxes", f"<p>{_capital(box_sizes(total))}.</p>\n", plots))
        parts.append(section("Positions of boxes", _heat_maps(figures)))
    if figures.categories:
        parts.append(section("Categories", *_categories(figures)))
    if total.images:
        plots = _histograms(total, ("image_width_px", "image_height_px", "image_bytes"))
        parts.append(section("Images", _formats(total), plots, _repeated(figures), _shared(figures)))
    return "".join(parts)


def section(title: str, *parts: str) -> str:
    """A section of the page. Its parts are HTML."""
    return f"<section>\n<h2>{title}</h2>\n{''.join(parts)}</section>\n"


def _summary(total: Group) -> str:
    return (
        f"<p>{counted(total.samples, 'sample')}, {total.samples - total.images:,} of them without an image; "
        f"{counted(total.boxes, 'box', 'boxes')}; {counted(total.distinct_images, 'different image')}.</p>\n"
    )


def _groups(title: str, groups: Sequence[Group]) -> str:
    head = (
        *(title, "samples", "images", "different images", "boxes", "boxes a sample, median"),
        *("samples without a box", "categories", "question characters, median", "answer characters, median"),
    )
    rows = [
        (
            *(text(group.name), f"{group.samples:,}", f"{group.images:,}", f"{group.distinct_images:,}"),
            *(f"{group.boxes:,}", _median(group, "boxes_per_sample"), f"{group.without_boxes:,}"),
            *(f"{group.categories:,}", _median(group, "question_chars"), _median(group, "answer_chars")),
        )
        for group in groups[:_GROUPS]
    ]
    return table(f"Figures by {title}", head, rows) + _left_out(len(groups) - _GROUPS, "sources")


def _median(group: Group, name: str) -> str:
    values = group.distributions.get(name)
    return "–" if values is None else number(name, values.p50)


def _histograms(total: Group, names: Iterable[str]) -> str:
    figures = [_figure(name, total.distributions[name]) for name in names if name in total.distributions]
    return f'<div class="plots">\n{"".join(figures)}</div>\n'


def _figure(name: str, values: Distribution) -> str:
    shown = {"median": values.p50, "p90": values.p90, "p99": values.p99, "largest": values.most, "mean": values.mean}
    caption = ", ".join(f"{what} {number(name, value)}" for what, value in shown.items())
    plot = histogram(name, values)
    return f"<figure><h3>{_capital(TITLES[name])}</h3>{plot}<figcaption>{caption}</figcaption></figure>\n"


def _heat_maps(figures: Figures) -> str:
    maps = [
        f"<figure><h3>{text(group.name)}</h3>{heat_map(group.name, group.heat)}"
        f"<figcaption>{counted(group.boxes, 'box', 'boxes')}</figcaption></figure>\n"
        for group in (figures.total, *figures.tasks)
        if group.boxes
    ]
    return (
        "<p>Centres of all boxes, with every image stretched to a square. The strongest cell has the most.</p>\n"
        f'<div class="plots">\n{"".join(maps)}</div>\n'
    )


def _categories(figures: Figures) -> list[str]:
    note = f"<p>In DET and RANDDET, {long_tail(figures)}.</p>\n"
    plot = f"<figure><h3>Boxes by rank</h3>{rank_plot(figures.categories)}</figure>\n"
    if len(figures.categories) <= 2 * _CATEGORIES:
        tables = _category_table("category", figures.categories)
    else:
        tables = _category_table("most frequent", figures.categories[:_CATEGORIES])
        tables += _category_table("least frequent", figures.categories[-_CATEGORIES:])
    return [note, f'<div class="plots">\n{plot}{tables}</div>\n']


def _category_table(title: str, categories: Sequence[Category]) -> str:
    rows = [(text(item.name), f"{item.boxes:,}", f"{item.samples:,}") for item in categories]
    return table(f"Categories, {title}", (title, "boxes", "samples"), rows)


def _formats(total: Group) -> str:
    formats = ", ".join(f"{text(name)} {count:,}" for name, count in total.formats.items())
    images = counted(total.images, "sample")
    return f"<p>{images} with an image: {formats}. Different images: {total.distinct_images:,}.</p>\n"


def _repeated(figures: Figures) -> str:
    rows = [(text(image.first_key), f"{image.samples:,}") for image in figures.repeated_images]
    return table("Most repeated images", ("most repeated image, first in", "samples"), rows) if rows else ""


def _shared(figures: Figures) -> str:
    pairs = figures.shared_images
    rows = [(" and ".join(text(tag) for tag in pair.sources), f"{pair.images:,}") for pair in pairs[:_PAIRS]]
    if not rows:
        return ""
    return table("Images in several sources", ("in both", "images"), rows) + _left_out(len(pairs) - _PAIRS, "pairs")


def _left_out(number_of: int, what: str) -> str:
    if number_of <= 0:
        return ""
    return f'<p class="soft">and {number_of:,} more {what}; <code>griffon-shards stats --json</code> has all</p>\n'


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]], named: Sequence[int] = (0,)) -> str:
    """A table that can be scrolled sideways. Cells are HTML; the columns `named` hold text, the others numbers."""
    kinds = [' class="name"' if place in named else "" for place in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{cell}</th>' for kind, cell in zip(kinds, head, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0"><table>\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>\n"
    )


def text(text: str) -> str:
    """Text of a set as HTML: one line, escaped, and isolated from the direction of the text around it."""
    return f"<bdi>{escape(one_line(text, _NAME_CHARS))}</bdi>"
