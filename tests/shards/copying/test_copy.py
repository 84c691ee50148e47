"""`griffon-shards copy` between folders: a copy is the same set, and never looks frozen before it is complete."""

import itertools
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from griffon_shards import verify_set
from griffon_shards.copying.copy_set import plan_copy, run_copy
from griffon_shards.copying.files import COPY_LOCK_NAME
from griffon_shards.index import INDEX_NAME
from griffon_shards.lock import LOCK_NAME, REJECTS_NAME, read_lock
from griffon_shards.support.errors import DataError, SettingsError

Cli = Callable[..., subprocess.CompletedProcess[str]]


def content_of(folder: Path) -> dict[str, bytes]:
    """All files of a set by name; without those that a build works with."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.startswith(".griffon-build/")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A place for a copy, which does not exist yet."""
    return tmp_path / "复制 of it" / "set"


def copy(cli: Cli, source: Path, target: Path, *options: object) -> str:
    ended = cli("copy", source, target, *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def refused(cli: Cli, source: Path, target: Path, *options: object, code: int) -> str:
    ended = cli("copy", source, target, *options)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr.startswith("error: ")
    assert len(ended.stderr.splitlines()) == 1
    return ended.stderr


def test_a_copy_is_the_same_set(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    said = copy(shards_cli, frozen_set, target)
    assert content_of(target) == content_of(frozen_set)
    assert not list(verify_set(target, deep=True))
    files, digest = len(content_of(target)) - 1, read_lock(frozen_set).digest
    assert said.startswith(f"copied {files} files, ")
    assert said.endswith(f"digest {digest}\n")
    assert copy(shards_cli, frozen_set, target) == f"up to date: {target} has the digest {digest}\n"


def test_a_dry_run_writes_nothing(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    files = len(content_of(frozen_set)) - 1
    assert copy(shards_cli, frozen_set, target, "--dry-run").startswith(f"would copy {files} files (")
    assert not target.exists()
    copy(shards_cli, frozen_set, target)
    (target / LOCK_NAME).unlink()
    assert f"and keep {files} files (" in copy(shards_cli, frozen_set, target, "--dry-run")
    assert not (target / LOCK_NAME).exists()


def test_files_that_are_there_are_kept_and_read(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    shards = read_lock(frozen_set).shards
    whole, damaged, cut = (frozen_set / shard.name for shard in shards[:3])
    for path in (whole, damaged, cut):
        (target / path.relative_to(frozen_set)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.relative_to(frozen_set))
    data = bytearray(damaged.read_bytes())
    data[1000] ^= 1
    (target / shards[1].name).write_bytes(data)
    (target / shards[2].name).write_bytes(cut.read_bytes()[:-1])
    kept = (target / shards[0].name).stat().st_mtime_ns
    said = copy(shards_cli, frozen_set, target)
    assert "; kept 1 file (read again)\n" in said
    assert content_of(target) == content_of(frozen_set)
    assert (target / shards[0].name).stat().st_mtime_ns == kept


def test_without_verification_a_size_is_enough(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    shard = read_lock(frozen_set).shards[0]
    (target / shard.name).parent.mkdir(parents=True)
    (target / shard.name).write_bytes(bytes(shard.bytes))
    assert "; kept 1 file\n" in copy(shards_cli, frozen_set, target, "--no-verify")
    assert (target / shard.name).read_bytes() == bytes(shard.bytes)


def test_a_frozen_copy_that_lost_a_file_gets_it_back(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    copy(shards_cli, frozen_set, target)
    (target / read_lock(frozen_set).shards[0].name).unlink()
    assert copy(shards_cli, frozen_set, target).startswith("copied 1 file, ")
    assert content_of(target) == content_of(frozen_set)


@pytest.mark.parametrize(
    ("name", "damage"),
    [*itertools.product(("shard", INDEX_NAME), ("altered", "cut", "gone")), (REJECTS_NAME, "gone")],
)
def test_a_damaged_source_is_not_frozen_again(
    copy_of_set: Path, target: Path, shards_cli: Cli, name: str, damage: str
) -> None:
    path = copy_of_set / (read_lock(copy_of_set).shards[2].name if name == "shard" else name)
    data = bytearray(path.read_bytes())
    size_bytes = len(data)
    if damage == "gone":
        path.unlink()
    else:
        data[1500] ^= 1
        path.write_bytes(data if damage == "altered" else data[:-1])
    says = {
        "altered": "damaged, its SHA-256 is",
        "cut": f"has {size_bytes - 1:,} of {size_bytes:,} bytes",
        "gone": "missing",
    }
    assert f"error: {path}: {says[damage]}" in refused(shards_cli, copy_of_set, target, code=1)
    assert not (target / LOCK_NAME).exists()
    assert not list(target.rglob(".tmp-*"))


def test_a_source_that_is_not_frozen_is_refused(copy_of_set: Path, target: Path, shards_cli: Cli) -> None:
    (copy_of_set / LOCK_NAME).unlink()
    assert "not a frozen set" in refused(shards_cli, copy_of_set, target, code=1)
    assert "no such folder" in refused(shards_cli, copy_of_set / "nothing", target, code=1)
    assert not target.exists()


def test_another_set_is_never_overwritten(frozen_set: Path, variants_set: Path, target: Path, shards_cli: Cli) -> None:
    copy(shards_cli, variants_set, target)
    before = content_of(target)
    assert f"{target}: holds another set (digest " in refused(shards_cli, frozen_set, target, code=2)
    (target / LOCK_NAME).unlink()
    assert "is not the index of this set" in refused(shards_cli, frozen_set, target, code=2)
    del before[LOCK_NAME]
    assert content_of(target) == before


def test_half_a_copy_of_another_set_with_the_same_names_is_refused(
    frozen_set: Path, target: Path, shards_cli: Cli
) -> None:
    target.mkdir(parents=True)
    (target / INDEX_NAME).write_bytes(bytes((frozen_set / INDEX_NAME).stat().st_size))
    assert f"{target / INDEX_NAME}: is not the index of this set" in refused(shards_cli, frozen_set, target, code=2)
    assert list(content_of(target)) == [INDEX_NAME]


def test_foreign_files_are_refused(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    target.mkdir(parents=True)
    (target / "thesis.tex").write_text("years of work")
    assert "such as thesis.tex; give an empty DST" in refused(shards_cli, frozen_set, target, code=2)
    target = target / "thesis.tex"
    assert "is a file; give a folder" in refused(shards_cli, frozen_set, target, code=2)


@pytest.mark.parametrize("place", [".", "inside", "inside/deep", ".."])
def test_source_and_destination_within_each_other(copy_of_set: Path, shards_cli: Cli, place: str) -> None:
    before = content_of(copy_of_set)
    message = refused(shards_cli, copy_of_set, copy_of_set / place, code=2)
    assert "SRC itself" in message or "within each other" in message
    assert content_of(copy_of_set) == before


def test_a_second_copy_into_the_same_folder_is_refused(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    target.mkdir(parents=True)
    script = (
        "import sys; from pathlib import Path; from griffon_shards.support.folder_lock import lock_folder\n"
        "file = lock_folder(Path(sys.argv[1]), whose='', instead='')\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, target / COPY_LOCK_NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        assert f"{target}: another copy writes into it (process {other.pid}" in refused(
            shards_cli, frozen_set, target, code=2
        )
    copy(shards_cli, frozen_set, target)
    assert content_of(target) == content_of(frozen_set)


def test_a_copy_that_is_killed_is_resumed(frozen_set: Path, target: Path, shards_cli: Cli) -> None:
    """The copy is killed in the middle of a file, again and again; what is complete stays."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from griffon_shards.copying.copy_set import plan_copy, run_copy\n"
        "left = [int(sys.argv[3])]\n"
        "def moved(size):\n"
        "    left[0] -= size\n"
        "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "run_copy(plan_copy(Path(sys.argv[1]), Path(sys.argv[2])), workers=2, verify=True, work=None, moved=moved)\n"
    )
    total = sum(len(data) for data in content_of(frozen_set).values())
    for share in (0.2, 0.6):
        command = [sys.executable, "-c", script, str(frozen_set), str(target), str(int(share * total))]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        assert not (target / LOCK_NAME).exists()
        assert shards_cli("info", target).returncode == 1
        assert list(target.rglob(".tmp-*"))
    assert "; kept " in copy(shards_cli, frozen_set, target)
    assert content_of(target) == content_of(frozen_set)


def test_a_failure_stops_the_other_files(frozen_set: Path, target: Path) -> None:
    def fail(_size: int) -> None:
        raise DataError("the disk is on fire")

    with pytest.raises(DataError, match="on fire"):
        run_copy(plan_copy(frozen_set, target), workers=4, verify=True, work=None, moved=fail)
    assert not list(target.rglob("*.tar"))
    assert not (target / COPY_LOCK_NAME).exists()


def test_a_lock_that_appears_meanwhile_is_not_overwritten(frozen_set: Path, variants_set: Path, target: Path) -> None:
    other = (variants_set / LOCK_NAME).read_bytes()
    moved_once: list[int] = []

    def freeze_another(size_bytes: int) -> None:
        if not moved_once:
            (target / LOCK_NAME).write_bytes(other)
        moved_once.append(size_bytes)

    with pytest.raises(SettingsError, match="holds another set"):
        run_copy(plan_copy(frozen_set, target), workers=1, verify=True, work=None, moved=freeze_another)
    assert (target / LOCK_NAME).read_bytes() == other
