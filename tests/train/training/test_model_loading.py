"""The model that a run begins with."""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel, PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Turn
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import STAGES, Settings, settings_as_json
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.convert import convert_griffon, export_griffon, save_projector
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.text.chat_templates import encode, expand_and_truncate
from griffon_train.training.checkpoint_folders import FORMAT, sha256_of_index
from griffon_train.training.checkpoints import sha256_of_tensor
from griffon_train.training.model_loading import default_chat, load_model, unchecked_parts
from griffon_train.training.placing import placed

from ..conftest import Run
from ..model_folders import FAMILIES, language_model_folder, real_tokenizer, tower_folder
from .conftest import checkpoint_of


def settings(**more: object) -> Settings:
    model = {} if "from_run" in more else {"model": "tiny-llama2"}
    return resolve({"stage": "custom", "shards": (Path("set"),), "output_dir": Path("run"), **model, **more}).settings


def test_in_bfloat16_only_weights_are_rounded() -> None:
    """Rotary frequencies in bfloat16 would shift the positions of distant tokens."""
    whole, _ = load_model(settings(), torch.float32)
    rounded, _ = load_model(settings(), torch.bfloat16)
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    buffers = dict(rounded.named_buffers())
    assert any("inv_freq" in name for name in buffers)
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (load_model(settings(seed=seed), torch.float32)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["projector.conv.weight"], other["projector.conv.weight"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "gemma2-2b"}, "has random weights and no tokenizer; give --tokenizer"),
        ({"model": "nowhere"}, "neither a preset .gemma2-2b, .* nor a folder with a model"),
        ({"from_run": Path("nowhere")}, "--from nowhere: no such folder"),
        (
            {"from_run": Path("tests")},
            "tests: no config.json in it; expected the output folder of a run or an",
        ),
    ],
)
def test_what_does_not_exist_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**more), torch.float32)


def test_a_region_tower_joins_a_model_that_has_none(tmp_path: Path) -> None:
    """Visual referring starts from a model that has only seen complete images."""
    torch.manual_seed(0)
    seeing = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    seeing.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    tower = CLIPVisionModel(preset_config("tiny-llama2").region_config)  # type: ignore[arg-type]
    tower.save_pretrained(tmp_path / "tower")
    model, _ = load_model(settings(model=str(tmp_path / "model"), region_tower=tmp_path / "tower"), torch.float32)
    state = model.state_dict()
    for name, weight in seeing.state_dict().items():
        assert torch.equal(state[name], weight), name
    for name, weight in tower.state_dict().items():
        assert torch.equal(state[f"region_tower.{name}"], weight), name
    ids, region = torch.tensor([[1, -201, 5]]), torch.rand(1, 3, 28, 28)
    model.save_pretrained(tmp_path / "saved")
    again = GriffonForConditionalGeneration.from_pretrained(tmp_path / "saved")
    before, after = (item(ids, region_values=region).logits for item in (model.eval(), again.eval()))  # type: ignore[no-untyped-call]
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("whole", [False, True], ids=["a tower alone", "CLIP"])
def test_a_language_model_and_a_tower_are_joined(family: str, whole: bool, tmp_path: Path) -> None:
    """The weights are bit-identical, and the language model gives the same logits for text as alone."""
    language_model_folder(tmp_path / "text", family)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    tower = CLIPVisionModel.from_pretrained(tower_folder(tmp_path / "tower", whole=whole))
    given = {"model": str(tmp_path / "text"), "vision_tower": tmp_path / "tower"}
    model, _ = load_model(settings(**given), torch.float32)
    state = model.state_dict()
    for part, made in (("language_model", text), ("vision_tower", tower)):
        for name, weight in made.state_dict().items():
            assert torch.equal(state[f"{part}.{name}"], weight), name
    ids = torch.arange(12)[None]
    text.set_attn_implementation(model.language_model.config._attn_implementation)
    assert torch.equal(model.eval()(ids).logits, text(ids).logits)  # type: ignore[no-untyped-call]
    assert torch.isfinite(state["projector.conv.weight"]).all()
    assert model.region_tower is None
    again, _ = load_model(settings(**given), torch.float32)
    assert torch.equal(again.state_dict()["projector.conv.weight"], state["projector.conv.weight"])
    with pytest.raises(SettingsError, match="a language model without a vision tower; give --vision-tower"):
        load_model(settings(model=str(tmp_path / "text")), torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_model_with_its_real_tokenizer_takes_a_conversation(family: str, tmp_path: Path) -> None:
    """The conversation is in the family's chat template, every token of which has an embedding."""
    text = language_model_folder(tmp_path / "text", family, real_tokenizer(family), hidden_size=16)
    given = {"model": str(text), "vision_tower": tower_folder(tmp_path / "tower")}
    model, tokenizer = load_model(settings(**given), torch.float32)
    turns = [Turn(role="human", text="<image>\nWhere is the cat?"), Turn(role="gpt", text="cat-[0.1,0.2,0.3,0.4]")]
    encoded, _ = expand_and_truncate(
        encode(default_chat(model), turns, tokenizer, images=1), 4096, "error", model.image_tokens, "the sample"
    )
    ids, labels = torch.tensor([encoded.ids]), torch.tensor([encoded.labels])
    loss = model(ids, pixel_values=torch.rand(1, 3, 70, 70), labels=labels).loss
    assert loss is not None and 0 < loss.item() < 2 * math.log(len(tokenizer))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["auto", "eager", "sdpa", "flex_attention"])
