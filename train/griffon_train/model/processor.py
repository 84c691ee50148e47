"""The processor for transformers: the same tokens and pixels from conversations and images as in training."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from griffon_shards.support.errors import DataError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, BoxXYXY
from griffon_train.data.images import REGION_PX, cropped
from griffon_train.model.config import GriffonConfig
from griffon_train.model.image_processor import GriffonImageProcessor, opened, pixels_of
from griffon_train.model.projector import image_tokens
from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, REGION_TOKEN_ID, encode
from griffon_train.text.jinja_templates import IMAGE_PARTS, Message, chat_template, parts_of, turns_of

_SOURCES = ("image", "url", "path", "base64", "image_url")
"""Under which of them a part of a message has its picture."""


class GriffonProcessor(ProcessorMixin):
    """Prepares conversations and images for a Griffon model.

    Attributes:
        image_processor: of the pictures.
        tokenizer: the model's.
        chat: the template of `griffon_train.text.chat_templates.CHATS` that the model was trained with.
        image_tokens: how often the image token stands for a picture.
    """

    image_processor: GriffonImageProcessor

    def __init__(
        self,
        image_processor: GriffonImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        chat: str = "plain",
        image_tokens: int = 1,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)  # type: ignore[no-untyped-call]
        self.chat, self.image_tokens = chat, image_tokens

    def __call__(
        self,
        images: Any = None,  # noqa: ANN401
        text: str | Sequence[str] | None = None,
        regions: Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
        **_: Any,  # noqa: ANN401
    ) -> BatchFeature:
        """Tokens of texts that are written out, as the chat template does, with their pictures.

        Args:
            images: as `GriffonImageProcessor` takes them; of several texts a list for each.
            text: each has `<image>` where a picture stands, and `<region>` where a region does.
            regions: boxes in pixels of the text's first picture, (x1, y1, x2, y2); of several texts a list for each.
            add_special_tokens: put bos in front, unless it is there.
            return_tensors: `pt`, or None for lists of tokens.

        Returns:
            `input_ids` and `attention_mask`, padded on the left; `pixel_values`, `region_values` if there are any.

        Raises:
            DataError: a text has too few places for its pictures or regions, or a picture does not decode.
        """
        if text is None:
            raise DataError("a text is required; for images alone, use the image_processor")
        texts = [text] if isinstance(text, str) else list(text)
        seen = _by_text(images, len(texts), _is_image, "images")
        shown = _by_text(regions, len(texts), _is_box, "regions")
        counts = ((len(images), len(boxes)) for images, boxes in zip(seen, shown, strict=True))
        rows = [self._ids(one, *count, add_special_tokens) for one, count in zip(texts, counts, strict=True)]
        return self._batch(rows, seen, shown, return_tensors)

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """As anywhere in transformers; tokens come from our own templates, for which all text is only text.

        Args:
            conversation: messages as `text/jinja_templates.py` describes them, or several conversations. An image
                has its picture under `image`, `url`, `path` or `base64`, a region its box under `box`, in pixels of
                the conversation's first picture.
            chat_template: another template, in Jinja.
            tokenize: give tokens; else text.
            add_generation_prompt: end where the model's answer begins.
            continue_final_message: end in the model's last answer, for it to go on.
            return_dict: with the pictures; else `input_ids` alone.
            return_tensors: `pt`, or None for lists of tokens.
            processor_kwargs: `images` and `regions` that the messages do not hold themselves.
            **more: what transformers knows further.

        Raises:
            DataError: the messages are of another form, or a picture or region has no place in them.
        """
        passed = {**(processor_kwargs or {}), **more}
        if not (tokenize and chat_template is None) or continue_final_message or "return_assistant_tokens_mask" in more:
            whole: Any = super()
            return whole.apply_chat_template(
                conversation,
                chat_template,
                tokenize=tokenize,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                return_dict=return_dict,
                return_tensors=return_tensors,
                processor_kwargs=dict(processor_kwargs or {}),
                **more,
            )
        alone = not conversation or isinstance(conversation[0], Mapping)
        conversations = [conversation] if alone else conversation
        images = _by_text(passed.get("images"), len(conversations), _is_image, "images")
        regions = _by_text(passed.get("regions"), len(conversations), _is_box, "regions")
        rows = []
        for number, messages in enumerate(conversations):
            images[number] = images[number] or [_source(part) for part in parts_of(messages, *IMAGE_PARTS)]
            regions[number] = regions[number] or [part["box"] for part in parts_of(messages, "region")]
            counts = {"images": len(images[number]), "regions": len(regions[number])}
            turns = turns_of(messages)
            rows.append(encode(self.chat, turns, self.tokenizer, **counts, prompt=add_generation_prompt).ids)
        batch = self._batch(rows, images, regions, return_tensors)
        return batch if return_dict else batch["input_ids"]

    def post_process_image_text_to_text(self, generated_outputs: Any, **settings: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """The text of tokens, without those of pictures and regions."""
        return self.decode(generated_outputs, **{"skip_special_tokens": True, **settings})

    def batch_decode(self, sequences: Any, **settings: Any) -> Any:  # noqa: ANN401
        """The texts of several rows of tokens."""
        return [self.decode(row, **settings) for row in sequences]

    def decode(self, token_ids: Any, **settings: Any) -> Any:  # noqa: ANN401
        """The text of tokens, or the texts of several rows, without those of pictures and regions."""
        row = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        if row and not isinstance(row[0], int):
            return self.batch_decode(row, **settings)
        return self.tokenizer.decode([token for token in row if token >= 0], **settings)

    def _ids(self, text: str, pictures: int, regions: int, add_special_tokens: bool) -> list[int]:
        """Tokenize a rendered text; the text between two images is tokenized at once."""
        left = {IMAGE_TOKEN: pictures, REGION_TOKEN: regions}
        stretches: list[str] = [""]
        places: list[int] = []
        for part in re.split(f"({IMAGE_TOKEN}|{REGION_TOKEN})", text):
            if left.get(part):
                left[part] -= 1
                places.append(IMAGE_TOKEN_ID if part == IMAGE_TOKEN else REGION_TOKEN_ID)
                stretches.append("")
            else:
                stretches[-1] += part
        if missing := [f"{count} {mark}" for mark, count in left.items() if count]:
            raise DataError(f"the text lacks {' and '.join(missing)} for {pictures} image(s) and {regions} region(s)")
        bos = self.tokenizer.bos_token
        special = add_special_tokens and not (bos is not None and text.startswith(bos))
        ids: list[int] = self.tokenizer(stretches[0], add_special_tokens=special)["input_ids"]
        for place, stretch in zip(places, stretches[1:], strict=True):
            ids += [place, *self.tokenizer(stretch, add_special_tokens=False)["input_ids"]]
        return ids

    def _batch(
        self, rows: Sequence[Sequence[int]], images: list[list[Any]], regions: list[list[Any]], tensors: str | None
    ) -> BatchFeature:
        """Pictures spread to their tokens, rows padded on the left, pictures and regions decoded."""
        takes = {IMAGE_TOKEN_ID: self.image_tokens}
        spread = [[each for token in row for each in [token] * takes.get(token, 1)] for row in rows]
        longest = max(map(len, spread))
        pad = self.tokenizer.pad_token_id or 0
        data: dict[str, Any] = {
            "input_ids": [[pad] * (longest - len(row)) + row for row in spread],
            "attention_mask": [[0] * (longest - len(row)) + [1] * len(row) for row in spread],
        }
        found = [[opened(each) for each in row] for row in images]
        crops = [_crop(box, row) for row, boxes in zip(found, regions, strict=True) for box in boxes]
        if any(found):
            data["pixel_values"] = pixels_of([each for row in found for each in row], self.image_processor.image_px)
        if crops:
            data["region_values"] = pixels_of(crops, self.image_processor.region_px)
        return BatchFeature(data, tensor_type=tensors)


def processor_of(config: GriffonConfig, chat: str, tokenizer: PreTrainedTokenizerBase) -> GriffonProcessor:
    """The processor of a model, whose tokenizer gets the chat template.

    Args:
        config: the model's.
        chat: the template that it was trained with.
        tokenizer: its own.

    Raises:
        SettingsError: there is no such template, or the tokenizer lacks its control tokens.
    """
    vision: Any = config.vision_config
    region: Any = config.region_config
    tokenizer.chat_template = chat_template(chat, tokenizer)
    return GriffonProcessor(
        GriffonImageProcessor(vision.image_size, REGION_PX if region is None else region.image_size),
        tokenizer,
        chat_template=tokenizer.chat_template,
        chat=chat,
        image_tokens=image_tokens(config.projector, config.patches_a_side),
    )


def _crop(box_xyxy_px: BoxXYXY, pictures: Sequence[Image.Image]) -> Image.Image:
    if not pictures:
        raise DataError(f"a region {tuple(box_xyxy_px)} without an image; a region is a box in the text's first image")
    return cropped(pictures[0], box_xyxy_px)


def _source(part: Message) -> Any:  # noqa: ANN401
    for name in _SOURCES:
        if name in part:
            found = part[name]
            return found["url"] if isinstance(found, Mapping) else found
    raise DataError(f"an image part without an image; give it as one of {', '.join(_SOURCES)}")


def _by_text(given: Any, texts: int, is_one: Callable[[Any], bool], what: str) -> list[list[Any]]:  # noqa: ANN401
    """A list of pictures or regions for each text: as given; or all for the only text; or one for each."""
    if given is None:
        return [[] for _ in range(texts)]
    several = [given] if is_one(given) else list(given)
    if not any(map(is_one, several)):
        rows = [list(row) for row in several] or [[] for _ in range(texts)]
    else:
        rows = [several] if texts == 1 else [[each] for each in several]
    if len(rows) != texts:
        raise DataError(f"{texts} texts, but {what} for {len(rows)} of them; give one list per text")
    return rows


def _is_image(given: Any) -> bool:  # noqa: ANN401
    return not isinstance(given, list | tuple)


def _is_box(given: Any) -> bool:  # noqa: ANN401
    return len(given) == 4 and all(isinstance(each, int | float) for each in given)
