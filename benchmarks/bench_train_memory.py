"""Compare `griffon-train memory` with what the ranks of real runs take on the CPU.

Models with random weights train for a few steps; a rank's memory is its anonymous pages (RssAnon in /proc/PID/status,
read every 2 ms) above those of the same process before it made the model. Libraries are imported before that, by the
process of which all ranks are forks. malloc returns freed memory at once, as PyTorch's CUDA allocator would reuse it.
"""

import ctypes
import gc
import importlib
import itertools
import multiprocessing
import os
import random
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import click
import orjson
from common import call, machine, scratch
from PIL import Image

from griffon_shards.support.processes import end_with_parent
from griffon_shards.support.tables import size, table

_EVERY_S = 0.002
_SAMPLES, _STEPS = 48, 2
_PATCH_PX = 14
_MODELS: Mapping[str, Mapping[str, int]] = {
    "100M": {"width": 768, "layers": 11, "heads": 12, "vocabulary": 16_000},
    "500M": {"width": 1408, "layers": 18, "heads": 11, "vocabulary": 32_000},
}
_MALLOC = {-3: 32_768, -1: 32_768, -8: 1}
"""M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of mallopt."""


@click.command(context_settings={"show_default": True})
@click.option("--model", "models", multiple=True, type=click.Choice(list(_MODELS)), default=["100M"])
@click.option("--family", default="gemma2")
@click.option("--ranks", "worlds", multiple=True, type=int, default=[1, 2, 4])
@click.option("--zero", "stages", multiple=True, type=int, default=[2, 3])
@click.option("--checkpointing", multiple=True, type=bool, default=[True, False])
@click.option("--lora-r", "adapters", multiple=True, type=int, default=[0], help="Rank of LoRA adapters; 0 for none.")
@click.option("--dtype", default="float32")
@click.option("--micro-batch", default=2)
@click.option("--image-px", default=168, help="Side of the images; every 14 px square of them are a token.")
@click.option("--characters", default=150, help="Length of the descriptions.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
def main(
    models: tuple[str, ...],
    family: str,
    worlds: tuple[int, ...],
    stages: tuple[int, ...],
    checkpointing: tuple[bool, ...],
    adapters: tuple[int, ...],
    dtype: str,
    micro_batch: int,
    image_px: int,
    characters: int,
    folder: Path | None,
) -> None:
    """Print estimate, measurement and ratio of each combination on the CPU."""
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        _make_set(own, image_px, characters)
        _import_libraries(any(adapters))
        rows = []
        for model, world, stage, recomputed, lora_r in itertools.product(
            models, worlds, stages, checkpointing, adapters
        ):
            settings = {"zero": stage, "gradient_checkpointing": recomputed, "dtype": dtype}
            settings |= {"micro_batch": micro_batch, "global_batch": 2 * micro_batch * world}
            settings |= {"lora_r": lora_r} if lora_r else {}
            found = _measured(own, {"name": model, "family": family, "image_px": image_px}, world, settings)
            case = (model, dtype, lora_r or "-", world, stage, "yes" if recomputed else "no")
            rows.append((*case, *found))
            click.echo(table(_HEAD, rows[-1:]), err=True)
        click.echo(table(_HEAD, rows))


_HEAD = ("model", "weights", "LoRA", "ranks", "ZeRO", "checkpointing", "parameters", "estimate", "measured", "ratio")


def _import_libraries(lora: bool) -> None:
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    import deepspeed  # noqa: F401

    import griffon_train.training.loop  # noqa: F401

    if lora:
        import peft  # noqa: F401


def _measured(
    own: Path, model: Mapping[str, Any], world: int, settings: Mapping[str, Any]
) -> tuple[object, object, object, object]:
    """Parameters, estimate and measurement of the rank that takes most, and their ratio."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for path in own.glob("*.rank"):
        path.unlink()
    environment = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    given = {**settings, "model": model["name"], "output_dir": own / f"run-{port}"}
    processes = []
    for rank in range(world):
        of_rank = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = multiprocessing.get_context("fork").Process(target=_rank, args=(own, model, given, of_rank))
        process.start()
        processes.append(process)
    base, peaks = [0] * world, [0] * world
    while any(process.is_alive() for process in processes):
        training = (own / "training.rank").exists()
        for rank, process in enumerate(processes):
            now = _anonymous(process)
            if not base[rank] and (own / f"{rank}.base.rank").exists():
                base[rank] = now
                (own / f"{rank}.go.rank").touch()
            if training:
                peaks[rank] = max(peaks[rank], now)
        time.sleep(_EVERY_S)
    if any(process.exitcode for process in processes):
        click.echo((own / "0.log").read_text()[-3000:], err=True)
        return ("-", "-", "not measured", "-")
    result = orjson.loads((own / "result.json").read_bytes())
    measured = max(peak - before for peak, before in zip(peaks, base, strict=True))
    estimate = result["estimate"]
    click.echo(f"ranks: {[size(peak - before) for peak, before in zip(peaks, base, strict=True)]} {result}", err=True)
    return (f"{result['parameters']:,}", size(estimate), size(measured), f"{estimate / measured:.3f}")


def _anonymous(process: BaseProcess) -> int:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def _rank(own: Path, model: Mapping[str, Any], given: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Train for a few steps as one of the ranks."""
    import torch

    from griffon_train.config.resolve import resolve
    from griffon_train.distributed.process_group import distributed_session
    from griffon_train.training.memory_estimate import Ranks, estimate

    end_with_parent()
    with (own / f"{environment['RANK']}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    libc = ctypes.CDLL("libc.so.6")
    for parameter, value in _MALLOC.items():
        assert libc.mallopt(parameter, value)
    os.environ |= environment
    torch.set_num_threads(1)  # two would wait for each other, on a machine with other work
    loop: Any = importlib.import_module("griffon_train.training.loop")
    setup: Any = importlib.import_module("griffon_train.training.setup")
    _add_preset(**model)
    setup.check_disk_room = lambda *_: None  # nothing is saved
    shapes = _noted_shapes(loop)
    fixed = {
        "stage": "custom",
        "shards": (own / "set",),
        "log_every": 1000,
        "steps": 1000,
        "device": "cpu",
        "workers": 0,
    }
    settings = resolve({**fixed, **given}).settings
    with distributed_session("cpu", 3600) as ranks:
        first_run = settings.output_dir.with_name(f"{settings.output_dir.name}-first")
        _train_tiny(resolve({**fixed, **given, "model": "tiny-gemma2", "output_dir": first_run}).settings, ranks)
        libc.malloc_trim(0)
        (own / f"{ranks.rank}.base.rank").touch()
        while not (own / f"{ranks.rank}.go.rank").exists():
            time.sleep(_EVERY_S)
        job = setup.set_up(settings, ranks)
        libc.malloc_trim(0)
        ranks.sums([0])
        if ranks.first:
            (own / "training.rank").touch()
        shares = job.loader(stop=1000).steps()
        for step in range(_STEPS):
            loop.one_step(job, step, shares)
        if ranks.first:
            tokens, learned = (max(each) for each in zip(*shapes, strict=True))
            of_ranks = Ranks(count=ranks.world_size, per_machine=ranks.world_size, device="cpu")
            found = estimate(job.engine.module.config, settings, of_ranks, tokens=tokens, learned=learned)
            parameters = sum(getattr(each, "ds_numel", each.numel()) for each in job.engine.module.parameters())
            result = {"estimate": found.tensors, "passes": found.passes, "step": found.step, "parameters": parameters}
            result |= {"tokens": tokens, "learned": learned, "activations": found.activations.peak}
            (own / "result.json").write_bytes(orjson.dumps(result))
        ranks.sums([0])
        os._exit(0)  # what is left would only be freed


def _train_tiny(settings: Any, ranks: Any) -> None:  # noqa: ANN401
    """Train a tiny model for a step: what libraries need at first is not counted."""
    from griffon_train.training.loop import one_step
    from griffon_train.training.setup import set_up

    job = set_up(settings, ranks)
    one_step(job, 0, job.loader(stop=1).steps())
    job.close()
    del job
    gc.collect()


def _noted_shapes(loop: Any) -> list[tuple[int, int]]:  # noqa: ANN401
    """A list to which the loop will add the tokens of each micro-batch, and of these the learned ones."""
    shapes: list[tuple[int, int]] = []
    loss_sums = loop.loss_sums

    def noted(engine: Any, inputs: Any) -> Any:  # noqa: ANN401
        learned = int((inputs.labels_BL[:, 1:] != -100).any(dim=0).sum())
        shapes.append((inputs.input_ids_BL.shape[1], learned))
        return loss_sums(engine, inputs)

    loop.loss_sums = noted
    return shapes


def _add_preset(name: str, family: str, image_px: int) -> None:
    from griffon_train.model import presets

    sizes = dict(_MODELS[name])
    vocabulary = sizes.pop("vocabulary")
    vision = {"image_px": image_px, "patch_px": _PATCH_PX, "vision_width": 256, "vision_layers": 4}
    small = presets.SmallSize(**vision, **sizes)
    presets.PRESETS[name] = presets.small_preset(family, small, vocabulary=vocabulary)  # type: ignore[index]


def _make_set(own: Path, image_px: int, characters: int) -> None:
    """Images with descriptions of the same length, frozen."""
    random.seed(0)
    images = own / "data" / "images"
    images.mkdir(parents=True)
    lines = []
    for number in range(_SAMPLES):
        Image.new("RGB", (image_px, image_px), (number, 9 * number % 256, 90)).save(images / f"{number}.jpg")
        turns = [
            {"from": "human", "value": "<image>\nDescribe it."},
            {"from": "gpt", "value": "".join(random.choices("abcdefghij klmnop", k=characters)).strip() + "."},
        ]
        lines.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (own / "data" / "captions.json").write_bytes(orjson.dumps(lines))
    (own / "data" / "m.txt").write_text("LAZY & captions.json & images\n", encoding="utf-8")
    prep = [sys.executable, "-m", "griffon_prep"]
    call([*prep, "build", "--manifest", own / "data" / "m.txt", "--data-root", own / "data", "--out", own / "set"])


if __name__ == "__main__":
    main()
