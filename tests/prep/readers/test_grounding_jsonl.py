"""Conversations about boxes, as ms-swift, Qwen and InternVL are fine-tuned with."""

import json
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.readers import find_format
from griffon_prep.records import Record, in_pixels
from griffon_prep.sources.compressed import opened
from griffon_shards.support.errors import SettingsError

from ..rendering import rendered
from .reading import read_source, write_lines

SIDES = {"width_px": 200, "height_px": 100}
ONE, TWO = [10, 20, 40, 60], [100, 0, 150, 50]
TEXT_ONE, TEXT_TWO = "[0.050,0.200,0.200,0.600]", "[0.500,0.000,0.750,0.500]"
THOUSANDTHS = {"boxes": "thousandth"}


def asked(question: str, answer: Any, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": ["a.jpg"], **more}


def objects(*refs: str, bbox: list[Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"objects": {"ref": list(refs), "bbox": bbox, **more}}


def read(folder: Path, line: dict[str, Any], task: str, **options: str) -> list[Record | tuple[str, str]]:
    return read_source(write_lines(folder, [line]), task, **options)[0]


def answers(folder: Path, line: dict[str, Any], task: str, **options: str) -> list[str]:
    """The answers of an image of 200 x 100 pixels, or the reasons for rejecting its records."""
    result = []
    for record in read(folder, line, task, **options):
        if not isinstance(record, Record):
            result.append(record[0])
            continue
        assert record.image_path == "a.jpg"
        sized = in_pixels(Record(**{**{name: getattr(record, name) for name in Record.__slots__}, **SIDES}))
        turns = rendered(task, sized)[0].turns
        result += [turn.text for turn in turns if turn.role == "gpt"]
    return result


BOTH = asked(
    "<image>Describe it.", "<ref-object><bbox> and <ref-object><bbox> play", **objects("a dog", "it", bbox=[ONE, TWO])
)
SHEEP = asked("<image>Find the <ref-object>.", "<bbox><bbox>", **objects("sheep", bbox=[ONE, TWO]))
FRACTIONS = asked(
    "<image>Find the <ref-object>.", "<bbox>", **objects("sheep", bbox=[[0.05, 0.2, 0.2, 0.6]], bbox_type="norm1")
)
NEW = asked(  # QWENVL_BBOX_FORMAT=new, with the comma that ms-swift's documentation leaves out
    "<image>Find the <ref-object>.",
    '[\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"}\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"}\n]',
    **objects("sheep", "sheep", "lamb", bbox=[ONE, TWO], bbox_type="real", image_id=[0, 0]),
)


@pytest.mark.parametrize(
    ("line", "lazy", "vg"),
    [
        (BOTH, f"a dog-{TEXT_ONE} and it-{TEXT_TWO} play", [f"a dog-{TEXT_ONE}", f"it-{TEXT_TWO}"]),
        (SHEEP, f"{TEXT_ONE}&{TEXT_TWO}", [f"sheep-{TEXT_ONE}&sheep-{TEXT_TWO}"]),
        (FRACTIONS, TEXT_ONE, [f"sheep-{TEXT_ONE}"]),
        (NEW, f"sheep-{TEXT_ONE}&lamb-{TEXT_TWO}", [f"sheep-{TEXT_ONE}", f"lamb-{TEXT_TWO}"]),
    ],
)
def test_objects_of_ms_swift(tmp_path: Path, line: dict[str, Any], lazy: str, vg: list[str]) -> None:
    assert answers(tmp_path, line, "LAZY") == [lazy]
    assert answers(tmp_path, line, "VG") == vg
    assert answers(tmp_path, line, "DET") == ["&".join(vg)]


@pytest.mark.parametrize(
    ("answer", "lazy", "vg"),
    [
        ('[{"bbox_2d": [50, 200, 200, 600], "label": "cat"}]', f"cat-{TEXT_ONE}", [f"cat-{TEXT_ONE}"]),
        (
            'Here:\n```json\n[\n\t{"bbox_2d": [50, 200, 200, 600], "label": "cat"},\n'
            '\t{"label": "dog", "bbox_2d": [500, 0, 750, 500]}\n]\n```',
            f"Here:\ncat-{TEXT_ONE}&dog-{TEXT_TWO}",
            [f"cat-{TEXT_ONE}", f"dog-{TEXT_TWO}"],
        ),
        ('{"bbox_2d": [50, 200, 200, 600]}', TEXT_ONE, ["bad_record"]),
        ("<ref>cat</ref><box>(50,200),(200,600)</box>", f"cat-{TEXT_ONE}", [f"cat-{TEXT_ONE}"]),
        (
            "<ref>cat</ref><box>[[50, 200, 200, 600], [500, 0, 750, 500]]</box>.",
            f"cat-{TEXT_ONE}&cat-{TEXT_TWO}.",
            [f"cat-{TEXT_ONE}&cat-{TEXT_TWO}"],
        ),
        (
            "<|object_ref_start|>a<|object_ref_end|><|box_start|>(50, 200), (200, 600)<|box_end|>\n"
            "<|object_ref_start|>b<|object_ref_end|><|box_start|>(500, 0), (750, 500)<|box_end|>",
            f"a-{TEXT_ONE}&b-{TEXT_TWO}",
            [f"a-{TEXT_ONE}", f"b-{TEXT_TWO}"],
        ),
    ],
)
def test_boxes_in_the_text(tmp_path: Path, answer: str, lazy: str, vg: list[str]) -> None:
    for line in (
        asked("<image>Where?", answer),
        {
            "image": "a.jpg",
            "conversations": [{"from": "human", "value": "<image>Where?"}, {"from": "gpt", "value": answer}],
        },
    ):
        assert answers(tmp_path, line, "LAZY", **THOUSANDTHS) == [lazy]
        assert answers(tmp_path, line, "VG", **THOUSANDTHS) == vg


@pytest.mark.parametrize("task", ["LAZY", "DET", "VG"])
def test_the_unit_of_boxes_in_the_text_must_be_stated(tmp_path: Path, task: str) -> None:
    """Nothing in a file tells whether they are Qwen2.5-VL's pixels or Qwen3-VL's thousandths."""
    lines = [asked("Hello?", "Hello."), asked("<image>Where?", '[{"bbox_2d": [50, 20, 200, 60], "label": "cat"}]')]
    with pytest.raises(
        SettingsError, match=r"\[50\.0, 20\.0, 200\.0, 60\.0\].*add boxes=thousandth, boxes=fraction or"
    ):
        read_source(write_lines(tmp_path, lines), task)
    pixels = answers(tmp_path, asked("<image>Where?", "<ref>c</ref><box>(10,20),(40,60)</box>"), "VG", boxes="pixel")
    assert pixels == [f"c-{TEXT_ONE}"]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (asked("Find <ref-object>", "<bbox>", **objects(bbox=[ONE])), "bad_record", "ref has 0 phrases"),
        (asked("Find it", "<bbox><bbox>", **objects(bbox=[ONE])), "bad_record", "bbox has 1 box, the text has more"),
        (
            asked("Find it", "<bbox>", **objects(bbox=[ONE, TWO])),
            "bad_record",
            "bbox has 2 entries, the text has 1 <bbox>",
        ),
        (asked("Click", "<bbox>", **objects(bbox=[[615, 226]])), "bad_record", "is a point"),
        (asked("It", "<bbox>", **objects(bbox=[ONE], image_id=[1])), "several_pictures", "image_id: expected zeros"),
        (
            asked("It", "<bbox>", **objects(bbox=[ONE], bbox_type="norm1000")),
            "bad_record",
            "bbox_type: expected real or",
        ),
        (asked("It", "<bbox>", **objects(bbox=[[1, 2, "3", 4]])), "bad_record", "bbox: expected a box of four numbers"),
        (asked("It", "<bbox>", objects=None), "bad_record", "the text has <bbox>, and the record has no objects"),
        (asked("<ref-object>?", "It."), "bad_record", "the text has <ref-object>, and the record has no objects"),
        (asked("It", "<bbox>", objects=[ONE]), "bad_record", "objects: expected ref and bbox"),
        (asked("It", "<box>(1,2)</box>"), "bad_record", "expected boxes of two corners"),
        (asked("It", '{"bbox_2d": [1, 2, 3]}'), "bad_record", "bbox: expected a box of four numbers"),
        (asked("It", '{"bbox_2d": [1, 2, 3, 4], "label": ["a"]}'), "bad_record", "expected a phrase"),
        (asked("It", '{"bbox_2d": [1, 2, 3, 4], "label": "a", "age": 3}'), "bad_record", "further keys (age)"),
        (asked('As {"bbox_2d": [x1, y1, x2, y2]}', '{"bbox_2d": [1, 2, 3, 4]}'), "bad_record", "is not JSON"),
        (
            asked("It", '[{"bbox_2d": [1, 2, 3, 4], "label": "a"'),
            "bad_record",
            "a box in an answer cannot be read: 'bbox",
        ),
        (
            asked("It", '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [1, 2, 3, 4], "label": "b {c}"}]'),
            "bad_record",
            'a box in an answer cannot be read: \'bbox_2d": [1, 2, 3, 4], "label": "b',
        ),
        (asked("Give bbox_2d", "No."), "foreign_boxes", "another notation"),
        (asked("With bbox_2d", '{"bbox_2d": [1, 2, 3, 4]}'), "foreign_boxes", "another notation"),
        (
            asked("Both <ref-object>", "<bbox> <box>(1,2),(3,4)</box>", **objects("a", bbox=[ONE])),
            "bad_record",
            "units",
        ),
        ({**asked("It", "<bbox>", **objects(bbox=[ONE])), "images": []}, "bad_record", "boxes and no image"),
        ({"messages": [7], "images": ["a.jpg"]}, "bad_record", "messages: expected role and content"),
    ],
)
def test_what_cannot_be_converted_is_rejected(tmp_path: Path, line: dict[str, Any], reason: str, detail: str) -> None:
    ((given, message),) = read(tmp_path, line, "LAZY", **THOUSANDTHS)  # type: ignore[misc]
    assert (given, detail in message) == (reason, True), message


