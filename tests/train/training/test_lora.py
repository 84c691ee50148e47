"""Runs with LoRA: what trains, what they leave, and what can be done with it."""

import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from griffon_shards.support.errors import SettingsError
from griffon_train.config.run_folder import stored_settings
from griffon_train.model.deferred import is_deferred, value_of
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import adapter_weights
from griffon_train.model.weight_files import is_mapped
from griffon_train.training.checkpoints import sha256_of_tensor
from griffon_train.training.merging import merge_adapter
from griffon_train.training.model_loading import load_model, map_model

from ..conftest import Run
from ..model.test_lora import logits
from .conftest import (
    LORA,
    LORA_OPTIONS,
    LORA_RANK,
    LORA_RUN,
    Options,
    checkpoint_of,
    command,
    differences,
    steps_told,
    wait_for_step,
)
from .given_folders import settings
from .launcher import Launcher
from .test_own_parts import LEARNS_NOTHING, ONE_STEP
from .test_world_size import as_after, check_metrics

pytestmark = pytest.mark.xdist_group("adapted")  # one process makes the fixtures, which take long

Model = GriffonForConditionalGeneration


def read(folder: Path) -> Model:
    model: Model = GriffonForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model


def further(adapter: Path, **more: object) -> Model:
    """The model that a run begins with that trains an adapter further."""
    model, _ = load_model(settings(from_run=adapter, **{"lora_r": LORA_RANK, **more}), torch.float32)
    return model


def test_merged_into_whole_weights_it_answers_as_the_adapter_and_as_plain_peft(
    adapted: Path, base: Path, tmp_path: Path
) -> None:
    merge_adapter(adapted, tmp_path / "merged")
    merged = logits(read(tmp_path / "merged"))
    assert torch.allclose(logits(further(adapted)), merged, rtol=0, atol=1e-5)
    assert torch.allclose(logits(PeftModel.from_pretrained(read(base), adapted / "adapter")), merged, rtol=0, atol=1e-5)
    assert float((logits(read(base)) - merged).abs().max()) > 0.1
    whole, _ = load_model(settings(from_run=adapted), torch.float32)  # a run without LoRA begins with the same
    assert torch.equal(logits(whole), merged)


def test_adapters_and_the_parts_outside_the_language_model_train(adapted: Path, base: Path, tmp_path: Path) -> None:
    index = orjson.loads((checkpoint_of(adapted, 4) / "checkpoint.json").read_bytes())
    trained = {fragment[0] for file in index["files"] for fragment in file["fragments"]}
    kinds = {"adapter" if ".lora_" in name else name.partition(".")[0] for name in trained}
    assert kinds == {"adapter", "projector", "region_projector"}
    assert len([name for name in trained if ".lora_" in name]) == 2 * 2 * 7  # A and B of seven layers in two blocks
    assert all(bool(weight.any()) for weight in adapter_weights(further(adapted)).values())
    merge_adapter(adapted, tmp_path / "merged")
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.partition(".")[0] for name in moved} >= {"language_model", "projector"}
    assert all("_proj.weight" in name or "projector." in name for name in moved)


def test_killed_under_zero_3_it_resumes_bit_for_bit(
    launcher: Launcher, adapted: Path, frozen_set: Path, zero: Mapping[int, Options], tmp_path: Path
) -> None:
    run, options = tmp_path / "run", (*LORA_RUN, *zero[3])
    running = launcher.start(command(frozen_set, run, *options), 2)
    running.wait_until(lambda: checkpoint_of(run, 2).exists())
    running.signal(signal.SIGKILL)
    ended = running.wait()
    assert ended.codes == [-signal.SIGKILL] * 2, ended.said
    ended = launcher.run(*command(frozen_set, run, *options))
    assert ended.codes == [0, 0], ended.said
    assert "resuming at step 2 of 4" in ended.said[0]
    assert differences(adapted, run) == []


