"""Check a frozen set: every checksum, offset and member; with `deep`, every image and answer too."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.grammar import ANSWERED_WITH_BOXES, clamp_box, parse_answer, round_box
from griffon_shards.images import ImageError, decode
from griffon_shards.index import INDEX_NAME, idx_bytes, idx_path
from griffon_shards.interop import peer_files
from griffon_shards.lock import REJECTS_NAME, read_lock
from griffon_shards.sample_json import decode_sample, encode_sample
from griffon_shards.storage import ObjectPath, as_location
from griffon_shards.storage.node_cache import damaged_copy
from griffon_shards.storage.reading import open_location, sha256_at, sizes_below
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import counted
from griffon_shards.tar import END_OF_ARCHIVE, crc32, split_sample
from griffon_shards.types import TASKS, BoxXYXY, Rendering, Sample

_PIECE = 1 << 20
_SHARDS_AT_ONCE = 8


def verify_set(root: str | os.PathLike[str] | ObjectPath, *, deep: bool = False) -> Iterator[str]:
    """Yield the faults of a set, one line each, with shard and sample. A set without faults yields nothing.

    Args:
        root: the set's folder, or its URL.
        deep: also decode every image, parse every answer with boxes, and compare its boxes with those in pixels.
    """
    location = root if isinstance(root, ObjectPath) else as_location(os.fspath(root))
    try:
        lock = read_lock(location)
        if (sha256 := sha256_at(location / INDEX_NAME)) != lock.index_sha256:
            yield f"{location / INDEX_NAME}: damaged, its SHA-256 is {sha256}, the lock says {lock.index_sha256}"
            return
        shards = FrozenSet(location)
        if isinstance(location, ObjectPath) and sha256_at(shards.index_path) != lock.index_sha256:
            yield damaged_copy(shards.index_path, location / INDEX_NAME)
            return
    except FileNotFoundError as error:
        yield f"{error.filename}: missing"
        return
    except DataError as error:
        yield str(error)
        return
    sizes = sizes_below(location)
    yield from _check_folder(shards, sizes)
    bounds = np.searchsorted(shards.index["shard"], np.arange(len(lock.shards) + 1))
    waits = isinstance(location, ObjectPath)  # for the network
    with ThreadPoolExecutor(_SHARDS_AT_ONCE if waits else min(_SHARDS_AT_ONCE, os.cpu_count() or 1)) as pool:
        jobs = [
            (shards, sizes, shard_no, range(bounds[shard_no], bounds[shard_no + 1]), deep)
            for shard_no in range(len(lock.shards))
        ]
        for faults in pool.map(lambda job: list(_check_shard(*job)), jobs):
            yield from faults


def _check_folder(shards: FrozenSet, sizes: Mapping[str, int]) -> Iterator[str]:
    """Check for shards that are not in the lock; check the files for other readers and the reject list."""
    known = {shard.name for shard in shards.lock.shards}
    for name in sizes:
        if name.endswith(".tar") and name not in known:
            path = shards.root / name
            yield f"{path}: not in the lock; readers that take every tar would read it too, move it elsewhere"
    samples = {shard.name: shard.samples for shard in shards.lock.shards}
    has_boxes, has_image_paths = shards.lock.has_boxes, shards.lock.has_image_paths
    for name, content in peer_files(samples, has_boxes=has_boxes, has_image_paths=has_image_paths).items():
        path = shards.root / name
        if name not in sizes:
            yield f"{path}: missing"
        elif path.read_bytes() != content:
            yield f"{path}: altered, its content is not what was frozen"
    yield from _check_rejects(shards)


def _check_rejects(shards: FrozenSet) -> Iterator[str]:
    """Compare the reject list with the lock's counts by source and reason."""
    path = shards.root / REJECTS_NAME
    if not path.is_file():
        yield f"{path}: missing"
        return
    listed_counts: Counter[tuple[str, str]] = Counter()
    for line_no, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            fields = orjson.loads(line)
            listed_counts[fields["source"], fields["reason"]] += 1
            valid = fields.keys() == {"source", "record", "reason", "detail"} and isinstance(fields["record"], int)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            valid = False
        if not valid:
            yield f"{path}: line {line_no} is damaged"
    known = {source.tag for source in shards.lock.sources}
    for tag in dict.fromkeys(tag for tag, _ in listed_counts if tag not in known):
        listed = sum(count for (source, _), count in listed_counts.items() if source == tag)
        yield f"{path}: lists {counted(listed, 'record')} of {tag!r}, a source that is not in the lock"
    for source in shards.lock.sources:
        for reason in sorted({*source.rejected, *(reason for tag, reason in listed_counts if tag == source.tag)}):
            listed, in_lock = listed_counts[source.tag, reason], source.rejected.get(reason, 0)
            if listed != in_lock:
                records = counted(listed, "record")
                yield f"{path}: lists {records} of {source.tag} as {reason}, the lock counts {in_lock}"


