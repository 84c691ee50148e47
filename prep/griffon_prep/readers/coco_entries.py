"""An entry of COCO's `images`: the path of its image, and its name in messages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from griffon_prep.readers.fields import short, text_field
from griffon_prep.records import Rejected, is_blank


@contextmanager
def naming(fields: Mapping[str, Any]) -> Iterator[None]:
    """Context manager that adds the image's name to the detail of any `Rejected` raised inside."""
    try:
        yield
    except Rejected as rejected:
        given = fields.get("file_name") or fields.get("coco_url")
        name = given if isinstance(given, str) and not is_blank(given) else f"image id {short(fields['id'])}"
        raise Rejected(rejected.reason, f"{name}: {rejected.detail}") from None


def image_path_of(fields: Mapping[str, Any]) -> str:
    """Return the image path of an entry of `images`: `file_name`, or for LVIS the last two parts of `coco_url`."""
    return _by_url(fields) if not fields.get("file_name") and "coco_url" in fields else text_field(fields, "file_name")


def image_elsewhere_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return alternative image paths from `coco_url`; LVIS v0.5 has the file names of the 2014 release."""
    url = fields.get("coco_url")
    return (_by_url(fields),) if fields.get("file_name") and isinstance(url, str) and not is_blank(url) else ()


def _by_url(fields: Mapping[str, Any]) -> str:
    return "/".join(text_field(fields, "coco_url").split("/")[-2:])
