"""References to the shapes of a scene in the formats of RefCOCO (one shape) and gRefCOCO (several shapes, one, none).

Their boxes are in the `instances.json` that `coco_writer` writes to the same folder.
"""

from __future__ import annotations

from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.coco_writer import CATEGORY_IDS, annotation_id, image_id
from griffon_prep.sample_data.expressions import absent_expressions, plural_expressions, unique_expressions
from griffon_prep.sample_data.scene import Scene, Shape

_MOST_REFS = 3  # shapes of one image
_MOST_SENTENCES = 3
_MOST_PLURALS = 2
_SPLIT_EVERY = 8  # images
_SPLITS = {1: "val", 2: "testA"}


def split_of(ref_no: int) -> str:
    """Return the split of an image and of all its references; the first image is in `train`."""
    return _SPLITS.get(ref_no % _SPLIT_EVERY, "train")


def ref_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return elements of `refs(unc).p`: some shapes, each with one to three sentences that fit only this shape."""
    draws = _draws(pictured, "refs")
    sentences: dict[int, list[str]] = {}
    for text, shape in unique_expressions(pictured):
        sentences.setdefault(pictured.shapes.index(shape), []).append(text)
    indices = draws.shuffled(list(sentences))[:_MOST_REFS]
    records = []
    for ref_no, index in enumerate(indices):
        texts = draws.shuffled(sentences[index])[: 1 + draws.below(_MOST_SENTENCES)]
        ann_id = annotation_id(pictured, index)
        # As published: file_name does not name a file, because it ends with the annotation's id.
        stem, _, suffix = pictured.image_path.rpartition(".")
        records.append(
            {
                **_head(pictured, ref_no, f"{stem}_{ann_id}.{suffix}"),
                "ann_id": ann_id,
                "category_id": CATEGORY_IDS[pictured.shapes[index].category],
                **_sentences(pictured, ref_no, texts),
            }
        )
    return records


def gref_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return elements of `grefs(unc).json`: sentences for several shapes, for one and for none."""
    draws = _draws(pictured, "grefs")
    several = plural_expressions(pictured)
    meant: list[tuple[str, list[Shape]]] = [
        several[i] for i in draws.sample(len(several), min(_MOST_PLURALS, len(several)))
    ]
    text, shape = draws.choice(unique_expressions(pictured))
    meant += [(text, [shape]), (draws.choice(absent_expressions(pictured)), [])]
    return [_gref(pictured, ref_no, text, shapes) for ref_no, (text, shapes) in enumerate(meant)]


def _gref(pictured: Scene, ref_no: int, text: str, shapes: list[Shape]) -> dict[str, Any]:
    sentences = _sentences(pictured, ref_no, [text])
    return {
        **_head(pictured, ref_no, pictured.image_path),
        "ann_id": [annotation_id(pictured, pictured.shapes.index(shape)) for shape in shapes] or [-1],
        "category_id": [CATEGORY_IDS[shape.category] for shape in shapes] or [-1],
        "no_target": not shapes,
        **sentences,
        "sentences": [{**sentence, "exist": bool(shapes)} for sentence in sentences["sentences"]],
    }


def _draws(pictured: Scene, purpose: str) -> KeyedRandom:
    return KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, f"refcoco {purpose}")


def _head(pictured: Scene, ref_no: int, file_name: str) -> dict[str, Any]:
    """Return the fields of a reference that identify it and its image."""
    return {
        "ref_id": 10 * pictured.number + ref_no,
        "image_id": image_id(pictured),
        "file_name": file_name,
        "split": split_of(pictured.number),
    }


def _sentences(pictured: Scene, ref_no: int, texts: list[str]) -> dict[str, Any]:
    """Return the sentences of a reference, as typed and as the benchmarks have them."""
    first = 100 * pictured.number + 10 * ref_no
    return {
        "sent_ids": [first + index for index in range(len(texts))],
        "sentences": [
            {"sent_id": first + index, "raw": f"{text.capitalize()}.", "sent": text, "tokens": text.split()}
            for index, text in enumerate(texts)
        ],
    }
