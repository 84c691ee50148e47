"""LAZY: the record's own conversation, `<image>` at the start of the turn that holds it, and nothing else changed."""

from dataclasses import replace

import pytest

from griffon_prep.records import BOX_MARK, Rejected
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.types import Turn

from ..rendering import OURS, record_of, rendered


def human(text: str) -> Turn:
    return Turn(role="human", text=text)


def gpt(text: str) -> Turn:
    return Turn(role="gpt", text=text)


def turns_of(*turns: Turn, image_path: str | None = "a.jpg") -> tuple[Turn, ...]:
    (rendering,) = rendered("LAZY", record_of(turns=turns, image_path=image_path, sides_px=(0, 0)))
    assert rendering.region_xyxy_px is None
    return rendering.turns


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("<image>\nWhat is it?", "<image>\nWhat is it?"),
        ("<image>What is it?", "<image>\nWhat is it?"),
        ("What is it?\n<image>", "<image>\nWhat is it?"),
        ("What is in <image> here?", "<image>\nWhat is in  here?"),
        ("  What?\r\n<image>\n\n", "<image>\nWhat?"),
        ("<image>", "<image>\n"),
        ("What is it?", "<image>\nWhat is it?"),
        ("一二<image>三\n四", "<image>\n一二三\n四"),
    ],
)
def test_the_token_moves_to_the_start_of_its_turn(question: str, expected: str) -> None:
    assert turns_of(human(question), gpt("A cat.")) == (human(expected), gpt("A cat."))


def test_the_token_stays_in_the_turn_that_holds_it() -> None:
    before = (
        human("Hello"),
        gpt(" Hello!\n"),
        human(" Now this:  <image>"),
        gpt("A cat."),
        human("Sure? "),
        gpt("Yes"),
    )
    assert turns_of(*before) == (*before[:2], human("<image>\nNow this:"), *before[3:])


def test_an_image_that_no_turn_mentions_belongs_to_the_first_question() -> None:
    assert turns_of(gpt("Hi"), human("What?"), gpt("A cat."), human("More?"), gpt("No")) == (
        gpt("Hi"),
        human("<image>\nWhat?"),
        gpt("A cat."),
        human("More?"),
        gpt("No"),
    )


def test_the_token_in_an_answer_is_text() -> None:
    turns = (human("<image>\nHow do I ask?"), gpt("Write <image> in front. "), human("Thanks"), gpt("<image>"))
    assert turns_of(*turns) == turns


def test_a_text_alone_is_left_as_it_is() -> None:
    turns = (human("  6 * 7?\n"), gpt(" 42 "), gpt("<image>"))
    assert turns_of(*turns, image_path=None) == turns


def test_variants_are_the_same_conversation() -> None:
    record = record_of(turns=[human("What?"), gpt("A cat.")])
    first, *others = rendered("LAZY", record, variants=3)
    assert others == [first, first]


def test_boxes_in_the_text_that_are_no_pixels_reject_the_record() -> None:
    """They would become dots in the upper left corner."""
    record = record_of(turns=(human("Where?"), gpt(BOX_MARK)), image_path="a.jpg", sides_px=(640, 480))
    with pytest.raises(Rejected, match="in an image of 640x480 pixels") as caught:
        rendered("LAZY", replace(record, boxes_in_text=((0.1, 0.1, 0.5, 0.9),)))
    assert caught.value.reason == "boxes_not_in_pixels"
    (rendering,) = rendered("LAZY", replace(record, boxes_in_text=((64.0, 48.0, 320.0, 432.0),)))
    assert rendering.turns[1].text == "[0.100,0.100,0.500,0.900]"


def test_an_equal_box_of_a_phrase_is_written_once() -> None:
    """Equal after rounding, in one row of boxes: elsewhere the text speaks of the box again."""
    box, moved, other = (64.0, 48.0, 320.0, 432.0), (64.0, 48.1, 320.0, 432.0), (0.0, 0.0, 64.0, 48.0)
    once, wide = "[0.100,0.100,0.500,0.900]", "[0.000,0.000,0.100,0.100]"
    cases = (
        ("猫-{0}&猫-{0}&狗-{0}&猫-{0}", (box, box, box, moved), f"猫-{once}&狗-{once}"),
        ("I see a cat-{0}&cat-{0}&cat-{0} there", (box, other, box), f"I see a cat-{once}&cat-{wide} there"),
        ("{0}&{0}", (box, box), once),
        ("bobcat-{0}&cat-{0}", (box, box), f"bobcat-{once}&cat-{once}"),
        ("A cat-{0}. The cat-{0} sleeps.", (box, box), f"A cat-{once}. The cat-{once} sleeps."),
    )
    for text, boxes, answer in cases:
        turns = (human("Where?"), gpt(text.format(BOX_MARK)))
        record = record_of(turns=turns, image_path="a.jpg", sides_px=(640, 480))
        settings = RenderSettings(seed=0, boxes="text", det_categories=80, variants=1, templates=OURS)
        source = Source(tag="LAZY_test", task="LAZY", vocabulary=())
        renderings, dropped = render(replace(record, boxes_in_text=boxes), source, settings)
        assert renderings[0].turns[1].text == answer
        assert dropped.total() == dropped["duplicate"] == text.count("{0}") - answer.count("[")
