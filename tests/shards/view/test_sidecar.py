"""The sidecar in the cache: built once, whole or not at all, by one of several processes."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from griffon_shards import open_set
from griffon_shards.support.worker_pool import LocalPool
from griffon_shards.types import Sample
from griffon_shards.view import serving, sidecar_build
from griffon_shards.view.sidecar import Sidecar
from griffon_shards.view.sidecar_build import ensure_sidecar, remove_unfinished, sidecar_path

from ...waiting import TIMEOUT_S
from .conftest import View

# Builds a sidecar like the command. After so many samples it stops for good, if that is not 0.
BUILD = """
import sys, time
from pathlib import Path
from griffon_shards import open_set
from griffon_shards.view.sidecar_build import ensure_sidecar
root, cache, stop_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
def done(rows):
    if stop_after:
        print("stopped", flush=True)
        time.sleep(1000)
print("begun", flush=True)
ensure_sidecar(open_set(root), cache, workers=1, done=done)
"""


def start(root: Path, cache: Path, stop_after: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(root), str(cache), str(stop_after)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def names(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()}


def test_a_sidecar_is_built_once(frozen_set: Path, tmp_path: Path) -> None:
    frozen, done = open_set(frozen_set), list[int]()
    path = ensure_sidecar(frozen, tmp_path / "cache", workers=1, done=done.append)
    assert sum(done) == len(frozen)
    before = path.stat()
    assert ensure_sidecar(frozen, tmp_path / "cache", workers=1, done=done.append) == path
    assert (path.stat().st_ino, sum(done)) == (before.st_ino, len(frozen))
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0  # it holds the texts of the set


def test_processes_and_one_process_build_the_same(
    frozen_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = open_set(frozen_set)
    alone = Sidecar(ensure_sidecar(frozen, tmp_path / "alone", workers=1))
    monkeypatch.setattr(sidecar_build, "FEW_ROWS", 0)
    monkeypatch.setattr(sidecar_build, "_ROWS_PER_BLOCK", 7)
    monkeypatch.setattr(sidecar_build, "_POSTINGS_PER_CHUNK", 5)
    together = Sidecar(ensure_sidecar(frozen, tmp_path / "together", workers=2))
    assert together.categories("", None, 10**6) == alone.categories("", None, 10**6)
    for name, samples in alone.categories("", None, 10**6)[0]:
        rows = together.rows_with_category(name).tolist()
        assert rows == alone.rows_with_category(name).tolist()
        assert len(rows) == samples
    everything = alone.width_px >= 0
    assert together.categories("", everything, 500) == alone.categories("", everything, 500)
    assert together.rows_with_text("oval").tolist() == alone.rows_with_text("oval").tolist() != []
    for name in ("key", "boxes", "length", "area", "smallest"):
        assert together.order(name).tolist() == alone.order(name).tolist()


def test_a_large_set_is_read_by_a_process_of_its_own(
    frozen_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_view: Callable[..., View]
) -> None:
    monkeypatch.setattr(serving, "FEW_ROWS", 0)
    view = open_view(frozen_set, cache=tmp_path)
    assert view.rows(category="purple star")
    assert sidecar_path(tmp_path, open_set(frozen_set)).name in names(tmp_path)


def test_a_build_that_was_killed_leaves_nothing_behind(frozen_set: Path, tmp_path: Path) -> None:
    frozen = open_set(frozen_set)
    process = start(frozen_set, tmp_path, stop_after=1)
    assert (read_line(process), read_line(process)) == ("begun", "stopped")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    left = names(tmp_path)
    assert sidecar_path(tmp_path, frozen).name not in left
    assert [name for name in left if name.startswith(".tmp-")]
    path = ensure_sidecar(frozen, tmp_path, workers=1)
    assert names(tmp_path) == {path.name, f"{frozen.lock.digest}.lock"}
    assert Sidecar(path).samples == len(frozen)


def test_what_a_killed_build_left_is_removed_unless_another_one_runs(frozen_set: Path, tmp_path: Path) -> None:
    frozen = open_set(frozen_set)
    process = start(frozen_set, tmp_path, stop_after=1)
    assert (read_line(process), read_line(process)) == ("begun", "stopped")
    remove_unfinished(tmp_path, frozen)
    assert any(name.startswith(".tmp-") for name in names(tmp_path))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=TIMEOUT_S)
    remove_unfinished(tmp_path, frozen)
    assert not any(name.startswith(".tmp-") for name in names(tmp_path))


def test_an_interrupt_while_a_large_set_is_read_leaves_nothing(
    frozen_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_view: Callable[..., View]
) -> None:
    frozen = open_set(frozen_set)

    class Interrupted(LocalPool):
        def run(self, *_: object) -> Iterator[Any]:
            (tmp_path / f".tmp-{sidecar_path(tmp_path, frozen).name}").write_bytes(b"half")
            raise KeyboardInterrupt

    monkeypatch.setattr(serving, "FEW_ROWS", 0)
    monkeypatch.setattr(serving, "LocalPool", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_view(frozen_set, cache=tmp_path)
    assert names(tmp_path) == {f"{frozen.lock.digest}.lock"}


def test_of_two_processes_one_waits_for_the_other(frozen_set: Path, tmp_path: Path) -> None:
    first = start(frozen_set, tmp_path, stop_after=1)
    assert (read_line(first), read_line(first)) == ("begun", "stopped")
    second = start(frozen_set, tmp_path)
    assert read_line(second) == "begun"
    time.sleep(1.0)
    assert second.poll() is None  # it waits, and has not spoilt what the first one writes
    assert len([name for name in names(tmp_path) if name.startswith(".tmp-")]) == 1
    first.kill()
    first.communicate(timeout=TIMEOUT_S)
    second.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 0
    assert sidecar_path(tmp_path, open_set(frozen_set)).is_file()


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, None])
def test_a_damaged_sidecar_is_built_again(frozen_set: Path, tmp_path: Path, content: bytes | None) -> None:
    frozen = open_set(frozen_set)
    path = ensure_sidecar(frozen, tmp_path, workers=1)
    path.write_bytes(path.read_bytes()[:3000] if content is None else content)
    assert Sidecar(ensure_sidecar(frozen, tmp_path, workers=1)).samples == len(frozen)


def test_damage_in_the_middle_is_named_with_what_to_do(
    frozen_set: Path, tmp_path: Path, open_view: Callable[..., View]
) -> None:
    path = ensure_sidecar(open_set(frozen_set), tmp_path, workers=1)
    content = path.read_bytes()
    page_size = int.from_bytes(content[16:18], "big")  # the first pages are enough to open it
    path.write_bytes(content[: 2 * page_size] + bytes(255 - byte for byte in content[2 * page_size :]))
    assert sidecar_build.is_complete(path, open_set(frozen_set))
    view = open_view(frozen_set, cache=tmp_path)
    status, message = view.error("/api/samples", sort="key")
    assert (status, "delete this file" in message, str(path) in message) == (422, True, True)


def test_a_set_that_was_repaired_is_read_again(copy_of_set: Path, tmp_path: Path) -> None:
    frozen = open_set(copy_of_set)
    shard = copy_of_set / frozen.lock.shards[0].name
    kept = shutil.copy(shard, tmp_path / "kept")
    shard.unlink()
    first = Sidecar(ensure_sidecar(open_set(copy_of_set), tmp_path / "cache", workers=1))
    assert first.damaged == frozen.lock.shards[0].samples
    shutil.copy(kept, shard)
    assert Sidecar(ensure_sidecar(open_set(copy_of_set), tmp_path / "cache", workers=1)).damaged == 0


def test_another_set_in_the_same_folder_has_a_sidecar_of_its_own(
    tmp_path: Path,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
    open_view: Callable[..., View],
) -> None:
    root, cache = tmp_path / "set", tmp_path / "cache"
    write_set(root, [make_sample("DET_a-000000000")])
    assert open_view(root, cache=cache).rows(category="cat") == [0]
    shutil.rmtree(root)
    write_set(root, [make_sample("DET_a-000000000", "dog-[0.100,0.200,0.300,0.400]")])
    assert open_view(root, cache=cache).rows(category="cat") == []
    assert open_view(root, cache=cache).rows(category="dog") == [0]


def test_thumbnails_of_two_sets_share_a_cache_of_bounded_size(
    frozen_set: Path, tmp_path: Path, open_view: Callable[..., View]
) -> None:
    """The fixture allows one megabyte; two servers write to it by turns."""
    views = [open_view(frozen_set, cache=tmp_path) for _ in range(2)]
    rows = [card["row"] for card in views[0].get("/api/samples", limit=200)["samples"] if card["image"]]
    small = [views[row % 2].client.get(f"/thumbnail/0/{row}").content for row in rows]
    assert [views[1 - row % 2].client.get(f"/thumbnail/0/{row}").content for row in rows] == small
    assert (tmp_path / "thumbnails.sqlite").stat().st_size < 2_000_000
    assert sum(map(len, small)) > 1 << 20
