"""Greedy generation in batches, with the same tokens and pixels as in training.

transformers' `generate` computes finished rows until the last one ends, and keeps the logits of every step to give
log-probabilities, which takes gigabytes for a vocabulary of 256,000. This loop drops finished rows and keeps one number
for each token.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DynamicCache, PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import BoxXYXY, Turn
from griffon_train.data.images import cropped, resized
from griffon_train.evaluation.one_thread import one_thread
from griffon_train.model.generation import generation_config
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, encode, ends_line

_PADDING = 0
_SCORED_TOGETHER = 128  # tokens
_WORTH_SHARING = 64  # tokens; another pass of the model costs as much as reading a few in each row
_UNFINISHED = "\ufffd"  # decoders write it for the first bytes of a character
_BYTES_OF_CHARACTER = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """A question to a model.

    Attributes:
        turns: the conversation; its roles alternate and it ends with a human turn. With an image, a human turn contains
            `<image>`; with a region, one contains `<region>`.
        image: in RGB, as stored; None for a question about text. Prompts of one batch that share the object share the
            work of the vision tower.
        region_xyxy_px: the crop that `<region>` stands for, in pixels of the image, or None.
    """

    turns: tuple[Turn, ...]
    image: Image.Image | None
    region_xyxy_px: BoxXYXY | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a model.

    Attributes:
        text: without the template's end mark, and without whitespace around it, which some templates add.
        complete: whether the model ended it; False if it was cut off.
        tokens: the generated tokens. The last one of a complete answer is the end mark.
        token_ends: for each generated token, the number of characters of `text` decoded up to and with it. A token that
            ends within a character counts as the one before.
        token_logprobs: natural log-probability of each generated token.
    """

    text: str
    complete: bool
    tokens: tuple[int, ...]
    token_ends: tuple[int, ...]
    token_logprobs: tuple[float, ...]


