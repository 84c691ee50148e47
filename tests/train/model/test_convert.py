"""`griffon-train convert griffon` and `export`: released weights load, compute what their parts do, and go back."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoProcessor

from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config

from ..conftest import Run
from .released import FAMILIES, Released, State, assert_same

GEMMA, QWEN, LLAMA = FAMILIES
ROUNDTRIPS = [
    (GEMMA, "conv_reduce", True, torch.bfloat16, "safetensors shards"),
    (GEMMA, "mlp2x_gelu", False, torch.float32, "bin"),
    (GEMMA, "linear", True, torch.float16, "bin shards"),
    (QWEN, "conv_reduce", False, torch.bfloat16, "bin shards"),
    (QWEN, "linear", False, torch.float32, "safetensors"),
    (QWEN, "mlp2x_gelu", True, torch.bfloat16, "safetensors shards"),
    (LLAMA, "conv_reduce", True, torch.float16, "bin"),
    (LLAMA, "mlp2x_gelu", False, torch.bfloat16, "safetensors"),
    (LLAMA, "linear", True, torch.float32, "safetensors shards"),
]


def converted(run: Run, released: Released, folder: Path, *options: object, form: str = "safetensors") -> Path:
    """Converted through the command line; the folder has `released`, `ours` and the towers."""
    towers = released.save_towers(folder)
    result = run(
        "convert", "griffon", "-q", released.save(folder / "released", form), folder / "ours", *towers, *options
    )
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "ours"


def loaded(folder: Path, **settings: Any) -> Any:  # noqa: ANN401 - transformers is typed in part
    """The model, with nothing missing and nothing left over."""
    result: Any = GriffonForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **settings)
    model, notes = result
    assert not any(notes.values()), notes
    return model.eval()


def tensors_of(folder: Path) -> State:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("family", "projector", "regions", "dtype", "form"), ROUNDTRIPS)
def test_released_weights_load_and_go_back_bit_for_bit(
    train_cli: Run, tmp_path: Path, family: str, projector: str, regions: bool, dtype: torch.dtype, form: str
) -> None:
    released = Released(family, projector, regions=regions).to(dtype)
    released.state["model.norm.weight"] = released.state["model.norm.weight"].double()  # each dtype is its own
    ours = converted(train_cli, released, tmp_path, form=form)
    model = loaded(ours)
    assert model.config.projector == projector
    assert (model.region_tower is not None) == regions
    assert model.dtype == dtype
    assert train_cli("convert", "export", ours, tmp_path / "back").returncode == 0
    assert_same(tensors_of(tmp_path / "back"), released.state)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == released.config


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_converted_computes_what_its_parts_do(train_cli: Run, tmp_path: Path, family: str) -> None:
    released = Released(family, "conv_reduce", regions=True)
    model = loaded(converted(train_cli, released, tmp_path), attn_implementation="eager")
    tokens = torch.tensor([[1, 9, 33, 21, 60, 4]])
    pictures, regions = torch.randn(2, 3, 42, 42), torch.randn(2, 3, 28, 28)
    scale = 24**0.5 if family == GEMMA else 1.0
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).logits, released.text(tokens).logits)
        patches = released.tower(pictures, output_hidden_states=True).hidden_states[-2][:, 1:]
        named = {name.removeprefix("model."): tensor for name, tensor in released.state.items()}
        grid = patches.transpose(1, 2).reshape(2, -1, 3, 3)
        reduced = F.conv2d(grid, named["mm_projector.conv.weight"], named["mm_projector.conv.bias"], 2, 1)
        reduced = F.gelu(reduced).flatten(2).transpose(1, 2)
        expected = F.linear(reduced, named["mm_projector.linear.weight"], named["mm_projector.linear.bias"])
        torch.testing.assert_close(model.image_features(pictures), expected * scale, rtol=1e-3, atol=1e-3)
        assert released.region_tower is not None
        seen = released.region_tower(regions, output_hidden_states=True).hidden_states[-1][:, 0]
        seen = F.relu(F.linear(seen, named["prompt_projector.0.weight"], named["prompt_projector.0.bias"]))
        expected = F.linear(seen, named["prompt_projector.2.weight"], named["prompt_projector.2.bias"])
        torch.testing.assert_close(model.region_features(regions), expected * scale, rtol=1e-3, atol=1e-3)


def test_a_model_that_was_trained_on_goes_back_with_what_changed(train_cli: Run, tmp_path: Path) -> None:
    released = Released(QWEN, "mlp2x_gelu", regions=False).to(torch.bfloat16)
    model = loaded(converted(train_cli, released, tmp_path))
    model.language_model.resize_token_embeddings(80)
    model.config.text_config.vocab_size = 80
    model.config.select_layer = -1
    model.save_pretrained(tmp_path / "trained", max_shard_size="20KB")
    assert train_cli("convert", "export", tmp_path / "trained", tmp_path / "back").returncode == 0
    back = json.loads((tmp_path / "back" / "config.json").read_text())
    assert back == released.config | {"vocab_size": 80, "mm_vision_select_layer": -1}
    tensors = tensors_of(tmp_path / "back")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert tensors[name].shape == (80, 24)
        tensors[name] = tensors[name][:70]
    assert_same(tensors, released.state)


@pytest.mark.parametrize("preset", ["tiny-gemma2", "tiny-qwen2", "tiny-llama2"])
def test_a_model_that_never_was_released_is_exported_and_comes_back(
    train_cli: Run, tmp_path: Path, preset: str
) -> None:
    torch.manual_seed(0)
    config: Any = preset_config(preset)
    model: Any = GriffonForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "ours")
    result = train_cli(
        "convert", "export", "-q", tmp_path / "ours", tmp_path / "there", "--vision-tower", tmp_path / "tower"
    )
    assert (result.returncode, result.stderr) == (0, "")
    there = json.loads((tmp_path / "there" / "config.json").read_text())
    assert there["model_type"] == {"tiny-gemma2": GEMMA, "tiny-qwen2": QWEN, "tiny-llama2": LLAMA}[preset]
    assert there["mm_vision_tower"] == str(tmp_path / "tower")
    assert there["hidden_size"] == config.get_text_config().hidden_size
    assert there["mm_hidden_size"] == config.vision_config.hidden_size
    assert (there["unshared_visual_encoder"], there["rope_scaling"]) == (config.region_config is not None, None)
    assert there["mm_use_im_patch_token"] is False  # the reference would add a token to the vocabulary
    config.vision_config.save_pretrained(tmp_path / "tower")
    config.region_config.save_pretrained(tmp_path / "region")
    options = ("--region-tower", tmp_path / "region")  # the other is where the configuration says
    result = train_cli("convert", "griffon", "-q", tmp_path / "there", tmp_path / "again", *options)
    assert (result.returncode, result.stderr) == (0, "")
    assert_same(loaded(tmp_path / "again").state_dict(), model.state_dict())


def test_towers_that_are_not_in_the_weights_come_from_their_folders(train_cli: Run, tmp_path: Path) -> None:
    released = Released(LLAMA, "linear", regions=True)
    whole = dict(released.state)
    released.state = {n: t for n, t in whole.items() if not re.search(r"vision_tower|prompt_visual_encoder", n)}
    towers = released.save_towers(tmp_path, weights=True)
    source = released.save(tmp_path / "released")
    assert train_cli("convert", "griffon", source, tmp_path / "ours", *towers).returncode == 0
    loaded(tmp_path / "ours")
    assert train_cli("convert", "export", tmp_path / "ours", tmp_path / "back").returncode == 0
    assert_same(tensors_of(tmp_path / "back"), whole)


def test_tensors_that_old_versions_saved_needlessly_are_skipped_and_reported(train_cli: Run, tmp_path: Path) -> None:
    released = Released(GEMMA, "linear", regions=False)
    whole = dict(released.state)
    computed = ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    computed.append("model.vision_tower.vision_tower.vision_model.embeddings.position_ids")
    released.state |= dict.fromkeys(computed, torch.arange(10))
    released.state["lm_head.weight"] = whole["model.embed_tokens.weight"]
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released", "bin")
    result = train_cli("convert", "griffon", source, tmp_path / "ours", *towers)
    assert result.returncode == 0
    assert all(name in result.stderr for name in (*computed, "lm_head.weight"))
    assert train_cli("convert", "export", tmp_path / "ours", tmp_path / "back").returncode == 0
    assert_same(tensors_of(tmp_path / "back"), whole)


def test_weights_are_written_in_shards_of_the_size_asked_for(train_cli: Run, tmp_path: Path) -> None:
    released = Released(QWEN, "conv_reduce", regions=False)
    ours = converted(train_cli, released, tmp_path, "--shard-size", "40KB")
    files = list(ours.glob("*.safetensors"))
    assert len(files) > 3
    assert all(sum(tensor.nbytes for tensor in load_file(file).values()) <= 40_000 for file in files)
    loaded(ours)
    assert train_cli("convert", "export", ours, tmp_path / "back", "--shard-size", "40KB").returncode == 0
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 3
    assert_same(tensors_of(tmp_path / "back"), released.state)


def test_the_tokenizer_is_copied(train_cli: Run, tmp_path: Path) -> None:
    files = {"tokenizer.model": b"\x00", "tokenizer_config.json": b"{}", "generation_config.json": b"{}"}
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    for name, content in (files | {"trainer_state.json": b"{}"}).items():
        (source / name).write_bytes(content)
    result = train_cli("convert", "griffon", source, tmp_path / "ours", *towers)
    assert f"copied: {', '.join(sorted(files, key=list(files).index))}\n" in result.stderr
    assert train_cli("convert", "export", tmp_path / "ours", tmp_path / "back").returncode == 0
    for folder in ("ours", "back"):
        kept = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert kept.keys() == {*files, "config.json", "model.safetensors"}
        assert kept.items() >= files.items()


@pytest.mark.parametrize(
    ("family", "message", "kept", "stops"),
    [
        (GEMMA, None, {}, [1, 5]),
        (QWEN, {"eos_token_id": [2, 3], "top_p": 0.8, "do_sample": True}, {"top_p": 0.8, "do_sample": True}, [2, 3, 7]),
        (LLAMA, {"eos_token_id": 2, "temperature": 0.9}, {"temperature": 0.9}, [2]),
    ],
)
def test_what_is_converted_stops_and_has_a_processor(
    train_cli: Run, tmp_path: Path, family: str, message: object, kept: dict[str, Any], stops: list[int]
) -> None:
    released = Released(family, "conv_reduce", regions=True)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    byte_tokenizer().save_pretrained(source)
    if message is not None:
        (source / "generation_config.json").write_text(json.dumps(message))
    assert train_cli("convert", "griffon", source, tmp_path / "ours", *towers).returncode == 0
    model = loaded(tmp_path / "ours")
    assert model.generation_config.eos_token_id == stops
    assert {name: getattr(model.generation_config, name) for name in kept} == kept
    actual = AutoProcessor.from_pretrained(tmp_path / "ours")
    messages = [{"role": "user", "content": "<image>\nHow many?"}]
    picture = Image.new("RGB", (50, 90), "red")
    batch = actual.apply_chat_template(messages, tokenize=True, return_dict=True, processor_kwargs={"images": picture})
    assert batch["input_ids"][0].count(model.config.image_token_id) == model.image_tokens
    assert model.image_features(batch["pixel_values"]).shape[1] == model.image_tokens
    assert train_cli("convert", "export", tmp_path / "ours", tmp_path / "back").returncode == 0
    again = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert again["eos_token_id"] == stops


BINS = [f"<bin_{position}>" for position in range(1001)]


@pytest.mark.parametrize(
    ("file", "content", "options", "style"),
    [
        ("added_tokens.json", {name: 32000 + index for index, name in enumerate(BINS)}, (), "bin"),
        ("tokenizer.json", {"added_tokens": [{"id": n, "content": name} for n, name in enumerate(BINS)]}, (), "bin"),
        ("tokenizer_config.json", {"added_tokens_decoder": {n: {"content": b} for n, b in enumerate(BINS)}}, (), "bin"),
        ("added_tokens.json", {name: 32000 + index for index, name in enumerate(BINS[:-1])}, (), "text"),
        ("tokenizer_config.json", {}, (), "text"),
        ("tokenizer_config.json", {}, ("--boxes", "bin"), "bin"),
    ],
)
def test_boxes_are_written_as_the_tokenizer_can(
    train_cli: Run, tmp_path: Path, file: str, content: object, options: tuple[str, ...], style: str
) -> None:
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    (source / file).write_text(json.dumps(content))
    result = train_cli("convert", "griffon", source, tmp_path / "ours", *towers, *options)
    assert f" boxes: {style}\n" in result.stderr
    assert result.stdout == f"written: {tmp_path / 'ours'}\n"
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["box_style"] == style


def test_a_folder_that_holds_something_is_untouched(train_cli: Run, tmp_path: Path) -> None:
    released = Released(LLAMA, "linear", regions=False)
    ours = converted(train_cli, released, tmp_path)
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    for command in (("griffon", tmp_path / "released", ours), ("export", ours, ours)):
        result = train_cli("convert", *command)
        assert (result.returncode, result.stdout) == (2, "")
        assert "already exists and is not empty" in result.stderr
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before


def test_an_interrupted_conversion_leaves_no_files(
    train_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    (source / "tokenizer.json").write_text("{}")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted)
        assert train_cli("convert", "griffon", source, tmp_path / "ours", *towers).returncode == 130
    assert set(tmp_path.iterdir()) == before
