"""Images as other projects' conversations name them: read or rejected, and never frozen as text alone."""

from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record

from .reading import read_all

ANSWER = {"from": "gpt", "value": "A cat."}


def one(folder: Path, question: str, **fields: Any) -> Record | tuple[str, str]:  # noqa: ANN401 - JSON
    line = {"id": "1", "conversations": [{"from": "human", "value": question}, ANSWER], **fields}
    (result,) = read_all(folder, "LAZY", [line])
    return result


@pytest.mark.parametrize("images_first", [False, True])
@pytest.mark.parametrize("pictures", [["a.jpg"], []])
def test_lines_that_list_their_images_are_conversations(
    tmp_path: Path, images_first: bool, pictures: list[str]
) -> None:
    """They are not taken for a COCO file, whose `images` are objects."""
    talk = {"conversations": [{"from": "human", "value": "What?"}, ANSWER]}
    shown = {"images": pictures}
    lines = [{**shown, **talk} if images_first else {**talk, **shown}, {**talk, "images": ["b.jpg"]}]
    records = read_all(tmp_path, "LAZY", lines)
    paths = [record.image_path for record in records if isinstance(record, Record)]
    assert paths == [pictures[0] if pictures else None, "b.jpg"]


@pytest.mark.parametrize("question", ["<image>\nWhat is it?", "What is it?"])
@pytest.mark.parametrize(
    "fields",
    [
        {"images": ["a/b.jpg"]},  # LLaMA-Factory, ms-swift
        {"images": "a/b.jpg", "videos": [], "audios": None},
        {"image_path": "a/b.jpg"},
        {"img": "a/b.jpg"},
        {"img_path": ["a/b.jpg"]},
        {"image_file": "a/b.jpg"},
        {"image_url": "a/b.jpg"},
        {"image": "", "images": ["a/b.jpg"]},
        {"image": None, "image_path": "a/b.jpg", "images": ["a/b.jpg"]},
        {"image": "a/b.jpg", "image_url": "http://x/y.jpg", "image_id": 7, "width_list": [9]},
        {"image": ["a/b.jpg"], "images": [], "video": None},
        {"file_name": "a/b.jpg", "path": "a/b.jpg"},
        {"filename": "a/b.jpg", "filepath": "x/y.json"},
        {"image": "a/b.jpg", "path": "a/c.jpg"},
    ],
)
def test_an_image_under_another_name_is_read(tmp_path: Path, question: str, fields: dict[str, Any]) -> None:
    record = one(tmp_path, question, **fields)
    assert isinstance(record, Record), record
    assert (record.image_path, record.turns[0].text) == ("a/b.jpg", question)


