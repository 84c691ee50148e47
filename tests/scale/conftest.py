"""Buckets of object stores on this machine, as they should be and behind a proxy that makes trouble.

Tests in this folder carry the marker `scale` and run with `make test-scale`, in an environment that has Ray and the
clients of object stores. They use S3, unless they are parametrized with `provider`.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from griffon_shards.storage import client

from .faulty_proxy import Faults, FaultyProxy, running_proxy
from .stores import STORES

_NUMBERS = itertools.count()


@contextmanager
def _server(provider: str, factory: pytest.TempPathFactory) -> Iterator[int]:
    store = STORES[provider]
    pytest.importorskip(store.client)
    executable = store.executable()
    if executable is None:
        pytest.skip(f"no server for {provider}://, which make test-scale installs; or set GRIFFON_STORES")
    with store.running(executable, factory.mktemp(provider)) as port:
        yield port


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server, one for each process of the test run."""
    with _server("s3", tmp_path_factory) as port:
        yield port


@pytest.fixture(scope="session")
def gs_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The same of Google Cloud Storage."""
    with _server("gs", tmp_path_factory) as port:
        yield port


@pytest.fixture(scope="session")
def az_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The same of Azure Blob Storage."""
    with _server("az", tmp_path_factory) as port:
        yield port


@pytest.fixture
def provider() -> str:
    """The provider of the test's buckets."""
    return "s3"


@pytest.fixture
def store_port(provider: str, request: pytest.FixtureRequest) -> int:
    """The port of the provider's server."""
    port: int = request.getfixturevalue(f"{provider}_port")
    return port


@pytest.fixture
def store(provider: str, store_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The environment variables for the server; gives its port."""
    yield from _environment(provider, store_port, monkeypatch)


@pytest.fixture
def bucket(provider: str, store: int) -> str:
    """The URL of a new bucket."""
    return _new_bucket(provider, store)


@pytest.fixture
def proxy(provider: str, store: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A faulty proxy before the server, and the environment variables for it: from here on, every request passes it."""
    with running_proxy(store, Faults(), provider=provider) as running:
        for _ in _environment(provider, running.port, monkeypatch):
            yield running


@pytest.fixture
def faulty_bucket(provider: str, store_port: int, proxy: FaultyProxy) -> str:
    """The URL of a new bucket behind the faulty proxy. A test that needs its counters or settings takes `proxy` too."""
    return _new_bucket(provider, store_port)


def _environment(provider: str, port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Set the variables; clients that this process has are made anew, here and afterwards."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in STORES[provider].environment(port).items():
        monkeypatch.setenv(name, value)
    client._client.cache_clear()
    yield port
    client._client.cache_clear()


def _new_bucket(provider: str, port: int) -> str:
    name = f"bucket-{next(_NUMBERS)}"
    STORES[provider].create(port, name)
    return f"{provider}://{name}"
