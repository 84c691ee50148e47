"""Folders of models and towers that are damaged or do not match their configuration: the message names the fault."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.training.model_loading import load_model

from .given_folders import OPTIONS, complete_folders, cut, edited, given_with
from .launcher import Launcher


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_folders(tmp_path_factory.mktemp("whole"))


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def pickled(content: object, size: int | None = None) -> Callable[[Path], None]:
    """Replace safetensors by a pickle; `size` truncates it."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin")
        if size is not None:
            os.truncate(folder / "pytorch_model.bin", size)

    return write


def index_of_nothing(folder: Path) -> None:
    """An index that names a file which is not there."""
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_bytes(orjson.dumps(index))


def damaged_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(b'{"weight_map": {')


def renamed(folder: Path) -> None:
    """The last tensor under another name."""
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[f"{name}.old"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def reshaped(folder: Path) -> None:
    """The last tensor a row longer."""
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def quantized(folder: Path) -> None:
    """Store the weights as integers, as tools for quantization do; other tensors stay."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensors[name] = (tensor * 127).to(torch.int8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


DAMAGES: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "weights cut short": (cut("model.safetensors"), DataError, "model.safetensors: damaged: .*; download it again"),
    "weights of no bytes": (
        written("model.safetensors", b""),
        DataError,
        "model.safetensors: damaged: .*; download it",
    ),
    "a pointer of Git LFS": (
        written("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        DataError,
        "a Git LFS pointer, not the weights; run `git lfs pull`",
    ),
    "no weights": (without("model.safetensors"), SettingsError, "no weights; expected model.safetensors or pytorch"),
    "an index of files that are not there": (
        index_of_nothing,
        DataError,
        "00002.safetensors: no such file; the weights",
    ),
    "an index cut short": (damaged_index, DataError, "model.safetensors.index.json: not valid JSON"),
    "a pickle of no bytes": (
        pickled(None, size=0),
        DataError,
        "pytorch_model.bin: damaged: it is truncated; download it again",
    ),
    "a pickle cut short": (pickled({"a": torch.zeros(999)}, size=999), DataError, "pytorch_model.bin: .*damaged"),
    "a pickle of code": (
        pickled({"a": print}),
        DataError,
        "pytorch_model.bin: contains more than tensors.*no code in it was",
    ),
    "a pickle of other tensors": (pickled({"a": torch.zeros(2)}), DataError, r"missing: .*not expected: a"),
    "another name": (renamed, DataError, r"missing: \S+; not expected: \S+\.old"),
    "another shape": (reshaped, DataError, r"shape: \S+ \[\d+.*\], expected \["),
    "whole numbers": (quantized, DataError, r"quantized weights \(int8\), which .*proj.weight.*; get them in"),
    "a configuration cut short": (cut("config.json"), DataError, "config.json: not valid JSON: .*"),
    "a configuration of no bytes": (written("config.json", b""), DataError, "config.json: not valid JSON"),
    "a list as configuration": (written("config.json", b"[1]"), DataError, "config.json: expected a JSON object"),
    "no model_type": (edited(model_type=None), SettingsError, "model_type|a model of type None"),
    "model_type of another kind": (edited(model_type=7), SettingsError, "model_type|a model of type 7"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("option", OPTIONS)
def test_damage_is_reported_in_a_line_with_option_and_folder(
    option: str, damage: str, whole: Path, tmp_path: Path
) -> None:
    name, config = OPTIONS[option]
    given = tmp_path / "given"
    shutil.copytree(whole / name, given)
    do, kind, message = DAMAGES[damage]
    do((given / config).parent)
    with pytest.raises(kind, match=message) as caught:
        load_model(given_with(option, given, whole), torch.float32)
    text = str(caught.value)
    assert text.startswith(f"{option.strip()} ") and str(given) in text and "\n" not in text


@pytest.mark.parametrize(
    ("option", "fields", "message"),
    [
        ("--model", {"hidden_size": 64}, r"shape: .*embed_tokens.weight \[272, 32\], expected \[272, 64\]"),
        ("--model", {"num_hidden_layers": 3}, r"missing: model\.layers\.2\."),
        ("--model", {"num_hidden_layers": 1}, r"not expected: model\.layers\.1\."),
        ("--model", {"hidden_size": "wide"}, "transformers cannot load it"),
        ("--model", {"num_attention_heads": 0}, "transformers cannot load it"),
        ("--model", {"hidden_act": "magic"}, "transformers cannot load it .*magic"),
        ("--model", {"model_type": "llama9"}, "model_type 'llama9' in its config.json is unknown to transformers 5"),
        ("--vision-tower", {"hidden_size": 64}, r"shape: .*expected \[64"),
        ("--vision-tower", {"num_hidden_layers": 4}, r"missing: encoder\.layers\.3\."),
        ("--vision-tower", {"hidden_size": "wide"}, "transformers cannot load it .*hidden_size"),
        ("--vision-tower", {"hidden_act": "magic"}, "transformers cannot load it .*magic"),
        ("--vision-tower", {"num_attention_heads": 3}, "transformers cannot load it .*multiple"),
        ("--vision-tower", {"image_size": 75}, "image size 75 px is not a multiple of patch size 14 px"),
        ("--region-tower", {"image_size": 75}, "image size 75 px is not a multiple of patch size 14 px"),
        ("--vision-tower", {"patch_size": 0}, "not a multiple of patch size 0 px"),
        ("--vision-tower", {"image_size": [70, 84]}, "expected one for square images with 3 channels"),
        (
            "--vision-tower",
            {"num_channels": 1},
            "1 channels, patches of 14 px; expected one for square images with 3 channels",
        ),
        ("--model ", {"projector": "mlp2x_gelu"}, r"missing: projector\..*not expected: projector\.conv"),
        ("--model ", {"projector": "magic"}, "transformers cannot load it .*magic"),
        ("--model ", {"text_config": {"model_type": "llama9"}}, "transformers cannot load it"),
    ],
)
def test_a_configuration_that_is_not_of_the_weights_is_refused(
    option: str, fields: dict[str, object], message: str, whole: Path, tmp_path: Path
) -> None:
    """With one more layer, or weights under other names, transformers would silently use random weights."""
    given = tmp_path / "given"
    shutil.copytree(whole / OPTIONS[option][0], given)
    edited(**fields)(given)
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        load_model(given_with(option, given, whole), torch.float32)
    assert str(caught.value).startswith(f"{option.strip()} {given}") and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b'{"temperature": 0.7'])
@pytest.mark.parametrize("option", ["--model", "--model ", "--from"])
def test_a_damaged_generation_config_is_named(option: str, content: bytes, whole: Path, tmp_path: Path) -> None:
    """Otherwise its settings would be lost silently."""
    name, config = OPTIONS[option]
    shutil.copytree(whole / name, tmp_path / "given")
    (tmp_path / "given" / config).with_name("generation_config.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{option.strip()} .*generation_config.json: (not valid|expected a) JSON"):
        load_model(given_with(option, tmp_path / "given", whole), torch.float32)


def test_a_head_that_differs_where_the_configuration_ties_it_is_refused(whole: Path, tmp_path: Path) -> None:
    """Saved again, one of the two would be lost."""
    shutil.copytree(whole / "language", tmp_path / "given")
    edited(tie_word_embeddings=True)(tmp_path / "given")
    with pytest.raises(DataError, match=r"head and of its embeddings differ, but its config\.json ties them; set"):
        load_model(given_with("--model", tmp_path / "given", whole), torch.float32)


def test_the_command_ends_with_one_line_and_the_exit_code_of_the_error(
    launcher: Launcher, frozen_set: Path, whole: Path, tmp_path: Path
) -> None:
    """2 for what is given, 1 for damaged data; the folder of the run is not made."""
    shutil.copytree(whole / "saved", tmp_path / "damaged")
    cut("model.safetensors")(tmp_path / "damaged")
    run = tmp_path / "run"
    for model, status, message in (
        ("google/gemma-2-2b", 2, "error: --model google/gemma-2-2b: no such folder. If it is a rep"),
        (tmp_path / "damaged", 1, f"error: --model {tmp_path / 'damaged' / 'model.safetensors'}: damaged: "),
    ):
        ended = launcher.run(
            *("run", "--stage", "custom", "--model", model, "--shards", frozen_set, "--output-dir", run), world_size=1
        )
        assert ended.codes == [status]
        assert [line for line in ended.said[0].splitlines() if line.startswith("error: ")] == [
            ended.said[0].splitlines()[-1]
        ]
        assert ended.said[0].splitlines()[-1].startswith(message) and "Traceback" not in ended.said[0]
        assert not run.exists()
