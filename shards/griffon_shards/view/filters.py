"""The URL's parameters as a checked choice of samples and their order."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from griffon_shards.support.errors import SettingsError
from griffon_shards.types import TASKS

SORTS = ("order", "key", "boxes", "length", "smallest", "area")
"""Orders of every set: as in the shards; by key, boxes, characters; by the smallest box, in percent and in px²."""
PREDICTION_SORTS = ("iou", "verdict")
"""Orders of a set with predictions, the worst first."""
VERDICTS = ("right", "wrong", "unparsed")
_MAX_TEXT_CHARS = 500
_MAX_VALUES = 100
_MAX_LIMIT = 200
_MAX_NUMBER = 1 << 62

Range = tuple[float, float]
"""The least and the largest value, both included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which samples of a set are shown, and in which order. Equal filters are equal keys of a dict.

    Attributes:
        sources: tags; a sample has one of them. Empty for all, as are the others.
        tasks: tasks; a sample is of one of them.
        categories: names; a sample has a box of one of them.
        ranges: a name of `RANGES`, and its bounds.
        text: words and "phrases" that questions and answers hold.
        verdict: one of `VERDICTS`, or empty.
        marked: only marked samples.
        random: seed of a random order, which replaces `sort`, or None.
        sort: one of `SORTS` or `PREDICTION_SORTS`.
        descending: the other way round.
    """

    sources: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    ranges: tuple[tuple[str, Range], ...] = field(default=())
    text: str = ""
    verdict: str = ""
    marked: bool = False
    random: int | None = None
    sort: str = "order"
    descending: bool = False


RANGES = ("boxes", "smallest", "width", "height", "length", "iou")
"""Boxes; area of the smallest box in percent of the image; image width and height in px; characters; IoU."""


class Parameters:
    """The parameters of a URL, read by name. Names that nobody asks for are the page's own."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name, []).append(value)

    def many(self, name: str) -> tuple[str, ...]:
        """All values that are not empty, each once."""
        values = tuple(dict.fromkeys(value for value in self._values.get(name, ()) if value))
        if len(values) > _MAX_VALUES:
            raise SettingsError(f"{name}: got {len(values)} values, at most {_MAX_VALUES} are allowed")
        return values

    def one(self, name: str) -> str:
        """The last value; empty without one."""
        return self._values.get(name, [""])[-1]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some words, or empty."""
        value = self.one(name)
        if value and value not in choices:
            raise SettingsError(f"{name}: expected one of {', '.join(choices)}, got {value!r:.100}")
        return value

    def flag(self, name: str) -> bool:
        """Whether the value is 1."""
        return self.choice(name, ("0", "1")) == "1"

    def integer(self, name: str, default: int, least: int = 0, most: int = _MAX_NUMBER) -> int:
        """A whole number between bounds."""
        value = self.one(name)
        if not value:
            return default
        if not (value.isascii() and value.isdecimal() and len(value) < 20 and least <= int(value) <= most):
            raise SettingsError(f"{name}: expected a whole number from {least} to {most}, got {value!r:.100}")
        return int(value)

    def range(self, name: str) -> Range | None:
        """`MIN-MAX`, `MIN-`, `-MAX`, or one number; None without a value."""
        value = self.one(name)
        if value in ("", "-"):
            return None
        low, dash, high = value.partition("-")
        try:
            bounds = float(low or "-inf"), float((high or "inf") if dash else low)
        except ValueError:
            bounds = math.nan, math.nan
        if any(map(math.isnan, bounds)):
            raise SettingsError(f"{name}: expected MIN-MAX, such as 3-5, 3- or -5, got {value!r:.100}")
        return bounds


def filters_of(parameters: Parameters, *, predictions: bool) -> Filters:
    """Read and check all filters.

    Args:
        parameters: of the URL.
        predictions: whether the set has predictions.

    Raises:
        SettingsError: a value is not what its parameter takes.
    """
    tasks = parameters.many("task")
    if unknown := [task for task in tasks if task not in TASKS]:
        raise SettingsError(f"task: expected one of {', '.join(TASKS)}, got {unknown[0]!r:.100}")
    text = parameters.one("q").strip()
    if len(text) > _MAX_TEXT_CHARS:
        raise SettingsError(f"q: got {len(text)} characters, at most {_MAX_TEXT_CHARS} are allowed")
    bounds = {name: parameters.range(name) for name in RANGES}
    verdict = parameters.choice("verdict", VERDICTS)
    if (verdict or bounds["iou"] is not None) and not predictions:
        raise SettingsError("verdict and iou need predictions; start griffon-shards view with --predictions FILE")
    return Filters(
        sources=parameters.many("source"),
        tasks=tasks,
        categories=parameters.many("category"),
        ranges=tuple((name, limits) for name, limits in bounds.items() if limits is not None),
        text=text,
        verdict=verdict,
        marked=parameters.flag("marked"),
        random=parameters.integer("random", 0) if parameters.one("random") else None,
        sort=parameters.choice("sort", (*SORTS, *(PREDICTION_SORTS if predictions else ()))) or "order",
        descending=parameters.flag("desc"),
    )


def page_of(parameters: Parameters, *, limit: int = 60) -> tuple[int, int]:
    """Offset and limit of a page. Raises SettingsError as `filters_of`."""
    return parameters.integer("offset", 0), parameters.integer("limit", limit, 0, _MAX_LIMIT)
