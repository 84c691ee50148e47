"""The names of figures, and how numbers and texts of a set are written for people."""

import unicodedata

from griffon_shards.stats.figures import Figures, Group
from griffon_shards.support.tables import counted

TITLES = {
    "turns": "turns a sample",
    "question_chars": "question, characters",
    "answer_chars": "answer, characters",
    "question_tokens": "question, tokens",
    "answer_tokens": "answer, tokens",
    "boxes_per_sample": "boxes a sample",
    "box_area_share": "box area, share of the image",
    "box_aspect": "box width / height",
    "image_width_px": "image width, px",
    "image_height_px": "image height, px",
    "image_bytes": "image file, bytes",
}
"""The titles of distributions."""
_UNSHOWABLE = ("Cc", "Cs", "Zl", "Zp")  # controls, among them escape and NUL; halves of pairs; separators of lines


def number(name: str, value: float) -> str:
    """A value of the distribution `name`, with at most three digits after the first if it is a fraction."""
    if name == "box_area_share":
        return f"{value * 100:.3g} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def box_sizes(group: Group) -> str:
    """The boxes of a group by area."""
    shares = ", ".join(f"{count:,} {size} ({count / group.boxes:.1%})" for size, count in group.box_sizes.items())
    flat = f"; {group.flat_boxes:,} without width or height" if group.flat_boxes else ""
    return f"boxes by area, with limits at 32² and 96² px: {shares}{flat}"


def long_tail(figures: Figures) -> str:
    """How the boxes of DET and RANDDET are spread over categories."""
    tail, (one, ten, hundred) = figures.long_tail, figures.long_tail.at_most.values()
    categories = counted(len(figures.categories), "category", "categories")
    return (
        f"{categories}: half of all boxes are in the {tail.half:,} most frequent, nine tenths in the "
        f"{tail.nine_tenths:,} most frequent; "
        f"{one:,} with 1 box, {ten:,} with at most 10, {hundred:,} with at most 100"
    )


def one_line(text: str, limit: int) -> str:
    """Text of an annotation as one line of at most `limit` characters, without control characters."""
    shown = " ".join(text[: 4 * limit].split())
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSHOWABLE else c for c in shown)
    return shown if len(shown) <= limit and len(text) <= 4 * limit else f"{shown[: limit - 1]}…"
