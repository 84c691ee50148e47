"""Questions as JSON lines, for asking many of them with one load of the model."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec import UNSET, UnsetType

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.task_prompts import Inquiry


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryLine:
    """A line of questions.

    Attributes:
        line_no: its number, from 1.
        id: the JSON text of its `id`, which can be any value; None without one.
        image: the path of its image, or None.
        inquiry: the inquiry.
    """

    line_no: int
    id: bytes | None
    image: str | None
    inquiry: Inquiry


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    id: msgspec.Raw = msgspec.Raw()
    image: str | UnsetType | None = UNSET
    question: str | None = None
    task: str | None = None
    categories: str | list[str] | None = None
    box: BoxXYXY | None = None
    region: BoxXYXY | None = None


def read_inquiries(lines: Iterable[bytes], where: str, default_image: str | None) -> Iterator[InquiryLine]:
    """Read questions, one JSON object a line; blank lines are skipped.

    Args:
        lines: of a file or a stream.
        where: its name, for messages.
        default_image: the image of lines that have no `image`; one with `"image": null` is about text.

    Raises:
        DataError: a line is not such an object.
    """
    for line_no, line in enumerate(lines, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if line_no == 1 else line
        if not text.strip():
            continue
        try:
            fields = msgspec.json.decode(text.decode(), type=_Fields)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(
                f"{where}, line {line_no}: {error}; expected a JSON object with "
                f"{', '.join(_Fields.__struct_fields__)}, got {line.strip().decode(errors='replace'):.80}"
            ) from None
        given_id = bytes(fields.id)
        yield InquiryLine(
            line_no=line_no,
            id=None if given_id in (b"", b"null") else given_id,
            image=default_image if fields.image is UNSET else fields.image,
            inquiry=Inquiry(
                question=fields.question,
                task=None if fields.task is None else fields.task.upper(),
                categories=category_names(fields.categories),
                box_xyxy_px=fields.box,
                region_xyxy_px=fields.region,
            ),
        )


def category_names(given: str | list[str] | None) -> tuple[str, ...] | None:
    """Names of categories from a list, or from text with commas between them."""
    if given is None:
        return None
    names = given.split(",") if isinstance(given, str) else given
    return tuple(name.strip() for name in names if name.strip())