def test_attention_is_computed_as_asked(family: str, attention: str, tmp_path: Path) -> None:
    given = {
        "model": str(language_model_folder(tmp_path / "text", family)),
        "vision_tower": tower_folder(tmp_path / "tower"),
        "attention": attention,
    }
    if (family, attention) == ("gemma2", "sdpa"):
        with pytest.raises(SettingsError, match="gemma2 caps attention scores"):
            load_model(settings(**given), torch.float32)
        return
    model, _ = load_model(settings(**given), torch.float32)
    best = "eager" if family == "gemma2" else "sdpa"
    language_model: Any = model.language_model
    computes = {layer.self_attn.config._attn_implementation for layer in language_model.model.layers}
    assert computes == {best if attention == "auto" else attention}
    tower: Any = model.vision_tower
    computes = {layer.self_attn.config._attn_implementation for layer in tower.encoder.layers}
    assert computes == {"eager" if attention == "eager" else "sdpa"}


@pytest.mark.parametrize(("family", "tied"), [("gemma2", True), ("qwen2", True), ("qwen2", False), ("llama2", False)])
def test_a_language_model_that_learns_bin_boxes_can_be_saved_and_loaded(
    family: str, tied: bool, tmp_path: Path
) -> None:
    """It is loaded by the next stage, and converted to the released layout and back."""
    language_model_folder(tmp_path / "text", family, tie_word_embeddings=tied)
    tower = tower_folder(tmp_path / "tower")
    given = settings(model=str(tmp_path / "text"), vision_tower=tower, boxes="bin")
    model, tokenizer = load_model(given, torch.float32)
    rows, first = model.get_input_embeddings().weight, len(byte_tokenizer())
    assert tokenizer.convert_tokens_to_ids("<bin_0>") == first and len(rows) == first + 1001
    assert torch.allclose(rows[first], rows[:first].mean(dim=0))
    assert (model.get_output_embeddings().weight is rows) == tied
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    export_griffon(tmp_path / "saved", tmp_path / "released")
    convert_griffon(tmp_path / "released", tmp_path / "back", vision_tower=tower)
    for name in ("saved", "back"):
        again, known = load_model(settings(model=str(tmp_path / name)), torch.float32)
        assert again.config.box_style == "bin" and len(known) == len(tokenizer)
        state = again.state_dict()
        assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def with_more_tokens(count: int) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<more_{i}>" for i in range(count)])
    return tokenizer


