"""`griffon-prep build --engine MODULE:FACTORY` from a bucket, with workers that do not share the disk for copies."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from griffon_prep.cli import main
from griffon_prep.sample_data import write_sample_data
from griffon_shards.lock import read_lock
from griffon_shards.storage import Location, ObjectPath

from .buckets import upload
from .ray_cluster import on_own_disk

pytestmark = pytest.mark.scale

ENGINE = "tests.scale.own_disks:processes"


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run([*on_own_disk(path), "true"], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    monkeypatch.setenv("OWN_DISK", str(path))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of a file, and one of a folder."""
    folder = tmp_path_factory.mktemp("data")
    manifest = write_sample_data(folder, seed=0, images=8)
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = [next(line for line in lines if form in line) for form in ("& coco/", "& flickr30k/")]
    manifest.write_text("".join(chosen), encoding="utf-8")
    return folder


@pytest.fixture
def manifest(data: Path, bucket: str) -> ObjectPath:
    """The manifest in a bucket, with all that it names."""
    return upload(data, f"{bucket}/data") / "manifest.txt"


def build(manifest: Location, out: Location, work: Path, *more: str) -> Result:
    where = ["--manifest", str(manifest), "--data-root", str(manifest.parent), "--out", str(out), "--work", str(work)]
    return CliRunner().invoke(main, ["build", *where, "--samples-per-shard", "4", "--workers", "2", *more])


@pytest.fixture(scope="module")
def digest(data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the set that is built from disk to disk."""
    folder = tmp_path_factory.mktemp("on disk")
    assert build(data / "manifest.txt", folder / "out", folder).exit_code == 0
    return read_lock(folder / "out").digest


def test_a_set_on_a_shared_disk(manifest: ObjectPath, disk: Path, tmp_path: Path, digest: str) -> None:
    built = build(manifest, tmp_path / "out", disk, "--engine", ENGINE)
    assert built.exit_code == 0, built.output
    assert read_lock(tmp_path / "out").digest == digest
