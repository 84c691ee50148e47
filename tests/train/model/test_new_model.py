"""New models: what their tokenizers know, that their weights follow from the seed, and what is refused."""

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForImageTextToText, AutoProcessor

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.cli.main import main
from griffon_train.model.new_model import new_model
from griffon_train.model.presets import FAMILIES, SmallSize, family_chat, preset_config
from griffon_train.text.chat_templates import encode
from griffon_train.text.tokenizer import load_tokenizer

from ..conftest import Run

SMALL = SmallSize(width=16, layers=1, heads=2, vision_width=16, vision_layers=1, vision_heads=2, image_px=28)


def made(out: Path, **changes: Any) -> Path:  # noqa: ANN401
    given: dict[str, Any] = {
        "family": "qwen2",
        "size": SMALL,
        "projector": "mlp2x_gelu",
        "select_layer": -1,
        "tokenizer": "bytes",
        "vocabulary": 600,
        "seed": 0,
    }
    new_model(out, **(given | changes))
    return out


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(family: str, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each family with a tokenizer trained on the sample data."""
    return made(tmp_path_factory.mktemp(family) / "model", family=family, tokenizer=str(frozen_set))


def test_a_trained_tokenizer_gives_back_every_text_of_the_set(family: str, folder: Path, frozen_set: Path) -> None:
    tokenizer, frozen = load_tokenizer(folder), open_set(frozen_set)
    texts = [turn.text for row in range(len(frozen)) for turn in frozen[row].turns]
    tokens = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert [tokenizer.decode(ids) for ids in tokens] == texts
    assert sum(map(len, tokens)) < sum(len(text.encode()) for text in texts) / 2, "no words were learned"
    for text in ("Ünseen 漢字 \t\0", "👩‍👩‍👧"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_a_trained_tokenizer_keeps_digits_apart(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokens = [tokenizer.decode([token]) for token in tokenizer("at [0.123,1.000] 77").input_ids]
    assert [token for token in tokens if any(map(str.isdigit, token))] == list("0123100077")
    assert not any(any(map(str.isdigit, token)) and len(token) > 1 for token in tokenizer.get_vocab())


def test_a_conversation_is_written_with_the_control_tokens_of_its_template(family: str, folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat == family_chat(family)
    text = "a <end_of_turn> </s> <|im_end|>"
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}]
    ids = processor.apply_chat_template(messages, tokenize=True)[0]
    end = {"gemma2": "<end_of_turn>", "llama2": "</s>", "qwen2": "<|im_end|>"}[family]
    ends = {"gemma2": 2, "llama2": 1, "qwen2": 3}[family]  # qwen2's system prompt has one, llama2's question none
    assert ids.count(processor.tokenizer.convert_tokens_to_ids(end)) == ends
    assert text in processor.tokenizer.decode(ids) and "yes" in processor.tokenizer.decode(ids)


def test_a_saved_model_generates(folder: Path) -> None:
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image", "image": torch.zeros(3, 9, 9)}, {"type": "text", "text": "Where?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    assert model.generate(**inputs, max_new_tokens=3).shape[-1] <= 3


def test_weights_and_tokens_follow_from_the_seed(frozen_set: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        made(tmp_path / name, tokenizer=str(frozen_set), seed=seed)
    one, again, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "again", "other")
    )
    assert one == again
    assert [name for name in one if one[name] != other[name]] == ["model.safetensors"]


def test_a_new_tower_is_told_where_each_patch_is(tmp_path: Path) -> None:
    """In sight beside what the patches show, and the nearer two patches are, the more alike."""
    model: Any = AutoModelForImageTextToText.from_pretrained(made(tmp_path / "model", size=SmallSize(layers=1)))
    positions_NC = model.vision_tower.embeddings.position_embedding.weight[1:].detach()
    patches_NC = model.vision_tower.embeddings.patch_embedding(torch.randn(1, 3, 98, 98))[0].flatten(1).T
    assert 0.3 < positions_NC.std() / patches_NC.std() < 3
    grid_7x7 = (positions_NC[24] - positions_NC).norm(dim=-1).view(7, 7)
    for line in (grid_7x7[3], grid_7x7[:, 3]):
        assert line[3] == 0 and (line[3:].diff() > 0).all() and (line[:4].diff() < 0).all()


def test_a_set_of_bin_boxes_makes_a_model_of_bin_boxes(plain_sets: Mapping[str, Path], tmp_path: Path) -> None:
    out = made(tmp_path / "model", tokenizer=str(plain_sets["bin"]))
    tokenizer = load_tokenizer(out)
    assert len(tokenizer("<bin_7><bin_1000>", add_special_tokens=False).input_ids) == 2
    model: Any = AutoModelForImageTextToText.from_pretrained(out)
    assert model.config.box_style == "bin"
    rows = model.get_input_embeddings().weight[-1001:]
    assert len(rows.unique(dim=0)) == 1001, "tokens that begin equal would be learned as one"


def test_the_tokenizer_of_a_folder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    out = made(tmp_path / "model", tokenizer=str(folder))
    assert load_tokenizer(out).get_vocab() == load_tokenizer(folder).get_vocab()
    prompt = encode("qwen2", [], load_tokenizer(out))
    assert prompt.ids == encode("qwen2", [], load_tokenizer(folder)).ids


@pytest.mark.parametrize("name", FAMILIES)
def test_small_presets_have_the_default_size(name: str) -> None:
    config: Any = preset_config(f"small-{name}")
    assert config.vision_config.image_size == SmallSize().image_px
    assert config.get_text_config().num_hidden_layers == SmallSize().layers
    assert config.projector == "mlp2x_gelu"


REFUSED = {
    "width": (["--width", "100", "--heads", "8"], "--width 100: expected a multiple of 16"),
    "vision width": (["--vision-width", "30"], "--vision-width 30: expected a multiple of 8"),
    "image": (["--image-size", "100"], "--image-size 100: expected a multiple of the 14 px of --patch-size"),
    "layer": (["--select-layer", "-5"], "--select-layer -5: expected -4 to 3"),
    "tokenizer": (["--tokenizer", "nowhere"], "--tokenizer nowhere: no such folder"),
    "vocabulary": (["--tokenizer", "SET", "--vocabulary", "9"], "--vocabulary 9: expected 264 or more"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_model_is_refused(
    options: list[str], message: str, train_cli: Run, frozen_set: Path, tmp_path: Path
) -> None:
    given = [str(frozen_set) if option == "SET" else option for option in options]
    said = train_cli("new-model", tmp_path / "out", "--like", "qwen2", *given)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith(f"error: {message}") and len(said.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_seed_that_is_no_64_bit_number_is_refused(tmp_path: Path) -> None:
    given = ["new-model", str(tmp_path / "out"), "--like", "qwen2", "--seed", str(2**63)]
    assert CliRunner().invoke(main, given).exit_code == 2


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty"):
        made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("room", [0, 10_000])
def test_a_full_disk_is_an_error_in_one_line(room: int, tmp_path: Path) -> None:
    """Whether the configuration or the weights fill the disk, nothing is left."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    try:
        with pytest.raises(DataError, match="model cannot be written: "):
            made(tmp_path / "model", vocabulary=300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/model cannot be written: File exists"):
        made(tmp_path / "file" / "model")
