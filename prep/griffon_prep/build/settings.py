"""The settings of a build."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from griffon_prep.render import RENDER_VERSION
from griffon_prep.sources.resolve import SourceInput


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """The settings of a build that change bytes; see `griffon-prep build --help`."""

    seed: int
    boxes: str
    det_categories: int
    variants: int
    templates: Path | None
    templates_sha256: str
    check: str
    resize_px: int | None


DEFAULT_SAMPLES_PER_SHARD = (1000, 10000)
"""With pictures, and without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """A build, as the command line asks for it.

    Attributes:
        sources: what the manifest names, found on disk.
        shard: the settings that change a sample's bytes.
        samples_per_shard: None for the defaults.
        max_rejects: the fraction of a source's records that may be rejected.
        allow_empty: a source may have no sample left, as long as another has one.
        workers: number of processes.
        start_method: how they are started; the result is the same.
    """

    sources: Sequence[SourceInput]
    shard: ShardSettings
    samples_per_shard: int | None
    max_rejects: Fraction
    workers: int
    start_method: str = "spawn"
    allow_empty: bool = False

    def render(self) -> dict[str, Any]:
        """Every setting that changes bytes, as the lock holds them."""
        return {
            "render_version": RENDER_VERSION,
            "seed": self.shard.seed,
            "boxes": self.shard.boxes,
            "det_categories": self.shard.det_categories,
            "variants": self.shard.variants,
            "samples_per_shard": list(DEFAULT_SAMPLES_PER_SHARD)
            if self.samples_per_shard is None
            else [self.samples_per_shard] * 2,
            "check": self.shard.check,
            "resize": self.shard.resize_px or 0,
            "templates": self.shard.templates_sha256,
        }
