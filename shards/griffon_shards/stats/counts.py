"""What is counted of every sample. Counts of parts of a set add up to those of the whole, in any order.

Memory: a source has at most a dozen tallies, of some 100 kB each at the worst, and 20 bytes for each image. A
distinct category costs about 300 bytes.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence

from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer
from griffon_shards.stats.tally import Tally
from griffon_shards.support.errors import DataError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, BoxXYXY, Sample, Turn

CATEGORY_TASKS = ("DET", "RANDDET")
"""Tasks whose labels are categories; those of VG are expressions, of which most occur once."""
HEAT_CELLS = 32
"""Cells along each side of the map of box centres."""
DIGEST_BYTES = 16
"""Bytes kept of an image's SHA-256: among eight million images, two share them by chance once in 10^25 sets."""
AREA_UNITS = 1_000_000
"""A box's share of its image is counted in millionths, rounded down."""
ASPECT_UNITS = 1000
"""Width divided by height is counted in thousandths, rounded down."""
_SMALL_PX2, _LARGE_PX2 = 32**2, 96**2  # COCO's limits

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
    """Counts of the samples of one source, or of several.

    Attributes:
        samples: number of samples.
        tallies: a tally for each of `METRICS`.
        formats: samples with an image, by its format.
        box_sizes: boxes by area in pixels, `small`, `medium` and `large` as COCO has them.
        flat_boxes: boxes without width or height, which have no aspect.
        heat: number of box centres in each cell, row by row; length HEAT_CELLS².
        category_boxes: boxes by category.
        category_samples: samples that have boxes of a category, by category.
        image_digests: the first `DIGEST_BYTES` of each image's SHA-256, one after the other.
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
        self.image_digests = bytearray()
        self.image_records = array("I")

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
        self.tallies["turns"].add(len(sample.turns))
        for name, role in (("question", "human"), ("answer", "gpt")):
            texts = [turn.text for turn in sample.turns if turn.role == role]
            self.tallies[f"{name}_chars"].add(sum(map(len, texts)))
            if count_tokens is not None:
                self.tallies[f"{name}_tokens"].add(sum(count_tokens(_without_placeholders(text)) for text in texts))
        if sample.image is not None:
            self._add_image(sample, sample.image)
        if sample.task in ANSWERED_WITH_BOXES:
            self._add_boxes(sample, style)

    def merge(self, other: "SourceCounts", *, images: bool = True) -> None:
        """Count everything that `other` has counted; without `images`, all but the images' digests."""
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
            self.image_digests += other.image_digests
            self.image_records.extend(other.image_records)

    def _add_image(self, sample: Sample, image: bytes) -> None:
        self.formats[sample.image_format] += 1
        self.tallies["image_width_px"].add(sample.width_px)
        self.tallies["image_height_px"].add(sample.height_px)
        self.tallies["image_bytes"].add(len(image))
        self.image_digests += hashlib.sha256(image).digest()[:DIGEST_BYTES]
        self.image_records.append(int(sample.key.rpartition("-")[2]))

    def _add_boxes(self, sample: Sample, style: str) -> None:
        labelled = _labelled_boxes(sample, style)
        self.tallies["boxes_per_sample"].add(len(labelled))
        for _, box in labelled:
            self._add_box(box, sample.width_px, sample.height_px)
        if sample.task in CATEGORY_TASKS:
            labels = [label for label, _ in labelled]
            self.category_boxes.update(labels)
            self.category_samples.update(set(labels))

    def _add_box(self, box_xyxy_px: BoxXYXY, width_px: int, height_px: int) -> None:
        x1, y1, x2, y2 = box_xyxy_px
        box_width_px, box_height_px = max(0.0, x2 - x1), max(0.0, y2 - y1)
        area_px2 = box_width_px * box_height_px
        self.box_sizes["small" if area_px2 < _SMALL_PX2 else "medium" if area_px2 < _LARGE_PX2 else "large"] += 1
        self.tallies["box_area_share"].add(int(area_px2 / (width_px * height_px) * AREA_UNITS))
        if area_px2 > 0.0:
            self.tallies["box_aspect"].add(int(box_width_px / box_height_px * ASPECT_UNITS))
        else:
            self.flat_boxes += 1
        column, row = _cell((x1 + x2) / 2 / width_px), _cell((y1 + y2) / 2 / height_px)
        self.heat[row * HEAT_CELLS + column] += 1


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
        tag = sample.key.rpartition("-")[0]
        self.sources.setdefault(tag, SourceCounts()).add(sample, self.style, count_tokens)

    def merge(self, other: "SetCounts") -> None:
        """Count everything that `other` has counted."""
        for tag, counts in other.sources.items():
            self.sources.setdefault(tag, SourceCounts()).merge(counts)


def _labelled_boxes(sample: Sample, style: str) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (in pixels) of a sample's answers: the exact boxes where the sample has them."""
    try:
        written = [item for answer in _answers(sample.turns) for item in parse_answer(answer, sample.task, style)]
    except ValueError as error:
        raise DataError(f"sample {sample.key}: {error}") from None
    width_px, height_px = sample.width_px, sample.height_px
    if written and min(width_px, height_px) < 1:
        raise DataError(f"sample {sample.key}: its answers hold boxes, but its image is {width_px}x{height_px} px")
    exact = sample.boxes_xyxy_px
    if exact is None:
        return [
            (label, (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px))
            for label, (x1, y1, x2, y2) in written
        ]
    if len(exact) != len(written):
        raise DataError(f"sample {sample.key}: its JSON lists {len(exact)} boxes, its answers hold {len(written)}")
    return [(label, box) for (label, _), box in zip(written, exact, strict=True)]


def _answers(turns: Sequence[Turn]) -> list[str]:
    return [turn.text for turn in turns if turn.role == "gpt"]


def _without_placeholders(text: str) -> str:
    return text.replace(IMAGE_TOKEN, "").replace(REGION_TOKEN, "")


def _cell(share: float) -> int:
    return min(max(int(share * HEAT_CELLS), 0), HEAT_CELLS - 1)
