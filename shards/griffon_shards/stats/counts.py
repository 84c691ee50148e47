"""What is counted of every sample. Counts of parts of a set add up to those of the whole, in any order.

Builds count while they write, where every microsecond a sample shows. Values are therefore collected, and counted a few
thousand at a time with numpy.

Memory: a source has at most a dozen tallies, of some 100 kB each at the worst, and 20 bytes for each image. A
distinct category costs about 300 bytes.
"""

import struct
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from griffon_shards.grammar import ANSWERED_WITH_BOXES, labels_of, parse_answer
from griffon_shards.stats.tally import Tally
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import counted
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, BoxXYXY, Sample

CATEGORY_TASKS = ("DET", "RANDDET")
"""Tasks whose labels are categories; those of VG are expressions, of which most occur once."""
HEAT_CELLS = 32
"""Cells along each side of the map of box centres."""
FINGERPRINT_BYTES = 16
"""Bytes that stand for an image, see `fingerprint`."""
AREA_UNITS = 1_000_000
"""A box's share of its image is counted in millionths, rounded down."""
ASPECT_UNITS = 1000
"""Width divided by height is counted in thousandths, rounded down."""
_SMALL_PX2, _LARGE_PX2 = 32**2, 96**2  # COCO's limits
_MOST_ASPECT = 1e12  # in thousandths; a box that is flat but for a rounding error has no bound
_COLLECTED = 1 << 14  # values that are counted at a time

METRICS = (
    "turns",
    "question_chars",
    "answer_chars",
    "question_tokens",
    "answer_tokens",
    "boxes_per_sample",
    "box_area_share",
    "box_aspect",
    "image_width_px",
    "image_height_px",
    "image_bytes",
)
"""The names of all tallies."""

CountTokens = Callable[[str], int]
"""Returns the number of tokens of a text."""


class SourceCounts:
    """Counts of the samples of one source, or of several. Call `settle` before reading any attribute but `samples`.

    Attributes:
        samples: number of samples.
        tallies: a tally for each of `METRICS`.
        formats: samples with an image, by its format.
        box_sizes: boxes by area in pixels, `small`, `medium` and `large` as COCO has them.
        flat_boxes: boxes without width or height, which have no aspect.
        heat: number of box centres in each cell, row by row; length HEAT_CELLS².
        category_boxes: boxes by category.
        category_samples: samples that have boxes of a category, by category.
        image_fingerprints: the `fingerprint` of each image, one after the other.
        image_records: record numbers of the same images' samples.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.tallies = {name: Tally() for name in METRICS}
        self.formats: Counter[str] = Counter()
        self.box_sizes: Counter[str] = Counter()
        self.flat_boxes = 0
        self.heat = [0] * HEAT_CELLS**2
        self.category_boxes: Counter[str] = Counter()
        self.category_samples: Counter[str] = Counter()
        self.image_fingerprints = bytearray()
        self.image_records = array("I")
        self._values: dict[str, list[int]] = {name: [] for name in METRICS}
        self._edges_px = array("d")  # of boxes: x1, y1, x2, y2, and so on
        self._sides_px: list[tuple[int, int]] = []  # of the images that the boxes are in, one for each sample

    def add(self, sample: Sample, style: str, count_tokens: CountTokens | None) -> None:
        """Count a sample in its first rendering.

        Args:
            sample: the sample.
            style: how its answers write boxes, one of `BOX_STYLES`.
            count_tokens: counts the tokens of a text, or None to leave them out.

        Raises:
            DataError: an answer is not of the grammar, or its boxes do not fit the sample.
        """
        self.samples += 1
        values = self._values
        turns = sample.turns
        questions = [turn.text for turn in turns if turn.role == "human"]
        answers = [turn.text for turn in turns if turn.role == "gpt"]
        values["turns"].append(len(turns))
        values["question_chars"].append(sum(map(len, questions)))
        values["answer_chars"].append(sum(map(len, answers)))
        if count_tokens is not None:
            for name, texts in (("question_tokens", questions), ("answer_tokens", answers)):
                values[name].append(sum(count_tokens(_without_placeholders(text)) for text in texts))
        if sample.image is not None:
            self._add_image(sample, sample.image)
        if sample.task in ANSWERED_WITH_BOXES:
            self._add_boxes(sample, answers, style)
        if len(values["turns"]) + len(self._edges_px) >= _COLLECTED:
            self.settle()

    def settle(self) -> None:
        """Count what has been collected."""
        if self._edges_px:
            self._count_boxes()
        for name, values in self._values.items():
            self.tallies[name].add(np.array(values, np.int64))
            values.clear()
        self._edges_px, self._sides_px = array("d"), []

    def merge(self, other: "SourceCounts", *, images: bool = True) -> None:
        """Count everything that `other` has counted; without `images`, all but the images' fingerprints."""
        other.settle()
        self.samples += other.samples
        for name, tally in other.tallies.items():
            self.tallies[name].merge(tally)
        self.formats.update(other.formats)
        self.box_sizes.update(other.box_sizes)
        self.flat_boxes += other.flat_boxes
        self.heat = [mine + others for mine, others in zip(self.heat, other.heat, strict=True)]
        self.category_boxes.update(other.category_boxes)
        self.category_samples.update(other.category_samples)
        if images:
            self.image_fingerprints += other.image_fingerprints
            self.image_records.extend(other.image_records)

    def _add_image(self, sample: Sample, image: bytes) -> None:
        self.formats[sample.image_format] += 1
        self._values["image_width_px"].append(sample.width_px)
        self._values["image_height_px"].append(sample.height_px)
        self._values["image_bytes"].append(len(image))
        self.image_fingerprints += fingerprint(image)
        self.image_records.append(int(sample.key.rpartition("-")[2]))

    def _add_boxes(self, sample: Sample, answers: Sequence[str], style: str) -> None:
        labels, boxes_xyxy_px = _labels_and_boxes(sample, answers, style)
        self._values["boxes_per_sample"].append(len(labels))
        self._edges_px.extend(chain.from_iterable(boxes_xyxy_px))
        self._sides_px.append((sample.width_px, sample.height_px))
        if sample.task in CATEGORY_TASKS:
            self.category_boxes.update(labels)
            self.category_samples.update(set(labels))

    def _count_boxes(self) -> None:
        boxes_per_sample = self._values["boxes_per_sample"]
        sides_px = np.repeat(np.array(self._sides_px, np.float64), boxes_per_sample, axis=0)
        corners_px = np.frombuffer(self._edges_px, np.float64).reshape(-1, 2, 2)  # box, corner, x and y
        spans_px = np.maximum(corners_px[:, 1] - corners_px[:, 0], 0.0)
        areas_px2 = spans_px[:, 0] * spans_px[:, 1]
        sizes = np.bincount((areas_px2 >= _SMALL_PX2).astype(np.int64) + (areas_px2 >= _LARGE_PX2), minlength=3)
        self.box_sizes.update(dict(zip(("small", "medium", "large"), sizes.tolist(), strict=True)))
        self.tallies["box_area_share"].add((areas_px2 / sides_px.prod(axis=1) * AREA_UNITS).astype(np.int64))
        solid = areas_px2 > 0.0
        self.flat_boxes += int(np.count_nonzero(~solid))
        with np.errstate(over="ignore"):
            aspects = spans_px[solid, 0] / spans_px[solid, 1] * ASPECT_UNITS
        self.tallies["box_aspect"].add(np.minimum(aspects, _MOST_ASPECT).astype(np.int64))
        centres = (corners_px[:, 0] + corners_px[:, 1]) / 2 / sides_px
        columns_rows = np.clip((centres * HEAT_CELLS).astype(np.int64), 0, HEAT_CELLS - 1)
        cells = columns_rows[:, 1] * HEAT_CELLS + columns_rows[:, 0]
        counted: NDArray[np.int64] = np.bincount(cells, minlength=HEAT_CELLS**2) + self.heat
        self.heat = counted.tolist()


