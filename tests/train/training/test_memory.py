"""`griffon-train memory` and the line of `griffon-train run`: what they count is what an engine holds."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.frozen_set import open_set
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings
from griffon_train.data.lengths import Lengths
from griffon_train.model.presets import SmallSize, config_of, preset_config, small_preset
from griffon_train.training.memory_estimate import Estimate, Ranks, described_model, dtype_of, estimate, tensors_of
from griffon_train.training.memory_report import MemoryReport, memory_line
from griffon_train.training.zero_memory import ADAM_COPIES, Held, ZeroRules, held

from ..conftest import Run
from .conftest import Options, command
from .launcher import Launcher

H200 = 141_000_000_000


def settings_of(model: str = "tiny-gemma2", **given: object) -> Settings:
    return resolve({"stage": "custom", "model": model, **given}, complete=False).settings


def estimated(model: str = "tiny-gemma2", *, gpus: int = 1, device: str = "cuda", **given: object) -> Estimate:
    settings = settings_of(model, **given)
    ranks = Ranks(count=gpus, per_machine=gpus, device=device)
    return estimate(preset_config(model), settings, ranks, tokens=settings.data.max_length, learned=80)


def held_by(**given: object) -> Held:
    """What each of two ranks holds of a Gemma-2 2B."""
    settings = settings_of("gemma2-2b", **given)
    tensors = tensors_of(described_model(preset_config("gemma2-2b"), settings, "cpu"), settings)
    rules, width = (
        ZeroRules.of(zero_config(settings.memory, settings.optimizer)),
        dtype_of(settings.memory.dtype, "cpu").itemsize,
    )
    adam = ADAM_COPIES.get((settings.optimizer.optimizer, "cpu"), 0)
    return held(tensors, rules, ranks=2, width=width, micro_steps=2, adam=adam, device="cpu")


@pytest.mark.parametrize(("stage", "flags"), [(2, {}), (3, {"freeze_vision_tower": True})])
def test_it_counts_what_the_engine_holds(
    stage: int,
    flags: Mapping[str, Any],
    launcher: Launcher,
    zero: Mapping[int, Options],
    frozen_set: Path,
    tmp_path: Path,
) -> None:
    given: list[object] = ["--steps", 1, "--global-batch", 4, "--workers", 0, "--log-hook", "engine_bytes:write"]
    given += [word for name in flags for word in (f"--{name.replace('_', '-')}", "true")]
    arguments = command(frozen_set, tmp_path / "run", *given, *zero[stage])
    ended = launcher.start(arguments, 2, ENGINE_BYTES=str(tmp_path / "bytes")).wait()
    assert ended.codes == [0, 0], ended.said
    counted = json.loads((tmp_path / "bytes").read_text())
    own_file: dict[str, Any] = {"deepspeed": zero[stage][-1]} if stage == 3 else {}
    held = estimated(gpus=2, device="cpu", zero=stage, global_batch=4, **flags, **own_file).held
    assert held.optimizer == pytest.approx(counted["optimizer"], rel=0.002)
    assert held.weights == pytest.approx(counted["weights"], rel=0.002)
    if stage == 3:
        assert held.gradients == pytest.approx(counted["gradients"], rel=0.002)


@pytest.mark.parametrize(
    ("measured_gb", "given"),
    [
        (65.5, {"gradient_checkpointing": True}),
        (115.2, {"gradient_checkpointing": False}),
        (13.8, {"gradient_checkpointing": True, "offload": "optimizer"}),
    ],
)
def test_gemma2_2b_on_an_h200(measured_gb: float, given: Mapping[str, Any]) -> None:
    """The peaks of `make bench-gpu` (benchmarks/RESULTS.md): 16 samples of about 1,450 tokens in micro-batches of 4."""
    found = estimated("gemma2-2b", max_length=1450, global_batch=16, micro_batch=4, **given)
    assert found.tensors == pytest.approx(measured_gb * 1e9, rel=0.03)


@pytest.mark.parametrize(
    ("zero", "ranks", "measured_mb"),
    [(2, 1, 609), (2, 2, 561), (2, 4, 537), (3, 1, 689), (3, 2, 1188), (3, 4, 1058)],
)
def test_lora_on_the_cpu(zero: int, ranks: int, measured_mb: int) -> None:
    """The peaks of a rank in benchmarks/bench_train_memory.py: 104 million parameters in float32, checkpointing."""
    size = SmallSize(width=768, layers=11, heads=12, vision_width=256, vision_layers=4, image_px=168)
    config = config_of(small_preset("gemma2", size, vocabulary=16_000))
    settings = settings_of(zero=zero, lora_r=16, gradient_checkpointing=True, micro_batch=1, global_batch=2 * ranks)
    found = estimate(config, settings, Ranks(count=ranks, per_machine=ranks, device="cpu"), tokens=326, learned=153)
    assert found.tensors == pytest.approx(measured_mb * 1e6, rel=0.1)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"gradient_checkpointing": True}, "language"),
        ({"micro_batch": 1}, "images"),
        ({"max_length": 128}, "language"),
        ({"dtype": "bfloat16"}, "logits"),
        ({"tune_region_projector": True}, "images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("family", ["gemma2", "llama2", "qwen2"])
def test_settings_that_save_activations(family: str, given: Mapping[str, Any], part: str) -> None:
    base: dict[str, Any] = {"dtype": "float32", "max_length": 256, "micro_batch": 2, "global_batch": 8}
    before, after = estimated(f"tiny-{family}", **base), estimated(f"tiny-{family}", **{**base, **given})
    assert getattr(after.activations, part) < 0.9 * getattr(before.activations, part)


def test_fused_attention_keeps_no_scores() -> None:
    """Also where flash-attention is not installed."""
    eager, fused = estimated(max_length=256), estimated(max_length=256, attention="flash_attention_2")
    assert fused.activations.language < 0.9 * eager.activations.language


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"dtype": "bfloat16"}, "weights"),
        ({"zero": 3}, "weights"),
        ({"offload": "optimizer"}, "optimizer"),
        ({"zero": 3, "offload": "all"}, "weights"),
        ({"freeze_llm": True}, "optimizer"),
        ({"tune_mm_mlp_adapter": True}, "step"),
        ({"optimizer": "adamw_fused"}, "step"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_save_what_ranks_hold(given: Mapping[str, Any], part: str) -> None:
    base = {"dtype": "float32", "optimizer": "adamw"}
    before, after = held_by(**base), held_by(**{**base, **given})
    assert getattr(after, part) < 0.9 * getattr(before, part)


def test_a_bucket_that_is_not_filled_takes_only_its_part_on_the_cpu() -> None:
    on_gpu, on_cpu = (estimated(zero=3, dtype="float32", device=device).held for device in ("cuda", "cpu"))
    assert on_gpu.buffers == 4 * 50_000_000, "DeepSpeed allocates all of it"
    assert on_cpu.buffers == on_cpu.gradients, "one rank has the gradients of all parameters"


def test_what_is_offloaded_is_in_the_machine() -> None:
    on_gpu, offloaded = estimated(), estimated(offload="optimizer")
    assert offloaded.host["offloaded: optimizer's states"] == on_gpu.held.optimizer
    assert offloaded.machine > on_gpu.machine


def test_nine_billion_parameters_on_eight_gpus(train_cli: Run) -> None:
    done = train_cli("memory", "--stage", "pretrain", "--model", "gemma2-9b", "--gpus", 8, "--gpu-memory", "80GB")
    assert done.returncode == 0, done.stderr
    assert "gemma2-9b: 9,915,664,896 parameters" in done.stdout and "ZeRO-3, 8 GPUs" in done.stdout
    weights = re.search(r"^weights +(\S+) GB", done.stdout, re.MULTILINE)
    assert weights is not None and float(weights[1]) == pytest.approx(2 * 9.9157 / 8, abs=0.1)
    assert re.search(r"^fits: [0-9.]+ GB of 80\.0 GB$", done.stdout, re.MULTILINE)


def test_what_to_change_if_it_does_not_fit(train_cli: Run) -> None:
    """Each change is kept for the next ones, and they end when it fits."""
    options: list[object] = ["--stage", "custom", "--model", "small-gemma2", "--gpu-memory", "1.3GB"]
    options += ["--max-length", 2048, "--micro-batch", 4, "--global-batch", 16]
    done = train_cli("memory", *options)
    assert done.returncode == 0, done.stderr
    advice = done.stdout.partition("does not fit: ")[2].splitlines()
    assert advice[0].endswith("needed, and a GPU has 1.3 GB. To change, each with those above it:")
    figures = [float(match[1]) for line in advice[2:] if (match := re.search(r" ([0-9.]+) GB", line))]
    assert figures == sorted(figures, reverse=True) and figures[-1] <= 1.3 < figures[-2]
    changes = [line.split("  ")[0] for line in advice[2:]]
    assert changes == ["--micro-batch 2", "--micro-batch 1", "--gradient-checkpointing true"]
    again = train_cli("memory", *options, *" ".join(changes).split())
    assert re.search(rf"^fits: {figures[-1]} GB of 1\.3 GB$", again.stdout, re.MULTILINE), again.stdout


def test_the_options_of_a_run_are_taken(frozen_set: Path, tmp_path: Path, train_cli: Run) -> None:
    options = command(frozen_set, tmp_path / "run", "--device", "cpu", "--per-device-train-batch-size", 2)[1:]
    done = train_cli("memory", *options, "--tokens", 50, "--learned", 9)
    assert done.returncode == 0, done.stderr
    assert "micro-batches of 2 samples of 50 tokens: 9 of an image of 70 px, 9 learned" in done.stdout
    assert "on each rank" in done.stdout and "fits: " in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "nothing"), "--model nothing: neither a preset"),
        ((), "--model (or --from): missing"),
        (("--model", "tiny-qwen2", "--gpu-memory", "80 apples"), "expected a size such as 80GB"),
        (("--model", "tiny-qwen2", "--gpus", 2, "--gpus-per-machine", 4), "--gpus-per-machine 4 is more than --gpus 2"),
    ],
)
def test_errors(options: tuple[object, ...], says: str, train_cli: Run) -> None:
    done = train_cli("memory", "--stage", "sft", *options)
    assert done.returncode == 2 and says in done.stderr


def test_a_model_in_a_folder_is_that_of_its_configuration(tmp_path: Path, train_cli: Run) -> None:
    made = train_cli("new-model", tmp_path / "model", "--like", "qwen2", "--tokenizer", "bytes")
    assert made.returncode == 0, made.stderr
    for weights in (tmp_path / "model").glob("*.safetensors"):
        weights.unlink()
    settings = settings_of(str(tmp_path / "model"))
    parts = list(MemoryReport(settings, Ranks(count=1, per_machine=1, device="cuda"), tokens=9, learned=3).parts(H200))
    parameters = re.search(r"([0-9,]+) parameters", made.stderr)
    assert parameters is not None and f"{parameters[1]} parameters" in parts[0]


def test_a_run_logs_its_estimate(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    options = ("--steps", 1, "--global-batch", 4, "--workers", 0)
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *options), world_size=1)
    assert ended.codes == [0], ended.said
    (line,) = (line for line in ended.said[0].splitlines() if "memory: about " in line)
    assert re.search(r"about [0-9.]+ MB of tensors on each rank: .* weights, .* samples of [0-9,]+ tokens; ", line)
    assert "are free" not in line


def test_a_run_that_needs_more_than_is_free_warns(frozen_set: Path) -> None:
    """64 ranks of a Gemma-2 9B in float32, with large micro-batches, on one machine."""
    settings = settings_of("gemma2-9b", shards=(frozen_set,), micro_batch=64, global_batch=128)
    ranks = Ranks(count=64, per_machine=64, device="cpu")
    config = preset_config("gemma2-9b")
    before = config.to_json_string(use_diff=False)
    level, line = memory_line(config, settings, ranks, Lengths.estimated([open_set(frozen_set)]))
    assert config.to_json_string(use_diff=False) == before, "the run's own model has this configuration"
    assert level == logging.WARNING
    assert "TB are needed: give the same options to `griffon-train memory` to see what to change" in line
