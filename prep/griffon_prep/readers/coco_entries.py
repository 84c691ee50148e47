"""An entry of COCO's `images`: where its picture lies, and how a message names it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from griffon_prep.readers.fields import short, text_field
from griffon_prep.records import Rejected, is_blank


@contextmanager
def naming(fields: Mapping[str, Any]) -> Iterator[None]:
    """Whatever is rejected in here is told with the name of the picture whose entry this is."""
    try:
        yield
    except Rejected as rejected:
        given = fields.get("file_name") or fields.get("coco_url")
        name = given if isinstance(given, str) and not is_blank(given) else f"the picture of id {short(fields['id'])}"
        raise Rejected(rejected.reason, f"{name}: {rejected.detail}") from None


def image_path_of(fields: Mapping[str, Any]) -> str:
    """Where an entry of `images` says the picture is: `file_name`, or in LVIS the last two parts of `coco_url`."""
    return _by_url(fields) if not fields.get("file_name") and "coco_url" in fields else text_field(fields, "file_name")


def image_elsewhere_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the picture may be if it is not there: by `coco_url`, for LVIS v0.5 keeps the file names of 2014."""
    url = fields.get("coco_url")
    return (_by_url(fields),) if fields.get("file_name") and isinstance(url, str) and not is_blank(url) else ()


def _by_url(fields: Mapping[str, Any]) -> str:
    return "/".join(text_field(fields, "coco_url").split("/")[-2:])
