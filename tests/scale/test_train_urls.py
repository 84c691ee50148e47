"""Training from a bucket: what is read is what is on disk, through every fault that passes; others are one line."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffon_shards.frozen_set import open_set
from griffon_shards.storage import client
from griffon_shards.support.errors import DataError
from griffon_train.cli.main import main
from griffon_train.data.loader import Loader
from griffon_train.data.node_reader import NodeReader, node_reader
from griffon_train.data.plan import Plan
from griffon_train.text.tokenization import Encoded

from .buckets import upload
from .faulty_proxy import Faults, FaultyProxy

pytestmark = pytest.mark.scale


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user cache"))


@pytest.fixture
def reading(proxy: FaultyProxy, faulty_bucket: str, frozen_set: Path) -> Iterator[tuple[Plan, NodeReader]]:
    """A plan over a set in a bucket, without faults so far, and the reading process of this machine."""
    proxy.configure(Faults(refuse_share=0, cut_share=0))
    plan = Plan([open_set(upload(frozen_set, f"{faulty_bucket}/set"))], seed=0, global_batch=8)
    reader = node_reader()
    yield plan, reader
    reader.stop()


def result_of(run: Path) -> Mapping[str, bytes]:
    files = [run / "metrics.jsonl", run / "model" / "model.safetensors", *run.rglob("step-*/*.safetensors")]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def run_command(shards: object, run: Path, *options: object) -> list[str]:
    model = ("--stage", "custom", "--model", "tiny-gemma2", "--device", "cpu", "--global-batch", 4, "--micro-batch", 2)
    given = ("run", *model, "--shards", shards, "--output-dir", run, "--steps", 4, *options)
    return [sys.executable, "-m", "griffon_train", *map(str, given)]


def test_a_run_is_the_same_from_disk_from_a_faulty_bucket_and_through_a_cache(
    faulty_bucket: str, proxy: FaultyProxy, frozen_set: Path, tmp_path: Path
) -> None:
    url = upload(frozen_set, f"{faulty_bucket}/set")
    before = proxy.counters()
    proxy.configure(Faults(latency_s=0.05, refuse_share=0.2, cut_share=0.1))
    cache = ("--cache", tmp_path / "cache", "--cache-size", "2MB")
    runs = {"disk": (frozen_set,), "bucket": (url,), "cached": (url, *cache), "disk cached": (frozen_set, *cache)}
    for name, (shards, *options) in runs.items():
        done = subprocess.run(run_command(shards, tmp_path / name, *options), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    results = {name: result_of(tmp_path / name) for name in runs}
    assert all(result == results["disk"] for result in results.values())
    after = proxy.counters()
    assert after.refused > before.refused and after.cut > before.cut, "there were faults"


def test_each_sample_is_one_request_even_though_its_targets_are_counted_before(
    reading: tuple[Plan, NodeReader],
) -> None:
    plan, reader = reading
    before = reader.figures()["fetched"]
    loader = Loader(plan, micro_batch=4, image_px=28, region_px=28, stop=5, reader=reader, encode=_no_tokens)
    for share in loader.steps():
        list(share.batches)
    wanted = sum(int(plan.sets[0].index["bytes"][row]) for step in range(5) for row in plan.step(step).rows)
    assert reader.figures()["fetched"] - before == wanted


def _no_tokens(*_: object) -> tuple[Encoded, bool]:
    return Encoded(ids=[1, 1], labels=[1, 1]), False


def test_commands_take_urls(bucket: str, frozen_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = upload(frozen_set, f"{bucket}/set")
    monkeypatch.chdir(tmp_path)

    def printed(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    for command in (("plan", "--steps", 3), ("read", "--steps", 2, "--world-size", 2, "--image-px", 28)):
        name, *options = command
        given = ("--global-batch", 8, *options)
        assert printed(name, url, *given) == printed(name, frozen_set, *given)
    model = ("--width", 32, "--layers", 1, "--heads", 2, "--vision-width", 32, "--vision-layers", 2)
    for place, root in (("disk", frozen_set), ("bucket", url)):
        printed("new-model", tmp_path / place, "--like", "gemma2", *model, "--vision-heads", 2, "--tokenizer", root)
    tokenizers = [(tmp_path / place / "tokenizer.json").read_bytes() for place in ("disk", "bucket")]
    assert tokenizers[0] == tokenizers[1]
    counting = ("--tokenizer", tmp_path / "disk", "--chat", "gemma_instruct", "--workers", 1)
    printed("lengths", url, *counting)
    printed("lengths", frozen_set, *counting, "--out", tmp_path / "of disk")
    assert (tmp_path / "set.lengths-gemma_instruct").read_bytes() == (tmp_path / "of disk").read_bytes()


def test_a_read_that_was_damaged_on_its_way_is_read_once_more(
    bucket: str, frozen_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = open_set(upload(frozen_set, f"{bucket}/set"))
    read_range: Callable[[str, int, int], bytes] = client.read_range
    reads = []

    def damaged(url: str, start: int, size: int) -> bytes:
        reads.append(url)
        data = read_range(url, start, size)
        return data[:-1] + bytes([data[-1] ^ 1]) if len(reads) in (1, 3, 4) else data

    monkeypatch.setattr(client, "read_range", damaged)
    assert frozen.raw(3) == open_set(frozen_set).raw(3)
    assert len(reads) == 2
    with pytest.raises(DataError, match="damaged, its bytes do not match"):
        frozen.raw(3)


def test_a_bucket_that_is_gone_ends_reading_in_one_line_within_a_minute(
    reading: tuple[Plan, NodeReader], proxy: FaultyProxy
) -> None:
    plan, reader = reading
    batches = iter(Loader(plan, micro_batch=4, image_px=28, region_px=28, reader=reader))
    next(batches)
    proxy.configure(Faults(refuse_share=1, cut_share=0))
    with pytest.raises(
        DataError, match=rf"^sample \S+: {plan.sets[0].root}/\S+\.tar: still fails after \d+ attempts in [1-5]\d s"
    ) as raised:
        for _ in batches:
            pass
    assert "\n" not in str(raised.value)
