"""A proxy in front of an object store that is slow, throttles, and loses connections, from a fixed seed.

It runs as a process of its own, so that it takes no time from the process that it serves. Each request waits for the
latency; then it is refused (by default with 503, in the words of the provider), or passed on. Some responses are cut:
half of the body is sent, or nothing if there is no body, and the connection is closed. The server has then done what it
was asked for.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

CONTROL = "/-proxy"
_CHUNK_BYTES = 1 << 16
_REFUSALS = {
    "s3": {"SlowDown": 503, "AccessDenied": 403, "InvalidAccessKeyId": 403, "PermanentRedirect": 301},
    "gs": {"backendError": 503, "rateLimitExceeded": 429, "forbidden": 403, "required": 401, "authError": 401},
    "az": {"ServerBusy": 503, "AuthorizationPermissionMismatch": 403, "NoAuthenticationInformation": 401},
}
"""Error codes of the providers, and the HTTP status of each; the first is that of a store that throttles."""
_GOOGLE_SAYS = {
    "required": "Anonymous caller does not have storage.objects.get access to the Google Cloud Storage object.",
    "authError": "Invalid Credentials",
}


@dataclass(kw_only=True)
class Faults:
    """What the proxy does to requests; a dictionary of these replaces them while it runs.

    Attributes:
        latency_s: wait before each request is passed on.
        bytes_per_s: limit of all connections together, in each direction; 0 for none.
        refuse_share: share of the requests that is refused.
        refuse_code: the provider's error code for these; without one, that of throttling.
        cut_share: share of the responses that is cut.
    """

    latency_s: float = 0.05
    bytes_per_s: float = 100e6
    refuse_share: float = 0.05
    refuse_code: str = ""
    cut_share: float = 0.02


@dataclass(kw_only=True)
class Counters:
    """What the proxy has seen since it started."""

    requests: int = 0
    reads: int = 0
    writes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    refused: int = 0
    cut: int = 0
    most_at_once: int = 0


class FaultyProxy:
    """A running proxy."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def counters(self) -> Counters:
        """What it has seen since it started."""
        return Counters(**self._control("GET", None))

    def configure(self, faults: Faults) -> None:
        """Replace its faults."""
        self._control("PUT", asdict(faults))

    def _control(self, method: str, body: object) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, CONTROL, None if body is None else json.dumps(body))
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answer


