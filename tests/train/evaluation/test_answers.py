"""Answers are read strictly, then leniently; what fails to parse has no boxes."""

import random
from math import log, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffon_shards.grammar import ANSWERED_WITH_BOXES, LABELLED_TASKS, format_answer, round_box
from griffon_shards.support.errors import DataError
from griffon_shards.types import BOX_STYLES, BoxXYXY
from griffon_train.evaluation.answers import UNPARSED_REASONS, box_scores, parse, truth_boxes
from griffon_train.evaluation.judging import judged

from .made_up import predicted

BOX = (0.1, 0.2, 0.3, 0.4)
LENIENT = {
    "spaces": " cat - [ 0.100, 0.200 , 0.300,0.400 ]\n",
    "round brackets": "cat-(0.100,0.200,0.300,0.400)",
    "doubled brackets": "cat-[[0.100,0.200,0.300,0.400]]",
    "corners in pairs": "cat-[(0.100,0.200),(0.300,0.400)]",
    "two pairs of brackets": "cat: (0.1, 0.2), (0.3, 0.4)",
    "blanks for commas": "cat-[0.100 0.200 0.300 0.400]",
    "semicolons": "cat-[0.100;0.200;0.300;0.400]",
    "fewer decimals": "cat-[.1,0.2,0.3,0.40]",
    "more decimals": "cat-[0.10000,0.20000,0.30000,0.40000]",
    "no hyphen": "cat[0.100,0.200,0.300,0.400]",
    "full stop": "cat-[0.100,0.200,0.300,0.400].",
    "separator at the end": "cat-[0.100,0.200,0.300,0.400]&",
    "text after the box": "cat-[0.100,0.200,0.300,0.400] is what I see",
    "bins in upper case": "cat-<BIN_100><BIN_200><BIN_300><BIN_400>",
    "bins with spaces": "cat-< bin_100> <bin 200>, <bin_300>,<bin_400>",
    "bins in brackets": "cat-[<bin_100><bin_200><bin_300><bin_400>]",
}
UNPARSED = {
    "": "empty",
    " \n": "empty",
    "I cannot see it.": "no_box",
    "cat": "no_box",
    "nonesuch": "no_box",
    "0.1 0.2 0.3 0.4": "no_box",
    "cat-[0.100,0.200,0.300]": "broken_box",
    "cat-[0.100,0.200,0.300,0.400,0.500]": "broken_box",
    "cat-[0.100,0.200,0.300,0.400": "broken_box",
    "cat-[0.100,0.200,0.300]&dog-[0.100,0.200,0.300,0.400]": "broken_box",
    "dog-[0.100,0.200,0.300,0.400]&cat-[0.100,": "broken_box",
    "cat-<bin_1><bin_2><bin_3>": "broken_box",
    "cat-[12,34,200,300]": "coordinate_outside",
    "cat-[0.100,0.200,0.300,1.400]": "coordinate_outside",
    "cat-[-0.100,0.200,0.300,0.400]": "coordinate_outside",
    "cat-<bin_1><bin_2><bin_3><bin_1001>": "coordinate_outside",
}
fractions = st.integers(0, 1000).map(lambda number: number / 1000)
boxes = st.tuples(fractions, fractions, fractions, fractions)
labels = st.text("ab é2-&,.'", min_size=1, max_size=8).filter(str.strip)


@pytest.mark.parametrize("answer", LENIENT.values(), ids=LENIENT)
def test_nearly_right_answers_are_read_leniently(answer: str) -> None:
    parsed = parse(answer, "DET", complete=True)
    assert (parsed.strict, parsed.unparsed) == (False, None)
    assert [(box.label, box.box_xyxy) for box in parsed.boxes] == [("cat", BOX)]


