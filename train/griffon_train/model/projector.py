"""Project a tower's patch features to the language model's width; `conv_reduce` also reduces them to a quarter."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn


class ConvReduce(nn.Module):
    """A 3 x 3 convolution of stride 2, GELU, and a linear layer, as in Griffon v2: 73 x 73 patches become 37 x 37."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, text_width, kernel_size=3, stride=2, padding=1)
        self.act = nn.GELU()
        self.linear = nn.Linear(text_width, text_width)

    def forward(self, patches_PNC: torch.Tensor) -> torch.Tensor:
        """Project the patches of a square grid, row by row; [P, N, C] to [P, M, D]."""
        count, patches, width = patches_PNC.shape
        side = math.isqrt(patches)
        assert side * side == patches, f"{patches} patches are not a square"
        grid_PCHW = patches_PNC.transpose(1, 2).reshape(count, width, side, side)
        reduced_PMD = self.act(self.conv(grid_PCHW)).flatten(2).transpose(1, 2)
        projected_PMD: torch.Tensor = self.linear(reduced_PMD)
        return projected_PMD


def _mlp2x_gelu(width: int, text_width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, text_width), nn.GELU(), nn.Linear(text_width, text_width))


PROJECTORS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "conv_reduce": ConvReduce,
    "linear": nn.Linear,
    "mlp2x_gelu": _mlp2x_gelu,
}
"""By name, as LLaVA and Griffon call them; made of the tower's width and the language model's."""


def image_tokens(projector: str, patches_a_side: int) -> int:
    """Return the number of the language model's tokens that an image takes."""
    side = -(-patches_a_side // 2) if projector == "conv_reduce" else patches_a_side
    return side * side


def region_projector(width: int, text_width: int) -> nn.Module:
    """Make the projector from the region tower's class token to one token of the language model."""
    return nn.Sequential(nn.Linear(width, text_width), nn.ReLU(), nn.Linear(text_width, text_width))
