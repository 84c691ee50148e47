"""Conversations about a scene, and text-only conversations, in the `llava` format."""

from __future__ import annotations

from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.expressions import unique_expressions
from griffon_prep.sample_data.scene import CATEGORIES, COLOURS, Scene, boxes_by_category
from griffon_prep.sample_data.words import NUMBERS, article, enumeration, plural

_CAPTION_QUESTIONS = (
    "Describe this picture.",
    "What is shown here?",
    "Write a caption for the image.",
    "Say what you see, in one sentence.",
)
_CORNERS = {"triangle": 3, "square": 4, "rectangle": 4, "pentagon": 5, "hexagon": 6, "octagon": 8}

Turns = list[tuple[str, str]]  # question, answer


def caption_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return a caption of the scene, and for every other scene a conversation of several turns."""
    draws = _draws(pictured.seed, pictured.number, "captions")
    caption = [(draws.choice(_CAPTION_QUESTIONS), caption_of(pictured))]
    records = [_record(f"shapes-{pictured.number:06d}-caption", caption)]
    if pictured.number % 2 == 0:
        turns = _turns(pictured, draws)
        records.append(_record(f"shapes-{pictured.number:06d}-questions", turns[: 2 + draws.below(len(turns) - 1)]))
    for record in records:
        question = record["conversations"][0]
        # Published files have `<image>` before the text or after it.
        at_end = (pictured.number + len(record["conversations"]) // 2) % 2
        question["value"] = f"{question['value']}\n<image>" if at_end else f"<image>\n{question['value']}"
        record["image"] = pictured.image_path
    return records


def caption_record(pictured: Scene) -> dict[str, Any]:
    """Return a caption of the scene alone."""
    draws = _draws(pictured.seed, pictured.number, "captions")
    record = _record(
        f"shapes-{pictured.number:06d}", [(f"<image>\n{draws.choice(_CAPTION_QUESTIONS)}", caption_of(pictured))]
    )
    return {**record, "image": pictured.image_path}


def text_record(seed: int, number: int) -> dict[str, Any]:
    """Return a conversation without an image: one to three small calculations."""
    draws = _draws(seed, number, "text")
    turns = [_sum(draws) for _ in range(1 + draws.below(3))]
    return _record(f"text-{number:06d}", turns)


def caption_of(pictured: Scene) -> str:
    """Return a sentence that counts the shapes per category, like `Two red stars and one blue bar on a striped ...`."""
    parts = [_counted(len(boxes), category) for category, boxes in boxes_by_category(pictured).items()]
    sentence = f"{enumeration(parts)} on {article(pictured.texture)} {pictured.texture} {pictured.tone} background."
    return sentence[0].upper() + sentence[1:]


def _draws(seed: int, number: int, purpose: str) -> KeyedRandom:
    return KeyedRandom(seed, "sample_data", number, 0, f"llava {purpose}")


def _record(name: str, turns: Turns) -> dict[str, Any]:
    """Return a record of the format, without its `image`."""
    conversations = []
    for question, answer in turns:
        conversations += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": name, "conversations": conversations}


def _counted(count: int, noun: str) -> str:
    return f"{NUMBERS[count]} {noun if count == 1 else plural(noun)}"


def _turns(pictured: Scene, draws: KeyedRandom) -> Turns:
    """Return questions about the scene with their answers, in random order; at least two."""
    colours = [colour for colour in COLOURS if any(shape.colour == colour for shape in pictured.shapes)]
    colour, category = draws.choice(tuple(COLOURS)), draws.choice(CATEGORIES)
    of_colour = sum(shape.colour == colour for shape in pictured.shapes)
    turns = [
        ("How many shapes are there?", f"There are {_counted(len(pictured.shapes), 'shape')}."),
        ("Which colours do the shapes have?", f"{enumeration(colours).capitalize()}."),
        (f"How many {colour} shapes do you see?", f"{NUMBERS[of_colour].capitalize()}."),
        (
            f"Is there {article(category)} {category}?",
            "Yes." if category in boxes_by_category(pictured) else "No.",
        ),
    ]
    turns += [
        (f"Of what colour and form is {text}?", f"It is {article(shape.category)} {shape.category}.")
        for text, shape in unique_expressions(pictured)
        if text.startswith("the shape ")
    ]
    return draws.shuffled(turns)


def _sum(draws: KeyedRandom) -> tuple[str, str]:
    """Return one question of arithmetic or geometry with its answer."""
    kind, a, b = draws.below(5), 2 + draws.below(98), 2 + draws.below(98)
    if kind == 0:
        return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."
    if kind == 1:
        return f"What is {a} × {b}?", f"{a} × {b} = {a * b}."
    if kind == 2:
        return (
            f"A rectangle is {a} cm wide and {b} cm high. What is its area?",
            f"Its area is {a} cm × {b} cm = {a * b} cm².",
        )
    if kind == 3:
        return f"What is the perimeter of a square with sides of {a} cm?", f"It is 4 × {a} cm = {4 * a} cm."
    name = draws.choice(tuple(_CORNERS))
    return f"How many corners does {article(name)} {name} have?", f"It has {NUMBERS[_CORNERS[name]]} corners."
