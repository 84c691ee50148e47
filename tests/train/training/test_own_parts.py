"""Weights in parts: what several ranks load and write under ZeRO-3 is what one process loads and writes whole."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import torch
from safetensors.torch import load_file

from griffon_train.config.resolve import resolve
from griffon_train.config.settings import settings_from_json
from griffon_train.distributed.process_group import distributed_session
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.model.weight_files import is_mapped
from griffon_train.training import export
from griffon_train.training.checkpoints import sha256_of_tensor
from griffon_train.training.model_loading import load_model, map_model

from ..model_folders import language_model_folder, tower_folder
from .conftest import Options, checkpoint_of, command
from .launcher import Launcher

ONE_STEP = ("--steps", 1, "--global-batch", 3, "--micro-batch", 1, "--max-length", 512, "--workers", 0)
LEARNS_NOTHING = ("--lr", 1e-60, "--weight-decay", 0)
"""Too little for any weight: the result of the run is the model that it began with."""


@pytest.mark.parametrize(("source", "world_size"), [("preset", 3), ("parts", 2)])
def test_a_model_in_parts_is_the_whole_model(
    source: str,
    world_size: int,
    launcher: Launcher,
    frozen_set: Path,
    zero: Mapping[int, Options],
    tmp_path: Path,
) -> None:
    given: tuple[object, ...] = ("--model", "tiny-gemma2")
    if source == "parts":
        text = language_model_folder(tmp_path / "text", "gemma2")
        tower, region = tower_folder(tmp_path / "tower"), tower_folder(tmp_path / "region", image_size=28)
        given = ("--model", text, "--vision-tower", tower, "--region-tower", region)
    run = tmp_path / "run"
    options = (*given, *ONE_STEP, *LEARNS_NOTHING, "--freeze-vision-tower", "--dtype", "bfloat16", *zero[3])
    ended = launcher.run(*command(frozen_set, run, *options), world_size=world_size)
    assert ended.codes == [0] * world_size, ended.said
    model, _ = load_model(settings_from_json(orjson.loads((run / "settings.json").read_bytes())), torch.bfloat16)
    whole = dict(model.named_parameters())
    result = load_file(run / "model/model.safetensors")
    assert result.keys() == whole.keys()
    for name, tensor in result.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, whole[name]), name
    frozen = orjson.loads((checkpoint_of(run, 1) / "checkpoint.json").read_bytes())["frozen_sha256"]
    assert {name.partition(".")[0] for name in frozen} == {"vision_tower", "region_tower"}
    assert frozen == {name: sha256_of_tensor(whole[name]) for name in frozen}


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_stays_mapped(stored: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    """Ranks share its pages until each converts its part; converted, it is what transformers loads in that type."""
    folder = tmp_path / "model"
    torch.manual_seed(0)
    saved = GriffonForConditionalGeneration(preset_config("tiny-gemma2"))
    saved.to(dtype=stored)  # type: ignore[call-arg]
    saved.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    settings = resolve(
        {"stage": "custom", "shards": (Path("set"),), "output_dir": Path("run"), "model": str(folder)}
    ).settings
    model, _ = map_model(settings, dtype)
    for name, parameter in model.named_parameters():
        assert is_mapped(parameter) and parameter.dtype == stored, name
    expected = GriffonForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.to(dtype), expected.get_parameter(name)), name
    for name, buffer in expected.named_buffers():
        ours = model.get_buffer(name)
        assert ours.dtype == buffer.dtype and torch.equal(ours, buffer), name
    assert model.config.to_dict()["dtype"] == expected.config.to_dict()["dtype"]


def test_a_model_in_several_files_is_as_transformers_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written one tensor after the other, byte for byte: names, order, index and configuration."""
    model = GriffonForConditionalGeneration(preset_config("tiny-gemma2"))
    monkeypatch.setattr(export, "SHARD_SIZE", "100KB")
    with distributed_session("cpu", 600) as ranks:
        engine = SimpleNamespace(module=model)
        export.export(tmp_path / "ours", engine, byte_tokenizer(), ranks, chat="gemma_instruct", projector_alone=False)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    names = {path.name for path in (tmp_path / "theirs").iterdir()} - {"generation_config.json"}
    assert len(names) > 4
    for name in names:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_an_alignment_of_a_preset_continues_on_several_ranks(
    launcher: Launcher, frozen_set: Path, zero: Mapping[int, Options], tmp_path: Path
) -> None:
    """Only rank 0 has drawn the weights that must be those of the alignment; what it refuses, every rank does."""
    projector = ("--freeze-llm", "--freeze-vision-tower")
    aligned = launcher.run(*command(frozen_set, tmp_path / "aligned", *ONE_STEP, *projector, *zero[2]))
    assert aligned.codes == [0, 0], aligned.said
    options = ("--stage", "custom", "--shards", frozen_set, *ONE_STEP, "--from", tmp_path / "aligned", *zero[3])
    ended = launcher.run("run", *options, "--output-dir", tmp_path / "next")
    assert ended.codes == [0, 0], ended.said
    parts = (
        "--model",
        language_model_folder(tmp_path / "text", "gemma2"),
        "--vision-tower",
        tower_folder(tmp_path / "tower"),
    )
    other = launcher.run("run", *options, "--output-dir", tmp_path / "other", *parts)
    assert other.codes == [2, 2], other.said
    assert all("aligned with another language model" in said for said in other.said), other.said
