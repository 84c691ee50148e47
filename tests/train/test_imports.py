"""A plan is for any machine: whoever only looks at the order of samples waits for no torch and needs none."""

import subprocess
import sys
from pathlib import Path

import pytest

from ..waiting import TIMEOUT_S

HEAVY = ("torch", "transformers", "deepspeed", "tokenizers")
LIGHT = (
    *("data.plan", "data.source_stream", "data.lengths", "data.rank_split", "data.cursor", "data.padding_report"),
    *("data.worker_process", "cli.main", "text.chat_templates", "config.resolve"),
)

# Runs a statement in a process where no heavy library can be found.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
{statement}
"""


def run_without(statement: str) -> subprocess.CompletedProcess[str]:
    script = WITHOUT.format(heavy=HEAVY, statement=statement)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("module", LIGHT)
def test_modules_of_the_plan_do_without_heavy_libraries(module: str) -> None:
    result = run_without(f"import griffon_train.{module}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_plan_command_does_without_heavy_libraries(frozen_set: Path) -> None:
    arguments = ["plan", str(frozen_set), "--global-batch", "4", "--json"]
    result = run_without(f"import griffon_train.cli.main; griffon_train.cli.main.main({arguments!r})")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith('{"step":0,')


def test_the_package_runs_as_its_command() -> None:
    result = subprocess.run([sys.executable, "-m", "griffon_train", "--version"], capture_output=True, text=True)
    assert result.stdout.startswith("griffon-train, version ")
