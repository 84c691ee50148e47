"""Cards and pages of samples: what a browser is given of texts, boxes and images."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from griffon_shards import open_set
from griffon_shards.draw import labelled_boxes
from griffon_shards.types import Sample
from griffon_train.data.images import cropped, decode

from .conftest import View

WriteSet = Callable[..., Path]
MakeSample = Callable[..., Sample]
OpenView = Callable[..., View]

HOSTILE = (
    "<script>alert(1)</script>",
    "javascript:alert('1')\" onload=x",
    "a\0b",
    "\u202eright to left\u202c שלום",
    "左 😀 𝔘 é",
    "&amp; <b>",
    "C" * 1000,
    "- - -",
)


def test_a_page_has_all_that_the_sample_has(view: View) -> None:
    frozen = view.sets[0].frozen
    for row in range(0, len(frozen), 9):
        sample = frozen[row]
        page = view.get(f"/api/samples/0/{row}")
        turns = page["variants"][0]["turns"]
        assert [(turn["from"], turn["value"]) for turn in turns] == [(turn.role, turn.text) for turn in sample.turns]
        assert page["json"]["width"] == page["width"] == sample.width_px
        assert page["origin"] == {"annotation": sample.origin.annotation, "record": sample.origin.record}
        assert (page["key"], page["error"], page["image"]) == (sample.key, None, sample.image is not None)
        assert (frozen.root / page["shard"]).read_bytes()[page["offset"] :].startswith(sample.key.encode())
        boxes = [(box["label"], tuple(box["box"])) for box in page["boxes"]]
        assert boxes == labelled_boxes(sample, "text")
        assert page["command"].startswith("griffon-shards show ")


def test_boxes_in_text_are_where_javascript_counts_them(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    answer = "😀 cat-[0.100,0.200,0.300,0.400]&𝔘-[0.500,0.500,0.600,0.700]&dog-[0.000,0.000,1.000,1.000]"
    question = "What is at 😀 [0.100,0.200,0.300,0.400]?"
    samples = [make_sample("DET_a-000000000", answer), make_sample("REG_a-000000001", "a cat", question=question)]
    view = open_view(write_set(tmp_path / "set", samples))

    def texts(row: int, place: int) -> list[str]:
        turn = view.get(f"/api/samples/0/{row}")["variants"][0]["turns"][place]
        units = turn["value"].encode("utf-16-le")
        return [units[2 * box["start"] : 2 * box["end"]].decode("utf-16-le") for box in turn["boxes"]]

    assert texts(0, 1) == answer.split("&")
    assert (texts(0, 0), texts(1, 0), texts(1, 1)) == ([], ["[0.100,0.200,0.300,0.400]"], [])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_texts_come_through_as_they_are(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView, text: str
) -> None:
    samples = [
        make_sample("DET_a-000000000", f"{text}-[0.100,0.200,0.300,0.400]", question=f"Find {text}!"),
        make_sample("DET_a-000000001"),
        make_sample("LAZY_a-000000000", text, size_px=None),
    ]
    view = open_view(write_set(tmp_path / "set", samples))
    card = view.get("/api/samples")["samples"][0]
    assert (card["boxes"][0]["label"], card["error"]) == (text, None)
    assert dict(view.get("/api/categories")["categories"]) == {text: 1, "cat": 1}
    assert view.rows(category=text) == [0]
    assert view.get("/api/samples/0/2")["variants"][0]["turns"][1]["value"] == text
    assert view.get("/api/categories", prefix=text)["total"] == 1
    assert view.client.get("/api/samples", params={"q": text}).status_code in (200, 400)


def test_long_texts_are_searched_and_shown(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    long = "left " * 20_000 + "needle"
    texts = {"LAZY_a-000000000": long, "LAZY_a-000000001": "left"}
    samples = [make_sample(key, text, size_px=None) for key, text in texts.items()]
    view = open_view(write_set(tmp_path / "set", samples))
    assert view.rows(q="needle") == [0]
    assert len(view.get("/api/samples")["samples"][0]["answer"]) == 200
    assert view.get("/api/samples/0/0")["variants"][0]["turns"][1]["value"] == long


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("红色", [0]),
        ("红", [0, 1]),
        ("色红", []),
        ("色的", [0]),
        ('"红色的星"', [0]),
        ("étoile", [1]),
        ("ETOILE", [1]),
        ("שלום", [1]),
        ("star AND red", []),
        ("NOT star", []),
        ("body:star", []),
        ("st*", []),
        ("star^", [0]),
        ('star" OR "x', []),
        ("rock-paper", [1]),
        ('"rock paper"', [1]),
        ("0.100", []),
    ],
)
def test_words_are_found_in_any_script_and_syntax_is_text(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView, query: str, found: list[int]
) -> None:
    samples = [
        make_sample("DET_a-000000000", "红色的星星-[0.100,0.200,0.300,0.400]", question="Where is the red star?"),
        make_sample("LAZY_a-000000000", "Étoile שלום, 红: rock-paper", size_px=None),
    ]
    view = open_view(write_set(tmp_path / "set", samples))
    assert view.rows(q=query) == found


def test_a_set_of_texts_alone(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    samples = [make_sample(f"LAZY_a-{number:09d}", "Yes.", size_px=None) for number in range(3)]
    view = open_view(write_set(tmp_path / "set", samples))
    assert view.get("/api/categories") == {"categories": [], "total": 0}
    assert view.get("/api/categories", q="yes") == {"categories": [], "total": 0}
    assert (view.rows(sort="area", desc=1), view.rows(smallest="0-"), view.rows(width="1-")) == ([0, 1, 2], [], [])
    assert [card["image"] for card in view.get("/api/samples")["samples"]] == [False] * 3
    assert view.error("/image/0/0")[0] == view.error("/thumbnail/0/0")[0] == view.error("/crop/0/0")[0] == 422
    assert "--draw" not in view.get("/api/samples/0/0")["command"]


def test_each_of_several_sets_has_its_own_samples(
    tmp_path: Path, frozen_set: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    other = write_set(tmp_path / "set", [make_sample("DET_b-000000000")])
    view = open_view(frozen_set, other)
    assert [item["name"] for item in view.get("/api/sets")["sets"]] == [str(frozen_set), str(other)]
    (card,) = view.get("/api/samples", set=1)["samples"]
    assert (card["set"], card["key"]) == (1, "DET_b-000000000")
    assert view.get("/api/samples/1/0")["key"] == "DET_b-000000000"
    assert view.client.get("/image/1/0").content != view.client.get("/image/0/0").content


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_set_in_a_folder_whose_name_is_not_utf_8_is_shown(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], open_view: OpenView
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    view = open_view(write_set(folder / "set", [make_sample("DET_a-000000000")]))
    assert view.get("/api/sets")["sets"][0]["samples"] == 1
    assert view.get("/api/samples/0/0")["error"] is None


def test_a_damaged_shard_spoils_only_its_own_cards(copy_of_set: Path, open_view: OpenView) -> None:
    frozen = open_set(copy_of_set)
    row = next(row for row in range(len(frozen)) if frozen[row].task == "DET")
    entry = frozen.index[row]
    shard = copy_of_set / frozen.lock.shards[int(entry["shard"])].name
    data = bytearray(shard.read_bytes())
    data[int(entry["offset"]) + int(entry["bytes"]) - 600] ^= 1
    shard.write_bytes(data)
    view = open_view(copy_of_set)
    cards = {card["row"]: card for card in view.get("/api/samples", task="DET")["samples"]}
    assert "checksum" in cards.pop(row)["error"]
    assert {card["error"] for card in cards.values()} == {None}
    page = view.get(f"/api/samples/0/{row}")
    assert (page["variants"], page["next"], page["shard"]) == (
        [],
        row + 1,
        frozen.lock.shards[int(entry["shard"])].name,
    )
    assert [view.error(f"/{kind}/0/{row}")[0] for kind in ("image", "thumbnail", "crop")] == [422] * 3
    assert view.get("/api/sets")["sets"][0]["damaged"] == 1
    shard.unlink()
    cards = {card["row"]: card for card in open_view(copy_of_set).get("/api/samples", task="DET")["samples"]}
    assert "missing" in cards[row]["error"]


def test_an_answer_that_does_not_parse_is_shown_with_its_error(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    view = open_view(write_set(tmp_path / "set", [make_sample("DET_a-000000000", "cat-[0.1,0.2]")]))
    (card,) = view.get("/api/samples")["samples"]
    assert (card["answer"], card["boxes"]) == ("cat-[0.1,0.2]", [])
    assert "not an answer" in card["error"]
    assert view.get("/api/samples/0/0")["variants"][0]["turns"][1]["value"] == "cat-[0.1,0.2]"


def test_images_are_sent_as_they_are_stored(view: View) -> None:
    frozen = view.sets[0].frozen
    rows = [row for row in range(len(frozen)) if frozen[row].image is not None]
    formats = set()
    for row in rows[::7]:
        sample = frozen[row]
        answer = view.client.get(f"/image/0/{row}")
        assert answer.content == sample.image
        assert answer.headers["content-type"] == f"image/{sample.image_format.lower()}"
        formats.add(sample.image_format)
        small = view.client.get(f"/thumbnail/0/{row}")
        width_px, height_px = Image.open(BytesIO(small.content)).size
        assert max(width_px, height_px) <= 320
        assert width_px / height_px == pytest.approx(sample.width_px / sample.height_px, rel=0.02)
        assert view.client.get(f"/thumbnail/0/{row}").content == small.content  # from the cache
    assert len(formats) > 1


def test_an_image_that_the_browser_has_is_not_sent_again(view: View) -> None:
    row = next(row for row in range(9) if view.sets[0].frozen[row].image is not None)
    for kind in ("image", "thumbnail"):
        first = view.client.get(f"/{kind}/0/{row}")
        tag = {"if-none-match": first.headers["etag"]}
        again = view.client.get(f"/{kind}/0/{row}", headers=tag)
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert view.client.get(f"/{kind}/0/{row + 1}", headers=tag).status_code == 200


def test_the_crop_is_what_the_model_is_given(view: View) -> None:
    row = view.rows(task="VISJ")[0]
    sample = view.sets[0].frozen[row]
    assert sample.region_xyxy_px is not None
    expected = cropped(decode(sample, ""), sample.region_xyxy_px)
    shown = Image.open(BytesIO(view.client.get(f"/crop/0/{row}").content))
    assert shown.size == expected.size
    region = view.get(f"/api/samples/0/{row}")["variants"][0]["region"]
    assert [value * side for value, side in zip(region, (sample.width_px, sample.height_px) * 2, strict=True)] == (
        pytest.approx(list(sample.region_xyxy_px))
    )
    assert view.error(f"/crop/0/{row}", variant=1)[0] == 422
    assert view.error(f"/crop/0/{row}", variant="x")[0] == 400


def test_hostile_images_are_refused(
    tmp_path: Path, write_set: WriteSet, make_sample: MakeSample, open_view: OpenView
) -> None:
    """An image of more pixels than are decoded for a small one; and bytes that are not an image, but a page."""
    bomb, page, tiff = BytesIO(), b"<html><script>alert(1)</script>", BytesIO()
    Image.new("1", (30_000, 5_000)).save(bomb, "PNG")
    Image.new("RGB", (8, 6), "red").save(tiff, "TIFF")
    samples = [
        replace(make_sample(f"DET_a-{record:09d}"), image=image)
        for record, image in enumerate((bomb.getvalue(), page, tiff.getvalue()))
    ]
    visual = make_sample("VISJ_a-000000003", "[0.100,0.200,0.300,0.400]", region_xyxy_px=(1.0, 1.0, 3.0, 3.0))
    samples.append(replace(visual, image=bomb.getvalue()))
    view = open_view(write_set(tmp_path / "set", samples))
    assert view.error("/thumbnail/0/0") == (422, "30000x5000 pixels, at most 40,000,000 are shown in a small image")
    assert view.error("/crop/0/3") == (422, "30000x5000 pixels, at most 40,000,000 are decoded for the browser")
    assert "HTML" in view.error("/image/0/1")[1]
    assert "HTML" in view.error("/thumbnail/0/1")[1]
    answer = view.client.get("/image/0/2")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(answer.content)).getpixel((0, 0)) == (255, 0, 0)