def test_from_two_ranks_to_one_under_zero_3(
    launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path: Path
) -> None:
    """Without dropout, which is drawn by each rank."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    options = ("--steps", 4, "--save-steps", 2, *LORA, *LORA_OPTIONS, "--lr", 1e-4, *zero[3])
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said
    lora_after(whole, 2, run)
    ended = launcher.run(*command(frozen_set, run, *options), world_size=1)
    assert ended.codes == [0], ended.said
    assert "resuming at step 2 of 4" in ended.said[0]
    check_metrics(run, whole, 4)
    check_adapters(run, whole)


def lora_after(whole: Path, steps: int, run: Path) -> None:
    """Make, of a run that has ended, the run that it was after some steps."""
    (whole / "adapter").rename(whole / "model")
    as_after(whole, steps, run)
    (whole / "model").rename(whole / "adapter")


def check_adapters(run: Path, whole: Path) -> None:
    """Compare the results of two runs, which have learned something."""
    ours, theirs = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (run, whole))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    adapters = [weight for name, weight in theirs.items() if ".lora_B." in name]
    assert min(float(weight.abs().max()) for weight in adapters) > 1e-4


def test_another_world_size(launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path: Path) -> None:
    """Half of the steps on two ranks, a quarter on one, the rest on four; against all on two."""
    whole, run, steps = tmp_path / "whole", tmp_path / "run", 20
    options = ("--steps", steps, "--save-steps", steps // 2, *LORA, *LORA_OPTIONS, "--lr", 1e-4, *zero[2])
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said
    lora_after(whole, steps // 2, run)
    alone = launcher.start(command(frozen_set, run, *options), 1)
    wait_for_step(alone, run, steps * 3 // 4)
    alone.signal(signal.SIGTERM)
    ended = alone.wait()
    assert ended.codes == [128 + signal.SIGTERM], ended.said
    assert steps * 3 // 4 <= steps_told(run) < steps
    ended = launcher.run(*command(frozen_set, run, *options), world_size=4)
    assert ended.codes == [0] * 4, ended.said
    check_metrics(run, whole, steps)
    check_adapters(run, whole)


def test_an_adapter_trains_further_and_stays_one_of_the_same_model(
    launcher: Launcher, adapted: Path, base: Path, frozen_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("--steps", 2, *LORA, "--freeze-mm-mlp-adapter", *LORA_OPTIONS)
    start = ["run", "--stage", "custom", "--from", adapted, "--shards", frozen_set, "--output-dir", run]
    ended = launcher.run(*start, *more, world_size=1)
    assert ended.codes == [0], ended.said
    first, second = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (adapted, run))
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert same >= {name for name in first if ".projector." in name}  # which does not train, but is not the base's
    assert not any(".lora_" in name for name in same)
    plain = PeftModel.from_pretrained(read(base), run / "adapter")
    assert torch.allclose(logits(further(run)), logits(plain), rtol=0, atol=1e-5)
    for other in ({"lora_r": 8}, {"lora_alpha": 4}, {"lora_targets": "q_proj"}):
        message = "its adapter has --lora-r 4 --lora-alpha 8 and no --lora-targets; give the same to train it further"
        with pytest.raises(SettingsError, match=message):
            further(adapted, **other)
    for part, option in (("vision_tower", "--vision-tower"), ("region_tower", "--region-tower")):
        with pytest.raises(SettingsError, match=f"^{option} .*, whose base model has its own; leave out {option}"):
            further(adapted, **{part: base})
    with pytest.raises(SettingsError, match=f"^--model tiny-gemma2: --from {adapted} already decides the model; "):
        further(adapted, model="tiny-gemma2")


@pytest.mark.parametrize("more", [{}, {"lora_r": LORA_RANK}], ids=["merged", "further"])
def test_no_process_copies_what_it_can_map(more: Mapping[str, Any], adapted: Path, base: Path, tmp_path: Path) -> None:
    """Neither the base model, which is stored in another type, nor the adapter; sums are computed when needed."""
    rounded(adapted / "adapter", base, tmp_path / "adapter")
    given = settings(from_run=tmp_path / "adapter", model=str(base), **more)
    whole = dict(load_model(given, torch.bfloat16)[0].named_parameters())
    model, _ = map_model(given, torch.bfloat16, draws=False)
    weights = dict(model.named_parameters())
    assert weights.keys() == whole.keys()
    assert [name for name, weight in weights.items() if not is_mapped(weight)] == []
    sums = {name for name, weight in weights.items() if is_deferred(weight)}
    assert len(sums) == (0 if more else 14) and all(name.startswith("language_model.") for name in sums)
    for name, weight in weights.items():
        assert torch.equal(value_of(weight, torch.bfloat16), whole[name]), name


def rounded(adapter: Path, base: Path, out: Path) -> None:
    """Make the adapter that a run in bfloat16 would have written."""
    shutil.copytree(adapter, out)
    tensors = load_file(out / "adapter_model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, out / "adapter_model.safetensors")
    fields, weights = orjson.loads((out / "griffon_base.json").read_bytes()), read(base)
    hashes = {name: sha256_of_tensor(weights.get_parameter(name).bfloat16()) for name in fields["sha256"]}
    (out / "griffon_base.json").write_bytes(orjson.dumps({**fields, "dtype": "bfloat16", "sha256": hashes}))


@pytest.mark.parametrize(("world_size", "lora"), [(1, ()), (2, ()), (2, LORA)], ids=["one", "two", "two, further"])
def test_a_run_from_an_adapter_in_parts_begins_with_the_whole_model(
    world_size: int,
    lora: Options,
    launcher: Launcher,
    adapted: Path,
    base: Path,
    frozen_set: Path,
    zero: Mapping[int, Options],
    tmp_path: Path,
) -> None:
    """Each rank keeps its parts of the weights; the result of a run that learns nothing has them all."""
    run = tmp_path / "run"
    start = ("run", "--stage", "custom", "--from", adapted / "adapter", "--model", base, "--shards", frozen_set)
    more = ("--freeze-vision-tower", *ONE_STEP, *LEARNS_NOTHING, *lora, *zero[3])
    ended = launcher.run(*start, "--output-dir", run, *more, world_size=world_size)
    assert ended.codes == [0] * world_size, ended.said
    whole: Mapping[str, torch.Tensor] = dict(load_model(stored_settings(run), torch.float32)[0].named_parameters())
    if lora:
        result = load_file(run / "adapter" / "adapter_model.safetensors")
        before: Mapping[str, torch.Tensor] = load_file(adapted / "adapter" / "adapter_model.safetensors")
    else:
        result, before = load_file(run / "model" / "model.safetensors"), whole
    assert result.keys() == before.keys()
    assert [name for name in result if not torch.equal(result[name], before[name])] == []
    frozen = orjson.loads((checkpoint_of(run, 1) / "checkpoint.json").read_bytes())["frozen_sha256"]
    assert {name.partition(".")[0] for name in frozen} >= {"vision_tower", "region_tower"}
    assert any(name.startswith("language_model.") for name in frozen) == bool(lora)
    assert frozen == {name: sha256_of_tensor(whole[name]) for name in frozen}


def test_the_memory_of_a_run_from_an_adapter_is_that_of_one_from_its_base(
    adapted: Path, base: Path, tmp_path: Path, train_cli: Run
) -> None:
    shutil.copytree(adapted / "adapter", tmp_path / "adapter")
    options = ("memory", "--stage", "custom", "--gpu-memory", "80GB", "--lora-r", LORA_RANK)
    expected = train_cli(*options, "--model", base)
    assert expected.returncode == 0, expected.stderr
    for given in (("--from", tmp_path / "adapter"), ("--from", adapted), ("--from", adapted, "--model", base)):
        assert train_cli(*options, *given).stdout.partition(": ")[2] == expected.stdout.partition(": ")[2]


def test_a_copied_adapter_is_evaluated_like_the_last_checkpoint(
    launcher: Launcher, adapted: Path, frozen_set: Path, tmp_path: Path
) -> None:
    shutil.copytree(adapted / "adapter", tmp_path / "copied")
    options = ("--shards", frozen_set, "--device", "cpu", "--source", "VG_shapes", "--limit", 2, "--max-new-tokens", 8)
    said = []
    for model, out in (((tmp_path / "copied",), "first"), ((adapted, "--from", "last"), "last")):
        ended = launcher.run("evaluate", *model, "--out", tmp_path / out, *options, world_size=1)
        assert ended.codes == [0], ended.said
        said.append((tmp_path / out / "predictions.jsonl").read_bytes())
    assert said[0] == said[1] != b""


def test_a_run_in_bfloat16_is_merged_in_float32(
    launcher: Launcher, base: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """On a model that is stored in float32; what comes out has the run's dtype, or the one that is wanted."""
    run, layer = tmp_path / "run", "language_model.model.layers.0.self_attn.q_proj"
    more = ("--model", base, "--dtype", "bfloat16", "--steps", 3, "--lora-targets", "q_proj")
    ended = launcher.run(*command(frozen_set, run, *LORA, *LORA_OPTIONS, *more), world_size=1)
    assert ended.codes == [0], ended.said
    tensors = load_file(run / "adapter" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{layer}.lora_{each}.weight"] for each in "AB")
    before = load_file(base / "model.safetensors")[f"{layer}.weight"]
    assert {a.dtype, b.dtype} == {torch.bfloat16}
    for given, dtype in ((None, torch.bfloat16), ("float32", torch.float32)):
        merge_adapter(run, tmp_path / str(given), dtype=given)
        merged = load_file(tmp_path / str(given) / "model.safetensors")
        assert {tensor.dtype for tensor in merged.values()} == {dtype}
        assert torch.equal(merged[f"{layer}.weight"], (before.to(dtype).float() + 2 * b.float() @ a.float()).to(dtype))
        assert not torch.equal(merged[f"{layer}.weight"], before.to(dtype))


def test_bin_tokens_that_could_not_be_learned_are_refused() -> None:
    with pytest.raises(SettingsError, match="--boxes bin adds tokens to the model, whose embeddings would not train"):
        load_model(settings(boxes="bin", lora_r=LORA_RANK), torch.float32)


def test_without_peft_it_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match=r"LoRA needs peft, .* pip install 'griffon-pipeline\[lora\]'"):
        load_model(settings(lora_r=LORA_RANK), torch.float32)


