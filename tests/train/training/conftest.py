"""Ranks to train on, and comparison of the results of runs."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from griffon_train.config.lora import LoraSettings
from griffon_train.config.run_folder import stored_settings
from griffon_train.training.model_loading import load_model

from ...waiting import TIMEOUT_S
from .launcher import Launcher, Running

ZERO_3 = Path(__file__).resolve().parents[3] / "train" / "griffon_train" / "config" / "deepspeed" / "zero3.json"
PERSISTENT = 1000
"""Elements of the largest parameter that every rank keeps whole; as released, that would be all of a tiny model."""

Options = tuple[object, ...]

LORA_RANK = 4
LORA: Options = ("--lora-r", LORA_RANK, "--freeze-vision-tower")
LORA_OPTIONS: Options = ("--global-batch", 5, "--micro-batch", 2, "--max-length", 256, "--lr", 1e-2, "--workers", 0)

LORA_RUN: Options = (
    *(*LORA, *LORA_OPTIONS, "--steps", 4, "--save-steps", 2),
    *("--lora-dropout", 0.1, "--gradient-checkpointing", "true"),
)


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with Launcher(tmp_path_factory.mktemp("ranks")) as launcher:
        yield launcher


@pytest.fixture(scope="session")
def zero(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Options]:
    """Options by ZeRO stage; ZeRO-3 is set to spread even a tiny model's weights over the ranks."""
    config = orjson.loads(ZERO_3.read_bytes())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = PERSISTENT
    path = tmp_path_factory.mktemp("deepspeed") / "zero3.json"
    path.write_bytes(orjson.dumps(config))
    return {2: ("--zero", 2), 3: ("--zero", 3, "--deepspeed", path)}


BATCHES: Options = ("--global-batch", 5, "--micro-batch", 2, "--max-length", 256)
RATES: Options = ("--lr", 1e-3, "--vision-tower-lr", 1e-4, "--weight-decay", 0.1)

FEW = 12
SHORT: Options = ("--steps", FEW, "--save-steps", 4, *BATCHES, *RATES)
"""With checkpoints after 4, 8 and 12 steps."""


@pytest.fixture(scope="session")
def finished(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that nothing happened to."""
    run = tmp_path_factory.mktemp("finished") / "run"
    ended = launcher.run(*command(frozen_set, run, *SHORT))
    assert ended.codes == [0, 0], ended.said
    return run


@pytest.fixture
def broken_off(finished: Path, tmp_path: Path) -> Path:
    """The same, killed in the middle of its last line, before its last checkpoint: those after 4 and 8 steps are left.

    The lines that it logged of the four steps since are there.
    """
    run = shutil.copytree(finished, tmp_path / "broken off")
    shutil.rmtree(run / "model")
    shutil.rmtree(checkpoint_of(run, FEW))
    for name in ("metrics.jsonl", "timing.jsonl"):
        path = run / name
        path.write_bytes(path.read_bytes()[:-20])
    return run


@pytest.fixture(scope="session")
def bin_set(tmp_path_factory: pytest.TempPathFactory, freeze_demo: Callable[..., Path]) -> Path:
    return freeze_demo(tmp_path_factory.mktemp("bins") / "out", "--boxes", "bin")


def command(shards: Path, run: Path, *options: object) -> list[object]:
    """`griffon-train run` with a tiny model, of which everything trains."""
    return ["run", "--stage", "custom", "--model", "tiny-gemma2", "--shards", shards, "--output-dir", run, *options]


def steps_told(run: Path) -> int:
    """Return the number of steps that a run, which may still be running, has logged."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_step(running: Running, run: Path, steps: float) -> None:
    """Wait until running ranks have logged so many steps."""
    running.wait_until(lambda: steps_told(run) >= steps)


def wait_for_line(running: Running, part: str) -> None:
    """Wait until the first rank has printed something."""
    running.wait_until(lambda: part in running.said()[0])


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]


def steps_of(path: Path) -> list[int]:
    return [orjson.loads(line)["step"] for line in path.read_bytes().splitlines()]


def state_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def checkpoint_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def result_of(run: Path) -> Mapping[str, bytes]:
    """Return what must be bit-identical in two equal runs: metrics, the result, and the last checkpoint's tensors."""
    results = run / "model" / "model.safetensors", run / "adapter" / "adapter_model.safetensors"
    files = [run / "metrics.jsonl", next(path for path in results if path.exists())]
    files += sorted(max((run / "checkpoints").glob("step-*")).glob("*.safetensors"))
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def differences(first: Path, second: Path) -> list[str]:
    """Files of two runs' results that are not the same."""
    results = result_of(first), result_of(second)
    return [name for name in {**results[0], **results[1]} if results[0].get(name) != results[1].get(name)]


@pytest.fixture(scope="session")
def small_set(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source of each kind of task, to validate on."""
    out = tmp_path_factory.mktemp("validation") / "out"
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    wanted = re.compile(r"\b(LAZY_caption|LAZY_text|DET_shapes|VISJ_shapes)\b.*& (llava|ccmd)/")
    manifest = out.with_name("manifest.txt")
    manifest.write_text("".join(line for line in lines if wanted.search(line)), encoding="utf-8")
    build = [sys.executable, "-m", "griffon_prep", "build", "--manifest", manifest, "--data-root", demo_data]
    built = subprocess.run([*map(str, build), "--out", str(out)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert built.returncode == 0, built.stderr
    return out


@pytest.fixture(scope="session")
def adapted(launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path_factory: Any) -> Path:  # noqa: ANN401
    """A short run on two ranks, which part their weights."""
    run: Path = tmp_path_factory.mktemp("lora") / "run"
    ended = launcher.run(*command(frozen_set, run, *LORA_RUN, *zero[3]))
    assert ended.codes == [0, 0], ended.said
    return run


@pytest.fixture(scope="session")
def base(adapted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that it began with, saved."""
    folder = tmp_path_factory.mktemp("base") / "model"
    model, tokenizer = load_model(replace(stored_settings(adapted), lora=LoraSettings()), torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
