"""The commands `griffon-train convert`."""

import re
from pathlib import Path

import click

from griffon_shards.support.command_line import guard
from griffon_shards.types import BOX_STYLES

_PATH = click.Path(path_type=Path)
_SRC = click.argument("src", metavar="SRC", type=_PATH)
_DST = click.argument("dst", metavar="DST", type=_PATH)


def _size(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*(KB|MB|GB)", value.upper()):
        raise click.BadParameter(f"{value!r}: expected a size such as 5GB or 500MB")
    return value


_SHARD_SIZE = click.option("--shard-size", default="5GB", show_default=True, callback=_size, help="Of a file, at most.")


@click.group("convert")
def convert() -> None:
    """Convert weights: CLIP towers to another picture size, released Griffon weights to ours and back."""


@convert.command("clip")
@_SRC
@_DST
@click.option("--image-size", "image_px", type=click.IntRange(1), required=True, help="Side of the pictures in pixels.")
@guard
def clip_command(src: Path, dst: Path, image_px: int) -> None:
    """Make a CLIP tower for pictures of another size, out of a CLIPModel's or CLIPVisionModel's folder."""
    from griffon_train.model.clip import convert_clip  # these need torch, which takes seconds to import

    convert_clip(src, dst, image_px=image_px, say=click.echo)


@convert.command("griffon")
@_SRC
@_DST
@click.option("--vision-tower", type=_PATH, help="CLIP folder with the tower's sizes.  [default: as SRC names it]")
@click.option("--region-tower", type=_PATH, help="CLIP folder with the sizes of the tower for <region>.")
@click.option("--boxes", type=click.Choice(BOX_STYLES), help="How boxes are written.  [default: as the tokenizer can]")
@_SHARD_SIZE
@guard
def griffon_command(
    src: Path, dst: Path, vision_tower: Path | None, region_tower: Path | None, boxes: str | None, shard_size: str
) -> None:
    """Make a folder of ours out of released Griffon weights."""
    from griffon_train.model.convert import convert_griffon

    towers = {"vision_tower": vision_tower, "region_tower": region_tower}
    convert_griffon(src, dst, **towers, boxes=boxes, shard_size=shard_size, say=click.echo)


@convert.command("export")
@_SRC
@_DST
@click.option("--vision-tower", metavar="PATH", help="What mm_vision_tower is to say.  [default: what it said]")
@_SHARD_SIZE
@guard
def export_command(src: Path, dst: Path, vision_tower: str | None, shard_size: str) -> None:
    """Make a folder in the layout of released Griffon weights out of ours."""
    from griffon_train.model.convert import export_griffon

    export_griffon(src, dst, vision_tower=vision_tower, shard_size=shard_size, say=click.echo)
