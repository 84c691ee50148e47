"""Adapters whose base model is another one or has moved, and those whose files are damaged."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
import torch

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.training.merging import merge_adapter
from griffon_train.training.model_loading import load_model

from ..conftest import Run
from ..model.test_lora import logits
from .given_folders import settings
from .test_lora import read

pytestmark = pytest.mark.xdist_group("adapted")  # one process makes the fixtures, which take long


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
    there, _ = load_model(settings(from_run=adapted), torch.float32)
    assert torch.allclose(logits(read(tmp_path / "merged")), logits(there), rtol=0, atol=1e-5)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()  # the adapter has it
    with pytest.raises(SettingsError, match="a saved model; expected the output folder of a run or an adapter"):
        merge_adapter(base, tmp_path / "again")


@pytest.mark.parametrize("name", ["griffon_base.json", "adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter_is_refused_by_name(name: str, adapted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{copy / name}: "):
        merge_adapter(copy, tmp_path / "merged")


@pytest.mark.parametrize(
    "field",
    [
        *({"r": 0}, {"r": "4"}, {"lora_alpha": None}, {"lora_alpha": 9}),
        *({"target_modules": "q_proj"}, {"target_modules": []}),
        *({"modules_to_save": "projector"}, {"modules_to_save": ["head"]}),
    ],
    ids=str,
)
def test_a_configuration_that_the_run_did_not_write_is_refused(
    field: Mapping[str, object], adapted: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    fields = orjson.loads((copy / "adapter_config.json").read_bytes())
    (copy / "adapter_config.json").write_bytes(orjson.dumps({**fields, **field}))
    with pytest.raises(DataError, match=f"adapter_config.json: damaged: {next(iter(field))} is .* restore the folder"):
        merge_adapter(copy, tmp_path / "merged")


def test_other_tensors_than_the_configuration_names_are_refused(adapted: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    fields = orjson.loads((copy / "adapter_config.json").read_bytes())
    (copy / "adapter_config.json").write_bytes(orjson.dumps({**fields, "target_modules": fields["target_modules"][1:]}))
    with pytest.raises(DataError, match=r"adapter_model.safetensors: not the weights .* not expected: .*lora_A.weight"):
        merge_adapter(copy, tmp_path / "merged")


def test_a_base_model_that_has_moved_is_asked_for(adapted: Path, base: Path, tmp_path: Path, train_cli: Run) -> None:
    copy = shutil.copytree(adapted / "adapter", tmp_path / "copy")
    stored = orjson.loads((copy / "griffon_base.json").read_bytes())
    stored["settings"]["model"] = str(tmp_path / "gone")
    (copy / "griffon_base.json").write_bytes(orjson.dumps(stored))
    for command in (
        ("memory", "--stage", "custom", "--from", copy),
        ("convert", "merge", copy, tmp_path / "merged"),
    ):
        said = train_cli(*command)
        assert said.returncode == 2
        message = f"{copy}: its base model cannot be loaded: --model {tmp_path / 'gone'}: no such folder; "
        assert message in said.stderr and "if it has moved, give its folder as --model" in said.stderr
        assert train_cli(*command, "--model", base).returncode == 0
