"""`griffon-train lengths`: exact counts of every row and variant, the same from any number of processes."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Turn
from griffon_shards.verify import verify_set
from griffon_train.data.lengths import Lengths, count_lengths
from griffon_train.data.plan import Plan

from ..conftest import Run
from ..damage import flip_bit
from ..synthetic import Source, write_synthetic

QWEN3 = Path(__file__).resolve().parents[4] / "shared" / "data" / "tokenizers" / "qwen3"
IMAGE = 1369
CHAT = "gemma_instruct"
TALKS = 4100
"""More than two processes' shares."""


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer of bytes and their pairs, as transformers stores it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=["<s>", "<start_of_turn>", "<end_of_turn>"],
        show_progress=False,
    )
    trained.train_from_iterator(
        ["Find the red circle in the image, and answer with boxes: [0.120,0.034]."] * 3, trainer
    )
    folder = tmp_path_factory.mktemp("tokenizer") / "分词"
    stored = PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<s>")
    stored.save_pretrained(folder)
    return folder


class ThisProcess:
    """Counts in this process, for the sake of time: importing transformers in another takes seconds."""

    run = staticmethod(map)


@contextmanager
def in_this_process(_workers: int) -> Iterator[ThisProcess]:
    yield ThisProcess()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("griffon_train.data.lengths.LocalPool", in_this_process)


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


def of_all_rows(lengths: Lengths, frozen: FrozenSet) -> NDArray[np.int64]:
    """Shape [rows, variants]."""
    rows, variants = np.indices((len(frozen), int(frozen.lock.render["variants"])))
    return lengths.of(0, rows.reshape(-1), variants.reshape(-1)).reshape(rows.shape)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, variants_set: Path, tokenizer_folder: Path) -> Path:
    """The table of lengths of the set with three variants."""
    path = tmp_path_factory.mktemp("tables") / "variants.lengths"
    progress: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("griffon_train.data.lengths.LocalPool", in_this_process)
        count_lengths(variants_set, str(tokenizer_folder), CHAT, path, workers=1, done=progress.append)
    assert sum(progress) == len(open_set(variants_set))
    return path


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


def test_the_table_goes_into_the_plan(train_cli: Run, table: Path, variants_set: Path) -> None:
    options = ("--global-batch", 8, "--epoch-report")
    output = [train_cli("plan", variants_set, *options, *more).stdout for more in ((), ("--lengths", table))]
    digests = [text.splitlines()[-1] for text in output]
    assert digests[0] != digests[1]
    frozen = open_set(variants_set)
    plan = Plan([frozen], seed=0, global_batch=8, lengths=Lengths.counted([frozen], [table]))
    assert digests[1] == f"plan {plan.digest}"
    step = plan.step(3)
    assert step.lengths.tolist() == of_all_rows(plan.lengths, frozen)[step.rows, step.variants].tolist()


@pytest.mark.usefixtures("in_process")
def test_another_count_is_another_plan(table: Path, variants_set: Path, tmp_path: Path, tokenizer_folder: Path) -> None:
    """The same texts by another tokenizer, which knows the word `red`."""
    other = tmp_path / "tokenizer"
    loaded = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    loaded.add_tokens(["red"])
    loaded.save_pretrained(other)
    path = tmp_path / "table"
    sha256 = count_lengths(variants_set, str(other), CHAT, path, workers=1, done=lambda _: None)
    frozen = open_set(variants_set)
    before, after = (Lengths.counted([frozen], [item]) for item in (table, path))
    assert (of_all_rows(after, frozen) != of_all_rows(before, frozen)).any()
    assert after.identity == [sha256] != before.identity
    assert len({Plan([frozen], seed=0, global_batch=8, lengths=item).digest for item in (before, after)}) == 2


def test_tables_are_matched_with_sets_in_any_order(table: Path, variants_set: Path, tmp_path: Path) -> None:
    other = write_synthetic(tmp_path / "other", [Source(tag="REG", rows=5)])
    frozen = open_set(variants_set)
    second = tmp_path / "second"
    second.write_bytes(tables_bytes(other, tokenizer=orjson.loads(table.read_bytes().split(b"\n")[0])["tokenizer"]))
    lengths = [Lengths.counted([other, frozen], paths) for paths in ([table, second], [second, table])]
    assert lengths[0].identity == lengths[1].identity
    assert lengths[0].of(0, np.arange(5), np.zeros(5, np.int64)).tolist() == [IMAGE + i for i in range(5)]