def test_conversations_without_boxes_are_read_as_they_are(tmp_path: Path) -> None:
    parts = [{"type": "image", "image": "b.jpg"}, {"type": "text", "text": "What?"}]
    lines = [
        asked("<image>What?", "A cat.", images=[{"path": "b.jpg"}]),
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": parts}, ANSWER]},
        {"messages": [{"role": "user", "content": "1 <box>?"}, ANSWER]},
    ]
    records, _ = read_source(write_lines(tmp_path, lines), "LAZY")
    said = [
        (record.image_path, [turn.text for turn in record.turns]) for record in records if isinstance(record, Record)
    ]
    assert said == [
        ("b.jpg", ["<image>What?", "A cat."]),
        ("b.jpg", ["<image>What?", "A cat."]),
        (None, ["1 <box>?", "A cat."]),
    ]
    assert [record[0] for record in read_source(write_lines(tmp_path, lines), "VG")[0]] == ["no_objects"] * 3  # type: ignore[index]


ANSWER = {"role": "assistant", "content": "A cat."}


def test_what_a_conversation_does_not_name_is_not_called_absent(tmp_path: Path) -> None:
    """A conversation about sheep says nothing about dogs."""
    records, scan = read_source(write_lines(tmp_path, [BOTH, SHEEP]), "DET")
    assert scan.vocabulary == ()
    assert all(isinstance(record, Record) and record.only_these_absent for record in records)


