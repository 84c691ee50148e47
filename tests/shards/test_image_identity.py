"""The names under which data sets publish an image."""

import orjson
import pytest

from griffon_shards.image_identity import identity_of, visual_genome_images
from griffon_shards.support.errors import DataError

IMAGE_DATA = orjson.dumps(
    [{"image_id": 2315, "coco_id": 123456, "width": 1}, {"image_id": 7, "coco_id": None}, {"image_id": "4"}]
)


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("000000123456.jpg", "coco:123456"),
        ("coco/val2017/000000123456.jpg", "coco:123456"),
        ("COCO_train2014_000000123456.jpg", "coco:123456"),
        ("COCO_test2015_000000123456.jpg", "coco:123456"),
        ("COCO_train2014_000000123456_16.jpg", "coco:123456"),
        ("D:\\coco\\COCO_val2014_000000123456.jpg", "coco:123456"),
        ("http://images.cocodataset.org/train2017/000000123456.jpg?x=1", "coco:123456"),
        ("images/v1/patch8/objects365_v1_00420917.jpg", "objects365:420917"),
        ("objects365_v2_00900001.jpg", "objects365:900001"),
        ("obj365_train_000000420917.jpg", "objects365:420917"),
        ("VG_100K_2/2315.jpg", "visual_genome:2315"),
        ("VG_100K/7.jpg", "visual_genome:7"),
        ("gqa/images/2315.jpg", ""),
        ("2315.jpg", ""),
        ("1000092795.jpg", ""),  # Flickr30k
        ("sa_223750.jpg", ""),
        ("00000123456.jpg", ""),
        ("x000000123456.jpg", ""),
        ("", ""),
        ("/", ""),
    ],
)
def test_names_alone(path: str, identity: str) -> None:
    assert identity_of(path) == identity


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("VG_100K_2/2315.jpg", "coco:123456"),
        ("gqa/images/2315.jpg", "coco:123456"),
        ("2315.jpg", "coco:123456"),
        ("7.jpg", "visual_genome:7"),
        ("4.jpg", "visual_genome:4"),
        ("8.jpg", ""),
        ("02315.jpg", ""),
        ("000000002315.jpg", "coco:2315"),
    ],
)
def test_names_with_the_list_of_visual_genome(path: str, identity: str) -> None:
    assert identity_of(path, visual_genome_images(IMAGE_DATA, "image_data.json")) == identity


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"id": 1}]', b'[{"image_id": null}]', b"\xff", b'[{"image_id": 1'])
def test_another_file_is_no_list_of_visual_genome(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^data/x\.json: is not Visual Genome's image_data\.json"):
        visual_genome_images(content, "data/x.json")
