"""The `llava` format: conversations with or without an image, as in LLaVA's and ShareGPT4V's files.

Common variants are read too: roles `user`, `assistant` and `model`; numbers as values; `system` turns (skipped, because
the chat template of training has the system line); `<image>` anywhere in a turn; an image that no turn mentions; and
other projects' names for the image field and for `<image>`. Records that may refer to anything else are rejected.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_text import FOREIGN_BOX, UNREAD_BOX, has_foreign_boxes
from griffon_prep.readers.fields import is_number, list_field, short
from griffon_prep.readers.jsonscan.records import JsonRecords, scan_json
from griffon_prep.records import BOX_MARK, Record, Rejected, is_blank
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
_EXACT = 1 << 53  # floats represent all integers up to here
_ROLES: dict[str, Literal["human", "gpt"]] = {
    "human": "human",
    "user": "human",
    "gpt": "gpt",
    "assistant": "gpt",
    "model": "gpt",
}
_IMAGE_FIELDS = ("image", "images", "image_path", "image_file", "img", "img_path", "image_url")
"""Fields that may hold the image's path; `image` has priority over the others, which must agree."""

_FILE_FIELDS = ("file_name", "filename", "file_path", "filepath", "path")
FIELDS_OF_FILES = (*_IMAGE_FIELDS, *_FILE_FIELDS)
_IMAGE_NAME = re.compile(r".+\.(?:jpe?g|png|bmp|gif|tiff?|webp)", re.IGNORECASE | re.DOTALL)
"""Fields that may hold the path of any file; they are read only if it is an image's."""

_MAY_SHOW = re.compile(r"image|img|picture|photo|video|audio", re.IGNORECASE)
_NEVER_SHOWN = re.compile(r"videos?|audios?")
_OTHER_MARK = re.compile(
    r"<img>[^<>\n]*</img>|<Img><ImageHere></Img>|<\|vision_start\|><\|image_pad\|><\|vision_end\|>|<\|image\w*\|>"
    r"|(?<!`)<(?:ImageHere|image_placeholder|image_?\d+|img|video|audio)>(?!`)"
)
"""Other projects' placeholders for an image, a video or a sound: Qwen-VL, MiniGPT-4, Qwen2-VL, Phi-3-vision,
InternLM-XComposer and DeepSeek-VL. In backticks they belong to a text about HTML."""

_MARK_WITHOUT_IMAGE = re.compile(
    r"(?<![`\w])(?:<(?:image|img|im_start|im_patch|video|audio|speech|point_cloud)\s*/?>|\[(?:img|image)\]"
    r"|!\[[^\]\n]*\]\([^)\n]+\))(?!`)",
    re.IGNORECASE,
)
"""Further placeholders, which reject a record that has no image; `<image>` itself is counted apart."""

_NO_IMAGE_MARKS = ("<video>", "<audio>")


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return not head.member and "conversations" in head.element and not has_foreign_boxes(head.element)


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the record table into the work folder."""
    return Scan(records=scan_json(inputs.annotation, inputs.work / _TABLE, None))


class Reader:
    """Reads one scanned `llava` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.annotation, inputs.work / _TABLE)

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, _ = self._records[record_no]
        record = conversation_of(fields, record_no)
        check_boxes_are_ours(fields, record)
        return record


def conversation_of(fields: Mapping[str, Any], record_no: int) -> Record:
    """Return the conversation in the fields of a record.

    Raises:
        Rejected: it cannot be used.
    """
    image_path = _image_path(fields)
    turns = _with_our_mark(_turns(fields), image_path)
    mentions = sum(turn.text.count(IMAGE_TOKEN) for turn in turns if turn.role == "human")
    if mentions > 1:
        raise Rejected("several_pictures", f"the conversation has {mentions} {IMAGE_TOKEN}, expected one")
    if mentions and image_path is None:
        raise Rejected("image_token_without_picture", f"the text has {IMAGE_TOKEN}, but the record has no image")
    return Record(record_no=record_no, image_path=image_path, turns=turns)


def may_show(name: str) -> bool:
    """Whether a field of this name may hold an image, a video or a sound."""
    return bool(_MAY_SHOW.search(name))


def check_boxes_are_ours(fields: Mapping[str, Any], record: Record) -> None:
    """Reject a conversation with boxes in another model's notation, whose unit may be another, too."""
    for turn in record.turns:
        mark = FOREIGN_BOX.search(turn.text)
        if mark or (BOX_MARK in turn.text and isinstance(fields.get("objects"), dict)):
            raise Rejected(
                "foreign_boxes",
                f"the text has {short(mark[0] if mark else BOX_MARK)}; add format=grounding-jsonl to the manifest line",
            )
    check_boxes_are_read(record.turns)