def test_labels_are_read_where_the_task_has_them() -> None:
    two = "the cat: [0.1,0.2,0.3,0.4]\n- dog [0.5,0.6,0.7,0.8]"
    assert [box.label for box in parse(two, "RANDDET", complete=True).boxes] == ["the cat", "dog"]
    assert [box.label for box in parse(two, "VISJ", complete=True).boxes] == ["", ""]
    assert [box.label for box in parse("[0.100,0.200,0.300,0.400]", "VG", complete=True).boxes] == [""]


@pytest.mark.parametrize("answer", ["None", "none", "None.", " NONE\n", '"None"'])
@pytest.mark.parametrize("task", ANSWERED_WITH_BOXES)
def test_none_is_an_answer_without_boxes(answer: str, task: str) -> None:
    parsed = parse(answer, task, complete=True)
    assert (parsed.boxes, parsed.strict, parsed.unparsed) == ((), answer == "None", None)


@pytest.mark.parametrize("task", ANSWERED_WITH_BOXES)
@pytest.mark.parametrize("answer", UNPARSED)
def test_other_answers_are_unparsed(answer: str, task: str) -> None:
    parsed = parse(answer, task, complete=True)
    assert (parsed.unparsed, parsed.boxes, parsed.strict) == (UNPARSED[answer], (), False)
    assert parsed.unparsed in UNPARSED_REASONS


def test_of_an_answer_that_was_cut_off_the_complete_boxes_count() -> None:
    whole = "cat-[0.100,0.200,0.300,0.400]"
    for tail in ("", "&", "&do", "&dog-", "&dog-[0.1", "&dog-[0.100,0.200,0.300,0.40"):
        parsed = parse(whole + tail, "DET", complete=False)
        assert [(box.label, box.box_xyxy) for box in parsed.boxes] == [("cat", BOX)], tail
    for short in ("", "ca", "cat-", "cat-[0.100,0.2"):
        assert parse(short, "DET", complete=False).unparsed == "cut_off"


def test_a_broken_box_is_not_swallowed_by_the_label_of_the_next() -> None:
    assert parse("cat-[0.1,0.2]&dog-[0.100,0.200,0.300,0.400]", "VG", complete=True).unparsed == "broken_box"


@pytest.mark.parametrize("label", ["a can (0.5 l)", "sign [2, 3]", "a key <bin"])
def test_a_label_of_the_question_is_no_broken_box(label: str) -> None:
    answer = f"{label}-[0.100,0.200,0.300,0.400]&{label}-[0.500,0.600,0.700,0.800]"
    prediction = predicted("VG", answer, answer, question=f"Where is {label}?")
    assert judged(prediction, "gt")["right"] is True
    swallowed = predicted("VG", answer, f"{label}-[0.5&{answer}", question=f"Where is {label}?", scores=[])
    assert judged(swallowed, "gt")["unparsed"] == "broken_box"
    run_together = "cat-[0.100,0.200,0.300,0.400]dog-[0.500,0.600,0.700,0.800]"
    parsed = parse(run_together, "DET", complete=True)
    assert not parsed.strict and [box.label for box in parsed.boxes] == ["cat", "dog"]


@pytest.mark.parametrize(
    "before", ["None&", "dog-[nan,0.1,0.2,0.3]&", "dog-[10%,1%,2%,3%]&", "dog-[x1,y1,x2,y2]&", "a dog & None & "]
)
def test_an_answer_that_contradicts_itself_is_never_right(before: str) -> None:
    box = "[0.100,0.200,0.300,0.400]"
    prediction = predicted("VG", f"cat-{box}", f"{before}cat-{box}", question="Where is cat?", scores=[])
    judgement = judged(prediction, "gt")
    assert (judgement["unparsed"], judgement["right"]) == ("broken_box", False)


