"""Tables of lengths as files: which set, template and tokenizer they fit, and what is wrong with one."""

import re
from pathlib import Path

import numpy as np
import orjson
import pytest
from transformers import PreTrainedTokenizerFast

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.data.lengths import Lengths, count_lengths
from griffon_train.data.plan import Plan

from ..conftest import Run
from ..synthetic import Source, write_synthetic
from .length_tables import CHAT, IMAGE, of_all_rows, tables_bytes


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
