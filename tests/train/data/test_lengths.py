"""`griffon-train lengths`: exact counts of every row and variant, the same from any number of processes."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import Turn
from griffon_shards.verify import verify_set
from griffon_train.data.lengths import Lengths, count_lengths

from ..conftest import Run
from ..damage import flip_bit
from .length_tables import CHAT, IMAGE, in_this_process, of_all_rows

QWEN3 = Path(__file__).resolve().parents[4] / "shared" / "data" / "tokenizers" / "qwen3"
TALKS = 4100
"""More than two processes' shares."""


@pytest.fixture(scope="module")
def talk_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations without images, of all lengths and scripts, with `<image>` where it is no image."""
    folder = tmp_path_factory.mktemp("talk")
    lines = []
    for index in range(TALKS):
        turns = [
            f"{index} red circles? " * (index % 7 + 1),
            ["Ja, größer.", "两个圆", "An <image> tag.", "no"][index % 4],
        ]
        reported = [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns * (1 + index % 2))]
        lines.append(orjson.dumps({"id": str(index), "conversations": reported}))
    (folder / "talk.jsonl").write_bytes(b"\n".join(lines))
    command = [sys.executable, "-m", "griffon_prep", "build", "--data-path", "talk.jsonl", "--image-folder", "."]
    subprocess.run([*command, "--out", "set", "--workers", "1"], cwd=folder, check=True, capture_output=True)
    return folder / "set"


def gemma_by_hand(turns: Sequence[Turn]) -> str:
    return "<s>" + "".join(f"<start_of_turn>{role_of(turn, 'model')}\n{turn.text}<end_of_turn>\n" for turn in turns)


def qwen_by_hand(turns: Sequence[Turn]) -> str:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    return system + "".join(f"<|im_start|>{role_of(turn, 'assistant')}\n{turn.text}<|im_end|>\n" for turn in turns)


def role_of(turn: Turn, model: str) -> str:
    return model if turn.role == "gpt" else "user"


def counted_by_hand(
    frozen: FrozenSet, folder: Path, written: Callable[[Sequence[Turn]], str] = gemma_by_hand
) -> NDArray[np.uint32]:
    """Tokens of every row and variant, with the tokenizers library alone; shape [rows, variants]."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    counts = []
    for row in range(len(frozen)):
        sample = frozen[row]
        counts.append([0] * len(sample.renderings))
        for variant, rendering in enumerate(sample.renderings):
            text = written(rendering.turns)
            if sample.image is not None:
                text = text.replace("<image>", "\ue000", 1)
            if rendering.region_xyxy_px is not None:
                text = text.replace("<region>", "\ue000", 1)
                counts[-1][variant] += 1
            parts = text.split("\ue000")
            counts[-1][variant] += sum(len(tokenizer.encode(part, add_special_tokens=False).ids) for part in parts)
    return np.array(counts, np.uint32)


def test_every_row_and_variant_is_counted(table: Path, variants_set: Path, tokenizer_folder: Path) -> None:
    frozen = open_set(variants_set)
    expected = counted_by_hand(frozen, tokenizer_folder)
    assert (expected[:, 0] != expected[:, 1]).any()  # the variants have other words
    pictures = frozen.index["has_image"].astype(np.int64)[:, None] * IMAGE
    assert np.array_equal(of_all_rows(Lengths.counted([frozen], [table]), frozen), expected + pictures)


def test_a_set_is_not_altered_by_counting(table: Path, variants_set: Path) -> None:
    assert table.exists()
    assert not list(verify_set(variants_set, deep=False))


