"""What a folder that is given as a model may be: every command recognises the same, and says what it takes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ..conftest import Run
from ..evaluation.conftest import drawing
from ..model_folders import language_model_folder, tower_folder

pytestmark = pytest.mark.xdist_group("adapted")  # one process makes the fixtures, which take long

SAVED, RUN = "a saved model", "the output folder of a run"
CHECKPOINT, ADAPTER = "a checkpoint of a run", "an adapter of a run"


def with_file(name: str, content: str = "{}") -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_text(content)

    return make


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a saved model": (with_file("config.json", '{"model_type": "griffon"}'), SAVED),
    "a run": (with_file("settings.json"), RUN),
    "a checkpoint": (with_file("checkpoint.json"), CHECKPOINT),
    "an adapter": (with_file("griffon_base.json"), ADAPTER),
    "a language model": (lambda at: language_model_folder(at, "qwen2"), "a language model without a vision tower"),
    "a tower": (tower_folder, "a vision model (clip_vision_model)"),
    "an adapter of others": (
        with_file("adapter_config.json", '{"base_model_name_or_path": "google/gemma-2-2b"}'),
        "a PEFT adapter of google/gemma-2-2b",
    ),
    "an empty folder": (lambda at: at.mkdir(), "an empty folder"),
}

COMMANDS: dict[str, tuple[Callable[[Path], Sequence[object]], str, tuple[str, ...]]] = {
    "memory --from": (lambda given: ("memory", "--stage", "sft", "--from", given), "--from", (RUN, ADAPTER)),
    "ask": (
        lambda given: ("ask", given, given.with_name("a.png"), "Where?", "--device", "cpu"),
        "model",
        (SAVED, RUN, CHECKPOINT, ADAPTER),
    ),
    "convert merge": (lambda given: ("convert", "merge", given, given.with_name("out")), "SRC", (RUN, ADAPTER)),
    "convert export": (lambda given: ("convert", "export", given, given.with_name("out")), "SRC", (SAVED, RUN)),
}


def listed(kinds: Sequence[str]) -> str:
    return f"{', '.join(kinds[:-1])} or {kinds[-1]}"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_command_names_what_it_was_given_and_what_it_takes(
    command: str, folder: str, tmp_path: Path, train_cli: Run
) -> None:
    arguments, option, accepted = COMMANDS[command]
    make, kind = FOLDERS[folder]
    given = tmp_path / "given"
    make(given)
    drawing().save(tmp_path / "a.png")
    said = train_cli(*arguments(given))
    line = said.stderr.splitlines()[-1]
    assert line.startswith("error: ") and said.returncode in (1, 2)
    if kind in accepted:  # it has nothing but the file that it is recognised by
        assert f"{given}: {kind}; expected" not in line
    else:
        assert line.startswith(f"error: {option} {given}: {kind}; expected {listed(accepted)}")
        assert said.returncode == 2
