"""Correct answers for a published file, derived from its parsed content in plain Python.

Each gives the answers that are right, as (image, box in the question or "", answer), and the number of records where
that is easily told. What is amiss in a record raises one of `AMISS`, and no answer of it is right.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .conversation_oracles import grounded, llava
from .mutations import answer_of, file_of
from .oracle_values import AMISS, Answer, Told, corners_text, same, sides, words, xywh_text


def by_image(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, list[dict[str, Any]]]]:
    """Return each entry of a COCO file's `images` with its file and its annotations."""
    for image in data["images"]:
        with suppress(*AMISS):
            path = image["coco_url"] if not image.get("file_name") and "coco_url" in image else image["file_name"]
            of_image = [
                annotation
                for annotation in data["annotations"]
                if isinstance(annotation, dict) and same(annotation.get("image_id"), image.get("id"))
            ]
            yield image, file_of(words(path)), of_image


def coco(data: Any, _companion: Any, _task: str) -> Told:  # noqa: ANN401 - JSON
    right: set[Answer] = set()
    for image, file, annotations in by_image(data):
        with suppress(*AMISS):
            boxes = []
            for annotation in annotations:
                (name,) = {
                    words(category["name"])
                    for category in data["categories"]
                    if isinstance(category, dict)
                    and same(category.get("id"), annotation["category_id"])
                    and str(category.get("name") or "").strip()
                }
                boxes += [] if annotation.get("iscrowd") else [(name, xywh_text(annotation["bbox"], image))]
            right.add((file, "", answer_of(boxes)))
    return right, len(data["images"])