@pytest.mark.parametrize("kind", ["language model", "saved", "preset", "tokenizer's own folder", "bin"])
def test_a_tokenizer_with_tokens_that_have_no_embedding_is_refused(kind: str, tmp_path: Path) -> None:
    """The byte-level tokenizer uses 264 of 272 embeddings, so 9 more tokens are one too many."""
    for folder, count in (("fits", 8), ("beyond", 9)):
        with_more_tokens(count).save_pretrained(tmp_path / folder)
    tower = tower_folder(tmp_path / "tower")
    text = language_model_folder(tmp_path / "text", "qwen2")
    GriffonForConditionalGeneration(preset_config("tiny-qwen2")).save_pretrained(tmp_path / "saved")
    kinds: dict[str, dict[str, object]] = {
        "language model": {"model": str(text), "vision_tower": tower},
        "saved": {"model": str(tmp_path / "saved")},
        "preset": {"model": "tiny-qwen2"},
        "tokenizer's own folder": {"model": str(text), "vision_tower": tower},
        "bin": {"model": str(text), "vision_tower": tower, "boxes": "bin"},
    }
    more = kinds[kind]
    load_model(settings(**more, tokenizer=tmp_path / "fits"), torch.float32)
    given = settings(**more, tokenizer=tmp_path / "beyond")
    if kind == "tokenizer's own folder":
        with_more_tokens(9).save_pretrained(text)
        given = settings(**more)
    with pytest.raises(
        SettingsError, match=r"1 tokens beyond the 272 embeddings .* '<more_8>' \(272\): give the token"
    ):
        load_model(given, torch.float32)


def test_a_tokenizer_without_the_tokens_of_bin_boxes_is_refused_for_a_model_that_writes_them(tmp_path: Path) -> None:
    model, tokenizer = load_model(settings(boxes="bin"), torch.float32)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    given = {"model": str(tmp_path / "saved")}
    with pytest.raises(SettingsError, match=r"lacks 1,001 of their tokens, such as <bin_0>: give the tokenizer that"):
        load_model(settings(**given, tokenizer=tmp_path / "other"), torch.float32)
    with pytest.raises(SettingsError, match="--boxes text: the model writes bin boxes"):
        load_model(settings(**given, boxes="text"), torch.float32)


