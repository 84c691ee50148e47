"""The file systems of the three providers: fsspec's, set up so that one layer retries, ours, and no error is hidden.

gcsfs and adlfs retry by themselves for a minute and have no setting for it; both list more than they are asked for,
and adlfs takes a container that is missing for an empty one. Their classes are imported when they are first used.
"""

import importlib.util
import logging
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from griffon_shards.support.errors import SettingsError

PROTOCOLS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
"""Protocols of URLs, and the provider of each, which is also the extra that it needs."""

CONNECTIONS = 64
"""Connections that the client of a process keeps; more requests at once than that wait for one."""

_CONNECT_S, _READ_S = 10, 15
_MODULES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_LOGGERS = ("azure", "google", "gcsfs")
_FSSPEC = {"skip_instance_cache": True, "use_listings_cache": False}
_AZURE_GET_BYTES = 1 << 30
_AZURE_PUT_BYTES = 50 << 20


def provider_of(url: str) -> str:
    """`s3`, `gs` or `az`."""
    return PROTOCOLS[url.partition("://")[0]]


def bucket_of(url: str) -> str:
    """The URL of the bucket that a URL names."""
    return "/".join(url.split("/")[:3])


def file_system(provider: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """A new file system, for this process.

    Raises:
        SettingsError: its package is not installed.
        Exception: the provider's, if it finds no account.
    """
    module = _MODULES[provider]
    if importlib.util.find_spec(module) is None or importlib.util.find_spec("fsspec") is None:
        raise SettingsError(
            f"{provider}://: needs the package {module}; install it with pip install 'griffon-pipeline[{provider}]'"
        )
    for name in _LOGGERS:
        if not logging.getLogger(name).handlers:  # unless somebody listens, warnings would be printed beside our errors
            logging.getLogger(name).addHandler(logging.NullHandler())
    return _FILE_SYSTEMS[provider]()


def look_for_bucket(system: Any, url: str) -> None:  # noqa: ANN401
    """Ask a file system for a bucket with one request. Raises FileNotFoundError if there is none."""
    _BUCKET_REQUESTS[provider_of(url)](system, url)


def _amazon() -> Any:  # noqa: ANN401
    from s3fs import S3FileSystem

    config = {
        "max_pool_connections": CONNECTIONS,
        "connect_timeout": _CONNECT_S,
        "read_timeout": _READ_S,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
    }
    # One request reads an object whole, instead of a HEAD and several ranges.
    system = S3FileSystem(max_concurrency=1, config_kwargs=config, **_FSSPEC)
    system.retries = 1
    return system


def _google() -> Any:  # noqa: ANN401
    from aiohttp import ClientTimeout
    from gcsfs.core import GCSFileSystem  # gcsfs's own name is of a class that asks for each bucket's kind through gRPC

    request = GCSFileSystem._request.__wrapped__  # its decorator retries, and logs tracebacks

    class FileSystem(GCSFileSystem):  # type: ignore[misc]
        async def _request(self, method: str, *arguments: object, **options: object) -> tuple[Any, ...]:
            try:
                answer: tuple[Any, ...] = await request(self, method, *arguments, **options)
            except Exception:
                if method != "DELETE":
                    raise
                return 0, {}, None, b""  # an upload that failed is given up; its own error is raised then
            return answer

        async def _find(self, path: str, **_: object) -> dict[str, Any]:
            objects, _prefixes = await self._do_list_objects(self._strip_protocol(path), delimiter="")
            return {entry["name"]: entry for entry in objects}

    return FileSystem(requests_timeout=ClientTimeout(sock_connect=_CONNECT_S, sock_read=_READ_S), **_FSSPEC)


def _azure() -> Any:  # noqa: ANN401
    from adlfs import AzureBlobFileSystem

    class FileSystem(AzureBlobFileSystem):  # type: ignore[misc]
        # adlfs's own take some names for URLs: that of a blob that ends in #, or has ?versionid= in it.
        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            protocol, _, rest = path.partition("://")
            return (rest if protocol in PROTOCOLS else path).lstrip("/")

        def split_path(self, path: str, **_options: object) -> tuple[str, str, None]:
            container, _, name = self._strip_protocol(path).partition("/")
            return container, name, None

        async def _find(self, path: str, **_: object) -> dict[str, Any]:
            container, prefix, _version = self.split_path(f"{path}/")
            async with self.service_client.get_container_client(container) as client:
                listed = client.list_blobs(name_starts_with=prefix, include=["metadata"])
                blobs = [blob async for blob in listed if not blob.name.endswith("/")]
            return {entry["name"]: entry for entry in await self._details(blobs) if entry["type"] == "file"}

    system = FileSystem(max_concurrency=1, **_FSSPEC)
    config = system.service_client._config  # adlfs passes on none of these
    config.retry_policy.total_retries = 0
    config.max_single_get_size, config.max_block_size = _AZURE_GET_BYTES, _AZURE_PUT_BYTES
    config.transport.connection_config.timeout = _CONNECT_S
    config.transport.connection_config.read_timeout = _READ_S
    return system


_FILE_SYSTEMS: dict[str, Callable[[], Any]] = {"s3": _amazon, "gs": _google, "az": _azure}
_BUCKET_REQUESTS: dict[str, Callable[[Any, str], object]] = {
    "s3": lambda system, url: None,  # its errors say which is missing, the bucket or the object
    "gs": lambda system, url: system.ls(url, max_results=1),
    "az": lambda system, url: system.info(url),
}
CREATE: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {"s3": {"mode": "create"}, "gs": {"mode": "create"}, "az": {"overwrite": False}}
)
"""Arguments of `pipe_file` that write an object unless there is one. Versions of adlfs ignore `mode` silently."""
