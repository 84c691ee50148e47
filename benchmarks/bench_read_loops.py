"""Our own loops of `bench_read.py`, and the reference's way to a picture. Each prints its figures as JSON."""

import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import torch
from common import lines
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_train.loader import Loader, Slot, rank_slots
from griffon_train.pictures import IMAGE_PX
from griffon_train.plan import Plan
from griffon_train.raw import raw_batches
from griffon_train.report import epoch_report, together

_BATCH = 32
_WORKERS = 2
_MICRO_BATCH = 4
_STEPS_DECODED = 8  # of 32 samples


@click.group()
def main() -> None:
    """Run one of the loops."""


@main.command("raw")
@click.argument("root", type=click.Path(path_type=Path))
def raw_command(root: Path) -> None:
    """Every sample of an epoch once, shuffled by the plan, its bytes checked and in this process."""
    began = time.perf_counter()
    frozen = open_set(root)
    plan = Plan([frozen], seed=0, global_batch=_BATCH)
    seen: set[int] = set()
    for batch in raw_batches(plan, micro_batch=_BATCH, threads=_WORKERS, stop=plan.first_step(1)):
        seen.update(slot.row for slot, raw in batch if raw)
    click.echo(orjson.dumps([time.perf_counter() - began, len(seen)]))


@main.command("decoded")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("way", type=click.Choice(["ours", "reference"]))
def decoded_command(root: Path, way: str) -> None:
    """Pictures decoded and resized to 1022 x 1022 by two workers: seconds, samples."""
    plan = Plan([open_set(root)], seed=0, global_batch=32)
    began = time.perf_counter()
    count = 0
    if way == "ours":
        for batch in Loader(plan, micro_batch=_MICRO_BATCH, workers=_WORKERS, stop=_STEPS_DECODED):
            count += len(batch.pixels_PHWC)
    else:
        for pixels in _reference_loader(plan):
            count += len(pixels)
    click.echo(orjson.dumps([time.perf_counter() - began, count]))


@main.command("difference")
@click.argument("root", type=click.Path(path_type=Path))
def difference_command(root: Path) -> None:
    """The largest difference to the reference's pixels after normalising, in units of a pixel value of 255."""
    plan = Plan([open_set(root)], seed=0, global_batch=32)
    processor = _processor()
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (processor.image_mean, processor.image_std))
    worst = 0.0
    ours = Loader(plan, micro_batch=_MICRO_BATCH, workers=0, stop=1)
    for batch, theirs in zip(ours, _reference_loader(plan), strict=False):
        mine = (batch.pixels_PHWC.permute(0, 3, 1, 2).float() / 255 - mean) / deviation
        worst = max(worst, float(((mine - theirs).abs() * deviation).max()) * 255)
    click.echo(orjson.dumps([worst]))


class _Reference(Dataset[Any]):
    """Pillow's resize, then transformers' CLIP processor to float32, in the worker."""

    def __init__(self, frozen: FrozenSet) -> None:
        self._frozen = frozen
        self._processor = _processor()

    def __getitem__(self, slot: Slot) -> torch.Tensor:
        sample = self._frozen[slot.row]
        assert sample.image is not None
        picture = (
            Image.open(BytesIO(sample.image)).convert("RGB").resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BILINEAR)
        )
        pixels: torch.Tensor = self._processor.preprocess(picture, return_tensors="pt")["pixel_values"][0]
        return pixels


def _processor() -> Any:  # noqa: ANN401 - transformers' class of many
    from transformers import CLIPImageProcessor

    side = {"height": IMAGE_PX, "width": IMAGE_PX}
    return CLIPImageProcessor(size={"shortest_edge": IMAGE_PX}, crop_size=side)


def _reference_loader(plan: Plan) -> DataLoader[Any]:
    steps = range(_STEPS_DECODED)
    slots = [each for number in steps for each in rank_slots(plan, number, 0, 1, _MICRO_BATCH)]
    return DataLoader(_Reference(plan.sets[0]), batch_sampler=slots, num_workers=_WORKERS)


@main.command("start")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("share", type=float)
def start_command(root: Path, share: float) -> None:
    """From opening a set to the first batch, at a share of its first epoch: seconds, and bytes above those before."""
    before = _resident_bytes()
    began = time.perf_counter()
    plan = Plan([open_set(root)], seed=0, global_batch=128, grouping="task")
    first = int(plan.first_step(1) * share)
    batches: Iterator[Any] = iter(Loader(plan, micro_batch=1, workers=_WORKERS, start=first))
    next(batches)
    seconds = time.perf_counter() - began
    click.echo(orjson.dumps([seconds, _resident_bytes() - before]))


@main.command("plan")
@click.argument("root", type=click.Path(path_type=Path))
def plan_command(root: Path) -> None:
    """All steps of an epoch: seconds, steps; then padding of ours and of random batches, and batches epochs share."""
    frozen = open_set(root)
    plan = Plan([frozen], seed=0, global_batch=128, grouping="task")
    began = time.perf_counter()
    for number in range(plan.first_step(1)):
        plan.step(number)
    seconds = time.perf_counter() - began
    ours = together(epoch_report(Plan([frozen], seed=0, global_batch=128), 0)).waste
    random = together(epoch_report(Plan([frozen], seed=0, global_batch=128, window=1), 0)).waste
    batches = [_batches(plan, epoch) for epoch in (0, 1)]
    shared = len(batches[0] & batches[1])
    click.echo(orjson.dumps([seconds, plan.first_step(1), ours, random, shared]))


def _batches(plan: Plan, epoch: int) -> set[bytes]:
    steps = range(plan.first_step(epoch), plan.first_step(epoch + 1))
    return {np.sort(plan.step(number).rows).tobytes() for number in steps}


def _resident_bytes() -> int:
    """All pages of this process. Private ones alone would tell too little: forking workers makes them shared."""
    return next(int(line.split()[1]) * 1024 for line in lines("/proc/self/status") if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
