"""The manifest of the sample data: one line for each annotation and each task that it supports."""

from __future__ import annotations

from griffon_prep.sample_data.refcoco_writer import split_of

_VALIDATION = "VG_refcoco_val & refcoco/refs(unc).p & pictures & split=val\n"
_PARQUET = """
# Conversations with their images in Parquet files.
LAZY_parquet & parquet & pictures
"""
_FIRST_LINE = "# Sample data: shapes drawn by `griffon-prep sample-data`."
_MANIFEST = f"""\
{_FIRST_LINE}
# Each line: TAG & annotation & folder of images, and options. The paths are relative to this file's folder, which is
# to be given as --data-root (default: the working directory).

# LLaVA: conversations, about an image and without one.
LAZY_caption & llava/captions.json & pictures
LAZY_text & llava/text_only.jsonl & pictures

# CCMD: detection of the categories in an image, and of categories of which some are not in it.
DET_shapes & ccmd/det.jsonl & pictures
RANDDET_shapes & ccmd/randdet.jsonl & pictures

# CCMD: referring expressions, grounding, visual search.
REG_shapes & ccmd/reg.jsonl & pictures
VG_shapes & ccmd/vg.jsonl & pictures
VISJ_shapes & ccmd/visj.jsonl & pictures

# COCO, Objects365 and V3Det: one file for three tasks; an image without objects is left out and counted.
DET_coco & coco/instances.json & pictures
RANDDET_coco & coco/instances.json & pictures
VISJ_coco & coco/instances.json & pictures

# LVIS: images by the end of their web addresses; only categories that were looked for are called absent.
DET_lvis & lvis/lvis_v1_train.json & lvis

# YOLO, Pascal VOC and labelme: a file for each image; Open Images: rows of CSV files, crowds as groups.
DET_yolo & yolo/data.yaml & yolo
VISJ_yolo & yolo/data.yaml & yolo
DET_voc & voc/Annotations & pictures
DET_labelme & labelme & pictures
DET_openimages & openimages/train-annotations-bbox.csv & openimages

# Visual Genome; with rounds=4, up to four questions about an image share one sample.
DET_vg & visual_genome/objects.json & visual_genome
REG_vg & visual_genome/region_descriptions.json & visual_genome & rounds=4
VG_vg & visual_genome/region_descriptions.json & visual_genome & rounds=4

# RefCOCO (the split is train unless the line says otherwise), gRefCOCO, and RefCOCO as MDETR has it.
REG_refcoco & refcoco/refs(unc).p & pictures
VG_refcoco & refcoco/refs(unc).p & pictures
{_VALIDATION}\
VG_grefcoco & grefcoco/grefs(unc).json & pictures
REG_mdetr & mdetr/finetune_refcoco_train.json & pictures
VG_mdetr & mdetr/finetune_refcoco_train.json & pictures

# Phrases of captions: in MDETR's form and as Flickr30k Entities publishes them.
VG_phrases & mdetr/final_flickr_separateGT_train.json & pictures
VG_flickr30k & flickr30k/entities & flickr30k/images

# Conversations about boxes, as ms-swift and Qwen3-VL have them.
LAZY_grounding & grounding/ms_swift.jsonl & pictures
DET_grounding & grounding/ms_swift.jsonl & pictures
VG_grounding & grounding/qwen3_vl.jsonl & pictures & boxes=thousandth
{_PARQUET}"""

MANIFEST_BEGIN = _FIRST_LINE.encode()
"""First bytes of the manifest, by which a folder of sample data is recognised."""


def manifest_text(images: int, *, parquet: bool) -> str:
    """Return the manifest for this number of images, without the line of a split that none of them belongs to.

    Args:
        images: number of images.
        parquet: whether there are Parquet files.
    """
    splits = {split_of(number) for number in range(images)}
    text = _MANIFEST if "val" in splits else _MANIFEST.replace(_VALIDATION, "")
    return text if parquet else text.replace(_PARQUET, "")
