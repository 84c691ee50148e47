"""`griffon-train tokens` shows what the model is given of a sample, and what it learns of that."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.types import Sample
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.text.chat_templates import CHATS

from ..conftest import Run
from ..small_tokenizers import byte_level


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "分词器"
    byte_level().save_pretrained(folder)
    return folder


def first_of(root: Path, task: str) -> Sample:
    frozen = open_set(root)
    return next(sample for row in range(len(frozen)) if (sample := frozen[row]).task == task)


def spans_of(train_cli: Run, root: Path, keys: Sequence[str], tokenizer: Path, chat: str) -> list[dict[str, object]]:
    result = train_cli("tokens", root, *keys, "--tokenizer", tokenizer, "--chat", chat, "--json")
    assert result.returncode == 0, result.stderr
    return [orjson.loads(line) for line in result.stdout.splitlines()]


def test_spans_are_named_and_counted(train_cli: Run, frozen_set: Path, tokenizer: Path) -> None:
    sample = first_of(frozen_set, "DET")
    question, answer = (turn.text for turn in sample.renderings[0].turns)
    before, after = question.split("<image>")
    result = train_cli("tokens", frozen_set, sample.key, "--tokenizer", tokenizer, "--chat", "gemma_instruct")
    title, *lines = result.stdout.splitlines()
    shown = [tuple(line.split(maxsplit=2)) for line in lines]
    expected = [
        ("given", f"<s><start_of_turn>user\n{before}"),
        ("image", "<image>"),
        ("given", f"{after}<end_of_turn>\n<start_of_turn>model\n"),
        ("learned", f"{answer}<end_of_turn>\n"),
    ]
    assert [(kind, text.strip()) for kind, _, text in shown] == [
        (kind, text.replace("\n", r"\n").strip()) for kind, text in expected
    ]
    # Each byte is a token, as is each mark.
    learned = len(answer.encode()) + 2
    assert shown[-1][1] == str(learned)
    given = sum(int(count) for kind, count, _ in shown if kind == "given")
    assert title == f"{sample.key}  DET  {given + learned:,} text tokens, {learned:,} of them learned"


@pytest.mark.parametrize("chat", list(CHATS))
def test_what_is_learned_is_the_answers(train_cli: Run, variants_set: Path, tokenizer: Path, chat: str) -> None:
    """In all variants of samples with an image, a region, and neither, the spans are the whole conversation."""
    frozen = open_set(variants_set)
    samples = [first_of(variants_set, task) for task in ("LAZY", "REG", "VISJ")]
    variants = spans_of(train_cli, variants_set, [sample.key for sample in samples], tokenizer, chat)
    assert [(found["key"], found["variant"]) for found in variants] == [
        (sample.key, number) for sample in samples for number in range(len(sample.renderings))
    ]
    loaded = byte_level()
    for found in variants:
        sample = frozen[frozen.row(str(found["key"]))]
        rendering = sample.renderings[int(str(found["variant"]))]
        spans: list[dict[str, object]] = found["spans"]  # type: ignore[assignment]
        learned = "".join(str(span["text"]) for span in spans if span["kind"] == "learned")
        answers = [turn.text for turn in rendering.turns if turn.role == "gpt"]
        assert all(answer in learned for answer in answers)
        assert len(learned) < sum(map(len, answers)) + 20 * len(answers)
        for span in spans:
            if span["kind"] in ("given", "learned"):
                assert loaded.decode(span["ids"]) == span["text"]  # type: ignore[arg-type]


def test_a_saved_model_has_a_tokenizer(train: Run, frozen_set: Path, tmp_path: Path) -> None:
    """transformers warns about the type of a folder's model, which does not concern its tokenizer."""
    GriffonForConditionalGeneration(preset_config("tiny-llama2")).save_pretrained(tmp_path)
    byte_level().save_pretrained(tmp_path)
    key = first_of(frozen_set, "LAZY").key
    shown = train("tokens", frozen_set, key, "--tokenizer", tmp_path, "--chat", "plain")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_refusals(train_cli: Run, frozen_set: Path, tokenizer: Path) -> None:
    result = train_cli("tokens", frozen_set, "DET_none-000000001", "--tokenizer", tokenizer, "--chat", "plain")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no sample has the key 'DET_none-000000001'; list the keys with" in result.stderr
    result = train_cli("tokens", frozen_set, "x", "--tokenizer", tokenizer / "none", "--chat", "plain")
    assert result.returncode == 2
    assert "no such folder" in result.stderr