def mdetr(data: Any, _companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    right: set[Answer] = set()
    for image, file, annotations in by_image(data):
        with suppress(*AMISS):
            phrase = words(image["caption"])
            boxes = [xywh_text(annotation["bbox"], image) for annotation in annotations]
            if task == "VG":
                right.add((file, "", answer_of([(phrase, box) for box in boxes])))
            elif len(boxes) == 1:
                right.add((file, boxes[0], phrase))
    return right, len(data["images"]) if task == "VG" else None


def genome(data: Any, companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    right: set[Answer] = set()
    elements = data if isinstance(data, list) else [data]
    pictures = [item for item in companion if isinstance(item, dict)]
    count = 0
    for element in elements:
        count += 1
        with suppress(*AMISS):
            items = element["objects" if task == "DET" else "regions"]
            if task != "DET" and isinstance(items, list):
                count += len(items) - 1 if task == "REG" else len(set(map(phrase_of, items))) - 1
            wanted = element.get("image_id", element.get("id"))
            for image in pictures:
                if same(image.get("image_id", image.get("id")), wanted):
                    right |= of_genome(items, image, task)
    return right, count if isinstance(data, list) else None


def of_genome(items: list[Any], image: dict[str, Any], task: str) -> set[Answer]:
    """Return the correct answers about an image's objects or regions."""
    right: set[Answer] = set()
    file = file_of(words(image["url"]).split("/")[-1])
    if task == "DET":
        boxes = [(words(item["names"][0]).lower(), item_text(item, image, "wh")) for item in items]
        right.add((file, "", answer_of(boxes)))
    for item in items if task == "REG" else ():
        with suppress(*AMISS):
            right.add((file, item_text(item, image, ("width", "height")), words(item["phrase"])))
    for phrase in set(map(phrase_of, items)) if task == "VG" else ():
        with suppress(*AMISS):
            result = [item_text(item, image, ("width", "height")) for item in items if phrase_of(item) == phrase]
            right.add((file, "", answer_of([(words(phrase), box) for box in result])))
    return right


def phrase_of(item: Any) -> str:  # noqa: ANN401 - JSON
    phrase = item.get("phrase") if isinstance(item, dict) else None
    return phrase.strip() if isinstance(phrase, str) else ""


def item_text(item: dict[str, Any], image: dict[str, Any], names: Any) -> str:  # noqa: ANN401 - two names
    return xywh_text([item["x"], item["y"], item[names[0]], item[names[1]]], image)


def refcoco(data: Any, companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    right: set[Answer] = set()
    for ref in data:
        with suppress(*AMISS):
            if words(ref["split"]) != "train":
                continue
            for image in companion["images"]:
                if isinstance(image, dict) and same(image.get("id"), ref["image_id"]):
                    right |= of_ref(ref, image, companion["annotations"], task)
    return right, None


def of_ref(ref: dict[str, Any], image: dict[str, Any], annotations: list[Any], task: str) -> set[Answer]:
    """Return the correct answers about a reference's sentences."""
    file = file_of(words(image.get("file_name") or image["coco_url"]))
    numbers = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    absent = ref.get("no_target") is True and numbers in ([], [-1])
    sides(image)
    boxes = []
    for wanted in () if absent else numbers:
        (result,) = [
            annotation
            for annotation in annotations
            if isinstance(annotation, dict) and same(annotation.get("id"), wanted)
        ]
        if not same(result["image_id"], image["id"]):
            raise ValueError
        boxes.append(xywh_text(result["bbox"], image))
    right: set[Answer] = set()
    for sentence in ref["sentences"]:
        phrase = words(sentence["sent"] if sentence.get("sent") else sentence["raw"])
        if task == "REG" and len(boxes) == 1:
            right.add((file, boxes[0], phrase))
        elif task == "VG":
            right.add((file, "", "None" if absent else answer_of([(phrase, box) for box in boxes])))
    return right


def ccmd(data: Any, _companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    right: set[Answer] = set()
    count = 0
    for line in data if isinstance(data, list) else [data]:
        count += 1
        with suppress(*AMISS):
            boxes, phrases = line.get("bboxes"), line.get("expression")
            in_list = task == "REG" and isinstance(phrases, list) and isinstance(boxes, list)
            pairs = list(zip(phrases, boxes, strict=True)) if in_list else [(phrases, boxes)]
            count += max(0, len(pairs) - 1)
            file, size = file_of(words(line["image_path"])), sides(line)
            if task == "DET":
                named = [(words(item["category_name"]), box) for item in line["objects"] for box in item["bboxes"]]
                right.add((file, "", answer_of([(name, corners_text(box, size)) for name, box in named])))
                continue
            for phrase, given in pairs:
                with suppress(*AMISS):
                    result = [corners_text(box, size) for box in boxes_of(given)]
                    if task == "VG":
                        answer = answer_of([(words(phrase), box) for box in result]) if result else "None"
                        right.add((file, "", answer))
                    elif len(result) == 1:
                        right.add((file, result[0], words(phrase)))
    return right, count


def boxes_of(given: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """One box, a list of them, or one in two lists."""
    if not isinstance(given, list):
        raise TypeError
    if len(given) == 4 and not any(isinstance(item, list) for item in given):
        return [given]
    return given[0] if len(given) == 1 and isinstance(given[0], list) and len(given[0]) == 1 else given


def in_parts(data: Any, _companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    """MDETR's captions: of each part, the boxes that name it, if any caption has boxes of several parts."""
    right: set[Answer] = set()
    if not any(is_split(image, data["annotations"]) for image in data["images"] if isinstance(image, dict)):
        return mdetr(data, None, task)
    for image, file, annotations in by_image(data):
        with suppress(*AMISS):
            of_part: dict[str, list[str]] = {}
            for annotation in annotations:
                spans = annotation["tokens_positive"]
                if not spans or not isinstance(spans, list):
                    raise ValueError
                for phrase in {part_of(image["caption"], span) for span in spans}:
                    of_part.setdefault(phrase, []).append(xywh_text(annotation["bbox"], image))
            for phrase, boxes in of_part.items():
                if task == "VG":
                    right.add((file, "", answer_of([(phrase, box) for box in boxes])))
                elif len(boxes) == 1:
                    right.add((file, boxes[0], phrase))
    return right, None


def is_split(image: dict[str, Any], annotations: list[Any]) -> bool:
    parts = {
        json.dumps(annotation["tokens_positive"])
        for annotation in annotations
        if isinstance(annotation, dict)
        and same(annotation.get("image_id"), image.get("id"))
        and "tokens_positive" in annotation
    }
    return len(parts) > 1


def part_of(caption: Any, span: Any) -> str:  # noqa: ANN401 - JSON
    start, end = span
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(caption):
        raise ValueError
    return words(caption[start:end])


ORACLES: dict[str, Callable[[Any, Any, str], Told]] = {
    "coco": coco,
    "mdetr": mdetr,
    "in parts": in_parts,
    "grounded": grounded,
    "objects": genome,
    "regions": genome,
    "pickle": refcoco,
    "grefs": refcoco,
    "ccmd": ccmd,
    "expressions": ccmd,
    "llava": llava,
}
