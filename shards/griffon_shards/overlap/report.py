"""The result of a comparison, as a table, as JSON, and as a list of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from griffon_shards.overlap.find import Found, Match
from griffon_shards.overlap.table import KEYS
from griffon_shards.support.tables import counted, table

_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCount:
    """What two sources have in common.

    Attributes:
        sources: the source of the first side, and that of the second.
        images: number of different images of the first that are in the second, by key.
        any_key: the same by any key.
        others: number of different images of the second that are in the first, by any key.
        alone: number of images that only the perceptual hash has found.
        examples: pairs of names, of those if there are any.
    """

    sources: tuple[str, str]
    images: dict[str, int]
    any_key: int
    others: int
    alone: int
    examples: tuple[tuple[str, str], ...]


def pair_counts(found: Found, sources: Sequence[str], other_sources: Sequence[str]) -> list[PairCount]:
    """Counts by pair of sources, in their order."""
    by_pair: dict[tuple[int, int], list[Match]] = {}
    for match in found.matches:
        by_pair.setdefault((match.source, int(found.side.sources[match.other])), []).append(match)
    return [
        _count(matches, (sources[source], other_sources[other_source]), found.side.names)
        for (source, other_source), matches in sorted(by_pair.items())
    ]


def _count(matches: Sequence[Match], sources: tuple[str, str], other_names: Sequence[str]) -> PairCount:
    exact = {match.image for match in matches if any(match.by[:2])}
    alone = [match for match in matches if match.image not in exact]
    return PairCount(
        sources=sources,
        images={key: len({match.image for match in matches if match.by[no]}) for no, key in enumerate(KEYS)},
        any_key=len({match.image for match in matches}),
        others=len({match.other for match in matches}),
        alone=len({match.image for match in alone}),
        examples=tuple((match.name, other_names[match.other]) for match in (alone or matches)[:_EXAMPLES]),
    )


def as_text(
    pairs: Sequence[PairCount], found: Found, other_sources: Sequence[str], *, own: bool, perceptual: bool
) -> str:
    """A table with a line for each pair of sources, and examples of what only the perceptual hash has found."""
    examined = f"{counted(sum(found.examined.tolist()), 'image')} examined"
    if not pairs:
        return f"no image stands twice; {examined}" if own else f"no image in common; {examined}"
    different = np.bincount(found.side.sources)
    first, second = ("again in", "first in") if own else ("training set", "evaluation set")
    rows = [
        (
            *pair.sources,
            *(pair.images[key] if perceptual or key != "perceptual" else "-" for key in KEYS),
            pair.any_key,
            f"{pair.others:,} of {different[other_sources.index(pair.sources[1])]:,}",
        )
        for pair in pairs
    ]
    head = (first, second, *KEYS, "any key", "of the latter")
    examples = [
        f"by look alone {pair.alone:,} of {pair.sources[0]}, such as {pair.examples[0][0]} = {pair.examples[0][1]}"
        for pair in pairs
        if pair.alone
    ]
    return "\n".join((table(head, rows), examined, *examples))


def plain_data(
    pairs: Sequence[PairCount], found: Found, other_sources: Sequence[str], *, own: bool, perceptual: bool
) -> dict[str, Any]:
    """The same as plain data."""
    first, second = ("again", "first") if own else ("train", "eval")
    return {
        "pairs": [
            {
                first: pair.sources[0],
                second: pair.sources[1],
                **{key: pair.images[key] for key in KEYS if perceptual or key != "perceptual"},
                "any": pair.any_key,
                "perceptual_alone": pair.alone,
                f"of_{second}": pair.others,
                "examples": [list(names) for names in pair.examples],
            }
            for pair in pairs
        ],
        "images": len({match.image for match in found.matches}),
        "examined": sum(found.examined.tolist()),
        f"{second}_images": {
            source: int(images)
            for source, images in zip(other_sources, np.bincount(found.side.sources).tolist(), strict=False)
        },
        "perceptual": perceptual,
        "unreadable": found.unreadable,
    }


def list_text(lines: set[str], title: str) -> str:
    """A list for `griffon-prep build --exclude`."""
    return f"# griffon-shards overlap: {title}\n" + "".join(f"{line}\n" for line in sorted(lines))
