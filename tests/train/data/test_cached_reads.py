"""A cache on disk for the samples of a machine: what it fetches, what it keeps, and what survives a kill."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import SettingsError
from griffon_train.data.cached_reads import CachedReads
from griffon_train.data.node_reader import CacheSettings, ReadOrder
from griffon_train.data.plan import Plan
from griffon_train.data.read_ahead import node_steps

from .test_sample_cache import lru_bytes, optimal_bytes

Reads = list[tuple[int, int]]


@pytest.fixture
def frozen(frozen_set: Path) -> FrozenSet:
    return open_set(frozen_set)


def order_of(frozen: FrozenSet, epochs: float, **changes: object) -> ReadOrder:
    plan = Plan([frozen], seed=0, global_batch=8)
    given: dict[str, object] = {
        "order": plan, "ranks": (0,), "world_size": 1, "micro_batch": 3, "start": 0, "stop": plan.steps_of(epochs),
        "skipped": (), "cached": True,
    } | changes  # fmt: skip
    return ReadOrder(**given)  # type: ignore[arg-type]


def reads_of(order: ReadOrder) -> Reads:
    return [
        (int(set_no), int(row))
        for step in node_steps(order, order.start)
        for set_no, row in zip(step.sets, step.rows, strict=True)
    ]


class Storage:
    """Reads rows, and counts how often."""

    def __init__(self, frozen: FrozenSet) -> None:
        self._frozen = frozen
        self.reads: Counter[int] = Counter()

    def raw(self, _set_no: int, row: int) -> bytes:
        self.reads[row] += 1
        return self._frozen.raw(row)

    @property
    def fetched(self) -> int:
        return sum(int(self._frozen.index["bytes"][row]) * times for row, times in self.reads.items())


@contextmanager
def cached(order: ReadOrder, folder: Path, size_bytes: int, storage: Storage) -> Iterator[Callable[[Reads], None]]:
    frozen = order.order.sets[0]
    with ThreadPoolExecutor(8) as pool:
        reads = CachedReads(order, CacheSettings(folder=folder, size_bytes=size_bytes), pool, storage.raw)

        def read(pairs: Reads) -> None:
            for start in range(0, len(pairs), 40):
                part = pairs[start : start + 40]
                for (_, row), future in zip(part, [reads.fetch(*pair) for pair in part], strict=True):
                    assert future.result() == frozen.raw(row)

        yield read
        reads.close()


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_half_the_set_in_three_epochs_fetches_what_the_optimal_policy_needs(frozen: FrozenSet, tmp_path: Path) -> None:
    order, storage = order_of(frozen, 3), Storage(frozen)
    sizes = frozen.index["bytes"].tolist()
    capacity, reads = sum(sizes) // 2, reads_of(order_of(frozen, 3))
    with cached(order, tmp_path, capacity, storage) as read:
        read(reads[: len(reads) // 2])
        assert disk_bytes(tmp_path) < capacity + 4096 * (len(sizes) + 20)
        read(reads[len(reads) // 2 :])
    rows = [row for _, row in reads]
    assert storage.fetched <= 1.02 * optimal_bytes(rows, sizes, capacity)
    assert storage.fetched < lru_bytes(rows, sizes, capacity)
    assert disk_bytes(tmp_path) < 4096 * (len(sizes) + 20), "after the end nothing is needed"


def test_with_room_for_everything_each_sample_is_fetched_once(frozen: FrozenSet, tmp_path: Path) -> None:
    order, storage = order_of(frozen, 3), Storage(frozen)
    with cached(order, tmp_path, sum(frozen.index["bytes"].tolist()), storage) as read:
        read(reads_of(order))
    assert set(storage.reads.values()) == {1} and len(storage.reads) == len(frozen)


def test_a_machine_caches_what_its_own_ranks_read(frozen: FrozenSet, tmp_path: Path) -> None:
    storage, everything = Storage(frozen), sum(frozen.index["bytes"].tolist())
    order = order_of(frozen, 3, ranks=(1, 2), world_size=4)
    reads = reads_of(order)
    assert len(reads) == pytest.approx(len(reads_of(order_of(frozen, 3))) / 2, rel=0.05)
    with cached(order, tmp_path, everything, storage) as read:
        read(reads)
    assert set(storage.reads) == {row for _, row in reads} and set(storage.reads.values()) == {1}


def test_what_a_killed_run_has_cached_is_used_by_the_next_and_damage_is_fetched_again(
    frozen: FrozenSet, tmp_path: Path
) -> None:
    everything = sum(frozen.index["bytes"].tolist())
    first, reads = Storage(frozen), reads_of(order_of(frozen, 3))
    child = os.fork()
    if child == 0:  # it ends without closing anything
        with cached(order_of(frozen, 3), tmp_path, everything, first) as read:
            read(reads[: len(frozen) // 2])
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    shards = sorted((path.stat().st_blocks, path) for path in tmp_path.rglob("0*") if path.is_file())
    damaged = shards[-1][1]
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    in_damaged = {row for _, row in reads[: len(frozen) // 2] if f"{frozen.index['shard'][row]:06d}" == damaged.name}
    again = Storage(frozen)
    with cached(order_of(frozen, 3), tmp_path, everything, again) as read:
        read(reads)
    kept = {row for _, row in reads[: len(frozen) // 2]}
    assert in_damaged and set(again.reads) == set(range(len(frozen))) - kept | in_damaged
    assert set(again.reads.values()) == {1}


def test_a_smaller_cache_than_before_is_filled_at_most(frozen: FrozenSet, tmp_path: Path) -> None:
    everything, reads = sum(frozen.index["bytes"].tolist()), reads_of(order_of(frozen, 3))
    with cached(order_of(frozen, 3), tmp_path, everything, Storage(frozen)) as read:
        read(reads[: len(frozen)])
    with cached(order_of(frozen, 3), tmp_path, everything // 4, Storage(frozen)) as read:
        read(reads[:8])
        assert disk_bytes(tmp_path) < everything // 4 + 8192 * len(frozen)


def test_two_runs_do_not_share_a_cache(frozen: FrozenSet, tmp_path: Path) -> None:
    with cached(order_of(frozen, 1), tmp_path, 1000, Storage(frozen)):
        child = os.fork()
        if child == 0:
            with pytest.raises(SettingsError, match="another run uses this cache"):
                CachedReads(
                    order_of(frozen, 1),
                    CacheSettings(folder=tmp_path, size_bytes=1),
                    ThreadPoolExecutor(1),
                    lambda *_: b"",
                )
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_other_sets_leave_the_cache_and_other_files_stay(frozen: FrozenSet, variants_set: Path, tmp_path: Path) -> None:
    other = open_set(variants_set)
    (tmp_path / "mine.txt").write_text("mine")
    with cached(order_of(frozen, 2), tmp_path, 1 << 20, Storage(frozen)) as read:
        read(reads_of(order_of(frozen, 2))[:50])
    with cached(order_of(other, 2), tmp_path, 1 << 20, Storage(other)) as read:
        read(reads_of(order_of(other, 2))[:50])
    assert not list(tmp_path.rglob(frozen.lock.digest)) and list(tmp_path.rglob(other.lock.digest))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_cache_larger_than_its_disk_is_refused(
    frozen: FrozenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    message = re.escape("has 1.0 kB free, and the cache may take 7.6 MB more; give a smaller --cache-size")
    with pytest.raises(SettingsError, match=message), cached(order_of(frozen, 1), tmp_path, 1 << 40, Storage(frozen)):
        pass


def test_a_cache_below_a_file_is_refused(frozen: FrozenSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(SettingsError, match=r"^--cache .*/file: cannot be made \(Not a directory\); give a folder"),
        cached(order_of(frozen, 1), tmp_path / "file", 1000, Storage(frozen)),
    ):
        pass
