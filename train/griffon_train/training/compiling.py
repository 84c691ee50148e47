"""What a run has compiled before its first step. On CPUs, and with our own DeepSpeed files, that is nothing."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils import cpp_extension

from griffon_shards.support.errors import SettingsError
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.settings import Settings

_QUANTIZED = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients")


def announce(settings: Settings) -> None:
    """Say what is going to be compiled, once on each machine.

    Raises:
        SettingsError: what compiles it is missing.
    """
    lines = announcements(compiled_kernels(zero_config(settings)["zero_optimization"]))
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in lines:
            click.echo(line, err=True)


def compiled_kernels(zero: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """DeepSpeed's kernels that a section `zero_optimization` needs, and the tools that compile each."""
    kernels: dict[str, Sequence[str]] = {}
    offloads = [zero.get(name) or {} for name in ("offload_optimizer", "offload_param")]
    if any(each.get("device") == "nvme" for each in offloads):
        kernels["async_io"] = ("ninja", "c++")
    if any(zero.get(name) for name in _QUANTIZED):
        kernels["quantizer"] = ("ninja", "c++", "nvcc")
    return kernels


def announcements(kernels: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines about what is going to be compiled, and about what may keep it from being.

    Raises:
        SettingsError: a tool is missing.
    """
    lines = []
    for name, tools in kernels.items():
        missing = [tool for tool in tools if not _found(tool)]
        if missing:
            raise SettingsError(
                f"--deepspeed: its file needs the kernel {name}, which DeepSpeed compiles with {', '.join(tools)}; "
                f"{' and '.join(missing)} cannot be found: install it, or take --zero and --offload instead of the file"
            )
        folder = _cache(name)
        if not any(folder.glob("*.so")):
            lines.append(f"DeepSpeed compiles {name} into {folder}, once; it may take minutes")
        if (folder / "lock").exists():
            lines.append(
                f"{folder / 'lock'} exists: another process is compiling {name}, or was killed while it did, and then "
                f"this run waits in vain. If nothing is compiling, delete it: rm {folder / 'lock'}"
            )
    return lines


def _found(tool: str) -> bool:
    if tool == "nvcc":
        return cpp_extension.CUDA_HOME is not None and Path(cpp_extension.CUDA_HOME, "bin", "nvcc").exists()
    return shutil.which(os.environ.get("CXX", "c++") if tool == "c++" else tool) is not None


def _cache(name: str) -> Path:
    """The folder that torch compiles a kernel in, as `torch.utils.cpp_extension` chooses it."""
    if "TORCH_EXTENSIONS_DIR" in os.environ:
        return Path(os.environ["TORCH_EXTENSIONS_DIR"], name)
    python = f"py{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    cuda = torch.version.cuda
    device = "cpu" if cuda is None else f"cu{cuda.replace('.', '')}"
    return Path(cpp_extension.get_default_build_root(), f"{python}_{device}", name)
