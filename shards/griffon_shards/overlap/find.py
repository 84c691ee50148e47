"""Find the images that two sides have in common, or that one side has twice, in several processes.

The evaluation side is kept in memory, as the arrays of a `Table`. The training side is streamed: of its images, only
those that match are kept.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.image_list import is_file_name
from griffon_shards.overlap.examine import Keys, examine
from griffon_shards.overlap.inputs import Input, Job, jobs
from griffon_shards.overlap.table import KEYS, Matches, Table, identity_numbers, make_table, numbers_of, sha256_numbers
from griffon_shards.support.worker_pool import InProcess, LocalPool

_IMAGES_PER_JOB = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An image of the first side that is the same as one of the second.

    Attributes:
        source: number of its source on its side.
        name: its name.
        image: what tells it apart from other images of the source.
        other: number of the image of the second side.
        by: by which of `KEYS` they are the same.
    """

    source: int
    name: str
    image: bytes
    other: int
    by: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """The images of one side, each once in a source, sorted by source and name; fields as in `Keys`.

    `identities` are the numbers that `identity_numbers` makes of them; shape [images].
    """

    names: list[str]
    sources: NDArray[np.uint16]
    identities: NDArray[np.uint64]
    sha256s: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    from_file: NDArray[np.bool_]


@dataclass(slots=True)
class Found:
    """The result of a comparison.

    Attributes:
        side: the images of the second side, each once in a source.
        matches: the pairs, sorted by the first image's source and name.
        lines: lines that name the matched images of the first side, for a list.
        unlisted: number of matched images that no line can name.
        examined: number of images of the first side by source, with repetitions.
        unreadable: messages about images that could not be decoded.
    """

    side: Side
    matches: list[Match] = field(default_factory=list)
    lines: set[str] = field(default_factory=set)
    unlisted: int = 0
    examined: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    unreadable: list[str] = field(default_factory=list)


def list_lines_of(keys: Keys, place: int) -> tuple[str, ...]:
    """The lines that name an image in a list: its identities, and its bytes' hash; or if there is neither, its path."""
    identities = (keys.identities[place], keys.own_identities[place])
    sha256 = keys.sha256s[place].tobytes().hex() if keys.from_file[place] and keys.sha256s[place].any() else ""
    lines = tuple(filter(None, dict.fromkeys((*identities, sha256))))
    return lines or ((keys.names[place],) if is_file_name(keys.names[place]) else ())


def read_side(
    inputs: Sequence[Input],
    image_data: Path | None,
    pool: LocalPool | InProcess,
    *,
    perceptual: bool,
    listed: bool,
    done: Callable[[int], object],
) -> Found:
    """Examine all images of a side; returns them as `side` of a result, if `listed` with the lines that name them."""
    pieces: list[Keys] = []
    lines: set[str] = set()
    unlisted = 0
    for keys in pool.run(examine, jobs(tuple(inputs), image_data, perceptual=perceptual)):
        pieces.append(keys)
        for place in range(len(keys.names)) if listed else ():
            own_lines = list_lines_of(keys, place)
            lines.update(own_lines)
            unlisted += not own_lines
        done(len(keys.names))
    unreadable = [message for keys in pieces for message in keys.unreadable]
    return Found(side=_once(pieces), lines=lines, unlisted=unlisted, unreadable=unreadable)


def _once(pieces: Sequence[Keys]) -> Side:
    """Put pieces together, sorted by source and name, with every image once in a source."""
    names = [name for keys in pieces for name in keys.names]
    sources = np.concatenate([keys.sources for keys in pieces])
    sha256s = np.concatenate([keys.sha256s for keys in pieces])
    order = np.array(sorted(range(len(names)), key=lambda place: (sources[place], names[place])), np.int64)
    identities = np.concatenate([identity_numbers(keys.identities) for keys in pieces])
    seen: set[tuple[int, bytes]] = set()
    kept = []
    for place in order.tolist():
        image = (int(sources[place]), _image(sha256s[place], identities[place], names[place]))
        if image not in seen:
            seen.add(image)
            kept.append(place)
    rows = np.array(kept, np.int64)
    return Side(
        names=[names[place] for place in kept],
        sources=sources[rows],
        identities=identities[rows],
        sha256s=sha256s[rows],
        hashes=np.concatenate([keys.hashes for keys in pieces])[rows],
        from_file=np.concatenate([np.array(keys.from_file, bool) for keys in pieces])[rows],
    )


def _image(sha256: NDArray[np.uint8], identity: np.uint64, name: str) -> bytes:
    """What tells an image apart: its bytes, and its identity, as placeholders for lost images have equal bytes."""
    return sha256[:16].tobytes() + identity.tobytes() if sha256.any() else name.encode()


