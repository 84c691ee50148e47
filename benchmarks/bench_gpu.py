"""`make bench-gpu`: training steps of a Gemma-2 2B on one GPU, each lever on and off.

The model is the preset gemma2-2b with random weights and a ViT-L/14 tower at 1022 px, complete training in bfloat16.
Steps are those of `griffon-train run`, without checkpoints and without the result. Every configuration runs in a
process of its own. All processes start at once and take turns on the GPU, so that nobody waits for imports.
"""

import importlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import orjson
from common import call, machine, scratch
from PIL import Image

from griffon_shards.support.processes import end_with_parent
from griffon_shards.support.tables import size, table

_SAMPLES, _WIDTH_PX, _HEIGHT_PX, _WORDS = 192, 1280, 960, 60
_GLOBAL_BATCH, _MICRO_BATCH, _WARM_UP = 16, 4, 2
_BASE: Mapping[str, Any] = {"gradient_checkpointing": True}
_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "as it is by default, with checkpointing": {},
    "--optimizer adamw": {"optimizer": "adamw"},
    "without checkpointing": {"gradient_checkpointing": False},
    "micro-batches not copied ahead": {"patch": "at_once"},
    "all layers of the tower": {"patch": "whole_tower"},
    "--zero 3": {"zero": 3},
    "--attention flex_attention": {"attention": "flex_attention"},
    "--offload optimizer": {"offload": "optimizer"},
    "--offload optimizer --optimizer adamw_fused": {"offload": "optimizer", "optimizer": "adamw_fused"},
    "--offload optimizer --optimizer adamw": {"offload": "optimizer", "optimizer": "adamw"},
    "--micro-batch 8": {"micro_batch": 8},
    "--deterministic": {"deterministic": True},
}


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--only", multiple=True, type=click.Choice([*_VARIANTS]), help="A configuration.  [default: all]")
@click.option("--steps", type=click.IntRange(1), default=5, help="Timed steps of each, after two that warm up.")
@click.option("--limit-s", type=float, default=3600.0, help="End after so many seconds, with what was measured.")
@click.option("--model", default="gemma2-2b", help="Preset.")
@click.option("--device", default="cuda", help="`cpu` tries the benchmark itself, with `--model tiny-gemma2`.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.pass_context
def main(
    context: click.Context,
    only: tuple[str, ...],
    steps: int,
    limit_s: float,
    model: str,
    device: str,
    folder: Path | None,
) -> None:
    """Measure training on a GPU."""
    if context.invoked_subcommand is not None:
        return
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        end = time.monotonic() + limit_s
        _make_set(own)
        call([sys.executable, __file__, "model", own, model, device])
        processes = []
        for name in only or _VARIANTS:
            number = [*_VARIANTS].index(name)
            command = [sys.executable, __file__, "part", "--", name, str(own), str(steps), device]
            with (own / f"{number}.log").open("wb") as log:
                processes.append((name, number, subprocess.Popen(command, stdout=log, stderr=log)))
        _report(processes, own, end)


def _report(processes: list[tuple[str, int, subprocess.Popen[bytes]]], own: Path, end: float) -> None:
    rows, kernels = [], ""
    for name, number, process in processes:
        (own / f"go-{number}").touch()
        try:
            process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        path = own / f"{number}.json"
        if path.exists():
            found = orjson.loads(path.read_bytes())
            rows.append((name, *(found[each] for each in _COLUMNS)))
            kernels = kernels or found["kernels"]
        else:
            log = (own / f"{number}.log").read_text(encoding="utf-8", errors="replace")
            click.echo(f"{name}: not measured ({process.returncode}):\n{log[-3000:]}", err=True)
            rows.append((name, *("-" for _ in _COLUMNS)))
    click.echo(table(("configuration", *_COLUMNS), rows))
    click.echo(kernels)


_COLUMNS = ("s a step", "samples/s", "tokens/s", "MFU", "peak memory", "data wait", "last loss", "on")


@main.command("model")
@click.argument("own", type=click.Path(path_type=Path))
@click.argument("preset")
@click.argument("device")
def model_command(own: Path, preset: str, device: str) -> None:
    """Save the model that all configurations train; its weights are drawn on the device, which takes a second there."""
    import torch

    from griffon_train.model.griffon import GriffonForConditionalGeneration
    from griffon_train.model.presets import preset_config
    from griffon_train.text.tokenizer import load_tokenizer

    tokenizer, config = load_tokenizer(own / "small"), preset_config(preset)
    text = config.get_text_config()
    text.vocab_size = max(text.vocab_size, len(tokenizer))
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = GriffonForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(own / "model")
    tokenizer.save_pretrained(own / "model")


@main.command("part")
@click.argument("name")
@click.argument("own", type=click.Path(path_type=Path))
@click.argument("steps", type=int)
@click.argument("device")
def part_command(name: str, own: Path, steps: int, device: str) -> None:
    """Measure one configuration, once it has the GPU."""
    import deepspeed  # noqa: F401 - the slow imports come before the GPU's turn
    import torch

    from griffon_train.config.resolve import resolve
    from griffon_train.distributed.process_group import distributed_session
    from griffon_train.training.loop import one_step

    setup: Any = importlib.import_module("griffon_train.training.setup")
    end_with_parent()
    number = [*_VARIANTS].index(name)
    changes = dict(_VARIANTS[name])
    patch = changes.pop("patch", None)
    given: dict[str, Any] = {
        "stage": "custom",
        "shards": (own / "set",),
        "model": str(own / "model"),
        "log_every": 1000,
    }
    given |= {"output_dir": own / f"run-{number}", "steps": 1000, "device": device}
    given |= {"global_batch": _GLOBAL_BATCH, "micro_batch": _MICRO_BATCH, "workers": 4, **_BASE, **changes}
    settings = resolve(given).settings
    setup.check_disk_room = lambda *_: None  # nothing is saved
    _await(own / f"go-{number}")
    with distributed_session(device, 600) as ranks:
        job = setup.set_up(settings, ranks)
        if patch is not None:
            _PATCHES[patch](job)
        shares = job.loader(stop=1000).steps()
        warm = [one_step(job, step, shares) for step in range(_WARM_UP)]
        figures = [one_step(job, step, shares) for step in range(_WARM_UP, _WARM_UP + steps)]
        profiled = device == "cuda" and not changes and patch is None
        kernels = _kernels(lambda: one_step(job, _WARM_UP + steps, shares)) if profiled else ""
        seconds = median(each.seconds for each in figures)
        timings = [each.timing for each in figures]
        mfus = [each.mfu for each in figures if each.mfu is not None]
        found = {
            "s a step": f"{seconds:.3f}",
            "samples/s": f"{_GLOBAL_BATCH / seconds:.2f}",
            "tokens/s": f"{median(each['tokens_per_s'] for each in timings):,.0f}",
            "MFU": f"{median(mfus):.1%}" if mfus else "-",
            "peak memory": size(torch.cuda.max_memory_allocated() if device == "cuda" else 0),
            "data wait": f"{median(each['data_wait'] for each in timings):.1%}",
            "last loss": f"{figures[-1].metrics['loss']:.4f}",
            "on": torch.cuda.get_device_name() if device == "cuda" else device,
            "kernels": kernels,
            "first steps": [round(each.seconds, 2) for each in warm],
            "all": [round(each.seconds, 3) for each in figures],
        }
        (own / f"{number}.json").write_bytes(orjson.dumps(found))
        click.echo(orjson.dumps(found).decode())
        sys.stdout.flush()
        os._exit(0)  # what is left would only be freed


def _kernels(step: Callable[[], Any]) -> str:
    """The GPU's time in a step, by kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        step()
    totals = profiled.key_averages()
    return str(totals.table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=70))


def _await(path: Path) -> None:
    """Wait until this process may use the GPU."""
    while not path.exists():
        time.sleep(0.02)


@main.command("attention")
@click.option("--model", default="gemma2-2b", help="Preset.")
@click.option("--length", default=1408, help="Tokens of a sample.")
def attention_command(model: str, length: int) -> None:
    """Compare flex_attention with eager in a Gemma-2 with random weights, in bfloat16: logits, time and memory."""
    import torch
    from transformers import AutoModelForCausalLM

    from griffon_train.model.presets import preset_config

    torch.manual_seed(0)
    with torch.device("cuda"):
        language: Any = AutoModelForCausalLM.from_config(preset_config(model).get_text_config()).to(torch.bfloat16)
    language.train()
    language.gradient_checkpointing_enable()
    ids = torch.randint(3, language.config.vocab_size, (4, length), device="cuda")
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0  # one that is padded
    logits: dict[str, torch.Tensor] = {}
    for name in ("eager", "flex_attention"):
        language.set_attn_implementation(name)
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(6):
            torch.cuda.synchronize()
            began = time.perf_counter()
            output = language(ids, attention_mask=mask, use_cache=False, logits_to_keep=64).logits
            output.float().square().mean().backward()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
            language.zero_grad(set_to_none=True)
        logits[name] = output.detach().float()[mask[:, -64:] > 0]
        peak = size(torch.cuda.max_memory_allocated())
        click.echo(f"{name}: first pass {times[0]:.1f} s, then {median(times[1:]):.3f} s, peak {peak}")
    torch.backends.cuda.matmul.allow_tf32 = False
    language.float().set_attn_implementation("eager")
    with torch.no_grad():
        exact = language(ids, attention_mask=mask, use_cache=False, logits_to_keep=64).logits[mask[:, -64:] > 0]
    click.echo(f"logits: deviation {float(exact.std()):.4f}, largest {float(exact.abs().max()):.4f}")
    logits["float32 eager"] = exact
    for first, second in (("flex_attention", "eager"), ("eager", "float32 eager"), ("flex_attention", "float32 eager")):
        apart = logits[first] - logits[second]
        relative = float(apart.norm() / logits[second].norm())
        click.echo(f"{first} and {second}: at most {float(apart.abs().max()):.5f} apart, relative {relative:.5f}")


def _at_once(job: Any) -> None:  # noqa: ANN401
    """Copy each micro-batch when it is needed, as one would without `InputsAhead`, and wait for the copy."""
    import torch

    from griffon_train.model.collate import collate

    class AtOnce:
        def of(self, batches: Any) -> Any:  # noqa: ANN401
            for batch in batches:
                inputs = collate(batch, job.ranks.device, job.dtype)
                torch.cuda.current_stream().synchronize()
                yield batch, inputs

    job.inputs = AtOnce()


def _whole_tower(job: Any) -> None:  # noqa: ANN401
    """Compute every layer of the tower, and take the hidden state."""
    model = job.engine.module

    def selected_state(pixel_values: Any) -> Any:  # noqa: ANN401
        states = model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        return states[model.config.select_layer]

    model._selected_state = selected_state


_PATCHES: Mapping[str, Callable[[Any], None]] = {"at_once": _at_once, "whole_tower": _whole_tower}


def _make_set(own: Path) -> None:
    """Photo-like images with descriptions, frozen; and a tokenizer trained on them."""
    random.seed(0)
    generator = np.random.default_rng(0)
    images = own / "data" / "images"
    images.mkdir(parents=True)
    words = ["".join(random.choices("abcdefghijklmnoprstuvw", k=random.randint(2, 9))) for _ in range(3000)]
    lines = []
    for number in range(_SAMPLES):
        coarse = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((_WIDTH_PX, _HEIGHT_PX), Image.Resampling.BICUBIC), dtype=np.int16)
        noise = generator.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(images / f"{number}.jpg", quality=85)
        turns = [
            {"from": "human", "value": "<image>\nDescribe the image in detail."},
            {"from": "gpt", "value": " ".join(random.choices(words, k=_WORDS))},
        ]
        lines.append({"id": str(number), "image": f"{number}.jpg", "conversations": turns})
    (own / "data" / "captions.json").write_bytes(orjson.dumps(lines))
    (own / "data" / "m.txt").write_text("LAZY & captions.json & images\n", encoding="utf-8")
    prep = [sys.executable, "-m", "griffon_prep"]
    call([*prep, "build", "--manifest", own / "data" / "m.txt", "--data-root", own / "data", "--out", own / "set"])
    train = [sys.executable, "-m", "griffon_train"]
    call([*train, "new-model", own / "small", "--like", "gemma2", "--tokenizer", own / "set", "--vocabulary", 8000])


if __name__ == "__main__":
    main()
