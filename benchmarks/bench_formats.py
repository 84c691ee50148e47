"""`make bench-formats`: reading an Objects365-shaped annotation beside a plain ijson loop, and the memory it takes.

`--large` reads one of the full size instead, 1.7 million pictures with 25 million boxes, and no ijson beside it.
`bench_formats.py yolo` reads a folder of 200,000 images with labels.
"""

import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import click
import ijson
import numpy as np
import orjson
from common import call, lines, machine, scratch, word
from PIL import Image

from griffon_prep.readers import coco, yolo
from griffon_prep.readers.base import AnnotationFiles
from griffon_prep.readers.folders import sha256_of_input
from griffon_prep.sources.sized_records import ImageOnce, sized
from griffon_shards.support.tables import size, table

_LEAST_OF_IJSON = 3.0
_SIZES = {False: (200_000, 3_000_000, 400e6), True: (1_700_000, 25_000_000, 2e9)}
"""Pictures, boxes, and the most bytes that reading may take; with `--large` those of the second line."""

_CATEGORIES = 365
_BLOCK = 20_000  # elements written at once
_MOST_LINKS = 50_000  # of one file; ext4 allows 65,000
_MOST_YOLO_BYTES = 300e6


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--large", is_flag=True, help="The full size, our reader alone.")
@click.option("--runs", type=click.IntRange(1), default=5, help="Runs of each; medians count. One with --large.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the file.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the file there.")
@click.pass_context
def main(context: click.Context, large: bool, runs: int, folder: Path | None, keep: bool) -> None:
    """Measure how fast a large annotation is read, and with how much memory."""
    if context.invoked_subcommand:
        return
    pictures, boxes, most_bytes = _SIZES[large]
    with scratch(folder, keep) as own:
        annotation = own / "zhiyuan_objv2_train.json"
        click.echo(machine(own))
        _write_objects365(annotation, pictures, boxes)
        click.echo(f"{pictures:,} pictures, {boxes:,} boxes, {size(annotation.stat().st_size)}\n")
        loops = ("ours", "records") if large else ("ours", "ijson", "ijson-annotations", "records")
        found = {loop: _measured(loop, annotation, own, 1 if large else runs) for loop in loops}
    names = {
        "ours": "griffon-prep: tables of all pictures and boxes",
        "ijson": "ijson (yajl2_c, floats): a loop over images, and one over annotations",
        "ijson-annotations": "ijson (yajl2_c, floats): the loop over annotations alone",
        "records": "griffon-prep: then every record by number, one process",
    }
    rows = [
        (names[loop], f"{median(seconds):.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}", size(peak))
        for loop, (seconds, peak) in found.items()
    ]
    click.echo(table(("loop", "median s", "min-max s", "peak resident"), rows) + "\n")
    targets = [
        ("peak of reading", size(found["ours"][1]), f"at most {size(most_bytes)}", found["ours"][1] <= most_bytes)
    ]
    if not large:
        ratio = median(found["ijson"][0]) / median(found["ours"][0])
        targets.append(
            ("speed of ijson's", f"{ratio:.2f} x", f"at least {_LEAST_OF_IJSON} x", ratio >= _LEAST_OF_IJSON)
        )
    click.echo(table(("target", "found", "wanted", ""), [(*target[:3], word(target[3])) for target in targets]))


def _measured(loop: str, annotation: Path, own: Path, runs: int) -> tuple[list[float], int]:
    """Seconds of every run, and the largest peak in bytes; the file is in the page cache."""
    with annotation.open("rb") as file:
        while file.read(1 << 22):
            pass
    done = [orjson.loads(call([sys.executable, __file__, "loop", loop, annotation, own / "work"])) for _ in range(runs)]
    return [seconds for seconds, _ in done], max(peak for _, peak in done)


@main.command("loop")
@click.argument("loop", type=click.Choice(["ours", "ijson", "ijson-annotations", "records"]))
@click.argument("annotation", type=click.Path(path_type=Path))
@click.argument("work", type=click.Path(path_type=Path))
def loop_command(loop: str, annotation: Path, work: Path) -> None:
    """One contender in a process of its own: prints its seconds and its peak of resident memory in bytes."""
    work.mkdir(exist_ok=True)
    inputs = AnnotationFiles(annotation=annotation, companions={}, task="DET", options={}, work=work)
    began = time.perf_counter()
    if loop == "ours":
        coco.scan(inputs)
    elif loop.startswith("ijson"):
        _ijson_loop(annotation, ("images", "annotations") if loop == "ijson" else ("annotations",))
    else:
        reader = coco.Reader(inputs)
        for number in range(_SIZES[annotation.stat().st_size > 2e9][0]):
            reader.read(number)
    seconds = time.perf_counter() - began
    # Not getrusage: what it gives begins with the memory of the process that this one was forked from.
    peak = next(int(line.split()[1]) * 1024 for line in lines("/proc/self/status") if line.startswith("VmHWM"))
    click.echo(orjson.dumps([seconds, peak]))


