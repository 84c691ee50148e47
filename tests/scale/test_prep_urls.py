"""`griffon-prep build` with annotations, images and sets in a bucket makes the set that it makes on disk."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from griffon_prep.build.output import ObjectOutput
from griffon_prep.build.shard import ShardJob, make_shard
from griffon_prep.cli import main
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sample_data import write_sample_data
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.mirror import Mirror
from griffon_prep.sources.resolve import find_sources
from griffon_prep.sources.scan import scan_source
from griffon_shards.lock import read_lock
from griffon_shards.storage import Location, ObjectPath, as_location
from griffon_shards.support.errors import DataError
from griffon_shards.templates import load_templates

from ..waiting import TIMEOUT_S
from .buckets import upload
from .faulty_proxy import Faults, FaultyProxy
from .stores import STORES

pytestmark = pytest.mark.scale

FORMATS = ("& llava/", "& yolo/", "& voc/", "& refcoco/", "& openimages/", "& flickr30k/")
SET_FILES = ("index.npy", "rejects.jsonl", "wids.json", ".nv-meta/split.yaml", "report.html")

Build = Callable[..., Result]

with_every_provider = pytest.mark.parametrize("provider", list(STORES))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of each of some formats, and images that are missing, empty, or named otherwise."""
    folder = tmp_path_factory.mktemp("scale") / "样例 data"
    manifest = write_sample_data(folder, seed=0, images=12)
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    chosen = {form: line for form in FORMATS for line in reversed(lines) if form in line}
    assert len(chosen) == len(FORMATS)
    manifest.write_text("".join(chosen.values()), encoding="utf-8")
    images = sorted(path for path in (folder / "pictures").rglob("*") if path.is_file())
    images[0].unlink()
    images[1].write_bytes(b"")
    images[2].rename(images[2].with_suffix(".webp"))
    return folder


