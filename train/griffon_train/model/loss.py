"""The loss of a micro-batch: for each sample, the sum over its target tokens.

Logits are computed for target tokens only: an image is 1,369 tokens without targets, and Gemma's vocabulary has 256,000
entries.
"""

from typing import Any

import torch
from torch.nn import functional as F

from griffon_train.model.collate import ModelInputs
from griffon_train.text.chat_templates import IGNORE


def loss_sums(model: Any, inputs: ModelInputs) -> torch.Tensor:  # noqa: ANN401 - a model, or the engine around it
    """The negative log-likelihood summed over each sample's target tokens; float32, shape [B]."""
    next_BL = inputs.labels_BL[:, 1:]
    learned_L = (next_BL != IGNORE).any(dim=0).nonzero().flatten()
    if not len(learned_L):  # no targets, but the other ranks wait for this one's backward pass
        learned_L = learned_L.new_zeros(1)
    logits_BKV = model(
        inputs.input_ids_BL,
        attention_mask=inputs.attention_mask_BL,
        pixel_values=inputs.pixels_PCHW,
        region_values=inputs.regions_RCHW,
        logits_to_keep=learned_L,
        use_cache=False,
    ).logits
    targets_BK = next_BL[:, learned_L] if next_BL.shape[1] else torch.full_like(inputs.labels_BL, IGNORE)
    losses = F.cross_entropy(
        logits_BKV.float().flatten(0, 1), targets_BK.flatten(), ignore_index=IGNORE, reduction="none"
    )
    return losses.view(targets_BK.shape).sum(dim=1)
