"""A sample as the page's cards show it, and as its own page does."""

import shlex
from collections.abc import Sequence
from typing import Any

import orjson

from griffon_shards.draw import labelled_boxes
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.grammar import ANSWERED_WITH_BOXES, WrittenBox, locate_answer, locate_boxes_in
from griffon_shards.sample_json import decode_sample
from griffon_shards.support.errors import DataError
from griffon_shards.tar import split_sample
from griffon_shards.types import IMAGE_TOKEN, TASKS, BoxXYXY, Rendering, Sample, Turn
from griffon_shards.view.predictions import Predictions
from griffon_shards.view.written import in_utf16

_TEXT_CHARS = 200
_CARD_BOXES = 200


def card(frozen: FrozenSet, row: int, predictions: Predictions | None, note: str | None) -> dict[str, Any]:
    """The card of the sample in a row. A damaged sample has a card with what the index knows, and the error."""
    facts = frozen.index[row]
    shown = {
        "row": row,
        "key": "",
        "task": TASKS[int(facts["task"])] if int(facts["task"]) < len(TASKS) else "",
        "source": "",
        "width": 0,
        "height": 0,
        "image": bool(facts["has_image"]),
        "question": "",
        "answer": "",
        "boxes": [],
        "boxes_total": int(facts["boxes"]),
        "prediction": None,
        "mark": note,
        "error": None,
    }
    try:
        shown["key"] = frozen.key(row)
        shown["source"] = frozen.lock.sources[int(facts["source"])].tag
        sample = frozen[row]
        shown |= {"width": sample.width_px, "height": sample.height_px, "image": sample.image is not None}
        shown |= {"question": _first(sample.turns, "human"), "answer": _first(sample.turns, "gpt")}
        if predictions is not None:
            shown["prediction"] = predictions.summary(row)
        shown |= _boxes(sample, frozen.lock.render["boxes"])
    except (DataError, OSError) as error:
        shown["error"] = str(error)
    return shown


def sample_page(frozen: FrozenSet, row: int, predictions: Predictions | None) -> dict[str, Any]:
    """What the page of the sample in a row has beside its card."""
    facts = frozen.index[row]
    page: dict[str, Any] = {"variants": [], "json": None, "origin": None, "shard": None, "offset": int(facts["offset"])}
    page |= {"command": None, "predictions": []}
    try:
        page["shard"] = frozen.where(row) and frozen.lock.shards[int(facts["shard"])].name
        page["command"] = _command(frozen, row)
        key, image, json = split_sample(frozen.raw(row), frozen.where(row))
        sample = decode_sample(key, image, json)
        page["json"] = orjson.loads(json)
        page["origin"] = {"annotation": sample.origin.annotation, "record": sample.origin.record}
        page["variants"] = [_variant(item, sample, frozen.lock.render["boxes"]) for item in sample.renderings]
        if predictions is not None:
            page["predictions"] = predictions.of_row(row)
    except (DataError, OSError):
        pass  # the card, which is shown beside it, has the error
    return page


def _command(frozen: FrozenSet, row: int) -> str:
    """The command that shows the same on the terminal."""
    key = shlex.quote(frozen.key(row))
    draw = f" --draw {shlex.quote(frozen.key(row) + '.png')}" if frozen.index[row]["has_image"] else ""
    return f"griffon-shards show {shlex.quote(str(frozen.root))} {key}{draw}"


def _first(turns: Sequence[Turn], role: str) -> str:
    text = next((turn.text for turn in turns if turn.role == role), "")
    return text.replace(IMAGE_TOKEN, "").strip()[:_TEXT_CHARS]


def _boxes(sample: Sample, style: str) -> dict[str, Any]:
    try:
        boxes = labelled_boxes(sample, style)
    except ValueError as error:
        raise DataError(f"{sample.key}: {error}") from None
    return {"boxes": [_box(label, box) for label, box in boxes[:_CARD_BOXES]], "boxes_total": len(boxes)}


def _box(label: str, box_xyxy: BoxXYXY) -> dict[str, Any]:
    return {"box": box_xyxy, "label": label}


def _variant(rendering: Rendering, sample: Sample, style: str) -> dict[str, Any]:
    region, width_px, height_px = rendering.region_xyxy_px, sample.width_px, sample.height_px
    if region is not None and width_px and height_px:
        region = (region[0] / width_px, region[1] / height_px, region[2] / width_px, region[3] / height_px)
    turns = [
        {"from": turn.role, "value": turn.text, "boxes": in_utf16(turn.text, boxes)}
        for turn, boxes in zip(rendering.turns, _written(rendering.turns, sample.task, style), strict=True)
    ]
    return {"turns": turns, "region": region}


def _written(turns: Sequence[Turn], task: str, style: str) -> list[list[WrittenBox]]:
    """The boxes in each turn: those that `labelled_boxes` lists."""
    boxes: list[list[WrittenBox]] = [[] for _ in turns]
    for place in range(1, len(turns), 2):
        if task in ANSWERED_WITH_BOXES:
            try:
                boxes[place] = locate_answer(turns[place].text, task, style)
            except ValueError:
                continue  # the card has the error
        elif task == "REG":
            boxes[place - 1] = locate_boxes_in(turns[place - 1].text, style)
    return boxes
