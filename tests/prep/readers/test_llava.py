"""The `llava` format as it is met in the wild, and what cannot become a conversation."""

import json
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record
from griffon_shards.types import Turn

from .reading import read_all, read_file

ASK = {"from": "human", "value": "<image>\nWhat is it?"}
ANSWER = {"from": "gpt", "value": 'A 猫 & a \\ "dog"'}
PLAIN = {"from": "human", "value": "What is 6 * 7?"}


def conversation(*turns: Any, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"id": "1", "conversations": list(turns), **fields}


def one(folder: Path, line: dict[str, Any]) -> Record | tuple[str, str]:
    (result,) = read_all(folder, "LAZY", [line])
    return result


def test_a_conversation_with_an_image(tmp_path: Path) -> None:
    assert one(tmp_path, conversation(ASK, ANSWER, image="coco/文件 1.jpg")) == Record(
        record_no=0,
        image_path="coco/文件 1.jpg",
        turns=(Turn(role="human", text="<image>\nWhat is it?"), Turn(role="gpt", text='A 猫 & a \\ "dog"')),
    )


@pytest.mark.parametrize("fields", [{}, {"image": None}, {"image": ""}, {"image": []}])
def test_a_conversation_without_an_image(tmp_path: Path, fields: dict[str, Any]) -> None:
    record = one(tmp_path, conversation(PLAIN, ANSWER, **fields))
    assert isinstance(record, Record)
    assert (record.image_path, record.width_px, record.height_px) == (None, 0, 0)


def test_a_list_of_one_image_is_an_image(tmp_path: Path) -> None:
    record = one(tmp_path, conversation(ASK, ANSWER, image=["a.jpg"]))
    assert isinstance(record, Record)
    assert record.image_path == "a.jpg"


@pytest.mark.parametrize(
    ("asks", "answers"), [("human", "gpt"), ("user", "assistant"), ("user", "model"), ("human", "assistant")]
)
def test_roles(tmp_path: Path, asks: str, answers: str) -> None:
    turns = [{**PLAIN, "from": asks}, {**ANSWER, "from": answers}] * 2
    record = one(tmp_path, conversation({"from": "system", "value": "Be kind. <image>"}, *turns))
    assert isinstance(record, Record)
    assert [turn.role for turn in record.turns] == ["human", "gpt", "human", "gpt"]


@pytest.mark.parametrize(("value", "text"), [(42, "42"), (2.5, "2.5"), (" x ", " x ")])
def test_values(tmp_path: Path, value: object, text: str) -> None:
    record = one(tmp_path, conversation(PLAIN, {"from": "gpt", "value": value}))
    assert isinstance(record, Record)
    assert record.turns[1].text == text


@pytest.mark.parametrize("question", ["", " ", "<image>", "<image>\n"])
def test_a_question_may_be_the_image_alone(tmp_path: Path, question: str) -> None:
    record = one(tmp_path, conversation({"from": "human", "value": question}, ANSWER, image="a.jpg"))
    assert isinstance(record, Record)
    assert record.turns[0].text == question


def test_an_answer_may_mention_the_token(tmp_path: Path) -> None:
    answer = {"from": "gpt", "value": "Write <image> where it goes, and <image> again."}
    record = one(tmp_path, conversation(PLAIN, answer))
    assert isinstance(record, Record)
    assert record.turns[1].text == answer["value"]


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        (conversation(), "no_turns", "0 turn(s)"),
        (conversation(PLAIN), "no_turns", "1 turn(s) has no question with an answer"),
        (conversation(ANSWER), "no_turns", "1 turn(s) has no question with an answer"),
        (conversation(ANSWER, PLAIN), "no_turns", "of 2 turn(s) has no question with an answer"),
        (conversation({"from": "system", "value": "x"}), "no_turns", "0 turn(s)"),
        *(
            (conversation(PLAIN, {"from": role, "value": blank}), "no_turns", "turn 2: the answer is blank")
            for role in ("gpt", "assistant", "model")
            for blank in ("", " ", "\n\t", "\u200b\ufeff")
        ),
        (conversation(PLAIN, ANSWER, PLAIN, {**ANSWER, "value": " "}), "no_turns", "turn 4: the answer is blank"),
        (conversation(ASK, ASK, ANSWER, image="a.jpg"), "several_pictures", "2 <image>, expected one"),
        (
            conversation({"from": "human", "value": "<image> or <image>?"}, ANSWER, image="a.jpg"),
            "several_pictures",
            "2 <image>",
        ),
        (conversation(ASK, ANSWER, image=["a.jpg", "b.jpg"]), "several_pictures", "a list of 2"),
        (conversation(ASK, ANSWER), "image_token_without_picture", "the text has <image>, but the record has no image"),
        (conversation(ASK, ANSWER, image=7), "bad_record", "image: expected a path, got 7"),
        (
            conversation(ASK, ANSWER, image=[None]),
            "image_token_without_picture",
            "no image",
        ),
        (conversation({"from": "nobody", "value": "x"}, ANSWER), "bad_record", "or system, got 'nobody'"),
        (conversation({"from": ["human"], "value": "x"}, ANSWER), "bad_record", "from: expected human, user"),
        (conversation({"value": "x"}, ANSWER), "bad_record", "system, got None; the turn has the keys 'value'"),
        (
            conversation({"role": "user", "content": "x"}, ANSWER),
            "bad_record",
            "has the keys 'role', 'content'",
        ),
        (conversation("What?", ANSWER), "bad_record", "from: expected"),
        (conversation({"from": "human", "value": None}, ANSWER), "bad_record", "value: expected text, got None"),
        (conversation({"from": "human", "value": True}, ANSWER), "bad_record", "value: expected text, got True"),
        (conversation({"from": "human"}, ANSWER), "bad_record", "value: expected text, got None"),
        ({"conversations": {"from": "human"}}, "bad_record", "conversations: expected a list"),
        ({"conversations": None}, "bad_record", "conversations: expected a list, got None"),
    ],
)
def test_what_cannot_become_a_conversation(tmp_path: Path, line: dict[str, Any], reason: str, message: str) -> None:
    actual = one(tmp_path, line)
    assert isinstance(actual, tuple)
    assert actual[0] == reason
    assert message in actual[1]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_reads_as_lines_do(tmp_path: Path, indent: int | None) -> None:
    lines = [conversation({**PLAIN, "value": f'{i} \\" ]}}'}, ANSWER, image=f"{i}.jpg") for i in range(99)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(lines, indent=indent), encoding="utf-8-sig")
    outcomes, vocabulary = read_file(path, "LAZY")
    assert vocabulary == ()
    assert [(item.record_no, item.image_path, item.turns[0].text) for item in outcomes if isinstance(item, Record)] == [
        (i, f"{i}.jpg", f'{i} \\" ]}}') for i in range(99)
    ]
