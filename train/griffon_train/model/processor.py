"""The processor for transformers: makes the same tokens and pixels from conversations and images as training."""

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
"""Keys under which a part of a message may hold its image."""


class GriffonProcessor(ProcessorMixin):
    """Prepares conversations and images for a Griffon model.

    Attributes:
        image_processor: prepares images.
        tokenizer: the model's.
        chat: the chat template that the model was trained with, a name in `griffon_train.text.chat_templates.CHATS`.
        image_tokens: number of image tokens per image.
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
        """Tokenize texts that a chat template has rendered, and prepare their images and regions.

        Args:
            images: as `GriffonImageProcessor` takes them; for several texts, one list per text.
            text: one text or several, with `<image>` in place of each image and `<region>` in place of each region.
            regions: boxes in pixels of the text's first image, (x1, y1, x2, y2); for several texts, one list per text.
            add_special_tokens: begin with bos, unless the text does.
            return_tensors: `pt`, or None for lists of tokens.

        Returns:
            `input_ids` and `attention_mask`, padded on the left; `pixel_values` and `region_values` if there are any.

        Raises:
            DataError: a text has too few `<image>` or `<region>`, or an image does not decode.
        """
        if text is None:
            raise DataError("a text is required; for images alone, use the image_processor")
        texts = [text] if isinstance(text, str) else list(text)
        images_by_text = _by_text(images, len(texts), _is_image, "images")
        boxes_by_text = _by_text(regions, len(texts), _is_box, "regions")
        rows = [
            self._ids(rendered, len(images), len(boxes), add_special_tokens)
            for rendered, images, boxes in zip(texts, images_by_text, boxes_by_text, strict=True)
        ]
        return self._batch(rows, images_by_text, boxes_by_text, return_tensors)

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
        """Render conversations as text, or as tokens and pixels; see transformers.

        Tokens come from our own templates, in which text never becomes a control token.

        Args:
            conversation: messages as `text/jinja_templates.py` describes them, or several conversations. An image part
                holds its image under `image`, `url`, `path` or `base64`, a region part its box under `box`, in pixels
                of the conversation's first image.
            chat_template: a different template, in Jinja.
            tokenize: return tokens instead of text.
            add_generation_prompt: end where the model's answer begins.
            continue_final_message: end within the last answer, so that the model continues it.
            return_dict: return images and masks as well; otherwise `input_ids` alone.
            return_tensors: `pt`, or None for lists of tokens.
            processor_kwargs: `images` and `regions`, if they are not in the messages.
            **more: further arguments of transformers.

        Raises:
            DataError: the messages have another format, or lack the place of an image or region.
        """
        passed = {**(processor_kwargs or {}), **more}
        if not (tokenize and chat_template is None) or continue_final_message or "return_assistant_tokens_mask" in more:
            base: Any = super()
            return base.apply_chat_template(
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
        single = not conversation or isinstance(conversation[0], Mapping)
        conversations = [conversation] if single else conversation
        images = _by_text(passed.get("images"), len(conversations), _is_image, "images")
        regions = _by_text(passed.get("regions"), len(conversations), _is_box, "regions")
        rows = []
        for index, messages in enumerate(conversations):
            images[index] = images[index] or [_source(part) for part in parts_of(messages, *IMAGE_PARTS)]
            regions[index] = regions[index] or [part["box"] for part in parts_of(messages, "region")]
            counts = {"images": len(images[index]), "regions": len(regions[index])}
            turns = turns_of(messages)
            rows.append(encode(self.chat, turns, self.tokenizer, **counts, prompt=add_generation_prompt).ids)
        batch = self._batch(rows, images, regions, return_tensors)
        return batch if return_dict else batch["input_ids"]

    def post_process_image_text_to_text(self, generated_outputs: Any, **settings: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        """Return the text of tokens, skipping those of images and regions."""
        return self.decode(generated_outputs, **{"skip_special_tokens": True, **settings})

    def batch_decode(self, sequences: Any, **settings: Any) -> Any:  # noqa: ANN401
        """Return the texts of several rows of tokens."""
        return [self.decode(row, **settings) for row in sequences]

    def decode(self, token_ids: Any, **settings: Any) -> Any:  # noqa: ANN401
        """Return the text of tokens, or the texts of several rows, skipping tokens of images and regions."""
        row = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        if row and not isinstance(row[0], int):
            return self.batch_decode(row, **settings)
        return self.tokenizer.decode([token for token in row if token >= 0], **settings)

    def _ids(self, text: str, images: int, regions: int, add_special_tokens: bool) -> list[int]:
        """Tokenize a rendered text; the text between two images is tokenized at once."""
        left = {IMAGE_TOKEN: images, REGION_TOKEN: regions}
        stretches: list[str] = [""]
        placeholders: list[int] = []
        for part in re.split(f"({IMAGE_TOKEN}|{REGION_TOKEN})", text):
            if left.get(part):
                left[part] -= 1
                placeholders.append(IMAGE_TOKEN_ID if part == IMAGE_TOKEN else REGION_TOKEN_ID)
                stretches.append("")
            else:
                stretches[-1] += part
        if missing := [f"{count} {mark}" for mark, count in left.items() if count]:
            raise DataError(f"the text lacks {' and '.join(missing)} for {images} image(s) and {regions} region(s)")
        bos = self.tokenizer.bos_token
        special = add_special_tokens and not (bos is not None and text.startswith(bos))
        ids: list[int] = self.tokenizer(stretches[0], add_special_tokens=special)["input_ids"]
        for placeholder, stretch in zip(placeholders, stretches[1:], strict=True):
            ids += [placeholder, *self.tokenizer(stretch, add_special_tokens=False)["input_ids"]]
        return ids

    def _batch(
        self, rows: Sequence[Sequence[int]], images: list[list[Any]], regions: list[list[Any]], tensors: str | None
    ) -> BatchFeature:
        """Expand image tokens, pad rows on the left, and decode images and regions."""
        repeats = {IMAGE_TOKEN_ID: self.image_tokens}
        expanded = [[token for token in row for _ in range(repeats.get(token, 1))] for row in rows]
        longest = max(map(len, expanded))
        pad = self.tokenizer.pad_token_id or 0
        data: dict[str, Any] = {
            "input_ids": [[pad] * (longest - len(row)) + row for row in expanded],
            "attention_mask": [[0] * (longest - len(row)) + [1] * len(row) for row in expanded],
        }
        decoded = [[opened(image) for image in row] for row in images]
        crops = [_crop(box, row) for row, boxes in zip(decoded, regions, strict=True) for box in boxes]
        if any(decoded):
            data["pixel_values"] = pixels_of([image for row in decoded for image in row], self.image_processor.image_px)
        if crops:
            data["region_values"] = pixels_of(crops, self.image_processor.region_px)
        return BatchFeature(data, tensor_type=tensors)


def processor_of(config: GriffonConfig, chat: str, tokenizer: PreTrainedTokenizerBase) -> GriffonProcessor:
    """Make the processor of a model, and set the chat template of its tokenizer.

    Args:
        config: the model's.
        chat: the chat template that the model was trained with.
        tokenizer: the model's.

    Raises:
        SettingsError: the template is unknown, or the tokenizer lacks its control tokens.
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