@main.command("yolo")
@click.option("--images", type=click.IntRange(1), default=200_000, help="Number of images, and of labels.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the files there.")
def yolo_command(images: int, folder: Path | None, keep: bool) -> None:
    """Measure how fast a YOLO set is hashed and scanned, and how fast its records are read with the images' sizes."""
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        _write_yolo(own, images)
        loops = ("scan", "records")
        found = {loop: orjson.loads(call([sys.executable, __file__, "yolo-loop", loop, own])) for loop in loops}
    names = {
        "scan": f"hash of all labels, and scan of {images:,} images, one process",
        "records": "every record with the size of its image, two processes",
    }
    rows = [(names[loop], f"{took[0]:.1f}", f"{took[1]:.1f}", size(peak)) for loop, (*took, peak) in found.items()]
    click.echo(table(("loop", "s", "CPU s", "peak resident"), rows) + "\n")
    seconds, _, peak = found["scan"]
    targets = [
        ("hash and scan", f"{seconds:.1f} s", "under 60 s", seconds < 60),
        ("peak", size(peak), f"under {size(_MOST_YOLO_BYTES)}", peak < _MOST_YOLO_BYTES),
    ]
    click.echo(table(("target", "found", "wanted", ""), [(*target[:3], word(target[3])) for target in targets]))


@main.command("yolo-loop")
@click.argument("loop", type=click.Choice(["scan", "records"]))
@click.argument("own", type=click.Path(path_type=Path))
def yolo_loop_command(loop: str, own: Path) -> None:
    """One part in a process of its own: prints seconds, CPU seconds and the peak of resident memory in bytes."""
    (own / "work").mkdir(exist_ok=True)
    annotation = own / "data.yaml"
    companions = yolo.further_inputs(annotation, {})
    inputs = AnnotationFiles(annotation=annotation, companions=companions, task="DET", options={}, work=own / "work")
    began = time.perf_counter()
    if loop == "scan":
        for path in inputs.paths:
            sha256_of_input(path)
        click.echo(yolo.scan(inputs).records, err=True)
    else:
        records = sum(1 for _ in (own / "images/train").iterdir())
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(partial(_read_yolo, inputs), range(0, records, _BLOCK), [records] * (records // _BLOCK + 1)))
    seconds = time.perf_counter() - began
    peak = next(int(line.split()[1]) * 1024 for line in lines("/proc/self/status") if line.startswith("VmHWM"))
    own_use, of_children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_seconds = sum(use.ru_utime + use.ru_stime for use in (own_use, of_children))
    click.echo(orjson.dumps([seconds, cpu_seconds, max(peak, of_children.ru_maxrss * 1024)]))


def _read_yolo(inputs: AnnotationFiles, first: int, records: int) -> None:
    reader = yolo.Reader(inputs)
    for number in range(first, min(first + _BLOCK, records)):
        sized(reader.read(number), ImageOnce(str(inputs.annotation.parent)), upright=False)


def _write_yolo(own: Path, images: int) -> None:
    """A set with seven boxes in each image on average. All images are links to a few JPEGs of 640x480."""
    draws = np.random.default_rng(0)
    for part in ("images", "labels"):
        (own / part / "train").mkdir(parents=True)
    for number in range(images):
        image = own / f"images/train/{number:012d}.jpg"
        if number % _MOST_LINKS == 0:
            Image.new("RGB", (640, 480)).save(image)
            linked = image
        else:
            os.link(linked, image)
        boxes = draws.uniform(0.2, 0.4, (int(draws.poisson(7)), 4)).tolist()
        text = "".join(f"{i % 80} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for i, (x, y, w, h) in enumerate(boxes))
        (own / f"labels/train/{number:012d}.txt").write_text(text)
    names = "".join(f"  {number}: class {number}\n" for number in range(80))
    (own / "data.yaml").write_text(f"train: images/train\nnames:\n{names}")


def _ijson_loop(annotation: Path, keys: tuple[str, ...]) -> None:
    backend = ijson.get_backend("yajl2_c")
    for key in keys:
        with annotation.open("rb") as file:
            for _ in backend.items(file, f"{key}.item", use_float=True):
                pass


def _write_objects365(path: Path, pictures: int, boxes: int) -> None:
    """A file of the published one's shape, boxes in the order of the pictures, about one in fifty a crowd."""
    draws = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b'{"images": [')
        for first in range(0, pictures, _BLOCK):
            file.write(b", " if first else b"")
            file.write(b", ".join(_image(number) for number in range(first, min(first + _BLOCK, pictures))))
        file.write(b'], "annotations": [')
        for first in range(0, boxes, _BLOCK):
            count = min(_BLOCK, boxes - first)
            xywh = np.round(draws.uniform(1, 300, (count, 4)), 10).tolist()
            category = draws.integers(1, _CATEGORIES + 1, count).tolist()
            crowd = (draws.random(count) < 0.02).astype(int).tolist()
            file.write(b", " if first else b"")
            file.write(
                b", ".join(
                    b'{"id": %d, "iscrowd": %d, "isfake": 0, "area": %.10f, "isreflected": 0, '
                    b'"bbox": [%.10f, %.10f, %.10f, %.10f], "image_id": %d, "category_id": %d}'
                    % (first + i + 1, crowd[i], box[2] * box[3], *box, (first + i) * pictures // boxes + 1, category[i])
                    for i, box in enumerate(xywh)
                )
            )
        names = [{"name": f"category {number}", "id": number} for number in range(1, _CATEGORIES + 1)]
        file.write(b'], "categories": ' + orjson.dumps(names) + b', "licenses": [], "info": {}}')


def _image(number: int) -> bytes:
    return (
        b'{"height": 480, "id": %d, "license": 5, "width": 640, '
        b'"file_name": "images/v1/patch%d/objects365_v1_%08d.jpg", "url": ""}' % (number + 1, number % 50, number)
    )


if __name__ == "__main__":
    main()
