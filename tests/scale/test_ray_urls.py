"""`griffon-prep build --engine ray` between buckets, on nodes that share no disk."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffon_prep.cli import main
from griffon_prep.sample_data import write_sample_data
from griffon_shards import verify_set
from griffon_shards.lock import LOCK_NAME, read_lock
from griffon_shards.storage import ObjectPath

from ..waiting import TIMEOUT_S
from .buckets import upload
from .ray_cluster import Cluster, on_own_disk, ray_cluster
from .stores import STORES

pytest.importorskip("ray")
s3fs = pytest.importorskip("s3fs")
pytestmark = pytest.mark.scale

SETTINGS = ("--samples-per-shard", "4", "--max-rejects", "100%")
FORMATS = ("& llava/", "& yolo/", "& voc/", "& refcoco/", "& openimages/")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder at whose path each node has a file system of its own."""
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def cluster(disk: Path, tmp_path_factory: pytest.TempPathFactory, s3_port: int) -> Iterator[Cluster]:
    if subprocess.run([*on_own_disk(disk), "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    # Without network namespaces, as the S3 server is on the loopback interface.
    with ray_cluster(tmp_path_factory.mktemp("ray"), namespaces=False, **STORES["s3"].environment(s3_port)) as cluster:
        for _ in range(2):
            cluster.add_node(1, disk)
        yield cluster


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "样例 data"
    manifest = write_sample_data(folder, seed=0, images=12)
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [line for form in FORMATS for line in lines if form in line][::2]
    manifest.write_text("".join(chosen), encoding="utf-8")
    return folder


def digest_on_disk(data: Path, out: Path) -> str:
    """The digest of the set that is built from disk to disk."""
    where = ["--manifest", str(data / "manifest.txt"), "--data-root", str(data), "--out", str(out)]
    built = CliRunner().invoke(main, ["build", *where, *SETTINGS])
    assert built.exit_code == 0, built.output
    return read_lock(out).digest


def build(cluster: Cluster, manifest: ObjectPath, out: ObjectPath, work: Path) -> str:
    """Build on the cluster; returns the digest."""
    where = ["--manifest", str(manifest), "--data-root", str(manifest.parent), "--out", str(out), "--work", str(work)]
    engine = ["--engine", "ray", "--ray-address", cluster.address]
    words = [sys.executable, "-m", "griffon_prep", "build", *where, *engine, *SETTINGS]
    built = subprocess.run(words, env=cluster.environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert built.returncode == 0, built.stderr
    assert list(verify_set(out)) == []
    return read_lock(out).digest


def written(out: ObjectPath) -> dict[str, object]:
    """When each shard was put."""
    store = s3fs.S3FileSystem(use_listings_cache=False)
    return {shard.name: store.info(str(out / shard.name))["LastModified"] for shard in read_lock(out).shards}


def test_nodes_that_share_only_the_bucket(
    cluster: Cluster, data: Path, bucket: str, disk: Path, tmp_path: Path
) -> None:
    manifest, out = upload(data, f"{bucket}/data") / "manifest.txt", ObjectPath(f"{bucket}/sets/one")
    digest = digest_on_disk(data, tmp_path / "set")
    assert build(cluster, manifest, out, disk / "work") == digest
    assert (out / "report.html").exists()

    # A shard is lost before the set is frozen: it alone is made again, although other nodes made the rest.
    before = written(out)
    lost = next(iter(before))
    store = s3fs.S3FileSystem()
    store.rm([str(out / name) for name in (LOCK_NAME, lost)])
    time.sleep(1.1)  # the times that S3 states have no fractions of a second
    assert build(cluster, manifest, out, disk / "another") == digest
    assert [name for name, time_put in written(out).items() if time_put != before[name]] == [lost]

    # The nodes have copies of an annotation that is another one now.
    annotation = next(path for path in sorted((data / "llava").iterdir()) if path.suffix == ".json")
    records = json.loads(annotation.read_text(encoding="utf-8"))
    annotation.write_text(json.dumps(records[1:]), encoding="utf-8")
    upload(data, f"{bucket}/data")
    changed = build(cluster, manifest, ObjectPath(f"{bucket}/sets/two"), disk / "work")
    assert changed == digest_on_disk(data, tmp_path / "changed") != digest
