"""Scores of REG."""

from collections import Counter
from math import exp, log, sqrt

import pytest

from griffon_train.evaluation.captioning import captioning_scores, cider, words

from .made_up import predicted

REFERENCES = ["the red cup", "a dog's tail", "the red cup on the left table", "man", "a red dog"]
SEVERAL = [
    ["the red cup", "cup on the left"],
    ["a dog's tail"],
    ["the red cup", "a cup", "left"],
    ["man"],
    ["a red dog"],
]


def alone(references: list[str]) -> list[list[str]]:
    return [[reference] for reference in references]


def cider_by_hand(answers: list[str], references: list[list[str]]) -> float:
    """CIDEr-D: Vedantam et al., 2015, with clipping and the penalty of lengths; the mean over references."""

    def vector(text: str, n: int) -> dict[tuple[str, ...], float]:
        tokens = text.split()
        grams = Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
        documents = {
            gram: sum(any(gram in ngrams(text, n) for text in of_answer) for of_answer in references) for gram in grams
        }
        return {gram: count * log(len(references) / max(1, documents[gram])) for gram, count in grams.items()}

    def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
        tokens = text.split()
        return {tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)}

    total = 0.0
    for answer, of_answer in zip(answers, references, strict=True):
        for reference in of_answer:
            for n in range(1, 5):
                ours, theirs = vector(answer, n), vector(reference, n)
                norms = [sqrt(sum(value**2 for value in side.values())) for side in (ours, theirs)]
                dot = sum(min(value, theirs.get(gram, 0.0)) * theirs.get(gram, 0.0) for gram, value in ours.items())
                pairs = [max(0, len(text.split()) - 1) for text in (answer, reference)]
                penalty = exp(-((pairs[0] - pairs[1]) ** 2) / (2 * 6.0**2))
                total += 10 / 4 * penalty * (dot / (norms[0] * norms[1]) if all(norms) else 0.0) / len(of_answer)
    return total / len(answers)


@pytest.mark.parametrize(
    "answers",
    [
        REFERENCES,
        ["the red cup", "a cat's tail", "red cup left", "the man", "a red dog and a red dog"],
        ["", "a", "b", "c", "d"],
        REFERENCES[::-1],
    ],
    ids=["perfect", "near", "empty and other", "swapped"],
)
def test_cider_is_that_of_its_definition(answers: list[str]) -> None:
    for references in (alone(REFERENCES), SEVERAL):
        assert cider(answers, references) == pytest.approx(cider_by_hand(answers, references), abs=1e-12)


def test_case_and_punctuation_do_not_count_for_cider() -> None:
    references = alone(REFERENCES)
    assert cider(["The red, cup!", *REFERENCES[1:]], references) == cider(REFERENCES, references)
    assert words("The dog’s tail, 3-4 «été»") == ["the", "dog’s", "tail", "3", "4", "été"]


def test_too_little_text_for_cider() -> None:
    assert cider([], []) is None
    assert cider(["a"], [["..."]]) == 0.0
    assert cider(["a cup"], [["a cup"]]) == 0.0  # with one question, every word is in all of them


def test_expressions_of_one_box_in_one_image_are_references_of_one_answer() -> None:
    box, other = "[0.100,0.100,0.500,0.500]", "[0.100,0.100,0.500,0.501]"
    asked = [
        ("a", f"Describe {box}.", "the red cup", "red cup"),
        ("a", f"What is at {box}?", "cup on the left", "never counted"),
        ("a", f"Describe {other}.", "man", "man"),
        ("b", f"Describe {box}.", "a red dog", "a dog"),
        ("b", "Describe <bin_100><bin_100><bin_500><bin_500>.", "dog", ""),
        ("b", "Describe it.", "a dog's tail", "tail"),
        ("b", "Describe it.", "tail", "tail"),
    ]
    predictions = [
        predicted("REG", truth, answer, key=str(number), question=question, image=image)
        for number, (image, question, truth, answer) in enumerate(asked)
    ]
    scores = captioning_scores(predictions)
    references = [["the red cup", "cup on the left"], ["man"], ["a red dog", "dog"], ["a dog's tail"], ["tail"]]
    assert scores["cider"] == pytest.approx(cider_by_hand(["red cup", "man", "a dog", "tail", "tail"], references))
    assert (scores["questions"], scores["boxes"]) == (7, 5)
    two_sources = [*predictions, predicted("REG", "cup", "cup", question=f"{box}", image="a", source="REG_other")]
    assert captioning_scores(two_sources)["boxes"] == 6


def test_exact_match() -> None:
    cases = {"the red cup": True, "The  red cup.\n": True, "red cup": False, "": False, "the red cups": False}
    scores = captioning_scores([predicted("REG", "the red cup", answer, key=answer) for answer in cases])
    assert (scores["questions"], scores["exact_match"]) == (5, 2 / 5)
    cut_off = captioning_scores([predicted("REG", "the red cup", "the red cup", complete=False)])
    assert cut_off["exact_match"] == 0.0
    assert captioning_scores([predicted("REG", ".", "")])["exact_match"] == 0.0


def test_no_questions_have_no_scores() -> None:
    scores = captioning_scores([])
    assert scores["cider"] is scores["exact_match"] is None
