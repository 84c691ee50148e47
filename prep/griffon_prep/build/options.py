"""The options that `griffon-prep build` and `check` share, and the settings that they amount to."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Any

import click

from griffon_prep.build.settings import BuildSettings
from griffon_prep.image_bytes import is_url
from griffon_prep.images import CHECKS
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.manifest import read_manifest, single_line
from griffon_prep.sources.mirror import Mirror, default_work
from griffon_prep.sources.part import DEFAULT_VAL_SHARE, PARTS, Split
from griffon_prep.sources.resolve import Selection, find_sources
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.logs import verbosity_option
from griffon_shards.templates import load_templates
from griffon_shards.types import BOX_STYLES


def _share(_context: click.Context, _option: click.Parameter, value: str) -> Fraction:
    """Parse a share such as `1%` or `0.01`."""
    try:
        share = Fraction(value[:-1]) / 100 if value.endswith("%") else Fraction(value)
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value!r} is not a share between 0 and 1; expected for example 1% or 0.01")
    return share


def _optional_share(context: click.Context, option: click.Parameter, value: str | None) -> Fraction | None:
    return None if value is None else _share(context, option, value)


_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(1)
_DEFAULTS = {field.name: field.default for field in fields(RenderSettings)}

_SOURCE_OPTIONS = (
    click.option(
        "--manifest",
        type=LOCATION,
        metavar="FILE",
        help="Manifest file with one source per line: `TAG & annotation & image root`.",
    ),
    click.option("--data-path", metavar="FILE", help="Annotation file of a single LAZY source, instead of --manifest."),
    click.option("--image-folder", metavar="DIR", help="Folder with the images of --data-path."),
    click.option(
        "--data-root",
        type=LOCATION,
        metavar="DIR",
        default=Path(),
        help="Folder or URL that relative paths in the manifest start from.  [default: the current folder]",
    ),
    click.option(
        "--workers",
        type=_COUNT,
        help="Number of worker processes.  [default: one per CPU core]",
    ),
    click.option(
        "--seed",
        type=int,
        default=_DEFAULTS["seed"],
        show_default=True,
        help="Seed for all random choices and shuffles.",
    ),
    click.option(
        "--boxes",
        type=click.Choice(BOX_STYLES),
        default=_DEFAULTS["boxes"],
        show_default=True,
        help="How boxes are written: as numbers in text, or as bin tokens.",
    ),
    click.option("--templates", type=_PATH, help="Folder with question templates.  [default: the built-in templates]"),
    click.option(
        "--det-categories",
        type=_COUNT,
        default=_DEFAULTS["det_categories"],
        show_default=True,
        help="Number of categories that a DET question lists.",
    ),
    click.option(
        "--variants", type=_COUNT, default=_DEFAULTS["variants"], show_default=True, help="Renderings per sample."
    ),
    click.option(
        "--samples-per-shard",
        type=_COUNT,
        help="Maximum number of samples per shard.  [default: 1000 with images, 10000 without]",
    ),
    click.option(
        "--check",
        type=click.Choice(CHECKS),
        default=_DEFAULTS["check"],
        show_default=True,
        help="How images are checked. header: read format and size; decode: also find truncated images; "
        "none: trust the annotation.",
    ),
    click.option(
        "--max-rejects",
        callback=_share,
        metavar="SHARE",
        default="1%",
        show_default=True,
        help="Stop when more than this share of a source's records, and more than 10, are rejected.",
    ),
    click.option(
        "--exclude",
        type=LOCATION,
        multiple=True,
        metavar="FILE",
        help="List of images to leave out of all sources: what `griffon-shards overlap --out` writes, or file names, "
        "COCO ids or SHA-256s, one a line. Can be repeated.",
    ),
    click.option(
        "--exclude-keys",
        type=LOCATION,
        multiple=True,
        metavar="FILE",
        help="List of keys of samples to leave out, one a line, bare or as JSON objects with a `key`. Can be repeated.",
    ),
    click.option(
        "--default-part",
        type=click.Choice(PARTS),
        help="Part of the images that sources without part= use.  [default: all images]",
    ),
    click.option(
        "--val-share",
        callback=_optional_share,
        metavar="SHARE",
        help="Share of the images that belong to val, for sources with a part.  [default: 1%]",
    ),
    click.option("--val-seed", type=int, help="Seed that decides which images those are.  [default: 0]"),
    click.option("--allow-empty", is_flag=True, help="Allow sources that yield no samples."),
    click.option(
        "--resize",
        "resize_px",
        type=_COUNT,
        metavar="PX",
        help="Shrink images whose longer side exceeds PX pixels.  [default: keep the original bytes]",
    ),
    click.option(
        "--work",
        type=_PATH,
        metavar="DIR",
        help="Folder on this machine for copies of annotations in object stores, and for the work files of a set "
        "there.  [default: ~/.cache/griffon-shards/builds]",
    ),
    verbosity_option,
)
"""The options that `build` and `check` share. Those of `RenderSettings` have its defaults."""

_BUILD_ONLY = ("out", "reuse", "recheck", "overwrite", "no_report", "part", "finish", "engine", "ray_address")


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `_SOURCE_OPTIONS`, and pass them on as one BuildSettings."""

    @wraps(command)
    def with_settings(**values: Any) -> None:  # noqa: ANN401 - click's values, of every type
        build_only = {name: values.pop(name) for name in _BUILD_ONLY if name in values}
        name = Path(str(values["manifest"] or values["data_path"] or "")).stem
        work = values.pop("work")
        with Mirror((work or default_work()) / "inputs") as mirror, _naming_urls(mirror):
            settings = replace(_settings(**values, mirror=mirror), work=work)
            mirror.close()
            if mirror.used or _uses_store(settings, build_only):
                # A client that is inherited in a fork can hang.
                settings = replace(settings, start_method="spawn", inputs=mirror.folder)
            command(settings=settings, name=name, **build_only)

    for option in reversed(_SOURCE_OPTIONS):
        with_settings = option(with_settings)
    return with_settings


