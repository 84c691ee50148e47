"""What `bench_prep.py` compares with: the loops that somebody would write by hand. Each prints the seconds it took.

The clock runs without Python's start and the imports, which our own builds are charged with: that favours the loops.
"""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import click
import orjson

from griffon_prep.images import check_image, read_image

_PIECE = 250  # pictures handed to a process at a time


@click.group()
def main() -> None:
    """Run one of the loops that the benchmark compares with."""


@main.command("shard-writer")
@click.argument("annotation", type=click.Path(path_type=Path))
@click.argument("pictures", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def shard_writer_command(annotation: Path, pictures: Path, out: Path) -> None:
    """One process: a question and an answer from each line, the picture's bytes, `webdataset.ShardWriter`, a sync."""
    import json

    import webdataset

    out.mkdir()
    began = time.perf_counter()
    with (
        annotation.open(encoding="utf-8") as lines,
        webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=1000, verbose=0) as sink,
    ):
        for number, line in enumerate(lines):
            record = json.loads(line)
            image = (pictures / record["image_path"]).read_bytes()
            sink.write({"__key__": f"{number:09d}", "jpg": image, "json": _rendered(record)})
    for shard in out.iterdir():
        with shard.open("rb") as file:
            os.fsync(file.fileno())
    click.echo(time.perf_counter() - began)


def _rendered(record: dict[str, Any]) -> dict[str, Any]:
    width_px, height_px = record["width"], record["height"]
    names = [item["category_name"] for item in record["objects"]]
    answer = "&".join(
        f"{item['category_name']}-[{x1 / width_px:.3f},{y1 / height_px:.3f},{x2 / width_px:.3f},{y2 / height_px:.3f}]"
        for item in record["objects"]
        for x1, y1, x2, y2 in item["bboxes"]
    )
    return {
        "conversations": [
            {"from": "human", "value": f"<image>\nFind every {', '.join(names)} in the picture."},
            {"from": "gpt", "value": answer},
        ],
        "width": width_px,
        "height": height_px,
    }


@main.command("check")
@click.argument("annotation", type=click.Path(path_type=Path))
@click.argument("pictures", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(1), required=True)
def check_command(annotation: Path, pictures: Path, workers: int) -> None:
    """The picture check of `--check decode` alone, over all pictures, on so many processes that run already."""
    with annotation.open("rb") as lines:
        names = [orjson.loads(line)["image_path"] for line in lines]
    pieces = [(str(pictures.absolute()), names[first : first + _PIECE]) for first in range(0, len(names), _PIECE)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(_check_all, [(root, few[:20]) for root, few in pieces[: 4 * workers]], chunksize=1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(_check_all, pieces):
            pass
        click.echo(time.perf_counter() - began)


def _check_all(piece: tuple[str, list[str]]) -> None:
    root, names = piece
    for name in names:
        check_image(read_image(root, name).data, "decode", (0, 0), name)


if __name__ == "__main__":
    main()
