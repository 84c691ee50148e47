"""Parts and settings of a model that it has already: given a second time they are refused, unless they are equal."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from griffon_shards.support.errors import SettingsError
from griffon_train.config.settings import STAGES
from griffon_train.training.model_loading import load_model

from ..model_folders import tower_folder
from .given_folders import griffon_folder, settings


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two saved models, one of them with a region tower; the folder of a run that left one; a tower."""
    root = tmp_path_factory.mktemp("saved")
    for name, region in (("plain", False), ("region", True)):
        griffon_folder(root / name, region=region)
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
