"""`griffon-shards` on sets in an object store: every command says what it says of the same set on disk."""

import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import griffon_shards
from griffon_shards.cli import main
from griffon_shards.copying.copy_set import CopyPlan, plan_copy, run_copy
from griffon_shards.index import INDEX_NAME
from griffon_shards.lock import LOCK_NAME, REJECTS_NAME, read_lock, write_lock
from griffon_shards.storage import ObjectPath, client
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import sha256_of
from griffon_shards.view.marks import marks_path
from griffon_shards.view.rejects import Rejects
from griffon_shards.view.sidecar import Sidecar
from griffon_shards.view.sidecar_build import ensure_sidecar

from .stores import STORES

pytestmark = pytest.mark.scale


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def shared(s3_port: int, frozen_set: Path) -> str:
    """The frozen set in a bucket, which no test alters."""
    STORES["s3"].create(s3_port, "shared")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in STORES["s3"].environment(s3_port).items():
            environment.setenv(name, value)
        client._client.cache_clear()
        ran("copy", frozen_set, "s3://shared/数据 sets/mine")
        client._client.cache_clear()
    return "s3://shared/数据 sets/mine"


@pytest.fixture
def url(shared: str, s3_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, with the environment variables for its server."""
    for name, value in STORES["s3"].environment(s3_port).items():
        monkeypatch.setenv(name, value)
    return shared


@pytest.fixture
def own_url(bucket: str, frozen_set: Path) -> str:
    """The frozen set in a bucket of the test's own."""
    ran("copy", frozen_set, f"{bucket}/set")
    return f"{bucket}/set"


def ran(*arguments: object, code: int = 0) -> str:
    """The output of `griffon-shards ARGUMENTS`; of a failure, its one line."""
    result = CliRunner().invoke(main, [*map(str, arguments)], prog_name="griffon-shards", catch_exceptions=False)
    assert result.exit_code == code, result.output
    if code == 0:
        assert result.stderr == ""
        return result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def content_of(place: Path | ObjectPath) -> dict[str, bytes]:
    if isinstance(place, ObjectPath):
        return {name: (place / name).read_bytes() for name, _ in place.listing()}
    files = {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if not name.startswith(".griffon-build/")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["info"],
        ["info", "--json"],
        ["ls", "--sort", "boxes", "--limit", "9"],
        ["ls", "--task", "DET", "--category", "black oval"],
        ["ls", "--sort", "box-area", "--limit", "3"],
        ["cat", "--task", "VISJ"],
        ["stats", "--json", "--workers", "1"],
        ["verify", "--deep"],
        ["verify", "--json"],
    ],
    ids=" ".join,
)
def test_a_command_says_what_it_says_of_the_set_on_disk(url: str, frozen_set: Path, arguments: list[str]) -> None:
    command, *options = arguments
    assert ran(command, url, *options) == ran(command, frozen_set, *options)


def test_show_and_draw(url: str, frozen_set: Path, tmp_path: Path) -> None:
    key = griffon_shards.open_set(frozen_set).key(7)
    assert ran("show", url, key) == ran("show", frozen_set, key)
    ran("show", url, key, "--draw", tmp_path / "a.png")
    ran("show", frozen_set, key, "--draw", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_diff_and_overlap(url: str, frozen_set: Path, tmp_path: Path) -> None:
    assert ran("diff", url, frozen_set).startswith("alike: ")
    options = ("--no-perceptual", "--json", "--workers", "1")
    assert ran("overlap", url, "--eval", url, *options) == ran("overlap", frozen_set, "--eval", frozen_set, *options)
    bucket = url.partition("/数据")[0]
    assert "no frozen set there; only frozen sets are read from URLs" in ran(
        "overlap", url, "--eval", bucket, "--no-perceptual", code=2
    )


def test_objects_that_mark_folders_do_not_count(frozen_set: Path, bucket: str) -> None:
    out = f"{bucket}/set"
    for name in ("set/", "set/DET_shapes/"):
        client._file_system(out).call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key=name, Body=b"")
    assert (ObjectPath(out).is_dir(), list(ObjectPath(out).listing())) == (True, [])
    ran("copy", frozen_set, out)
    assert ran("copy", out, f"{bucket}/another") and ran("verify", f"{bucket}/another")
    assert not ObjectPath(out).is_empty() and ObjectPath(f"{bucket}/nothing").is_empty()


