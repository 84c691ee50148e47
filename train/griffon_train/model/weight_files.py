"""Weights on disk: mapped tensor by tensor, and written as safetensors."""

import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import size

CONFIG_NAME = "config.json"
SHARD_SIZE = "5GB"
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; each may be in shards, with an index beside them."""
_NAMES_SHOWN = 10
_LFS = b"version https://git-lfs"


class WeightFiles(Mapping[str, torch.Tensor]):
    """The tensors of a folder, or of one file, by name.

    Files are mapped, not read: a tensor costs memory only while its pages are looked at.
    """

    def __init__(self, path: Path) -> None:
        """Open safetensors or torch's zip files, whole or in shards.

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
        """The tensor; a copy only when it is written to."""
        return self._of[name](name)

    def __iter__(self) -> Iterator[str]:
        """Names, file by file."""
        return iter(self._of)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._of)


def _files_of(folder: Path) -> tuple[list[Path], set[str] | None]:
    for name in _WEIGHTS_NAMES:
        if (folder / name).is_file():
            return [folder / name], None
        if (index := folder / f"{name}.index.json").is_file():
            places = read_json(index).get("weight_map")
            if not isinstance(places, dict) or any(Path(str(place)).name != place for place in places.values()):
                raise DataError(f"{index}: not an index of the shards next to it; download it again")
            return [folder / place for place in sorted(set(places.values()))], set(places)
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
    try:  # torch maps only its zip files; what it wrote before 1.6 has to be read
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise DataError(f"{file}: contains more than tensors, or is damaged; no code in it was run") from error
    except (RuntimeError, EOFError) as error:
        raise DataError(
            f"{file}: damaged: {str(error).partition(chr(10))[0] or 'it is truncated'}; download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise DataError(f"{file}: expected tensors by name")
    return state, state.__getitem__


def _refuse_pointer(file: Path) -> None:
    """A clone without Git LFS has a few lines of text in place of each large file."""
    if file.is_file():
        with file.open("rb") as opened:
            if opened.read(len(_LFS)) == _LFS:
                raise DataError(
                    f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` in its repository, or download "
                    "it with `hf download`"
                )


def _missing(file: Path) -> DataError:
    return DataError(f"{file}: no such file; the weights are incomplete, download it from the source of the others")


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        SettingsError: there is no such file.
        DataError: it holds something else.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; give a folder as transformers stores models")
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object")
    return found


def refuse_other(what: str, wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError that lists tensors which are missing, there in addition, quantized, or of another shape."""
    both = wanted.keys() & found.keys()
    refuse_quantized(what, {name: found[name] for name in both if wanted[name].is_floating_point()})
    shapes = [(name, found[name].shape, wanted[name].shape) for name in both if found[name].shape != wanted[name].shape]
    refuse_unfit(what, missing=wanted.keys() - both, unexpected=found.keys() - both, shapes=shapes)


def refuse_unfit(
    what: str,
    *,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]] = (),
) -> None:
    """Raise DataError with a list of all tensors that do not fit, if there are any.

    Args:
        what: the message begins with this.
        missing: names.
        unexpected: names.
        shapes: name, the shape found and the shape expected.
    """
    shapes = sorted(shapes)
    told = [f"{name} {list(found)}, expected {list(expected)}" for name, found, expected in shapes]
    titles = {"missing": sorted(missing), "not expected": sorted(unexpected), "shape": told}
    lists = [f"{title}: {listed(names)}" for title, names in titles.items() if names]
    if any(0 in found for _, found, _ in shapes):
        lists.append("ZeRO-3 leaves empty tensors if the weights are not gathered; save them again")
    if lists:
        raise DataError("; ".join([what, *lists]))


def refuse_quantized(what: str, found: Mapping[str, torch.Tensor]) -> None:
    """Raise DataError if weights are whole numbers: cast to floats they would be taken for what they are not."""
    names = sorted(name for name, tensor in found.items() if not tensor.is_floating_point())
    if names:
        kind = str(found[names[0]].dtype).removeprefix("torch.")
        raise DataError(
            f"{what}: quantized weights ({kind}), which cannot be trained: {listed(names)}; get them in bfloat16, "
            "float16 or float32"
        )


def listed(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shard_size: str = SHARD_SIZE) -> None:
    """Write safetensors, in shards if they are large, with an index.

    Raises:
        DataError: there is too little room.
    """
    needed_bytes, free_bytes = bytes_of(tensors), shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DataError(f"{folder.parent}: {size(needed_bytes)} to write, but {size(free_bytes)} free; free some space")
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.data_ptr() in seen:  # saving would leave the second of two names for one tensor out
            tensors[name] = tensor.clone()
        seen.add(tensor.data_ptr())
    try:
        save_torch_state_dict(tensors, folder, max_shard_size=shard_size)
    except SafetensorError as error:
        raise DataError(f"{folder.parent}: cannot be written: {error}") from error


def bytes_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of all of them together."""
    return sum(tensor.nbytes for tensor in tensors.values())


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """As transformers writes it: indented, sorted."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    path.write_bytes(orjson.dumps(fields, option=options))
