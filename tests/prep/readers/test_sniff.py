"""Which format a file is of, and what a user is told when that cannot be or does not fit."""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from griffon_prep import readers
from griffon_prep.readers.coco_file import read_coco
from griffon_prep.sources.compressed import opened
from griffon_shards.support.errors import DataError, SettingsError

LLAVA: dict[str, Any] = {"id": 1, "conversations": []}
OBJECTS: dict[str, Any] = {"image_path": "a.jpg", "height": 1, "width": 1, "objects": []}
EXPRESSION: dict[str, Any] = {"image_path": "a.jpg", "height": 1, "width": 1, "expression": "x", "bboxes": []}
COCO: dict[str, Any] = {"images": [], "annotations": [], "categories": []}


def find_format(annotation: Path, task: str, options: Mapping[str, str]) -> str:
    return readers.find_format(partial(opened, annotation), str(annotation), task, options)


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "annotation"  # nothing is read from the name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("element", "task", "name"),
    [
        (LLAVA, "LAZY", "llava"),
        *((OBJECTS, task, "ccmd") for task in ("DET", "RANDDET", "VISJ")),
        *((EXPRESSION, task, "ccmd") for task in ("REG", "VG")),
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("array", [False, True])
def test_by_content(tmp_path: Path, element: dict[str, Any], task: str, name: str, bom: bytes, array: bool) -> None:
    text = json.dumps([element] * 3, indent=1) if array else "\n" + f"{json.dumps(element)}\r\n" * 3
    assert find_format(write(tmp_path, bom + text.encode()), task, {}) == name


def test_elements_that_say_nothing_are_skipped(tmp_path: Path) -> None:
    lines = ["{ broken", "[]", "5", json.dumps({"id": 1}), json.dumps(OBJECTS)]
    assert find_format(write(tmp_path, "\n".join(lines)), "DET", {}) == "ccmd"


def test_by_name(tmp_path: Path) -> None:
    assert find_format(write(tmp_path, json.dumps(COCO)), "DET", {"format": "ccmd"}) == "ccmd"
    assert find_format(write(tmp_path, ""), "LAZY", {"format": "llava", "weight": "2", "limit": "3"}) == "llava"


@pytest.mark.parametrize(
    ("element", "task", "options", "message"),
    [
        ({"frames": []}, "DET", {}, r"matches no known format \(llava, ccmd, .*\).*format="),
        ({"id": 1}, "LAZY", {}, "matches no known format"),
        (OBJECTS, "DET", {"format": "createml"}, "unknown format 'createml'; format= takes one of llava, ccmd, "),
        (LLAVA, "DET", {}, "format llava supports LAZY, not DET"),
        (OBJECTS, "LAZY", {}, "format ccmd supports DET, RANDDET, REG, VG, VISJ, not LAZY"),
        (OBJECTS, "LAZY", {"format": "ccmd"}, "format ccmd supports .*, not LAZY"),
        (OBJECTS, "DET", {"split": "train"}, "format ccmd does not take the option split"),
        (LLAVA, "LAZY", {"split": "train"}, "format llava does not take the option split"),
    ],
)
def test_what_does_not_fit_is_reported(
    tmp_path: Path, element: dict[str, Any], task: str, options: Mapping[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        find_format(write(tmp_path, json.dumps(element)), task, options)


VIA = {"a.jpg4321": {"filename": "a.jpg", "size": 4321, "regions": [], "file_attributes": {}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VIA, "an object keyed by image names, as the VGG Image Annotator's own JSON; export"),
        ({"b.png-1": {}, "c.jpeg77": {}}, "the VGG Image Annotator's own JSON"),
        (
            {"_via_settings": {}, "_via_img_metadata": VIA, "_via_attributes": {}},
            "a VGG Image Annotator project; export the annot",
        ),
        (
            {"version": "5.0", "shapes": [], "imagePath": "a.jpg", "imageHeight": 9},
            "labelme's annotations of one image; give the folder",
        ),
        (
            [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": []}]}],
            "in Label Studio's own format;",
        ),
        ({"info": {}, "categories": {"label": {}}, "items": [{"id": "a"}]}, "in Datumaro's own format; export"),
        ([{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {}}]}], "for CreateML; export"),
        (
            [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}],
            "COCO's annotations or results only",
        ),
        ([{"instruction": "Say it.", "input": "", "output": "It."}], "in Alpaca's format; convert it to LLaVA's"),
        ([{"image": "a.jpg", "question": "What?", "answer": "A cat."}], "questions and answers; convert it to LLaVA's"),
        (
            [{"image_id": "a.jpg", "Question 1": {"question": "What?", "answer": "A cat."}}],
            "an object with the keys image_id, Q",
        ),
        ({"frame": "rs1", "imgHeight": 9, "imgWidth": 9, "objects": []}, "an object with the keys frame, imgHeight"),
    ],
)
@pytest.mark.parametrize("task", ["DET", "LAZY"])
def test_files_of_other_tools_are_identified(tmp_path: Path, content: object, message: str, task: str) -> None:
    with pytest.raises(SettingsError, match="matches no known format") as refused:
        find_format(write(tmp_path, json.dumps(content)), task, {})
    assert message in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"[]", b"[\n]\n"])
