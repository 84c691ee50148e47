"""What only a GPU shows: runs in bfloat16 there. Skipped where there is none.

Each run is a process of its own, because DeepSpeed and CUDA keep their state for as long as a process lives.
"""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import orjson
import pytest
import torch

from griffon_shards.frozen_set import open_set
from griffon_train.config.order import plan_of
from griffon_train.config.resolve import resolve
from griffon_train.data.batch import Batch
from griffon_train.data.loader import Loader
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.collate import InputsAhead, collate
from griffon_train.text.chat_templates import encode_sample

from ...waiting import TIMEOUT_S
from .conftest import Options, checkpoint_of, differences, metrics_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

STEPS, EVERY = 6, 2
SMALL: Options = ("--global-batch", 8, "--micro-batch", 2, "--lr", "1e-3", "--save-steps", EVERY, "--log-every", 1)
SIZES = {"gemma2": "small-gemma2", "llama2": "small-llama2", "qwen2": "small-qwen2"}


def start(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "griffon_train", *map(str, arguments)]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def finish(*arguments: object, log: Path) -> str:
    """Run a command to its end; return what it has printed."""
    ended = start(*arguments, log=log).wait(timeout=TIMEOUT_S)
    text = log.read_text(encoding="utf-8")
    assert ended == 0, text[-6000:]
    return text


def train_command(model: str, shards: Path, run: Path, *options: object) -> Sequence[object]:
    settings = ("--stage", "custom", "--model", model, "--shards", shards, "--output-dir", run, "--device", "cuda")
    return ("run", *settings, *SMALL, *options)


def kill_after(step: int, command: Sequence[object], run: Path, log: Path) -> None:
    """Start a run and kill it, with all its reading processes, as soon as it has written a checkpoint."""
    running = start(*command, log=log)
    end = time.monotonic() + TIMEOUT_S
    while not checkpoint_of(run, step).is_dir():
        assert running.poll() is None, log.read_text(encoding="utf-8")[-6000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("family", SIZES)
def test_the_loss_falls(family: str, frozen_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = finish(*train_command(SIZES[family], frozen_set, run, "--steps", 40), log=tmp_path / "log")
    losses = [line["loss"] for line in metrics_of(run)]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
    assert "optimizer: adamw_fused" in said
    assert " MFU " in said or "H100" not in torch.cuda.get_device_name()
    assert " peak " in said


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("small-gemma2", ("--zero", 2)),
        ("small-gemma2", ("--zero", 3, "--gradient-checkpointing", "true")),
        ("small-llama2", ("--zero", 2, "--gradient-checkpointing", "true")),
        ("small-qwen2", ("--zero", 3)),
        ("small-gemma2", ("--zero", 2, "--offload", "optimizer")),
        ("small-gemma2", ("--zero", 3, "--offload", "all", "--optimizer", "adamw")),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(map(str, value)),
)
def test_a_killed_run_ends_as_one_that_was_not(model: str, options: Options, frozen_set: Path, tmp_path: Path) -> None:
    """Bit for bit, with `--deterministic`."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    same = ("--steps", STEPS, "--deterministic", "true", *options)
    finish(*train_command(model, frozen_set, whole, *same), log=tmp_path / "whole.log")
    again = train_command(model, frozen_set, killed, *same)
    kill_after(EVERY, again, killed, tmp_path / "killed.log")
    said = finish(*again, log=tmp_path / "killed.log")
    assert "resuming at step" in said
    assert differences(whole, killed) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "adamw_fused"),
        ("--offload", "optimizer", "--optimizer", "adamw_fused"),
        ("--offload", "optimizer", "--optimizer", "cpu_adam"),
    ],
    ids=lambda value: "".join(map(str, value)),
)
def test_an_optimizer_resumes_a_run_of_another(options: Options, frozen_set: Path, tmp_path: Path) -> None:
    """The run goes on as with the first one, up to the rounding of both."""
    whole, changed = tmp_path / "whole", tmp_path / "changed"
    same = ("--steps", STEPS, "--dtype", "float32")
    before = (*same, "--optimizer", "adamw")
    finish(*train_command("small-qwen2", frozen_set, whole, *before), log=tmp_path / "whole.log")
    kill_after(EVERY, train_command("small-qwen2", frozen_set, changed, *before), changed, tmp_path / "log")
    said = finish(*train_command("small-qwen2", frozen_set, changed, *same, *options), log=tmp_path / "log")
    assert "resuming at step" in said
    losses = [[line["loss"] for line in metrics_of(run)] for run in (whole, changed)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    index = orjson.loads((checkpoint_of(changed, STEPS) / "checkpoint.json").read_bytes())
    assert index["optimizer_steps"] == STEPS


def test_a_model_answers_and_is_evaluated(frozen_set: Path, demo_data: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    val = ("--val-shards", frozen_set, "--val-steps", 2, "--val-generate", 1, "--profile-steps", "0:2")
    finish(*train_command("small-gemma2", frozen_set, run, "--steps", 2, *val), log=tmp_path / "log")
    assert orjson.loads((run / "validation.jsonl").read_bytes())["scores"]
    (trace,) = (run / "profile").iterdir()
    events = orjson.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any(event.get("cat") == "kernel" for event in events)
    options = ("--device", "cuda", "--max-new-tokens", 12)
    finish("evaluate", run, "--shards", frozen_set, "--limit", 2, "--out", out, *options, log=tmp_path / "evaluate.log")
    assert any(out.iterdir())
    image = next(path for path in sorted(demo_data.rglob("*")) if path.suffix == ".jpg")
    finish("ask", run, image, "Where is the cross?", *options, log=tmp_path / "ask.log")


def test_inputs_copied_ahead_are_those_copied_at_once(frozen_set: Path) -> None:
    settings = resolve({"stage": "custom", "global_batch": 8}, complete=False).settings
    plan = plan_of([open_set(frozen_set)], settings.data)
    encode = partial(
        encode_sample, chat="qwen2", tokenizer=byte_tokenizer(), max_length=4096, overlong="truncate", image_tokens=25
    )
    device = torch.device("cuda")

    def batches() -> list[Batch]:
        return list(Loader(plan, micro_batch=2, workers=0, encode=encode, stop=2, image_px=70, region_px=28))

    ahead = list(InputsAhead(device, torch.bfloat16).of(batches()))
    assert len(ahead) == 8
    for (batch, inputs), same in zip(ahead, batches(), strict=True):
        assert batch.keys == same.keys
        at_once = collate(same, device, torch.bfloat16)
        for name in ("input_ids_BL", "attention_mask_BL", "labels_BL", "pixels_PCHW", "regions_RCHW"):
            copied, expected = getattr(inputs, name), getattr(at_once, name)
            assert (copied is None) == (expected is None)
            assert copied is None or torch.equal(copied, expected)
