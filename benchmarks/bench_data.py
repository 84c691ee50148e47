"""What `bench_prep.py` measures with: many JPEG pictures that all differ, and annotations of any size for them.

Only a few pictures are drawn; each file is one of them with a JPEG comment of its own put in, so that making 1.6 GB
takes seconds and still no two files are the same.
"""

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from PIL import Image

_WIDTH_PX, _HEIGHT_PX = 640, 480
_DRAWN = 200
_PER_FOLDER = 1000
_IMAGE_BYTES = 78_000  # to which the comment adds a little: about 80 kB a file
_MOST_COMMENT_BYTES = 4000
_APP0_END = 20  # start of image, then the JFIF header, which must come first
_CATEGORIES = 60
_BOXES = 7
_MANY_BOXES = 100
_BODIES = 500  # different lines of a large annotation; the rest repeats them under other pictures
_TEXT = 'the small red wooden chair stands next to a window and behind it one can see 椅子 on the sign, "open"'


@click.group()
def main() -> None:
    """Write the pictures and annotations of the benchmark."""


@main.command("pictures")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--images", type=click.IntRange(1), required=True)
def images_command(folder: Path, images: int) -> None:
    """Write `pictures/` with sub-folders, and `det.jsonl`, a `ccmd` DET annotation of them."""
    draws = np.random.default_rng(0)
    drawn = [_draw_jpeg(draws) for _ in range(min(_DRAWN, images))]
    for number in range(images):
        path = folder / "pictures" / image_name(number)
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(_with_comment(drawn[number % len(drawn)], number, draws))
    with (folder / "det.jsonl").open("wb") as file:
        for number in range(images):
            file.write(orjson.dumps(_record(number, _BOXES, draws)) + b"\n")


@main.command("large")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(["ccmd", "llava"]), required=True)
@click.option("--megabytes", type=click.IntRange(1), required=True)
@click.option("--images", type=click.IntRange(1), required=True, help="Pictures that its records share.")
def large_command(path: Path, kind: str, megabytes: int, images: int) -> None:
    """Write an annotation of so many megabytes: `ccmd` as JSONL, or `llava` as one JSON array on one line."""
    draws = np.random.default_rng(1)
    body: Callable[[np.random.Generator], dict[str, Any]] = _ccmd_body if kind == "ccmd" else _llava_body
    bodies = [orjson.dumps(body(draws))[1:] for _ in range(_BODIES)]
    field = b"image_path" if kind == "ccmd" else b"image"
    begin, between, end = (b"", b"\n", b"\n") if kind == "ccmd" else (b"[", b", ", b"]")
    with path.open("wb", buffering=1 << 20) as file:
        file.write(begin)
        written = 0
        for number, text in enumerate(_endless(bodies)):
            if number:
                written += file.write(between)
            name = image_name(number % images).encode()
            written += file.write(b'{"%s":"%s",%s' % (field, name, text))
            if written >= megabytes * 1_000_000:
                break
        file.write(end)


def image_name(number: int) -> str:
    """Where picture `number` lies, relative to the folder of pictures."""
    return f"{number // _PER_FOLDER:03d}/{number:06d}.jpg"


def _draw_jpeg(draws: np.random.Generator) -> bytes:
    """A texture of patches under grain, in the JPEG quality that comes nearest below the wanted size."""
    patches = draws.integers(0, 256, (_HEIGHT_PX // 40, _WIDTH_PX // 40, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(patches).resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BICUBIC), np.int16)
    grain = draws.normal(0, 14, (_HEIGHT_PX, _WIDTH_PX, 1)).astype(np.int16)
    image = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    data = b""
    for quality in range(95, 5, -3):
        out = BytesIO()
        image.save(out, "JPEG", quality=quality)
        data = out.getvalue()
        if len(data) <= _IMAGE_BYTES:
            break
    return data


def _with_comment(jpeg: bytes, number: int, draws: np.random.Generator) -> bytes:
    comment = b"picture %09d " % number + bytes(int(draws.integers(_MOST_COMMENT_BYTES)))
    return jpeg[:_APP0_END] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[_APP0_END:]


def _record(number: int, boxes: int, draws: np.random.Generator) -> dict[str, Any]:
    return {"image_path": image_name(number), **_sized_objects(boxes, draws)}


def _sized_objects(boxes: int, draws: np.random.Generator) -> dict[str, Any]:
    """The fields of a `ccmd` record behind its path."""
    objects: dict[str, list[list[float]]] = {}
    for kind in draws.integers(0, _CATEGORIES, boxes).tolist():
        x1, y1 = draws.uniform(0, _WIDTH_PX - 60), draws.uniform(0, _HEIGHT_PX - 60)
        x2, y2 = draws.uniform(x1 + 20, _WIDTH_PX), draws.uniform(y1 + 20, _HEIGHT_PX)
        objects.setdefault(f"category {kind}", []).append([round(float(edge), 2) for edge in (x1, y1, x2, y2)])
    return {
        "height": _HEIGHT_PX,
        "width": _WIDTH_PX,
        "dataset_name": "bench",
        "objects": [{"category_name": name, "bboxes": found} for name, found in objects.items()],
    }


def _ccmd_body(draws: np.random.Generator) -> dict[str, Any]:
    return _sized_objects(_MANY_BOXES, draws)


def _llava_body(draws: np.random.Generator) -> dict[str, Any]:
    turns, known = [], _TEXT.split()
    for turn in range(4):
        words = " ".join(known[i] for i in draws.integers(0, len(known), 60 if turn % 2 else 15))
        front = "<image>\n" if turn == 0 else ""
        turns.append({"from": "gpt" if turn % 2 else "human", "value": front + words})
    return {"id": f"{draws.integers(1 << 40):012d}", "conversations": turns}


def _endless(bodies: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from bodies


if __name__ == "__main__":
    main()