def _crop(box_xyxy_px: BoxXYXY, images: Sequence[Image.Image]) -> Image.Image:
    if not images:
        raise DataError(f"region {tuple(box_xyxy_px)} without an image; a region is a box in the text's first image")
    return cropped(images[0], box_xyxy_px)


def _source(part: Message) -> Any:  # noqa: ANN401
    for name in _SOURCES:
        if name in part:
            source = part[name]
            return source["url"] if isinstance(source, Mapping) else source
    raise DataError(f"an image part without an image; give it as one of {', '.join(_SOURCES)}")


def _by_text(values: Any, texts: int, is_one: Callable[[Any], bool], what: str) -> list[list[Any]]:  # noqa: ANN401
    """Return the images or regions of each text. A flat list is for a single text, or has one per text."""
    if values is None:
        return [[] for _ in range(texts)]
    several = [values] if is_one(values) else list(values)
    if not any(map(is_one, several)):
        rows = [list(row) for row in several] or [[] for _ in range(texts)]
    else:
        rows = [several] if texts == 1 else [[item] for item in several]
    if len(rows) != texts:
        raise DataError(f"{texts} texts, but {what} for {len(rows)} of them; give one list per text")
    return rows


def _is_image(value: Any) -> bool:  # noqa: ANN401
    return not isinstance(value, list | tuple)


def _is_box(value: Any) -> bool:  # noqa: ANN401
    return len(value) == 4 and all(isinstance(edge, int | float) for edge in value)
