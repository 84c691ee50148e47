"""The operations that are counted for the MFU are those that PyTorch counts while it computes."""

from collections.abc import Mapping

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from griffon_train.config.freezing import Freezing
from griffon_train.model.flops import ModelFlops, StepCounts, peak_flops
from griffon_train.model.freezing import freeze
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, REGION_TOKEN_ID

TEXT_TOKENS = 80


def model_of(family: str, select_layer: int = -2, **flags: bool) -> GriffonForConditionalGeneration:
    torch.manual_seed(0)
    config = preset_config(f"tiny-{family}")
    config.select_layer = select_layer
    model = GriffonForConditionalGeneration(config)
    # PyTorch does not count what its own attention kernels compute on the CPU.
    model.set_attn_implementation(dict.fromkeys(("text_config", "vision_config", "region_config"), "eager"))
    freeze(model, Freezing(**flags))
    model.train()
    return model


def counted(model: GriffonForConditionalGeneration) -> tuple[float, StepCounts]:
    """Operations of a forward and a backward pass on an image, a region and text, as PyTorch counts them."""
    ids = [IMAGE_TOKEN_ID] * model.image_tokens + [REGION_TOKEN_ID] + [5] * TEXT_TOKENS
    with FlopCounterMode(display=False) as counter:
        logits = model(
            torch.tensor([ids]),
            pixel_values=torch.randn(1, 3, 70, 70),
            region_values=torch.randn(1, 3, 28, 28),
            use_cache=False,
        ).logits
        logits.square().sum().backward()
    counts = StepCounts(tokens=len(ids), squared_tokens=len(ids) ** 2, targets=len(ids), images=1, regions=1)
    return float(counter.get_total_flops()), counts


@pytest.mark.parametrize("family", ["gemma2", "llama2", "qwen2"])
@pytest.mark.parametrize(
    "flags",
    [{}, {"tune_mm_mlp_adapter": True}, {"tune_region_projector": True}, {"freeze_vision_tower": True}],
    ids=lambda flags: next(iter(flags), "everything"),
)
def test_they_are_the_operations_that_are_computed(family: str, flags: Mapping[str, bool]) -> None:
    """Up to the gradient of what the first part that trains is given, which nobody needs."""
    model = model_of(family, **flags)
    computed, counts = counted(model)
    assert ModelFlops(model).of(counts) == pytest.approx(computed, rel=0.02)


def test_layers_behind_the_selected_one_count_nothing() -> None:
    counts = counted(model_of("qwen2"))[1]
    first, second = (ModelFlops(model_of("qwen2", select_layer=layer)).of(counts) for layer in (-3, -2))
    assert second > 1.05 * first


def test_the_peak_of_a_gpu_is_known_by_its_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA L4") == 121e12 and peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("some other GPU") is None
