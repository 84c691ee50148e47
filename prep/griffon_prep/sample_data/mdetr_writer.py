"""RefCOCO's sentences of the split `train` as MDETR's files have them: an entry of `images` for each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffon_prep.sample_data.coco_writer import annotation_id, annotation_record, image_record
from griffon_prep.sample_data.refcoco_writer import ref_records, split_of
from griffon_prep.sample_data.scene import Scene


def caption_records(pictured: Scene) -> list[dict[str, Any]]:
    """The elements of `images`."""
    image = image_record(pictured)
    return [
        {
            **image,
            "id": sentence["sent_id"],
            "original_id": image["id"],
            "caption": sentence["sent"],
            "dataset_name": "refcoco",
        }
        for _, sentence in _sentences(pictured)
    ]


def box_records(pictured: Scene) -> list[dict[str, Any]]:
    """The elements of `annotations`: the box of each sentence, which its words from first to last stand for."""
    places = {annotation_id(pictured, place): place for place in range(len(pictured.shapes))}
    records = []
    for ann_id, sentence in _sentences(pictured):
        shape = pictured.shapes[places[ann_id]]
        records.append(
            {
                **annotation_record(pictured, sentence["sent_id"], shape.category, shape.box_xyxy_px),
                "image_id": sentence["sent_id"],
                "original_id": ann_id,
                "tokens_positive": [[0, len(sentence["sent"])]],
            }
        )
    return records


def _sentences(pictured: Scene) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every sentence with the number of the annotation that it is for."""
    if split_of(pictured.number) == "train":
        for ref in ref_records(pictured):
            yield from ((ref["ann_id"], sentence) for sentence in ref["sentences"])
