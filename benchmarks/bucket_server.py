"""A folder as a read-only S3 bucket, with a latency and a rate: `python bucket_server.py FOLDER` prints its port.

It answers what reading a set needs (GET with a range, HEAD, ListObjectsV2). It is made for benchmarks, where moto's
server would be what is measured.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_PIECE_BYTES = 1 << 16


class BucketServer:
    """Serves the objects below a folder, in the bucket `bench`."""

    def __init__(self, folder: Path, latency_s: float, bytes_per_s: float) -> None:
        self._folder, self._latency_s, self._bytes_per_s = folder, latency_s, bytes_per_s
        self._free_at = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = first.split(" ")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                await asyncio.sleep(self._latency_s)
                status, extra, body = self._answer(target, headers.get("range"))
                size = len(body)
                head = f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{extra}\r\n"
                writer.write(head.encode() + b"" if method == "HEAD" else head.encode())
                for start in range(0, 0 if method == "HEAD" else size, _PIECE_BYTES):
                    piece = body[start : start + _PIECE_BYTES]
                    self._free_at = max(self._free_at, time.monotonic()) + len(piece) / self._bytes_per_s
                    await asyncio.sleep(self._free_at - time.monotonic())
                    writer.write(piece)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    def _answer(self, target: str, given_range: str | None) -> tuple[str, str, bytes]:
        url = urlsplit(target)
        query = parse_qs(url.query)
        key = unquote(url.path).removeprefix("/bench").strip("/")
        if "list-type" in query:
            return "200 OK", "Content-Type: application/xml\r\n", self._listing(query.get("prefix", [""])[0])
        path = self._folder / key
        if not key or not path.is_file():
            return "404 Not Found", "Content-Type: application/xml\r\n", b"<Error><Code>NoSuchKey</Code></Error>"
        size = path.stat().st_size
        modified = 'Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: "0"\r\n'
        if given_range is None:
            return "200 OK", modified, path.read_bytes()
        start, _, last = given_range.removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1, size)
        with path.open("rb") as file:
            body = os.pread(file.fileno(), stop - int(start), int(start))
        return "206 Partial Content", f"{modified}Content-Range: bytes {start}-{stop - 1}/{size}\r\n", body

    def _listing(self, prefix: str) -> bytes:
        paths = sorted(path for path in self._folder.rglob("*") if path.is_file())
        objects = [
            f"<Contents><Key>{escape(name)}</Key><Size>{path.stat().st_size}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>0</ETag></Contents>"
            for path in paths
            if (name := path.relative_to(self._folder).as_posix()).startswith(prefix)
        ]
        xml = f"<KeyCount>{len(objects)}</KeyCount><IsTruncated>false</IsTruncated>{''.join(objects)}"
        return f"<ListBucketResult><Name>bench</Name>{xml}</ListBucketResult>".encode()


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-s", type=float, default=0.05)
    parser.add_argument("--bytes-per-s", type=float, default=100e6)
    options = parser.parse_args()
    bucket = BucketServer(options.folder, options.latency_s, options.bytes_per_s)
    server = await asyncio.start_server(bucket.serve, "127.0.0.1", 0, limit=1 << 20)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
