"""`seen` on a run that trained: the samples that its metrics vouch for, without those of a skipped step."""

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from ..conftest import Run
from .conftest import command
from .launcher import Launcher

STEPS, SKIPPED = 6, 2


@pytest.fixture(scope="module")
def trained(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("seen") / "run"
    steps = ("--steps", STEPS, "--skip-steps", f"{SKIPPED}:{SKIPPED + 1}", "--grouping", "task", "--seed", 3)
    size = ("--global-batch", 4, "--micro-batch", 2, "--workers", 0, "--weight", "DET_shapes=2")
    ended = launcher.run(*command(frozen_set, run, *steps, *size), world_size=1)
    assert ended.codes == [0], ended.said
    return run


@pytest.fixture(scope="module")
def keys(trained: Path, frozen_set: Path, train_cli: Run) -> list[list[str]]:
    """The keys of each step, as `plan` gives them."""
    options = ("--grouping", "task", "--seed", 3, "--global-batch", 4, "--weight", "DET_shapes=2")
    said = train_cli("plan", frozen_set, *options, "--steps", STEPS, "--json")
    return [orjson.loads(line)["keys"] for line in said.stdout.splitlines()]


def test_a_step_a_key_and_a_source(trained: Path, train_cli: Run, keys: list[list[str]]) -> None:
    step = orjson.loads(train_cli("seen", trained, "--step", 4, "--json").stdout)
    assert (step["step"], step["skipped"], step["keys"]) == (4, False, keys[4])
    used = [key for number, of_step in enumerate(keys) if number != SKIPPED for key in of_step]
    for key in (keys[0][1], keys[SKIPPED][0], keys[5][3]):
        lines = [orjson.loads(line) for line in train_cli("seen", trained, "--key", key, "--json").stdout.splitlines()]
        places = [(number, slot) for number, of_step in enumerate(keys) for slot in range(4) if of_step[slot] == key]
        assert [(line["step"], line["slot"]) for line in lines] == [each for each in places if each[0] != SKIPPED]
    for line in map(orjson.loads, train_cli("seen", trained, "--json").stdout.splitlines()):
        assert line["shown"] == sum(key.startswith(f"{line['tag']}-") for key in used)
        assert (line["before_step"], line["skipped"]) == (STEPS, 1)


def test_a_key_and_a_source_that_were_never_used(trained: Path, train_cli: Run, keys: list[list[str]]) -> None:
    late = next(key for key in keys[5] if not any(key in of_step for of_step in keys[:5]))
    assert train_cli("seen", trained, "--key", late).stdout.startswith(
        f"{late}: used 1 time in steps 0 to 5 (1 skipped)\n"
    )
    said = train_cli("seen", trained, "--key", late, "--before-step", 5).stdout
    assert said == f"{late}: never used in steps 0 to 4 (1 skipped)\n"
    sources = train_cli("seen", trained, "--before-step", 1, "--source", "LAZY_text").stdout.splitlines()
    was_used = any(key.startswith("LAZY_text-") for key in keys[0])
    assert ("never" in sources[-1]) == (not was_used)


def test_the_steps_before_a_step(trained: Path, train_cli: Run, keys: list[list[str]]) -> None:
    said = train_cli("seen", trained, "--before-step", 4, "--steps", 2, "--json")
    assert [orjson.loads(line)["keys"] for line in said.stdout.splitlines()] == [keys[1], keys[3]]
    of_group = train_cli("seen", trained, "--before-step", 6, "--steps", 9, "--group", "localization", "--json")
    lines = [orjson.loads(line) for line in of_group.stdout.splitlines()]
    assert lines
    assert {line["group"] for line in lines} == {"localization"}
    assert all(line["keys"] == keys[line["step"]] for line in lines)


def test_a_run_is_refused_once_its_set_is_another(
    trained: Path, train_cli: Run, freeze_demo: Callable[..., Path], frozen_set: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    other = freeze_demo(tmp_path / "other", "--seed", "1", "--samples-per-shard", "20")
    settings = (run / "settings.json").read_text(encoding="utf-8")
    (run / "settings.json").write_text(settings.replace(str(frozen_set), str(other)), encoding="utf-8")
    said = train_cli("seen", run, "--step", 0)
    assert said.returncode == 1
    assert "step 5 used other samples" in said.stderr
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step":6,"skipped":true,"epoch":0,"group":"text"}\n')
    said = train_cli("seen", run, "--step", 0)
    assert said.returncode == 1
    assert "step 5 used other samples" in said.stderr


def test_nothing_is_before_the_first_step(trained: Path, train_cli: Run, keys: list[list[str]]) -> None:
    before = ("seen", trained, "--before-step", 0)
    assert train_cli(*before).stdout == "no step was taken before step 0\n"
    assert train_cli(*before, "--group", "text").stdout == "no step of group text was taken before step 0\n"
    assert train_cli(*before, "--json").stdout == ""
    assert train_cli(*before, "--key", keys[0][0]).stdout == f"{keys[0][0]}: never used in 0 steps\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--step", STEPS), f"has taken {STEPS} steps so far"),
        (("--before-step", STEPS + 1), f"has taken {STEPS} steps so far"),
        (("--before-step", 4, "--group", "everything"), "the run's plan has the groups text, general, localization"),
        (("--source", "nothing"), "the run's sources are "),
        (("--group", "text"), "need --before-step"),
        (("--step", 1, "--key", "a"), "give one of"),
    ],
)
def test_questions_without_an_answer(
    trained: Path, train_cli: Run, arguments: tuple[object, ...], problem: str
) -> None:
    said = train_cli("seen", trained, *arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert problem in said.stderr


def test_an_unknown_key_and_a_folder_without_a_run(trained: Path, train_cli: Run, tmp_path: Path) -> None:
    assert train_cli("seen", trained, "--key", "DET_shapes-000999999").returncode == 1
    assert train_cli("seen", trained, "--key", "nothing").returncode == 1
    said = train_cli("seen", tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert "give the --output-dir of a run" in said.stderr


def test_a_truncated_log_proves_nothing(trained: Path, train_cli: Run, tmp_path: Path) -> None:
    """The run has a checkpoint of a later step, so its log does not list all that it has used."""
    copy = shutil.copytree(trained, tmp_path / "run")
    log = copy / "metrics.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]))
    result = train_cli("seen", copy)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{log}: ends after 2 steps, but there is a checkpoint after {STEPS}: " in result.stderr
