"""Train and val: by image, whatever its name and source."""

from fractions import Fraction

import pytest

from griffon_prep.records import Record
from griffon_prep.sources.part import Split, split_key
from griffon_shards.image_identity import visual_genome_images
from griffon_shards.types import Turn

VISUAL_GENOME = visual_genome_images(b'[{"image_id": 2315, "coco_id": 123456}]', "image_data.json")
ONE_IMAGE = ("COCO_train2014_000000123456.jpg", "train2017/000000123456.jpg", "VG_100K_2/2315.jpg")


def part(path: str, split: Split) -> str:
    return split.part_of(split_key(Record(record_no=0, image_path=path), VISUAL_GENOME))


def test_an_image_is_on_one_side_under_all_its_names() -> None:
    """For 1,000 seeds, of which about half have it in val."""
    sides = [{part(path, Split(val_share=Fraction(1, 2), seed=seed)) for path in ONE_IMAGE} for seed in range(1000)]
    assert all(len(side) == 1 for side in sides)
    assert 400 < sides.count({"val"}) < 600


@pytest.mark.parametrize("share", [Fraction(0), Fraction(1, 100), Fraction(1, 3), Fraction(1)])
def test_val_has_its_share(share: Fraction) -> None:
    split = Split(val_share=share, seed=0)
    val = sum(part(f"images/{name:07d}x.jpg", split) == "val" for name in range(20_000))
    assert abs(val / 20_000 - share) < 0.01
    assert share not in (0, 1) or val == 20_000 * share


def test_a_larger_val_holds_the_smaller_one() -> None:
    small, large = (Split(val_share=Fraction(share, 100), seed=3) for share in (5, 20))
    names = [f"{name}.png" for name in range(500)]
    val = [name for name in names if part(name, small) == "val"]
    assert val and all(part(name, large) == "val" for name in val)


def test_golden_side() -> None:
    """The sides are part of what a set is: another function would mix train and val of older sets."""
    split = Split(val_share=Fraction(1, 4), seed=0)
    assert [number for number in range(24) if part(f"{number:012d}.jpg", split) == "val"] == [1, 7, 16, 22, 23]


def test_other_images_go_by_file_name_without_extension_and_text_by_its_words() -> None:
    assert split_key(Record(record_no=1, image_path="a/猫 1.jpg"), None) == "name:猫 1"
    assert split_key(Record(record_no=2, image_path="b\\猫 1.png"), None) == "name:猫 1"
    turns = (Turn(role="human", text="Why?"), Turn(role="gpt", text="So."))
    assert split_key(Record(record_no=3, image_path=None, turns=turns), None) == "text:Why?\0So."


def test_a_number_alone_is_visual_genomes_wherever_its_folder_is_named() -> None:
    """`VG_100K` may be in the path, or be the image root."""
    names = ("2315.jpg", "VG_100K/2315.jpg", "x/2315.png")
    assert {split_key(Record(record_no=0, image_path=name), None) for name in names} == {"visual_genome:2315"}


def test_an_image_is_known_by_any_of_its_names() -> None:
    record = Record(record_no=0, image_path="x1.jpg", image_elsewhere=("COCO_val2014_000000000042.jpg",))
    assert split_key(record, None) == "coco:42"
