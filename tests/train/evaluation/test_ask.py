"""`griffon-train ask`, with a model that has learned its answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from griffon_shards.support.errors import DataError
from griffon_train.cli.main import main
from griffon_train.evaluation.inquiry_lines import read_inquiries
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.model.saving import save_beside

from .conftest import drawing

pytestmark = pytest.mark.xdist_group("learned_model")  # one process makes the fixtures, which take long

Ask = Callable[..., Result]
VG = ("the red box", "--task", "vg")
VG_ANSWER = "the red box-[0.100,0.200,0.500,0.600]"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "图 a.png"
    drawing().save(path)
    return path


@pytest.fixture
def ask(learned_model: Path) -> Ask:
    def run(*arguments: object, questions: str | None = None) -> Result:
        given = ["ask", str(learned_model), *map(str, arguments), "--device", "cpu"]
        return CliRunner().invoke(main, given, input=questions, catch_exceptions=False)

    return run


def test_the_answer_and_its_boxes_in_pixels(ask: Ask, image: Path) -> None:
    said = ask(image, *VG)
    answer, head, box = said.stdout.splitlines()
    assert answer == VG_ANSWER
    assert head.split() == ["label", "x1", "y1", "x2", "y2", "score"]
    *row, score = box.split()
    assert row == ["the", "red", "box", "20.0", "20.0", "100.0", "60.0"]
    assert 0.3 < float(score) <= 1


@pytest.mark.parametrize(
    ("arguments", "answer", "boxes"),
    [
        (VG, VG_ANSWER, [["the red box", [20, 20, 100, 60]]]),
        (
            ("--task", "DET", "--categories", "cat, dog"),
            "cat-[0.000,0.500,0.250,1.000]&dog-[0.500,0.000,1.000,0.500]",
            [["cat", [0, 50, 50, 100]], ["dog", [100, 0, 200, 50]]],
        ),
        (("--task", "reg", "--box", "20,20,100,60"), "a red box", []),
        (("--task", "visj", "--region", "20, 20, 100, 60"), "[0.100,0.200,0.500,0.600]", [["", [20, 20, 100, 60]]]),
        (("What is <region>?", "--region", "20,20,100,60"), "It is red.", []),
        (("Where is a zebra?",), "None", []),
    ],
)
def test_every_way_to_ask_as_json(ask: Ask, image: Path, arguments: tuple[str], answer: str, boxes: object) -> None:
    fields = json.loads(ask(image, *arguments, "--json").stdout)
    assert fields["answer"] == answer
    assert [[box["label"], box["box"]] for box in fields["boxes"]] == boxes
    assert (fields["image"], fields["complete"], fields["unparsed"]) == (str(image), True, None)


def changed_pixels(path: Path) -> npt.NDArray[np.bool_]:
    """Where a drawing differs from the image; shape [height, width]."""
    before, after = (np.asarray(one.convert("RGB")).astype(int) for one in (drawing(), Image.open(path)))
    return np.asarray(np.any(before != after, axis=2))


def has_box(path: Path, x1: int, y1: int, x2: int, y2: int) -> bool:
    """Whether the four edges of a box are drawn, and nothing within. A label stands outside."""
    changed = changed_pixels(path)
    rows, columns = changed[[y1, y2], x1 : x2 + 1], changed[y1 : y2 + 1, [x1, x2]]
    return bool(rows.all() and columns.all() and not changed[y1 + 2 : y2 - 1, x1 + 2 : x2 - 1].any())


@pytest.mark.parametrize(
    "arguments",
    [VG, ("--task", "visj", "--region", "20,20,100,60"), ("--task", "reg", "--box", "20,20,100,60")],
)
def test_the_drawing_has_the_box_where_it_was_answered(
    ask: Ask, image: Path, arguments: tuple[str], tmp_path: Path
) -> None:
    said = ask(image, *arguments, "--draw", tmp_path / "out.png")
    assert f"wrote {tmp_path / 'out.png'}" in said.stderr
    assert has_box(tmp_path / "out.png", 20, 20, 100, 60)


def test_an_answer_without_boxes_leaves_the_drawing_as_the_image(ask: Ask, image: Path, tmp_path: Path) -> None:
    assert ask(image, "Where is a zebra?", "--draw", tmp_path / "out.jpg").exit_code == 0
    ask(image, "Where is a zebra?", "--draw", tmp_path / "out.png")
    assert not changed_pixels(tmp_path / "out.png").any()


QUESTIONS = """
{"question": "Say hello.", "image": null, "id": {"n": 7}}
{"task": "vg", "question": "the red box"}

