"""Events from outside during a run: signals, ranks that die or hang, full disks, bad data and settings."""

import re
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

from griffon_shards.frozen_set import open_set
from griffon_train.data.plan import Plan
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.text.chat_templates import IGNORE, encode

from ..damage import flip_bit
from ..streams import keys_of, shown
from .conftest import differences, metrics_of, steps_told
from .launcher import Ended, Launcher, Running

GLOBAL_BATCH = 4


def command(shards: Path, run: Path, *options: object, steps: int = 8) -> list[object]:
    """A small run; it saves at the end alone."""
    fixed = ("--stage", "custom", "--model", "tiny-qwen2", "--global-batch", GLOBAL_BATCH, "--micro-batch", 2)
    return ["run", *fixed, "--workers", 0, "--shards", shards, "--output-dir", run, "--steps", steps, *options]


def checkpoints_of(run: Path) -> list[int]:
    """Return the steps of the complete checkpoints."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def await_steps(running: Running, run: Path, steps: int) -> None:
    running.wait_until(lambda: steps_told(run) >= steps)


def check_resumed(launcher: Launcher, arguments: Sequence[object], run: Path, step: int) -> None:
    """Rerun the same command; it must resume at a step, and end with the results of an uninterrupted run."""
    ended = launcher.run(*arguments)
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step {step} of " in ended.said[0]
    unbroken = run.with_name("unbroken")
    position = arguments.index(run)
    ended = launcher.run(*arguments[:position], unbroken, *arguments[position + 1 :])
    assert ended.codes == [0, 0], ended.said
    assert differences(run, unbroken) == []


def errors(output: str) -> list[str]:
    return [line.removeprefix("error: ") for line in output.splitlines() if line.startswith("error: ")]


def check_no_traceback(ended: Ended) -> None:
    assert not any("Traceback" in output for output in ended.said), ended.said


def test_checkpoints_on_request(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """By a signal to one rank, by a file, and, when the run is to stop, by a signal to one rank again."""
    run = tmp_path / "run"
    arguments = command(frozen_set, run, steps=30)
    running = launcher.start(arguments, 2)
    await_steps(running, run, 1)
    running.signal(signal.SIGUSR1, rank=1)
    running.wait_until(lambda: len(checkpoints_of(run)) == 1)
    await_steps(running, run, steps_told(run) + 2)
    assert len(checkpoints_of(run)) == 1, "a signal asks for one checkpoint"
    (run / "save-now").touch()
    running.wait_until(lambda: len(checkpoints_of(run)) == 2)
    assert not (run / "save-now").exists()
    await_steps(running, run, steps_told(run) + 2)
    assert len(checkpoints_of(run)) == 2, "a file asks for one checkpoint"
    running.signal(signal.SIGTERM, rank=1)
    ended = running.wait()
    assert ended.codes == [143, 143], ended.said
    check_no_traceback(ended)
    *_, last = checkpoints_of(run)
    assert last == steps_told(run) < 30
    assert len(checkpoints_of(run)) == 3
    assert f"stopped by SIGTERM after step {last}" in ended.said[0]
    check_resumed(launcher, arguments, run, last)


def test_sigterm_to_all_ranks(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """torchrun and Slurm send it so."""
    run = tmp_path / "run"
    running = launcher.start(command(frozen_set, run, steps=100), 2)
    await_steps(running, run, 1)
    running.signal(signal.SIGTERM)
    ended = running.wait()
    assert ended.codes == [143, 143], ended.said
    check_no_traceback(ended)
    assert checkpoints_of(run) == [steps_told(run)]


def test_a_rank_that_is_killed_ends_the_run(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    running = launcher.start(command(frozen_set, run, steps=1000), 2)
    await_steps(running, run, 2)
    running.signal(signal.SIGKILL, rank=1)
    ended = running.wait()
    assert ended.codes == [1, -signal.SIGKILL]
    assert any("rank 0: another rank has ended" in reported for reported in errors(ended.said[0])), ended.said
    check_no_traceback(ended)
    assert checkpoints_of(run) == [], "after a collective that failed nothing is saved"


def test_a_disk_that_is_full_for_one_rank(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """The kernel limits its files to 100 kB; the checkpoint before is kept, and training continues."""
    run = tmp_path / "run"
    arguments = command(frozen_set, run, "--save-steps", 3, steps=6)
    running = launcher.start(arguments, 2)
    running.wait_until(lambda: checkpoints_of(run) == [3])
    resource.prlimit(running.pids[1], resource.RLIMIT_FSIZE, (100_000, 100_000))
    ended = running.wait()
    assert ended.codes == [1, 1], ended.said
    check_no_traceback(ended)
    for output in ended.said:
        (reported,) = errors(output)
        assert reported.startswith("no checkpoint was written at step 6: rank 1: ")
        assert "The checkpoint at step 3 is intact" in reported
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000003"], "no part of it takes room"
    check_resumed(launcher, arguments, run, 3)


def _file_for_folder(run: Path) -> None:
    (run / "checkpoints").touch()


def _file_for_checkpoint(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-00000003").touch()


@pytest.mark.parametrize("hinder", [_file_for_folder, _file_for_checkpoint])
def test_a_folder_that_cannot_be_written(
    hinder: Callable[[Path], None], launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """All ranks report that there is no checkpoint; none waits for the first rank, which alone met the error."""
    run = tmp_path / "run"
    running = launcher.start(command(frozen_set, run, "--save-steps", 3), 2)
    await_steps(running, run, 1)
    hinder(run)
    ended = running.wait()
    assert ended.codes == [1, 1], ended.said
    check_no_traceback(ended)
    assert any(reported.startswith("no checkpoint was written at step 3: ") for reported in errors(ended.said[0])), (
        ended.said
    )
    assert not list((run / "checkpoints").glob("step-*/*"))


def test_a_loss_that_is_not_a_number(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """The first step throws the weights far out; the second one's batch is named, and what it would do is not done."""
    run = tmp_path / "run"
    wild = ("--lr", 1e30, "--clip", 0, "--warmup-ratio", 0, "--save-steps", 1)
    ended = launcher.run(*command(frozen_set, run, *wild))
    assert ended.codes == [1, 1], ended.said
    check_no_traceback(ended)
    plan = Plan([open_set(frozen_set)], seed=0, global_batch=GLOBAL_BATCH)
    bad = steps_told(run)
    assert bad >= 1
    for output in ended.said:
        (reported,) = errors(output)
        assert reported.startswith(f"step {bad}: the loss is ")
        assert all(key in reported for key in keys_of(plan, plan.step(bad)))
    assert max(checkpoints_of(run)) == bad
    for path in (run / "checkpoints").glob("step-*/*.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(path).values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_flipped_bit_ends_the_run(workers: int, launcher: Launcher, copy_of_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    bad = 2
    row = int(Plan([open_set(copy_of_set)], seed=0, global_batch=GLOBAL_BATCH).step(bad).rows[0])
    where = flip_bit(copy_of_set, row)
    ended = launcher.run(*command(copy_of_set, run, "--workers", workers))
    assert ended.codes == [1, 1], ended.said
    check_no_traceback(ended)
    assert [item["step"] for item in metrics_of(run)] == list(range(bad))
    reported = [errors(output) for output in ended.said]
    assert all(reported), "each rank says why it ends"
    assert any(where in line for lines in reported for line in lines), (where, reported)
    assert checkpoints_of(run) == []


def test_settings_that_do_not_fit_the_shards(
    launcher: Launcher, bin_set: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """Nothing is left of a run that could not begin."""
    for shards, options, code, reported in (
        (tmp_path / "nowhere", (), 1, f"{tmp_path / 'nowhere'}: no such folder; "),
        (bin_set, (), 2, f"{bin_set} has bin boxes, and the model writes text boxes: "),
        (frozen_set, ("--boxes", "bin"), 2, f"{frozen_set} has text boxes, and the model writes bin boxes: "),
    ):
        run = tmp_path / "run"
        ended = launcher.run(*command(shards, run, *options), world_size=1)
        assert ended.codes == [code], ended.said
        (line,) = errors(ended.said[0])
        assert line.startswith(reported)
        if shards.exists():
            teaches = open_set(shards).lock.render["boxes"] == "bin"  # a model can learn to, not unlearn
            assert line.endswith("or teach the model with --boxes bin") == teaches
        assert not run.exists()


def targets_of(plan: Plan, number: int) -> int:
    """Learned tokens of a step, sample by sample."""
    result = 0
    for set_no, row, variant in shown(plan.step(number)):
        sample = plan.sets[set_no][row]
        rendering = sample.renderings[variant]
        pictures, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
        encoded = encode("qwen2", rendering.turns, byte_tokenizer(), images=pictures, regions=regions)
        result += sum(label != IGNORE for label in encoded.labels[1:])
    return result


def test_bins_and_several_sets(
    launcher: Launcher, bin_set: Path, frozen_set: Path, variants_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "bins"
    ended = launcher.run(*command(bin_set, run, "--boxes", "bin", steps=2))
    assert ended.codes == [0, 0], ended.said
    assert all(re.match(r"[\d-]+ [\d:]+ \[rank 0\] ", line) for line in ended.said[0].splitlines() if "step " in line)
    assert ended.said[1] == "", "the first rank logs for all"
    assert AutoConfig.from_pretrained(run / "model").box_style == "bin"
    assert len(AutoTokenizer.from_pretrained(run / "model").tokenize("<bin_500><bin_1000>")) == 2

    run, steps = tmp_path / "two sets", 4
    ended = launcher.run(*command(frozen_set, run, "--shards", variants_set, "-v", steps=steps))
    assert ended.codes == [0, 0], ended.said
    for rank, said in enumerate(ended.said):
        assert f" [rank {rank}] loading the model (opening the sets took " in said
        assert f" [rank {rank}] in step {steps - 1} (in step {steps - 2} took " in said
    plan = Plan([open_set(frozen_set), open_set(variants_set)], seed=0, global_batch=GLOBAL_BATCH)
    assert {item for i in range(steps) for item, _, _ in shown(plan.step(i))} == {0, 1}
    assert [item["targets"] for item in metrics_of(run)] == [targets_of(plan, i) for i in range(steps)]