@pytest.mark.parametrize(
    "mark",
    [
        "<ImageHere>",
        "<Img><ImageHere></Img>",
        "<image_placeholder>",
        "<img>",
        "<img></img>",
        "<img>a/b.jpg</img>",
        "<|image|>",
        "<|image_1|>",
        "<image_1>",
        "<|vision_start|><|image_pad|><|vision_end|>",
    ],
)
def test_another_mark_for_the_image(tmp_path: Path, mark: str) -> None:
    """With one image, the mark is its place; with none, the image is missing. Neither becomes text alone."""
    record = one(tmp_path, f"{mark}\nWhat is it?", image="a/b.jpg")
    assert isinstance(record, Record), record
    assert record.turns[0].text == "<image>\nWhat is it?"
    for question in (f"{mark}\nWhat is it?", f"What is in {mark} here?", f"What is it? {mark}"):
        reason, detail = one(tmp_path, question)  # type: ignore[misc]
        assert (reason, detail) == ("picture_field_unknown", f"the text has {mark!r}, but the record has no image")
    assert one(tmp_path, f"{mark}{mark}Which?", image="a/b.jpg")[0] == "several_pictures"  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        ({"video": "a.mp4"}, "picture_field_unknown", "video: 'a.mp4'"),
        ({"videos": ["a.mp4"]}, "picture_field_unknown", "videos: ['a.mp4']"),
        ({"audio": "a.wav", "image": "a.jpg"}, "picture_field_unknown", "audio: 'a.wav'"),
        ({"video": "a.mp4", "image": "a.jpg"}, "picture_field_unknown", "video: 'a.mp4'"),
        ({"picture": "a.jpg"}, "picture_field_unknown", "picture: 'a.jpg'; put the image's path in image"),
        ({"image_name": "a.jpg"}, "picture_field_unknown", "image_name: 'a.jpg'"),
        ({"file_name": "a.jpg", "path": "b.jpg"}, "picture_field_unknown", "different images"),
        ({"imageId": 7}, "picture_field_unknown", "imageId: 7"),
        ({"Image": "a.jpg"}, "picture_field_unknown", "Image: 'a.jpg'"),
        ({"photo_path": ["a.jpg"]}, "picture_field_unknown", "photo_path"),
        ({"image_path": "a.jpg", "img": "b.jpg"}, "picture_field_unknown", "image_path, img name different images"),
        ({"image_url": "data:image/png;base64,AA"}, "picture_field_unknown", "image_url: 'data:"),
        ({"images": ["a.jpg", "b.jpg"]}, "several_pictures", "expected one image, got a list of 2"),
        (
            {"image": "a.jpg", "images": ["a.jpg", "b.jpg"]},
            "several_pictures",
            "expected one image, got a list of 2",
        ),
        ({"img": [{"path": "a.jpg"}]}, "bad_record", "img: expected a path, got {'path': 'a.jpg'}"),
        ({"image_url": {"url": "http://x/a.jpg"}}, "bad_record", "image_url: expected a path"),
    ],
)
def test_what_may_hold_several_images_is_rejected(
    tmp_path: Path, fields: dict[str, Any], reason: str, message: str
) -> None:
    actual = one(tmp_path, "What is it?", **fields)
    assert isinstance(actual, tuple), actual
    assert actual[0] == reason
    assert message in actual[1]


@pytest.mark.parametrize("mark", ["<video>", "<audio>"])
@pytest.mark.parametrize("fields", [{}, {"image": "a.jpg"}])
def test_a_mark_for_a_video_is_rejected(tmp_path: Path, mark: str, fields: dict[str, str]) -> None:
    reason, detail = one(tmp_path, f"{mark}\nWhat happens?", **fields)  # type: ignore[misc]
    assert reason == "picture_field_unknown"
    assert f"the text has {mark!r}, but " in detail


@pytest.mark.parametrize(
    "mark",
    [
        *("<IMAGE>", "<Image>", "<image/>", "<image >", "<IMG>", "[IMG]", "<im_start>"),
        *("<im_patch>", "![](a.jpg)", "<point_cloud>", "<speech>"),
    ],
)
def test_a_mark_without_an_image_is_rejected(tmp_path: Path, mark: str) -> None:
    assert one(tmp_path, f"{mark}What is it?") == (
        "picture_field_unknown",
        f"the text has {mark!r}, but the record has no image",
    )


@pytest.mark.parametrize(
    "question",
    [
        "What does the `<img>` tag do, and `<video>`?",
        '<img src="a.jpg"> is not shown',
        "<video controls><source src='a.mp4'></video>",
        "An <image-set> or a List<Image>",
    ],
)
@pytest.mark.parametrize(
    "fields", [{}, {"image": None, "video": "", "has_image": False, "num_images": 0, "source": "x"}]
)
def test_a_text_about_html_is_text(tmp_path: Path, question: str, fields: dict[str, Any]) -> None:
    record = one(tmp_path, question, **fields)
    assert isinstance(record, Record), record
    assert (record.image_path, record.turns[0].text) == (None, question)


def test_what_an_answer_says_is_not_a_mark(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "How is a picture shown?"},
        {"from": "gpt", "value": "With <img> or <ImageHere>."},
    ]
    (record,) = read_all(tmp_path, "LAZY", [{"conversations": turns}])
    assert isinstance(record, Record)
    assert record.turns[1].text == "With <img> or <ImageHere>."
