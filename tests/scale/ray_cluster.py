"""Ray clusters of several nodes on this machine, each in a network namespace of its own where that is allowed."""

import itertools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..waiting import TIMEOUT_S

FIRST_PORT = 6390
RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = secrets.token_hex(32)
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


_SUBNETS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node: what `ray start` printed last says whether it is up."""

    process: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        """All of its processes, which share the session of `ray start`."""
        listed = subprocess.run(["ps", "-o", "pid=", "-s", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def workers(self) -> list[int]:
        """The processes that run tasks or have run some."""
        return [pid for pid in self.pids() if _command(pid).startswith("ray::") and "Agent" not in _command(pid)]

    def stop_running(self) -> bool:
        """Stop all workers if one of them runs a task; returns whether they are stopped."""
        pids = self.workers()
        self.signal(pids, signal.SIGSTOP)
        if any(not _command(pid).startswith("ray::IDLE") for pid in pids):
            return True
        self.signal(pids, signal.SIGCONT)
        return False

    def signal(self, pids: list[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """Kill all processes at once, as if the machine had failed."""
        self.signal(self.pids(), signal.SIGKILL)
        self.process.wait(TIMEOUT_S)


class Cluster:
    """A cluster whose first node is the head."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, namespaces: bool) -> None:
        self.folder = folder
        self.environment = {**ENVIRONMENT, **environment}
        self.nodes: list[Node] = []
        self._subnet = next(_SUBNETS)
        self._port = FIRST_PORT + self._subnet
        self._sockets = tempfile.TemporaryDirectory(prefix="gr", ignore_cleanup_errors=True)  # has a short path
        self._network = f"gr{secrets.token_hex(3)}" if namespaces and _may_make_namespaces() else ""
        if self._network:
            _ip("link", "add", self._network, "type", "bridge")
            _ip("link", "set", self._network, "up")

    @property
    def address(self) -> str:
        return f"{self._host(0)}:{self._port}"

    def prefix(self, number: int = 0) -> list[str]:
        """What a command begins with to run on a node."""
        return ["ip", "netns", "exec", f"{self._network}n{number}"] if self._network else []

    def add_node(self, cpus: int, own_disk: Path | None = None) -> Node:
        """Start a node; it sees an empty folder of its own at the path `own_disk`."""
        number = len(self.nodes)
        self._make_namespace(number)
        head = ["--head", "--port", str(self._port), "--include-dashboard", "false", "--temp-dir", self._sockets.name]
        command = [RAY, "start", "--block", "--node-ip-address", self._host(number), "--num-cpus", str(cpus)]
        command += ["--object-store-memory", "80000000", *(["--address", self.address] if number else head)]
        log = self.folder / f"node{number}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self.prefix(number), *([] if own_disk is None else on_own_disk(own_disk)), *command],
                stdout=file,
                stderr=file,
                env=self.environment,
                start_new_session=True,
            )
        node = Node(process=process, log=log)
        self.nodes.append(node)
        until = time.monotonic() + TIMEOUT_S
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        return node

    def remove(self) -> None:
        for node in reversed(self.nodes):
            node.kill()
        self._sockets.cleanup()
        if self._network:
            for number in range(len(self.nodes)):
                _ip("netns", "del", f"{self._network}n{number}")
            _ip("link", "del", self._network)

    def _host(self, number: int) -> str:
        return f"10.213.{self._subnet}.{number + 1}" if self._network else "127.0.0.1"

    def _make_namespace(self, number: int) -> None:
        if not self._network:
            return
        namespace, outer, inner = f"{self._network}n{number}", f"{self._network}v{number}", f"{self._network}i{number}"
        _ip("netns", "add", namespace)
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
        _ip("link", "set", outer, "master", self._network, "up")
        _ip("-n", namespace, "addr", "add", f"{self._host(number)}/24", "dev", inner)
        _ip("-n", namespace, "link", "set", inner, "up")
        _ip("-n", namespace, "link", "set", "lo", "up")


def on_own_disk(path: Path) -> list[str]:
    """What a command begins with to have an empty file system of its own at an existing folder."""
    return ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(path)]


@contextmanager
def ray_cluster(folder: Path, *, namespaces: bool = True, **environment: str) -> Iterator[Cluster]:
    """A cluster without nodes; those that are added are killed at the end. Its processes have these variables."""
    cluster = Cluster(folder, environment, namespaces=namespaces)
    try:
        yield cluster
    finally:
        cluster.remove()


def _may_make_namespaces() -> bool:
    try:
        made = subprocess.run(["ip", "netns", "add", f"gr{os.getpid()}"], capture_output=True)
    except FileNotFoundError:
        return False
    if made.returncode == 0:
        _ip("netns", "del", f"gr{os.getpid()}")
    return made.returncode == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
