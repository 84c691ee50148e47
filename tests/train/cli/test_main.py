"""`griffon-train plan` and `read` as a user runs them: their output, and what they refuse."""

import re
from collections import Counter
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.lock import LOCK_NAME
from griffon_shards.support.files import write_whole
from griffon_train.data.plan import Plan

from ..conftest import Run
from ..streams import keys_of


def test_a_plan_as_json_is_a_line_a_step(train_cli: Run, frozen_set: Path, variants_set: Path) -> None:
    options = ("--global-batch", 5, "--seed", 3, "--grouping", "task", "--window", 4)
    result = train_cli("plan", frozen_set, variants_set, *options, "--from", 110, "--steps", 9, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    sets = [open_set(frozen_set), open_set(variants_set)]
    plan = Plan(sets, seed=3, global_batch=5, grouping="task", window=4)
    steps = [plan.step(i) for i in range(110, 119)]
    assert [orjson.loads(line) for line in result.stdout.splitlines()] == [
        {"step": step.number, "epoch": step.epoch, "group": step.group, "keys": keys_of(plan, step)} for step in steps
    ]
    assert {step.epoch for step in steps} == {0, 1}


def test_a_plan_for_people_names_step_epoch_group_lengths_and_keys(train_cli: Run, frozen_set: Path) -> None:
    step = Plan([open_set(frozen_set)], seed=0, global_batch=3).step(0)
    lengths = f"{min(step.lengths):,} to {max(step.lengths):,} tokens"
    result = train_cli("plan", frozen_set, "--global-batch", 3)
    assert result.stdout.splitlines()[0] == f"step 0  epoch 0  all  {lengths}"
    assert result.stdout.splitlines()[1].split() == keys_of(Plan([open_set(frozen_set)], seed=0, global_batch=3), step)
    assert len(result.stdout.splitlines()) == 2


@pytest.mark.parametrize("epoch", [0, 1])
def test_the_report_of_an_epoch_adds_up(train_cli: Run, frozen_set: Path, epoch: int) -> None:
    """Steps and tokens by group, all together, and what batches without regard to length would waste."""
    result = train_cli(
        "plan", frozen_set, "--global-batch", 6, "--grouping", "task", "--epoch-report", "--epoch", epoch
    )
    head, *rows, digest = result.stdout.splitlines()
    assert head.split() == ["epoch", str(epoch), "steps", "tokens", "padding"]
    results = {}
    for row in rows:
        name, steps, tokens, padding = re.split(r" {2,}", row.strip())
        results[name] = int(steps), int(tokens.replace(",", "")), float(padding.rstrip("%"))
    frozen = open_set(frozen_set)
    plan = Plan([frozen], seed=0, global_batch=6, grouping="task")
    steps = [plan.step(i) for i in range(plan.first_step(epoch), plan.first_step(epoch + 1))]
    for group in plan.groups:
        mine = [step.lengths for step in steps if step.group == group]
        tokens = sum(int(lengths.sum()) for lengths in mine)
        padded = sum(6 * int(lengths.max()) for lengths in mine)
        said_steps, said_tokens, said_padding = results.pop(group)
        assert (said_steps, said_tokens) == (len(mine), tokens)
        assert said_padding == pytest.approx(100 * (1 - tokens / padded), abs=0.006)
    everything = results.pop("all")
    assert everything[:2] == (len(steps), sum(int(step.lengths.sum()) for step in steps))
    ((name, (_, _, random_padding)),) = results.items()
    assert name == "random batches"
    assert random_padding > 3 * everything[2]
    assert digest == f"plan {plan.digest}"


def test_weights_change_how_often_an_epoch_shows_a_source(train_cli: Run, frozen_set: Path) -> None:
    """Steps have one sample each, so an epoch has a step per sample; all other sources come as often as before."""
    frozen = open_set(frozen_set)
    first, second, *_ = (source.tag for source in frozen.lock.sources)
    weights = ("--weight", f"{first}=3", "--weight", f"{second}=1/2")
    steps = len(frozen) + 2 * len(frozen.rows_of_source(first)) - -(-len(frozen.rows_of_source(second)) // 2)
    counted = []
    for options in ((), weights):
        result = train_cli("plan", frozen_set, "--global-batch", 1, *options, "--steps", steps, "--json")
        lines = [orjson.loads(line) for line in result.stdout.splitlines()]
        counted.append(Counter(key.rpartition("-")[0] for line in lines if line["epoch"] == 0 for key in line["keys"]))
    plain, weighted = counted
    for tag, times in {first: 3, second: 0.5}.items():
        assert weighted.pop(tag) == int(times * plain.pop(tag))
    assert weighted == plain


def test_a_report_under_weights_is_of_the_plan_that_training_has(train_cli: Run, frozen_set: Path) -> None:
    tag = open_set(frozen_set).lock.sources[0].tag
    command = ("plan", frozen_set, "--global-batch", 6, "--epoch-report", "--weight")
    plans = [Plan([open_set(frozen_set)], seed=0, global_batch=6, weights={tag: weight}) for weight in ("1", "2.0")]
    actual = [train_cli(*command, f"{tag}={weight}").stdout.splitlines() for weight in ("1", "2", "2.0", "4/2")]
    assert [lines[-1] for lines in actual] == [f"plan {plans[number].digest}" for number in (0, 1, 1, 1)]
    for lines in actual[1:]:
        assert lines == actual[1]
    ours, random = (int(line.split()[-2].replace(",", "")) for line in actual[1][-3:-1])
    assert ours == random > int(actual[0][-2].split()[-2].replace(",", ""))


def test_what_is_read_is_what_is_planned_under_weights(train_cli: Run, frozen_set: Path) -> None:
    tag = open_set(frozen_set).lock.sources[0].tag
    options = (frozen_set, "--global-batch", 4, "--weight", f"{tag}=5", "--from", 3, "--steps", 2, "--json")
    planned = [orjson.loads(line)["keys"] for line in train_cli("plan", *options).stdout.splitlines()]
    read = [orjson.loads(line)["key"] for line in train_cli("read", *options, "--image-px", 28).stdout.splitlines()]
    assert read == [key for keys in planned for key in keys]


def test_the_same_command_says_the_same(train: Run, train_cli: Run, frozen_set: Path) -> None:
    """It runs in another process, with another hash seed."""
    options = ("plan", frozen_set, "--global-batch", 7, "--grouping", "modality", "--steps", 50, "--json")
    assert train(*options).stdout == train_cli(*options).stdout


REFUSED = {
    "no such folder": (
        ["plan", "nowhere", "--global-batch", "4"],
        1,
        r"nowhere: no such folder; give the --out",
    ),
    "not a set": (["plan", ".", "--global-batch", "4"], 1, r"\.: not a frozen set, it has no griffon\.lock\.json"),
    "not a set, reading": (["read", ".", "--global-batch", "4"], 1, r"\.: not a frozen set"),
    "no set": (["plan", "--global-batch", "4"], 2, r"Missing argument 'DIR\.\.\.'"),
    "no batch": (["plan", "SET"], 2, r"Missing option '--global-batch'"),
    "grouping": (
        ["plan", "SET", "--global-batch", "4", "--grouping", "size"],
        2,
        r"'size' is not one of 'none', 'moda",
    ),
    "batch of 0": (["plan", "SET", "--global-batch", "0"], 2, r"Invalid value for '--global-batch': 0 is not in"),
    "window of 0": (["plan", "SET", "--global-batch", "4", "--window", "0"], 2, r"'--window': 0 is not in"),
    "step -1": (["plan", "SET", "--global-batch", "4", "--from", "-1"], 2, r"'--from': -1 is not in"),
    "0 steps": (["read", "SET", "--global-batch", "4", "--steps", "0"], 2, r"'--steps': 0 is not in"),
    "0 ranks": (["read", "SET", "--global-batch", "4", "--world-size", "0"], 2, r"'--world-size': 0 is not in"),
    "-1 workers": (["read", "SET", "--global-batch", "4", "--workers", "-1"], 2, r"'--workers': -1 is not in"),
    "0 at once": (["read", "SET", "--global-batch", "4", "--micro-batch", "0"], 2, r"'--micro-batch': 0 is not in"),
    "no pixels": (["read", "SET", "--global-batch", "4", "--image-px", "0"], 2, r"'--image-px': 0 is not in"),
    "no seed": (["plan", "SET", "--global-batch", "4", "--seed", "x"], 2, r"'x' is not a valid integer"),
    "huge seed": (["plan", "SET", "--global-batch", "4", "--seed", "9" * 30], 2, r"seed|--seed"),
    "huge step": (["plan", "SET", "--global-batch", "4", "--from", "9" * 30], 2, r"step|--from"),
    "no table": (
        ["plan", "SET", "--global-batch", "4", "--lengths", "none"],
        2,
        r"none: no such table; create one with `griffon-train le",
    ),
    "lock as table": (
        ["plan", "SET", "--global-batch", "4", "--lengths", "LOCK"],
        1,
        r"not a table of lengths, or damaged",
    ),
    "twice": (["plan", "SET", "SET", "--global-batch", "4"], 2, r"the same set is given twice"),
    "weight of none": (
        ["plan", "SET", "--global-batch", "4", "--weight", "DTE=2"],
        2,
        r"weights given for DTE, but no set has such a source; the sources are .*DET_shapes",
    ),
    "weight to read": (
        ["read", "SET", "--global-batch", "4", "--weight", "DTE=2"],
        2,
        r"weights given for DTE, but no set",
    ),
    "no weight": (["plan", "SET", "--global-batch", "4", "--weight", "DET_shapes"], 2, r"DET_shapes: expected TAG=W"),
    "weight of 0": (["plan", "SET", "--global-batch", "4", "--weight", "DET_shapes=0"], 2, r"above 0, .* got '0'"),
    "weights": (
        ["plan", "SET", "--global-batch", "4", "--weight", "DET_shapes=1", "--weight", "DET_shapes=2"],
        2,
        r"--weight DET_shapes=2: DET_shapes already has weight 1",
    ),
    "chat": (["lengths", "SET", "--tokenizer", "x", "--chat", "nope"], 2, r"'nope' is not"),
    "stall": (["read", "SET", "--global-batch", "4", "--stall", "nan"], 2, r"expected a finite number"),
    "total": (["checkpoint", "prune", "RUN", "--save-total-gb", "inf"], 2, r"expected a finite number"),
    "tokenizer": (["lengths", "SET", "--tokenizer", "none", "--chat", "plain"], 2, r"--tokenizer none: no such folder"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(
    train_cli: Run,
    frozen_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    """A line that says what, got and expected; 2 for settings and 1 for data."""
    monkeypatch.chdir(tmp_path)
    places = {"SET": str(frozen_set), "LOCK": str(frozen_set / LOCK_NAME)}
    result = train_cli(*(places.get(argument, argument) for argument in arguments))
    assert (result.returncode, result.stdout) == (code, "")
    assert re.search(message, result.stderr), result.stderr
    assert re.search("^(error|Error): ", result.stderr.splitlines()[-1]), result.stderr


def test_a_set_that_is_damaged_is_refused_before_the_first_step(train_cli: Run, copy_of_set: Path) -> None:
    lock = (copy_of_set / LOCK_NAME).read_bytes()
    write_whole(copy_of_set / LOCK_NAME, lock.replace(b'"seed": 0', b'"seed": 1', 1))
    for command in ("plan", "read"):
        result = train_cli(command, copy_of_set, "--global-batch", 4)
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {copy_of_set / LOCK_NAME}: altered")


def test_help_names_every_command(train_cli: Run) -> None:
    output = train_cli("--help").stdout
    assert [name for name in ("lengths", "plan", "read") if re.search(rf"^  {name} +\S", output, re.MULTILINE)] == [
        "lengths",
        "plan",
        "read",
    ]
