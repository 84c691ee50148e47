"""Ask a saved model from Python: an image and a question in, text and boxes in pixels out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerBase

from griffon_shards import images
from griffon_shards.grammar import ANSWERED_WITH_BOXES
from griffon_shards.support.errors import DataError
from griffon_shards.templates import Templates, load_templates
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.answers import ParsedAnswer, box_scores, parse
from griffon_train.evaluation.generation import Answer, Generator
from griffon_train.evaluation.saved_model import open_saved
from griffon_train.evaluation.task_prompts import Inquiry, prompt_of
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.image_processor import opened

MAX_NEW_TOKENS = 1024

_FAULTS = ("broken_box", "coordinate_outside")

ImageSource = str | Path | Image.Image | NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyBox:
    """A box that a model answered: its label, empty if it has none, corners in pixels, and score in [0, 1]."""

    label: str
    box_xyxy_px: BoxXYXY
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a question.

    Attributes:
        question: the human turn, as the model was asked.
        text: the answer.
        complete: False if it was cut off at `max_new_tokens`.
        boxes: the boxes in it, in pixels of the image; empty for a question about text.
        unparsed: one of `answers.UNPARSED_REASONS` if boxes could not be read, else None. An answer without a box is
            unparsed only if the task asks for boxes.
    """

    question: str
    text: str
    complete: bool
    boxes: tuple[ReplyBox, ...]
    unparsed: str | None


class Predictor:
    """A model to ask: `Predictor.from_pretrained("runs/3")("street.jpg", "Where is the red car?")`."""

    def __init__(
        self,
        model: GriffonForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat: str,
        templates: Templates | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: on its device.
            tokenizer: its own.
            chat: the chat template that it was trained with.
            templates: question templates for tasks; the built-in ones by default.

        Raises:
            SettingsError: the chat template is unknown, or the tokenizer does not fit it.
        """
        model.train(False)
        self._generator = Generator(model, tokenizer, chat=chat)
        self._box_style: str = model.config.box_style
        self._templates = load_templates(None) if templates is None else templates

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, *, device: str = "auto", dtype: str = "auto", templates: Path | None = None
    ) -> "Predictor":
        """Load a model.

        Args:
            folder: a saved model, or the folder of a run.
            device: `auto`, `cpu`, `cuda`, or a device of torch; auto is CUDA if available.
            dtype: `auto`, `bfloat16` or `float32`; auto is bfloat16 on CUDA and float32 on the CPU.
            templates: a folder of question templates that the model was trained with, as for `griffon-prep build`.

        Raises:
            SettingsError: there is no such model, device or dtype.
            DataError: the weights are damaged.
        """
        loaded = load_templates(templates)
        model, tokenizer, chat = open_saved(Path(folder), device, dtype)
        return cls(model, tokenizer, chat=chat, templates=loaded)

    @overload
    def __call__(
        self, image: ImageSource, question: str, region: BoxXYXY | None = None, *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> Reply: ...

    @overload
    def __call__(
        self,
        image: ImageSource,
        question: list[str],
        region: BoxXYXY | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> list[Reply]: ...

    def __call__(
        self,
        image: ImageSource,
        question: str | list[str],
        region: BoxXYXY | None = None,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> Reply | list[Reply]:
        """Ask one question about an image, or several in one batch.

        Args:
            image: a path, an image of PIL, an array [height, width, 3] of uint8, or None for a question about text.
            question: in any words, or a list of questions; with a region it contains `<region>`.
            region: what `<region>` stands for: x1, y1, x2, y2 in pixels of the image as stored.
            max_new_tokens: tokens after which an answer is cut off.

        Raises:
            SettingsError: the question and the region do not fit each other or the image.
            DataError: the image cannot be read.
        """
        questions = [question] if isinstance(question, str) else question
        seen = image_of(image)
        replies = self.ask(
            [(seen, Inquiry(question=text, region_xyxy_px=region)) for text in questions], max_new_tokens=max_new_tokens
        )
        return replies[0] if isinstance(question, str) else replies

    def ask(
        self, inquiries: Sequence[tuple[Image.Image | None, Inquiry]], *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[Reply]:
        """Answer inquiries in one batch; images as `image_of` returns them.

        Raises:
            SettingsError: an inquiry lacks something, has a box that is not in its image, or has a region and the model
                no region tower.
        """
        prompts = [prompt_of(inquiry, image, self._templates, self._box_style) for image, inquiry in inquiries]
        answers = self._generator.answers(prompts, max_new_tokens)
        return [
            _reply(prompt.turns[-1].text, inquiry.task, image, answer)
            for prompt, (image, inquiry), answer in zip(prompts, inquiries, answers, strict=True)
        ]


def image_of(given: ImageSource) -> Image.Image | None:
    """An image in RGB as training decodes it, in its stored orientation; None for None.

    Args:
        given: a path, an image of PIL, an array [height, width, 3] of uint8, or None.

    Raises:
        DataError: there is no such file, or it is not an image.
    """
    if given is None:
        return None
    if isinstance(given, str) and not given:
        raise DataError("the path of an image is empty; give one, or null (in Python: None) for a question about text")
    if isinstance(given, np.ndarray):
        return opened(_of_array(given))
    if not isinstance(given, str | Path):
        return opened(given)
    try:
        return images.decode(Path(given).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{given}: no such image; a relative path starts at the working directory") from None
    except IsADirectoryError:
        raise DataError(f"{given}: a folder; give an image in it") from None
    except images.ImageError as error:
        raise DataError(f"{given}: cannot be read as an image: {error}") from None


def _of_array(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise DataError(
            f"an array of shape {list(pixels.shape)} and {pixels.dtype}; expected [height, width, 3] of uint8"
        )
    return Image.fromarray(pixels)


def _reply(question: str, task: str | None, image: Image.Image | None, answer: Answer) -> Reply:
    parsed = ParsedAnswer()
    if image is not None and (task is None or task in ANSWERED_WITH_BOXES):
        parsed = parse(answer.text, task or "VG", complete=answer.complete, question=question)
    may_lack_boxes = task is None and parsed.unparsed not in _FAULTS
    scores = box_scores(parsed, answer.token_ends, answer.token_logprobs)
    return Reply(
        question=question,
        text=answer.text,
        complete=answer.complete,
        boxes=tuple(
            ReplyBox(label=box.label, box_xyxy_px=_pixels(box.box_xyxy, image), score=score)
            for box, score in zip(parsed.boxes, scores, strict=True)
        ),
        unparsed=None if may_lack_boxes else parsed.unparsed,
    )


def _pixels(box_xyxy: BoxXYXY, image: Image.Image | None) -> BoxXYXY:
    assert image is not None
    x1, y1, x2, y2 = box_xyxy
    return x1 * image.width, y1 * image.height, x2 * image.width, y2 * image.height
