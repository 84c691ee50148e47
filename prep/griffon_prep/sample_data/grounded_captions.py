"""Sentences about a scene whose phrases have boxes: as Flickr30k Entities publishes them, and in MDETR's form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from griffon_prep.sample_data.coco_writer import annotation_id, annotation_record, image_id, image_record
from griffon_prep.sample_data.expressions import unique_expressions
from griffon_prep.sample_data.scene import CATEGORIES, Scene
from griffon_prep.sample_data.words import NUMBERS, article, plural

_BACKGROUND = 0  # chain of the background, which has no box
_MOST_SENTENCES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A phrase of a sentence, its chain, and the indices of the shapes that it names."""

    text: str
    chain: int
    shapes: tuple[int, ...]


Sentence = list[str | Phrase]


def sentences(pictured: Scene) -> list[Sentence]:
    """Return a sentence that counts the shapes, and some that name one shape."""
    counted: Sentence = []
    for category in dict.fromkeys(shape.category for shape in pictured.shapes):
        shapes = tuple(index for index, shape in enumerate(pictured.shapes) if shape.category == category)
        noun = category if len(shapes) == 1 else plural(category)
        chain = 1 + len(pictured.shapes) + CATEGORIES.index(category) if len(shapes) > 1 else 1 + shapes[0]
        counted += ["and"] if counted else []
        counted.append(Phrase(text=f"{NUMBERS[len(shapes)]} {noun}", chain=chain, shapes=shapes))
    ground = f"{article(pictured.texture)} {pictured.texture} background"
    written = [[*counted, "on", Phrase(text=ground, chain=_BACKGROUND, shapes=()), "."]]
    for text, shape in unique_expressions(pictured)[: _MOST_SENTENCES - 1]:
        index = pictured.shapes.index(shape)
        written.append(["Look at", Phrase(text=text, chain=1 + index, shapes=(index,)), "."])
    return written


def entity_sentences(pictured: Scene) -> str:
    """Return Flickr30k Entities' file of sentences."""
    return "".join(
        " ".join(part if isinstance(part, str) else f"[/EN#{part.chain}/other {part.text}]" for part in sentence) + "\n"
        for sentence in sentences(pictured)
    )


def entity_annotation(pictured: Scene) -> str:
    """Return Flickr30k Entities' XML: each shape once, with the chains that it is of; pixels are counted from 1."""
    phrases = [part for sentence in sentences(pictured) for part in sentence if isinstance(part, Phrase)]
    objects = []
    for index, shape in enumerate(pictured.shapes):
        chains = dict.fromkeys(phrase.chain for phrase in phrases if index in phrase.shapes)
        names = "".join(f"<name>{chain}</name>" for chain in chains)
        edges = zip(("xmin", "ymin", "xmax", "ymax"), shape.box_xyxy_px, strict=True)
        box = "".join(f"<{edge}>{edge_px + 1}</{edge}>" for edge, edge_px in edges)
        objects.append(f"<object>{names}<bndbox>{box}</bndbox></object>\n")
    objects.append(f"<object><name>{_BACKGROUND}</name><scene>1</scene><nobndbox>1</nobndbox></object>\n")
    size = f"<size><width>{pictured.width_px}</width><height>{pictured.height_px}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{image_id(pictured)}.jpg</filename>\n{size}\n{''.join(objects)}</annotation>\n"


def caption_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the elements of `images` in MDETR's form, one for each sentence."""
    image = image_record(pictured)
    return [
        {**image, "id": _sentence_id(pictured, number), "caption": _text(sentence), "dataset_name": "flickr"}
        for number, sentence in enumerate(sentences(pictured))
    ]


def box_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the elements of `annotations` in MDETR's form: the boxes of each phrase, with its place in the caption."""
    records: list[dict[str, Any]] = []
    for number, sentence in enumerate(sentences(pictured)):
        for position, part in enumerate(sentence):
            if isinstance(part, str):
                continue
            start = len(_text(sentence[:position])) + bool(position)
            for index in part.shapes:
                shape = pictured.shapes[index]
                records.append(
                    {
                        **annotation_record(pictured, len(records), shape.category, shape.box_xyxy_px),
                        "id": 100 * annotation_id(pictured, index) + number,
                        "image_id": _sentence_id(pictured, number),
                        "tokens_positive": [[start, start + len(part.text)]],
                    }
                )
    return records


def _sentence_id(pictured: Scene, number: int) -> int:
    return 10 * image_id(pictured) + number


def _text(sentence: Sentence) -> str:
    return " ".join(part if isinstance(part, str) else part.text for part in sentence)