def _uses_store(settings: BuildSettings, options: Mapping[str, object]) -> bool:
    """Whether images, or the set to write or to reuse, are in an object store."""
    return any(isinstance(value, ObjectPath) for value in options.values()) or any(
        is_url(source.image_root) for source in settings.sources
    )


@contextmanager
def _naming_urls(mirror: Mirror) -> Iterator[None]:
    """Context manager that names URLs instead of their copies in errors raised inside."""
    try:
        yield
    except (SettingsError, DataError) as error:
        raise type(error)(mirror.with_urls(str(error))) from None


def _settings(
    *,
    manifest: Location | None,
    data_path: str | None,
    image_folder: str | None,
    data_root: Location,
    workers: int | None,
    templates: Path | None,
    max_rejects: Fraction,
    allow_empty: bool,
    exclude: tuple[Location, ...],
    exclude_keys: tuple[Location, ...],
    default_part: str | None,
    val_share: Fraction | None,
    val_seed: int | None,
    mirror: Mirror,
    **render: Any,  # noqa: ANN401 - click's values for RenderSettings
) -> BuildSettings:
    if (manifest is None) == (data_path is None) or (data_path is None) != (image_folder is None):
        raise SettingsError("no input given; pass either --manifest FILE, or --data-path FILE with --image-folder DIR")
    if manifest is not None:
        lines = read_manifest(manifest)
    else:
        assert data_path is not None and image_folder is not None
        lines = [single_line(data_path, image_folder)]

    if (
        default_part is None
        and (val_share, val_seed) != (None, None)
        and not any("part" in line.options for line in lines)
    ):
        given = "--val-share" if val_share is not None else "--val-seed"
        raise SettingsError(
            f"{given}: no source has a part; give --default-part train or --default-part val, too, or leave {given} out"
        )
    split = Split(val_share=DEFAULT_VAL_SHARE if val_share is None else val_share, seed=val_seed or 0)
    lists = {location: mirror.path_of(location) for location in (*exclude, *exclude_keys)}
    for path in lists.values():
        mirror.fetch(path)
    key_lists = tuple(lists[location] for location in exclude_keys)
    selection = Selection(
        part=default_part,
        split=split,
        exclude=tuple(lists[location] for location in exclude),
        exclude_keys=key_lists,
    )
    return BuildSettings(
        sources=find_sources(lines, data_root, None if manifest is None else str(manifest), selection, mirror),
        render=RenderSettings(templates=load_templates(templates), **render),
        max_rejects=max_rejects,
        allow_empty=allow_empty,
        workers=workers,
        exclude_keys=key_lists,
        # Forking is safe here because this process has no threads yet. Outside Linux, forking is discouraged.
        start_method="fork" if sys.platform == "linux" else "spawn",
    )
