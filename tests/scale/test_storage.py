"""The storage layer against the stores of all providers, behind a proxy that throttles and loses connections."""

import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.storage import client, object_path
from griffon_shards.storage.errors import StorageError
from griffon_shards.storage.object_path import ObjectPath
from griffon_shards.storage.transfer import fetch, fetch_folder
from griffon_shards.support.errors import DataError

from ..waiting import TIMEOUT_S
from .faulty_proxy import Faults, FaultyProxy
from .stores import PAGE_OBJECTS, ROOT, STORES

pytestmark = pytest.mark.scale

with_every_provider = pytest.mark.parametrize("provider", list(STORES))

LARGE_BYTES = 120 << 20
"""More than two parts of a multipart upload."""

SMALL_FILE = ROOT / "constraints.txt"
"""fake-gcs-server breaks the connection of whoever sends a larger file to a bucket that is missing."""

OPERATIONS: dict[str, Callable[[ObjectPath], Any]] = {
    "read": lambda path: path.read_bytes(),
    "range": lambda path: path.read_range(0, 3),
    "size": lambda path: path.size(),
    "is_file": lambda path: path.is_file(),
    "is_dir": lambda path: path.is_dir(),
    "list": lambda path: list(path.listing()),
    "write": lambda path: path.write_bytes(b"abc"),
    "create": lambda path: path.create(b"abc"),
    "upload": lambda path: path.upload(SMALL_FILE),
}


def url(text: str) -> ObjectPath:
    path = object_path(text)
    assert path is not None
    return path


def message_of(operation: str, path: ObjectPath) -> str:
    """The message of an operation's StorageError: one line without credentials."""
    with pytest.raises(StorageError) as caught:
        OPERATIONS[operation](path)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(secret in message for store in STORES.values() for secret in store.secrets)
    return message


