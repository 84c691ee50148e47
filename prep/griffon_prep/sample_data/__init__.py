"""A small generated data set: images of coloured shapes, with annotations for every task and format.

It needs no download and no licence, and its annotations are correct by construction. The same seed and number of images
give the same bytes (with the same version of Pillow).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from griffon_prep.sample_data import box_folders, grounded_captions
from griffon_prep.sample_data import ccmd_writer as ccmd
from griffon_prep.sample_data import coco_writer as coco
from griffon_prep.sample_data import grounding_writer as grounding
from griffon_prep.sample_data import llava_writer as llava
from griffon_prep.sample_data import mdetr_writer as mdetr
from griffon_prep.sample_data import refcoco_writer as refcoco
from griffon_prep.sample_data import visual_genome_writer as visual_genome
from griffon_prep.sample_data.files import Record, write_array, write_bytes, write_lines, write_object, write_pickle
from griffon_prep.sample_data.manifest_writer import MANIFEST_BEGIN, manifest_text
from griffon_prep.sample_data.paint import encode
from griffon_prep.sample_data.plain import write_plain
from griffon_prep.sample_data.scene import Scene, scene
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import TASKS

__all__ = ["write_plain_data", "write_sample_data"]

_Records = Callable[[Scene], list[Record]]

_LINES: Mapping[str, _Records] = {
    "llava/text_only.jsonl": lambda pictured: [llava.text_record(pictured.seed, pictured.number)],
    "ccmd/det.jsonl": ccmd.det_records,
    "ccmd/randdet.jsonl": ccmd.randdet_records,
    "ccmd/reg.jsonl": ccmd.reg_records,
    "ccmd/vg.jsonl": ccmd.vg_records,
    "ccmd/visj.jsonl": ccmd.visj_records,
    "grounding/ms_swift.jsonl": grounding.detection_records,
    "grounding/qwen3_vl.jsonl": grounding.expression_records,
}
_ARRAYS: Mapping[str, _Records] = {
    "llava/captions.json": llava.caption_records,
    "visual_genome/image_data.json": visual_genome.image_data_records,
    "visual_genome/objects.json": visual_genome.object_records,
    "visual_genome/region_descriptions.json": visual_genome.region_records,
    "grefcoco/grefs(unc).json": refcoco.gref_records,
}
_PICKLES: Mapping[str, _Records] = {"refcoco/refs(unc).p": refcoco.ref_records}
_INSTANCES: Mapping[str, _Records] = {
    "images": lambda pictured: [coco.image_record(pictured)],
    "annotations": coco.shape_records,
}
_COCO: Mapping[str, Mapping[str, _Records]] = {
    "coco/instances.json": {"images": coco.image_records, "annotations": coco.shape_and_crowd_records},
    # LVIS is published in this order.
    "lvis/lvis_v1_train.json": {"annotations": coco.lvis_annotation_records, "images": coco.lvis_image_records},
    "refcoco/instances.json": _INSTANCES,
    "grefcoco/instances.json": _INSTANCES,
    "mdetr/finetune_refcoco_train.json": {"images": mdetr.caption_records, "annotations": mdetr.box_records},
    "mdetr/final_flickr_separateGT_train.json": {
        "images": grounded_captions.caption_records,
        "annotations": grounded_captions.box_records,
    },
}


def write_sample_data(out: Path, *, seed: int, images: int) -> Path:
    """Write the images, the annotations and a manifest that lists them.

    Args:
        out: the folder to fill; created if missing.
        seed: seed of all draws. An image depends only on the seed and its number.
        images: number of images with shapes; three or more cover all image formats and all forms of annotation. For
            every sixteen there is one more image without shapes.

    Returns:
        The path of the manifest, which is written last.

    Raises:
        SettingsError: `out` is a file or a folder that is not empty, or `images` is below 1; nothing was written.
        OSError: something cannot be written; all output is removed again.
    """
    return _filled(out, images, lambda: _written(out, seed, images))


def write_plain_data(
    out: Path, *, seed: int, images: int, tasks: Sequence[str] = TASKS, permute_labels: bool = False
) -> Path:
    """Write plain images, an annotation file for each task, and a manifest that lists them.

    Args:
        out: the folder to fill; created if missing.
        seed: seed of all draws. An image depends only on the seed and its number.
        images: number of images.
        tasks: of `TASKS`, each once; all annotate the same images.
        permute_labels: give every image the annotations of another one.

    Returns:
        The path of the manifest, which is written last.

    Raises:
        SettingsError: `out` is a file or a folder that is not empty, there are too few images, or a task is unknown or
            given twice; nothing was written.
        OSError: something cannot be written; all output is removed again.
    """
    if not tasks or len(set(tasks)) < len(tasks) or not set(tasks) <= set(TASKS):
        raise SettingsError(f"--tasks {','.join(tasks)}: expected some of {','.join(TASKS)}, each once")
    if permute_labels and images == 1:
        raise SettingsError("--permute-labels: one image has no other to get labels from; give --images 2 or more")
    return _filled(
        out,
        images,
        lambda: write_plain(out, seed=seed, images=images, tasks=tasks, permute_labels=permute_labels),
    )


def _filled(out: Path, images: int, write: Callable[[], Path]) -> Path:
    if images < 1:
        raise SettingsError(f"--images {images}: expected 1 or more")
    _refuse_taken(out)
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        return write()
    except BaseException:
        _emptied(out, remove=made)
        raise


def _refuse_taken(out: Path) -> None:
    """Refuse to overwrite anything: neither other files nor sample data of another seed."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if (out / "manifest.txt").is_file() and (out / "manifest.txt").read_bytes().startswith(MANIFEST_BEGIN):
        raise SettingsError(f"{out}: already holds sample data; use it, remove it first, or choose another folder")
    if out.exists() or out.is_symlink():
        what = "is not empty" if out.is_dir() else "is a file" if out.is_file() else "is not a folder"
        raise SettingsError(f"{out}: {what}, expected a new or an empty folder; choose another one, or remove it first")


