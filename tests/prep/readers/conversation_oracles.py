"""The oracles of conversations: LLaVA's, and those about boxes."""

import re
from contextlib import suppress
from typing import Any

from .mutations import answer_of, file_of
from .oracle_values import AMISS, Answer, Told, corners_text, number, words

MARKS = re.compile("(<ref-object>|<bbox>)")
SIDES_OF_IMAGES = (2, 2)


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
