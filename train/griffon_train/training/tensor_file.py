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

import torch

from griffon_shards.support.files import begin_write_back

_PIECE_BYTES = 16 << 20
_SYNC_BYTES = 256 << 20  # otherwise the final fsync would write everything in one long call
_UNHASHED = 16  # pieces; of tensors on a GPU each is a copy
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], moved: Callable[[], object]) -> str:
    """Write tensors on any device into a new safetensors file and flush it to disk.

    https://github.com/huggingface/safetensors#format: the length of the header as a little-endian uint64, the header as
    JSON padded with spaces to a multiple of 8 bytes, and the tensors' bytes.

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
    unhashed: deque[Future[None]] = deque()
    with path.open("wb") as file, ThreadPoolExecutor(1) as hashing:
        header = _header(tensors)
        file.write(header)
        digest.update(header)
        position = written_back = synced = len(header)
        for tensor in tensors.values():
            flat = tensor.detach().reshape(-1).view(torch.uint8)
            for piece in flat.split(_PIECE_BYTES):
                raw = piece.cpu().numpy().data
                unhashed.append(hashing.submit(digest.update, raw))
                if len(unhashed) > _UNHASHED:
                    unhashed.popleft().result()
                file.write(raw)
                position += len(raw)
                written_back = begin_write_back(file, written_back, position)
                if position - synced >= _SYNC_BYTES:
                    file.flush()
                    os.fdatasync(file.fileno())
                    synced = position
                moved()
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    fields, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        fields[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