def _check_shard(shards: FrozenSet, sizes: Mapping[str, int], shard_no: int, rows: range, deep: bool) -> Iterator[str]:
    entry = shards.lock.shards[shard_no]
    path = shards.root / entry.name
    if entry.name not in sizes:
        yield f"{path}: missing"
        return
    size_bytes = sizes[entry.name]
    if size_bytes != entry.bytes:
        yield f"{path}: {size_bytes} bytes, the lock says {entry.bytes}: truncated or altered"
    if len(rows) != entry.samples:
        yield f"{path}: {counted(len(rows), 'row')} in the index, the lock says {counted(entry.samples, 'sample')}"
    digest = hashlib.sha256()
    index: NDArray[np.void] = shards.index[rows.start : rows.stop]
    end = 0
    with open_location(path) as file:
        for row, facts in zip(rows, index, strict=True):
            if int(facts["offset"]) != end:
                yield f"{shards.where(row)}: the index has offset {int(facts['offset'])}, the sample begins at {end}"
            raw = file.read(int(facts["bytes"]))
            end += int(facts["bytes"])
            digest.update(raw)
            yield from _check_sample(shards, row, facts, raw, deep)
        rest = file.read(_PIECE)
        digest.update(rest)
    if rest != END_OF_ARCHIVE and size_bytes == entry.bytes:
        yield f"{path}: does not end with the two zero blocks of a tar"
    if digest.hexdigest() != entry.sha256:
        yield f"{path}: its SHA-256 is {digest.hexdigest()}, the lock says {entry.sha256}"
    offsets_name = idx_path(Path(entry.name)).as_posix()
    offsets = shards.root / offsets_name
    if offsets_name not in sizes:
        yield f"{offsets}: missing"
    elif offsets.read_bytes() != idx_bytes(index["offset"].tolist(), end):
        yield f"{offsets}: its offsets do not match the shard"


def _check_sample(shards: FrozenSet, row: int, facts: np.void, raw: bytes, deep: bool) -> Iterator[str]:
    where = shards.where(row)
    if crc32(raw) != int(facts["crc32"]):
        yield f"{where}: damaged, its bytes do not match their checksum in the index"
        return
    try:
        key, image, json = split_sample(raw, where)
        sample = decode_sample(key, image, json)
    except DataError as error:
        yield str(error)
        return
    if key != shards.key(row) or sample.origin.record != int(facts["record"]):
        yield f"{where}: the shard holds {key} (record {sample.origin.record}) instead"
    if TASKS[int(facts["task"])] != sample.task or bool(facts["has_image"]) != (image is not None):
        yield f"{where}: its task or image does not match the index"
    if encode_sample(sample) != json:
        yield f"{where}: its JSON is not in canonical form"
    if any((item.boxes_xyxy_px is not None) != shards.lock.has_boxes for item in sample.renderings):
        yield f"{where}: its JSON has {'no ' if shards.lock.has_boxes else ''}boxes, unlike sets of its render_version"
    if (sample.origin.image is not None) != shards.lock.has_image_paths:
        lacks = "no " if shards.lock.has_image_paths else "an "
        yield f"{where}: its JSON has {lacks}origin.image, unlike sets of its render_version"
    if deep:
        yield from _check_content(sample, int(facts["boxes"]), shards.lock.render["boxes"], where)


def _check_content(sample: Sample, boxes: int, style: str, where: str) -> Iterator[str]:
    if sample.image is not None:
        try:
            size_px = decode(sample.image).size
        except ImageError as error:
            yield f"{where}: the image does not decode: {error}"
        else:
            if size_px != (sample.width_px, sample.height_px):
                yield f"{where}: the image is {size_px}, its JSON says {(sample.width_px, sample.height_px)}"
    try:
        answered = [_answered_boxes(item, sample.task, style) for item in sample.renderings]
    except ValueError as error:
        yield f"{where}: {error}"
        return
    most = max(map(len, answered))
    if sample.task in ANSWERED_WITH_BOXES and min(most, 0xFFFF) != boxes:
        yield f"{where}: its answers hold {counted(most, 'box', 'boxes')}, the index says {boxes}"
    for item, written in zip(sample.renderings, answered, strict=True):
        if item.boxes_xyxy_px is not None:
            yield from _check_boxes(item.boxes_xyxy_px, written, sample, where)


def _answered_boxes(rendering: Rendering, task: str, style: str) -> list[BoxXYXY]:
    """The boxes (fractions) in the answers of a rendering."""
    if task not in ANSWERED_WITH_BOXES:
        return []
    answers = [turn.text for turn in rendering.turns if turn.role == "gpt"]
    return [box for answer in answers for _, box in parse_answer(answer, task, style)]


def _check_boxes(
    boxes_xyxy_px: Sequence[BoxXYXY], written: Sequence[BoxXYXY], sample: Sample, where: str
) -> Iterator[str]:
    """Compare the boxes in pixels with those that the answers write."""
    if len(boxes_xyxy_px) != len(written):
        yield f"{where}: its JSON lists {counted(len(boxes_xyxy_px), 'box', 'boxes')}, its answers hold {len(written)}"
        return
    width_px, height_px = sample.width_px, sample.height_px
    if boxes_xyxy_px and min(width_px, height_px) < 1:
        yield f"{where}: its JSON lists boxes in an image of {width_px}x{height_px} px"
        return
    for place, (box, answered) in enumerate(zip(boxes_xyxy_px, written, strict=True)):
        if clamp_box(box, width_px, height_px) != box or round_box(box, width_px, height_px) != answered:
            yield f"{where}: box {place} of its JSON is {box}, its answer has {answered} of {width_px}x{height_px} px"
            return