@pytest.fixture(scope="module")
def one_source(data: Path) -> Path:
    """A manifest of a single source."""
    manifest = data / "one.txt"
    lines = (data / "manifest.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text(lines[0], encoding="utf-8")
    return manifest


def arguments(manifest: Location, out: object, work: Path, *more: object) -> list[str]:
    settings = ["--workers", "1", "--samples-per-shard", "4", "--max-rejects", "100%"]
    where = ["--manifest", str(manifest), "--data-root", str(manifest.parent), "--out", str(out), "--work", str(work)]
    return ["build", *where, *settings, *map(str, more)]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds in this process, with a work folder of its own: as another machine."""

    def run(manifest: Location, out: object, *more: object) -> Result:
        work = tmp_path / f"work-{len(list(tmp_path.glob('work-*')))}"
        work.mkdir()
        return CliRunner().invoke(main, arguments(manifest, out, work, *more))

    return run


def frozen(result: Result) -> str:
    """The digest that a build has printed."""
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1].removeprefix("digest ")


@pytest.fixture(scope="module")
def on_disk(data: Path, one_source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """The sets of both manifests, built from disk to disk."""
    folder = tmp_path_factory.mktemp("on disk")
    sets = {data / "manifest.txt": folder / "all", one_source: folder / "one"}
    for manifest, out in sets.items():
        frozen(CliRunner().invoke(main, arguments(manifest, out, folder / "work")))
    return sets


def assert_same_set(out: object, expected: Path) -> None:
    root = as_location(str(out))
    assert read_lock(root).digest == read_lock(expected).digest
    for name in (*SET_FILES, *(f"{shard.name}{end}" for shard in read_lock(expected).shards for end in ("", ".idx"))):
        assert (root / name).read_bytes() == (expected / name).read_bytes(), name


def names(url: str, ending: str) -> list[str]:
    location = as_location(url)
    assert isinstance(location, ObjectPath)
    return [name for name, _ in location.listing() if name.endswith(ending)]


@with_every_provider
def test_one_digest_from_and_to_a_bucket(
    data: Path, on_disk: dict[Path, Path], bucket: str, build: Build, tmp_path: Path
) -> None:
    expected = on_disk[data / "manifest.txt"]
    rejects = (expected / "rejects.jsonl").read_text(encoding="utf-8")
    assert "picture_not_found" in rejects
    assert "exists; rename" in rejects
    assert "the file is empty" in rejects
    manifest = upload(data, f"{bucket}/data") / "manifest.txt"
    frozen(build(manifest, tmp_path / "out"))
    assert_same_set(tmp_path / "out", expected)
    frozen(build(manifest, f"{bucket}/sets/both"))
    assert_same_set(f"{bucket}/sets/both", expected)
    again = build(manifest, f"{bucket}/sets/both", "--recheck")
    assert frozen(again) == read_lock(expected).digest
    assert "up to date" in again.stderr
    assert "all images are unchanged" in again.stderr


def test_one_digest_through_a_bad_network(
    one_source: Path, on_disk: dict[Path, Path], faulty_bucket: str, build: Build
) -> None:
    manifest = upload(one_source.parent, f"{faulty_bucket}/data") / one_source.name
    frozen(build(manifest, f"{faulty_bucket}/out"))
    assert_same_set(f"{faulty_bucket}/out", on_disk[one_source])


def test_an_image_is_read_once_and_several_at_a_time(
    data: Path, faulty_bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """Even if its size, which the annotation does not state, is needed for the boxes."""
    proxy.configure(Faults(refuse_share=0, cut_share=0))
    root = upload(data / "yolo", f"{faulty_bucket}/yolo")
    line = ManifestLine(line_no=1, tag="DET_yolo", task="DET", annotation="data.yaml", image_root=".", options={})
    sources = find_sources([line], root, "m.txt", mirror=Mirror(tmp_path / "inputs"))
    hashes = AnnotationHashes(tmp_path / "hashes.json").sha256s(sources)
    scanned = scan_source(sources[0], hashes, tmp_path / "work")
    settings = RenderSettings(templates=load_templates(None))
    before = proxy.counters()
    report = make_shard(
        ShardJob(source=scanned, settings=settings, out=None, shard_no=0, first=0, stop=scanned.used_records)
    )
    after = proxy.counters()
    assert report.samples == scanned.used_records > 8
    assert after.reads - before.reads == report.samples
    assert after.most_at_once > 4


def start(manifest: Location, out: str, work: Path, log: Path, *more: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "griffon_prep", *arguments(manifest, out, work, *more)]
    with log.open("wb") as stderr:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)


@with_every_provider
def test_a_killed_build_is_resumed_elsewhere(
    data: Path, on_disk: dict[Path, Path], bucket: str, build: Build, tmp_path: Path
) -> None:
    manifest, out = data / "manifest.txt", f"{bucket}/out"
    process = start(manifest, out, tmp_path / "killed", tmp_path / "log")
    until = time.monotonic() + TIMEOUT_S
    while len(names(out, ".report")) < 3:
        assert process.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")
        assert time.monotonic() < until
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reported = {name.removeprefix(".griffon-build/").removesuffix(".report") for name in names(out, ".report")}
    assert not names(out, "griffon.lock.json")
    result = build(manifest, out)
    frozen(result)
    assert f"of {len(names(out, '.report'))} shards finished" not in result.stderr
    finished = sum(
        int(line.split(", ")[-1].split(" of ")[0]) for line in result.stderr.splitlines() if "finished" in line
    )
    assert finished >= len(reported) >= 3
    assert_same_set(out, on_disk[manifest])
    assert not list(tmp_path.rglob("work-*/*/.tmp-*"))


@with_every_provider
def test_of_two_builders_one_freezes(one_source: Path, on_disk: dict[Path, Path], bucket: str, tmp_path: Path) -> None:
    processes = [start(one_source, f"{bucket}/out", tmp_path / f"w{i}", tmp_path / f"log{i}") for i in range(2)]
    assert [process.wait(TIMEOUT_S) for process in processes] == [0, 0]
    logs = [(tmp_path / f"log{i}").read_text(encoding="utf-8") for i in range(2)]
    second = [i for i in range(2) if f"was frozen first by process {processes[1 - i].pid} on " in logs[i]]
    assert len(second) == 1 or any("up to date" in log for log in logs), logs
    assert_same_set(f"{bucket}/out", on_disk[one_source])


def test_the_second_of_two_builders_learns_who_was_first(
    one_source: Path, bucket: str, build: Build, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    frozen(build(one_source, f"{bucket}/out"))
    root = as_location(f"{bucket}/out")
    assert isinstance(root, ObjectPath)
    output, lock = ObjectOutput(root=root, stage=tmp_path), read_lock(root)
    capfd.readouterr()
    assert output.freeze(lock).digest == lock.digest
    message = capfd.readouterr().err
    assert f"was frozen first by process {os.getpid()} on " in message
    assert "the digest is the same" in message
    with pytest.raises(DataError, match=rf"frozen first by process {os.getpid()} on .*with other content"):
        output.freeze(replace(lock, index_sha256="0" * 64))
    assert read_lock(root) == lock


def test_parts_on_machines_that_share_only_the_bucket(
    data: Path, on_disk: dict[Path, Path], bucket: str, build: Build
) -> None:
    manifest, out = data / "manifest.txt", f"{bucket}/out"
    assert build(manifest, out, "--part", "1/3").exit_code == 0
    unfinished = build(manifest, out, "--finish")
    assert unfinished.exit_code == 1
    assert "of the 3 parts: 2,3" in unfinished.stderr
    for part in ("3/3", "2/3"):
        assert build(manifest, out, "--part", part).exit_code == 0
    frozen(build(manifest, out, "--finish"))
    assert_same_set(out, on_disk[manifest])


def test_unchanged_sources_are_copied(
    one_source: Path, on_disk: dict[Path, Path], bucket: str, build: Build, tmp_path: Path
) -> None:
    """To a bucket, within it, and from it; without the images, which would otherwise be missing."""
    bare = tmp_path / one_source.parent.name
    shutil.copytree(one_source.parent, bare)
    for image in (bare / "pictures").rglob("*.*"):
        if image.stat().st_size and image.suffix != ".webp":  # what was rejected before, is still
            image.unlink()
    manifest, expected = bare / one_source.name, on_disk[one_source]
    copies = (expected, f"{bucket}/first", f"{bucket}/second", tmp_path / "third")
    for old, new in pairwise(copies):
        frozen(build(manifest, new, "--reuse", old))
        assert read_lock(as_location(str(new))).digest == read_lock(expected).digest
    for name in ("report.html", *(shard.name for shard in read_lock(expected).shards)):
        assert (tmp_path / "third" / name).read_bytes() == (expected / name).read_bytes()


def test_an_annotation_that_changes_in_the_bucket_is_fetched_again(
    one_source: Path, bucket: str, tmp_path: Path
) -> None:
    def run() -> Result:
        return CliRunner().invoke(main, arguments(manifest, tmp_path / "out", tmp_path / "work"))

    manifest = upload(one_source.parent, f"{bucket}/data") / one_source.name
    frozen(run())
    assert "up to date" in run().stderr
    name = one_source.read_text(encoding="utf-8").split(" & ")[1]
    text = (manifest.parent / name).read_bytes()
    (manifest.parent / name).write_bytes(text.replace(b"the", b"teh"))
    changed = run()
    assert changed.exit_code == 1
    assert "annotation_sha256 changed" in changed.stderr


def test_refusals_say_what_to_do(one_source: Path, bucket: str, build: Build) -> None:
    out = f"{bucket}/out"
    overwrite = build(one_source, out, "--overwrite")
    assert overwrite.exit_code == 2
    assert f"aws s3 rm --recursive {out}" in overwrite.stderr
    missing = build(as_location(f"{bucket}/data/one.txt"), out)
    assert missing.exit_code == 2
    assert f"{bucket}/data/one.txt: the manifest cannot be read" in missing.stderr
    upload(one_source.parent, f"{bucket}/other")
    strange = build(one_source, f"{bucket}/other")
    assert strange.exit_code == 2
    assert "contains files but is not a shard set" in strange.stderr
    assert build(one_source, out, "--part", "1/2").exit_code == 0
    other = build(one_source, out, "--seed", "1")
    assert other.exit_code == 1
    assert "--seed was 0 and is 1" in other.stderr
    assert f"aws s3 rm --recursive {out}" in other.stderr
    frozen(build(one_source, out))
    changed = build(one_source, out, "--seed", "1")
    assert changed.exit_code == 1
    assert "frozen sets are never modified" in changed.stderr


def test_messages_name_urls_and_not_copies(one_source: Path, bucket: str, build: Build, tmp_path: Path) -> None:
    manifest = upload(one_source.parent, f"{bucket}/data") / one_source.name
    name = one_source.read_text(encoding="utf-8").split(" & ")[1]
    (manifest.parent / name).write_bytes(b"%PDF-1.7 " + bytes(range(256)) * 8)
    damaged = build(manifest, tmp_path / "out")
    assert damaged.exit_code == 1, damaged.output
    assert f"{bucket}/data/{name}: is a PDF" in damaged.stderr
    (tmp_path / "lines.txt").write_text("DET_x & nothing.json & ../../elsewhere\n", encoding="utf-8")
    gone = CliRunner().invoke(
        main, ["check", "--manifest", str(tmp_path / "lines.txt"), "--data-root", f"{bucket}/data"]
    )
    assert gone.exit_code == 2
    assert "leads out of" in gone.stderr
