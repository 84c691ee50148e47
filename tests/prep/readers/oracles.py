"""Correct answers for a published file, derived from its parsed content in plain Python.

Each gives the answers that are right, as (image, box in the question or "", answer), and the number of records where
that is easily told. What is amiss in a record raises one of `AMISS`, and no answer of it is right.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .mutations import answer_of, box_text, file_of

AMISS = (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError)

Answer = tuple[str, str, str]
Told = tuple[set[Answer], int | None]


def number(value: Any) -> float:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def same(one: object, other: object) -> bool:
    """Whether two ids are: there, and the same text or integer, the number written as text or not."""
    return identity(one) is not None and identity(one) == identity(other)


def identity(value: object) -> int | str | None:
    if isinstance(value, str):
        text = value.strip()
        return int(float(text)) if re.fullmatch(r"-?[0-9]{1,15}(\.0*)?", text) else text or None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)


def words(value: Any) -> str:  # noqa: ANN401 - JSON
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def sides(fields: dict[str, Any]) -> tuple[int, int]:
    width, height = (number(fields[name]) for name in ("width", "height"))
    if not (0 < width == int(width) and 0 < height == int(height)):
        raise ValueError
    return int(width), int(height)


def xywh_text(box: Any, fields: dict[str, Any]) -> str:  # noqa: ANN401 - JSON
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError
    x, y, width, height = (float(number(coordinate)) for coordinate in box)
    return box_text((x, y, x + width, y + height), *sides(fields))


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


def corners_text(box: Any, size: tuple[int, int]) -> str:  # noqa: ANN401 - JSON
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError
    return box_text([float(number(coordinate)) for coordinate in box], *size)


def llava(data: Any, _companion: Any, _task: str) -> Told:  # noqa: ANN401 - JSON
    """The answer is all that is said, but for `<image>` and the spaces around the question that has it."""
    right: set[Answer] = set()
    for element in data if isinstance(data, list) else [data]:
        with suppress(*AMISS):
            image = element.get("image")
            image = (image[0] if image else None) if isinstance(image, list) else image
            turns = [turn["value"] for turn in element["conversations"] if turn["from"] != "system"]
            values = [value if isinstance(value, str) else number_text(number(value)) for value in turns]
            right.add((file_of(image) if image else "", "", spoken(values)))
    return right, len(data) if isinstance(data, list) else None


def number_text(value: float) -> str:
    """Whole numbers beyond 64 bits are read as JSON's decimals are."""
    return str(value if -(2**63) <= value < 2**64 or isinstance(value, float) else float(value))


def spoken(texts: list[str]) -> str:
    return "|".join(text.replace("<image>", "").strip() for text in texts)


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


MARKS = re.compile("(<ref-object>|<bbox>)")
SIDES_OF_IMAGES = (2, 2)


def grounded(data: Any, _companion: Any, task: str) -> Told:  # noqa: ANN401 - JSON
    """ms-swift's conversations about images of `SIDES_OF_IMAGES`."""
    right: set[Answer] = set()
    for line in data if isinstance(data, list) else [data]:
        with suppress(*AMISS):
            given = [line.get(name) for name in ("image", "images", "file_name", "x", "caption")]
            images = {(item[0] if item else "") if isinstance(item, list) else item for item in given} - {None, ""}
            turns = [(item["role"], text_of(item["content"])) for item in line["messages"] if item["role"] != "system"]
            texts, named = with_boxes(turns, line.get("objects") or {})
            of_phrase: dict[str, list[str]] = {}
            for phrase, box in named:
                of_phrase.setdefault(phrase, []).append(box)
            for file in {file_of(image) for image in images if isinstance(image, str)} or {""}:
                if task == "LAZY":
                    right.add((file, "", spoken(texts)))
                elif task == "DET":
                    right.add((file, "", answer_of([(phrase, box) for phrase, box in named])))
                else:
                    right |= {
                        (file, "", answer_of([(phrase, box) for box in boxes])) for phrase, boxes in of_phrase.items()
                    }
    return right, None


def text_of(content: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else part["text"] for part in content)
    return number_text(number(content))


def with_boxes(turns: list[tuple[str, str]], objects: dict[str, Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the texts with their boxes written, and the boxes of answers with their phrases."""
    if not objects and any(MARKS.search(text) for _, text in turns):
        raise ValueError
    refs, boxes = list(objects.get("ref") or []), list(objects.get("bbox") or [])
    scale = SIDES_OF_IMAGES[0] if objects.get("bbox_type") == "norm1" else 1
    if objects.get("bbox_type") not in ("norm1", "real", None, "", 0, False) and objects["bbox_type"]:
        raise ValueError
    texts, named, last = [], [], ""
    for role, text in turns:
        out, phrase, own = "", last if role not in ("human", "user") else "", False
        of_turn = []
        for part in MARKS.split(text):
            if part == "<ref-object>":
                phrase, own = words(refs.pop(0)), True
                of_turn.append(phrase)
                out += f"\0{phrase}\1"
            elif part == "<bbox>":
                box = corners_text([scale * number(edge) for edge in boxes.pop(0)], SIDES_OF_IMAGES)
                if role not in ("human", "user"):
                    named.append((words(phrase), box))
                out += f"\2{phrase if own else ''}\3{box}\4"
            elif part.strip(" \t\n,;"):
                own, phrase = False, "" if own else phrase
                out += part
            else:
                out += part
        last = of_turn[0] if len(of_turn) == 1 else ""
        texts.append(joined(out))
    if boxes or refs:
        raise ValueError
    return texts, named


def joined(text: str) -> str:
    """Return a text with its phrases and boxes joined as answers are."""
    text = re.sub("\0([^\1]*)\1[\\s,;]*(?=\2)", "", text)  # a phrase that its box repeats
    text = re.sub("\4[\\s,;]*\2", "\4&\2", text)
    text = re.sub("\2([^\3]*)\3", lambda match: f"{match[1]}-" if match[1] else "", text)
    return re.sub("[\0\1\4]", "", text)


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
