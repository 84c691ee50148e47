"""Inputs that `griffon-train convert` refuses: it reports the fault and the remedy, and writes nothing."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ..conftest import Run
from .released import FAMILIES, Released

GEMMA, QWEN, LLAMA = FAMILIES
TOWER = "model.vision_tower.vision_tower.vision_model."
Change = Callable[[Released], object]


def settings(**fields: object) -> Change:
    return lambda released: released.config.update(fields)


def without(part: str) -> Change:
    return lambda released: [released.state.pop(name) for name in list(released.state) if part in name]


def having(**tensors: torch.Tensor) -> Change:
    return lambda released: released.state.update({name.replace("__", "."): value for name, value in tensors.items()})


REFUSED: dict[str, tuple[Change, list[str], int, str]] = {
    "no tower here": (settings(), ["--region-tower"], 2, r"its vision tower 'checkpoints/clip.*--vision-tower"),
    "no region tower": (settings(), ["--vision-tower"], 2, r"has a region tower.*give --region-tower DIR"),
    "region tower for none": (settings(unshared_visual_encoder=False), [], 2, r"have no region tower"),
    "type": (settings(model_type="llava"), [], 2, r"'llava': expected one of gemma2_Griffon, qwen2_Griffon, llama2"),
    "projector": (settings(mm_projector_type="resampler"), [], 2, r"'resampler': expected one of conv_reduce, linear"),
    "other projector": (settings(mm_projector_type="linear"), [], 1, r"missing: model\.mm_projector\.bias, mod"),
    "feature": (settings(mm_vision_select_feature="cls_patch"), [], 2, r"'cls_patch': expected 'patch'"),
    "vocabulary": (settings(vocab_size=71), [], 1, r"embed_tokens\.weight \[70, 24\], expected \[71, 24\]"),
    "a layer less": (
        settings(num_hidden_layers=1),
        [],
        1,
        r"expected: (model\.layers\.1\.\S+, ){9}.* and \d+ more",
    ),
    "no projector": (without("mm_projector"), [], 1, r"missing: model\.mm_projector\.conv\.bias, .*linear\.weight$"),
    "half a tower": (
        without(f"{TOWER}encoder.layers.1."),
        [],
        1,
        r"missing: (model\.vision_tower\.\S+, ){9}.* and 6 more",
    ),
    "another head": (having(num_head__bias=torch.zeros(2)), [], 1, r"not expected: num_head\.bias$"),
    "untied": (having(lm_head__weight=torch.zeros(70, 24)), [], 1, r"lm_head\.weight differs from model\.embed_tok"),
}


@pytest.mark.parametrize(("change", "only", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_weights_that_do_not_fit_are_refused(
    train_cli: Run, tmp_path: Path, change: Change, only: list[str], code: int, message: str
) -> None:
    released = Released(GEMMA, "conv_reduce", regions=True)
    towers = released.save_towers(tmp_path)
    change(released)
    source = released.save(tmp_path / "released")
    options = [item for at in range(0, 4, 2) if not only or towers[at] in only for item in towers[at : at + 2]]
    before = set(tmp_path.iterdir())
    result = train_cli("convert", "griffon", "-q", source, tmp_path / "ours", *options)
    assert result.returncode == code, result.stderr
    assert re.search(message, result.stderr, re.MULTILINE), result.stderr
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())
    assert set(tmp_path.iterdir()) == before


def test_missing_and_unexpected_tensors_are_listed_on_export(train_cli: Run, tmp_path: Path) -> None:
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    assert train_cli("convert", "griffon", source, tmp_path / "ours", *towers).returncode == 0
    state = load_file(tmp_path / "ours" / "model.safetensors")
    state["projector.scale"] = state.pop("projector.bias")
    save_file(state, tmp_path / "ours" / "model.safetensors")
    result = train_cli("convert", "export", tmp_path / "ours", tmp_path / "back")
    assert result.returncode == 1
    assert "missing: projector.bias" in result.stderr
    assert "not expected: projector.scale" in result.stderr
    assert not (tmp_path / "back").exists()


class Evil:
    """Calls something when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_damaged_and_evil_files_are_named_and_never_called(train_cli: Run, tmp_path: Path) -> None:
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    mark, evil = tmp_path / "mark", tmp_path / "evil.bin"
    whole = (source / "model.safetensors").read_bytes()
    torch.save({"a": Evil(mark)}, evil)
    files = [
        ("model.safetensors", whole[: len(whole) // 2], r"model\.safetensors: damaged"),
        ("pytorch_model.bin", evil.read_bytes(), r"pytorch_model\.bin: contains more than tensors"),
        ("pytorch_model.bin", pickle.dumps(Evil(mark), protocol=2), r"contains more than tensors"),
        ("pytorch_model.bin", evil.read_bytes()[:300], r"pytorch_model\.bin: .*damaged"),
        ("pytorch_model.bin", pickle.dumps([1, 2], protocol=2), r"pytorch_model\.bin: "),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "../model.safetensors"}}',
            r"not an index of",
        ),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "model-1.safetensors"}}', r"model-1\S+ no such file"),
        ("model.safetensors.index.json", b"nothing", r"index\.json: not valid JSON"),
    ]
    (source / "model.safetensors").unlink()
    for name, content, message in files:
        (source / name).write_bytes(content)
        result = train_cli("convert", "griffon", source, tmp_path / "ours", *towers)
        assert result.returncode == 1, result.stderr
        assert re.search(message, result.stderr), result.stderr
        (source / name).unlink()
    assert not mark.exists()
    result = train_cli("convert", "griffon", source, tmp_path / "ours", *towers)
    assert result.returncode == 2
    assert re.search(r"no weights; expected model\.safetensors or pytorch_model\.bin", result.stderr)
    assert not (tmp_path / "ours").exists()


def test_folders_of_something_else(train_cli: Run, tmp_path: Path) -> None:
    released = Released(LLAMA, "linear", regions=False)
    towers, source = released.save_towers(tmp_path), released.save(tmp_path / "released")
    for command, message in (
        (("griffon", tmp_path / "none", tmp_path / "out", *towers), r"none/config\.json: no such file"),
        (
            ("griffon", source, tmp_path / "out", "--vision-tower", source),
            r"type 'llama2_Griffon'; expected a CLIP model",
        ),
        (
            ("export", source, tmp_path / "out"),
            "the layout of released weights; expected a saved model or the output folder of a run",
        ),
        (("griffon", source, tmp_path / "out", *towers, "--shard-size", "many"), r"expected a size such as 5GB"),
    ):
        result = train_cli("convert", *command)
        assert (result.returncode, result.stdout) == (2, "")
        assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "out").exists()
