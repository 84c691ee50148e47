"""Compare `griffon-train memory` with what the ranks of real runs take on the CPU.

Models with random weights train for a few steps; a rank's memory is its anonymous pages (RssAnon in /proc/PID/status,
read every 2 ms) above those of the same process before it made the model. malloc returns freed memory at once
(MALLOC_MMAP_THRESHOLD_), as PyTorch's CUDA allocator would reuse it.
"""

import ctypes
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson
from common import call, machine, scratch
from PIL import Image

from griffon_shards.support.processes import end_with_parent
from griffon_shards.support.tables import size, table

_EVERY_S = 0.002
_SAMPLES, _CHARACTERS, _STEPS = 48, 150, 2
_IMAGE_PX, _PATCH_PX = 168, 14
_MODELS: Mapping[str, Mapping[str, int]] = {
    "100M": {"width": 768, "layers": 11, "heads": 12, "vocabulary": 16_000},
    "500M": {"width": 1408, "layers": 18, "heads": 11, "vocabulary": 32_000},
}
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "1"}


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure what training takes on the CPU."""


@main.command("run")
@click.option("--model", "models", multiple=True, type=click.Choice(list(_MODELS)), default=["100M"])
@click.option("--family", default="gemma2")
@click.option("--ranks", "worlds", multiple=True, type=int, default=[1, 2, 4])
@click.option("--zero", "stages", multiple=True, type=int, default=[2, 3])
@click.option("--checkpointing", multiple=True, type=bool, default=[True, False])
@click.option("--dtype", default="float32")
@click.option("--micro-batch", default=2)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
def run_command(
    models: tuple[str, ...],
    family: str,
    worlds: tuple[int, ...],
    stages: tuple[int, ...],
    checkpointing: tuple[bool, ...],
    dtype: str,
    micro_batch: int,
    folder: Path | None,
) -> None:
    """Print estimate, measurement and ratio of each combination."""
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        _make_set(own)
        rows = []
        for model in models:
            for world in worlds:
                for stage in stages:
                    for recomputed in checkpointing:
                        settings = {"zero": stage, "gradient_checkpointing": recomputed, "dtype": dtype}
                        settings |= {"micro_batch": micro_batch, "global_batch": 2 * micro_batch * world}
                        found = _measured(own, model, family, world, settings)
                        rows.append((model, dtype, world, f"ZeRO-{stage}", "yes" if recomputed else "no", *found))
                        click.echo(table(_HEAD, rows[-1:]), err=True)
        click.echo(table(_HEAD, rows))


_HEAD = ("model", "weights", "ranks", "", "checkpointing", "parameters", "estimate", "measured", "ratio")


def _measured(own: Path, model: str, family: str, world: int, settings: Mapping[str, Any]) -> tuple[object, ...]:
    """Parameters, estimate and measurement of the rank that takes most, and their ratio."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for path in own.glob("*.rank"):
        path.unlink()
    (own / "case.json").write_bytes(
        orjson.dumps({"model": model, "family": family, "settings": settings, "run": f"run-{port}"})
    )
    common = {
        "WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": max(1, 2 // world),
    }
    processes = []
    for rank in range(world):
        environment = {**os.environ, **_MALLOC, **{name: str(value) for name, value in common.items()}}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        with (own / f"{rank}.log").open("wb") as log:
            command = [sys.executable, __file__, "rank", str(own)]
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    base, peaks = [0] * world, [0] * world
    while any(process.poll() is None for process in processes):
        training = (own / "training.rank").exists()
        for rank, process in enumerate(processes):
            now = _anonymous(process.pid)
            if not base[rank] and (own / f"{rank}.base.rank").exists():
                base[rank] = now
                (own / f"{rank}.go.rank").touch()
            if training:
                peaks[rank] = max(peaks[rank], now)
        time.sleep(_EVERY_S)
    if any(process.returncode for process in processes):
        click.echo((own / "0.log").read_text()[-3000:], err=True)
        return ("-", "-", "not measured", "-")
    result = orjson.loads((own / "result.json").read_bytes())
    measured = max(peak - before for peak, before in zip(peaks, base, strict=True))
    estimate = result["estimate"]
    click.echo(f"ranks: {[size(peak - before) for peak, before in zip(peaks, base, strict=True)]} {result}", err=True)
    return (f"{result['parameters']:,}", size(estimate), size(measured), f"{estimate / measured:.3f}")


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


@main.command("rank")
@click.argument("own", type=click.Path(path_type=Path))
def rank_command(own: Path) -> None:
    """Train for a few steps as one of the ranks."""
    import deepspeed  # noqa: F401
    import torch

    from griffon_train.config.resolve import resolve
    from griffon_train.distributed.process_group import distributed_session
    from griffon_train.model import presets
    from griffon_train.training import loop, setup
    from griffon_train.training.memory_estimate import Ranks, estimate

    end_with_parent()
    case = orjson.loads((own / "case.json").read_bytes())
    sizes = dict(_MODELS[case["model"]])
    vocabulary = sizes.pop("vocabulary")
    small = presets.SmallSize(image_px=_IMAGE_PX, patch_px=_PATCH_PX, vision_width=256, vision_layers=4, **sizes)
    presets.PRESETS[case["model"]] = presets.small_preset(case["family"], small, vocabulary=vocabulary)  # type: ignore[index]
    setup.check_disk_room = lambda *_: None  # type: ignore[attr-defined] # nothing is saved
    shapes: list[tuple[int, int]] = []

    def noted(engine: Any, inputs: Any) -> Any:  # noqa: ANN401
        learned = int((inputs.labels_BL[:, 1:] != -100).any(dim=0).sum())
        shapes.append((inputs.input_ids_BL.shape[1], learned))
        return loss_sums(engine, inputs)

    loss_sums = loop.loss_sums  # type: ignore[attr-defined]
    loop.loss_sums = noted  # type: ignore[attr-defined, assignment]
    given = {"stage": "custom", "shards": (own / "set",), "model": case["model"], "log_every": 1000, "steps": 1000}
    given |= {"output_dir": own / case["run"], "device": "cpu", "workers": 0}
    settings = resolve({**given, **case["settings"]}).settings
    with distributed_session("cpu", 3600) as ranks:
        layer = torch.nn.Conv2d(8, 8, 3)
        layer(torch.ones(2, 8, 64, 64)).sum().backward()  # what libraries need at first is not counted
        (own / f"{ranks.rank}.base.rank").touch()
        while not (own / f"{ranks.rank}.go.rank").exists():
            time.sleep(_EVERY_S)
        job = setup.set_up(settings, ranks)
        ctypes.CDLL("libc.so.6").malloc_trim(0)
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


def _make_set(own: Path) -> None:
    """Images with descriptions of the same length, frozen."""
    random.seed(0)
    images = own / "data" / "images"
    images.mkdir(parents=True)
    lines = []
    for number in range(_SAMPLES):
        Image.new("RGB", (_IMAGE_PX, _IMAGE_PX), (number, 9 * number % 256, 90)).save(images / f"{number}.jpg")
        turns = [
            {"from": "human", "value": "<image>\nDescribe it."},
            {"from": "gpt", "value": "".join(random.choices("abcdefghij klmnop", k=_CHARACTERS)).strip() + "."},
        ]
        lines.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (own / "data" / "captions.json").write_bytes(orjson.dumps(lines))
    (own / "data" / "m.txt").write_text("LAZY & captions.json & images\n", encoding="utf-8")
    prep = [sys.executable, "-m", "griffon_prep"]
    call([*prep, "build", "--manifest", own / "data" / "m.txt", "--data-root", own / "data", "--out", own / "set"])


if __name__ == "__main__":
    main()
