"""The `grounding-jsonl` format: conversations about boxes, as other models are fine-tuned with.

Turns are `messages` (or LLaVA's `conversations`); `box_text` lists how boxes are written in them. LAZY keeps the
conversation and writes its boxes in our grammar. VG asks for each phrase of the answers, DET for all of them.

ms-swift's `objects` state their unit (`bbox_type`), and their pixels are those of the image file, because it scales
boxes itself. Boxes in the text do not state it: Qwen2.5-VL takes pixels of the image after its own resizing, whose size
is nowhere in the file, Qwen2-VL and Qwen3-VL thousandths of the sides. The manifest line must therefore state it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import BoxForm, box_form, states_unit
from griffon_prep.readers.box_text import FOREIGN_BOX, Joined, Named, Objects, has_foreign_boxes, pieces_of
from griffon_prep.readers.fields import short
from griffon_prep.readers.jsonscan.records import JsonRecords, parse_object, scan_json
from griffon_prep.readers.llava import check_boxes_are_read, conversation_of
from griffon_prep.readers.messages import as_conversations
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import BOX_MARK, Record, Region, Rejected
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import Turn

TASKS = ("LAZY", "DET", "VG")
OPTIONS = ("rounds", "boxes")
COMPANIONS = ()
EXAMPLES = {
    "ms-swift.jsonl": """\
{"messages": [{"role": "user", "content": "<image>Find the <ref-object> in the image."}, \
{"role": "assistant", "content": "<bbox><bbox>"}], "images": ["coco/000000000001.jpg"], \
"objects": {"ref": ["sheep"], "bbox": [[90.9, 160.8, 135, 212.8], [360.9, 480.8, 495, 532.8]]}}""",
    "Qwen3-VL, with boxes=thousandth.jsonl": """\
{"image": "coco/000000000001.jpg", "conversations": [{"from": "human", "value": "<image>\\nLocate every cat."}, \
{"from": "gpt", "value": "[{\\"bbox_2d\\": [10, 20, 500, 420], \\"label\\": \\"cat\\"}]"}]}""",
}
_TABLE = "spans.bin"
_BOX_TYPES = {"real": None, "norm1": 1.0}
"""ms-swift's `bbox_type`: units of which each side of the image has so many; None for pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    """A conversation with its boxes.

    Attributes:
        record: it as it is.
        turns: its turns in our grammar, with `BOX_MARK` for each box.
        boxes: all boxes of the turns.
        answered: the boxes of the answers, with the phrases that they are of.
        units_per_side: as in `Record`.
        unit_unknown: nothing states the unit of the boxes.
    """

    record: Record
    turns: tuple[Turn, ...]
    boxes: tuple[Named, ...]
    answered: tuple[Named, ...]
    units_per_side: float | None
    unit_unknown: bool

    @property
    def by_phrase(self) -> dict[str, list[Named]]:
        """The boxes of the answers by phrase.

        Raises:
            Rejected: a box has no phrase.
        """
        phrases: dict[str, list[Named]] = {}
        for named in self.answered:
            if not named.phrase:
                raise Rejected("bad_record", f"the box {short(list(named.box.numbers))} has no phrase; LAZY needs none")
            phrases.setdefault(named.phrase, []).append(named)
        return phrases


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    element = head.element
    if head.member:
        return False
    return isinstance(element.get("messages"), list) or ("conversations" in element and has_foreign_boxes(element))


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the record table into the work folder. For VG, a record is a phrase of a conversation.

    Raises:
        SettingsError: boxes are written in the text, and the manifest line does not state their unit.
    """
    round_keys = RoundKeys(inputs.task)
    form = box_form(inputs.options, "xyxy")
    unknown: list[str] = []

    def count_records(text: bytes) -> int:
        name, phrases = text, {}
        try:
            conversation = _conversation(parse_object(text), 0, inputs)
            name = (conversation.record.image_path or "").encode() or text
            if conversation.unit_unknown and len(unknown) < 1:
                unknown.append(short(list(conversation.boxes[0].box.numbers)))
            phrases = conversation.by_phrase
        except Rejected:
            pass
        if inputs.task != "VG":
            return 1
        for phrase, of_phrase in phrases.items() or [(None, [])]:
            round_keys.add(image_key(name), phrase, [form.corners(named.box.numbers) for named in of_phrase])
        return max(1, len(phrases))

    records = scan_json(inputs.annotation, inputs.work / _TABLE, count_records)
    if unknown:
        raise SettingsError(
            f"{inputs.annotation}: boxes in the text, the first is {unknown[0]}, do not state their unit: Qwen2-VL and "
            "Qwen3-VL write thousandths of the sides, others pixels; add boxes=thousandth, boxes=fraction or "
            "boxes=pixel (of the image files) to the manifest line"
        )
    return Scan(records=records, round_keys=round_keys if round_keys else None)