def test_the_documented_fine_tune_runs_as_written(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """On the model that the page has trained before, which needs fewer steps here."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.split("\n## LoRA\n")[1].split("\n## ")[0]
    lines = re.findall(r"^    \$ griffon-train (.*)$", re.sub(r"\\\n\s*", "", section), re.MULTILINE)
    here = {"demo/shards": str(frozen_set), "runs/2": f"{tmp_path}/2", "runs/lora": f"{tmp_path}/lora"}
    here["models/merged"] = f"{tmp_path}/merged"
    ended = launcher.run(*command(frozen_set, tmp_path / "2", "--steps", 1, *LORA_OPTIONS), world_size=1)
    assert ended.codes == [0], ended.said
    assert [line.split()[0] for line in lines] == ["run", "evaluate", "convert"]
    for line in lines:
        ended = launcher.run(*(here.get(word, word) for word in shlex.split(line)), world_size=1)
        assert ended.codes == [0], (line, ended.said)
    fields = orjson.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_bytes())
    assert (fields["r"], fields["lora_alpha"], fields["lora_dropout"]) == (16, 32, 0.05)
    plain = PeftModel.from_pretrained(read(tmp_path / "2" / "model"), tmp_path / "lora" / "adapter")
    assert torch.allclose(logits(plain), logits(read(tmp_path / "merged")), rtol=0, atol=1e-5)
