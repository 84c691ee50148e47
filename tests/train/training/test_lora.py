"""Runs with LoRA: what trains, what they leave, and what can be done with it."""

import re
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.lora import LoraSettings
from griffon_train.config.run_folder import stored_settings
from griffon_train.model.freezing import Freezing, freeze, parameter_counts
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import (
    adapted_layers,
    adapter_config,
    adapter_weights,
    add_adapters,
    is_adapter_weight,
    merge,
)
from griffon_train.model.presets import preset_config
from griffon_train.training.merging import merge_adapter
from griffon_train.training.model_loading import load_model

from .conftest import Options, checkpoint_of, command, steps_told, wait_for_step
from .launcher import Launcher
from .test_model_loading import settings
from .test_world_size import as_after, check_metrics

RANK = 4
LORA: Options = ("--lora-r", RANK, "--freeze-vision-tower")
OPTIONS: Options = ("--global-batch", 5, "--micro-batch", 2, "--max-length", 256, "--lr", 1e-2, "--workers", 0)

Model = GriffonForConditionalGeneration


@pytest.fixture(scope="module")
def adapted(launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path_factory: Any) -> Path:  # noqa: ANN401
    """A short run on two ranks, which part their weights."""
    run: Path = tmp_path_factory.mktemp("lora") / "run"
    more = ("--steps", 4, "--lora-dropout", 0.1, "--gradient-checkpointing", "true", *zero[3])
    ended = launcher.run(*command(frozen_set, run, *LORA, *OPTIONS, *more))
    assert ended.codes == [0, 0], ended.said
    return run


