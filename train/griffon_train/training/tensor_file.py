"""Writes tensors piece by piece into safetensors files, and hashes them meanwhile."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from griffon_train.training.direct_file import DirectFile

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
        hashed_by: Callable[[memoryview], None] | None = None,
    ) -> None:
        """Open the file and write its header.

        Args:
            path: file to write.
            tensors: types and shapes of the tensors in their order; they may be on the meta device.
            metadata: the header's.
            hashed_by: called with all bytes of the file, in order.

        Raises:
            OSError: the file cannot be written.
        """
        self._file = DirectFile(path, hashed_by)
        self._file.write(torch.frombuffer(bytearray(_header(tensors, metadata)), dtype=torch.uint8), lambda: None)

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._file.finish()
        finally:
            self._file.close()

    def write(self, tensor: torch.Tensor, moved: Callable[[], object]) -> None:
        """Write the next tensor, from any device; `moved` is called after each piece.

        Raises:
            OSError: the file cannot be written.
        """
        self._file.write(tensor.detach().reshape(-1).view(torch.uint8), moved)


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
