"""Conversations of `messages` with `role` and `content`, as ms-swift, LLaMA-Factory and Hugging Face write them."""

from collections.abc import Mapping
from typing import Any

from griffon_prep.readers.fields import list_field, short
from griffon_prep.records import Rejected
from griffon_shards.types import IMAGE_TOKEN

_PATHS = ("image", "image_url", "url", "path")


def as_conversations(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a record of `messages` as one of LLaVA's `conversations`; any other record as it is.

    The content of a message may be a list of texts and images; an image is written as `<image>`.

    Raises:
        Rejected: a message is not of this form, or the record names several images.
    """
    if "conversations" in fields or "messages" not in fields:
        return fields
    images: list[Any] = []
    turns = [_turn(item, images) for item in list_field(fields, "messages")]
    given = {name: value for name, value in fields.items() if name != "messages"}
    if isinstance(given.get("images"), list):
        given["images"] = [image.get("path") if isinstance(image, dict) else image for image in given["images"]]
    if images and not given.get("images") and not given.get("image"):
        given["images"] = images
    return {**given, "conversations": turns}


def _turn(item: object, images: list[Any]) -> dict[str, Any]:
    """Return a message as a turn, and add the images that its content names."""
    if not isinstance(item, dict):
        raise Rejected("bad_record", f"messages: expected role and content, got {short(item)}")
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, images) for part in content)
    return {"from": item.get("role"), "value": content}


def _part(part: object, images: list[Any]) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
        text: str = part["text"]
        return text
    if isinstance(part, dict) and kind in ("image", "image_url"):
        path = next((part[name] for name in _PATHS if part.get(name)), None)
        if isinstance(path, dict):
            path = path.get("url")
        if path is not None:
            images.append(path)
        return IMAGE_TOKEN
    raise Rejected("bad_record", f"content: expected text or an image, got {short(part)}")
