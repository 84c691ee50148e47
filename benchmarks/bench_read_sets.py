"""The sets that `bench_read.py` reads: one of pictures, one of several tasks, and one of millions of rows."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from common import call
from numpy.typing import NDArray

from griffon_shards.frozen_set import open_set
from griffon_shards.index import INDEX_NAME, index_header
from griffon_shards.lock import write_lock
from griffon_shards.support.files import sha256_of
from griffon_shards.tar import split_sample

_HERE = Path(__file__).resolve().parent
_MIX = {"LAZY": (0.25, 900), "DET": (0.3125, 1500), "REG": (0.1875, 240), "VG": (0.25, 200)}
"""Share of the rows, and mean characters (gamma-distributed, shape 2), of each task in the mix."""
_OF_EACH = 500  # samples behind the rows of a task
_TEXT_ONLY = 10  # one LAZY row in so many has no picture


def make_sets(own: Path, samples: int) -> tuple[Path, Path]:
    """A set of so many DET samples of about 80 kB, and one of `_OF_EACH` samples of each task in the mix."""
    call([sys.executable, _HERE / "bench_data.py", "pictures", own, "--images", samples])
    records = [orjson.loads(line) for line in (own / "det.jsonl").read_bytes().splitlines()]
    for task in _MIX:
        few = records[:_OF_EACH] if task == "DET" else _records(task, records[:_OF_EACH])
        (own / f"{task}.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in few))
    made = (
        _build(own, "pictures", "DET & det.jsonl & pictures\n"),
        _build(own, "tasks", "".join(f"{task} & {task}.jsonl & pictures\n" for task in _MIX)),
    )
    shutil.rmtree(own / "pictures")
    return made


def _build(own: Path, name: str, manifest: str) -> Path:
    (own / f"{name}.txt").write_text(manifest, encoding="utf-8")
    command = [Path(sys.executable).with_name("griffon-prep"), "build", "--manifest", own / f"{name}.txt"]
    call([*command, "--data-root", own, "--out", own / f"{name}-set", "--check", "header"])
    return own / f"{name}-set"


def _records(task: str, detections: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A record of another task for the picture of each DET record."""
    for number, found in enumerate(detections):
        first = found["objects"][0]
        if task == "LAZY":
            pictured = number % _TEXT_ONLY > 0
            asked = ("<image>\n" if pictured else "") + "What is there to say?"
            said = f"There is {first['category_name']}."
            turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]
            image = {"image": found["image_path"]} if pictured else {}
            yield {"id": str(number), **image, "conversations": turns}
        else:
            fields = {name: found[name] for name in ("image_path", "height", "width")}
            yield {**fields, "expression": f"the {first['category_name']}", "bboxes": first["bboxes"][:1]}


def content_bytes(root: Path) -> int:
    """Pictures and JSON of all samples together."""
    frozen = open_set(root)
    members = (split_sample(frozen.raw(row), frozen.where(row)) for row in range(len(frozen)))
    return sum(len(image or b"") + len(json) for _, image, json in members)


def many_rows(root: Path, target: Path, rows: int) -> Path:
    """A set of the tasks in the mix whose rows stand in the index over and over again, with lengths as they come."""
    draws = np.random.default_rng(0)
    frozen = open_set(root)
    shutil.copytree(root, target)
    parts: list[NDArray[np.void]] = []
    for source in frozen.lock.sources:
        share, mean_chars = _MIX[source.tag]
        of_source = frozen.rows_of_source(source.tag)
        part = np.resize(np.asarray(frozen.index[of_source.start : of_source.stop]), int(rows * share))
        part["text_chars"] = draws.gamma(2, mean_chars / 2, len(part)) + 40
        parts.append(part)
    index = np.concatenate(parts)
    sources = [replace(source, samples=len(part)) for source, part in zip(frozen.lock.sources, parts, strict=True)]
    first, *others = frozen.lock.shards
    shards = (replace(first, samples=first.samples + len(index) - len(frozen)), *others)
    (target / INDEX_NAME).write_bytes(index_header(len(index)) + index.tobytes())
    digest = sha256_of(target / INDEX_NAME)
    write_lock(target, replace(frozen.lock, sources=tuple(sources), shards=shards, index_sha256=digest))
    return target
