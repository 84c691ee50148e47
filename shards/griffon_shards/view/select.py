"""Chooses and orders the samples of a set: filters over columns of the index and the sidecar, in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.permutation import permutation_key, permute, unpermute
from griffon_shards.types import TASKS
from griffon_shards.view.filters import PREDICTION_SORTS, Filters
from griffon_shards.view.predictions import Predictions
from griffon_shards.view.sidecar import Mask, Rows, Sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Rows in an order.

    Attributes:
        rows: the rows, shape [total]: in the order, or in that of the set if they are to be shuffled.
        key: of a permutation of `rows` that makes the order; None if they have it already.
    """

    rows: Rows
    key: bytes | None

    def __len__(self) -> int:
        return len(self.rows)

    def page(self, offset: int, limit: int) -> list[int]:
        """The rows at places [offset, offset + limit) of the order, as far as there are any."""
        places = np.arange(min(offset, len(self)), min(offset + limit, len(self)))
        if self.key is not None and len(places):
            places = permute(places, len(self), self.key).astype(np.int64)
        return [int(row) for row in self.rows[places]]

    def around(self, row: int) -> tuple[int | None, int | None]:
        """The rows before and after a row; None where there is none, and for a row that is not chosen."""
        places = np.flatnonzero(self.rows == row)
        if not len(places):
            return None, None
        place = int(places[0] if self.key is None else unpermute(places, len(self), self.key)[0])
        before = self.page(place - 1, 1) if place else []
        after = self.page(place + 1, 1)
        return (before[0] if before else None), (after[0] if after else None)


def select(
    filters: Filters, frozen: FrozenSet, sidecar: Sidecar, predictions: Predictions | None, marked_rows: list[int]
) -> Selection:
    """The samples of a set that pass all filters, in their order.

    Raises:
        SettingsError: the text to search for has no word, or too many.
        TooSlowError: the search took too long.
    """
    mask = mask_of(filters, frozen, sidecar, predictions, marked_rows)
    if filters.random is not None:
        key = permutation_key("view", frozen.lock.digest, filters.random)
        return Selection(rows=_chosen(mask, len(frozen)), key=key)
    if filters.sort == "order":
        rows = _chosen(mask, len(frozen))
        return Selection(rows=rows[::-1] if filters.descending else rows, key=None)
    if filters.sort in PREDICTION_SORTS:
        assert predictions is not None
        order, valued = predictions.order(filters.sort), predictions.rows_with_a_value(filters.sort)
    else:
        order, valued = sidecar.order(filters.sort), _rows_with_a_value(filters.sort, sidecar)
    if filters.descending:  # rows without a value stay at the end
        order = np.concatenate([order[:valued][::-1], order[valued:]])
    return Selection(rows=order if mask is None else order[mask[order]], key=None)


def mask_of(
    filters: Filters, frozen: FrozenSet, sidecar: Sidecar, predictions: Predictions | None, marked_rows: list[int]
) -> Mask | None:
    """Which samples pass all filters, shape [samples]; None for all. Raises as `select`."""
    index = frozen.index
    parts: list[Mask] = []
    if filters.sources:
        known = [place for place, source in enumerate(frozen.lock.sources) if source.tag in filters.sources]
        parts.append(np.isin(index["source"], known))
    if filters.tasks:
        parts.append(np.isin(index["task"], [TASKS.index(task) for task in filters.tasks]))
    columns: dict[str, Callable[[], NDArray[Any]]] = {
        "boxes": lambda: index["boxes"],
        "length": lambda: index["text_chars"],
        "width": lambda: sidecar.width_px,
        "height": lambda: sidecar.height_px,
        "smallest": sidecar.smallest_percent,
        "iou": lambda: _of(predictions).iou,
    }
    for name, (low, high) in filters.ranges:
        values = columns[name]()
        parts.append((values >= low) & (values <= high))  # NaN passes neither
    if filters.categories:
        parts.append(_of_rows([sidecar.rows_with_category(name) for name in filters.categories], len(frozen)))
    if filters.text:
        parts.append(_of_rows([sidecar.rows_with_text(filters.text)], len(frozen)))
    if filters.verdict:
        parts.append(_of(predictions).has_verdict(filters.verdict))
    if filters.marked:
        parts.append(_of_rows([np.array(marked_rows, np.uint32)], len(frozen)))
    return np.logical_and.reduce(parts) if parts else None


def _chosen(mask: Mask | None, samples: int) -> Rows:
    rows = np.arange(samples) if mask is None else np.flatnonzero(mask)
    return rows.astype(np.uint32)


def _rows_with_a_value(sort: str, sidecar: Sidecar) -> int:
    """The number of rows that the order of the sidecar really sorts. Those after them have no value."""
    if sort not in ("area", "smallest"):
        return sidecar.samples
    return int(np.count_nonzero(~np.isnan(sidecar.area_px2)))


def _of_rows(parts: list[Rows], samples: int) -> Mask:
    mask = np.zeros(samples, np.bool_)
    for rows in parts:
        mask[rows] = True
    return mask


def _of(predictions: Predictions | None) -> Predictions:
    assert predictions is not None
    return predictions