ROPE = {"rope_theta": 10000.0}
POSITIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "as the configuration says": ("llama2", {"max_position_embeddings": 96}, 96),
    "a sliding window": ("gemma2", {"max_position_embeddings": 96, "sliding_window": 16}, 96),
    "linear, of before scaling (Vicuna 16k)": (
        "llama2",
        {"max_position_embeddings": 96, "rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}},
        384,
    ),
    "dynamic": (
        "llama2",
        {"max_position_embeddings": 96, "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}},
        192,
    ),
    "YaRN, of before scaling (Qwen2.5)": (
        "qwen2",
        {
            "max_position_embeddings": 96,
            "rope_parameters": {
                **ROPE,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 96,
            },
        },
        384,
    ),
    "YaRN, of after scaling (DeepSeek)": (
        "llama2",
        {
            "max_position_embeddings": 384,
            "rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 96},
        },
        384,
    ),
    "Llama 3.1's": (
        "llama2",
        {
            "max_position_embeddings": 384,
            "rope_parameters": {
                **ROPE,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 96,
            },
        },
        384,
    ),
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_samples_longer_than_the_language_model_has_positions_are_refused(kind: str, tmp_path: Path) -> None:
    family, fields, positions = POSITIONS[kind]
    given = {
        "model": str(language_model_folder(tmp_path / "text", family, **fields)),
        "vision_tower": tower_folder(tmp_path / "tower"),
    }
    load_model(settings(**given, max_length=positions), torch.float32)
    message = f"--max-length {positions + 1} is more than .* {positions} positions; give --max-length {positions} "
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**given, max_length=positions + 1), torch.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two saved models, one of them with a region tower; the folder of a run that left one; a tower."""
    root = tmp_path_factory.mktemp("saved")
    for name, region in (("plain", False), ("region", True)):
        GriffonForConditionalGeneration(preset_config("tiny-llama2", region=region)).save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
    shutil.copytree(root / "region", root / "run/model")
    tower_folder(root / "tower", image_size=28)
    return root


OWN_PARTS: dict[str, tuple[dict[str, object], str]] = {
    "a preset's tower": (
        {"model": "tiny-llama2", "vision_tower": "tower"},
        "--vision-tower .*preset tiny-llama2 has its",
    ),
    "a preset's region": ({"model": "tiny-llama2", "region_tower": "tower"}, "--region-tower .*preset tiny-llama2 has"),
    "a saved tower": (
        {"model": "plain", "vision_tower": "tower"},
        "--vision-tower .*: --model .*plain has its own; lea",
    ),
    "a saved region": ({"model": "region", "region_tower": "tower"}, "--region-tower .*: --model .*region has its own"),
    "a saved projector": ({"model": "plain", "projector": "linear"}, "--projector linear: the model .* conv_reduce"),
    "a saved layer": ({"model": "plain", "select_layer": -3}, "--select-layer -3: the model was made with -2"),
    "a run's model": (
        {"from_run": "run", "model": "plain"},
        "--from .*run has a complete model already; leave out --model",
    ),
    "a run's preset": ({"from_run": "run", "model": "tiny-llama2"}, "has a complete model already; leave out --model"),
    "a run's tower": (
        {"from_run": "run", "vision_tower": "tower"},
        "has a complete model already; leave out --vision-tower",
    ),
    "a run's region": ({"from_run": "run", "region_tower": "tower"}, "--region-tower .*: --from .*run.* has its own"),
    "a run's projector": ({"from_run": "run", "projector": "mlp2x_gelu"}, "--projector mlp2x_gelu: the model was made"),
    "a run's layer": ({"from_run": "run", "select_layer": -1}, "--select-layer -1: the model was made with -2"),
}


def placed_in(root: Path, given: Mapping[str, object]) -> dict[str, Any]:
    """Names of folders as paths, text for `model`."""
    return {
        name: value
        if not isinstance(value, str) or not (root / value).exists()
        else str(root / value)
        if name == "model"
        else root / value
        for name, value in given.items()
    }


@pytest.mark.parametrize("kind", OWN_PARTS)
def test_a_part_that_the_model_has_already_is_not_given_a_second_time(kind: str, saved: Path) -> None:
    given, message = OWN_PARTS[kind]
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**placed_in(saved, given)), torch.float32)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("repeated", [{}, {"projector": "conv_reduce", "select_layer": -2}], ids=["recipe", "as it is"])
def test_settings_equal_to_the_recipe_or_model_are_accepted(
    stage: str, repeated: dict[str, object], saved: Path
) -> None:
    for given in ({"model": "region"}, {"from_run": "run"}):
        model, _ = load_model(settings(stage=stage, **placed_in(saved, given), **repeated), torch.float32)
        assert (model.config.projector, model.config.select_layer) == ("conv_reduce", -2)


def test_a_folder_with_the_name_of_a_preset_is_told_from_it(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise random weights would silently be trained instead of those in the folder."""
    shutil.copytree(saved / "plain", tmp_path / "tiny-llama2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"a preset with random weights and a folder here; give \./tiny-llama2"):
        load_model(settings(model="tiny-llama2"), torch.float32)
    load_model(settings(model="./tiny-llama2"), torch.float32)


def aligned(root: Path, dtype: torch.dtype = torch.float32, /, **given: object) -> GriffonForConditionalGeneration:
    """The result of an alignment, as training stores it, and the model that it ended with."""
    begun = placed(settings(stage="alignment", **given))
    model, _ = load_model(begun, dtype)
    with torch.no_grad():
        for weight in model.projector.parameters():
            weight.add_(1.0)
    checkpoint = checkpoint_of(root, 1)
    checkpoint.mkdir(parents=True)
    frozen = {name: parameter for name, parameter in model.named_parameters() if not name.startswith("projector.")}
    index = {"format": FORMAT, "step": 1, "files": []}
    index["frozen_sha256"] = {name: sha256_of_tensor(parameter) for name, parameter in frozen.items()}
    (checkpoint / "checkpoint.json").write_bytes(orjson.dumps({**index, "sha256": sha256_of_index(index)}))
    save_projector(model, root / "mm_projector.bin")
    (root / "settings.json").write_bytes(orjson.dumps(settings_as_json(begun)))
    return model


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_alignment_continues_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model is loaded again, from the paths that it was given, which were relative to where it was started."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    language_model_folder(Path("text"), "gemma2")
    tower_folder(Path("towers/whole"))
    tower_folder(Path("towers/region"), image_size=28)
    byte_tokenizer().save_pretrained("tokenizer")
    towers = {"vision_tower": Path("towers/whole"), "region_tower": Path("towers/region")}
    ended = aligned(tmp_path / "run", model="./text", tokenizer=Path("tokenizer"), projector="linear", **towers)
    monkeypatch.chdir(tmp_path / "there")
    model, _ = load_model(settings(stage="pretrain", from_run=Path("../run")), torch.float32)
    assert same(model, ended) and model.config.projector == "linear"


def test_an_alignment_whose_folders_have_moved_takes_the_new_paths(tmp_path: Path) -> None:
    language_model_folder(tmp_path / "text", "gemma2")
    tower_folder(tmp_path / "tower")
    towers = {"vision_tower": tmp_path / "tower"}
    ended = aligned(tmp_path / "run", model=str(tmp_path / "text"), **towers)
    (tmp_path / "text").rename(tmp_path / "text2")
    run = tmp_path / "run"
    with pytest.raises(SettingsError, match=r"run was started with --model .*text, which no longer .* with --model$"):
        load_model(settings(from_run=run), torch.float32)
    assert same(load_model(settings(from_run=run, model=str(tmp_path / "text2")), torch.float32)[0], ended)
    (tmp_path / "tower").rename(tmp_path / "tower2")
    now = {"from_run": run, "model": str(tmp_path / "text2")}
    with pytest.raises(SettingsError, match=r"run was started with --vision-tower .*tower, .* --vision-tower$"):
        load_model(settings(**now), torch.float32)
    now["vision_tower"] = tmp_path / "tower2"
    assert same(load_model(settings(**now), torch.float32)[0], ended)
    with pytest.raises(SettingsError, match="--projector linear: the model was made with conv_reduce"):
        load_model(settings(**now, projector="linear"), torch.float32)
    now["model"] = str(language_model_folder(tmp_path / "wide", "gemma2", hidden_size=48))
    shutil.rmtree(run / "checkpoints")  # which told that it is another
    with pytest.raises(DataError, match=r"--from .*mm_projector.bin: not the weights of a projector.*shape: "):
        load_model(settings(**now), torch.float32)


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("language model", lambda at: language_model_folder(at, "llama2")),
        ("language model", lambda at: language_model_folder(at, "gemma2", seed=7)),
        ("language model", lambda at: language_model_folder(at, "gemma2", hidden_size=48)),
        ("language model", lambda at: language_model_folder(at, "gemma2", vocab_size=300)),
        ("vision tower", lambda at: tower_folder(at, seed=7)),
        ("vision tower", lambda at: tower_folder(at, num_hidden_layers=4)),
    ],
    ids=["family", "weights", "width", "vocabulary", "tower's weights", "tower's depth"],
)
def test_parts_that_the_projector_was_not_aligned_with_are_refused(
    part: str, other: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Whether options name the other parts, or they have replaced the original ones in place."""
    folders = {"model": tmp_path / "text", "vision_tower": tmp_path / "tower"}
    language_model_folder(folders["model"], "gemma2")
    tower_folder(folders["vision_tower"])
    run = tmp_path / "run"
    aligned(run, model=str(folders["model"]), vision_tower=folders["vision_tower"])
    name = "model" if part == "language model" else "vision_tower"
    other(tmp_path / "other")
    option = f"--{name.replace('_', '-')}"
    reported = rf"^--from {run}: its projector was aligned with another {part}: .*; give .* with {option}, or"
    with pytest.raises(SettingsError, match=reported):
        load_model(settings(from_run=run, **{name: str(tmp_path / "other")}), torch.float32)
    shutil.rmtree(folders[name])
    (tmp_path / "other").rename(folders[name])
    with pytest.raises(SettingsError, match=reported):
        load_model(settings(from_run=run), torch.float32)
    assert unchecked_parts(settings(from_run=run)) is None
    shutil.rmtree(run / "checkpoints")
    assert "nobody checked that its projector" in str(unchecked_parts(settings(from_run=run)))


@pytest.mark.parametrize(("then", "now"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)])
def test_an_alignment_continues_in_another_dtype(then: torch.dtype, now: torch.dtype, tmp_path: Path) -> None:
    """The weights are those in the files of its parts, not those that the alignment had rounded."""
    given = {"model": str(language_model_folder(tmp_path / "text", "gemma2")), "vision_tower": tmp_path / "tower"}
    tower_folder(tmp_path / "tower")
    aligned(tmp_path / "run", then, **given)
    model, _ = load_model(settings(from_run=tmp_path / "run"), now)
    assert {weight.dtype for weight in model.parameters()} == {now}
    fresh, _ = load_model(settings(**given), now)
    assert same(model.language_model, fresh.language_model) and same(model.vision_tower, fresh.vision_tower)
    model.save_pretrained(tmp_path / "saved")
    stored = orjson.loads((tmp_path / "saved/config.json").read_bytes())
    assert {item["dtype"] for item in (stored, stored["text_config"], stored["vision_config"])} == {str(now)[6:]}


def test_a_saved_model_keeps_its_own_projector(saved: Path, tmp_path: Path) -> None:
    """An alignment's projector replaces it only if the alignment started from that model, wherever it is now."""
    text = language_model_folder(tmp_path / "text", "llama2")
    aligned(tmp_path / "run", model=str(text), vision_tower=tower_folder(tmp_path / "tower"))
    aligned(tmp_path / "preset", model="tiny-llama2")
    for run in (tmp_path / "run", tmp_path / "preset"):
        with pytest.raises(SettingsError, match=r"--from .* in the place of .* --model .*plain .*; leave out --from"):
            load_model(settings(from_run=run, model=str(saved / "plain")), torch.float32)
    shutil.copytree(saved / "plain", tmp_path / "plain")
    ended = aligned(tmp_path / "again", model=str(tmp_path / "plain"))
    (tmp_path / "plain").rename(tmp_path / "moved")
    given = {"from_run": tmp_path / "again", "model": str(tmp_path / "moved")}
    assert same(load_model(settings(**given), torch.float32)[0], ended)


def test_a_preset_beside_an_earlier_run_is_refused(tmp_path: Path, train_cli: Run) -> None:
    run = tmp_path / "run"
    aligned(run, model="tiny-llama2")
    message = f"--model tiny-llama2: --from {run} already decides the model; leave out --model, or "
    with pytest.raises(SettingsError, match=f"^{message}"):
        load_model(settings(from_run=run, model="tiny-llama2"), torch.float32)
    said = train_cli("memory", "--stage", "custom", "--from", run, "--model", "tiny-llama2")
    assert said.returncode == 2 and message in said.stderr


def test_a_second_alignment_continues_from_the_first(tmp_path: Path) -> None:
    language_model_folder(tmp_path / "text", "gemma2")
    aligned(tmp_path / "first", model=str(tmp_path / "text"), vision_tower=tower_folder(tmp_path / "tower"))
    ended = aligned(tmp_path / "second", from_run=tmp_path / "first")
    (tmp_path / "text").rename(tmp_path / "text2")
    given = {"from_run": tmp_path / "second", "model": str(tmp_path / "text2")}
    assert same(load_model(settings(**given), torch.float32)[0], ended)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "settings.json").unlink(), "settings.json: no such file"),
        (lambda run: (run / "settings.json").write_bytes(b"{"), "settings.json: not valid JSON"),
        (lambda run: (run / "settings.json").write_bytes(b'{"stage": 1}'), "stored settings: "),
        (
            lambda run: (run / "mm_projector.bin").write_bytes(b"PK"),
            "mm_projector.bin: contains more than tensors, or is d",
        ),
        (
            lambda run: (run / "mm_projector.bin").unlink(),
            "holds neither model/, adapter/ nor mm_projector.bin; the run has not ended, or",
        ),
    ],
)
def test_a_damaged_run_is_named(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    aligned(tmp_path / "run", model="tiny-llama2")
    load_model(settings(from_run=tmp_path / "run"), torch.float32)
    damage(tmp_path / "run")
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        load_model(settings(from_run=tmp_path / "run"), torch.float32)
    assert str(caught.value).startswith(f"--from {tmp_path / 'run'}") and "\n" not in str(caught.value)
