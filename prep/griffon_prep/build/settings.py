"""The settings of a build."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from griffon_prep.render import RENDER_VERSION
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.resolve import SourceInput

DEFAULT_SAMPLES_PER_SHARD = (1000, 10000)
"""For sources with images, and for sources without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSettings:
    """The settings that decide the bytes of a sample; see `griffon-prep build --help`.

    Attributes:
        render: settings of rendering, with the loaded templates.
        check: how images are checked, one of `griffon_prep.images.CHECKS`.
        resize_px: longest side that images are shrunk to, or None to keep their bytes.
    """

    render: RenderSettings = field(hash=False)
    check: str
    resize_px: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """A build as requested on the command line.

    Attributes:
        sources: sources of the manifest with their files found.
        shard: settings that decide the bytes of a sample.
        samples_per_shard: maximum number of samples per shard, or None for the defaults.
        max_rejects: fraction of a source's records that may be rejected.
        allow_empty: allow sources without samples, as long as another source has one.
        workers: number of worker processes.
        start_method: multiprocessing start method; the result does not depend on it.
    """

    sources: Sequence[SourceInput]
    shard: ShardSettings
    samples_per_shard: int | None
    max_rejects: Fraction
    workers: int
    start_method: str = "spawn"
    allow_empty: bool = False

    @property
    def shard_sizes(self) -> tuple[int, int]:
        """Maximum number of samples per shard, for sources with images and for sources without."""
        return DEFAULT_SAMPLES_PER_SHARD if self.samples_per_shard is None else (self.samples_per_shard,) * 2

    def lock_settings(self) -> dict[str, Any]:
        """Every setting that changes bytes, as `render` in the lock file has them."""
        render = self.shard.render
        return {
            "render_version": RENDER_VERSION,
            "seed": render.seed,
            "boxes": render.boxes,
            "det_categories": render.det_categories,
            "variants": render.variants,
            "samples_per_shard": list(self.shard_sizes),
            "check": self.shard.check,
            "resize": self.shard.resize_px or 0,
            "templates": render.templates.sha256,
        }
