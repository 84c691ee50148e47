"""Buckets of an S3 server on this machine, as they should be and behind a proxy that makes trouble.

Tests in this folder carry the marker `scale` and run with `make test-scale`, in an environment that has Ray and s3fs.
"""

import itertools
from collections.abc import Iterator

import pytest

from griffon_shards.storage import client

from .faulty_proxy import FaultyProxy, running_proxy
from .s3_server import environment_for, make_bucket, moto_server, running_server

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server, one for each process of the test run."""
    pytest.importorskip("s3fs")
    executable = moto_server()
    if executable is None:
        pytest.skip("no S3 server: set GRIFFON_MOTO to moto_server, or make .venv-moto with make test-scale")
    with running_server(executable, tmp_path_factory.mktemp("s3")) as port:
        yield port


@pytest.fixture
def s3(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The environment variables for the server; gives its port."""
    yield from _environment(s3_port, monkeypatch)


@pytest.fixture
def bucket(s3: int) -> str:
    """The URL of a new bucket."""
    return _new_bucket(s3)


@pytest.fixture
def proxy(s3_port: int, s3: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A faulty proxy before the server, and the environment variables for it: from here on, every request passes it."""
    with running_proxy(s3_port) as running:
        for _ in _environment(running.port, monkeypatch):
            yield running


@pytest.fixture
def faulty_bucket(s3_port: int, proxy: FaultyProxy) -> str:
    """The URL of a new bucket behind the faulty proxy. A test that needs its counters or settings takes `proxy` too."""
    return _new_bucket(s3_port)


def _environment(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Set the variables; clients that this process has are made anew, here and afterwards."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment_for(port).items():
        monkeypatch.setenv(name, value)
    client._client.cache_clear()
    yield port
    client._client.cache_clear()


def _new_bucket(port: int) -> str:
    name = f"bucket-{next(_NUMBERS)}"
    make_bucket(port, name)
    return f"s3://{name}"
