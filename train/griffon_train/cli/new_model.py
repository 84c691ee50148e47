"""`griffon-train new-model`: a small model with random weights, and a tokenizer for it."""

from pathlib import Path

import click

from griffon_shards.support.command_line import guard
from griffon_shards.support.logs import verbosity_option

_COUNT = click.IntRange(1)


@click.command("new-model")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--like",
    "family",
    type=click.Choice(("gemma2", "llama2", "qwen2")),
    required=True,
    help="Family of the language model, and of its chat template.",
)
@click.option("--width", type=_COUNT, default=128, show_default=True, help="Hidden size of the language model.")
@click.option("--layers", type=_COUNT, default=4, show_default=True, help="Number of layers of the language model.")
@click.option(
    "--heads", type=_COUNT, default=4, show_default=True, help="Number of attention heads of the language model."
)
@click.option("--vision-width", type=_COUNT, default=128, show_default=True, help="Hidden size of the vision tower.")
@click.option(
    "--vision-layers", type=_COUNT, default=3, show_default=True, help="Number of layers of the vision tower."
)
@click.option(
    "--vision-heads", type=_COUNT, default=4, show_default=True, help="Number of attention heads of the vision tower."
)
@click.option(
    "--image-size", "image_px", type=_COUNT, default=98, show_default=True, help="Image width and height in pixels."
)
@click.option(
    "--patch-size", "patch_px", type=_COUNT, default=14, show_default=True, help="Patch width and height in pixels."
)
@click.option(
    "--projector",
    type=click.Choice(("conv_reduce", "linear", "mlp2x_gelu")),
    default="mlp2x_gelu",
    show_default=True,
    help="Type of the projector.",
)
@click.option(
    "--select-layer",
    type=int,
    default=-2,
    show_default=True,
    help="Hidden layer of the vision tower whose output is used.",
)
@click.option(
    "--tokenizer",
    default="bytes",
    show_default=True,
    metavar="SET|FOLDER|bytes",
    help="Shard folder to train a tokenizer on, folder of a tokenizer, or bytes: one token per byte.",
)
@click.option(
    "--vocabulary", type=_COUNT, default=1000, show_default=True, help="Maximum vocabulary size of a trained tokenizer."
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of the weights.")
@verbosity_option
@guard
def new_model_command(
    out: Path,
    family: str,
    projector: str,
    select_layer: int,
    tokenizer: str,
    vocabulary: int,
    seed: int,
    **size: int,
) -> None:
    """Make a small model with random weights, for run --model.

    OUT is a new folder. A tokenizer trained on a shard folder has one token per digit, and the model then writes boxes
    in the style of these shards.
    """
    from transformers.utils.logging import disable_progress_bar  # torch takes seconds to import

    from griffon_train.model.new_model import new_model
    from griffon_train.model.presets import SmallSize

    disable_progress_bar()
    new_model(
        out,
        family=family,
        size=SmallSize(**size),
        projector=projector,
        select_layer=select_layer,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        seed=seed,
    )
