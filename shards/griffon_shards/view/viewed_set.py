"""A set as it is viewed: its samples, their sidecar, predictions, marks and rejects."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError
from griffon_shards.view import cards
from griffon_shards.view.errors import NotFoundError
from griffon_shards.view.filters import Filters
from griffon_shards.view.key_rows import KeyRows
from griffon_shards.view.marks import Marks
from griffon_shards.view.predictions import Predictions
from griffon_shards.view.rejects import Rejects
from griffon_shards.view.select import Selection, mask_of, select
from griffon_shards.view.sidecar import Sidecar

_CATEGORIES = 500
_SELECTIONS = 4  # of four bytes a sample each


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewedSet:
    """One of the sets on the command line.

    Attributes:
        number: its place on the command line.
        name: its folder, as it was given.
    """

    number: int
    name: str
    frozen: FrozenSet
    sidecar: Sidecar
    predictions: Predictions | None
    marks: Marks
    rejects: Rejects
    key_rows: KeyRows
    _recent: "_Recent" = field(default_factory=lambda: _Recent(_SELECTIONS))

    def summary(self) -> dict[str, Any]:
        """What the page knows of a set from the beginning."""
        lock = self.frozen.lock
        return {
            "set": self.number,
            "name": self.name,
            "digest": lock.digest,
            "samples": len(self.frozen),
            "damaged": self.sidecar.damaged,
            "created_by": f"griffon-prep {lock.tool_version}",
            "sources": [{"source": item.tag, "task": item.task, "samples": item.samples} for item in lock.sources],
            "predictions": self.predictions is not None,
            "marks_file": str(self.marks.path),
            "marks_error": self.marks.error,
        }

    def reject_counts(self) -> list[dict[str, Any]]:
        """Rejects by reason and source."""
        return [{"set": self.number, **count} for count in self.rejects.counts()]

    def check(self, row: int) -> None:
        """Raise NotFoundError if there is no such row."""
        if not 0 <= row < len(self.frozen):
            raise NotFoundError(
                f"set {self.number} has {len(self.frozen)} samples, from row 0 on; there is no row {row}"
            )

    def cards(self, filters: Filters, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """The number of samples that pass, and the cards of some. Raises as `select`."""
        selection = self._selected(filters)
        notes = self.marks.notes()
        return len(selection), [self._card(row, notes) for row in selection.page(offset, limit)]

    def sample(self, row: int, filters: Filters) -> dict[str, Any]:
        """The sample in a row as its page shows it, with its neighbours in a selection. Raises as `select`."""
        before, after = self._selected(filters).around(row)
        shown = self._card(row, self.marks.notes()) | cards.sample_page(self.frozen, row, self.predictions)
        return {**shown, "previous": before, "next": after}

    def categories(self, filters: Filters, prefix: str) -> tuple[list[tuple[str, int]], int]:
        """Categories of the samples that pass, the most frequent first, and their number. Raises as `select`."""
        mask = mask_of(filters, self.frozen, self.sidecar, self.predictions, self._marked_rows(filters))
        return self.sidecar.categories(prefix, mask, _CATEGORIES)

    def marked(self) -> list[dict[str, Any]]:
        """All marks of samples that the set has."""
        marks = self.marks.notes().items()
        places = [(self.key_rows.row(key), key, note) for key, note in marks]
        shown = [place for place in places if place[0] is not None]  # others are perhaps of an older set
        return [{"set": self.number, "key": key, "row": row, "note": note} for row, key, note in shown]

    def _card(self, row: int, notes: Mapping[str, str]) -> dict[str, Any]:
        try:
            note = notes.get(self.frozen.key(row))
        except DataError:  # its card shows the error
            note = None
        return {"set": self.number, **cards.card(self.frozen, row, self.predictions, note)}

    def _selected(self, filters: Filters) -> Selection:
        marked = self._marked_rows(filters)
        key = (filters, tuple(marked))
        selection = self._recent.get(key)
        if selection is None:
            selection = select(filters, self.frozen, self.sidecar, self.predictions, marked)
            self._recent.put(key, selection)
        return selection

    def _marked_rows(self, filters: Filters) -> list[int]:
        """The rows that are marked, if they are asked for."""
        return [mark["row"] for mark in self.marked()] if filters.marked else []


_Choice = tuple[Filters, tuple[int, ...]]
"""Filters, and the rows that are marked if they ask for these."""


class _Recent:
    """The last few selections: paging through one, or to its next sample, does not make it again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._selections: OrderedDict[_Choice, Selection] = OrderedDict()

    def get(self, key: _Choice) -> Selection | None:
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
            return self._selections.get(key)

    def put(self, key: _Choice, selection: Selection) -> None:
        with self._lock:
            self._selections[key] = selection
            while len(self._selections) > self._most:
                self._selections.popitem(last=False)
