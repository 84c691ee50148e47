"""Our own loops of `bench_read.py`, and the reference's way to a picture. Each prints its figures as JSON."""

import time
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.tar import split_sample
from griffon_train.data.images import IMAGE_PX
from griffon_train.data.loader import Loader, Slot, rank_slots
from griffon_train.data.padding_report import epoch_report, merge_reports
from griffon_train.data.plan import Plan
from griffon_train.data.raw_batches import raw_batches

_WORKERS = 2
_MICRO_BATCH = 4
_STEPS_DECODED = 8  # of 32 samples


@click.group()
def main() -> None:
    """Run one of the loops."""


@main.command("raw")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("threads", type=int)
@click.argument("batch_samples", type=int)
def raw_command(root: Path, threads: int, batch_samples: int) -> None:
    """Every sample of an epoch once, shuffled by the plan, its bytes checked and split: seconds, samples, bytes."""
    began = time.perf_counter()
    frozen = open_set(root)
    plan = Plan([frozen], seed=0, global_batch=batch_samples)
    seen: set[str] = set()
    taken_bytes = 0
    for batch in raw_batches(plan, micro_batch=batch_samples, threads=threads, stop=plan.first_step(1)):
        for slot, raw in batch:
            key, image, json = split_sample(raw, frozen.where(slot.row))
            seen.add(key)
            taken_bytes += len(image or b"") + len(json)
    click.echo(orjson.dumps([time.perf_counter() - began, len(seen), taken_bytes]))


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
    """The largest difference to the reference's pixels after normalising, times the deviation, in 255ths."""
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


def _processor() -> Any:  # noqa: ANN401 - transformers' class, which it makes as it is asked for
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(do_resize=False, crop_size={"height": IMAGE_PX, "width": IMAGE_PX})


def _reference_loader(plan: Plan) -> DataLoader[Any]:
    steps = range(_STEPS_DECODED)
    slots = [each for number in steps for each in rank_slots(plan, number, 0, 1, _MICRO_BATCH)]
    return DataLoader(_Reference(plan.sets[0]), batch_sampler=slots, num_workers=_WORKERS)


@main.command("plan")
@click.argument("root", type=click.Path(path_type=Path))
def plan_command(root: Path) -> None:
    """All steps of an epoch: seconds, steps; then the batches that any two of three epochs share."""
    plan = Plan([open_set(root)], seed=0, global_batch=128, grouping="task")
    began = time.perf_counter()
    for number in range(plan.first_step(1)):
        plan.step(number)
    seconds = time.perf_counter() - began
    shared = sum(len(one & other) for one, other in combinations([_batches(plan, epoch) for epoch in range(3)], 2))
    click.echo(orjson.dumps([seconds, plan.first_step(1), shared]))


def _batches(plan: Plan, epoch: int) -> set[bytes]:
    steps = range(plan.first_step(epoch), plan.first_step(epoch + 1))
    return {np.sort(plan.step(number).rows).tobytes() for number in steps}


@main.command("padding")
@click.argument("root", type=click.Path(path_type=Path))
def padding_command(root: Path) -> None:
    """Of an epoch: the share of padding, not grouped and grouped by task, and that of random batches."""
    frozen = open_set(root)
    plans = [Plan([frozen], seed=0, global_batch=128, grouping=grouping) for grouping in ("none", "task")]
    plans.append(Plan([frozen], seed=0, global_batch=128, window=1))
    click.echo(orjson.dumps([merge_reports(epoch_report(plan, 0)).waste for plan in plans]))


if __name__ == "__main__":
    main()
