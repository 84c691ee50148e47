"""The `llava` format: conversations, with a picture or without; ShareGPT4V's files too.

Met in the wild and read: roles `user`, `assistant` and `model`, numbers as values, `system` turns (left out: the chat
template of training has the system line), `<image>` anywhere in a turn, a picture that no turn mentions.
"""

from collections.abc import Mapping
from typing import Any, Literal

from griffon_prep.readers.base import Head, Inputs, Scan
from griffon_prep.readers.fields import is_number, list_field, short
from griffon_prep.readers.json_records import JsonRecords, scan_json
from griffon_prep.records import Record, Rejected
from griffon_shards.types import IMAGE_TOKEN, Turn

TASKS = ("LAZY",)
OPTIONS = ()
COMPANIONS = ()
EXAMPLES = {
    "captions.json": """\
[{"id": "1", "image": "coco/000000000001.jpg", "conversations": [
  {"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]},
 {"id": "2", "conversations": [
  {"from": "human", "value": "How many legs has a cat?"}, {"from": "gpt", "value": "Four."}]}]""",
}
_TABLE = "spans.bin"
_EXACT = 1 << 53  # whole numbers from here on are not all floats
_ROLES: dict[str, Literal["human", "gpt"]] = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "model": "gpt",
}


def recognises(head: Head) -> bool:
    """Whether a file that begins so is of this format."""
    return not head.member and "conversations" in head.element


def scan(inputs: Inputs) -> Scan:
    """Write the record table into the work folder."""
    return Scan(records=scan_json(inputs.annotation, inputs.work / _TABLE, None))


class Reader:
    """Reads one scanned `llava` source."""

    def __init__(self, inputs: Inputs) -> None:
        self._records = JsonRecords(inputs.annotation, inputs.work / _TABLE)

    def read(self, record_no: int) -> Record:
        """The record of this number. Raises Rejected if it cannot be used."""
        fields, _ = self._records[record_no]
        turns = _turns(fields)
        image_path = _image_path(fields)
        mentions = sum(turn.text.count(IMAGE_TOKEN) for turn in turns if turn.role == "human")
        if mentions > 1:
            raise Rejected("several_pictures", f"{mentions} {IMAGE_TOKEN} in one conversation")
        if mentions and image_path is None:
            raise Rejected("image_token_without_picture", f"{IMAGE_TOKEN} and no image")
        return Record(record_no=record_no, image_path=image_path, turns=turns)


def _image_path(fields: Mapping[str, Any]) -> str | None:
    image = fields.get("image")
    if isinstance(image, list):
        if len(image) > 1:
            raise Rejected("several_pictures", f"image: a list of {len(image)}")
        image = image[0] if image else None
    if image is None or image == "":
        return None
    if not isinstance(image, str):
        raise Rejected("bad_record", f"image: expected a path, got {short(image)}")
    return image


def _turns(fields: Mapping[str, Any]) -> tuple[Turn, ...]:
    turns = []
    for item in list_field(fields, "conversations"):
        role, value = (item.get("from"), item.get("value")) if isinstance(item, dict) else (None, None)
        if role == "system":
            continue
        if not isinstance(role, str) or role not in _ROLES:
            raise Rejected("bad_record", f"from: expected {', '.join(_ROLES)} or system, got {short(role)}")
        if is_number(value):
            if isinstance(value, float) and abs(value) >= _EXACT:
                raise Rejected("bad_record", f"value: {short(value)} was read as a number and may have lost digits")
            value = str(value)
        if not isinstance(value, str):
            raise Rejected("bad_record", f"value: expected text, got {short(value)}")
        turns.append(Turn(role=_ROLES[role], text=value))
    roles = [turn.role for turn in turns]
    if "human" not in roles or "gpt" not in roles[roles.index("human") :]:
        raise Rejected("no_turns", f"{len(turns)} turn(s), and no answer to a question")
    return tuple(turns)
