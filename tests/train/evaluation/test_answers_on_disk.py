"""The files of an evaluation that was stopped, or that chooses other samples than before."""

from pathlib import Path

import orjson
import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.evaluation.answers_on_disk import AnswerFile, claim, finish, read_answers
from griffon_train.evaluation.predictions import Prediction, encode_prediction, place

from .made_up import predicted

IDENTITY = {"weights_sha256": "0", "sets": ["1"]}


def answered(key: str) -> Prediction:
    return predicted("VG", "it-[0.100,0.100,0.500,0.500]", "None", key=key)


def test_an_evaluation_that_was_killed_before_it_named_itself_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / ".tmp-0123-evaluation.json").write_bytes(b'{"weights')
    claim(tmp_path, IDENTITY).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.json", "lock"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SettingsError, match="holds no evaluation"):
        claim(tmp_path, IDENTITY)


@pytest.mark.parametrize("stored", [b"", b"[1]", b"\xff", orjson.dumps({**IDENTITY, "weights_sha256": "1"})])
def test_a_damaged_or_another_evaluation_is_refused(stored: bytes, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_bytes(stored)
    with pytest.raises(SettingsError, match="holds another evaluation"):
        claim(tmp_path, IDENTITY)


def test_answers_to_questions_that_are_not_chosen_now_are_kept(tmp_path: Path) -> None:
    first, second = answered("a"), answered("b")
    file = AnswerFile(tmp_path, 0)
    file.append([first, second])
    file.close()
    finish(tmp_path, [encode_prediction(first, {})], b"{}", [second])
    assert (tmp_path / "predictions.jsonl").read_bytes() == encode_prediction(first, {})
    assert read_answers(tmp_path) == {place(first): first, place(second): second}
    finish(tmp_path, [encode_prediction(each, {}) for each in (first, second)], b"{}", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.jsonl"]
    assert read_answers(tmp_path) == {place(first): first, place(second): second}


def test_an_answer_in_which_a_bit_flipped_is_asked_again(tmp_path: Path) -> None:
    first, second = answered("a"), answered("b")
    file = AnswerFile(tmp_path, 0)
    file.append([first, second])
    file.close()
    (path,) = tmp_path.glob("answers-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b'"answer":"None"', b'"answer":"Nond"', 1))
    assert read_answers(tmp_path) == {place(second): second}
