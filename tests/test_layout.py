"""The parts keep their directions, `prep -> shards <- train`, and the base install needs what it says and no torch."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"griffon_prep": "prep", "griffon_shards": "shards", "griffon_train": "train"}
MAY_IMPORT = {
    "griffon_shards": {"griffon_shards"},
    "griffon_prep": {"griffon_prep", "griffon_shards"},
    "griffon_train": {"griffon_train", "griffon_shards"},
}
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
TRAIN_ROOMS = ("text", "data", "config", "distributed", "model", "evaluation", "training", "cli")
"""From the lowest up: a room imports from itself and from those before it."""

VIEW = ROOT / "shards" / "griffon_shards" / "view"
"""Needs the extra `view`; the command imports the server when it runs."""

NOT_IN_BASE = {"torch", "transformers", "deepspeed", "flash_attn", "datasets", "megatron", "ray", "accelerate"}
NOT_IN_BASE |= {"anyio", "starlette", "uvicorn", "fsspec", "s3fs", "gcsfs", "adlfs"}

# Imports a module in a fresh process, and prints every import of what is not in the base install, tried or done.
WATCH = """
import importlib, sys
class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            print(name)
sys.meta_path.insert(0, Watcher())
importlib.import_module({module!r})
"""


def imports_of(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    result: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            result.update(alias.name.partition(".")[0] for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            assert node.module is not None
            result.add(node.module.partition(".")[0])
    return result


def files_of(package: str) -> list[Path]:
    files = sorted((ROOT / PARTS[package] / package).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", PARTS)
def test_parts_import_only_in_their_direction(package: str) -> None:
    for path in files_of(package):
        foreign = (imports_of(path) & PARTS.keys()) - MAY_IMPORT[package]
        assert not foreign, f"{path.relative_to(ROOT)} imports {', '.join(foreign)}"


def rooms_imported_by(path: Path) -> set[str]:
    """The rooms of griffon_train that a file imports from, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("griffon_train.")} & set(TRAIN_ROOMS)


@pytest.mark.parametrize("room", TRAIN_ROOMS)
def test_rooms_of_train_import_only_downwards(room: str) -> None:
    above = set(TRAIN_ROOMS[TRAIN_ROOMS.index(room) + 1 :])
    for path in sorted((ROOT / PARTS["griffon_train"] / "griffon_train" / room).rglob("*.py")):
        assert not rooms_imported_by(path) & above, path.relative_to(ROOT)


@pytest.mark.parametrize("package", ["griffon_train", "griffon_prep"])
def test_few_modules_stand_outside_of_a_room(package: str) -> None:
    assert len(list((ROOT / PARTS[package] / package).glob("[!_]*.py"))) <= 4


IN_EXTRAS = {"imagehash", "pyarrow", "ray", "s3fs", "gcsfs", "adlfs", "aiohttp"}
"""What prep and shards import only where it is needed, and ask for if it is missing."""


def declared(requirements: list[str]) -> set[str]:
    """The names under which requirements are imported."""
    names = [re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower() for requirement in requirements]
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def test_the_base_install_has_what_prep_and_shards_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base, for_view = declared(project["dependencies"]), declared(project["optional-dependencies"]["view"])
    used: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (*files_of("griffon_prep"), *files_of("griffon_shards")):
        used[path.is_relative_to(VIEW)] |= imports_of(path) - PARTS.keys() - sys.stdlib_module_names
    assert used[False] - IN_EXTRAS == base
    assert used[True] - base == for_view
    assert not base & NOT_IN_BASE


@pytest.mark.parametrize("module", ["griffon_prep.cli", "griffon_shards.cli", "griffon_shards", "griffon_prep"])
def test_the_base_commands_do_not_even_look_for_torch(module: str) -> None:
    script = WATCH.format(forbidden=NOT_IN_BASE | {"griffon_train"}, module=module)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("module", ["griffon_prep", "griffon_shards"])
def test_packages_run_as_their_commands(module: str) -> None:
    result = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
    assert result.stdout.startswith(module.replace("_", "-") + ", version ")


def test_every_package_is_installed_with_its_types_and_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package, part in PARTS.items():
        top = ROOT / part / package
        folders = {path.parent for path in files_of(package)}
        named = {".".join((package, *folder.relative_to(top).parts)) for folder in folders}
        assert named == {name for name in settings["packages"] if name.partition(".")[0] == package}
        assert (top / "py.typed").is_file()
        assert "py.typed" in settings["package-data"][package]