{"task": "visj", "region": [20, 20, 100, 60], "id": "b"}
{"task": "det", "categories": ["cat", "dog"]}
{"task": "det", "categories": "cat,dog"}
"""


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("source", ["file", "standard input"])
def test_questions_as_json_lines(ask: Ask, image: Path, tmp_path: Path, source: str, batch: int) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(QUESTIONS)
    given = {"file": (file, None), "standard input": ("-", QUESTIONS)}[source]
    drawings = tmp_path / "drawn" / "here"
    said = ask(image, "--questions", given[0], "--json", "--batch", batch, "--draw", drawings, questions=given[1])
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    det = "cat-[0.000,0.500,0.250,1.000]&dog-[0.500,0.000,1.000,0.500]"
    assert [line["answer"] for line in lines] == ["Hello, you.", VG_ANSWER, "[0.100,0.200,0.500,0.600]", det, det]
    assert [line.get("id") for line in lines] == [{"n": 7}, None, "b", None, None]
    assert [line["image"] for line in lines] == [None, *[str(image)] * 4]
    assert sorted(path.name for path in drawings.iterdir()) == ["3.png", "5.png", "6.png", "7.png"]
    assert has_box(drawings / "3.png", 20, 20, 100, 60)


@pytest.mark.parametrize("given_id", ["123456789012345678901234567890", "1e999", '{"a": [1.0, "\\u00e9", "é"]}', '""'])
def test_an_id_is_repeated_as_it_is(ask: Ask, given_id: str) -> None:
    said = ask("--questions", "-", "--json", questions=f'{{"question": "Say hello.", "image": null, "id": {given_id}}}')
    assert said.stdout.startswith(f'{{"id":{given_id},"image":null,')


def test_a_region_for_a_model_without_a_region_tower_is_refused(image: Path, tmp_path: Path) -> None:
    model: Any = GriffonForConditionalGeneration(preset_config("tiny-qwen2", region=False))
    model.save_pretrained(tmp_path / "model")
    save_beside(tmp_path / "model", model.config, model.generation_config, "qwen2", byte_tokenizer())
    given = ["ask", str(tmp_path / "model"), str(image), "--task", "visj", "--region", "20,20,100,60"]
    said = CliRunner().invoke(main, given, catch_exceptions=False)
    assert said.exit_code == 2
    assert "a region, but the model has no region tower; use one trained for visual referring" in said.stderr


def test_answers_to_several_questions_are_told_apart(ask: Ask, image: Path) -> None:
    said = ask(image, "--questions", "-", questions=QUESTIONS)
    assert said.stdout.startswith(f"text: Say hello.\nHello, you.\n\n{image}: ")
    assert said.stdout.count(f"\n\n{image}: ") == 4
    assert "<image>" not in said.stdout


def test_what_the_reader_should_know_goes_to_standard_error(ask: Ask, image: Path) -> None:
    said = ask(image, *VG, "--max-new-tokens", 20)
    assert said.stdout == f"{VG_ANSWER[:20]}\n"
    assert "the answer was cut off; raise --max-new-tokens" in said.stderr
    assert "no boxes could be read from the answer: broken_box" in ask(image, "Where?").stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ((), 2, "give an IMAGE and a QUESTION, or --questions FILE"),
        (("IMAGE",), 2, "no question; give one, or a task"),
        (("none.jpg", "Where?"), 1, "none.jpg: no such image"),
        ((".", "Where?"), 1, ".: a folder; give an image in it"),
        (("", "Where?"), 1, "the path of an image is empty; give one"),
        ((__file__, "Where?"), 1, "cannot be read as an image: not an image, or one of an unsupported format"),
        (("IMAGE", "--task", "det"), 2, "task DET needs categories"),
        (("IMAGE", "it", "--task", "vg", "--box", "1,2,3,4"), 2, "task VG does not take a box"),
        (("IMAGE", "--task", "reg", "--box", "1,2,3"), 2, "'1,2,3': expected x1,y1,x2,y2 in pixels"),
        (("IMAGE", "it", "--task", "lazy"), 2, "'lazy' is not one of"),
        (("IMAGE", "Where?", "--draw", "out.xyz"), 2, "--draw out.xyz: images with the extension '.xyz' cannot be"),
        (("IMAGE", "Where?", "--draw", "out.psd"), 2, "--draw out.psd: images with the extension '.psd' cannot be"),
        (("IMAGE", "Where?", "--draw", "none/out.png"), 2, "--draw none/out.png: there is no folder none; make it"),
        (("IMAGE", " "), 2, "no question; give one, or a task"),
        (("IMAGE", " ", "--task", "vg"), 2, "task VG needs a question"),
        (("IMAGE", "Where?", "--questions", "-"), 2, "--questions has the questions; leave out QUESTION"),
        (("IMAGE", "--questions", "none.jsonl"), 2, "File 'none.jsonl' does not exist"),
        (("IMAGE", "Where?", "--templates", "none"), 2, "none/nvn.json: cannot be read"),
        (("IMAGE", "Where?", "--from", "last"), 2, "is a saved model, not the output folder of a run"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_remedy(
    ask: Ask, image: Path, arguments: tuple[str], exit_code: int, message: str
) -> None:
    said = ask(*(image if argument == "IMAGE" else argument for argument in arguments))
    assert message in said.stderr
    assert said.exit_code == exit_code
    assert said.stdout == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Input data was truncated; expected a JSON object with id, image, question, task, categories"),
        ('{"quest": "it"}', "line 2: Object contains unknown field `quest`"),
        ('{"question": 5}', "line 2: Expected `str | null`, got `int` - at `$.question`"),
        ('{"box": [1, 2, 3], "task": "reg"}', "line 2: Expected `array` of length 4"),
        ('{"task": "reg"}', "line 2: task REG needs a box"),
        ('{"question": "What is <region>?", "region": [1, 2, 3, 4], "image": null}', "line 2: the question 'What is"),
        ('{"question": "it", "image": "none.png"}', "line 2: none.png: no such image"),
        ('{"question": "it", "image": ""}', "line 2: the path of an image is empty; give one, or null"),
        (f'{{"id": {"[" * 9999 + "]" * 9999}}}', "line 2: maximum recursion depth exceeded"),
    ],
)
def test_a_line_that_cannot_be_asked_is_named(ask: Ask, image: Path, line: str, message: str) -> None:
    said = ask(image, "--questions", "-", "--json", questions=f'{{"question": "Where is a zebra?"}}\n{line}\n')
    assert message in said.stderr
    assert said.exit_code == 1
    assert [json.loads(answered)["answer"] for answered in said.stdout.splitlines()] == ["None"]


def test_a_byte_order_mark_is_skipped() -> None:
    (line,) = read_inquiries([b'\xef\xbb\xbf{"question": "Where?"}\r\n'], "q.jsonl", None)
    assert line.inquiry.question == "Where?"


def test_a_line_that_is_not_utf_8_is_named() -> None:
    lines = [b"\n", b'{"question": "\xff"}\n']
    with pytest.raises(DataError, match=r"q.jsonl, line 2: 'utf-8' codec can't decode"):
        list(read_inquiries(lines, "q.jsonl", None))


def test_a_folder_that_is_no_model(image: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, message in (("empty", "an empty folder"), ("none", "no such folder")):
        said = CliRunner().invoke(main, ["ask", str(tmp_path / folder), str(image), "Where?"])
        assert said.exit_code == 2
        assert message in said.stderr