@contextmanager
def running_proxy(
    target_port: int, faults: Faults | None = None, seed: int = 0, provider: str = "s3"
) -> Iterator[FaultyProxy]:
    """A proxy in front of a provider's HTTP server on a port of this machine, on a port of its own."""
    script = [sys.executable, str(Path(__file__).resolve())]
    command = [*script, str(target_port), "--seed", str(seed), "--provider", provider]
    process = subprocess.Popen([*command, "--faults", json.dumps(asdict(faults or Faults()))], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the proxy has not started"
        yield FaultyProxy(int(line))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class _Pace:
    """Spreads bytes over time."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def passed(self, size: int, bytes_per_s: float) -> None:
        if bytes_per_s:
            self._free_at = max(self._free_at, time.monotonic()) + size / bytes_per_s
            await asyncio.sleep(self._free_at - time.monotonic())


class _Server:
    def __init__(self, target_port: int, faults: Faults, seed: int, provider: str) -> None:
        self._target_port = target_port
        self._provider = provider
        self._faults = faults
        self._random = random.Random(seed)
        self._counters = Counters()
        self._upwards, self._downwards = _Pace(), _Pace()
        self._now = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until either side closes it."""
        try:
            while await self._serve_request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone
        finally:
            writer.close()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        first, headers = _parsed(head)
        method, path, _ = first.split(" ", 2)
        if "100-continue" in headers.get("expect", "").lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._body(reader, headers)
        if path == CONTROL:
            if body:
                self._faults = Faults(**json.loads(body))
            return await self._send(writer, _response(200, "OK", json.dumps(asdict(self._counters)).encode()))
        self._now += 1
        self._counters.most_at_once = max(self._counters.most_at_once, self._now)
        try:
            return await self._pass_on(method, first, headers, body, writer)
        finally:
            self._now -= 1

    async def _pass_on(
        self, method: str, first: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        counters, faults = self._counters, self._faults
        counters.requests += 1
        counters.bytes_in += len(body)
        counters.reads += method in ("GET", "HEAD")
        counters.writes += method not in ("GET", "HEAD")
        refused, cut = (self._random.random() < share for share in (faults.refuse_share, faults.cut_share))
        await asyncio.sleep(faults.latency_s)
        if refused:
            counters.refused += 1
            return await self._send(writer, _refusal(self._provider, faults.refuse_code, method))
        answer_head, answer = await self._ask(method, first, headers, body)
        if cut:
            counters.cut += 1
            if answer:
                await self._send(writer, answer_head + answer[: len(answer) // 2])
            return False
        return await self._send(writer, answer_head + answer)

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        """The body of a request or response, without its framing."""
        parts = []
        if "chunked" in headers.get("transfer-encoding", "").lower():
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
                await self._upwards.passed(size, self._faults.bytes_per_s)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        else:
            left = int(headers.get("content-length", 0))
            while left:
                parts.append(await reader.readexactly(min(left, _CHUNK_BYTES)))
                left -= len(parts[-1])
                await self._upwards.passed(len(parts[-1]), self._faults.bytes_per_s)
        return b"".join(parts)

    async def _ask(self, method: str, first: str, headers: dict[str, str], body: bytes) -> tuple[bytes, bytes]:
        """Head and body of the server's response."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        kept = {name: value for name, value in headers.items() if name not in ("expect", "transfer-encoding")}
        kept |= {"connection": "close", "content-length": str(len(body))}
        lines = [first, *(f"{name}: {value}" for name, value in kept.items()), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        head = await reader.readuntil(b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
        first_line, answer_headers = _parsed(head)
        if "chunked" in answer_headers.pop("transfer-encoding", "").lower():
            answer = _joined(answer)
        answer_headers.pop("connection", None)
        if method != "HEAD" and first_line.split()[1] not in ("204", "304"):
            answer_headers["content-length"] = str(len(answer))
        first_line = "HTTP/1.1 " + first_line.split(" ", 1)[1]
        lines = [first_line, *(f"{name}: {value}" for name, value in answer_headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1"), answer

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> bool:
        for start in range(0, len(data), _CHUNK_BYTES):
            piece = data[start : start + _CHUNK_BYTES]
            writer.write(piece)
            self._counters.bytes_out += len(piece)
            await self._downwards.passed(len(piece), self._faults.bytes_per_s)
            await writer.drain()
        return True


def _parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """First line and headers, whose names are in lower case."""
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _joined(chunks: bytes) -> bytes:
    """The content of a body in HTTP chunks."""
    parts = []
    while size := int(chunks.partition(b"\r\n")[0].split(b";")[0], 16):
        start = chunks.index(b"\r\n") + 2
        parts.append(chunks[start : start + size])
        chunks = chunks[start + size + 2 :]
    return b"".join(parts)


def _refusal(provider: str, code: str, method: str) -> bytes:
    codes = _REFUSALS[provider]
    code = code or next(iter(codes))
    if provider == "gs":
        says = _GOOGLE_SAYS.get(code, "refused")
        error = {"code": codes[code], "message": says, "errors": [{"message": says, "reason": code}]}
        return _response(codes[code], code, json.dumps({"error": error}).encode(), "application/json", method=method)
    xml = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>refused</Message></Error>'
    return _response(codes[code], code, xml.encode(), "application/xml", method=method)


def _response(status: int, reason: str, body: bytes, kind: str = "application/json", *, method: str = "GET") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"x-ms-error-code: {reason}"] if status != 200 else []  # Azure's; others ignore it
    lines += ["x-amz-bucket-region: eu-west-1"] if status == 301 else []
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else body)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target_port", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--provider", choices=_REFUSALS, default="s3")
    parser.add_argument("--faults", type=json.loads, default={})
    options = parser.parse_args()
    service = _Server(options.target_port, Faults(**options.faults), options.seed, options.provider)
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
