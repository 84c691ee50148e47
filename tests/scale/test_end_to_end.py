"""From annotations in a bucket to training, on a network that throttles and loses connections: the same as on disk."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from griffon_shards.lock import read_lock
from griffon_shards.storage import as_location

from ..train.training.launcher import Launcher
from .buckets import upload
from .faulty_proxy import FaultyProxy
from .stores import STORES

pytestmark = pytest.mark.scale

STEPS = 5


def run(module: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def losses(run: Path) -> list[tuple[int, float, str]]:
    """Step, loss and hash of the samples of each step."""
    metrics = [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    return [(line["step"], line["loss"], line["batch_id"]) for line in metrics]


@pytest.mark.parametrize("provider", list(STORES))
def test_build_copy_and_training_in_buckets_are_those_on_disk(
    faulty_bucket: str, proxy: FaultyProxy, demo_data: Path, freeze_demo: Callable[..., Path], tmp_path: Path
) -> None:
    options = ["--samples-per-shard", "20"]
    on_disk = freeze_demo(tmp_path / "on-disk", *options)
    manifest = tmp_path / "manifest.txt"
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if "& llava/" in line or "& ccmd/" in line), encoding="utf-8")
    upload(demo_data, f"{faulty_bucket}/data")

    built, copied = f"{faulty_bucket}/sets/built", f"{faulty_bucket}/copies/of it"
    source = ["--manifest", manifest, "--data-root", f"{faulty_bucket}/data"]
    run("griffon_prep", "build", *source, "--out", built, "--workers", 2, *options)
    run("griffon_shards", "copy", built, copied)
    digest = read_lock(on_disk).digest
    assert [read_lock(as_location(url)).digest for url in (built, copied)] == [digest, digest]

    settings = ["--stage", "custom", "--model", "tiny-gemma2", "--steps", STEPS, "--global-batch", 4, "--device", "cpu"]
    cached = ["--cache", tmp_path / "cache", "--cache-size", "1MB"]
    with Launcher(tmp_path) as launcher:
        for shards, out, *cache in ((on_disk, tmp_path / "run-disk"), (copied, tmp_path / "run-bucket", *cached)):
            ended = launcher.run("run", *settings, "--shards", shards, "--output-dir", out, *cache, world_size=2)
            assert ended.codes == [0, 0], ended.said
    assert len(losses(tmp_path / "run-disk")) == STEPS
    assert losses(tmp_path / "run-bucket") == losses(tmp_path / "run-disk")
    counters = proxy.counters()
    assert counters.refused > 0 and counters.cut > 0