def test_nothing_in_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="has no records"):
        find_format(write(tmp_path, content), "LAZY", {})


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" * 50, b"not json at all\n" * 500, bytes(range(256)) * 20])
def test_what_is_not_json(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match="matches no known format"):
        find_format(write(tmp_path, content), "LAZY", {})


def test_a_file_truncated_before_its_first_record_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="truncated"):
        find_format(write(tmp_path, json.dumps([LLAVA])[:-8]), "LAZY", {})


class AtMost(BytesIO):
    """A file of which no more than its beginning may be read."""

    def read(self, size: int | None = -1) -> bytes:
        assert self.tell() < len(self.getvalue()) // 2, "read on, although enough was seen"
        return super().read(size)


@pytest.mark.parametrize("value", [{"image": "7.jpg", "conversations": []}, [1, {"a": "b"}], "text", 5])
@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_keyed_by_ids_is_recognised_early(value: object, indent: int | None) -> None:
    text = json.dumps({str(i): value for i in range(200_000)}, indent=indent).encode() + b" " * (20 << 20)
    with pytest.raises(SettingsError, match=r"matches no known format .*: it is one JSON object with over 100 members"):
        readers.find_format(lambda: AtMost(text), "a.json", "LAZY", {})


def test_files_read_as_coco_are_identified_too(tmp_path: Path) -> None:
    text = json.dumps({str(i): {"id": i} for i in range(20_000)})
    with pytest.raises(DataError, match=r"a\.json: one JSON object with over 100 members; expected .*COCO's images"):
        list(read_coco(Path(shutil.copy(write(tmp_path, text), tmp_path / "a.json"))))


@pytest.mark.parametrize(
    ("text", "expected_message"),
    [
        (
            json.dumps({"info": {}, "data": [LLAVA] * 3}, indent=1),
            "it begins with an object with the keys info, data; see",
        ),
        (json.dumps({"info": {}, "data": [LLAVA] * 3}), "it begins with an object with the keys info, data; see"),
        ('{"error": "Repository not found"}', "it begins with an object with the keys error; see"),
        ('[{"text": "a", "label": 5}]', "it begins with an object with the keys text, label; see"),
        ('{"text": "a", "label": 5}\n' * 3, "it begins with an object with the keys text, label; see"),
        ("id,caption\n1,a cat\n", "its first elements have no JSON object; see"),
        ("[1, 2, 3]", "its first elements have no JSON object; see"),
        *(
            (
                between.join([json.dumps(LLAVA, indent=1)] * 3),
                "objects of several lines each; convert it to JSONL with `jq",
            )
            for between in ("\n", "", "\r\n\r\n")
        ),
    ],
)
def test_a_file_of_unknown_format_is_described(tmp_path: Path, text: str, expected_message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find_format(write(tmp_path, text), "LAZY", {})
    message = str(caught.value)
    assert f"matches no known format ({', '.join(readers.FORMATS)}): it" in message
    assert expected_message in message


@pytest.mark.parametrize("indent", [None, 1])
def test_a_damaged_object_is_no_unknown_format(tmp_path: Path, indent: int | None) -> None:
    """Although some of its lines are JSON."""
    text = json.dumps({"info": {"a": "b"}, "licenses": [{"id": 1}] * 3, **COCO}, indent=indent).replace('"b"', '"b""')
    with pytest.raises(DataError, match=r"annotation: not valid JSON at line \d, byte \d+"):
        find_format(write(tmp_path, text), "DET", {})


def test_a_line_of_detections_without_its_image_is_no_visual_genome(tmp_path: Path) -> None:
    lines = [json.dumps({"objects": []}), json.dumps(OBJECTS)]
    assert find_format(write(tmp_path, "\n".join(lines)), "DET", {}) == "ccmd"