class SetCounts:
    """Counts of the samples of a set, by the tag of their source.

    Attributes:
        style: how answers write boxes, one of `BOX_STYLES`.
        sources: the counts of each source that has samples.
    """

    def __init__(self, style: str) -> None:
        self.style = style
        self.sources: dict[str, SourceCounts] = {}

    def add(self, sample: Sample, count_tokens: CountTokens | None = None) -> None:
        """Count a sample. Raises as `SourceCounts.add`."""
        self.of(sample.key.rpartition("-")[0]).add(sample, self.style, count_tokens)

    def merge(self, other: "SetCounts") -> None:
        """Count everything that `other` has counted."""
        for tag, counts in other.sources.items():
            self.of(tag).merge(counts)

    def of(self, tag: str) -> SourceCounts:
        """The counts of a source, which are empty at first."""
        if tag not in self.sources:
            self.sources[tag] = SourceCounts()
        return self.sources[tag]


def fingerprint(image: bytes) -> bytes:
    """16 bytes by which images are told apart: the CRC-32 of all bytes, their number, and eight bytes in the middle.

    Two images that differ, are of the same length, and are equal in the middle share a fingerprint once in 2^32 pairs.
    SHA-256 would take seven times as long, and a tenth of a build.
    """
    middle = len(image) // 2
    return struct.pack("<II8s", zlib.crc32(image), len(image), image[middle : middle + 8])


def _labels_and_boxes(sample: Sample, answers: Sequence[str], style: str) -> tuple[list[str], Sequence[BoxXYXY]]:
    """Labels and boxes (in pixels) of a sample's answers: the exact boxes where the sample has them."""
    width_px, height_px = sample.width_px, sample.height_px
    exact = sample.boxes_xyxy_px
    if exact and min(width_px, height_px) > 0:
        labels = labels_of(answers, sample.task, style)
        if len(labels) == len(exact):
            return labels, exact
    try:
        written = [item for answer in answers for item in parse_answer(answer, sample.task, style)]
    except ValueError as error:
        raise DataError(f"sample {sample.key}: {error}") from None
    if written and min(width_px, height_px) < 1:
        raise DataError(f"sample {sample.key}: its answers hold boxes, but its image is {width_px}x{height_px} px")
    if exact is not None and len(exact) != len(written):
        listed = counted(len(exact), "box", "boxes")
        raise DataError(f"sample {sample.key}: its JSON lists {listed}, its answers hold {len(written)}")
    labels = [label for label, _ in written]
    return labels, exact or [
        (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px) for _, (x1, y1, x2, y2) in written
    ]


def _without_placeholders(text: str) -> str:
    return text.replace(IMAGE_TOKEN, "").replace(REGION_TOKEN, "")
