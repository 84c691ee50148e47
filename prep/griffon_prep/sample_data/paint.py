"""Paints a scene: shapes with a dark rim on a textured background of muted colour.

Edges are not smoothed: a pixel either belongs to a shape or not, so boxes are exact.
"""

from __future__ import annotations

import io
from hashlib import shake_256

import numpy as np
import numpy.typing as npt
from PIL import Image

from griffon_prep.sample_data.masks import interior, mask
from griffon_prep.sample_data.scene import Scene, Shape

Pixels = npt.NDArray[np.uint8]  # height, width, and RGB where there is a third axis

# The background keeps every channel within 120..235 and every rim stays below 120, so the two are always distinct.
_TONE_RGB = {"grey": (170, 170, 170), "beige": (200, 185, 160), "slate": (140, 150, 165), "cream": (215, 208, 190)}
_PLAIN_RGB = {"white": (245, 245, 245)}
_FILL_RGB = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 70),
    "blue": (40, 90, 220),
    "purple": (140, 60, 190),
    "pink": (245, 130, 190),
    "black": (45, 45, 45),
}
_RIM_PERCENT = 45  # brightness of the rim relative to the fill
_PATTERN_DEPTH = 16
_GRAIN_DEPTH = 4
_TILE_PX = 64  # the grain repeats, so that PNG can compress it
_CLOUD_CELLS = 8
# Fast settings: it only matters that all three image formats occur.
_CODING: dict[str, tuple[str, dict[str, int]]] = {
    "jpg": ("JPEG", {"quality": 90}),
    "png": ("PNG", {"compress_level": 3}),
    "webp": ("WEBP", {"quality": 85, "method": 0}),
}


def paint(pictured: Scene) -> Image.Image:
    """Return the scene as an RGB image of `width_px` x `height_px`."""
    pixels = _background(pictured)
    for shape in pictured.shapes:
        _paint_shape(pixels, shape)
    return Image.fromarray(pixels)


def encode(pictured: Scene) -> bytes:
    """Return the painted scene as a JPEG, PNG or WebP file, according to the suffix of its name."""
    coding, settings = _CODING[pictured.image_path.rpartition(".")[2]]
    coded = io.BytesIO()
    paint(pictured).save(coded, format=coding, **settings)
    return coded.getvalue()


def _paint_shape(pixels: Pixels, shape: Shape) -> None:
    """Paint one shape over the existing pixels."""
    shape_mask = mask(shape.kind, shape.width_px, shape.height_px)
    rim_px = 1 + min(shape.width_px, shape.height_px) // 40
    fill_rgb = np.array(_FILL_RGB[shape.colour], dtype=np.uint8)
    rim_rgb = np.array([channel * _RIM_PERCENT // 100 for channel in _FILL_RGB[shape.colour]], dtype=np.uint8)
    window = pixels[
        shape.top_px : shape.top_px + shape.height_px,
        shape.left_px : shape.left_px + shape.width_px,
    ]
    window[shape_mask] = rim_rgb
    window[interior(shape_mask, rim_px)] = fill_rgb


def _background(pictured: Scene) -> Pixels:
    """Return the background: a tone, varied by a pattern and a fine grain; or plain."""
    if pictured.texture == "plain":
        plain_rgb = np.array(_PLAIN_RGB[pictured.tone], dtype=np.uint8)
        return np.tile(plain_rgb, (pictured.height_px, pictured.width_px, 1))
    grain_bytes = _TILE_PX * _TILE_PX
    key = f"griffon sample-data texture {pictured.seed} {pictured.number}".encode()
    noise = np.frombuffer(shake_256(key).digest(grain_bytes + _CLOUD_CELLS * _CLOUD_CELLS), dtype=np.uint8)
    tile = noise[:grain_bytes].reshape(_TILE_PX, _TILE_PX)
    times = (-(-pictured.height_px // _TILE_PX), -(-pictured.width_px // _TILE_PX))
    tiled = np.tile(tile, times)[: pictured.height_px, : pictured.width_px]
    light = _pattern(pictured, tiled, noise[grain_bytes:].reshape(_CLOUD_CELLS, _CLOUD_CELLS))
    light += tiled // np.uint8(256 // (2 * _GRAIN_DEPTH))
    pixels = np.empty((pictured.height_px, pictured.width_px, 3), dtype=np.uint8)
    for channel, tone in enumerate(_TONE_RGB[pictured.tone]):
        pixels[:, :, channel] = light + np.uint8(tone - _PATTERN_DEPTH - _GRAIN_DEPTH)
    return pixels


def _pattern(pictured: Scene, grain: Pixels, clouds: Pixels) -> Pixels:
    """Return how much lighter than the darkest pixel each pixel is, from 0 to twice _PATTERN_DEPTH: height, width."""
    x = np.arange(pictured.width_px, dtype=np.int32)[None, :]
    y = np.arange(pictured.height_px, dtype=np.int32)[:, None]
    depth = 2 * _PATTERN_DEPTH
    if pictured.texture == "striped":
        return _light((x + y) // pictured.period_px % 2 == 1, depth)
    if pictured.texture == "checked":
        return _light((x // pictured.period_px % 2 == 1) ^ (y // pictured.period_px % 2 == 1), depth)
    if pictured.texture == "speckled":
        return _light(grain < pictured.period_px, depth)
    if pictured.texture == "shaded":
        return ((x + y) * depth // (pictured.width_px + pictured.height_px)).astype(np.uint8)
    size = (pictured.width_px, pictured.height_px)
    smooth = np.array(Image.fromarray(clouds).resize(size, Image.Resampling.BILINEAR), dtype=np.uint8)
    return smooth // np.uint8(256 // depth)


def _light(where: npt.NDArray[np.bool_], depth: int) -> Pixels:
    """Return full depth where the condition holds, else 0."""
    return where.astype(np.uint8) * np.uint8(depth)