@with_every_provider
def test_what_is_written_is_read_whatever_the_network_does(
    faulty_bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.configure(Faults(refuse_share=0.1, cut_share=0.1))
    root = url(faulty_bucket) / "a folder/目录"
    content = {f"{number:03} #.bin": random.Random(number).randbytes(1 + number * 997) for number in range(40)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: (root / name).write_bytes(content[name]), content))
        assert list(pool.map(lambda name: (root / name).read_bytes(), content)) == list(content.values())
        parts = pool.map(lambda name: (root / name).read_range(len(content[name]) // 3, 1), content)
        assert list(parts) == [data[len(data) // 3 :][:1] for data in content.values()]
        assert list(pool.map(lambda name: (root / name).size(), content)) == [*map(len, content.values())]
    assert list(root.listing()) == [(name, len(data)) for name, data in content.items()]
    fetch_folder(root, tmp_path / "copy", keep=lambda name: name > "02")
    copies = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert copies == {name: data for name, data in content.items() if name > "02"}
    counters = proxy.counters()
    assert counters.refused > 0 and counters.cut > 0


@with_every_provider
def test_every_name_is_kept(bucket: str) -> None:
    root = url(bucket) / "folder"
    names = ["a", "a b", "a+b", "a%20b", "a&b=c", "a'b", "a;b", "a[1]", "a*b", "a:b", "a@b", "a?versionid=1", "a#", "ä"]
    for name in names:
        (root / name).write_bytes(name.encode())
    assert [name for name, _ in root.listing()] == sorted(names)
    for name in names:
        assert (root / name).read_bytes() == name.encode()
        assert (root / name).read_range(0, 1) == name[:1].encode()[:1]
        assert (root / name).size() == len(name.encode())
        assert dict(root.stamps())[name] == (root / name).stamp()


@with_every_provider
def test_objects_of_consoles_for_folders_are_not_listed(bucket: str) -> None:
    for name in ("folder/", "folder/inner/", "folder/inner/x"):
        client._file_system(bucket).pipe_file(f"{bucket}/{name}", b"")
    assert list((url(bucket) / "folder").listing()) == [("inner/x", 0)]


@pytest.mark.parametrize("provider", ["s3"])  # the others' emulators have no pages that are so small
def test_a_listing_has_every_object_also_beyond_its_first_page(faulty_bucket: str, proxy: FaultyProxy) -> None:
    proxy.configure(Faults(latency_s=0, refuse_share=0.2, cut_share=0.2))
    root = url(faulty_bucket)
    names = [f"{number:04}" for number in range(3 * PAGE_OBJECTS + 1)]
    for name in names:
        (root / "folder" / name).write_bytes(b"x")
    (root / "folder2").write_bytes(b"beside")
    assert list((root / "folder").listing()) == [(name, 1) for name in names]
    assert (root / "folder").is_dir() and not (root / "folde").is_dir()


@with_every_provider
def test_of_ten_that_create_an_object_at_once_at_most_one_wins(faulty_bucket: str, proxy: FaultyProxy) -> None:
    proxy.configure(Faults(refuse_share=0.1, cut_share=0.3))
    for number in range(3):
        path = url(faulty_bucket) / f"lock{number}"
        start = threading.Barrier(10)

        def create(content: bytes, path: ObjectPath = path, start: threading.Barrier = start) -> bool:
            start.wait()
            return path.create(content)

        contents = [f"builder {builder}".encode() for builder in range(10)]
        with ThreadPoolExecutor(10) as pool:
            created = dict(zip(contents, pool.map(create, contents), strict=True))
        assert path.read_bytes() in contents
        # aiohttp repeats a request itself when a connection breaks. Its second one is refused, and nobody has won.
        assert [content for content in contents if created[content]] in ([path.read_bytes()], [])
    assert proxy.counters().cut > 0


@with_every_provider
def test_a_large_object_is_seen_only_when_it_is_complete(
    faulty_bucket: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    path, file = url(faulty_bucket) / "large", tmp_path / "large"
    file.write_bytes(random.Random(0).randbytes(LARGE_BYTES))
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(path.upload, file)
        sizes: set[int] = set()
        while not upload.done():
            sizes.update(size for _, size in url(faulty_bucket).listing())
        upload.result()
    assert sizes <= {LARGE_BYTES}
    fetch(path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


@with_every_provider
def test_an_upload_that_is_killed_leaves_no_object(faulty_bucket: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.configure(Faults(refuse_share=0, cut_share=0))
    file = tmp_path / "large"
    file.write_bytes(bytes(LARGE_BYTES))
    script = "import sys; from griffon_shards.storage import as_location as at; from pathlib import Path; "
    command = [
        sys.executable,
        "-c",
        script + "at(sys.argv[1]).upload(Path(sys.argv[2]))",
        f"{faulty_bucket}/x",
        str(file),
    ]
    process = subprocess.Popen(command)
    limit = time.monotonic() + TIMEOUT_S
    while proxy.counters().bytes_in < LARGE_BYTES // 2:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(url(faulty_bucket).listing()) == []


@with_every_provider
def test_a_process_forked_after_use_has_a_client_of_its_own(faulty_bucket: str) -> None:
    path = url(faulty_bucket) / "x"
    path.write_bytes(b"before the fork")
    forked = multiprocessing.get_context("fork")
    answers = forked.Queue()
    process = forked.Process(target=lambda: answers.put(path.read_bytes()))
    process.start()
    assert answers.get(timeout=TIMEOUT_S) == b"before the fork"
    process.join()
    assert path.read_bytes() == b"before the fork"


@with_every_provider
def test_an_object_that_is_missing_or_too_short_is_reported(faulty_bucket: str) -> None:
    root = url(faulty_bucket)
    (root / "short").write_bytes(b"12345")
    for operation in ("read", "range", "size"):
        with pytest.raises(FileNotFoundError, match=r"://.*/missing"):
            OPERATIONS[operation](root / "missing")
    assert (
        not (root / "missing").is_file() and not (root / "missing").is_dir() and not list((root / "missing").listing())
    )
    assert not list((root / "short").listing()) and not (root / "short").is_dir()
    for start in (3, 5, 50):
        with pytest.raises(DataError, match=r"://.*/short: truncated"):
            (root / "short").read_range(start, 10)


@with_every_provider
def test_a_bucket_that_is_missing_is_named(provider: str, proxy: FaultyProxy) -> None:
    for operation in OPERATIONS:
        message = message_of(operation, url(f"{provider}://no-such-bucket/folder/x"))
        assert message.startswith(f"{provider}://no-such-bucket: no such bucket;"), operation


@pytest.mark.parametrize(
    ("provider", "code", "expected"),
    [
        ("s3", "AccessDenied", "no permission"),
        ("s3", "InvalidAccessKeyId", "credentials are refused"),
        ("s3", "PermanentRedirect", "another region"),
        ("gs", "forbidden", "no permission"),
        ("gs", "required", "no credentials"),
        ("gs", "authError", "no credentials, or they are refused"),
        ("az", "AuthorizationPermissionMismatch", "no permission (AuthorizationPermissionMismatch)"),
        ("az", "NoAuthenticationInformation", "no credentials"),
    ],
)
def test_a_refusal_that_is_final_is_reported_at_once(
    code: str, expected: str, faulty_bucket: str, proxy: FaultyProxy
) -> None:
    proxy.configure(Faults(latency_s=0, refuse_share=1, refuse_code=code))
    for operation in OPERATIONS:
        message = message_of(operation, url(faulty_bucket) / "x")
        assert message.startswith(faulty_bucket), operation
        # The answer to a HEAD has a status and no code.
        assert expected in message or (operation in ("size", "is_file", "is_dir") and "no permission" in message)
    assert proxy.counters().requests < 5 * len(OPERATIONS)


@pytest.mark.parametrize("provider", ["s3", "az"])  # gcsfs sends requests without, which the server refuses: see above
def test_missing_credentials_are_reported(provider: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    client._client.cache_clear()
    for operation in OPERATIONS:
        assert f"{bucket}: no credentials; set" in message_of(operation, url(bucket) / "x")


@pytest.mark.parametrize("provider", ["az"])  # the other servers check no keys
@pytest.mark.parametrize(
    ("key", "expected"), [("YW5vdGhlcg==", "no permission (AuthorizationFailure)"), ("x", "the key is malformed; set")]
)
def test_a_wrong_key_is_reported(
    key: str, expected: str, store: int, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = STORES["az"].environment(store)["AZURE_STORAGE_CONNECTION_STRING"]
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", right.replace(STORES["az"].secrets[0], key))
    client._client.cache_clear()
    for operation in OPERATIONS:
        assert expected in message_of(operation, url(bucket) / "x")


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid"])
@with_every_provider
def test_a_network_that_is_down_is_reported(
    provider: str, host: str, store: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in STORES[provider].environment(store).items():
        monkeypatch.setenv(name, value.replace(f"127.0.0.1:{store}", host))
    client._client.cache_clear()
    monkeypatch.setattr(client, "_GIVE_UP_S", 1)
    message = message_of("read", url(f"{provider}://bucket/x"))
    assert message.startswith(f"{provider}://bucket/x: still fails after ")
    assert "check the network" in message


@with_every_provider
def test_a_store_that_keeps_throttling_is_reported(
    faulty_bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.configure(Faults(latency_s=0, refuse_share=1))
    monkeypatch.setattr(client, "_GIVE_UP_S", 1)
    message = message_of("write", url(faulty_bucket) / "x")
    assert "HTTP 503)" in message and "fewer workers" in message
