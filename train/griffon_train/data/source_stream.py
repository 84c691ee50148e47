"""Runs: a source as an endless row of keyed passes over its rows, cut into epochs by its weight; and their groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.permutation import permutation_key, permute
from griffon_shards.support.errors import SettingsError

GROUPINGS: dict[str, tuple[str, ...]] = {
    "none": ("all",),
    "modality": ("text", "image"),
    "task": ("text", "general", "localization", "referring"),
}
"""How rows are grouped into batches, and the groups there may be, in order."""

_REFERRING = "VISJ"
_TALK = "LAZY"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceStream:
    """The passes over one source, or over those rows of one that are of one group.

    Attributes:
        set_no: place of its set in the plan.
        set_digest: keys the passes, with the tag.
        tag: of the source.
        group: that its rows are of.
        weight: passes an epoch.
        variants: renderings that each row has; pass p shows rendering p mod that.
        first_row: of the set.
        count: rows of the run.
        picked: these rows, counted from `first_row`, where they are not all that follow it; shape [count].
    """

    set_no: int
    set_digest: str
    tag: str
    group: str
    weight: Fraction
    variants: int
    first_row: int
    count: int
    picked: NDArray[np.uint32] | None

    def first_place(self, epoch: int) -> int:
        """Where in the run an epoch begins: ⌊epoch · weight · rows⌋."""
        return epoch * self.weight.numerator * self.count // self.weight.denominator

    def rows(self, places: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the set, and variants, at some places of the run; shapes as `places`."""
        passes, within = np.divmod(places, self.count)
        found = np.empty_like(places)
        for number in np.unique(passes).tolist():
            mine = passes == number
            parts = (self.group,) if self.picked is not None else ()
            key = permutation_key("pass", seed, self.set_digest, self.tag, number, *parts)
            found[mine] = permute(within[mine], self.count, key)
        if self.picked is not None:
            found = self.picked[found].astype(np.int64)
        return found + self.first_row, passes % self.variants


@dataclass(frozen=True, slots=True, kw_only=True)
class Shows:
    """What there is in the samples of some sets.

    Attributes:
        words: any has words alone.
        pictures: any has a picture.
        regions: any has a region, which `<region>` stands for.
    """

    words: bool
    pictures: bool
    regions: bool

    @classmethod
    def of(cls, sets: Sequence[FrozenSet]) -> "Shows":
        """As the locks say; where talk may be with or without pictures, as the indexes do."""
        words = pictures = regions = False
        for each in sets:
            for source in each.lock.sources:
                rows = each.rows_of_source(source.tag)
                pictured = int(np.count_nonzero(_pictured(each, rows))) if source.task == _TALK else len(rows)
                words, pictures = words or pictured < len(rows), pictures or pictured > 0
                regions = regions or (source.task == _REFERRING and len(rows) > 0)
        return cls(words=words, pictures=pictures, regions=regions)


def find_runs(sets: Sequence[FrozenSet], grouping: str, weights: Mapping[str, str]) -> dict[str, list[SourceStream]]:
    """The runs of some sets by group, in the order of `GROUPINGS`; groups without rows are left out.

    A source whose rows are of two groups (a LAZY one with pictures and without) is a run for each.

    Raises:
        SettingsError: there is no such grouping, or a weight is given for a tag that no set has, or is not above 0.
    """
    if grouping not in GROUPINGS:
        raise SettingsError(f"no grouping {grouping!r}; there are {', '.join(GROUPINGS)}")
    tags = {source.tag for each in sets for source in each.lock.sources}
    if unknown := sorted(set(weights) - tags):
        raise SettingsError(
            f"weights for {', '.join(unknown)}, and no set has such a source; it is one of {', '.join(sorted(tags))}"
        )
    groups: dict[str, list[SourceStream]] = {name: [] for name in GROUPINGS[grouping]}
    for set_no, each in enumerate(sets):
        for source in each.lock.sources:
            rows = each.rows_of_source(source.tag)
            if not rows:
                continue
            weight = _weight(source.tag, weights.get(source.tag, source.weight))
            for group, picked in _groups_of(each, source.task, rows, grouping):
                groups[group].append(
                    SourceStream(
                        set_no=set_no,
                        set_digest=each.lock.digest,
                        tag=source.tag,
                        group=group,
                        weight=weight,
                        variants=int(each.lock.render["variants"]),
                        first_row=rows.start,
                        count=len(rows) if picked is None else len(picked),
                        picked=picked,
                    )
                )
    return {name: runs for name, runs in groups.items() if runs}


def task_group(task: str, has_image: bool) -> str:
    """The group that a sample is of, when they are grouped by task."""
    if task == _TALK:
        return "general" if has_image else "text"
    return "referring" if task == _REFERRING else "localization"


def _weight(tag: str, given: str) -> Fraction:
    try:
        weight = Fraction(given)
    except (ValueError, ZeroDivisionError):
        weight = Fraction(-1)
    if weight <= 0:
        raise SettingsError(f"weight of {tag}: expected a number above 0, such as 2, 0.5 or 1/3, got {given!r}")
    return weight


def _pictured(each: FrozenSet, rows: range) -> NDArray[np.bool_]:
    """Which rows have a picture; shape [rows]."""
    found: NDArray[np.bool_] = each.index["has_image"][rows.start : rows.stop] != 0
    return found


def _groups_of(each: FrozenSet, task: str, rows: range, grouping: str) -> list[tuple[str, NDArray[np.uint32] | None]]:
    """The groups that rows of a source are of, and which of the rows; None for all of them."""
    if grouping == "none":
        return [("all", None)]
    with_image = "image" if grouping == "modality" else task_group(task, has_image=True)
    if task != _TALK:  # every other task is about a picture
        return [(with_image, None)]
    has_image = _pictured(each, rows)
    pictured = int(np.count_nonzero(has_image))
    if pictured in (0, len(rows)):
        return [(with_image if pictured else "text", None)]
    return [
        ("text", np.flatnonzero(~has_image).astype(np.uint32)),
        (with_image, np.flatnonzero(has_image).astype(np.uint32)),
    ]
