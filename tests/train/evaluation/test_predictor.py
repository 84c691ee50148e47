"""`griffon_train.Predictor`, with a model that has learned its answers."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import griffon_train
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.evaluation.predictor import Predictor

from .conftest import BOX, LEARNED, LEARNED_TEXT, drawing

pytestmark = pytest.mark.xdist_group("learned_model")  # one process makes the fixtures, which take long


@pytest.fixture(scope="module")
def predictor(learned_model: Path) -> Predictor:
    loaded = griffon_train.Predictor.from_pretrained(learned_model, device="cpu")
    assert isinstance(loaded, Predictor)
    return loaded


def test_a_task_is_answered_with_boxes_in_pixels(predictor: Predictor) -> None:
    inquiries = list(LEARNED)
    replies = predictor.ask([(drawing(), inquiry) for inquiry in inquiries])
    assert [reply.text for reply in replies] == list(LEARNED.values())
    assert all(reply.complete for reply in replies)
    boxes = {
        inquiry.task or reply.text: [(box.label, box.box_xyxy_px) for box in reply.boxes]
        for inquiry, reply in zip(inquiries, replies, strict=True)
    }
    assert boxes == {
        "VG": [("the red box", pytest.approx(BOX))],
        "DET": [("cat", pytest.approx((0, 50, 50, 100))), ("dog", pytest.approx((100, 0, 200, 50)))],
        "REG": [],
        "VISJ": [("", pytest.approx(BOX))],
        "It is red.": [],
        "None": [],
        "left box-[0.1,0.2,0.5": [],
    }
    assert [reply.unparsed for reply in replies] == [None] * 6 + ["broken_box"]
    assert all(0.3 < box.score <= 1 for reply in replies for box in reply.boxes)


def test_images_come_as_paths_images_or_arrays(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "图.png"
    drawing().save(path)
    for image in (path, str(path), drawing(), drawing().convert("RGBA"), np.asarray(drawing())):
        assert predictor(image, "What is <region>?", BOX).text == "It is red."


def test_a_list_of_questions_and_one_about_text(predictor: Predictor) -> None:
    replies = predictor(drawing(), ["Where is a zebra?", "Where?"])
    assert [reply.text for reply in replies] == ["None", "left box-[0.1,0.2,0.5"]
    ((question, answer),) = LEARNED_TEXT.items()
    assert predictor(None, question).text == answer


def test_an_answer_that_is_cut_off_says_so(predictor: Predictor) -> None:
    reply = predictor(None, "Say hello.", max_new_tokens=5)
    assert (reply.text, reply.complete) == ("Hello", False)


def test_arrays_that_are_no_images(predictor: Predictor) -> None:
    for shape, dtype in (((9, 9), "uint8"), ((3, 9, 9), "uint8"), ((9, 9, 3), "float32"), ((0, 9, 3), "uint8")):
        with pytest.raises(DataError, match=r"expected \[height, width, 3\] of uint8"):
            predictor(np.zeros(shape, dtype), "Where?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such image; a relative path starts at the working directory"),
        (b"<html>", "cannot be read as an image: an HTML page, probably from a failed download"),
        (b"\xff\xd8\xff", "cannot be read as an image: a damaged JPEG"),
    ],
)
def test_images_that_cannot_be_read(predictor: Predictor, content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"a.jpg: {message}"):
        predictor(path, "Where?")


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    load: Any = Predictor.from_pretrained
    with pytest.raises(SettingsError, match="an empty folder; expected a saved model"):
        load(tmp_path)
    with pytest.raises(SettingsError, match="no such folder"):
        load(tmp_path / "none")
    for wrong in ({"device": "tpu"}, {"dtype": "int8"}):
        with pytest.raises(SettingsError, match="expected auto"):
            load(tmp_path, **wrong)


def test_the_folder_of_a_run_is_its_model(learned_model: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "model").symlink_to(learned_model)
    assert Predictor.from_pretrained(tmp_path, device="cpu")(None, "Say hello.").text == "Hello, you."


def test_importing_the_package_imports_no_torch() -> None:
    script = "import griffon_train, sys; print('torch' in sys.modules, hasattr(griffon_train, 'Nothing'))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("False False\n", "")