class Generator:
    """Answers prompts with a model.

    The answers do not depend on which prompts share a batch, but for rounding, which can decide between two tokens that
    are almost equally likely: hardly ever in float32, sometimes in bfloat16. The log-probabilities differ in their last
    digits; those of `scored_alone` do not.
    """

    def __init__(
        self, model: GriffonForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, *, chat: str
    ) -> None:
        """Prepare a model for generation.

        Args:
            model: on its device, in evaluation mode.
            tokenizer: its own.
            chat: the chat template that it was trained with.

        Raises:
            SettingsError: the template is unknown, or the tokenizer does not fit it.
        """
        self._model, self._tokenizer, self._chat = model, tokenizer, chat
        settings: Any = generation_config(model.generation_config, chat, tokenizer)
        self._stops = frozenset(settings.eos_token_id)

    def answers(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Answer]:
        """Answer prompts, all in one batch.

        Args:
            prompts: with and without images and regions, in any order.
            max_new_tokens: tokens after which an answer is cut off.

        Raises:
            SettingsError: a prompt has a region, and the model no region tower.
            DataError: a conversation lacks `<image>` or `<region>`, does not end with a question, or has a region
                without an image.
        """
        if not prompts:
            return []
        rows = [self._ids(prompt) for prompt in prompts]
        device = self._model.device
        with torch.no_grad():
            cache, shared = self._read_once(rows)
            longest = max(map(len, rows))
            padding = [[_PADDING] * (longest - len(row)) for row in rows]
            rest = [before + row[shared:] for before, row in zip(padding, rows, strict=True)]
            mask = [[1] * shared + [0] * (longest - len(row)) + [1] * (len(row) - shared) for row in rows]
            embeds_BLW = self._embedded(torch.tensor(rest, device=device), prompts)
            generated = self._generated(embeds_BLW, torch.tensor(mask, device=device), cache, max_new_tokens)
        return [self._answer(tokens, logprobs) for tokens, logprobs in generated]

    @one_thread()
    @torch.no_grad()
    def scored_alone(self, prompt: Prompt, answer: Answer) -> Answer:
        """Return the answer to a prompt with log-probabilities that do not depend on the batch it was made in.

        They are computed for this answer alone, in one pass over the prompt and the answer.

        Raises:
            SettingsError, DataError: as for `answers`.
        """
        if not answer.tokens:
            return answer
        input_ids_1L = torch.tensor([[*self._ids(prompt), *answer.tokens[:-1]]], device=self._model.device)
        logits_TV = self._model.language_model(
            inputs_embeds=self._embedded(input_ids_1L, [prompt]),
            attention_mask=torch.ones_like(input_ids_1L),
            use_cache=False,
            logits_to_keep=len(answer.tokens),
        ).logits[0]
        tokens_T1 = torch.tensor(answer.tokens, device=logits_TV.device)[:, None]
        # In pieces, as a vocabulary has 256,000 entries.
        pieces = zip(logits_TV.split(_SCORED_TOGETHER), tokens_T1.split(_SCORED_TOGETHER), strict=True)
        logprobs_T = torch.cat([logits.float().log_softmax(dim=-1).gather(1, tokens) for logits, tokens in pieces])
        return replace(answer, token_logprobs=tuple(logprobs_T[:, 0].tolist()))

    def _ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, with its image expanded."""
        images, regions = int(prompt.image is not None), int(prompt.region_xyxy_px is not None)
        if regions and not images:
            raise DataError("a region without an image; give the image that the region is a part of")
        if regions and self._model.region_tower is None:
            raise SettingsError("a region, but the model has no region tower; use one trained for visual referring")
        encoded = encode(self._chat, prompt.turns, self._tokenizer, images=images, regions=regions, prompt=True)
        takes = {IMAGE_TOKEN_ID: self._model.image_tokens}
        return [token for each in encoded.ids for token in [each] * takes.get(each, 1)]

    def _read_once(self, rows: Sequence[Sequence[int]]) -> tuple[DynamicCache, int]:
        """Read the text with which all prompts of a batch begin, such as a long system prompt, once for all of them.

        Returns:
            A cache for the batch, and the number of tokens in it. There are none if they would save little, or if the
            model has a sliding window, which would count the padding between them and the rest.
        """
        language_model: Any = self._model.language_model
        cache = DynamicCache(config=language_model.config)
        shared = _common_text(rows)
        if len(rows) == 1 or shared < _WORTH_SHARING or any(cache.is_sliding):
            return cache, 0
        ids_1L = torch.tensor([rows[0][:shared]], device=self._model.device)
        language_model(input_ids=ids_1L, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_repeat_interleave(len(rows))
        return cache, shared

    def _embedded(self, input_ids_BL: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Embeddings with the features of images and regions, shape [B, L, width]; every image is seen once."""
        config: Any = self._model.config
        images = [prompt.image for prompt in prompts if prompt.image is not None]
        distinct = {id(image): image for image in images}
        places = {key: place for place, key in enumerate(distinct)}
        regions = [
            cropped(prompt.image, prompt.region_xyxy_px)
            for prompt in prompts
            if prompt.image is not None and prompt.region_xyxy_px is not None
        ]
        return self._model.embedded(
            input_ids_BL,
            self._pixels(distinct.values(), config.vision_config.image_size),
            self._pixels(regions, config.region_config.image_size) if regions else None,
            image_of=torch.tensor([places[id(image)] for image in images], device=input_ids_BL.device),
            every_tower=False,
        )

    def _pixels(self, images: Iterable[Image.Image], side_px: int) -> torch.Tensor | None:
        """Images as a tower takes them, shape [P, 3, side_px, side_px]; None if there are none."""
        squares = [resized(image, side_px) for image in images]
        if not squares:
            return None
        return normalised(torch.from_numpy(np.stack(squares)).to(self._model.device), self._model.dtype)

    def _generated(
        self, embeds_BLW: torch.Tensor, mask_BL: torch.Tensor, cache: DynamicCache, max_new_tokens: int
    ) -> list[tuple[list[int], list[float]]]:
        """Tokens and their log-probabilities for each row of a batch; the mask is also of what is in the cache."""
        language_model: Any = self._model.language_model
        results: list[tuple[list[int], list[float]]] = [([], []) for _ in mask_BL]
        running = list(range(len(results)))
        step: dict[str, torch.Tensor] = {"inputs_embeds": embeds_BLW}
        # Rotary embeddings are relative and would bear the padding; absolute ones would not.
        positions_BL = (mask_BL.cumsum(dim=1) - 1).clamp(min=0)[:, -embeds_BLW.shape[1] :]
        for _ in range(max_new_tokens):
            output = language_model(
                **step,
                attention_mask=mask_BL,
                position_ids=positions_BL,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits_BV = output.logits[:, -1].float()
            best_B, tokens_B = logits_BV.max(dim=-1)  # the first of equal ones
            logprobs = (best_B - logits_BV.logsumexp(dim=-1)).tolist()
            tokens = tokens_B.tolist()
            for row, token, logprob in zip(running, tokens, logprobs, strict=True):
                results[row][0].append(token)
                results[row][1].append(logprob)
            going = [place for place, token in enumerate(tokens) if token not in self._stops]
            if not going:
                break
            positions_BL = positions_BL[:, -1:] + 1
            if len(going) < len(running):
                running = [running[place] for place in going]
                kept = torch.tensor(going, device=mask_BL.device)
                cache.batch_select_indices(kept)
                mask_BL, positions_BL, tokens_B = mask_BL[kept], positions_BL[kept], tokens_B[kept]
            mask_BL = torch.cat([mask_BL, mask_BL.new_ones(len(running), 1)], dim=1)
            step = {"input_ids": tokens_B[:, None]}
        return results

    def _answer(self, tokens: Sequence[int], logprobs: Sequence[float]) -> Answer:
        complete = bool(tokens) and tokens[-1] in self._stops
        # The token that ends a line may also hold the last characters before the newline.
        worded = tokens[:-1] if complete and not ends_line(tokens[-1], self._tokenizer) else tokens
        text, ends = decoded(worded, self._tokenizer)
        ends += [len(text)] * (len(tokens) - len(worded))
        stripped = text.strip()
        leading = len(text) - len(text.lstrip())
        return Answer(
            text=stripped,
            complete=complete,
            tokens=tuple(tokens),
            token_ends=tuple(min(max(0, end - leading), len(stripped)) for end in ends),
            token_logprobs=tuple(logprobs),
        )


def _common_text(rows: Sequence[Sequence[int]]) -> int:
    """The number of tokens of text with which all rows begin; of each row, at least one token is left."""
    begin = takewhile(lambda column: column[0] >= 0 and len(set(column)) == 1, zip(*rows, strict=False))
    return min(sum(1 for _ in begin), min(map(len, rows)) - 1)


def decoded(tokens: Sequence[int], tokenizer: Any) -> tuple[str, list[int]]:  # noqa: ANN401 - one of transformers
    """Decode tokens.

    Each token is decoded after the one before it, on which its characters may depend: SentencePiece drops the space of
    a first token. A character may have several tokens.

    Returns:
        The text, and for each token the number of characters decoded up to and with it.
    """
    text, ends = "", []
    context = begin = 0  # the tokens up to `begin` are in `text`; those from `context` are decoded again
    known = ""  # the text of tokens[context:begin]
    for end in range(1, len(tokens) + 1):
        longer = _text(tokens[context:end], tokenizer)
        if not longer.endswith(_UNFINISHED) or end - begin >= _BYTES_OF_CHARACTER or end == len(tokens):
            text += longer[len(known) :]
            context, begin = begin, end
            known = _text(tokens[context:begin], tokenizer)
        ends.append(len(text))
    return text, ends


def _text(tokens: Sequence[int], tokenizer: Any) -> str:  # noqa: ANN401
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
