"""Building again: up to date, refused, reused, rechecked."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.lock import read_lock, write_lock

from ...waiting import TIMEOUT_S
from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the sample data that the test may change."""
    return shutil.copytree(small_data, tmp_path / "data")


def build_arguments(data: Path, out: Path) -> list[object]:
    manifest = ["--manifest", data / "manifest.txt", "--data-root", data]
    return ["build", *manifest, "--out", out, "--samples-per-shard", 4]


@pytest.fixture
def frozen(data: Path, tmp_path: Path, prep: Prep) -> Path:
    out = tmp_path / "frozen"
    result = prep(*build_arguments(data, out))
    assert result.returncode == 0, result.stderr
    return out


def snapshot(out: Path) -> dict[str, tuple[int, int]]:
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and ".griffon-build" not in path.parts]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_second_build_is_up_to_date(data: Path, frozen: Path, prep: Prep, lock_of: LockOf) -> None:
    before = snapshot(frozen)
    for annotation in (data / "ccmd").iterdir():
        os.utime(annotation, (1, 1))  # the time alone says nothing: the content is hashed
    result = prep(*build_arguments(data, frozen))
    assert result.returncode == 0
    assert f"{frozen}: up to date" in result.stderr
    assert result.stdout.splitlines()[-1] == f"digest {lock_of(frozen)['digest']}"
    assert snapshot(frozen) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", 9], "--seed was 0 and is 9"),
        (["--samples-per-shard", 7], "--samples-per-shard was [4, 4] and is [7, 7]"),
        (["--resize", 64], "--resize was 0 and is 64"),
    ],
)
def test_other_settings_are_refused(data: Path, frozen: Path, prep: Prep, change: list[object], message: str) -> None:
    before = snapshot(frozen)
    result = prep(*build_arguments(data, frozen), *change)
    assert result.returncode == 1
    assert message in result.stderr
    assert f"--out NEW --reuse {frozen}" in result.stderr
    assert snapshot(frozen) == before


def test_a_set_of_an_earlier_version_is_refused(data: Path, frozen: Path, prep: Prep) -> None:
    """It may hold samples that would come out differently now, so it is not called up to date."""
    lock = read_lock(frozen)
    write_lock(frozen, replace(lock, render={**lock.render, "render_version": 1}))
    result = prep(*build_arguments(data, frozen))
    assert result.returncode == 1
    assert "it was started with another version of griffon-prep, which renders some records" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("DET_shapes & ccmd/det.jsonl & pictures", "DET_shapes & ccmd/det.jsonl & pictures & weight=2", "weight was 1"),
        ("DET_shapes & ccmd/det.jsonl & pictures", "DET_shapes & ccmd/det.jsonl & pictures & limit=3", "options"),
        ("DET_shapes & ccmd/det.jsonl & pictures", "", "source DET_shapes was removed"),
        ("DET_shapes & ccmd/det.jsonl", "DET_other & ccmd/det.jsonl", "source DET_other was added"),
        ("VG_shapes & ccmd/vg.jsonl", "VG_shapes & ccmd/reg.jsonl", "source VG_shapes: annotation"),
    ],
)
def test_another_manifest_is_refused(data: Path, frozen: Path, prep: Prep, old: str, new: str, message: str) -> None:
    manifest = data / "manifest.txt"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    result = prep(*build_arguments(data, frozen))
    assert result.returncode == 1
    assert message in result.stderr


def test_a_changed_annotation_is_refused_and_then_reused(
    data: Path, frozen: Path, tmp_path: Path, prep: Prep, lock_of: LockOf
) -> None:
    with (data / "ccmd/vg.jsonl").open("ab") as file:
        file.write((data / "ccmd/vg.jsonl").read_bytes().splitlines(keepends=True)[0])
    assert "source VG_shapes: annotation_sha256 changed" in prep(*build_arguments(data, frozen)).stderr
    new, fresh = tmp_path / "new", tmp_path / "fresh"
    reused = prep(*build_arguments(data, new), "--reuse", frozen)
    assert reused.returncode == 0, reused.stderr
    assert "LAZY_caption, LAZY_text, DET_shapes, RANDDET_shapes, REG_shapes, VISJ_shapes\n" in reused.stderr
    assert prep(*build_arguments(data, fresh)).returncode == 0
    assert lock_of(new) == lock_of(fresh)
    for tar in new.glob("*/*.tar*"):
        linked = tar.stat().st_ino == (frozen / tar.relative_to(new)).stat().st_ino
        assert linked == (tar.parent.name != "VG_shapes"), tar


