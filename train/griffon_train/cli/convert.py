"""`griffon-train convert`: convert weights between layouts and image sizes."""

import re
from pathlib import Path

import click

from griffon_shards.support.command_line import guard
from griffon_shards.support.logs import verbosity_option
from griffon_shards.types import BOX_STYLES

_PATH = click.Path(path_type=Path)
_SRC = click.argument("src", metavar="SRC", type=_PATH)
_DST = click.argument("dst", metavar="DST", type=_PATH)


def _size(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[0-9]*[1-9][0-9]*(KB|MB|GB)", value.upper()):
        raise click.BadParameter(f"{value!r}: expected a size such as 5GB or 500MB")
    return value


_SHARD_SIZE = click.option(
    "--shard-size", default="5GB", show_default=True, callback=_size, help="Maximum size of a weight file."
)


@click.group("convert")
def convert() -> None:
    """Resize CLIP towers, convert released Griffon weights, and merge LoRA adapters."""


@convert.command("clip")
@_SRC
@_DST
@click.option(
    "--image-size", "image_px", type=click.IntRange(1), required=True, help="New image width and height in pixels."
)
@verbosity_option
@guard
def clip_command(src: Path, dst: Path, image_px: int) -> None:
    """Resize a CLIP tower to another image size.

    SRC is a saved CLIPModel or CLIPVisionModel. DST is a new folder.
    """
    from griffon_train.model.clip import convert_clip  # torch takes seconds to import

    convert_clip(src, dst, image_px=image_px)
    click.echo(f"written: {dst}")


@convert.command("griffon")
@_SRC
@_DST
@click.option(
    "--vision-tower",
    type=_PATH,
    help="CLIP folder with the sizes of the vision tower in SRC, and its weights if SRC lacks them.  [default: the one "
    "that SRC names]",
)
@click.option(
    "--region-tower",
    type=_PATH,
    help="CLIP folder with the sizes of the tower for <region> in SRC; required if SRC has one.",
)
@click.option(
    "--boxes",
    type=click.Choice(BOX_STYLES),
    help="How the model writes boxes.  [default: bin if the tokenizer has bin tokens, else text]",
)
@_SHARD_SIZE
@verbosity_option
@guard
def griffon_command(
    src: Path, dst: Path, vision_tower: Path | None, region_tower: Path | None, boxes: str | None, shard_size: str
) -> None:
    """Import released Griffon weights.

    SRC is a folder of released weights. DST is a new folder for run --model.
    """
    from griffon_train.model.convert import convert_griffon

    towers = {"vision_tower": vision_tower, "region_tower": region_tower}
    convert_griffon(src, dst, **towers, boxes=boxes, shard_size=shard_size)
    click.echo(f"written: {dst}")


@convert.command("export")
@_SRC
@_DST
@click.option(
    "--vision-tower",
    metavar="PATH",
    help="Value of mm_vision_tower in the written config.  [default: as in the imported weights]",
)
@_SHARD_SIZE
@verbosity_option
@guard
def export_command(src: Path, dst: Path, vision_tower: str | None, shard_size: str) -> None:
    """Export a model in the layout of released Griffon weights.

    SRC is a model saved by griffon-train, or the output folder of a run. DST is a new folder.
    """
    from griffon_train.model.convert import export_griffon

    export_griffon(src, dst, vision_tower=vision_tower, shard_size=shard_size)
    click.echo(f"written: {dst}")


@convert.command("merge")
@_SRC
@_DST
@click.option("--model", metavar="PATH", help="Base model, if it has moved.  [default: its path in training]")
@click.option("--vision-tower", type=_PATH, help="Vision tower of the base model, if --model is only a language model.")
@click.option(
    "--dtype",
    type=click.Choice(["bfloat16", "float32"]),
    help="Data type of the merged weights.  [default: as in training]",
)
@_SHARD_SIZE
@verbosity_option
@guard
def merge_command(
    src: Path, dst: Path, model: str | None, vision_tower: Path | None, dtype: str | None, shard_size: str
) -> None:
    """Merge a LoRA adapter into the model that it was trained on.

    SRC is the output folder of a run with --lora-r, or an adapter. DST is a new folder.
    """
    from griffon_train.training.merging import merge_adapter

    merge_adapter(src, dst, model=model, vision_tower=vision_tower, dtype=dtype, shard_size=shard_size)
    click.echo(f"written: {dst}")