def _emptied(out: Path, *, remove: bool) -> None:
    """Delete everything in a folder that was empty or missing before."""
    for path in out.glob("*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if remove and out.is_dir():
        out.rmdir()


def _written(out: Path, seed: int, images: int) -> Path:
    for number in range(images):
        _write_images(out, scene(seed, number))

    def every(records: _Records) -> Iterator[Record]:
        """Yield the records of all scenes; generating a scene again is cheap compared to painting it."""
        for number in range(images):
            yield from records(scene(seed, number))

    write_bytes(out / "yolo/data.yaml", box_folders.DATA_YAML.encode())
    for name, records in _LINES.items():
        write_lines(out / name, every(records))
    for name, records in _ARRAYS.items():
        write_array(out / name, every(records))
    for name, records in _PICKLES.items():
        write_pickle(out / name, every(records))
    for name, members in _COCO.items():
        arrays = {member: every(records) for member, records in members.items()}
        write_object(out / name, {**arrays, "categories": coco.category_records()})
    _write_open_images(out / "openimages", [scene(seed, number) for number in range(images)])
    if grounding.HAS_PYARROW:
        grounding.write_parquet(out / "parquet", (scene(seed, number) for number in range(images)), encode)
    manifest = out / "manifest.txt"
    write_bytes(manifest, manifest_text(images, parquet=grounding.HAS_PYARROW).encode())
    return manifest


def _write_images(out: Path, pictured: Scene) -> None:
    """Write the image, and the empty image after it, if any, under its own name and those that formats prescribe."""
    for shown in box_folders.shown_scenes(pictured):
        coded = encode(shown)
        write_bytes(out / "pictures" / shown.image_path, coded)
        write_bytes(out / "yolo/images/train" / shown.image_path, coded)
        _write_annotations(out, shown)
        if shown.shapes:
            write_bytes(out / "lvis" / coco.lvis_image_path(shown), coded)
            write_bytes(out / "visual_genome" / visual_genome.picture_path(shown), coded)
            write_bytes(out / "openimages" / f"{box_folders.open_images_id(shown)}.jpg", coded)
            write_bytes(out / "flickr30k/images" / f"{coco.image_id(shown)}.jpg", coded)


def _write_annotations(out: Path, shown: Scene) -> None:
    """Write the files of the formats that have one for each image."""
    if shown.shapes:
        name = str(coco.image_id(shown))
        entities = out / "flickr30k/entities"
        write_bytes(entities / f"Sentences/{name}.txt", grounded_captions.entity_sentences(shown).encode())
        write_bytes(entities / f"Annotations/{name}.xml", grounded_captions.entity_annotation(shown).encode())
    if shown.shapes:  # an image without a label has no objects
        label = out / "yolo/labels/train" / box_folders.annotation_name(shown, ".txt")
        write_bytes(label, box_folders.yolo_label(shown).encode())
    xml = box_folders.voc_annotation(shown)
    write_bytes(out / "voc/Annotations" / box_folders.annotation_name(shown, ".xml"), xml.encode())
    shapes = box_folders.labelme_annotation(shown)
    write_bytes(out / "labelme" / box_folders.annotation_name(shown, ".json"), shapes)


def _write_open_images(folder: Path, scenes: Sequence[Scene]) -> None:
    boxes = box_folders.BOXES_HEAD + "".join(map(box_folders.box_rows, scenes))
    labels = box_folders.LABELS_HEAD + "".join(map(box_folders.label_rows, scenes))
    write_bytes(folder / "train-annotations-bbox.csv", boxes.encode())
    write_bytes(folder / "train-annotations-human-imagelabels-boxable.csv", labels.encode())
    write_bytes(folder / "class-descriptions-boxable.csv", box_folders.CLASS_DESCRIPTIONS.encode())
