"""Samples that somebody marked as doubtful: a small JSONL file beside the set, never in it.

A line is `{"key": ..., "note": ...}`. `griffon-prep build --exclude-keys FILE` leaves the marked samples out of the
next set. A line that is not JSON counts as a key without a note, so that a file may be written by hand; a comment
begins with `#`.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import orjson

from griffon_shards.storage import Location, ObjectPath
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole
from griffon_shards.support.folder_lock import wait_for_lock

MAX_NOTE_CHARS = 2000

_Lines = dict[str, dict[str, object]]
"""The fields of a line by its key; none for a comment, which is its own key."""


def marks_path(root: Location) -> Path:
    """The file of marks of a set: beside it, never in it; of a set at a URL, in the current folder."""
    if isinstance(root, ObjectPath):
        return Path(str(root).partition("://")[2].replace("/", "-") + ".marks.jsonl").absolute()
    folder = root.resolve()
    return folder.with_name(f"{folder.name}.marks.jsonl")


class Marks:
    """The marks in a file. Threads share one object; objects of other processes may write the same file.

    Changes take turns by a lock beside the file: each is made to what the file holds at that moment.

    Attributes:
        path: the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._state: tuple[int, int] | None = None
        self._lines: _Lines = {}
        self._error: str | None = None
        self.notes()

    def notes(self) -> dict[str, str]:
        """Keys and notes, in the order of the file."""
        with self._lock:
            self._reload()
            return {key: str(line.get("note") or "") for key, line in self._lines.items() if line}

    @property
    def error(self) -> str | None:
        """Why marks cannot be written, or None."""
        with self._lock:
            self._reload()
            return self._why_not()

    def put(self, key: str, note: str) -> None:
        """Mark a sample, or change its note.

        Raises:
            DataError: the file is damaged, cannot be written, or is on storage without file locks.
            OSError: the disk is full.
        """
        self._change(lambda lines: lines.update({key: {**lines.get(key, {}), "key": key, "note": note}}))

    def delete(self, key: str) -> None:
        """Take a mark away, if there is one. Raises as `put`."""
        self._change(lambda lines: lines.pop(key, None))

    def _change(self, change: Callable[[_Lines], object]) -> None:
        with self._lock:
            self._writable_lines()  # where nothing can be written, no lock can be made
            path = self.path.resolve()  # of a link, the file
            lock = path.with_name(f".{path.name}.lock")
            with wait_for_lock(lock, whose=f"{self.path}: another server is writing marks"):
                self._state = None  # read it again: its time may be too coarse to tell two changes apart
                lines = self._writable_lines()
                change(lines)
                written = [orjson.dumps(line).decode() if line else comment for comment, line in lines.items()]
                write_whole(path, "".join(f"{line}\n" for line in written).encode())
                self._reload()

    def _writable_lines(self) -> _Lines:
        """A copy of the lines of the file. Raises DataError if it cannot be written."""
        self._reload()
        error = self._why_not()
        if error is not None:
            raise DataError(error)
        return dict(self._lines)

    def _why_not(self) -> str | None:
        """Why the file as it was last read cannot be written, or None."""
        if self._error is not None:
            return self._error
        path = self.path.resolve()  # of a link, the file
        if not (os.access(path if path.exists() else path.parent, os.W_OK) and os.access(path.parent, os.W_OK)):
            return f"{self.path}: cannot be written; give another file with --marks"
        return None

    def _reload(self) -> None:
        """Read the file if it has changed."""
        try:
            status = self.path.stat()
            state = (status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            state = (0, 0)
        if state == self._state:
            return
        self._state = state
        try:
            data = self.path.read_bytes() if state != (0, 0) else b""
            self._lines, self._error = _parsed(data), None
        except (OSError, ValueError) as error:
            self._lines, self._error = (
                {},
                f"{self.path}: {error}; marks are neither shown nor written until it is repaired",
            )


def _parsed(data: bytes) -> _Lines:
    lines: _Lines = {}
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        text = line.strip()
        if text.startswith("#"):
            lines[text] = {}
        elif text.startswith("{"):
            fields = orjson.loads(text)
            if not isinstance(fields.get("key"), str):
                raise DataError(f"line {number} has no key")
            lines[fields["key"]] = fields
        elif text:
            lines[text] = {"key": text}
    return lines