def test_reuse_with_other_settings_links_nothing(data: Path, frozen: Path, tmp_path: Path, prep: Prep) -> None:
    result = prep(*build_arguments(data, tmp_path / "new"), "--seed", 1, "--reuse", frozen)
    assert result.returncode == 0
    assert "nothing, because all sources or settings have changed" in result.stderr
    assert all(tar.stat().st_nlink == 1 for tar in (tmp_path / "new").glob("*/*.tar"))


def test_overwrite_leaves_nothing_of_the_old_set(
    data: Path, frozen: Path, tmp_path: Path, prep: Prep, lock_of: LockOf
) -> None:
    (frozen / "notes.txt").write_text("mine")
    arguments = [*build_arguments(data, frozen), "--samples-per-shard", 9, "--overwrite"]
    assert prep(*arguments).returncode == 0
    assert (frozen / "notes.txt").read_text() == "mine"
    tars = {tar.relative_to(frozen).as_posix() for tar in frozen.glob("*/*.tar")}
    assert tars == {shard["name"] for shard in lock_of(frozen)["shards"]}
    assert lock_of(frozen)["render"]["samples_per_shard"] == [9, 9]


def test_recheck_finds_a_changed_image(data: Path, frozen: Path, prep: Prep) -> None:
    assert "all images are unchanged" in prep(*build_arguments(data, frozen), "--recheck").stderr
    picture = next(path for path in sorted((data / "pictures").rglob("*.jpg")))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert prep(*build_arguments(data, frozen)).returncode == 0  # images are not compared unless asked
    before = snapshot(frozen)
    result = prep(*build_arguments(data, frozen), "--recheck")
    assert result.returncode == 1
    assert "images have changed since the set was frozen" in result.stderr
    assert "DET_shapes/DET_shapes-" in result.stderr
    assert snapshot(frozen) == before


def test_a_folder_of_something_else_is_untouched(data: Path, tmp_path: Path, prep: Prep) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for option in ([], ["--overwrite"]):
        result = prep(*build_arguments(data, other), *option)
        assert result.returncode == 2
        assert "contains files but is not a shard set" in result.stderr
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@pytest.fixture
def read_only(tmp_path: Path) -> Prep:
    """`griffon-prep ARGUMENTS` with all of `tmp_path` on a file system that is mounted read-only."""
    alone = ["unshare", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "mount --bind /tmp /tmp"], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*alone, READ_ONLY, "sh", tmp_path, sys.executable, "-m", "griffon_prep", *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT_S)

    return run


def test_a_read_only_set_can_be_checked_for_being_up_to_date(
    data: Path, frozen: Path, tmp_path: Path, read_only: Prep, lock_of: LockOf
) -> None:
    (frozen / ".griffon-build/lock").unlink()  # as in a copy
    before = snapshot(tmp_path)
    for option in ([], ["--recheck"]):
        asked = read_only(*build_arguments(data, frozen), *option)
        assert asked.returncode == 0, asked.stderr
        assert f"{frozen}: up to date" in asked.stderr
        assert asked.stdout.splitlines()[-1] == f"digest {lock_of(frozen)['digest']}"
    other = read_only(*build_arguments(data, frozen), "--seed", 9)
    assert (other.returncode, "--seed was 0 and is 9" in other.stderr) == (1, True)
    replaced = read_only(*build_arguments(data, frozen), "--overwrite")
    assert (replaced.returncode, replaced.stderr.count("\n")) == (1, 1)
    new = tmp_path / "sets" / "new"
    refused = read_only(*build_arguments(data, new))
    assert refused.returncode == 2
    assert refused.stderr == f"error: {new}: not writable (Read-only file system); give --out a writable folder\n"
    assert snapshot(tmp_path) == before
