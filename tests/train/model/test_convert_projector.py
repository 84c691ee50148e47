"""`mm_projector.bin`: the projector alone, as the reference writes and reads it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.model.convert import load_projector, save_projector
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config

from .released import State, assert_same

NAMES = {
    "conv_reduce": ["conv.bias", "conv.weight", "linear.bias", "linear.weight"],
    "linear": ["bias", "weight"],
    "mlp2x_gelu": ["0.bias", "0.weight", "2.bias", "2.weight"],
}


def made(projector: str, seed: int) -> Any:  # noqa: ANN401 - transformers is typed in part
    torch.manual_seed(seed)
    config = preset_config("tiny-llama2")
    config.projector = projector
    return GriffonForConditionalGeneration(config)


def in_one_buffer(state: State) -> State:
    """Make the tensors views of one large tensor, as a training engine keeps them."""
    pieces = torch.cat([tensor.flatten() for tensor in state.values()]).split(
        [value.numel() for value in state.values()]
    )
    return {name: piece.view(state[name].shape) for name, piece in zip(state, pieces, strict=True)}


@pytest.mark.parametrize("projector", NAMES)
@pytest.mark.parametrize("form", ["model", "state"])
def test_a_projector_is_saved_under_the_names_of_the_reference(tmp_path: Path, projector: str, form: str) -> None:
    model = made(projector, 0)
    path = tmp_path / "mm_projector.bin"
    save_projector(model if form == "model" else in_one_buffer(model.state_dict()), path)
    state = torch.load(path, weights_only=True)
    assert sorted(state) == [f"model.mm_projector.{name}" for name in NAMES[projector]]
    assert path.stat().st_size < 2 * sum(tensor.nbytes for tensor in state.values()) + 4000  # of nothing else
    other = made(projector, 1).to(torch.float64)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items() if "projector" not in name[:9]}
    load_projector(other, path)
    assert_same(other.projector.state_dict(), {n: t.double() for n, t in model.projector.state_dict().items()})
    assert_same({name: other.state_dict()[name] for name in before}, before)


@pytest.mark.parametrize("prefix", ["model.mm_projector.", "mm_projector.", "base_model.model.model.mm_projector."])
def test_projectors_of_the_reference_and_llava_load(tmp_path: Path, prefix: str) -> None:
    model = made("mlp2x_gelu", 0)
    wanted = {name: torch.randn(tensor.shape) for name, tensor in model.projector.state_dict().items()}
    state = {prefix + name: tensor for name, tensor in wanted.items()} | {"model.embed_tokens.weight": torch.ones(2)}
    torch.save(state, tmp_path / "mm_projector.bin")
    load_projector(model, tmp_path / "mm_projector.bin")
    assert_same(model.projector.state_dict(), wanted)


@pytest.mark.parametrize("projector", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_another_projector_is_refused_and_identified(tmp_path: Path, projector: str, other: str) -> None:
    save_projector(made(other, 0), tmp_path / "other.bin")
    if projector == other:
        load_projector(made(projector, 1), tmp_path / "other.bin")
        return
    missing, unexpected = (re.escape(", ".join(NAMES[name])) for name in (projector, other))
    message = f"projector '{projector}', but of '{other}'; missing: {missing}; not expected: {unexpected}"
    with pytest.raises(DataError, match=message):
        load_projector(made(projector, 0), tmp_path / "other.bin")


def test_what_is_not_a_projector_is_refused(tmp_path: Path) -> None:
    torch.save({"mm_projector.weight": torch.ones(3, 2), "mm_projector.bias": torch.ones(3)}, tmp_path / "narrow.bin")
    with pytest.raises(DataError, match=r"weight \[3, 2\], expected \["):
        load_projector(made("linear", 0), tmp_path / "narrow.bin")
    torch.save({"mm_projector.weight": torch.ones(0), "mm_projector.bias": torch.ones(0)}, tmp_path / "empty.bin")
    with pytest.raises(DataError, match=r"weight \[0\], expected \[.*; ZeRO-3 leaves empty tensors"):
        load_projector(made("linear", 0), tmp_path / "empty.bin")
    with pytest.raises(SettingsError, match=r"none\.bin: no such file; give an mm_projector\.bin"):
        load_projector(made("linear", 0), tmp_path / "none.bin")
    with pytest.raises(SettingsError, match=r": a folder; give an mm_projector\.bin"):
        load_projector(made("linear", 0), tmp_path)
