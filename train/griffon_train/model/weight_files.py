"""Weights on disk: memory-mapped tensor by tensor, and written as safetensors."""

import ctypes
import mmap
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import orjson
import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import size
from griffon_train.given_folder import is_lfs_pointer

CONFIG_NAME = "config.json"
SHARD_SIZE = "5GB"
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; each may be split into shards with an index."""
_NAMES_SHOWN = 10
_TRAINED_DTYPES = {torch.float32, torch.bfloat16, torch.float16}
_FREED_BYTES = 1 << 20


class WeightFiles(Mapping[str, torch.Tensor]):
    """The tensors of a folder, or of one file, by name.

    Files are memory-mapped, not read: a tensor takes memory only while it is used.
    """

    def __init__(self, path: Path) -> None:
        """Open safetensors or torch's zip files, single or in shards.

        Raises:
            SettingsError: there are no weights.
            DataError: a file is missing or damaged, or holds more than tensors.
        """
        self.path = path
        self._of: dict[str, Callable[[str], torch.Tensor]] = {}
        files, named = _files_of(path) if path.is_dir() else ([path], None)
        for file in files:
            names, tensor_of = _open_safetensors(file) if file.suffix == ".safetensors" else _open_bin(file)
            self._of.update(dict.fromkeys(names, tensor_of))
        if named is not None:
            what = f"{path}: the index and its shards disagree; get them from the same place"
            refuse_unfit(what, missing=named - self._of.keys(), unexpected=self._of.keys() - named)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a tensor; it is copied only when it is written to."""
        return self._of[name](name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, file by file."""
        return iter(self._of)

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._of)


def note_mapped(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Note which parameters, of those that were just loaded, are mapped from files, for `is_mapped`.

    torch cannot resize the memory of a mapped file; later that also holds for tensors that numpy has seen.
    """
    for parameter in parameters:
        if not parameter.untyped_storage().resizable():
            parameter.mapped_at = parameter.data_ptr()  # type: ignore[attr-defined]


def is_mapped(parameter: torch.Tensor) -> bool:
    """Return whether a parameter still has the memory of a mapped file, whose pages all processes share."""
    return getattr(parameter, "mapped_at", None) == parameter.data_ptr()


def drop_pages(tensor: torch.Tensor) -> None:
    """Take the pages of a mapped tensor out of this process's memory. What was written to the tensor is lost.

    A file stays mapped, with all pages that were read, until the last of its tensors is freed.
    """
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start and hasattr(mmap, "MADV_DONTNEED"):
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def return_freed_memory(freed_bytes: int) -> None:
    """Give freed memory back to the system; glibc keeps what lies between pieces in use, as if nothing were freed.

    Args:
        freed_bytes: size of what has just been freed; nothing is done for little, as it takes a millisecond.
    """
    libc = ctypes.CDLL(None)
    if freed_bytes >= _FREED_BYTES and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(ctypes.c_size_t(0))


def stored_dtype(tensors: Mapping[str, torch.Tensor], default: torch.dtype) -> torch.dtype:
    """Return the narrowest type that holds all floating-point tensors exactly; `default` where some are unusual."""
    dtypes = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return reduce(torch.promote_types, dtypes) if dtypes and dtypes <= _TRAINED_DTYPES else default


def _files_of(folder: Path) -> tuple[list[Path], set[str] | None]:
    for name in _WEIGHTS_NAMES:
        if (folder / name).is_file():
            return [folder / name], None
        if (index := folder / f"{name}.index.json").is_file():
            file_names = read_json(index).get("weight_map")
            if not isinstance(file_names, dict) or any(Path(str(file)).name != file for file in file_names.values()):
                raise DataError(f"{index}: not an index of the shards next to it; download it again")
            return [folder / file for file in sorted(set(file_names.values()))], set(file_names)
    raise SettingsError(f"{folder}: no weights; expected {' or '.join(_WEIGHTS_NAMES)}, or shards with their index")


def _open_safetensors(file: Path) -> tuple[Iterable[str], Callable[[str], torch.Tensor]]:
    _refuse_pointer(file)
    try:
        opened = safe_open(file, framework="pt")
    except FileNotFoundError as error:
        raise _missing(file) from error
    except SafetensorError as error:
        raise DataError(f"{file}: damaged: {error}; download it again") from error
    names: list[str] = opened.keys()  # type: ignore[no-untyped-call]
    return names, opened.get_tensor


def _open_bin(file: Path) -> tuple[Iterable[str], Callable[[str], torch.Tensor]]:
    if not file.is_file():
        raise _missing(file)
    _refuse_pointer(file)
    try:  # torch maps only zip files; files from before torch 1.6 are read
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise DataError(f"{file}: contains more than tensors, or is damaged; no code in it was run") from error
    except (RuntimeError, EOFError) as error:
        raise DataError(
            f"{file}: damaged: {str(error).partition(chr(10))[0] or 'it is truncated'}; download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise DataError(f"{file}: expected a dictionary of tensors by name")
    return state, state.__getitem__


def _refuse_pointer(file: Path) -> None:
    if is_lfs_pointer(file):
        raise DataError(
            f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository, or download it with "
            "`hf download`"
        )


def _missing(file: Path) -> DataError:
    return DataError(f"{file}: no such file; the weights are incomplete: download it from the source of the others")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SettingsError: the file does not exist.
        DataError: it does not hold a JSON object.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; give a folder in the format that transformers saves")
    try:
        fields = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DataError(f"{path}: expected a JSON object")
    return fields


def refuse_other(what: str, wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError with a list of tensors that are missing, unexpected, quantized, or of another shape."""
    both = wanted.keys() & tensors.keys()
    refuse_quantized(what, {name: tensors[name] for name in both if wanted[name].is_floating_point()})
    shapes = [
        (name, tensors[name].shape, wanted[name].shape) for name in both if tensors[name].shape != wanted[name].shape
    ]
    refuse_unfit(what, missing=wanted.keys() - both, unexpected=tensors.keys() - both, shapes=shapes)


def refuse_unfit(
    what: str,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]] = (),
) -> None:
    """Raise DataError with a list of all tensors that do not fit, if there are any.

    Args:
        what: beginning of the message.
        missing: names of tensors.
        unexpected: names of tensors.
        shapes: name, actual shape and expected shape.
    """
    shapes = sorted(shapes)
    mismatches = [f"{name} {list(actual)}, expected {list(expected)}" for name, actual, expected in shapes]
    titles = {"missing": sorted(missing), "not expected": sorted(unexpected), "shape": mismatches}
    lists = [f"{title}: {listed(names)}" for title, names in titles.items() if names]
    if any(0 in actual for _, actual, _ in shapes):
        lists.append("ZeRO-3 leaves empty tensors if the weights are not gathered; save them again")
    if lists:
        raise DataError("; ".join([what, *lists]))


def refuse_quantized(what: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError if weights are integers: cast to floats, they would silently be wrong."""
    names = sorted(name for name, tensor in tensors.items() if not tensor.is_floating_point())
    if names:
        kind = str(tensors[names[0]].dtype).removeprefix("torch.")
        raise DataError(
            f"{what}: quantized weights ({kind}), which cannot be trained: {listed(names)}; get them in bfloat16, "
            "float16 or float32"
        )


def listed(names: list[str]) -> str:
    """Return the first names, and the number of the others."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shard_size: str = SHARD_SIZE) -> None:
    """Write safetensors; large ones are split into shards with an index.

    Raises:
        DataError: the disk is too full.
    """
    needed_bytes, free_bytes = bytes_of(tensors), shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DataError(f"{folder.parent}: {size(needed_bytes)} to write, but {size(free_bytes)} free; free some space")
    pointers: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in pointers:  # of two names for one tensor, saving would omit the second
            tensors[name] = tensor.clone()
        pointers.add(tensor.data_ptr())
    try:
        save_torch_state_dict(tensors, folder, max_shard_size=shard_size)
    except SafetensorError as error:
        raise DataError(f"{folder.parent}: cannot be written: {error}") from error


def bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the size of all tensors in bytes."""
    return sum(tensor.nbytes for tensor in tensors.values())


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write JSON as transformers does: indented, with sorted keys."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    path.write_bytes(orjson.dumps(fields, option=options))
