"""The names of figures, and how numbers and texts of a set are written for people."""

import unicodedata

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


def one_line(text: str, limit: int) -> str:
    """Text of an annotation as one line of at most `limit` characters, without control characters."""
    shown = " ".join(text[: 4 * limit].split())
    shown = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in _UNSHOWABLE else c for c in shown)
    return shown if len(shown) <= limit and len(text) <= 4 * limit else f"{shown[: limit - 1]}…"
