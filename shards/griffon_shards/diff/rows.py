"""Match the rows of two sets by key, from the indexes alone, without a Python object for each row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import sha256_of

Rows = NDArray[np.uint32]
_SAMPLE_FIELDS = ("crc32", "bytes", "task", "has_image", "boxes", "text_chars")
"""The fields of the index that depend on the sample alone, not on its place in the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedRows:
    """The rows of one source in two sets. All arrays are row numbers of their set, in its order.

    Attributes:
        tag: the source.
        only_a: rows whose keys only A has, shape [n].
        only_b: rows whose keys only B has, shape [m].
        changed_a: rows of A whose samples differ from those of B with the same key, shape [c], in A's order.
        changed_b: the rows of B with the same keys, shape [c].
        same: number of samples with the same bytes in both sets.
        in_order: whether the keys that both sets have come in the same order.
    """

    tag: str
    only_a: Rows
    only_b: Rows
    changed_a: Rows
    changed_b: Rows
    same: int
    in_order: bool


def open_checked(root: Location) -> FrozenSet:
    """Open a set, and check its index against the hash in the lock, so that what the index says can be relied on.

    Raises:
        DataError: the folder is not a frozen set, or its lock or index is damaged.
    """
    frozen = open_set(root).in_order()
    if (sha256 := sha256_of(frozen.index_path)) != frozen.lock.index_sha256:
        raise DataError(
            f"{frozen.index_path}: damaged, its SHA-256 is {sha256}, the lock has {frozen.lock.index_sha256}; "
            "copy the set again or rebuild it"
        )
    return frozen


def match_rows(a: FrozenSet, b: FrozenSet, tag: str) -> MatchedRows:
    """Match the rows of a source that is in at least one of the sets. No sample is read.

    Samples with the same key are the same if all that the index has about their bytes is: size, CRC-32, counts.
    """
    rows_a, rows_b = _rows_of_source(a, tag), _rows_of_source(b, tag)
    index_a, index_b = a.index[rows_a.start : rows_a.stop], b.index[rows_b.start : rows_b.stop]
    places = _places(index_a["record"], index_b["record"])
    in_both = np.flatnonzero(places >= 0)
    places_b = places[in_both]
    only_b = np.ones(len(index_b), bool)
    only_b[places_b] = False
    differs = np.zeros(len(in_both), bool)
    for name in _SAMPLE_FIELDS:
        differs |= index_a[name][in_both] != index_b[name][places_b]
    matched = MatchedRows(
        tag=tag,
        only_a=_row_numbers(np.flatnonzero(places < 0), rows_a),
        only_b=_row_numbers(np.flatnonzero(only_b), rows_b),
        changed_a=_row_numbers(in_both[differs], rows_a),
        changed_b=_row_numbers(places_b[differs], rows_b),
        same=int(len(differs) - np.count_nonzero(differs)),
        in_order=bool(np.all(places_b[1:] > places_b[:-1])),
    )
    for frozen in (a, b):
        frozen.let_index_go()
    return matched


def _rows_of_source(frozen: FrozenSet, tag: str) -> range:
    return frozen.rows_of_source(tag) if any(source.tag == tag for source in frozen.lock.sources) else range(0)


def _row_numbers(places: NDArray[np.int64], rows: range) -> Rows:
    return (places + rows.start).astype(np.uint32)


def _places(wanted: NDArray[np.uint32], given: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The place of every wanted number among the given ones, or -1. Both are sorted first: random look-ups are slow."""
    places = np.full(len(wanted), -1, np.int64)
    if not len(given):
        return places
    order_wanted, order_given = np.argsort(wanted), np.argsort(given)
    sorted_wanted, sorted_given = wanted[order_wanted], given[order_given]
    candidates = np.minimum(np.searchsorted(sorted_given, sorted_wanted), len(given) - 1)
    equal = sorted_given[candidates] == sorted_wanted
    places[order_wanted[equal]] = order_given[candidates[equal]]
    return places
