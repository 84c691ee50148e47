"""`griffon-shards view` as a process, over real sockets."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from griffon_shards.storage.node_cache import default_cache
from griffon_shards.types import Sample
from griffon_shards.view.access import Access
from griffon_shards.view.server import make_app, static_files
from griffon_shards.view.serving import listen, make_server
from griffon_shards.view.web_images import Thumbnails

from ...waiting import TIMEOUT_S
from .conftest import View

Cli = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the link that it prints once it listens."""
    words = [sys.executable, "-m", "griffon_shards", "view", *map(str, arguments), "--no-browser", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().rpartition(" at ")[2].strip()
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_a_link_serves_and_stops(frozen_set: Path, tmp_path: Path, stop: signal.Signals) -> None:
    with command(frozen_set, "--cache", tmp_path / "cache") as (process, link):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", link)
        assert "<script" in httpx2.get(link).text
        assert httpx2.get(f"{link}api/samples").json()["total"] > 0
        assert httpx2.get(f"{link}api/samples", headers={"host": "evil.example"}).status_code == 421
        assert httpx2.get(f"{link}api/statistics/0").status_code == 202  # is stopped, too
        process.send_signal(stop)
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output, errors) == (0, "", "")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".tmp-")]


def test_another_host_needs_the_token_of_the_link(frozen_set: Path, tmp_path: Path) -> None:
    with command(frozen_set, "--cache", tmp_path, "--host", "0.0.0.0") as (_, link):
        page, _, token = link.partition("?token=")
        base = f"http://127.0.0.1:{page.rstrip('/').rpartition(':')[2]}"
        assert len(token) >= 32
        assert httpx2.get(f"{base}/api/sets").status_code == 401
        with httpx2.Client(follow_redirects=True) as browser:
            first = browser.get(f"{base}/?token={token}")
            assert (first.status_code, str(first.url)) == (200, f"{base}/")
            assert browser.get(f"{base}/api/sets").json()["sets"][0]["name"] == str(frozen_set)


def test_two_hundred_requests_at_once_are_all_answered(view: View, tmp_path: Path) -> None:
    app = make_app(view.sets, Thumbnails(tmp_path / "thumbnails.sqlite", 1 << 20), [], static_files())
    server = make_server(Access(app, host="127.0.0.1", token=None, cookie="x"))
    samples = len(view.sets[0].frozen)
    kinds = (
        "/api/samples?limit=20&offset={}",
        "/api/samples/0/{}?sort=area",
        "/thumbnail/0/{}",
        "/api/samples?q=oval&boxes={}-",
    )
    paths = [kinds[number % 4].format(number % samples) for number in range(200)]

    async def ask(port: int, path: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.removeprefix(b"HTTP/1.1 ")[:3]

    async def ask_all(port: int) -> list[bytes]:
        return await asyncio.gather(*(ask(port, path) for path in paths))

    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            answers = asyncio.run(ask_all(listening.getsockname()[1]))
        finally:
            server.should_exit = True
            thread.join()
    texts_alone = [path for path in paths if path.startswith("/thumbnail/") and not has_image(view, path)]
    assert answers.count(b"200") == 200 - len(texts_alone)
    assert answers.count(b"422") == len(texts_alone)


def has_image(view: View, path: str) -> bool:
    return view.sets[0].frozen[int(path.rpartition("/")[2])].image is not None


def test_a_wrong_command_is_refused_in_one_line(
    frozen_set: Path,
    tmp_path: Path,
    shards_cli: Cli,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
) -> None:
    other = write_set(tmp_path / "set", [make_sample("DET_a-000000000")])
    empty = tmp_path / "predictions.jsonl"
    empty.write_bytes(b"")
    cache = ("--cache", tmp_path / "cache", "--no-browser")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            (2, "--marks", (other, frozen_set, "--marks", tmp_path / "m.jsonl")),
            (2, "no set that is shown", (other, "--predictions", empty)),
            (2, "--host: is empty", (other, "--host", "")),
            (1, "no such file", (other, "--predictions", tmp_path / "none.jsonl")),
            (1, "no such folder", (tmp_path / "nothing",)),
            (2, f"--port {port}", (other, "--port", port)),
            (2, "--host 192.0.2.1", (other, "--host", "192.0.2.1")),
        ]
        for code, message, arguments in cases:
            done = shards_cli("view", *arguments, *cache)
            assert (done.returncode, done.stdout) == (code, ""), arguments
            assert done.stderr.count("\n") == 1
            assert message in done.stderr.lower() or message in done.stderr


def test_without_its_libraries_it_says_what_to_install(
    frozen_set: Path, shards_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "griffon_shards.view.serving")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = shards_cli("view", frozen_set)
    assert done.returncode == 2
    assert "pip install 'griffon-pipeline[view]'" in done.stderr


def test_the_cache_is_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "griffon-shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, as the specification has it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "griffon-shards"