@pytest.fixture(scope="module")
def base(adapted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that it began with, saved."""
    folder = tmp_path_factory.mktemp("base") / "model"
    model, tokenizer = load_model(replace(stored_settings(adapted), lora=LoraSettings()), torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def read(folder: Path) -> Model:
    model: Model = GriffonForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model


def further(adapter: Path, **more: object) -> Model:
    """The model that a run begins with that trains an adapter further."""
    model, _ = load_model(settings(from_run=adapter, **{"lora_r": RANK, **more}), torch.float32)
    return model


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:  # noqa: ANN401 - a model, or PEFT's around it
    """Of tokens with an image; [2, 60, V]."""
    draws = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(10, 200, (2, 60), generator=draws)
    ids_BL[:, 3 : 3 + model.image_tokens] = model.config.image_token_id
    pixels_BCHW = torch.randn(2, 3, 70, 70, generator=draws)
    result: torch.Tensor = model.eval()(input_ids=ids_BL, pixel_values=pixels_BCHW).logits
    return result


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


def test_another_world_size(launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path: Path) -> None:
    """Half of the steps on two ranks, a quarter on one, the rest on four; against all on two."""
    whole, run, steps = tmp_path / "whole", tmp_path / "run", 20
    options = ("--steps", steps, "--save-steps", steps // 2, *LORA, *OPTIONS, "--lr", 1e-4, *zero[2])
    ended = launcher.run(*command(frozen_set, whole, *options))
    assert ended.codes == [0, 0], ended.said
    shutil.copytree(whole / "adapter", whole / "model")
    as_after(whole, steps // 2, run)
    shutil.rmtree(run / "adapter")
    alone = launcher.start(command(frozen_set, run, *options), 1)
    wait_for_step(alone, run, steps * 3 // 4)
    alone.signal(signal.SIGTERM)
    ended = alone.wait()
    assert ended.codes == [128 + signal.SIGTERM], ended.said
    assert steps * 3 // 4 <= steps_told(run) < steps
    ended = launcher.run(*command(frozen_set, run, *options), world_size=4)
    assert ended.codes == [0] * 4, ended.said
    check_metrics(run, whole, steps)
    ours, theirs = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (run, whole))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    adapters = [weight for name, weight in theirs.items() if ".lora_B." in name]
    assert min(float(weight.abs().max()) for weight in adapters) > 1e-4


def test_an_adapter_trains_further_and_stays_one_of_the_same_model(
    launcher: Launcher, adapted: Path, base: Path, frozen_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("--steps", 2, *LORA, "--freeze-mm-mlp-adapter", *OPTIONS)
    start = ["run", "--stage", "custom", "--from", adapted, "--shards", frozen_set, "--output-dir", run]
    ended = launcher.run(*start, *more, world_size=1)
    assert ended.codes == [0], ended.said
    first, second = (load_file(each / "adapter" / "adapter_model.safetensors") for each in (adapted, run))
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert same >= {name for name in first if ".projector." in name}  # which does not train, but is not the base's
    assert not any(".lora_" in name for name in same)
    plain = PeftModel.from_pretrained(read(base), run / "adapter")
    assert torch.allclose(logits(further(run)), logits(plain), rtol=0, atol=1e-5)
    with pytest.raises(SettingsError, match="its adapter has --lora-r 4 --lora-alpha 8; give the same to train it fur"):
        further(adapted, lora_r=8)
    with pytest.raises(SettingsError, match="its adapter has --lora-r 4 --lora-alpha 8; give the same to train it fur"):
        further(adapted, lora_targets="q_proj")


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


def test_an_adapter_does_not_fit_another_model(adapted: Path, base: Path, tmp_path: Path) -> None:
    other = read(base)
    with torch.no_grad():
        other.language_model.model.norm.weight[0] += 1
    shutil.copytree(base, tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(SettingsError, match=r"another model than this one: 1 weights differ, such as .*\.norm\.weight"):
        merge_adapter(adapted, tmp_path / "merged", model=str(tmp_path / "other"))
    assert not (tmp_path / "merged").exists()
    moved = shutil.copytree(base, tmp_path / "moved", ignore=shutil.ignore_patterns("*token*"))
    merge_adapter(adapted, tmp_path / "merged", model=str(moved))
    assert torch.allclose(logits(read(tmp_path / "merged")), logits(further(adapted)), rtol=0, atol=1e-5)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()  # the adapter has it
    with pytest.raises(SettingsError, match="no adapter in it; give the --output-dir of a run with --lora-r"):
        merge_adapter(base, tmp_path / "again")


@pytest.mark.parametrize("name", ["griffon_base.json", "adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_refused_by_name(name: str, adapted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{copy / name}: "):
        merge_adapter(copy, tmp_path / "merged")


def test_other_tensors_than_the_configuration_names_are_refused(adapted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    fields = orjson.loads((copy / "adapter_config.json").read_bytes())
    (copy / "adapter_config.json").write_bytes(orjson.dumps({**fields, "target_modules": fields["target_modules"][1:]}))
    with pytest.raises(DataError, match=r"adapter_model.safetensors: not the weights .* not expected: .*lora_A.weight"):
        merge_adapter(copy, tmp_path / "merged")


def tiny(family: str = "gemma2") -> Model:
    return GriffonForConditionalGeneration(preset_config(f"tiny-{family}"))


def test_new_adapters_depend_on_the_seed_and_their_names_alone() -> None:
    lora = LoraSettings(lora_r=RANK)
    models = [tiny() for _ in range(4)]
    dtypes = torch.float32, torch.float32, torch.bfloat16, torch.float32
    for model, seed, dtype in zip(models, (1, 1, 1, 2), dtypes, strict=True):
        torch.rand(seed)  # the state of torch's generator does not matter
        add_adapters(model, lora, seed, dtype)
    first, again, rounded, other = (adapter_weights(model) for model in models)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight.to(torch.bfloat16), rounded[name])
        assert bool((weight == 0).all()) == (".lora_B." in name)
        assert torch.equal(weight, other[name]) == (".lora_B." in name)


LAYERS = {f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")}


@pytest.mark.parametrize(
    ("targets", "kinds", "count"),
    [
        (None, LAYERS, 14),
        ("q_proj,v_proj", {"q_proj", "v_proj"}, 4),
        ("self_attn.o_proj", {"o_proj"}, 2),
        (r"model\.layers\.1\..*", LAYERS, 7),
        (r".*\.(up|down)_proj", {"up_proj", "down_proj"}, 4),
        ("lm_head,q_proj", {"lm_head", "q_proj"}, 3),
    ],
)
def test_the_layers_that_are_adapted(targets: str | None, kinds: set[str], count: int) -> None:
    """Never those of the towers, which have layers of the same names."""
    layers = adapted_layers(tiny("llama2"), LoraSettings(lora_r=RANK, lora_targets=targets))
    assert len(layers) == count
    assert {name.rpartition(".")[2] for name in layers} == kinds
    assert all(name.startswith("language_model.") for name in layers)


def test_many_layers_are_named_so_that_peft_finds_no_others(tmp_path: Path) -> None:
    """PEFT shortens the names of more than 20 layers to their ends, which layers of the towers have, too."""
    model = GriffonForConditionalGeneration(preset_config("small-qwen2"))
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.float32)
    names = {name.partition(".lora_")[0] for name in adapter_weights(model)}
    assert len(names) == 28 and all(name.startswith("language_model.") for name in names)
    (tmp_path / "adapter_config.json").write_bytes(orjson.dumps(adapter_config(model, ["projector"], "base")))
    plain = get_peft_model(
        GriffonForConditionalGeneration(preset_config("small-qwen2")), PeftConfig.from_pretrained(str(tmp_path))
    )
    adapted = {name.partition(".lora_")[0] for name, _ in plain.named_parameters() if ".lora_A." in name}
    assert adapted == {f"base_model.model.{name}" for name in names}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            "q_proj,vproj",
            "--lora-targets q_proj,vproj: vproj is no linear layer of the language model; there are down_",
        ),
        ("embed_tokens", "embed_tokens is no linear layer"),
        (r"layers\..*", "selects no linear layer of the language model; .* in complete names such as lm_head"),
        ("lm_head", "--lora-targets lm_head: selects the head, whose weights are those of the embeddings"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused(targets: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        adapted_layers(tiny(), LoraSettings(lora_r=RANK, lora_targets=targets))


def test_an_adapted_head_is_merged_too() -> None:
    """Of a model whose head has weights of its own."""
    model = tiny("llama2")
    before = logits(model)
    add_adapters(model, LoraSettings(lora_r=RANK, lora_targets="lm_head"), 0, torch.float32)
    assert torch.equal(logits(model), before)
    assert list(adapter_weights(model)) == [f"language_model.lm_head.lora_{each}.default.weight" for each in "AB"]
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight.fill_(0.1)
    adapted = logits(model)
    merge(model, torch.float32)
    assert torch.allclose(logits(model), adapted, rtol=0, atol=1e-5)
    assert not torch.allclose(adapted, before, rtol=0, atol=1e-2)


def test_a_run_in_bfloat16_is_merged_in_float32(
    launcher: Launcher, base: Path, frozen_set: Path, tmp_path: Path
) -> None:
    """On a model that is stored in float32; what comes out has the run's dtype, or the one that is wanted."""
    run, layer = tmp_path / "run", "language_model.model.layers.0.self_attn.q_proj"
    more = ("--model", base, "--dtype", "bfloat16", "--steps", 3, "--lora-targets", "q_proj")
    ended = launcher.run(*command(frozen_set, run, *LORA, *OPTIONS, *more), world_size=1)
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


def test_a_model_without_weights_has_adapters_to_count() -> None:
    """As the estimate of memory needs them."""
    with torch.device("meta"):
        model = tiny()
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.bfloat16)
    freeze(model, Freezing())
    sizes = {name: weight.numel() for name, weight in adapter_weights(tiny_with_adapters()).items()}
    weights = dict(model.named_parameters())
    assert {name: weights[name].numel() for name in weights if is_adapter_weight(name)} == sizes
    assert parameter_counts(model)["language_model"][1] == sum(sizes.values())
    assert {weight.device.type for weight in weights.values()} == {"meta"}