class Reader:
    """Reads one scanned `grounding-jsonl` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.annotation, inputs.work / _TABLE)
        self._inputs = inputs

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, part = self._records[record_no]
        return record_of(fields, part, record_no, self._inputs)


def record_of(fields: Mapping[str, Any], part: int, record_no: int, inputs: AnnotationFiles) -> Record:
    """Return the record of a conversation for the task of the inputs.

    Args:
        fields: the conversation.
        part: for VG, the number of the phrase.
        record_no: number of the record.
        inputs: the task and the options.

    Raises:
        Rejected: it cannot be used.
    """
    conversation = _conversation(fields, record_no, inputs)
    check_boxes_are_read(conversation.turns)
    form = box_form(inputs.options, "xyxy")
    record = replace(conversation.record, units_per_side=conversation.units_per_side)
    if inputs.task == "LAZY":
        return _as_lazy(record, conversation, form)
    if not conversation.answered:
        raise Rejected("no_objects", f"{record.image_path}: no answer has a box")
    if record.image_path is None:
        raise Rejected("bad_record", "the record has boxes and no image")
    phrases = conversation.by_phrase
    if inputs.task == "VG":
        phrases = dict([list(phrases.items())[part]])
    regions = tuple(
        Region(phrase=phrase, box_xyxy_px=form.corners(named.box.numbers))
        for phrase, of_phrase in phrases.items()
        for named in of_phrase
    )
    return replace(record, turns=(), regions=regions, only_these_absent=True)


def _as_lazy(record: Record, conversation: _Conversation, form: BoxForm) -> Record:
    if any(FOREIGN_BOX.search(turn.text) for turn in conversation.turns):
        raise Rejected("foreign_boxes", "the text describes boxes in another notation than its own will have")
    if not conversation.boxes:
        return record
    if others := [other for named in conversation.boxes for other in named.box.others]:
        raise Rejected("bad_record", f"bbox_2d has further keys ({', '.join(others[:3])}), which would be lost")
    if record.image_path is None:
        raise Rejected("bad_record", "the record has boxes and no image")
    corners = tuple(form.corners(named.box.numbers) for named in conversation.boxes)
    return replace(record, turns=conversation.turns, boxes_in_text=corners)


def _conversation(fields: Mapping[str, Any], record_no: int, inputs: AnnotationFiles) -> _Conversation:
    """Return a conversation with its boxes.

    Raises:
        Rejected: the record cannot be used.
    """
    record = conversation_of(as_conversations(fields), record_no)
    objects, box_type = _objects(fields)
    turns: list[Turn] = []
    boxes: list[Named] = []
    answered: list[Named] = []
    asked: list[str] = []
    for turn in record.turns:
        joined = Joined(pieces_of(turn.text, objects))
        if joined.boxes and joined.text.count(BOX_MARK) > len(joined.boxes):
            raise Rejected("bad_record", f"the text has {BOX_MARK} besides its boxes")
        if turn.role == "gpt" and (unread := FOREIGN_BOX.search(joined.text)):
            start = unread.start()
            raise Rejected("bad_record", f"a box in an answer cannot be read: {short(joined.text[start : start + 80])}")
        turns.append(replace(turn, text=joined.text))
        boxes += joined.boxes
        if turn.role == "human":
            asked = joined.phrases
        else:
            # An answer of boxes alone is about the phrase of its question.
            phrase = asked[0] if len(asked) == 1 and not joined.phrases else ""
            answered += [named if named.phrase else replace(named, phrase=phrase) for named in joined.boxes]
    if objects is not None:
        objects.check_taken()
    if len({named.box.stated for named in boxes}) > 1:
        raise Rejected("bad_record", "has boxes in the text and in objects, which may be in different units")
    stated = bool(boxes) and boxes[0].box.stated
    form = box_form(inputs.options, "xyxy")
    return _Conversation(
        record=record,
        turns=tuple(turns),
        boxes=tuple(boxes),
        answered=tuple(answered),
        units_per_side=_BOX_TYPES[box_type] if stated and box_type else form.units_per_side,
        unit_unknown=bool(boxes) and not stated and not states_unit(inputs.options),
    )


def _objects(fields: Mapping[str, Any]) -> tuple[Objects | None, str | None]:
    """Return the `objects` of a record, and their `bbox_type` if it has one.

    Raises:
        Rejected: they are not of this form.
    """
    given = fields.get("objects")
    if given is None or given == {}:
        return None, None
    if not isinstance(given, dict):
        raise Rejected("bad_record", f"objects: expected ref and bbox, got {short(given)}")
    lists = {name: given.get(name) or [] for name in ("ref", "bbox", "image_id")}
    for name, value in lists.items():
        if not isinstance(value, list):
            raise Rejected("bad_record", f"objects: {name}: expected a list, got {short(value)}")
    if any(image_id != 0 or isinstance(image_id, bool) for image_id in lists["image_id"]):
        raise Rejected("several_pictures", f"objects: image_id: expected zeros, got {short(lists['image_id'])}")
    box_type = given.get("bbox_type") or None
    if not (box_type is None or (isinstance(box_type, str) and box_type in _BOX_TYPES)):
        raise Rejected("bad_record", f"objects: bbox_type: expected {' or '.join(_BOX_TYPES)}, got {short(box_type)}")
    return Objects(phrases=lists["ref"], boxes=lists["bbox"]), box_type