def check_boxes_are_read(turns: Iterable[Turn]) -> None:
    """Reject a conversation with boxes in a notation that no format converts."""
    for turn in turns:
        if mark := UNREAD_BOX.search(turn.text):
            raise Rejected(
                "foreign_boxes",
                f"the text has {short(mark[0])}, boxes in a notation that is not read; convert them to bbox_2d",
            )


def _image_path(fields: Mapping[str, Any]) -> str | None:
    """Return the path of the record's image, or None for a text-only record.

    Raises:
        Rejected: the record names several images, or has a field that is not read.
    """
    for name, value in fields.items():
        if value and _NEVER_SHOWN.fullmatch(name):
            raise Rejected("picture_field_unknown", f"{name}: {short(value)}; video and audio are not supported")
    paths = {name: path for name in _IMAGE_FIELDS if (path := _path(name, fields.get(name)))}
    if "image" in paths:
        return paths["image"]
    if len(set(paths.values())) > 1:
        raise Rejected("picture_field_unknown", f"{', '.join(paths)} name different images; put the right one in image")
    if paths:
        return next(iter(paths.values()))
    named = {value for name in _FILE_FIELDS if isinstance(value := fields.get(name), str)}
    files = set(filter(_IMAGE_NAME.fullmatch, named))
    if len(files) > 1:
        raise Rejected("picture_field_unknown", f"{short(sorted(files))}: different images; put the right one in image")
    if files:
        return files.pop()
    for name, value in fields.items():
        if value and name not in _IMAGE_FIELDS and _MAY_SHOW.search(name):
            raise Rejected("picture_field_unknown", f"{name}: {short(value)}; put the image's path in image")
    return None


def _path(name: str, value: object) -> str | None:
    if isinstance(value, list):
        if len(value) > 1:
            raise Rejected("several_pictures", f"{name}: expected one image, got a list of {len(value)}")
        value = value[0] if value else None
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Rejected("bad_record", f"{name}: expected a path, got {short(value)}")
    if value.startswith("data:"):
        raise Rejected("picture_field_unknown", f"{name}: {short(value)}; save the image as a file and give its path")
    return value


def _with_our_mark(turns: Sequence[Turn], image_path: str | None) -> tuple[Turn, ...]:
    """Return the turns with another project's image placeholder replaced by `<image>`.

    Raises:
        Rejected: the placeholder stands for video or audio, or there is no image or more than one placeholder.
    """
    questions = "\0".join(turn.text for turn in turns if turn.role == "human")
    marks = _OTHER_MARK.findall(questions)
    if image_path is None and not marks:
        marks = _MARK_WITHOUT_IMAGE.findall(questions)
    if not marks or IMAGE_TOKEN in questions:
        return tuple(turns)
    if image_path is None or set(marks) & set(_NO_IMAGE_MARKS):
        problem = "the record has no image" if image_path is None else "video and audio are not supported"
        raise Rejected("picture_field_unknown", f"the text has {short(marks[0])}, but {problem}")
    if len(marks) > 1:
        raise Rejected(
            "several_pictures",
            f"the conversation has {len(marks)} placeholders like {short(marks[0])}, expected one",
        )
    return tuple(
        replace(turn, text=_OTHER_MARK.sub(IMAGE_TOKEN, turn.text)) if turn.role == "human" else turn for turn in turns
    )


def _turns(fields: Mapping[str, Any]) -> tuple[Turn, ...]:
    turns = []
    for item in list_field(fields, "conversations"):
        role, value = (item.get("from"), item.get("value")) if isinstance(item, dict) else (None, None)
        if role == "system":
            continue
        if not isinstance(role, str) or role not in _ROLES:
            keys = (
                f"; the turn has the keys {', '.join(map(short, item))}"
                if isinstance(item, dict) and "from" not in item
                else ""
            )
            raise Rejected("bad_record", f"from: expected {', '.join(_ROLES)} or system, got {short(role)}{keys}")
        if is_number(value):
            if isinstance(value, float) and abs(value) >= _EXACT:
                raise Rejected("bad_record", f"value: {short(value)} may have lost digits; write it as text")
            value = str(value)
        if not isinstance(value, str):
            raise Rejected("bad_record", f"value: expected text, got {short(value)}")
        turns.append(Turn(role=_ROLES[role], text=value))
        if turns[-1].role == "gpt" and is_blank(value):
            raise Rejected("no_turns", f"turn {len(turns)}: the answer is blank")
    roles = [turn.role for turn in turns]
    if "human" not in roles or "gpt" not in roles[roles.index("human") :]:
        raise Rejected("no_turns", f"the conversation of {len(turns)} turn(s) has no question with an answer")
    return tuple(turns)
