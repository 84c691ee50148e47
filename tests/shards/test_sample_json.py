"""`KEY.json`: pinned bytes, one schema for every sample, read back without loss."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffon_shards.frozen_set import open_set
from griffon_shards.sample_json import decode_sample, encode_sample
from griffon_shards.support.errors import DataError
from griffon_shards.types import TASKS, BoxXYXY, Origin, Rendering, Sample, Turn

QUESTION = Turn(role="human", text='<image>\nWhere is the 猫 in "<region>"?')
SAMPLE = Sample(
    key="VISJ_0-000000007",
    image=b"picture",
    image_format="JPEG",
    width_px=640,
    height_px=480,
    task="VISJ",
    renderings=(
        Rendering(
            turns=(QUESTION, Turn(role="gpt", text="[0.100,0.200,0.300,0.400]")),
            region_xyxy_px=(64.0, 96.5, 192.0, 192.0),
            boxes_xyxy_px=((64.1, 96.0, 192.0, 511.71999999999997),),
        ),
    ),
    origin=Origin(annotation="注释/visj.jsonl", record=7, image="图/a.jpg"),
)
PINNED = (
    '{"boxes":[[64.1,96.0,192.0,511.71999999999997]],'
    '"conversations":[{"from":"human","value":"<image>\\nWhere is the 猫 in \\"<region>\\"?"},'
    '{"from":"gpt","value":"[0.100,0.200,0.300,0.400]"}],"height":480,"image_format":"JPEG",'
    '"origin":{"annotation":"注释/visj.jsonl","image":"图/a.jpg","record":7},"region":[64.0,96.5,192.0,192.0],'
    '"task":"VISJ","width":640}'
)
OTHER = Rendering(turns=(Turn(role="human", text="?"), Turn(role="gpt", text="None")))

coordinates_px = st.floats(0.5, 1e6)  # a region of four zeros stands for none
regions_px: st.SearchStrategy[BoxXYXY | None] = st.none() | st.tuples(
    coordinates_px, coordinates_px, coordinates_px, coordinates_px
)
boxes_px = st.none() | st.lists(st.tuples(*[st.floats(0, 1e6)] * 4), max_size=3).map(tuple)
turns = st.builds(Turn, role=st.sampled_from(["human", "gpt"]), text=st.text())
renderings = st.builds(
    Rendering, turns=st.lists(turns, max_size=4).map(tuple), region_xyxy_px=regions_px, boxes_xyxy_px=boxes_px
)
samples = st.builds(
    Sample,
    key=st.just("K-000000001"),
    image=st.none() | st.binary(),
    image_format=st.sampled_from(["", "JPEG", "PNG"]),
    width_px=st.integers(0, 1 << 31),
    height_px=st.integers(0, 1 << 31),
    task=st.sampled_from(TASKS),
    renderings=st.lists(renderings, min_size=1, max_size=3).map(tuple),
    origin=st.builds(Origin, annotation=st.text(), record=st.integers(0, 1 << 32), image=st.none() | st.text()),
)


def shape_of(value: object) -> Any:  # noqa: ANN401 - a document
    """Names and types of a document, without its values."""
    if isinstance(value, dict):
        return {name: shape_of(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return type(value).__name__


def test_the_bytes_are_pinned() -> None:
    assert encode_sample(SAMPLE).decode() == PINNED


def test_a_sample_without_image_and_region_has_zeros_and_no_nulls() -> None:
    origin = replace(SAMPLE.origin, image="")
    text = replace(SAMPLE, task="LAZY", renderings=(OTHER,), origin=origin)
    sample = replace(text, image=None, image_format="", width_px=0, height_px=0)
    assert encode_sample(sample).decode() == (
        '{"boxes":[],"conversations":[{"from":"human","value":"?"},{"from":"gpt","value":"None"}],'
        '"height":0,"image_format":"",'
        '"origin":{"annotation":"注释/visj.jsonl","image":"","record":7},"region":[0.0,0.0,0.0,0.0],'
        '"task":"LAZY","width":0}'
    )


def test_integer_pixels_are_written_as_floats() -> None:
    rendering = replace(OTHER, region_xyxy_px=(1, 2, 3, 4), boxes_xyxy_px=((5, 6, 7, 8),))
    json = encode_sample(replace(SAMPLE, renderings=(rendering,)))
    assert b'"region":[1.0,2.0,3.0,4.0]' in json
    assert b'"boxes":[[5.0,6.0,7.0,8.0]]' in json


def test_a_set_of_an_older_version_lacks_fields_and_is_written_back_as_it_was() -> None:
    json = (
        PINNED.replace('"boxes":[[64.1,96.0,192.0,511.71999999999997]],', "")
        .replace('"image":"图/a.jpg",', "")
        .encode()
    )
    sample = decode_sample(SAMPLE.key, SAMPLE.image, json)
    assert sample.boxes_xyxy_px is None and sample.origin.image is None
    assert encode_sample(sample) == json


def test_further_renderings_stand_under_variants_in_order() -> None:
    third = replace(OTHER, region_xyxy_px=(1.0, 2.0, 3.0, 4.0))
    fields = orjson.loads(encode_sample(replace(SAMPLE, renderings=(*SAMPLE.renderings, OTHER, third))))
    assert fields.pop("variants") == [
        {
            "boxes": [],
            "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "None"}],
            "region": region,
        }
        for region in ([0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0])
    ]
    assert fields == orjson.loads(PINNED)


@given(sample=samples)
def test_what_is_written_is_read_back(sample: Sample) -> None:
    json = encode_sample(sample)
    assert decode_sample(sample.key, sample.image, json) == sample
    assert encode_sample(decode_sample(sample.key, sample.image, json)) == json


def test_all_samples_of_a_set_have_the_same_names_and_types(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    shapes = [shape_of(orjson.loads(encode_sample(shards[row]))) for row in range(len(shards))]
    assert {sample.task for sample in map(shards.__getitem__, range(len(shards)))} == set(TASKS)
    assert {str(shape.pop("boxes")) for shape in shapes} == {"[]", "[['float']]"}
    for shape in shapes:
        assert shape == {
            "conversations": [{"from": "str", "value": "str"}],
            "height": "int",
            "image_format": "str",
            "origin": {"annotation": "str", "image": "str", "record": "int"},
            "region": ["float"],
            "task": "str",
            "width": "int",
        }


@pytest.mark.parametrize(
    "json",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"null",
        b"7",
        PINNED.encode()[:-1],
        PINNED.replace('"height"', '"heights"').encode(),
        PINNED.replace("[64.0,96.5,192.0,192.0]", "[64.0,96.5,192.0]").encode(),
        PINNED.replace("[64.0,96.5,192.0,192.0]", "null").encode(),
        PINNED.replace("[[64.1,", "[[").encode(),
        PINNED.replace("[[64.1,96.0,192.0,511.71999999999997]]", "null").encode(),
        PINNED.replace("[[64.1,96.0,192.0,511.71999999999997]]", "[64.1,96.0,192.0,511.7]").encode(),
        PINNED.replace('{"annotation":"注释/visj.jsonl","image":"图/a.jpg","record":7}', '"7"').encode(),
        PINNED.replace('"from":"gpt"', '"role":"gpt"').encode(),
        PINNED.replace('"width":640', '"variants":[{}],"width":640').encode(),
    ],
)
def test_json_of_another_form_is_refused_with_the_key(json: bytes) -> None:
    with pytest.raises(DataError, match=r"K-000000001\.json is not a sample"):
        decode_sample("K-000000001", None, json)
