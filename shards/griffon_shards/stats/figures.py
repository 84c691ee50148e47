"""The figures of a set, as frozen data: what the table, the JSON and the HTML page show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from griffon_shards.stats.counts import AREA_UNITS, ASPECT_UNITS, HEAT_CELLS, METRICS, SetCounts, SourceCounts
from griffon_shards.stats.duplicates import ImageGroups, RepeatedImage, SharedImages
from griffon_shards.stats.tally import BIN_STARTS, Tally
from griffon_shards.types import TASKS

_UNITS = {"box_area_share": AREA_UNITS, "box_aspect": ASPECT_UNITS}
_FEW_BOXES = (1, 10, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The number of values from `start` to below `stop`."""

    start: float
    stop: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Values of all samples, or of all boxes.

    Attributes:
        count: number of values.
        mean: their mean.
        least: the smallest.
        p10: a tenth of the values are no larger, to three digits; `p50`, `p90` and `p99` likewise.
        p50: the median.
        p90: see `p10`.
        p99: see `p10`.
        most: the largest.
        bins: the histogram, without gaps.
    """

    count: int
    mean: float
    least: float
    p10: float
    p50: float
    p90: float
    p99: float
    most: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures of a source, of a task, or of the complete set.

    Attributes:
        name: the source's tag, the task, or `all`.
        task: the task, empty for the complete set.
        samples: number of samples.
        images: number of samples with an image.
        distinct_images: number of different images, by their bytes.
        boxes: number of boxes in the answers.
        without_boxes: number of samples of DET, RANDDET, VG and VISJ whose answers hold no box.
        flat_boxes: boxes without width or height.
        box_sizes: boxes by area: `small` (under 32² px), `medium`, `large` (96² px or more).
        categories: number of different categories.
        formats: samples with an image, by its format.
        heat: number of box centres in each cell of a grid over the image, rows from the top; shape [32][32].
        distributions: by name, one of `METRICS`; those without values are left out.
    """

    name: str
    task: str
    samples: int
    images: int
    distinct_images: int
    boxes: int
    without_boxes: int
    flat_boxes: int
    box_sizes: Mapping[str, int]
    categories: int
    formats: Mapping[str, int]
    heat: tuple[tuple[int, ...], ...]
    distributions: Mapping[str, Distribution]


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A category of DET and RANDDET, its boxes, and the samples that have boxes of it."""

    name: str
    boxes: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTail:
    """How unevenly boxes are spread over categories.

    Attributes:
        half: number of most frequent categories that have at least half of all boxes.
        nine_tenths: number that have at least nine tenths.
        at_most: number of categories with at most 1, 10 and 100 boxes.
    """

    half: int
    nine_tenths: int
    at_most: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of a set.

    Attributes:
        digest: the set's digest.
        tokenizer: name of the tokenizer's folder, empty if tokens were not counted.
        total: of the complete set.
        tasks: of each task that has a source.
        sources: of each source, in the set's order.
        categories: all categories, the most frequent first.
        long_tail: how boxes are spread over them.
        repeated_images: the ten images that most samples have.
        shared_images: pairs of sources with images in common.
    """

    digest: str
    tokenizer: str
    total: Group
    tasks: tuple[Group, ...]
    sources: tuple[Group, ...]
    categories: tuple[Category, ...]
    long_tail: LongTail
    repeated_images: tuple[RepeatedImage, ...]
    shared_images: tuple[SharedImages, ...]


def make_figures(counts: SetCounts, sources: Sequence[tuple[str, str]], *, digest: str, tokenizer: str = "") -> Figures:
    """The figures of a set.

    Args:
        counts: the counts of all its samples.
        sources: tag and task of each source, in the set's order.
        digest: the set's digest.
        tokenizer: name of the tokenizer that counted tokens, if any.
    """
    by_tag = [(tag, counts.sources.get(tag, SourceCounts())) for tag, _ in sources]
    for _, own in by_tag:
        own.settle()
    places_of = {task: [place for place, (_, own) in enumerate(sources) if own == task] for task in TASKS}
    images = ImageGroups(by_tag)
    total = _merged([own for _, own in by_tag])
    categories = _categories(total)
    return Figures(
        digest=digest,
        tokenizer=tokenizer,
        total=_group("all", "", total, images.distinct(range(len(sources)))),
        tasks=tuple(
            _group(task, task, _merged([by_tag[place][1] for place in places]), images.distinct(places))
            for task, places in places_of.items()
            if places
        ),
        sources=tuple(
            _group(tag, task, own, distinct)
            for (tag, task), (_, own), distinct in zip(sources, by_tag, images.distinct_by_source(), strict=True)
        ),
        categories=categories,
        long_tail=_long_tail([category.boxes for category in categories]),
        repeated_images=images.most_repeated(),
        shared_images=images.shared(),
    )


def _merged(parts: Sequence[SourceCounts]) -> SourceCounts:
    whole = SourceCounts()
    for part in parts:
        whole.merge(part, images=False)
    return whole


def _group(name: str, task: str, counts: SourceCounts, distinct_images: int) -> Group:
    boxes = counts.tallies["boxes_per_sample"]
    return Group(
        name=name,
        task=task,
        samples=counts.samples,
        images=counts.tallies["image_bytes"].count,
        distinct_images=distinct_images,
        boxes=boxes.total,
        without_boxes=boxes.counters[0],
        flat_boxes=counts.flat_boxes,
        box_sizes={size: counts.box_sizes[size] for size in ("small", "medium", "large")},
        categories=len(counts.category_boxes),
        formats=dict(sorted(counts.formats.items())),
        heat=tuple(tuple(counts.heat[start : start + HEAT_CELLS]) for start in range(0, HEAT_CELLS**2, HEAT_CELLS)),
        distributions={
            name: _distribution(counts.tallies[name], _UNITS.get(name, 1))
            for name in METRICS
            if counts.tallies[name].count
        },
    )


def _distribution(tally: Tally, units: int) -> Distribution:
    p10, p50, p90, p99 = (_scaled(value, units) for value in tally.percentiles(10, 50, 90, 99))
    stops = dict(pairwise(BIN_STARTS))
    return Distribution(
        count=tally.count,
        mean=tally.total / (tally.count * units),
        least=_scaled(tally.least or 0, units),
        p10=p10,
        p50=p50,
        p90=p90,
        p99=p99,
        most=_scaled(tally.most or 0, units),
        bins=tuple(
            Bin(start=_scaled(start, units), stop=_scaled(stops[start], units), count=count)
            for start, count in tally.bins()
        ),
    )


def _scaled(value: int, units: int) -> float:
    return value if units == 1 else value / units


def _categories(counts: SourceCounts) -> tuple[Category, ...]:
    ranked = sorted(counts.category_boxes.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Category(name=name, boxes=boxes, samples=counts.category_samples[name]) for name, boxes in ranked)


def _long_tail(boxes: Sequence[int]) -> LongTail:
    """The figures of the long tail; `boxes` descend."""
    sums, total = list(accumulate(boxes)), sum(boxes)
    return LongTail(
        half=sum(2 * above < total for above in sums[:-1]) + 1 if sums else 0,
        nine_tenths=sum(10 * above < 9 * total for above in sums[:-1]) + 1 if sums else 0,
        at_most={few: sum(number <= few for number in boxes) for few in _FEW_BOXES},
    )
