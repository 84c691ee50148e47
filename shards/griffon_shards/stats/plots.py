"""Plots as SVG elements for the HTML page. They have classes, no styles and no scripts; the page has the colours."""

from collections.abc import Sequence
from html import escape
from math import log10

from griffon_shards.stats.figures import Category, Distribution
from griffon_shards.stats.wording import TITLES, number
from griffon_shards.support.tables import counted

_WIDTH, _HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 8, 20
_MOST_LABELS = 6
_HEAT_LEVELS = 8
_RANKS_PER_DECADE = 24


def histogram(name: str, values: Distribution) -> str:
    """The histogram of a distribution, whose name is one of `TITLES`. The bins widen with the values."""
    highest = max(item.count for item in values.bins)
    step = (_WIDTH - _LEFT - _RIGHT) / len(values.bins)
    bottom, room = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    every = -(-len(values.bins) // _MOST_LABELS)
    parts = []
    for place, item in enumerate(values.bins):
        x, height = _LEFT + place * step, max(item.count / highest * room, 1.0 if item.count else 0.0)
        label = f"{number(name, item.start)} to below {number(name, item.stop)}: {item.count:,}"
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{bottom - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
            f'height="{height:.1f}"><title>{escape(label)}</title></rect>'
        )
        if place % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 5}">{escape(number(name, item.start))}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom + 0.5}H{_WIDTH - _RIGHT}"/>')
    label = f"{TITLES[name]}: median {number(name, values.p50)}, largest {number(name, values.most)}"
    return _svg(label, parts)


def heat_map(name: str, heat: Sequence[Sequence[int]]) -> str:
    """A map of box centres: the darker a cell, the more."""
    highest = max(max(row) for row in heat)
    paths: list[list[str]] = [[] for _ in range(_HEAT_LEVELS)]
    for y, row in enumerate(heat):
        for x, count in enumerate(row):
            if count:
                paths[(count * _HEAT_LEVELS - 1) // highest].append(f"M{x} {y}h1v1h-1z")
    parts = [f'<rect class="field" width="{len(heat[0])}" height="{len(heat)}"/>']
    parts += [f'<path class="heat{level}" d="{"".join(path)}"/>' for level, path in enumerate(paths, 1) if path]
    label = f"box centres of {name}; the fullest cell has {highest:,}"
    return _svg(label, parts, width=len(heat[0]), height=len(heat), kind="map")


def rank_plot(categories: Sequence[Category]) -> str:
    """Boxes of each category by its rank, both axes logarithmic. `categories` descend."""
    ranks = _ranks(len(categories))
    widest, highest = max(log10(len(categories)), 0.01), max(log10(categories[0].boxes), 0.01)
    right, bottom = _WIDTH - _RIGHT - 20, _HEIGHT - _BOTTOM
    left = 34

    def x_of(rank: int) -> float:
        return left + (right - left) * log10(rank) / widest

    def y_of(boxes: int) -> float:
        return bottom - (bottom - _TOP) * log10(boxes) / highest

    points = " ".join(f"{x_of(rank):.1f},{y_of(categories[rank - 1].boxes):.1f}" for rank in ranks)
    parts = [f'<path class="axis" d="M{left} {_TOP}V{bottom}H{right}"/>', f'<polyline class="line" points="{points}"/>']
    parts += [f'<circle class="bar" cx="{x_of(ranks[0]):.1f}" cy="{y_of(categories[0].boxes):.1f}" r="2.5"/>']
    for power in (10**decade for decade in range(int(widest) + 1)):
        parts.append(f'<text x="{x_of(power):.1f}" y="{_HEIGHT - 5}">{power:,}</text>')
    for power in (10**decade for decade in range(int(highest) + 1)):
        parts.append(f'<text class="left" x="{left - 4}" y="{y_of(power) + 3:.1f}">{_short(power)}</text>')
    most, fewest = categories[0].boxes, categories[-1].boxes
    ranked = counted(len(categories), "category", "categories")
    return _svg(f"boxes of {ranked} by rank, from {most:,} to {fewest:,}", parts)


def _ranks(last: int) -> list[int]:
    """Ranks from 1 to `last`, about equally far apart on a logarithmic axis."""
    ranks, rank = [], 1.0
    while rank < last:
        ranks.append(int(rank))
        rank = max(rank + 1, rank * 10 ** (1 / _RANKS_PER_DECADE))
    return [*ranks, last]


def _short(power: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if power >= size:
            return f"{power // size}{unit}"
    return str(power)


def _svg(label: str, parts: Sequence[str], width: int = _WIDTH, height: int = _HEIGHT, kind: str = "plot") -> str:
    quoted = escape(label)
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{quoted}">{"".join(parts)}</svg>'
