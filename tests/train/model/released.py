"""Weights as the reference released them, named by hand: parts of transformers under the reference's names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

State = dict[str, torch.Tensor]

WIDTH, TEXT_WIDTH = 16, 24
VISION: dict[str, Any] = {"image_size": 42, "patch_size": 14, "hidden_size": WIDTH, "intermediate_size": 20}
VISION |= {"num_hidden_layers": 3, "num_attention_heads": 2}
REGION = VISION | {"image_size": 28, "num_hidden_layers": 2}

_SIZES: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_SIZES |= {"num_key_value_heads": 1, "vocab_size": 70, "max_position_embeddings": 128}
FAMILIES: Mapping[str, tuple[Any, Any, dict[str, Any]]] = {
    "gemma2_Griffon": (
        Gemma2ForCausalLM,
        Gemma2Config,
        {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 50.0, "sliding_window": 16}
        | {"final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh", "rope_theta": 10000.0}
        | {"cache_implementation": "hybrid", "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0},
    ),
    "qwen2_Griffon": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"rope_theta": 1000000.0, "rope_scaling": None, "tie_word_embeddings": False, "use_sliding_window": False}
        | {"bos_token_id": 1, "eos_token_id": 2, "max_window_layers": 28, "sliding_window": None},
    ),
    "llama2_Griffon": (
        LlamaForCausalLM,
        LlamaConfig,
        {"pretraining_tp": 1, "rope_scaling": None, "tie_word_embeddings": False, "max_length": 4096}
        | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    ),
}
PROJECTORS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "conv_reduce": {"conv": (TEXT_WIDTH, WIDTH, 3, 3), "linear": (TEXT_WIDTH, TEXT_WIDTH)},
    "linear": {"": (TEXT_WIDTH, WIDTH)},
    "mlp2x_gelu": {"0": (TEXT_WIDTH, WIDTH), "2": (TEXT_WIDTH, TEXT_WIDTH)},
}


class Released:
    """A released model: its parts, its tensors by released names, and its configuration."""

    def __init__(self, family: str, projector: str, *, regions: bool) -> None:
        torch.manual_seed(7)
        model_class, config_class, fields = FAMILIES[family]
        self.text: Any = _loud(model_class(config_class(**_SIZES, **fields)))
        self.tower = _loud(CLIPVisionModel(CLIPVisionConfig(**VISION)))
        self.region_tower = _loud(CLIPVisionModel(CLIPVisionConfig(**REGION))) if regions else None
        self.state: State = {name: tensor.clone() for name, tensor in self.text.state_dict().items()}
        if family == "gemma2_Griffon":
            del self.state["lm_head.weight"]
        self._add("model.vision_tower.vision_tower.vision_model.", self.tower.state_dict())
        self._add("model.mm_projector.", _linears(PROJECTORS[projector]))
        if self.region_tower is not None:
            self._add("model.prompt_visual_encoder.vision_model.", self.region_tower.state_dict())
            self._add("model.prompt_projector.", _linears({"0": (TEXT_WIDTH, WIDTH), "2": (TEXT_WIDTH, TEXT_WIDTH)}))
        self.config: dict[str, Any] = {
            "_name_or_path": "checkpoints/some-llm",
            "architectures": ["SomeGriffon"],
            "model_type": family,
            "image_aspect_ratio": "resize",
            "image_grid_pinpoints": None,
            "mm_hidden_size": WIDTH,
            "mm_projector_type": projector,
            "mm_use_im_patch_token": False,
            "mm_vision_select_feature": "patch",
            "mm_vision_select_layer": -2,
            "mm_vision_tower": "checkpoints/clip-vit-large-path14-1022",
            "torch_dtype": "float32",
            "transformers_version": "4.44.0",
            "tune_mm_mlp_adapter": False,
            "unshared_visual_encoder": regions,
            "use_cache": False,
            "use_mm_proj": True,
            **_SIZES,
            **fields,
        }

    def _add(self, prefix: str, state: Mapping[str, torch.Tensor]) -> None:
        self.state |= {prefix + name: tensor.clone() for name, tensor in state.items()}

    def to(self, dtype: torch.dtype) -> "Released":
        """All tensors in another dtype."""
        self.state = {name: tensor.to(dtype) for name, tensor in self.state.items()}
        self.config["torch_dtype"] = str(dtype).removeprefix("torch.")
        return self

    def save(self, folder: Path, form: str = "safetensors") -> Path:
        """Write it as `safetensors` or `bin`, in one file or, with ` shards`, in three."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        kind, _, shards = form.partition(" ")
        stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
        save: Any = save_file if kind == "safetensors" else torch.save
        if not shards:
            save(self.state, folder / f"{stem}.{suffix}")
            return folder
        files = [f"{stem}-{number}-of-3.{suffix}" for number in (1, 2, 3)]
        places = {name: files[number % 3] for number, name in enumerate(self.state)}
        for file in files:
            save({name: tensor for name, tensor in self.state.items() if places[name] == file}, folder / file)
        index = {"metadata": {"total_size": 0}, "weight_map": places}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
        return folder

    def save_towers(self, folder: Path, *, weights: bool = False) -> list[object]:
        """CLIP folders of the towers' sizes, as options of `convert griffon`."""
        options: list[object] = []
        for option, tower in (("--vision-tower", self.tower), ("--region-tower", self.region_tower)):
            if tower is not None:
                path = folder / option.strip("-")
                tower.save_pretrained(path) if weights else tower.config.save_pretrained(path)
                options += [option, path]
        return options


def _loud(model: Any) -> Any:  # noqa: ANN401
    """Weights so large that every part is heard, and none a constant."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) / 3)
    return model.eval()


def _linears(shapes: Mapping[str, tuple[int, ...]]) -> State:
    state: State = {}
    for name, shape in shapes.items():
        before = f"{name}." if name else ""
        state |= {f"{before}weight": torch.randn(shape), f"{before}bias": torch.randn(shape[0])}
    return state


def assert_same(result: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same names, dtypes, shapes and bytes."""
    assert result.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (result[name].dtype, result[name].shape) == (tensor.dtype, tensor.shape), name
        as_bytes = [item.contiguous().flatten().view(torch.uint8) for item in (result[name], tensor)]
        assert torch.equal(*as_bytes), name
