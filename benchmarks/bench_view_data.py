"""The set that `bench_view.py` measures with: a million samples in a few gigabytes, made in a minute.

All samples share one small image. Texts, categories, boxes and stated image sizes are drawn, so that they are spread as
in real data: words and categories by Zipf's law, expressions nearly all different.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from griffon_shards.grammar import format_answer
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.lock import Lock, ShardEntry, SourceEntry, write_lock
from griffon_shards.tar import END_OF_ARCHIVE, crc32, sample_bytes
from griffon_shards.types import TASKS, BoxXYXY

_SHARES = {"DET": 0.4, "VG": 0.3, "REG": 0.15, "LAZY": 0.15}
_PER_SHARD = 10_000
_CATEGORIES, _ASKED, _WORDS = 1000, 20, 30_000
_SYLLABLES = ("ba", "co", "du", "fe", "gi", "ha", "ko", "lu", "me", "no", "pa", "ri", "so", "ta", "ve", "zu")
_QUESTIONS = {
    "DET": "Examine the image for any objects from the category set. Report the coordinates of each detected object. "
    "The category set includes {}.",
    "VG": "Where in the image can I find {}? Report its coordinates.",
    "REG": "Provide a short expression that describes the object at {}.",
    "LAZY": "Describe the image in a few sentences.",
}
_JPEG_PX = (64, 48)

Draws = np.random.Generator


def make_set(folder: Path, samples: int) -> None:
    """Write a frozen set of about so many samples. The same number gives the same set."""
    image = BytesIO()
    Image.linear_gradient("L").resize(_JPEG_PX).save(image, "JPEG")
    sources: list[SourceEntry] = []
    shards: list[ShardEntry] = []
    rows = np.zeros(samples, INDEX_DTYPE)
    row = 0
    for place, (task, share) in enumerate(_SHARES.items()):
        tag, stop = f"{task}_bench", samples if place == len(_SHARES) - 1 else row + round(share * samples)
        (folder / tag).mkdir(parents=True)
        count, records = stop - row, np.random.default_rng(place).permutation(stop - row)
        for start in range(0, count, _PER_SHARD):
            part = records[start : start + _PER_SHARD]
            name = f"{tag}/{tag}-{start // _PER_SHARD:06d}.tar"
            block = rows[row : row + len(part)]
            block["shard"], block["source"], block["task"], block["has_image"] = (
                len(shards),
                place,
                TASKS.index(task),
                1,
            )
            block["record"] = part
            size = _write_shard(folder / name, block, tag, task, image.getvalue())
            shards.append(ShardEntry(name=name, samples=len(part), bytes=size, sha256="", dropped_boxes={}))
            row += len(part)
        sources.append(_source(tag, task, count))
    (folder / INDEX_NAME).write_bytes(index_header(samples) + rows.tobytes())
    (folder / "rejects.jsonl").write_bytes(b"")
    lock = Lock(
        tool_version="0",
        library_versions={},
        render={"boxes": "text", "render_version": 3},
        sources=tuple(sources),
        shards=tuple(shards),
        index_sha256="",
    )
    write_lock(folder, lock)


def _source(tag: str, task: str, count: int) -> SourceEntry:
    return SourceEntry(
        tag=tag,
        task=task,
        format="bench",
        annotation=f"{tag}.jsonl",
        annotation_bytes=0,
        annotation_sha256="",
        options={},
        records=count,
        samples=count,
        rejected={},
        weight="1",
    )


def _write_shard(path: Path, block: NDArray[np.void], tag: str, task: str, image: bytes) -> int:
    """Write a shard, and the facts that follow from its samples into the index. Returns its size."""
    draws = np.random.default_rng(int(block["shard"][0]))
    offset = 0
    with path.open("wb") as file:
        for place, (question, answer, boxes, width_px, height_px) in enumerate(_contents(task, len(block), draws)):
            record = int(block["record"][place])
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            fields: dict[str, Any] = {
                "boxes": [[x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px] for x1, y1, x2, y2 in boxes],
                "conversations": turns,
                "height": height_px,
                "image_format": "JPEG",
                "origin": {"annotation": f"{tag}.jsonl", "record": record},
                "region": [0.0, 0.0, 0.0, 0.0],
                "task": task,
                "width": width_px,
            }
            raw = sample_bytes(f"{tag}-{record:09d}", image, orjson.dumps(fields))
            file.write(raw)
            entry = block[place]
            entry["offset"], entry["bytes"], entry["crc32"] = offset, len(raw), crc32(raw)
            entry["boxes"] = len(boxes) if task != "REG" else 1
            entry["text_chars"] = sum(len(turn["value"]) for turn in turns)
            offset += len(raw)
        file.write(END_OF_ARCHIVE)
    return offset + len(END_OF_ARCHIVE)


def _contents(task: str, count: int, draws: Draws) -> Iterator[tuple[str, str, list[BoxXYXY], int, int]]:
    """Question, answer, boxes as fractions, image width and height of samples."""
    widths, heights = draws.integers(200, 1300, count).tolist(), draws.integers(200, 1000, count).tolist()
    words = _words()
    categories = [f"{words[number * 7]} {words[number]}" for number in range(_CATEGORIES)]
    numbers = draws.integers(1, 13, count).tolist()
    make = _MAKERS[task]
    for width_px, height_px, number in zip(widths, heights, numbers, strict=True):
        question, answer, boxes = make(number, words, categories, draws)
        yield _QUESTIONS[task].format(question), answer, boxes, width_px, height_px


_Made = tuple[str, str, list[BoxXYXY]]


def _det(number: int, _words: list[str], categories: list[str], draws: Draws) -> _Made:
    names = [categories[place] for place in _zipf(draws, number, len(categories))]
    asked = dict.fromkeys([*names, *(categories[place] for place in draws.integers(0, len(categories), _ASKED))])
    boxes = _boxes(number, draws)
    return ", ".join(asked), format_answer(list(zip(names, boxes, strict=True)), "text"), boxes


def _vg(_number: int, words: list[str], _categories: list[str], draws: Draws) -> _Made:
    phrase = " ".join(words[place] for place in _zipf(draws, 5, len(words)))
    boxes = _boxes(1, draws)
    return phrase, format_answer([(phrase, boxes[0])], "text"), boxes


def _reg(_number: int, words: list[str], _categories: list[str], draws: Draws) -> _Made:
    (box,) = _boxes(1, draws)
    return format_answer([("", box)], "text"), " ".join(words[place] for place in _zipf(draws, 6, len(words))), []


def _lazy(number: int, words: list[str], _categories: list[str], draws: Draws) -> _Made:
    return "", " ".join(words[place] for place in _zipf(draws, 10 + 5 * number, len(words))), []


_MAKERS: dict[str, Callable[[int, list[str], list[str], Draws], _Made]] = {
    "DET": _det,
    "VG": _vg,
    "REG": _reg,
    "LAZY": _lazy,
}


def _zipf(draws: Draws, count: int, values: int) -> list[int]:
    """Places in a list, the first ones most often."""
    places: list[int] = (np.exp(draws.random(count) * np.log(values)).astype(np.int64) - 1).tolist()
    return places


def _boxes(count: int, draws: Draws) -> list[BoxXYXY]:
    corners, sizes = draws.random((count, 2)) * 0.7, 0.01 + 0.29 * draws.random((count, 2)) ** 2
    low, high = np.round(corners, 3), np.round(corners + sizes, 3)
    return [(x1, y1, x2, y2) for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True)]


def _words() -> list[str]:
    """Words, the most frequent ones first and shortest."""
    base = len(_SYLLABLES)
    words = []
    for number in range(_WORDS):
        syllables, rest = "", number
        while True:
            rest, place = divmod(rest, base)
            syllables += _SYLLABLES[place]
            if not rest:
                break
        words.append(syllables)
    return words
