"""RefCOCO's sentences of the split `train` in MDETR's form: one entry of `images` per sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from griffon_prep.sample_data.coco_writer import annotation_id, annotation_record, image_record
from griffon_prep.sample_data.refcoco_writer import ref_records, split_of
from griffon_prep.sample_data.scene import Scene


def caption_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the elements of `images`."""
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
    """Return the elements of `annotations`: the box of each sentence, which belongs to the complete sentence."""
    index_of = {annotation_id(pictured, index): index for index in range(len(pictured.shapes))}
    records = []
    for ann_id, sentence in _sentences(pictured):
        shape = pictured.shapes[index_of[ann_id]]
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
    """Yield every sentence with the id of its annotation."""
    if split_of(pictured.number) == "train":
        for ref in ref_records(pictured):
            yield from ((ref["ann_id"], sentence) for sentence in ref["sentences"])