def test_a_damaged_copy_of_the_index_is_named(url: str, tmp_path: Path) -> None:
    ran("ls", url, "--limit", "1")
    (copy,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock")
    data = copy.read_bytes()
    for damaged, commands in ((data[:-1], ("ls", "verify")), (data[:-1] + bytes([data[-1] ^ 1]), ("verify",))):
        copy.write_bytes(damaged)
        for command in commands:
            assert f"{copy}: this machine's copy of {url}/index.npy is damaged; delete" in ran(command, url, code=1)
    copy.unlink()
    ran("verify", url)


def test_python(url: str, frozen_set: Path) -> None:
    there, here = griffon_shards.open_set(url), griffon_shards.open_set(frozen_set)
    assert list(map(there.in_order().__getitem__, range(len(here)))) == [here[row] for row in range(len(here))]
    assert there[17] == here[17]
    there.check_shards()
    streamed = [item["__key__"] for item in griffon_shards.stream(url, tasks=["DET"], decode=None)]
    assert streamed == [item["__key__"] for item in griffon_shards.stream(frozen_set, tasks=["DET"], decode=None)]
    with pytest.raises(SettingsError, match=re.escape(f"{url}: webdataset reads files")):
        griffon_shards.shard_urls(url)


def test_what_the_viewer_reads(url: str, frozen_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server needs libraries that this environment lacks; all else is here."""
    monkeypatch.chdir(tmp_path)
    cache, here = tmp_path / "cache", griffon_shards.open_set(frozen_set)
    frozen = griffon_shards.open_set(url, cache)
    sidecar = Sidecar(ensure_sidecar(frozen, cache, workers=1))
    expected = Sidecar(ensure_sidecar(here, tmp_path / "other", workers=1))
    assert (sidecar.samples, sidecar.damaged) == (len(here), 0)
    assert sidecar.categories("", None, 100) == expected.categories("", None, 100)
    assert (sidecar.order("smallest") == expected.order("smallest")).all()
    rejects, expected_rejects = Rejects(frozen, None, cache), Rejects(here, None, cache)
    assert rejects.page("", "", 0, 100) == expected_rejects.page("", "", 0, 100)
    assert marks_path(frozen.root) == tmp_path / (url.removeprefix("s3://").replace("/", "-") + ".marks.jsonl")


@pytest.mark.parametrize("name", ["shard", INDEX_NAME])
def test_verify_names_damage(own_url: str, frozen_set: Path, name: str) -> None:
    name = read_lock(frozen_set).shards[1].name if name == "shard" else name
    place = ObjectPath(own_url) / name
    data = bytearray(place.read_bytes())
    data[1500] ^= 1
    place.write_bytes(bytes(data))
    result = CliRunner().invoke(main, ["verify", own_url], catch_exceptions=False)
    assert result.exit_code == 1
    assert f"error: {place}: " in result.stderr
    place.write_bytes(bytes(data[: 1 << 10]))
    result = CliRunner().invoke(main, ["verify", own_url], catch_exceptions=False)
    assert result.exit_code == 1
    assert f"error: {place}: " in result.stderr


@pytest.mark.parametrize("provider", ["gs", "az"])
def test_commands_say_the_same_with_the_other_providers(own_url: str, frozen_set: Path) -> None:
    key = griffon_shards.open_set(frozen_set).key(7)
    for command, *arguments in (["info"], ["ls", "--sort", "boxes"], ["show", key], ["verify", "--deep"]):
        assert ran(command, own_url, *arguments) == ran(command, frozen_set, *arguments)


@pytest.mark.parametrize("provider", list(STORES))
def test_errors_are_one_line(provider: str, bucket: str) -> None:
    assert "no such folder" in ran("info", f"{bucket}/nothing", code=1)
    ObjectPath(f"{bucket}/half/{INDEX_NAME}").write_bytes(b"")
    assert "not a frozen set" in ran("info", f"{bucket}/half", code=1)
    assert "no such bucket" in ran("info", f"{provider}://griffon-no-such-bucket/mine", code=1)
    assert "no such bucket" in ran("verify", f"{provider}://griffon-no-such-bucket/mine", code=1)


@pytest.mark.parametrize("provider", list(STORES))
def test_from_disk_to_a_bucket_to_another_and_back(url: str, bucket: str, frozen_set: Path, tmp_path: Path) -> None:
    second, back = ObjectPath(f"{bucket}/second"), tmp_path / "回 back"
    assert ran("copy", url, second, "--work", tmp_path).startswith("copied ")
    assert ran("copy", second, back).startswith("copied ")
    assert content_of(back) == content_of(second) == content_of(ObjectPath(url)) == content_of(frozen_set)
    assert ran("copy", frozen_set, url).startswith(f"up to date: {url}")
    assert ran("copy", url, back).startswith("up to date: ")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("griffon-copy-")]


def test_a_copy_keeps_what_is_there(url: str, bucket: str, frozen_set: Path, tmp_path: Path) -> None:
    target, shards = ObjectPath(f"{bucket}/other"), read_lock(frozen_set).shards
    data = (frozen_set / shards[0].name).read_bytes()
    (target / shards[0].name).write_bytes(data)
    (target / shards[1].name).write_bytes(bytes(shards[1].bytes))
    assert "; kept 1 file (read again)" in ran("copy", url, target)
    assert content_of(target) == content_of(frozen_set)


def test_a_copy_into_a_bucket_that_is_killed(bucket: str, frozen_set: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from griffon_shards.copying.copy_set import plan_copy, run_copy\n"
        "from griffon_shards.storage import as_location\n"
        "left = [int(sys.argv[3])]\n"
        "def moved(size):\n"
        "    left[0] -= size\n"
        "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "plan = plan_copy(Path(sys.argv[1]), as_location(sys.argv[2]))\n"
        "run_copy(plan, workers=2, verify=True, work=None, moved=moved)\n"
    )
    target = f"{bucket}/killed"
    half = sum(map(len, content_of(frozen_set).values())) // 2
    command = [sys.executable, "-c", script, str(frozen_set), target, str(half)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert "not a frozen set" in ran("info", target, code=1)
    assert "; kept " in ran("copy", frozen_set, target)
    assert content_of(ObjectPath(target)) == content_of(frozen_set)


def test_a_damaged_source_is_not_frozen_in_a_bucket(bucket: str, copy_of_set: Path) -> None:
    for name in (INDEX_NAME, read_lock(copy_of_set).shards[-1].name):
        data = (copy_of_set / name).read_bytes()
        (copy_of_set / name).write_bytes(data[:1500] + bytes([data[1500] ^ 1]) + data[1501:])
        assert f"{copy_of_set / name}: damaged" in ran("copy", copy_of_set, f"{bucket}/set", code=1)
        assert not (ObjectPath(f"{bucket}/set") / LOCK_NAME).exists()
        assert not (ObjectPath(f"{bucket}/set") / name).exists()
        (copy_of_set / name).write_bytes(data)
    ran("copy", copy_of_set, f"{bucket}/set")


def ended(plan: CopyPlan) -> str:
    """How a copy ends that runs beside another: empty, or its error."""
    try:
        run_copy(plan, workers=2, verify=True, work=None, moved=lambda _: None)
    except SettingsError as error:
        return str(error)
    return ""


def test_two_copies_of_a_set_at_once(bucket: str, frozen_set: Path) -> None:
    target = ObjectPath(f"{bucket}/set")
    plans = [plan_copy(frozen_set, target), plan_copy(frozen_set, target)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ended, plans)) == ["", ""]
    assert content_of(target) == content_of(frozen_set)


def test_copies_of_two_sets_at_once(bucket: str, frozen_set: Path, copy_of_set: Path) -> None:
    """Both have the same names of files, with the same sizes. One is frozen there, and the other is refused."""
    index = (copy_of_set / INDEX_NAME).read_bytes()
    (copy_of_set / INDEX_NAME).write_bytes(index[:-1] + b"\1")
    write_lock(copy_of_set, replace(read_lock(copy_of_set), index_sha256=sha256_of(copy_of_set / INDEX_NAME)))
    target = ObjectPath(f"{bucket}/set")
    sources = [frozen_set, copy_of_set]
    plans = [plan_copy(source, target) for source in sources]
    with ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(ended, plans))
    winner = messages.index("")
    assert f"{target / INDEX_NAME}: is not the index of this set" in messages[1 - winner]
    assert content_of(target) == content_of(sources[winner])


def test_a_copy_from_a_bucket_where_a_shard_was_cut(own_url: str, frozen_set: Path, tmp_path: Path) -> None:
    shard = read_lock(frozen_set).shards[0]
    place = ObjectPath(own_url) / shard.name
    place.write_bytes(place.read_bytes()[:-512])
    says = f"{place}: has {shard.bytes - 512:,} of {shard.bytes:,} bytes"
    assert says in ran("copy", own_url, tmp_path / "back", code=1)
    assert not (tmp_path / "back").exists()


def test_copying_through_a_bad_network(faulty_bucket: str, frozen_set: Path, tmp_path: Path) -> None:
    target = f"{faulty_bucket}/set"
    ran("copy", frozen_set, target)
    ran("copy", target, tmp_path / "back")
    assert content_of(tmp_path / "back") == content_of(frozen_set)
    assert REJECTS_NAME in content_of(tmp_path / "back")
    shutil.rmtree(tmp_path / "back")
