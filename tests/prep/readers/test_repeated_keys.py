"""A lost `}, {` makes one valid JSON object of two: the file is damaged, and no record may vanish."""

import json
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.support.errors import DataError

from .published import box, coco, picture, ref, write
from .reading import read_source


def talk(number: int) -> dict[str, object]:
    turns = [{"from": "human", "value": f'{number} "a": b?'}, {"from": "gpt", "value": "Yes."}]
    return {"id": number, "conversations": turns}


def line(name: str) -> dict[str, object]:
    return {
        "image_path": name,
        "height": 9,
        "width": 9,
        "objects": [{"category_name": "cat", "bboxes": [[1, 2, 3, 4]]}],
    }


COCO = coco([picture(7), picture(8)], [box(1, 7), box(2, 8)])
VG_IMAGES = [{"image_id": n, "width": 90, "height": 90, "url": f"http://x/VG_100K/{n}.jpg"} for n in (1, 2)]
THING = {"x": 1, "y": 2, "w": 3, "h": 4, "names": ["cat"]}
VG = [{"image_id": 1, "objects": [THING, THING]}, {"image_id": 2, "objects": [THING]}]
GREFS = [ref([1], "a", no_target=False), ref([1], "b", no_target=False)]
CASES: dict[str, tuple[str, Any, str, str, dict[str, Any]]] = {
    "llava": ("LAZY", [talk(0), talk(1)], '}, {"id": 1', ', "id": 1', {}),
    "ccmd": ("RANDDET", [line("a.jpg"), line("b.jpg")], '}, {"image_path"', ', "image_path"', {}),
    "ccmd objects": ("DET", [{**line("a.jpg"), "objects": line("")["objects"] * 2}], "}, {", ", ", {}),  # type: ignore[operator]
    "annotations": ("RANDDET", COCO, '}, {"id": 2', ', "id": 2', {}),
    "images": ("RANDDET", COCO, '}, {"id": 8', ', "id": 8', {}),
    "categories": ("RANDDET", COCO, '}, {"id": 18', ', "id": 18', {}),
    "VG elements": ("DET", VG, '}, {"image_id": 2', ', "image_id": 2', {"image_data.json": VG_IMAGES}),
    "VG objects": ("DET", VG, '}, {"x"', ', "x"', {"image_data.json": VG_IMAGES}),
    "gRefCOCO": ("VG", GREFS, '}, {"ref_id"', ', "ref_id"', {"instances.json": coco()}),
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("case", CASES)
def test_two_records_in_one_are_damage_of_the_file(tmp_path: Path, case: str, indent: int | None) -> None:
    task, value, whole, broken, companions = CASES[case]
    text = json.dumps(value)
    damaged = text.replace(whole, broken, 1)
    assert len(damaged) < len(text)
    json.loads(damaged)
    if indent:
        damaged = damaged.replace("[{", "[\n {").replace('": ', '" : ')
    with pytest.raises(DataError, match=r"line \d+, byte \d+ has the key '\w+' twice"):
        read_source(write(tmp_path, {"a.json": damaged, **companions}), task)


def test_a_line_of_two_records_is_damage_of_the_file(tmp_path: Path) -> None:
    lines = [json.dumps(line(f"{n}.jpg")) for n in range(3)]
    text = f"{lines[0]}\n{lines[1][:-1]}, {lines[2][1:]}\n"
    with pytest.raises(DataError, match=r"record 1 \(from 0\) at line 2, byte \d+ has the key 'image_path' twice"):
        read_source(write(tmp_path, {"a.jsonl": text}), "RANDDET")


@pytest.mark.parametrize("text", [r'"a\": 1, \"a\": 2"', r'"\u0022: \u0022:"', '"a \\" : b"', "{}", "NaN"])
def test_text_like_keys_is_no_repeated_key(tmp_path: Path, text: str) -> None:
    source = json.dumps([talk(0)]).replace('"id": 0', f'"id" : 0, "more":{text}')
    assert len(read_source(write(tmp_path, {"a.json": source}), "LAZY")[0]) == 1