def compare(
    inputs: Sequence[Input],
    side: Side,
    image_data: Path | None,
    pool: LocalPool | InProcess,
    *,
    perceptual: bool,
    done: Callable[[int], object],
) -> Found:
    """Find the images of some inputs that are the same as images of a side."""
    found = Found(side=side, examined=np.zeros(sum(len(one.sources) for one in inputs), np.int64))
    matches: dict[tuple[int, bytes, int], Match] = {}
    with tempfile.TemporaryDirectory(prefix="griffon-overlap-") as name:
        _table_of(side).save(Path(name))
        for part in pool.run(
            partial(_examine_and_match, folder=name), jobs(tuple(inputs), image_data, perceptual=perceptual)
        ):
            for match in part.matches:
                key = (match.source, match.image, match.other)
                if key not in matches or match.name < matches[key].name:
                    matches[key] = match
            found.lines |= part.lines
            found.unlisted += part.unlisted
            found.unreadable += part.unreadable
            found.examined[: len(part.examined)] += part.examined
            done(int(part.examined.sum()))
    found.matches = sorted(matches.values(), key=lambda match: (match.source, match.name, match.other))
    return found


def compare_with_itself(side: Side, pool: LocalPool | InProcess, done: Callable[[int], object]) -> Found:
    """Find the images of a side that are the same as an earlier one; those of one source come before the next one's."""
    found = Found(side=side, examined=np.bincount(side.sources).astype(np.int64))
    with tempfile.TemporaryDirectory(prefix="griffon-overlap-") as name:
        folder = Path(name)
        _table_of(side).save(folder)
        np.save(folder / "by_image.npy", side.identities)
        np.save(folder / "by_image_sha256.npy", sha256_numbers(side.sha256s))
        starts = range(0, len(side.names), _IMAGES_PER_JOB)
        for start, matches in pool.run(partial(_match_own, folder=name), starts):
            for query, other, by in zip(matches.queries.tolist(), matches.images.tolist(), matches.by, strict=True):
                found.matches.append(
                    Match(
                        source=int(side.sources[query]),
                        name=side.names[query],
                        image=_image(side.sha256s[query], side.identities[query], side.names[query]),
                        other=other,
                        by=tuple(by.tolist()),
                    )
                )
            lines = _lines_of_own(side, matches)
            found.lines.update(filter(None, lines))
            found.unlisted += lines.count("")
            done(min(_IMAGES_PER_JOB, len(side.names) - start))
    found.matches.sort(key=lambda match: (match.source, match.name, match.other))
    return found


def _lines_of_own(side: Side, matches: Matches) -> list[str]:
    """The lines that exclude the later images, and not the earlier ones; `""` for one that no line names alone.

    Images with the same bytes as an earlier one, in another source, are left: a list cannot tell them apart.
    """
    same_bytes = set(matches.queries[matches.by[:, KEYS.index("sha256")]].tolist())
    others = set(matches.queries.tolist()) - same_bytes
    return [_line_of_own(side, row) for row in others]


def _line_of_own(side: Side, row: int) -> str:
    """The line that names one image alone, or `""`: the hash of its bytes, or its path."""
    if side.from_file[row] and side.sha256s[row].any():
        return bytes(side.sha256s[row]).hex()
    name = side.names[row]
    return name if is_file_name(name) else ""


def _table_of(side: Side) -> Table:
    return make_table(side.sources, side.identities, sha256_numbers(side.sha256s), side.hashes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """The matches of one job's images."""

    matches: list[Match]
    lines: set[str]
    unlisted: int
    unreadable: list[str]
    examined: NDArray[np.int64]


def _examine_and_match(job: Job, *, folder: str) -> _Part:
    keys = examine(job)
    identities, sha256s, hashes = numbers_of(keys)
    matches = _load(folder).look_up(identities, sha256s, hashes)
    matched = [list_lines_of(keys, place) for place in np.unique(matches.queries).tolist()]
    return _Part(
        matches=[
            Match(
                source=int(keys.sources[query]),
                name=keys.names[query],
                image=_image(keys.sha256s[query], identities[query], keys.names[query]),
                other=other,
                by=tuple(by.tolist()),
            )
            for query, other, by in zip(matches.queries.tolist(), matches.images.tolist(), matches.by, strict=True)
        ],
        lines={line for lines in matched for line in lines},
        unlisted=sum(not lines for lines in matched),
        unreadable=keys.unreadable,
        examined=np.bincount(keys.sources).astype(np.int64),
    )


def _match_own(start: int, *, folder: str) -> tuple[int, Matches]:
    """The matches of some images with earlier ones; `queries` are numbers of images."""
    table = _load(folder)
    rows = slice(start, start + _IMAGES_PER_JOB)
    identities = np.load(Path(folder) / "by_image.npy", mmap_mode="r")[rows]
    sha256s = np.load(Path(folder) / "by_image_sha256.npy", mmap_mode="r")[rows]
    matches = table.look_up(identities, sha256s, table.hashes[rows])
    earlier = matches.images < matches.queries + start
    return start, Matches(
        queries=matches.queries[earlier] + start, images=matches.images[earlier], by=matches.by[earlier]
    )


@lru_cache(maxsize=1)
def _load(folder: str) -> Table:
    return Table.load(Path(folder))