@given(
    st.lists(st.tuples(labels, boxes), max_size=4), st.sampled_from(BOX_STYLES), st.sampled_from(ANSWERED_WITH_BOXES)
)
def test_a_rendered_answer_is_read_as_it_was_meant(items: list[tuple[str, BoxXYXY]], style: str, task: str) -> None:
    if task not in LABELLED_TASKS:
        items = [("", box) for _, box in items]
    answer = format_answer(items, style)
    parsed = parse(answer, task, complete=True)
    assert parsed.strict and [(box.label, box.box_xyxy) for box in parsed.boxes] == items
    written = [format_answer([item], style) for item in items]
    assert [answer[box.start : box.end] for box in parsed.boxes] == written
    assert truth_boxes(answer, task) == items


@given(
    st.text(max_size=60) | st.text("[](){}<>0.1,;&-bin_ \n", max_size=60),
    st.sampled_from(ANSWERED_WITH_BOXES),
    st.booleans(),
)
def test_any_text_is_parsed_or_has_a_reason(answer: str, task: str, complete: bool) -> None:
    parsed = parse(answer, task, complete=complete)
    assert parsed.unparsed is None or (parsed.unparsed in UNPARSED_REASONS and not parsed.boxes)
    if parsed.unparsed is None and not parsed.boxes:
        assert "none" in answer.casefold()


def test_a_truth_that_is_not_of_the_grammar_is_refused() -> None:
    with pytest.raises(DataError, match="a VG question is not of the answer grammar: 'cat'"):
        truth_boxes("cat", "VG")


def test_a_score_is_the_root_of_the_probability_of_the_tokens_that_write_the_box() -> None:
    tokens = {"a ": 0.9, "cat": 0.8, "-[": 0.7, "0.100,0.2": 0.6, "00,0.300,0.400]": 0.5, "&": 0.4, "dog": 0.3}
    last = {"-": 0.2, "[0.500,0.600,0.700,0.800]": 0.1, "": 0.05}
    probabilities = [*tokens.values(), *last.values()]
    answer, ends = "", []
    for token in (*tokens, *last):
        answer += token
        ends.append(len(answer))
    parsed = parse(answer, "DET", complete=True)
    assert parsed.strict and len(parsed.boxes) == 2
    scores = box_scores(parsed, ends, [log(probability) for probability in probabilities])
    assert scores == pytest.approx([prod(probabilities[:5]) ** 0.5, prod(probabilities[6:9]) ** 0.5])


def test_bytes_of_one_character_are_parts_of_its_box() -> None:
    answer = "é-<bin_1><bin_2><bin_3><bin_4>"  # the first token is a byte, after which there is no character yet
    scores = box_scores(parse(answer, "DET", complete=True), (0, 1, len(answer)), (log(0.5), log(0.5), 0.0))
    assert scores == pytest.approx((0.5,))
    assert box_scores(parse("", "DET", complete=True), (), ()) == ()


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("task", ANSWERED_WITH_BOXES)
def test_damaged_answers_never_raise_and_are_never_right_when_unparsed(task: str, style: str) -> None:
    draws = random.Random(f"{task} {style}")
    labelled = task in LABELLED_TASKS
    items = [("cat" if labelled else "", round_box((1, 2, 30, 40), 64, 64)), ("dog" if labelled else "", BOX)]
    truth = format_answer(items, style)
    unparsed = 0
    for _ in range(400):
        answer = truth
        for _ in range(draws.randint(1, 4)):
            at = draws.randint(0, len(answer))
            inserted = draws.choice(["", *"[](){}<>,.;:&- 019eN\n\0é", "bin_", "<bin_", "None", "&&", answer])
            answer = answer[:at] + inserted + answer[at + draws.randint(0, 3) :]
        for complete in (True, False):
            parsed = parse(answer, task, complete=complete)
            assert all(0 <= value <= 1 for box in parsed.boxes for value in box.box_xyxy)
            assert all(0 <= box.start < box.end <= len(answer) for box in parsed.boxes)
            if parsed.unparsed is not None:
                unparsed += 1
                assert not parsed.boxes and not parsed.strict
                for true in (truth, "None"):
                    prediction = predicted(task, true, answer, complete=complete)
                    assert judged(prediction, "ge")["right"] is False, answer
    assert unparsed > 50