def tiny_with_adapters() -> Model:
    model = tiny()
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.float32)
    return model


def test_bin_tokens_that_could_not_be_learned_are_refused() -> None:
    with pytest.raises(SettingsError, match="--boxes bin adds tokens to the model, whose embeddings would not train"):
        load_model(settings(boxes="bin", lora_r=RANK), torch.float32)


def test_without_peft_it_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match=r"LoRA needs peft, .* pip install 'griffon-pipeline\[lora\]'"):
        load_model(settings(lora_r=RANK), torch.float32)


def test_the_documented_fine_tune_runs_as_written(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """On the model that the page has trained before, which needs fewer steps here."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.split("\n## LoRA\n")[1].split("\n## ")[0]
    lines = re.findall(r"^    \$ griffon-train (.*)$", re.sub(r"\\\n\s*", "", section), re.MULTILINE)
    here = {"demo/shards": str(frozen_set), "runs/2": f"{tmp_path}/2", "runs/lora": f"{tmp_path}/lora"}
    here["models/merged"] = f"{tmp_path}/merged"
    ended = launcher.run(*command(frozen_set, tmp_path / "2", "--steps", 1, *OPTIONS), world_size=1)
    assert ended.codes == [0], ended.said
    assert [line.split()[0] for line in lines] == ["run", "evaluate", "convert"]
    for line in lines:
        ended = launcher.run(*(here.get(word, word) for word in shlex.split(line)), world_size=1)
        assert ended.codes == [0], (line, ended.said)
    fields = orjson.loads((tmp_path / "lora" / "adapter" / "adapter_config.json").read_bytes())
    assert (fields["r"], fields["lora_alpha"], fields["lora_dropout"]) == (16, 32, 0.05)
    plain = PeftModel.from_pretrained(read(tmp_path / "2" / "model"), tmp_path / "lora" / "adapter")
    assert torch.allclose(logits(plain), logits(read(tmp_path / "merged")), rtol=0, atol=1e-5)
