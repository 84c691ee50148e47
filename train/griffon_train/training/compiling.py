"""Kernels that DeepSpeed compiles before a run's first step: none on CPUs or with the DeepSpeed files shipped here."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import cpp_extension

from griffon_shards.support.errors import SettingsError
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.groups import MemorySettings, OptimizerSettings

_log = logging.getLogger(__name__)

_QUANTIZED = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients")


def announce(memory: MemorySettings, optimizer: OptimizerSettings) -> None:
    """Log which kernels are going to be compiled, once on each machine.

    Raises:
        SettingsError: a tool that compiles them is missing.
    """
    lines = announcements(compiled_kernels(zero_config(memory, optimizer)["zero_optimization"]))
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in lines:
            _log.warning(line)  # at this level also on machines without rank 0


def compiled_kernels(zero: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """DeepSpeed kernels that a `zero_optimization` section needs, with the tools that compile each."""
    kernels: dict[str, Sequence[str]] = {}
    offloads = [zero.get(name) or {} for name in ("offload_optimizer", "offload_param")]
    if any(offload.get("device") == "nvme" for offload in offloads):
        kernels["async_io"] = ("ninja", "c++")
    if any(zero.get(name) for name in _QUANTIZED):
        kernels["quantizer"] = ("ninja", "c++", "nvcc")
    return kernels


def announcements(kernels: Mapping[str, Sequence[str]]) -> list[str]:
    """Messages about the kernels that are going to be compiled, and about stale locks that may block this.

    Raises:
        SettingsError: a tool is missing.
    """
    lines = []
    for name, tools in kernels.items():
        missing = [tool for tool in tools if not _found(tool)]
        if missing:
            raise SettingsError(
                f"--deepspeed: its file needs the kernel {name}, which DeepSpeed compiles with {', '.join(tools)}; "
                f"{' and '.join(missing)} cannot be found: install it, or give --zero and --offload instead of the file"
            )
        folder = _cache(name)
        if not any(folder.glob("*.so")):
            lines.append(f"DeepSpeed compiles {name} into {folder}, once; this may take minutes")
        if (folder / "lock").exists():
            lines.append(
                f"{folder / 'lock'} exists: another process is compiling {name}, or was killed while compiling it, in "
                f"which case this run waits forever. If nothing is compiling, delete it: rm {folder / 'lock'}"
            )
    return lines


def _found(tool: str) -> bool:
    if tool == "nvcc":
        return cpp_extension.CUDA_HOME is not None and Path(cpp_extension.CUDA_HOME, "bin", "nvcc").exists()
    return shutil.which(os.environ.get("CXX", "c++") if tool == "c++" else tool) is not None


def _cache(name: str) -> Path:
    """The folder in which torch compiles a kernel, computed as in `torch.utils.cpp_extension`."""
    if "TORCH_EXTENSIONS_DIR" in os.environ:
        return Path(os.environ["TORCH_EXTENSIONS_DIR"], name)
    python = f"py{sys.version_info.major}{sys.version_info.minor}{getattr(sys, 'abiflags', '')}"
    cuda = torch.version.cuda
    device = "cpu" if cuda is None else f"cu{cuda.replace('.', '')}"
    return Path(cpp_extension.get_default_build_root(), f"{python}_{device}", name)
