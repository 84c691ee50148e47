"""`griffon-train ask`: ask a model about images."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from griffon_shards.draw import draw_boxes
from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.logs import verbosity_option
from griffon_shards.support.tables import table
from griffon_shards.templates import Templates, load_templates
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY
from griffon_train.cli.model_options import model_options

if TYPE_CHECKING:
    from PIL.Image import Image

    from griffon_train.evaluation.inquiry_lines import InquiryLine
    from griffon_train.evaluation.predictor import Predictor, Reply
    from griffon_train.evaluation.saved_model import LoadedModel

_log = logging.getLogger(__name__)

_PATH = click.Path(path_type=Path)
_STALL_S = 1800.0
_STANDARD_INPUT = "-"
_BOX_FORM = "x1,y1,x2,y2"


def _box(_context: click.Context, _option: click.Parameter, value: str | None) -> BoxXYXY | None:
    if value is None:
        return None
    try:
        x1, y1, x2, y2 = (float(corner) for corner in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected {_BOX_FORM} in pixels, such as 10,20,110,220") from None
    return x1, y1, x2, y2


@click.command("ask")
@click.argument("model", type=_PATH)
@click.argument("image", required=False)
@click.argument("question", required=False)
@click.option(
    "--task",
    type=click.Choice(["det", "vg", "reg", "visj"], case_sensitive=False),
    help="Ask with the question template of this task: det needs --categories, vg a phrase as QUESTION, reg --box, "
    "visj --region.",
)
@click.option("--categories", help='Names to detect, such as "cat, dog".')
@click.option("--box", metavar=_BOX_FORM, callback=_box, help="Box to describe, in pixels.")
@click.option(
    "--region", metavar=_BOX_FORM, callback=_box, help="Region that <region> in the question stands for, in pixels."
)
@click.option(
    "--questions",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="File of questions as JSON lines, or - for standard input. Keys: image, question, task, categories, box, "
    "region, id.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.option(
    "--draw",
    type=_PATH,
    help="Draw the boxes of the answer and write the image to this file; with --questions, to this folder.",
)
@click.option("--templates", type=_PATH, help="Folder with question templates.  [default: the built-in templates]")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Maximum number of tokens in an answer.",
)
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Number of questions to answer at once."
)
@model_options
@verbosity_option
@guard
def ask_command(
    model: Path,
    image: str | None,
    question: str | None,
    task: str | None,
    categories: str | None,
    box: BoxXYXY | None,
    region: BoxXYXY | None,
    questions: str | None,
    as_json: bool,
    draw: Path | None,
    checkpoint: str | None,
    templates: Path | None,
    max_new_tokens: int,
    batch: int,
    device: str,
    dtype: str,
) -> None:
    """Ask MODEL about IMAGE and print the answer, with its boxes in pixels.

    MODEL is a saved model, the output folder of a run, one of its checkpoints, or an adapter of a run. QUESTION is in
    any words. With --region, it contains <region> where the region is meant.
    """
    from transformers.utils.logging import disable_progress_bar  # torch takes seconds to import

    from griffon_train.evaluation.inquiry_lines import InquiryLine, category_names
    from griffon_train.evaluation.predictor import Predictor
    from griffon_train.evaluation.task_prompts import Inquiry

    disable_progress_bar()
    inquiry = Inquiry(
        question=question,
        task=None if task is None else task.upper(),
        categories=category_names(categories),
        box_xyxy_px=box,
        region_xyxy_px=region,
    )
    wordings = load_templates(templates)
    lines: Iterable[InquiryLine]
    if questions is None:
        lines = [InquiryLine(line_no=1, id=None, image=image, inquiry=inquiry)]
        _check_before_loading(lines[0], wordings)
    else:
        if inquiry != Inquiry():
            raise SettingsError("--questions has the questions; leave out QUESTION, --task and what belongs to them")
        lines = _lines_of(questions, image)
    _check_drawing(draw, is_folder=questions is not None)
    loaded = _opened(model, checkpoint, device, dtype)
    predictor = Predictor(loaded.model, loaded.tokenizer, chat=loaded.chat, templates=wordings)
    for line, seen, reply in _answered(predictor, lines, questions, batch, max_new_tokens):
        _show(line, reply, as_json=as_json, alone=questions is None)
        if draw is not None:
            _draw(draw if questions is None else draw / f"{line.line_no}.png", line, seen, reply)


def _opened(path: Path, checkpoint: str | None, device: str, dtype: str) -> "LoadedModel":
    """Load a model, with processes of DeepSpeed's only where a run's parts must be put together."""
    from griffon_train.distributed.process_group import distributed_session
    from griffon_train.evaluation.saved_model import open_saved
    from griffon_train.training.model_source import open_model, source_of

    if source_of(path, checkpoint).saved:
        return open_saved(path, device, dtype)
    with distributed_session(device, _STALL_S) as ranks:
        return open_model(path, checkpoint, dtype, ranks).loaded


def _check_before_loading(line: "InquiryLine", templates: Templates) -> None:
    """Report what is wrong with a single question before minutes are spent on loading a model."""
    from griffon_train.evaluation.predictor import image_of
    from griffon_train.evaluation.task_prompts import prompt_of

    if line.image is None:
        raise SettingsError("give an IMAGE and a QUESTION, or --questions FILE")
    prompt_of(line.inquiry, image_of(line.image), templates, "text")


def _check_drawing(draw: Path | None, *, is_folder: bool) -> None:
    from PIL import Image

    if draw is None:
        return
    if is_folder:
        draw.mkdir(parents=True, exist_ok=True)
    elif Image.registered_extensions().get(draw.suffix.lower()) not in Image.SAVE:  # some formats are only read
        raise SettingsError(
            f"--draw {draw}: images with the extension {draw.suffix!r} cannot be written; name it .png or .jpg"
        )
    elif not draw.parent.is_dir():
        raise SettingsError(f"--draw {draw}: there is no folder {draw.parent}; make it first")


def _lines_of(questions: str, image: str | None) -> "Iterable[InquiryLine]":
    """The lines of a file, checked up front, or of standard input as they come."""
    from griffon_train.evaluation.inquiry_lines import read_inquiries

    if questions == _STANDARD_INPUT:
        return read_inquiries(sys.stdin.buffer, "standard input", image)
    with Path(questions).open("rb") as file:
        return list(read_inquiries(file, questions, image))


def _answered(
    predictor: "Predictor", lines: "Iterable[InquiryLine]", questions: str | None, batch_size: int, max_new_tokens: int
) -> "Iterator[tuple[InquiryLine, Image | None, Reply]]":
    from griffon_train.evaluation.predictor import image_of

    left = iter(lines)
    while batch := list(islice(left, batch_size)):
        with _naming_lines(questions, batch):
            images = {path: image_of(path) for path in dict.fromkeys(line.image for line in batch)}
            replies = predictor.ask(
                [(images[line.image], line.inquiry) for line in batch], max_new_tokens=max_new_tokens
            )
        for line, reply in zip(batch, replies, strict=True):
            yield line, images[line.image], reply


@contextmanager
def _naming_lines(questions: str | None, batch: "Sequence[InquiryLine]") -> Iterator[None]:
    try:
        yield
    except (SettingsError, DataError) as error:
        if questions is None:
            raise
        first, last = batch[0].line_no, batch[-1].line_no
        numbers = f"line {first}" if first == last else f"lines {first} to {last}"
        raise DataError(f"--questions {questions}, {numbers}: {error}") from None


def _show(line: "InquiryLine", reply: "Reply", *, as_json: bool, alone: bool) -> None:
    """Print a reply to standard output, and what its reader should know to standard error."""
    if as_json:
        click.echo(orjson.dumps(_fields(line, reply)).decode())
        return
    if not alone:
        question = " ".join(reply.question.replace(IMAGE_TOKEN, "", 0 if line.image is None else 1).split())
        click.echo(f"{line.image or 'text'}: {question}")
    click.echo(reply.text)
    if reply.boxes:
        rows = [
            (box.label or "-", *(round(corner, 1) for corner in box.box_xyxy_px), f"{box.score:.3f}")
            for box in reply.boxes
        ]
        click.echo(table(("label", "x1", "y1", "x2", "y2", "score"), rows))
    if not alone:
        click.echo("")
    if not reply.complete:
        _log.warning("the answer was cut off; raise --max-new-tokens")
    elif reply.unparsed is not None:
        _log.warning(f"no boxes could be read from the answer: {reply.unparsed}")


def _fields(line: "InquiryLine", reply: "Reply") -> dict[str, Any]:
    boxes = [
        {
            "label": box.label,
            "box": [round(corner, 2) for corner in box.box_xyxy_px],
            "score": round(box.score, 6),
        }
        for box in reply.boxes
    ]
    fields = {
        "image": line.image,
        "question": reply.question,
        "answer": reply.text,
        "complete": reply.complete,
        "boxes": boxes,
        "unparsed": reply.unparsed,
    }
    return fields if line.id is None else {"id": orjson.Fragment(line.id), **fields}


def _draw(path: Path, line: "InquiryLine", image: "Image | None", reply: "Reply") -> None:
    """Draw the answered boxes, or the box that was described, and the region."""
    if image is None:
        return
    drawing = image.copy()
    boxes = [(box.label, box.box_xyxy_px) for box in reply.boxes]
    if line.inquiry.box_xyxy_px is not None:
        boxes.append((reply.text, line.inquiry.box_xyxy_px))
    draw_boxes(drawing, boxes, line.inquiry.region_xyxy_px)
    drawing.save(path)
    _log.info(f"wrote {path}")