def test_any_number_of_processes_writes_the_same_table(
    train_cli: Run, talk_set: Path, tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    for workers in (3, 1):
        out = tmp_path / f"{workers}"
        options = ("--tokenizer", tokenizer_folder, "--chat", CHAT, "--workers", workers, "--out", out)
        result = train_cli("lengths", talk_set, *options)
        assert (result.returncode, result.stderr) == (0, "")
        lines = rf"4,100 rows counted into {out}\nsha256 [0-9a-f]{{64}}\nnext: griffon-train plan {talk_set} .*\n"
        assert re.fullmatch(lines, result.stdout)
        tables.append(out.read_bytes())
        monkeypatch.setattr("griffon_train.data.lengths.LocalPool", in_this_process)
    assert tables[0] == tables[1]
    frozen = open_set(talk_set)
    actual = of_all_rows(Lengths.counted([frozen], [out]), frozen)
    assert np.array_equal(actual, counted_by_hand(frozen, tokenizer_folder))


@pytest.mark.usefixtures("in_process")
@pytest.mark.skipif(not QWEN3.exists(), reason="needs the tokenizer of Qwen 3")
def test_a_real_tokenizer_counts_as_the_library_does(variants_set: Path, tmp_path: Path) -> None:
    frozen = open_set(variants_set)
    path = tmp_path / "table"
    count_lengths(variants_set, str(QWEN3), "qwen2", path, workers=1, done=lambda _: None)
    pictures = frozen.index["has_image"].astype(np.int64)[:, None] * IMAGE
    actual = of_all_rows(Lengths.counted([frozen], [path]), frozen)
    assert np.array_equal(actual, counted_by_hand(frozen, QWEN3, qwen_by_hand) + pictures)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"added_tokens":[],"model":{"type":"Nope"}}'])
def test_what_is_not_a_tokenizer_is_reported_before_anything_is_counted(
    variants_set: Path, tmp_path: Path, content: str
) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(content)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(SettingsError, match=re.escape(f"--tokenizer {folder}: transformers cannot load it")):
        count_lengths(variants_set, str(folder), CHAT, tmp_path / "table", workers=1, done=lambda _: None)
    assert not (tmp_path / "table").exists()


def test_a_tokenizer_that_does_not_exist_and_an_unknown_chat_are_reported(
    train_cli: Run, variants_set: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    result = train_cli("lengths", variants_set, "--tokenizer", tmp_path / "none", "--chat", CHAT, "--out", table)
    assert result.returncode == 2
    assert result.stderr.startswith(
        f"error: --tokenizer {tmp_path / 'none'}: no such folder; give the folder that contains"
    )
    assert len(result.stderr.splitlines()) == 1
    with pytest.raises(SettingsError, match="unknown chat template 'other'; expected one of plain, gemma_instruct"):
        count_lengths(variants_set, str(tokenizer_folder), "other", table, workers=1, done=lambda _: None)
    result = train_cli("lengths", variants_set, "--tokenizer", tokenizer_folder, "--out", table)
    assert result.returncode == 2
    assert "Missing option '--chat'" in result.stderr


def test_a_tokenizer_of_another_template_is_refused_before_anything_is_counted(
    train_cli: Run, variants_set: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    result = train_cli("lengths", variants_set, "--tokenizer", tokenizer_folder, "--chat", "qwen2", "--out", table)
    assert result.returncode == 2
    assert result.stderr == (
        "error: chat template qwen2: TokenizersBackend has no control token <|im_start|>; use the tokenizer of the "
        "template's language model, or another template\n"
    )
    assert not table.exists()


def test_a_damaged_shard_is_named(train_cli: Run, copy_of_set: Path, tokenizer_folder: Path, tmp_path: Path) -> None:
    where = flip_bit(copy_of_set, 100)
    options = ("--tokenizer", tokenizer_folder, "--chat", CHAT, "--out", tmp_path / "table", "--workers", 1)
    result = train_cli("lengths", copy_of_set, *options)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {where}: damaged")
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "table").exists()


def test_a_missing_shard_is_reported_before_anything_is_counted(
    train_cli: Run, copy_of_set: Path, tmp_path: Path
) -> None:
    shard = copy_of_set / open_set(copy_of_set).lock.shards[-1].name
    shard.unlink()
    refused = train_cli("lengths", copy_of_set, "--tokenizer", tmp_path / "none yet", "--chat", "plain")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"error: {shard}: the shard is missing; copy the set again or rebuild it\n"
