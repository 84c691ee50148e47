"""The command line as a user runs it, and sets written by hand, for what no build would write."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from griffon_shards.cli import main
from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header, write_idx
from griffon_shards.interop import write_peer_files
from griffon_shards.lock import (
    FIRST_WITH_BOXES,
    FIRST_WITH_IMAGE_PATHS,
    REJECTS_NAME,
    Lock,
    ShardEntry,
    SourceEntry,
    write_lock,
)
from griffon_shards.sample_json import encode_sample
from griffon_shards.support.files import sha256_of
from griffon_shards.tar import END_OF_ARCHIVE, crc32, sample_bytes
from griffon_shards.types import TASKS, BoxXYXY, Origin, Rendering, Sample, Turn

PER_SHARD = 2
Rows = NDArray[np.void]


@pytest.fixture(scope="session")
def shards_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`griffon-shards ARGUMENTS`, its output captured; in this process, for the sake of time."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        result = CliRunner().invoke(main, given, prog_name="griffon-shards", catch_exceptions=False)
        return subprocess.CompletedProcess(given, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def variants_set(tmp_path_factory: pytest.TempPathFactory, freeze_demo: Callable[..., Path]) -> Path:
    """The sample data with two renderings a sample, and boxes as bins."""
    return freeze_demo(tmp_path_factory.mktemp("variants") / "out", "--variants", "2", "--boxes", "bin")


def _image(width_px: int, height_px: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width_px, height_px), "#808080").save(out, "PNG")
    return out.getvalue()


def _sample(
    key: str = "DET-000000000",
    *answers: str,
    question: str = "Find the cats.",
    size_px: tuple[int, int] | None = (64, 48),
    region_xyxy_px: tuple[float, float, float, float] | None = None,
) -> Sample:
    tag, _, record = key.rpartition("-")
    width_px, height_px = size_px or (0, 0)
    return Sample(
        key=key,
        image=None if size_px is None else _image(width_px, height_px),
        image_format="" if size_px is None else "PNG",
        width_px=width_px,
        height_px=height_px,
        task=tag.partition("_")[0],
        renderings=tuple(
            Rendering(
                turns=(Turn(role="human", text=question), Turn(role="gpt", text=answer)),
                region_xyxy_px=region_xyxy_px,
                boxes_xyxy_px=_boxes_in_pixels(answer, tag.partition("_")[0], width_px, height_px),
            )
            for answer in answers or ("cat-[0.100,0.200,0.300,0.400]",)
        ),
        origin=Origin(annotation="注释/det.jsonl", record=int(record)),
    )


def _boxes_in_pixels(answer: str, task: str, width_px: int, height_px: int) -> tuple[BoxXYXY, ...]:
    if task not in ANSWERED_WITH_BOXES:
        return ()
    try:
        boxes = [box for _, box in parse_answer(answer, task, "text")]
    except ValueError:
        return ()  # a test of answers that do not parse
    return tuple((x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px) for x1, y1, x2, y2 in boxes)


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    """A sample by key and answers (one a variant), with a plain grey image unless `size_px` is None."""
    return _sample


def _row(sample: Sample, raw: bytes, offset: int, shard: int, source: int) -> tuple[int, ...]:
    boxes = 0
    if sample.task in ANSWERED_WITH_BOXES:
        try:
            boxes = max(len(parse_answer(item.turns[-1].text, sample.task, "text")) for item in sample.renderings)
        except ValueError:
            boxes = 1  # a test of answers that do not parse
    chars = max(sum(len(turn.text) for turn in item.turns) for item in sample.renderings)
    record, task, has_image = sample.origin.record, TASKS.index(sample.task), int(sample.image is not None)
    return (shard, offset, len(raw), crc32(raw), record, source, task, has_image, boxes, chars)


def _source_entry(tag: str, samples: int, rejected: int) -> SourceEntry:
    return SourceEntry(
        tag=tag,
        task=tag.partition("_")[0],
        format="ccmd",
        annotation="注释/det.jsonl",
        annotation_bytes=1,
        annotation_sha256="0" * 64,
        options={},
        records=samples + rejected,
        samples=samples,
        rejected={"picture_not_found": rejected} if rejected else {},
        weight="1",
    )


def _write_set(
    root: Path,
    samples: Sequence[Sample],
    *,
    json: Mapping[str, bytes] | None = None,
    rejected: int = 0,
    edit: Callable[[Rows], None] | None = None,
    render: Mapping[str, Any] | None = None,
) -> Path:
    root.mkdir()
    by_tag: dict[str, list[Sample]] = {}
    for sample in samples:
        by_tag.setdefault(sample.key.rpartition("-")[0], []).append(sample)
    shards: list[ShardEntry] = []
    rows: list[tuple[int, ...]] = []
    for source, (tag, members) in enumerate(by_tag.items()):
        (root / tag).mkdir()
        for i in range(-(-len(members) // PER_SHARD)):
            tar = root / tag / f"{tag}-{i:06d}.tar"
            chosen = members[i * PER_SHARD : (i + 1) * PER_SHARD]
            data, offsets = b"", []
            for sample in chosen:
                raw = sample_bytes(sample.key, sample.image, (json or {}).get(sample.key) or encode_sample(sample))
                rows.append(_row(sample, raw, len(data), len(shards), source))
                offsets.append(len(data))
                data += raw
            tar.write_bytes(data + END_OF_ARCHIVE)
            write_idx(tar, offsets, len(data))
            size, sha256 = tar.stat().st_size, sha256_of(tar)
            name = tar.relative_to(root).as_posix()
            shards.append(
                ShardEntry(name=name, samples=len(chosen), bytes=size, sha256=sha256, dropped_boxes={"inverted": 1})
            )
    index = np.array(rows, INDEX_DTYPE)
    if edit is not None:
        edit(index)
    (root / INDEX_NAME).write_bytes(index_header(len(index)) + index.tobytes())
    lines = [f'{{"source":"{tag}","record":0,"reason":"picture_not_found","detail":""}}\n' * rejected for tag in by_tag]
    (root / REJECTS_NAME).write_text("".join(lines))
    settings = render or {"boxes": "text", "render_version": FIRST_WITH_BOXES}
    has_boxes = settings.get("render_version", FIRST_WITH_BOXES) >= FIRST_WITH_BOXES
    has_image_paths = settings.get("render_version", 0) >= FIRST_WITH_IMAGE_PATHS
    sizes = {shard.name: shard.samples for shard in shards}
    write_peer_files(root, sizes, has_boxes=has_boxes, has_image_paths=has_image_paths)
    lock = Lock(
        tool_version="0",
        library_versions={"pillow": "1"},
        render=settings,
        sources=tuple(_source_entry(tag, len(members), rejected) for tag, members in by_tag.items()),
        shards=tuple(shards),
        index_sha256=sha256_of(root / INDEX_NAME),
    )
    write_lock(root, lock)
    return root


@pytest.fixture(scope="session")
def write_set() -> Callable[..., Path]:
    """Writes samples as a frozen set of `PER_SHARD` samples a shard, with right checksums of whatever it is given.

    `json`: other bytes for the JSON of a key. `rejected`: how many rejects a source. `edit`: changes index rows first.
    """
    return _write_set


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """Three sources in five shards of tiny samples, small enough to try every bit."""
    samples = [
        *(_sample(f"DET_a-{record:09d}", size_px=(4, 3)) for record in (3, 0, 1)),
        *(_sample(f"LAZY_text-{record:09d}", "答 é", size_px=None) for record in (2, 0)),
        *(_sample(f"VG-{record:09d}", "None", size_px=(4, 3)) for record in (5, 1, 2)),
    ]
    return _write_set(tmp_path / "small", samples)
