"""Writes large tensors piece by piece, hashes them meanwhile, and flushes to disk as it goes.

A thread hashes while this one waits for the disk. No flush takes so long that the watchdog would see no progress.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from griffon_shards.support.files import begin_write_back

_PIECE_BYTES = 16 << 20
_SYNC_BYTES = 256 << 20  # otherwise the final fsync would write everything in one long call
_UNHASHED = 16  # pieces; of tensors on a GPU each is a copy
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], moved: Callable[[], object]) -> str:
    """Write tensors on any device into a new safetensors file and flush it to disk.

    Args:
        path: file to write.
        tensors: tensors by name.
        moved: called after each piece.

    Returns:
        The SHA-256 of the file.

    Raises:
        OSError: the file cannot be written.
    """
    digest = hashlib.sha256()
    with TensorFile(path, tensors, hashed_by=digest.update) as file:
        for tensor in tensors.values():
            file.write(tensor, moved)
    return digest.hexdigest()


class TensorFile:
    """A new safetensors file whose tensors are given one after the other. It is on disk when the context ends.

    https://github.com/huggingface/safetensors#format: the length of the header as a little-endian uint64, the header as
    JSON padded with spaces to a multiple of 8 bytes, and the tensors' bytes.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, torch.Tensor],
        *,
        metadata: Mapping[str, str] | None = None,
        hashed_by: Callable[[bytes | memoryview], None] | None = None,
    ) -> None:
        """Open the file and write its header.

        Args:
            path: file to write.
            tensors: types and shapes of the tensors in their order; they may be on the meta device.
            metadata: the header's.
            hashed_by: called with every piece, in a thread.

        Raises:
            OSError: the file cannot be written.
        """
        self._file = path.open("wb")
        self._hashed_by, self._hashing = hashed_by, ThreadPoolExecutor(1)
        self._unhashed = deque[Future[None]]()
        self._position = self._written_back = self._synced = 0
        self._piece(_header(tensors, metadata))

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file, self._hashing:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def write(self, tensor: torch.Tensor, moved: Callable[[], object]) -> None:
        """Write the next tensor, from any device; `moved` is called after each piece.

        Raises:
            OSError: the file cannot be written.
        """
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        for piece in flat.split(_PIECE_BYTES):
            self._piece(piece.cpu().numpy().data)
            moved()

    def _piece(self, raw: bytes | memoryview) -> None:
        if self._hashed_by is not None:
            self._unhashed.append(self._hashing.submit(self._hashed_by, raw))
            if len(self._unhashed) > _UNHASHED:
                self._unhashed.popleft().result()
        self._file.write(raw)
        self._position += len(raw)
        self._written_back = begin_write_back(self._file, self._written_back, self._position)
        if self._position - self._synced >= _SYNC_BYTES:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._synced = self._position


def _header(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None) -> bytes:
    fields: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        fields[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
