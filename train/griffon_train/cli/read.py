"""`griffon-train read`: the samples as training reads them."""

import time
from typing import Any

import click
import orjson

from griffon_shards.support.command_line import guard
from griffon_train.cli.plan import make_plan, plan_options


@click.command("read")
@plan_options
@click.option("--world-size", type=click.IntRange(1), default=1, show_default=True, help="Ranks, a process each.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Reading processes of a rank.")
@click.option("--micro-batch", type=click.IntRange(1), default=1, show_default=True, help="Samples read together.")
@click.option("--image-px", type=click.IntRange(1), help="Side of the pictures.  [default: 1022]")
@click.option("--stall", "stall_s", type=click.FloatRange(1), help="Seconds that a read may take.  [default: 50]")
@click.option("--profile", is_flag=True, help="Say how fast it was.")
@guard
def read_command(
    start: int,
    steps: int | None,
    as_json: bool,
    world_size: int,
    workers: int,
    micro_batch: int,
    image_px: int | None,
    stall_s: float | None,
    profile: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Read samples as training does, with every rank's loader in a process of its own."""
    from griffon_train.data.dry_read import RankSettings, read_steps
    from griffon_train.data.images import IMAGE_PX
    from griffon_train.data.loader import STALL_S  # these need torch, which takes seconds to import

    plan = make_plan(**settings)
    ranks = RankSettings(
        world_size=world_size,
        micro_batch=micro_batch,
        workers=workers,
        start=start,
        stop=start + (steps or 1),
        image_px=image_px or IMAGE_PX,
        stall_s=stall_s or STALL_S,
    )
    began, read = time.monotonic(), 0
    for samples in read_steps(plan, ranks):
        read += len(samples)
        for sample in samples:
            fields = {"step": sample.step, "slot": sample.slot, "key": sample.key, "sha256": sample.sha256}
            line = orjson.dumps(fields).decode() if as_json else "{step}  {slot}  {key}  {sha256}".format(**fields)
            click.echo(line)
    if profile:
        seconds = time.monotonic() - began
        click.echo(f"{read:,} samples in {seconds:.2f} s, start included: {read / seconds:,.1f}/s", err=True)
