"""`griffon-train read`: read samples the way training does."""

import logging
import time
from typing import Any

import click
import orjson

from griffon_shards.support.command_line import guard
from griffon_shards.support.logs import verbosity_option
from griffon_train.cli.plan import make_plan, plan_options
from griffon_train.config.options import Finite

_log = logging.getLogger(__name__)


@click.command("read")
@plan_options
@click.option(
    "--world-size",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of ranks to simulate, one process each.",
)
@click.option(
    "--workers", type=click.IntRange(0), default=2, show_default=True, help="Data loading processes per rank."
)
@click.option(
    "--micro-batch", type=click.IntRange(1), default=1, show_default=True, help="Samples per forward pass on each rank."
)
@click.option("--image-px", type=click.IntRange(1), help="Image width and height in pixels.  [default: 1022]")
@click.option(
    "--stall",
    "stall_s",
    type=Finite(1),
    help="Seconds to wait for a micro-batch before failing.  [default: 70]",
)
@click.option("--profile", is_flag=True, help="Log the number of samples per second.")
@verbosity_option
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
    """Read samples exactly as training does and print a hash of each.

    DIR is a shard folder made by griffon-prep build, or its URL; give several to mix them.
    """
    from griffon_train.data.dry_read import RankSettings, read_steps
    from griffon_train.data.images import IMAGE_PX
    from griffon_train.data.loader import STALL_S  # torch takes seconds to import

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
    started, read = time.monotonic(), 0
    for samples in read_steps(plan, ranks):
        read += len(samples)
        for sample in samples:
            fields = {"step": sample.step, "slot": sample.slot, "key": sample.key, "sha256": sample.sha256}
            line = orjson.dumps(fields).decode() if as_json else "{step}  {slot}  {key}  {sha256}".format(**fields)
            click.echo(line)
    if profile:
        seconds = time.monotonic() - started
        _log.info(f"{read:,} samples in {seconds:.2f} s, including startup: {read / seconds:,.1f}/s")
