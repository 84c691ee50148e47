"""The inputs of rendering besides the record: the settings that change bytes, and facts about the source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from griffon_prep.records import name_key
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_shards.templates import Templates

RENDER_VERSION = 4
"""Increased only when a code change alters the bytes of a sample for the same inputs and settings."""

DEFAULT_SAMPLES_PER_SHARD = (1000, 10000)
"""For sources with images, and for sources without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """Every setting that changes the bytes of a set; see `griffon-prep build --help`.

    Attributes:
        templates: the question templates.
        seed: seed of every draw.
        boxes: one of `griffon_shards.types.BOX_STYLES`.
        det_categories: size of DET's category set, unless more categories are present.
        variants: number of renderings of each sample.
        check: how images are checked, one of `griffon_prep.images.CHECKS`.
        resize_px: longest side that images are shrunk to, or None to keep their bytes.
        samples_per_shard: maximum number of samples per shard, or None for the defaults.
    """

    templates: Templates = field(hash=False)
    seed: int = 0
    boxes: str = "text"
    det_categories: int = 80
    variants: int = 1
    check: str = "decode"
    resize_px: int | None = None
    samples_per_shard: int | None = None

    @property
    def shard_sizes(self) -> tuple[int, int]:
        """Maximum number of samples per shard, for sources with images and for sources without."""
        return DEFAULT_SAMPLES_PER_SHARD if self.samples_per_shard is None else (self.samples_per_shard,) * 2

    def in_lock(self) -> dict[str, Any]:
        """The settings, as `render` in the lock file has them."""
        return {
            "render_version": RENDER_VERSION,
            "seed": self.seed,
            "boxes": self.boxes,
            "det_categories": self.det_categories,
            "variants": self.variants,
            "samples_per_shard": list(self.shard_sizes),
            "check": self.check,
            "resize": self.resize_px or 0,
            "templates": self.templates.sha256,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Facts about a source that all its records share.

    Attributes:
        tag: key of the draws, together with the seed.
        task: one of `griffon_shards.types.TASKS`.
        vocabulary: sorted names from which negatives are drawn.
        spellings: names of the vocabulary that differ only in case or whitespace, by their common key.
    """

    tag: str
    task: str
    vocabulary: tuple[str, ...] = ()
    spellings: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_key: dict[str, tuple[str, ...]] = {}
        for name in self.vocabulary:
            by_key[name_key(name)] = (*by_key.get(name_key(name), ()), name)
        object.__setattr__(self, "spellings", {key: names for key, names in by_key.items() if len(names) > 1})

    def draws(self, seed: int, record_no: int, variant: int, purpose: str) -> KeyedRandom:
        """Return the draws for one purpose, for one variant of one record."""
        return KeyedRandom(seed, self.tag, record_no, variant, purpose)