@pytest.mark.parametrize(
    "mark", ['[{"bbox_2d": [1, 2, 3, 4]}]', "<|box_start|>(1,2),(3,4)<|box_end|>", "<box>[[1,2,3,4]]</box>"]
)
def test_a_file_of_llava_with_such_boxes_among_others(tmp_path: Path, mark: str) -> None:
    """They must not pass as text: the model would learn a second system of coordinates."""
    plain = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "A <box> of tea, or [0.1, 0.2, 0.3, 0.4]."}]
    boxes = [{"from": "human", "value": "<image>Where?"}, {"from": "gpt", "value": mark}]
    lines = [{"conversations": plain}, {"image": "a.jpg", "conversations": boxes}]
    path = write_lines(tmp_path, lines)
    records, _ = read_source(path, "LAZY")
    assert isinstance(records[0], Record)
    assert records[1][0] == "foreign_boxes"  # type: ignore[index]
    assert "add format=grounding-jsonl to the manifest line" in records[1][1]  # type: ignore[index]
    converted, _ = read_source(path, "LAZY", format="grounding-jsonl", boxes="thousandth")
    assert isinstance(converted[1], Record)
    assert converted[1].boxes_in_text == ((1.0, 2.0, 3.0, 4.0),)
    path.write_text(json.dumps(lines[1]))
    assert find_format(lambda: opened(path), str(path), "LAZY", {}) == "grounding-jsonl"


def test_questions_about_an_image_may_share_a_sample(tmp_path: Path) -> None:
    _, scan = read_source(write_lines(tmp_path, [BOTH, {**SHEEP, "images": ["b.jpg"]}]), "VG", rounds="4")
    assert scan.round_keys is not None
    first, second, third = scan.round_keys.images
    assert first == second != third


UNREAD = [
    '[{"bbox": [10, 20, 110, 220], "label": "cat"}]',
    "{'box_2d': [[10, 20, 110, 220]]}",
    '{"bounding boxes": [ -1.5, 2, 3, 4]}',
    "cat <loc0010><loc0020><loc0110><loc0220>",
    "<loc_10><loc_20><loc_110><loc_220>",
    "<patch_index_0044><patch_index_0863>",
    "<box><10><20><110><220></box>",
]


@pytest.mark.parametrize("mark", UNREAD)
@pytest.mark.parametrize("format_name", ["llava", "grounding-jsonl"])
def test_boxes_in_notations_that_are_not_read_do_not_pass_as_text(tmp_path: Path, mark: str, format_name: str) -> None:
    turns = [{"from": "human", "value": "<image>Where?"}, {"from": "gpt", "value": mark}]
    plain = [turns[0], {"from": "gpt", "value": 'The "box": a <box>, [of 4], {"bbox": []} and <location>.'}]
    path = write_lines(tmp_path, [{"image": "a.jpg", "conversations": item} for item in (turns, plain)])
    (foreign, record), _ = read_source(path, "LAZY", format=format_name)
    assert foreign[0] == "foreign_boxes"  # type: ignore[index]
    assert "in a notation that is not read" in foreign[1]  # type: ignore[index]
    assert isinstance(record, Record)
