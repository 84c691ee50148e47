"""The reading process of a machine: batches are those of a loader that reads by itself, and its end is an error."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError
from griffon_train.data.dry_read import ReadSample, hashed
from griffon_train.data.loader import Loader
from griffon_train.data.node_reader import CacheSettings, NodeReader, node_reader
from griffon_train.data.plan import Plan
from griffon_train.data.sequential_order import SequentialOrder, StepOrder
from griffon_train.data.steering import Steering


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeReader]:
    """A reading process whose cache has room for everything."""
    running = node_reader(cache=CacheSettings(folder=tmp_path_factory.mktemp("cache"), size_bytes=1 << 24))
    yield running
    running.stop()


def samples(order: StepOrder, reader: NodeReader | None, *, stop: int, **settings: object) -> list[ReadSample]:
    given: dict[str, object] = {"micro_batch": 3, "workers": 2, "image_px": 28, "region_px": 28} | settings
    loader = Loader(order, stop=stop, reader=reader, **given)  # type: ignore[arg-type]
    return [sample for batch in loader for sample in hashed(batch)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_and_the_cache_spares_reads(workers: int, reader: NodeReader, frozen_set: Path) -> None:
    plan = Plan([open_set(frozen_set)], seed=0, global_batch=8)
    stop = plan.steps_of(2)
    before = reader.figures()
    through = samples(plan, reader, stop=stop, workers=workers, cached=True)
    assert through == samples(plan, None, stop=stop)
    total, after = int(plan.sets[0].index["bytes"].sum()), reader.figures()
    assert after["fetched"] - before["fetched"] < 1.02 * total
    assert after["cached"] - before["cached"] > 0.95 * total


def test_skipped_steps_and_validation_are_read_as_without(reader: NodeReader, frozen_set: Path) -> None:
    frozen = open_set(frozen_set)
    plan, validation = Plan([frozen], seed=1, global_batch=8), SequentialOrder([frozen], 50)
    skipped = Steering.of(["2:5"], [])
    through = samples(plan, reader, start=1, stop=9, skipped=skipped)
    assert {sample.step for sample in through} == {1, 5, 6, 7, 8}
    assert through == samples(plan, None, start=1, stop=9, skipped=skipped)
    assert samples(validation, reader, stop=3) == samples(validation, None, stop=3)


def test_a_loader_that_is_left_early_does_not_disturb_the_next(reader: NodeReader, frozen_set: Path) -> None:
    plan = Plan([open_set(frozen_set)], seed=2, global_batch=8)
    for workers in (0, 2):
        batches = iter(Loader(plan, reader=reader, workers=workers, image_px=28, region_px=28))
        next(batches)
        del batches
    assert samples(plan, reader, stop=2) == samples(plan, None, stop=2)


def test_a_missing_shard_is_named_with_its_sample(reader: NodeReader, copy_of_set: Path) -> None:
    frozen = open_set(copy_of_set)
    plan = Plan([frozen], seed=0, global_batch=8)
    for shard in frozen.lock.shards:
        (copy_of_set / shard.name).unlink()
    with pytest.raises(DataError, match=r"\.tar, sample .*: the shard is missing") as raised:
        samples(plan, reader, stop=1, micro_batch=1)
    assert any(frozen.key(int(row)) in str(raised.value) for row in plan.step(0).rows)


def test_the_end_of_the_process_ends_reading_in_one_line(frozen_set: Path) -> None:
    running = node_reader()
    plan = Plan([open_set(frozen_set)], seed=0, global_batch=8)
    batches = iter(Loader(plan, reader=running, image_px=28, region_px=28))
    next(batches)
    running.stop()
    with pytest.raises(DataError, match="the process that reads samples for this machine was killed"):
        for _ in batches:
            pass
