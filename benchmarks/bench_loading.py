"""`make bench-loading`: the host memory of all ranks together while a model loads under ZeRO-3, from Linux's `/proc`.

The model has random weights in bfloat16, saved as safetensors. All but its projector is frozen, so that DeepSpeed's
engine adds no master weights, moments and gradients to what is measured: from the first line about loading the model to
the first step. Memory is the sum of the ranks' proportional set sizes: a page that several processes map counts once.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import torch
from bench_memory import _kilobytes, _read, _tree
from common import call, machine, scratch, word

from griffon_shards.support.tables import size, table
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.parts import undrawn
from griffon_train.model.presets import SmallSize, config_of, small_preset

_EVERY_S = 0.02
_KB = 1024
_MOST = 1.4
_SIZES = {100: (1024, 6), 500: (1536, 14), 1000: (2048, 15)}
"""Width and layers of a language model with 32,000 tokens, by parameters in millions."""
_PHASE = re.compile(r"\[rank (\d+)\] (loading the model|in step 0)\b")


@click.command(context_settings={"show_default": True})
@click.option("--millions", type=click.Choice([*_SIZES]), default=1000, help="Parameters, in millions.")
@click.option("--ranks", type=click.IntRange(1), default=4, help="Ranks, all on this machine.")
@click.option("--zero", type=click.IntRange(2, 3), default=3, help="ZeRO stage.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the model.  [default: this disk]")
def main(millions: int, ranks: int, zero: int, folder: Path | None) -> None:
    """Measure how much memory loading takes on several ranks."""
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        call([sys.executable, "-m", "griffon_prep", "sample-data", own / "data"])
        build = ("build", "--manifest", "manifests/demo.txt", "--data-root", own / "data", "--out", own / "shards")
        call([sys.executable, "-m", "griffon_prep", *build])
        weights_bytes = _save_model(own / "model", *_SIZES[millions])
        samples = _samples(own, ranks, zero)
    before, peak = samples[0], {name: max(each[name] for each in samples) for name in samples[0]}
    more = {name: peak[name] - before[name] for name in peak}
    rows = [
        (what, *(size(values[name]) for values in (before, peak, more)), f"{more[name] / weights_bytes:.2f}")
        for name, what in (("Pss_Anon", "without mapped files"), ("Pss", "with mapped files"))
    ]
    columns = ("of all ranks", "before", "peak", "more", "over the weights")
    click.echo(f"ZeRO-{zero}, {ranks} ranks, weights of {size(weights_bytes)}")
    click.echo(table(columns, rows))
    if zero == 3:
        ratio = more["Pss"] / weights_bytes
        click.echo(f"with mapped files, wanted at most {_MOST} times the weights: {word(ratio <= _MOST)}")


def _save_model(out: Path, width: int, layers: int) -> int:
    """Save a model with random weights; return their bytes."""
    preset = small_preset("llama2", SmallSize(width=width, layers=layers, heads=16), vocabulary=32_000)
    torch.set_default_dtype(torch.bfloat16)
    model = undrawn(GriffonForConditionalGeneration, config_of(preset))
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    model.save_pretrained(out)
    byte_tokenizer().save_pretrained(out)
    return sum(int(parameter.nbytes) for parameter in model.parameters())


def _samples(own: Path, ranks: int, zero: int) -> list[Mapping[str, int]]:
    """Memory of all ranks in bytes, from when one begins to load the model until one begins its first step."""
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", ranks, "-m", "griffon_train", "run", "-v"]
    run += ["--stage", "custom", "--freeze-llm", "--freeze-vision-tower", "--zero", zero, "--dtype", "bfloat16"]
    run += ["--device", "cpu", "--shards", own / "shards", "--model", own / "model", "--output-dir", own / "run"]
    run += ["--steps", 1, "--global-batch", ranks, "--micro-batch", 1, "--workers", 0, "--max-length", 2048]
    log = own / "log"
    samples = []
    with log.open("wb") as file, subprocess.Popen([str(each) for each in run], stdout=file, stderr=file) as running:
        while True:
            phases = _PHASE.findall(log.read_text("utf-8", "replace"))
            if any(phase == "in step 0" for _, phase in phases):
                break
            if running.poll() is not None:
                raise click.ClickException(f"the run ended early:\n{_read(log)[:3000]}")
            if phases:
                samples.append(_memory(running.pid))
            time.sleep(_EVERY_S)
        running.terminate()
    shutil.rmtree(own / "run", ignore_errors=True)
    return samples


def _memory(pid: int) -> Mapping[str, int]:
    """Proportional set sizes of a process and of all below it."""
    rollups = [_kilobytes(Path(f"/proc/{each}/smaps_rollup")) for each in _tree(pid)]
    return {name: sum(each.get(name, 0) for each in rollups) * _KB for name in ("Pss", "Pss_Anon")}


if __name__ == "__main__":
    main()
