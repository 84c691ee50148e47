"""A source as an endless stream of shuffled passes over its rows, divided into epochs by its weight; and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.permutation import permutation_key, permute, unpermute
from griffon_shards.support.errors import SettingsError

GROUPINGS: dict[str, tuple[str, ...]] = {
    "none": ("all",),
    "modality": ("text", "image"),
    "task": ("text", "general", "localization", "referring"),
}
"""The possible groups of each grouping, in order; all rows of a batch belong to one group."""

_REFERRING = "VISJ"
_TALK = "LAZY"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceStream:
    """The passes over one source, or over its rows in one group.

    Attributes:
        set_no: index of the set in the plan.
        set_digest: digest of the set, which keys the shuffles together with the tag.
        tag: tag of the source.
        group: group of its rows.
        weight: passes per epoch.
        variants: renderings per row; pass p uses rendering p mod `variants`.
        first_row: first row of the source in its set.
        count: number of rows in the stream.
        picked: the rows of the stream relative to `first_row`, shape [count]; None if they are consecutive.
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
        """Return the position in the stream where an epoch begins: ⌊epoch · weight · rows⌋."""
        return epoch * self.weight.numerator * self.count // self.weight.denominator

    def rows(self, places: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows of the set, and variants, at some positions of the stream; same shape as `places`."""
        passes, within = np.divmod(places, self.count)
        rows = np.empty_like(places)
        for pass_no in np.unique(passes).tolist():
            mine = passes == pass_no
            rows[mine] = permute(within[mine], self.count, self._key(pass_no, seed))
        if self.picked is not None:
            rows = self.picked[rows].astype(np.int64)
        return rows + self.first_row, passes % self.variants

    def epoch_at(self, place: int) -> int:
        """Return the epoch that a position in the stream belongs to."""
        return -(-(place + 1) * self.weight.denominator // (self.weight.numerator * self.count)) - 1

    def place_of(self, row: int, pass_no: int, seed: int) -> int | None:
        """Return the position in the stream of a row of the set in a pass; None if the stream lacks the row."""
        within = row - self.first_row
        if self.picked is not None:
            at = int(np.searchsorted(self.picked, within))
            if at == self.count or int(self.picked[at]) != within:
                return None
            within = at
        if not 0 <= within < self.count:
            return None
        return pass_no * self.count + int(unpermute(np.array([within]), self.count, self._key(pass_no, seed))[0])

    def _key(self, pass_no: int, seed: int) -> bytes:
        parts = (self.group,) if self.picked is not None else ()
        return permutation_key("pass", seed, self.set_digest, self.tag, pass_no, *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shows:
    """The kinds of content in the samples of some sets.

    Attributes:
        words: some samples have text only.
        images: some samples have an image.
        regions: some samples have a region, for which `<region>` stands.
    """

    words: bool
    images: bool
    regions: bool

    @classmethod
    def of(cls, sets: Sequence[FrozenSet]) -> "Shows":
        """Read it from the locks, and from the indexes for conversations that may or may not have an image."""
        words = images = regions = False
        for frozen in sets:
            for source in frozen.lock.sources:
                rows = frozen.rows_of_source(source.tag)
                with_image = int(np.count_nonzero(_has_image(frozen, rows))) if source.task == _TALK else len(rows)
                words, images = words or with_image < len(rows), images or with_image > 0
                regions = regions or (source.task == _REFERRING and len(rows) > 0)
        return cls(words=words, images=images, regions=regions)


def streams_by_group(
    sets: Sequence[FrozenSet], grouping: str, weights: Mapping[str, str]
) -> dict[str, list[SourceStream]]:
    """Return the streams of some sets by group, in the order of `GROUPINGS`, without empty groups.

    A source with rows in two groups (a LAZY source with and without images) becomes two streams.

    Raises:
        SettingsError: the grouping is unknown, or a weight is not above 0 or is given for a tag that no set has.
    """
    if grouping not in GROUPINGS:
        raise SettingsError(f"unknown grouping {grouping!r}; expected one of {', '.join(GROUPINGS)}")
    tags = {source.tag for frozen in sets for source in frozen.lock.sources}
    if unknown := sorted(set(weights) - tags):
        raise SettingsError(
            f"weights given for {', '.join(unknown)}, but no set has such a source; the sources are "
            f"{', '.join(sorted(tags))}"
        )
    groups: dict[str, list[SourceStream]] = {name: [] for name in GROUPINGS[grouping]}
    for set_no, frozen in enumerate(sets):
        for source in frozen.lock.sources:
            rows = frozen.rows_of_source(source.tag)
            if not rows:
                continue
            weight = _weight(source.tag, weights.get(source.tag, source.weight))
            for group, picked in _groups_of(frozen, source.task, rows, grouping):
                groups[group].append(
                    SourceStream(
                        set_no=set_no,
                        set_digest=frozen.lock.digest,
                        tag=source.tag,
                        group=group,
                        weight=weight,
                        variants=int(frozen.lock.render["variants"]),
                        first_row=rows.start,
                        count=len(rows) if picked is None else len(picked),
                        picked=picked,
                    )
                )
    return {name: streams for name, streams in groups.items() if streams}


def task_group(task: str, has_image: bool) -> str:
    """Return the group of a sample under the grouping `task`."""
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


def _has_image(frozen: FrozenSet, rows: range) -> NDArray[np.bool_]:
    """Return which rows have an image; shape [rows]."""
    has_image: NDArray[np.bool_] = frozen.index["has_image"][rows.start : rows.stop] != 0
    return has_image


def _groups_of(frozen: FrozenSet, task: str, rows: range, grouping: str) -> list[tuple[str, NDArray[np.uint32] | None]]:
    """Return the groups of a source's rows, each with its rows; None means all rows."""
    if grouping == "none":
        return [("all", None)]
    with_image = "image" if grouping == "modality" else task_group(task, has_image=True)
    if task != _TALK:  # every other task has an image
        return [(with_image, None)]
    has_image = _has_image(frozen, rows)
    if has_image.all() or not has_image.any():
        return [(with_image if has_image.any() else "text", None)]
    return [
        ("text", np.flatnonzero(~has_image).astype(np.uint32)),
        (with_image, np.flatnonzero(has_image).astype(np.uint32)),
    ]
