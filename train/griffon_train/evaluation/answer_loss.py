"""The loss of a true answer, with the same tokens and the same function as in training."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from griffon_train.data.images import cropped, resized
from griffon_train.evaluation.one_thread import one_thread
from griffon_train.evaluation.questions import Asked
from griffon_train.model.collate import ModelInputs
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.loss import loss_sums
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import IGNORE, encode, expand_and_truncate

_ANY_LENGTH = 1 << 62


@one_thread()
@torch.no_grad()
def answer_loss(
    model: GriffonForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    chat: str,
    asked: Asked,
    image: Image.Image | None,
) -> tuple[float, int]:
    """Return the loss of a question's true answer in nats, summed over its tokens, and their number.

    Each answer is computed alone and on one thread, so that the result depends neither on the batch size nor on the
    number of processes, not even in its last bits.

    Raises:
        DataError: the conversation lacks `<image>` or `<region>`.
    """
    images, regions = int(image is not None), int(asked.region_xyxy_px is not None)
    given = len(encode(chat, asked.turns, tokenizer, images=images, regions=regions, prompt=True).ids)
    whole = encode(chat, asked.answered, tokenizer, images=images, regions=regions)
    whole.labels[:given] = [IGNORE] * given  # answers of earlier rounds are given
    encoded, _ = expand_and_truncate(whole, _ANY_LENGTH, "error", model.image_tokens, asked.question.key)
    region = image is not None and asked.region_xyxy_px is not None and cropped(image, asked.region_xyxy_px)
    ids = torch.tensor([encoded.ids], device=model.device)
    config: Any = model.config
    inputs = ModelInputs(
        input_ids_BL=ids,
        attention_mask_BL=torch.ones_like(ids),
        labels_BL=torch.tensor([encoded.labels], device=model.device),
        pixels_PCHW=_pixels(image, config.vision_config.image_size, model),
        regions_RCHW=_pixels(region, config.region_config.image_size, model) if region else None,
    )
    return float(loss_sums(model, inputs)), encoded.targets


def _pixels(image: Image.Image | None, side_px: int, model: GriffonForConditionalGeneration) -> torch.Tensor | None:
    if image is None:
        return None
    return normalised(torch.from_numpy(np.stack([resized(image, side_px)])).to(model.device), model.dtype)
