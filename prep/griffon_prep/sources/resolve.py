"""Resolving manifest lines to sources: finding their files and detecting their formats."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType

from griffon_prep.images import absolute_root
from griffon_prep.readers import FILES_OR_FOLDERS, FOLDERS, FORMATS, FURTHER_INPUTS, annotation_in, find_format
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.sources.compressed import SUFFIXES, opened, start_of_data
from griffon_prep.sources.exclusion import read_excluded_keys, read_exclusion_list
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.mirror import Mirror, default_work, fetch_companions
from griffon_prep.sources.part import DEFAULT_VAL_SHARE, IMAGE_DATA, Split
from griffon_shards.storage import Location, ObjectPath, as_location
from griffon_shards.support.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInput:
    """A source of the manifest with its files found, before any record is read.

    Attributes:
        tag: unique name of the source.
        task: one of `TASKS`.
        data_root: absolute folder that the names of the files are relative to; of a URL, that of its mirror.
        annotation: absolute path of a file or a folder.
        companions: absolute paths of the files and folders that the format reads in addition, by their published,
            uncompressed names.
        image_root: absolute folder, or the URL of one.
        options: options that select or group records: those of the manifest line except the weight and the names of
            files; with `part`, also the share and the seed of val.
        weight: the weight as an exact fraction.
        limit: maximum number of records to use, in shuffled order, or None for all.
        format: annotation format, from the manifest or detected from the content.
        exclude: absolute paths of the lists of images that are left out.
        exclude_keys: absolute paths of the lists with keys that hold one of this source.
    """

    tag: str
    task: str
    data_root: Path
    annotation: Path
    companions: Mapping[str, Path] = field(hash=False)
    image_root: str
    options: Mapping[str, str] = field(hash=False)
    weight: str
    limit: int | None
    format: str
    exclude: tuple[Path, ...] = ()
    exclude_keys: tuple[Path, ...] = ()

    @property
    def part(self) -> str | None:
        """`train`, `val`, or None for all records."""
        return self.options.get("part")

    @property
    def split(self) -> Split:
        """How images are divided into train and val, for a source with a part."""
        return Split(val_share=Fraction(self.options["val_share"]), seed=int(self.options["val_seed"]))

    @property
    def all_files(self) -> list[Path]:
        """All files that decide which samples the source has."""
        return [*self.files, *self.exclude, *self.exclude_keys]

    @property
    def files(self) -> list[Path]:
        """All files and folders that the source's records come from, the annotation first."""
        return [self.annotation, *self.companions.values()]

    @property
    def file_names(self) -> list[str]:
        """The paths of `files` relative to the data root, or the file names of those that lie outside."""
        names: list[str] = []
        for path in self.files:
            inside = path.is_relative_to(self.data_root)
            name = path.relative_to(self.data_root).as_posix() if inside else path.name
            while name in names:  # folders outside, such as two called images
                name = path.as_posix().removesuffix(f"/{name}").rpartition("/")[2] + f"/{name}"
            names.append(name)
        return names

    @property
    def upright(self) -> bool:
        """Whether images are stored as their EXIF orientation shows them, because their boxes refer to that."""
        return self.options.get("orientation") == "shown"

    @property
    def rounds(self) -> int:
        """Maximum number of questions per sample."""
        return int(self.options.get("rounds", "1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records the sources of a build use; for all lines of the manifest.

    Attributes:
        part: of the lines that have no `part=`, or None for all records.
        split: how images are divided into train and val.
        exclude: lists of images that are left out.
        exclude_keys: lists of keys of samples that are left out.
    """

    part: str | None = None
    split: Split = field(default_factory=lambda: Split(val_share=DEFAULT_VAL_SHARE, seed=0))
    exclude: tuple[Path, ...] = ()
    exclude_keys: tuple[Path, ...] = ()


def find_sources(
    lines: list[ManifestLine],
    data_root: Location,
    manifest: str | None,
    selection: Selection | None = None,
    mirror: Mirror | None = None,
) -> list[SourceInput]:
    """Resolve the paths of a manifest against the data root and detect the annotation formats.

    Args:
        lines: sources of the manifest, or the single source of the command line.
        data_root: folder or URL that relative paths start from.
        manifest: name of the manifest in messages, or None if there is none.
        selection: which records are used; all of them by default.
        mirror: where annotations at URLs are copied to; by default below the user's cache.

    Raises:
        SettingsError: files or folders are missing, or a format does not match; one line per fault.
        DataError: the only faults are damaged annotations, or an object store cannot be used.
    """
    selection = selection or Selection()
    for path in selection.exclude:
        read_exclusion_list(path)  # report faults of a list once, and not for every line
    for path in selection.exclude_keys:
        read_excluded_keys(path)
    faults: list[tuple[type[ValueError], str]] = []
    sources: list[SourceInput] = []
    mirror = mirror or Mirror(default_work() / "inputs")
    root = Path(os.path.normpath(mirror.path_of(data_root).absolute()))
    for line in lines:
        try:
            sources.append(_find_source(line, root, selection, mirror))
        except (SettingsError, DataError) as error:
            where = f"{manifest}:{line.line_no}: {line.tag}: " if manifest is not None else ""
            faults += [(type(error), where + text) for text in str(error).splitlines()]
    if faults:
        settings = any(issubclass(kind, SettingsError) for kind, _ in faults)
        raise (SettingsError if settings else DataError)("\n".join(text for _, text in faults))
    return sources


def _find_source(line: ManifestLine, root: Path, selection: Selection, mirror: Mirror) -> SourceInput:
    if fault := _name_fault(line):
        raise SettingsError(fault)
    annotation = _path_in(root, line.annotation, mirror)
    mirror.fetch(annotation)
    image_root = mirror.url_of(_path_in(root, line.image_root, mirror)) or root / line.image_root
    missing = []
    if not annotation.is_file() and not annotation.is_dir():
        missing.append(f"no annotation file {annotation}; {_path_hint(line.annotation)}")
    if not image_root.is_dir():
        missing.append(f"no image folder {image_root}; {_path_hint(line.image_root)}")
    if missing:
        raise SettingsError("\n".join(missing))
    annotation = annotation_in(annotation)
    may_be_parquet = line.options.get("format", "parquet") == "parquet"
    start = start_of_data(annotation, may_be_parquet=may_be_parquet) if annotation.is_file() else b""
    pickled = FORMATS["refcoco"]
    if is_pickle(start) and (line.task not in pickled.TASKS or line.options.get("format", "refcoco") != "refcoco"):
        raise DataError(
            f"{annotation}: is a pickle; the only supported pickles are RefCOCO references, for the tasks "
            f"{' and '.join(pickled.TASKS)}"
        )
    format_name = find_format(partial(opened, annotation), str(annotation), line.task, line.options)
    if format_name not in FILES_OR_FOLDERS and annotation.is_dir() != (format_name in FOLDERS):
        expected = "a folder" if format_name in FOLDERS else "a file"
        raise SettingsError(f"{annotation}: format {format_name} is read from {expected}; correct the path")
    exclude = _exclusion_lists(line, root, selection, mirror)
    with_own_keys = (path for path in selection.exclude_keys if line.tag in read_excluded_keys(path))
    exclude_keys = tuple(dict.fromkeys(path.absolute() for path in with_own_keys))
    names = [path.name for path in (*exclude, *exclude_keys)]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise SettingsError(f"two exclusion lists have the file name {again}; rename one of them")
    return SourceInput(
        tag=line.tag,
        task=line.task,
        data_root=root,
        annotation=annotation,
        companions=_companions(line, root, annotation, format_name, mirror),
        image_root=str(image_root) if isinstance(image_root, ObjectPath) else absolute_root(image_root),
        options=_selecting_options(line, selection),
        weight=str(line.weight),
        limit=line.limit,
        format=format_name,
        exclude=exclude,
        exclude_keys=exclude_keys,
    )


def _path_in(root: Path, text: str, mirror: Mirror) -> Path:
    """The path of a file or folder that a manifest line names; that of its copy, if it is at a URL.

    Raises:
        SettingsError: the URL is none of an object store, or the path leads out of the data root's bucket.
    """
    path = Path(os.path.normpath(root / mirror.path_of(as_location(text))))
    base, url = mirror.url_of(root), mirror.url_of(path)
    if base is not None and "://" not in text and not text.startswith("/"):
        bucket = str(base).split("/")[:3]
        if url is None or str(url).split("/")[:3] != bucket:
            raise SettingsError(f"{text}: leads out of {'/'.join(bucket)}; write the whole URL")
    return path


def _companions(line: ManifestLine, root: Path, annotation: Path, format_name: str, mirror: Mirror) -> dict[str, Path]:
    fetch_companions(mirror, annotation, format_name, line.options)
    if "image_data" not in line.options:
        return companions_of(annotation, format_name, line.options)
    image_data = _path_in(root, line.options["image_data"], mirror)
    mirror.fetch(image_data)
    if not image_data.is_file():
        path = line.options["image_data"]
        raise SettingsError(f"image_data={path}: no such file; {_path_hint(path)}")
    return companions_of(annotation, format_name, line.options, {IMAGE_DATA: image_data})


def _selecting_options(line: ManifestLine, selection: Selection) -> dict[str, str]:
    options = {name: value for name, value in line.options.items() if name not in ("weight", "exclude", "image_data")}
    part = options.get("part", selection.part)
    if part is None:
        return options
    val = {"val_share": str(selection.split.val_share), "val_seed": str(selection.split.seed)}
    return {**options, "part": part, **val}


def _exclusion_lists(line: ManifestLine, root: Path, selection: Selection, mirror: Mirror) -> tuple[Path, ...]:
    """The lists of images that apply to a line, each once."""
    paths = [Path(os.path.normpath(path.absolute())) for path in selection.exclude]
    if "exclude" in line.options:
        paths.append(_path_in(root, line.options["exclude"], mirror))
        mirror.fetch(paths[-1])
        read_exclusion_list(paths[-1])  # report faults before the build
    return tuple(dict.fromkeys(paths))


def _path_hint(path: str) -> str:
    if "\\" in path:
        return "backslashes do not separate folders on this system; use / instead"
    return "relative paths start from --data-root"


def companions_of(
    annotation: Path, format_name: str, options: Mapping[str, str], given: Mapping[str, Path] = MappingProxyType({})
) -> dict[str, Path]:
    """Find the files and folders that a format reads besides an annotation, by their published names.

    Args:
        annotation: file or folder.
        format_name: name of the format.
        options: options of the manifest line.
        given: files that the manifest line names; they replace those of the same published name.

    Raises:
        SettingsError: one of them is missing.
        DataError: the file that names them is damaged.
    """
    names = (name for name in FORMATS[format_name].COMPANIONS if name not in given)
    inputs = {name: _companion(annotation, name, format_name) for name in names}
    if format_name in FURTHER_INPUTS:
        inputs |= FURTHER_INPUTS[format_name](annotation, options)
    return {name: Path(os.path.normpath(path)) for name, path in inputs.items()} | dict(given)


def _companion(annotation: Path, name: str, format_name: str) -> Path:
    """Find a file next to the annotation, compressed or not."""
    for path in (annotation.with_name(name + suffix) for suffix in SUFFIXES):
        if path.is_file():
            if is_pickle(start_of_data(path)):
                raise DataError(f"{path}: is a pickle; expected the JSON file that is published under this name")
            return path
    raise SettingsError(
        f"{annotation}: format {format_name} needs {name} (or {name}.gz, {name}.zst) in the same folder; add the file"
    )


def _name_fault(line: ManifestLine) -> str | None:
    try:
        f"{line.annotation}{line.image_root}".encode()
    except UnicodeEncodeError:
        return "the paths are not valid UTF-8; rename the files"
    return None
