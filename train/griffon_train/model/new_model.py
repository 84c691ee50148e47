"""A saved Griffon model of any size with random weights, and a tokenizer trained on the text of a shard set."""

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.lock import LOCK_NAME
from griffon_shards.storage import object_path
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import refuse_taken, whole_folder
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN
from griffon_train.given_folder import existing_folder
from griffon_train.model.bin_tokens import BIN_TOKENS, CONTROL_TOKENS, byte_tokenizer, with_controls
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import SmallSize, config_of, family_chat, small_preset
from griffon_train.model.saving import save_beside
from griffon_train.text.chat_templates import CHATS, check_tokenizer
from griffon_train.text.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)

BYTES = "bytes"
"""Names the byte-level tokenizer, which needs no folder."""

_READ_SAMPLES = 20_000
_POSITION_SCALE = 0.5  # about that of a coloured patch
_SLOWEST = 100.0  # in patches, over 2 pi
_NOT_TEXT = re.compile(f"<bin_[0-9]+>|{IMAGE_TOKEN}|{REGION_TOKEN}")


def new_model(
    out: Path,
    *,
    family: str,
    size: SmallSize,
    projector: str,
    select_layer: int,
    tokenizer: str,
    vocabulary: int,
    seed: int,
) -> None:
    """Save a model with random weights, which are a function of the arguments alone.

    Args:
        out: does not exist, or is empty.
        family: one of `griffon_train.model.presets.FAMILIES`.
        size: of its parts.
        projector: a name of `griffon_train.model.projector.PROJECTORS`.
        select_layer: hidden state of the vision tower that the projector is given.
        tokenizer: `bytes`, the folder of a tokenizer, or that of a frozen set: then one is trained on its text, and
            the model writes boxes as the set does.
        vocabulary: most tokens of a trained tokenizer, bin tokens apart.
        seed: of the weights.

    Raises:
        SettingsError: the sizes do not fit each other, there is no such tokenizer, or `out` is taken.
        DataError: the set is damaged, or `out` cannot be written.
    """
    refuse_taken(out)
    _refuse_uneven(size, select_layer)
    made, box_style = _tokenizer(tokenizer, vocabulary, family)
    check_tokenizer(family_chat(family), made)
    torch.manual_seed(seed)
    config: Any = config_of(small_preset(family, size, vocabulary=len(made)), region=False)
    config.projector, config.select_layer, config.box_style = projector, select_layer, box_style
    for name in ("pad", "bos", "eos"):
        setattr(config.text_config, f"{name}_token_id", getattr(made, f"{name}_token_id"))
    model = GriffonForConditionalGeneration(config)
    embeddings: Any = model.vision_tower.embeddings
    with torch.no_grad():
        embeddings.position_embedding.weight[1:] = grid_positions(config.patches_a_side, size.vision_width)
    try:
        with whole_folder(out) as folder:
            model.save_pretrained(folder)
            save_beside(folder, config, model.generation_config, family_chat(family), made)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    parameters = sum(each.numel() for each in model.parameters())
    _log.info(f"{out}: {parameters:,} parameters, {len(made):,} tokens, {model.image_tokens} of them for an image")


def _refuse_uneven(size: SmallSize, select_layer: int) -> None:
    for width, heads, prefix in ((size.width, size.heads, "--"), (size.vision_width, size.vision_heads, "--vision-")):
        if width % (2 * heads):
            raise SettingsError(
                f"{prefix}width {width}: expected a multiple of {2 * heads}, twice the {heads} of {prefix}heads"
            )
    if size.image_px % size.patch_px:
        raise SettingsError(
            f"--image-size {size.image_px}: expected a multiple of the {size.patch_px} px of --patch-size"
        )
    if not -size.vision_layers - 1 <= select_layer <= size.vision_layers:
        raise SettingsError(
            f"--select-layer {select_layer}: expected {-size.vision_layers - 1} to {size.vision_layers}, the hidden "
            f"states of --vision-layers {size.vision_layers}"
        )


def grid_positions(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of the columns and rows of a grid of patches, row by row; shape [side * side, width].

    CLIP's own position embeddings are noise of 0.02, hardly visible beside the patches' own: a tower without
    pretraining would first have to learn where a patch is. See Beyer et al., "Better plain ViT baselines for
    ImageNet-1k", 2022.
    """
    scales = _SLOWEST ** -(torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [places.flatten()[:, None] * scales for places in (columns, rows)]
    waves = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.nn.functional.pad(_POSITION_SCALE * waves, (0, width - waves.shape[1]))


def _tokenizer(given: str, vocabulary: int, family: str) -> tuple[PreTrainedTokenizerBase, str]:
    """The tokenizer, and how a model with it writes boxes."""
    if given == BYTES:
        return byte_tokenizer(), "text"
    url = object_path(given)
    if url is None:
        folder = existing_folder("--tokenizer", given)
        if not (folder / LOCK_NAME).is_file():
            return load_tokenizer(folder), "text"
    frozen = open_set(url or folder)
    made = trained_tokenizer(_texts(frozen, family_chat(family)), vocabulary)
    box_style = str(frozen.lock.render["boxes"])
    if box_style == "bin":
        made.add_tokens(list(BIN_TOKENS))
    return made, box_style


def trained_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-pair encoding on texts: every text has tokens, every digit is one of its own.

    Args:
        texts: what is encoded; bin tokens and the marks of images and regions in it are left out.
        vocabulary: most tokens; the control tokens and the 256 bytes are always among them.

    Raises:
        SettingsError: `vocabulary` is too small.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fewest = len(CONTROL_TOKENS) + len(alphabet)
    if vocabulary < fewest:
        raise SettingsError(f"--vocabulary {vocabulary}: expected {fewest} or more, the bytes and the control tokens")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(CONTROL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator((_NOT_TEXT.sub("", text) for text in texts), trainer)
    return with_controls(backend)


def _texts(frozen: FrozenSet, chat: str) -> Iterator[str]:
    """What a chat template makes of the set's samples, control tokens apart; of large sets, samples evenly spread."""
    for sample in frozen.samples(range(0, len(frozen), 1 + len(frozen) // _READ_SAMPLES)):
        for rendering in sample.renderings:
            segments = CHATS[chat](rendering.turns, 0, 0, False)
            yield from (segment.text for segment in segments if not segment.control)
