"""`griffon-train convert clip`: a tower for images of another size, whose other weights stay what they were."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPVisionConfig, CLIPVisionModel

from ..conftest import Run
from .released import VISION, assert_same

SIDE = 4
SETTINGS = VISION | {"image_size": SIDE * 14, "hidden_size": 8}
POSITIONS = "embeddings.position_embedding.weight"


def tower(dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401 - transformers is typed in part
    torch.manual_seed(3)
    made: Any = CLIPVisionModel(CLIPVisionConfig(**SETTINGS))
    return made.to(dtype).eval()


def written(folder: Path, form: str, dtype: torch.dtype = torch.float32) -> Path:
    """The tower as CLIPVisionModel, CLIPModel, or as OpenAI's of 2021 lies on the Hub."""
    source = tower(dtype)
    if form == "tower":
        source.save_pretrained(folder)
        return folder
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    whole: Any = CLIPModel(CLIPConfig(vision_config=SETTINGS, text_config=text | {"vocab_size": 9}))
    whole.to(dtype)
    whole.vision_model.load_state_dict(source.state_dict())
    whole.save_pretrained(folder)
    if form == "clip bin":
        state = load_file(folder / "model.safetensors")
        state["vision_model.embeddings.position_ids"] = torch.arange(SIDE**2 + 1)[None]
        torch.save(state, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"] |= {"bad_words_ids": None, "max_length": 20, "torch_dtype": None, "pruned_heads": {}}
        (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    return folder


def resized(grid_NC: torch.Tensor, side: int) -> torch.Tensor:
    """Channel by channel, as images of one."""
    upsample = torch.nn.Upsample(size=(side, side), mode="bicubic", align_corners=False)
    channels = [upsample(channel.reshape(1, 1, SIDE, SIDE)).flatten() for channel in grid_NC.float().unbind(1)]
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("form", ["tower", "clip", "clip bin"])
@pytest.mark.parametrize(("image_px", "dtype"), [(1022, torch.float32), (98, torch.bfloat16), (28, torch.float16)])
def test_positions_are_interpolated_and_nothing_else_changes(
    train_cli: Run, tmp_path: Path, form: str, image_px: int, dtype: torch.dtype
) -> None:
    source = written(tmp_path / "from", form, dtype)
    result = train_cli("convert", "clip", "-q", source, tmp_path / "to", "--image-size", image_px)
    assert (result.returncode, result.stderr) == (0, "")
    loaded: Any = CLIPVisionModel.from_pretrained(tmp_path / "to", output_loading_info=True)
    made, notes = loaded
    assert not any(notes.values()), notes
    assert {tensor.dtype for tensor in load_file(tmp_path / "to" / "model.safetensors").values()} == {dtype}
    side = image_px // 14
    before, after = tower(dtype).state_dict(), made.state_dict()
    old, new = before.pop(POSITIONS), after.pop(POSITIONS)
    assert_same(after, before)
    assert new.shape == ((73 * 73 if image_px == 1022 else side * side) + 1, 8)
    assert_same({"class": new[0]}, {"class": old[0]})
    assert_same({"grid": new[1:]}, {"grid": resized(old[1:], side).to(dtype)})
    assert made(torch.randn(1, 3, image_px, image_px, dtype=dtype)).last_hidden_state.shape == (1, side * side + 1, 8)
    processor = CLIPImageProcessor.from_pretrained(tmp_path / "to")
    assert dict(processor.crop_size) == {"height": image_px, "width": image_px}
    assert dict(processor.size) == {"shortest_edge": image_px}


@pytest.mark.parametrize("form", ["tower", "clip bin"])
def test_at_its_own_size_a_tower_stays_bit_for_bit(train_cli: Run, tmp_path: Path, form: str) -> None:
    source = written(tmp_path / "from", form, torch.float16)
    assert train_cli("convert", "clip", source, tmp_path / "to", "--image-size", SIDE * 14).returncode == 0
    made: Any = CLIPVisionModel.from_pretrained(tmp_path / "to")
    assert_same(made.state_dict(), tower(torch.float16).state_dict())


def test_tensors_have_the_names_that_older_transformers_read_too(train_cli: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "from", "tower")
    assert train_cli("convert", "clip", source, tmp_path / "to", "--image-size", 28).returncode == 0
    assert load_file(tmp_path / "to" / "model.safetensors").keys() == {
        f"vision_model.{name}" for name in tower().state_dict()
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"size": 56, "crop_size": 56, "do_resize": False, "resample": 3},
            {"size": 98, "crop_size": 98, "do_resize": False, "resample": 3},
        ),
        (
            {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "image_mean": [0, 0, 0]},
            {"size": {"shortest_edge": 98}, "crop_size": {"height": 98, "width": 98}, "image_mean": [0, 0, 0]},
        ),
    ],
)
def test_the_preprocessor_keeps_all_but_its_size(
    train_cli: Run, tmp_path: Path, given: dict[str, object], expected: dict[str, object]
) -> None:
    source = written(tmp_path / "from", "tower")
    (source / "preprocessor_config.json").write_text(json.dumps(given))
    assert train_cli("convert", "clip", source, tmp_path / "to", "--image-size", 98).returncode == 0
    assert json.loads((tmp_path / "to" / "preprocessor_config.json").read_text()) == expected


@pytest.mark.parametrize(
    ("image_px", "message"),
    [
        (1024, r"--image-size 1024: not a multiple of the patch size 14; nearest: 1022 and 1036"),
        (10, r"--image-size 10: not a multiple of the patch size 14; nearest: 14$"),
        (0, r"'--image-size': 0 is not in"),
    ],
)
def test_sizes_that_patches_do_not_fill(train_cli: Run, tmp_path: Path, image_px: int, message: str) -> None:
    result = train_cli(
        "convert", "clip", written(tmp_path / "from", "tower"), tmp_path / "to", "--image-size", image_px
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "to").exists()


def test_weights_that_are_not_those_of_the_configuration(train_cli: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "from", "tower")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"image_size": 28}))
    result = train_cli("convert", "clip", source, tmp_path / "to", "--image-size", 98)
    assert result.returncode == 1
    assert re.search(r"position_embedding\.weight \[17, 8\], expected \[5, 8\]", result.stderr), result.stderr
    assert not (tmp_path / "to").exists()
