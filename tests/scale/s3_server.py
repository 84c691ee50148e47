"""An S3 server on this machine: moto's, which runs from an environment of its own (`make test-scale` makes it)."""

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY"}
PAGE_OBJECTS = 20
"""Objects in one page of a listing; 1,000 in S3 itself."""

_START_S = 120


def moto_server() -> Path | None:
    """The server's executable: that in the variable GRIFFON_MOTO, or that of `.venv-moto`; None if there is none."""
    path = Path(os.environ.get("GRIFFON_MOTO") or ROOT / ".venv-moto" / "bin" / "moto_server")
    return path if path.is_file() else None


@contextmanager
def running_server(executable: Path, folder: Path) -> Iterator[int]:
    """A server without any bucket; gives its port. Its log is written into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "AWS_ENDPOINT_URL")}
    environment["MOTO_S3_DEFAULT_MAX_KEYS"] = str(PAGE_OBJECTS)
    with (folder / "moto.log").open("wb") as log:
        command = [str(executable), "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            _wait_for(port, process)
            yield port
        finally:
            process.kill()
            process.wait()


def make_bucket(port: int, name: str) -> None:
    """Create a bucket of the server on a port."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{name}", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def environment_for(port: int) -> dict[str, str]:
    """The environment variables with which S3 clients use the server, or a proxy before it, and nothing else."""
    return {
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "the S3 server ended; see its log"
            assert time.monotonic() < limit, "the S3 server does not answer"
            time.sleep(0.05)
