"""The predictions of a set, as `griffon-train evaluate` writes them: a line for each question of a sample.

Verdict and IoU of each are kept in memory; the lines are read when they are shown. A sample with several rounds has
the verdict of its worst one and the lowest IoU.
"""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.grammar import ANSWERED_WITH_BOXES, locate_answer
from griffon_shards.support.errors import DataError
from griffon_shards.view.key_rows import KeyRows
from griffon_shards.view.sidecar import Mask, Rows
from griffon_shards.view.written import in_utf16

_RANKS = ("unparsed", "wrong", "right")
"""Verdicts, the worst first. A longer answer of LAZY has none, for it has many right wordings."""
_UNSCORED = len(_RANKS)
_NOT_ASKED = _UNSCORED + 1


class Predictions:
    """The predictions in a file that are about one set.

    Attributes:
        iou: the lowest IoU of a sample's questions, shape [samples]; NaN without one.
        other_sets: digests of other sets that the file has predictions of.
    """

    def __init__(self, path: Path, frozen: FrozenSet) -> None:
        """Read a file.

        Raises:
            DataError: a line is not a prediction, or of a sample that the set has not.
            OSError: it cannot be read.
        """
        self._path = path
        self._frozen = frozen
        self._rank = np.full(len(frozen), _NOT_ASKED, np.uint8)
        self.iou = np.full(len(frozen), np.nan)
        key_rows = KeyRows(frozen)
        rows, offsets, sizes = array("I"), array("Q"), array("I")
        foreign: dict[str, None] = {}
        self._file = path.open("rb")
        for number, (offset, line) in enumerate(_lines(path), 1):
            where = f"{path}, line {number}"
            fields = _decoded(line, where)
            if fields["set"] != frozen.lock.digest:
                foreign[fields["set"]] = None
                continue
            row = key_rows.row(fields["key"])
            if row is None:
                raise DataError(f"{where}: the set {frozen.root} has no sample {fields['key']!r:.200}")
            rows.append(row)
            offsets.append(offset)
            sizes.append(len(line))
            self._rank[row] = min(int(self._rank[row]), _rank(fields))
            if fields["iou"] is not None:
                self.iou[row] = np.fmin(self.iou[row], fields["iou"])
        self.other_sets = tuple(foreign)
        by_row = np.argsort(rows, kind="stable")
        self._rows, self._offsets, self._sizes = (np.array(values)[by_row] for values in (rows, offsets, sizes))

    def __len__(self) -> int:
        return len(self._rows)

    def has_verdict(self, verdict: str) -> Mask:
        """Which samples have a verdict, shape [samples]."""
        mask: Mask = self._rank == _RANKS.index(verdict)
        return mask

    def order(self, sort: str) -> Rows:
        """All rows in an order of `filters.PREDICTION_SORTS`, the worst first, those without a value last."""
        keys = [self.iou] if sort == "iou" else [self.iou, self._rank]
        return np.lexsort(keys).astype(np.uint32)

    def rows_with_a_value(self, sort: str) -> int:
        """The number of rows that `order` really sorts."""
        return int(np.count_nonzero(~np.isnan(self.iou) if sort == "iou" else self._rank < _UNSCORED))

    def of_row(self, row: int) -> list[dict[str, Any]]:
        """The predictions of a sample, in order of their rounds."""
        first, last = np.searchsorted(self._rows, [row, row + 1])
        lines = [
            os.pread(self._file.fileno(), int(self._sizes[place]), int(self._offsets[place]))
            for place in range(first, last)
        ]
        shown = [_shown(_decoded(line, str(self._path)), self._frozen.lock.render["boxes"]) for line in lines]
        return sorted(shown, key=lambda item: int(item["round"]))

    def summary(self, row: int) -> dict[str, Any] | None:
        """Verdict, IoU and boxes of a sample's predictions, for its card; None if it was not asked."""
        predictions = self.of_row(row)
        if not predictions:
            return None
        iou = float(self.iou[row])
        rank = int(self._rank[row])
        return {
            "verdict": _RANKS[rank] if rank < _UNSCORED else None,
            "iou": None if np.isnan(iou) else iou,
            "boxes": [{"box": box["box"], "label": box["label"]} for item in predictions for box in item["boxes"]],
        }


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield offset, line
            offset += len(line)


_TEXTS = ("set", "key", "task", "question", "answer", "truth")
_NUMBERS = ("round", "width", "height")
_FIELDS = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_NUMBERS, int)}


def _decoded(line: bytes, where: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = orjson.loads(line)
        for name, kind in _FIELDS.items():
            if not isinstance(fields[name], kind):
                raise TypeError(f"{name} is {fields[name]!r:.80}")
        fields["iou"] = None if fields["iou"] is None else float(fields["iou"])
        fields["boxes_px"] = [[float(x1), float(y1), float(x2), float(y2)] for x1, y1, x2, y2 in fields["boxes_px"]]
        _rank(fields)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{where}: not a line of the predictions.jsonl that `griffon-train evaluate --out` writes: {error!r:.200}"
        ) from None
    return fields


def _rank(fields: dict[str, Any]) -> int:
    if fields["unparsed"] is not None:
        return _RANKS.index("unparsed")
    return _UNSCORED if fields["right"] is None else _RANKS.index("right" if fields["right"] else "wrong")


def _shown(fields: dict[str, Any], style: str) -> dict[str, Any]:
    """A prediction as the page has it. Boxes are fractions, with labels and places if the answer is of the grammar."""
    rank, width_px, height_px = _rank(fields), fields["width"], fields["height"]
    boxes_px = fields["boxes_px"] if width_px and height_px else []
    boxes: list[dict[str, Any]] = [
        {"box": [x1 / width_px, y1 / height_px, x2 / width_px, y2 / height_px], "label": ""}
        for x1, y1, x2, y2 in boxes_px
    ]
    if fields["task"] in ANSWERED_WITH_BOXES:
        try:
            written = in_utf16(fields["answer"], locate_answer(fields["answer"], fields["task"], style))
        except ValueError:  # the evaluation reads such answers leniently
            written = []
        if len(written) == len(boxes):
            boxes = [{**item, "box": box["box"]} for item, box in zip(written, boxes, strict=True)]
    return {
        "variant": 0,  # the one that an evaluation asks
        "round": fields["round"],
        "question": fields["question"],
        "answer": fields["answer"],
        "truth": fields["truth"],
        "boxes": boxes,
        "iou": fields["iou"],
        "verdict": _RANKS[rank] if rank < _UNSCORED else None,
        "why": fields["unparsed"],
    }