@pytest.mark.parametrize("field", ["chat", "tokenizer"])
@pytest.mark.parametrize("command", ["plan", "read"])
def test_tables_that_were_counted_in_different_ways_are_refused(
    train_cli: Run, tmp_path: Path, field: str, command: str
) -> None:
    sets = [write_synthetic(tmp_path / f"set {name}", [Source(tag="REG", rows=5)], content=name) for name in "01"]
    for item, changes in zip(sets, ({}, {field: "f" * 64}), strict=True):
        item.root.with_name(f"{item.root.name} table").write_bytes(tables_bytes(item, **changes))
    options = [item for path in sets for item in ("--lengths", f"{path.root} table")]
    result = train_cli(command, *(item.root for item in sets), "--global-batch", 2, *options)
    assert result.returncode == 2
    assert f"set 0 table and {tmp_path}/set 1 table: counted with a different {field}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("in_process")
def test_a_table_of_another_template_or_tokenizer_does_not_fit_the_run(
    table: Path, variants_set: Path, tmp_path: Path, tokenizer_folder: Path
) -> None:
    """A saved copy of the tokenizer is the same one, whatever its files say besides; one with more words is not."""
    lengths = Lengths.counted([open_set(variants_set)], [table])
    ours = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    lengths.check(CHAT, ours)
    ours.model_max_length = 77
    ours.save_pretrained(tmp_path / "copy")
    lengths.check(CHAT, PreTrainedTokenizerFast.from_pretrained(tmp_path / "copy"))
    ours.add_tokens(["the"])
    with pytest.raises(
        SettingsError, match=r"not counted with the model's tokenizer: .*\.tar, sample .* count it again with"
    ):
        lengths.check(CHAT, ours)
    with pytest.raises(SettingsError, match=f"counted with --chat {CHAT}, not plain; count it again with"):
        lengths.check("plain", ours)
    Lengths.estimated([open_set(variants_set)]).check("plain", ours)


def tables_bytes(frozen: FrozenSet, **changes: object) -> bytes:
    """A table in which row i has i tokens, made as the format says."""
    raw = np.arange(len(frozen), dtype="<u4").tobytes()
    head = {
        "magic": "griffon lengths 1",
        "set": frozen.lock.digest,
        "chat": CHAT,
        "tokenizer": "0" * 64,
        "shape": [len(frozen), 1],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    return orjson.dumps({**head, **changes}) + b"\n" + raw


def test_missing_and_surplus_tables_are_reported(
    table: Path, variants_set: Path, frozen_set: Path, tmp_path: Path
) -> None:
    ours, other = open_set(variants_set), open_set(frozen_set)
    for sets, paths, message in (
        ([other], [table], f"1 table(s) for 1 set(s), none for {frozen_set}"),
        ([ours, other], [table], f"1 table(s) for 2 set(s), none for {frozen_set}"),
        ([ours], [table, table], "2 table(s) for 1 set(s); give one table per set"),
        (
            [ours],
            [tmp_path / "nothing"],
            f"{tmp_path / 'nothing'}: no such table; create one with",
        ),
        ([ours], [tmp_path], f"{tmp_path}: no such table"),
    ):
        with pytest.raises(SettingsError, match=re.escape(message)):
            Lengths.counted(sets, paths)


def test_a_flipped_bit_anywhere_and_every_cut_is_noticed(tmp_path: Path) -> None:
    """A damaged table is refused; or, if it only names other things than counts, it is another table to the plan."""
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=5)])
    whole, path = tables_bytes(frozen), tmp_path / "table"
    path.write_bytes(whole)
    identity = Lengths.counted([frozen], [path]).identity
    flipped = [
        whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :] for offset in range(len(whole))
    ]
    for damaged in (*flipped, *(whole[:length] for length in range(len(whole))), whole + b"\0"):
        path.write_bytes(damaged)
        try:
            lengths = Lengths.counted([frozen], [path])
        except (SettingsError, DataError):
            continue
        assert lengths.identity != identity
        assert of_all_rows(lengths, frozen).tolist() == [[IMAGE + row] for row in range(5)]


@pytest.mark.parametrize("shape", [[4, 1], [6, 1], [5, 2], [5], [], [1e40, 1], [-5, 1], "5", None, [2**70, 2**70]])
def test_a_table_of_another_shape_is_refused(tmp_path: Path, shape: object) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=5)])
    path = tmp_path / "table"
    path.write_bytes(tables_bytes(frozen, shape="SHAPE").replace(b'"SHAPE"', str(shape).replace("'", '"').encode()))
    with pytest.raises(DataError, match="count it again"):
        Lengths.counted([frozen], [path])


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
