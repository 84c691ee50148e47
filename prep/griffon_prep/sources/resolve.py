"""Resolving manifest lines to sources: finding their files and detecting their formats."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from griffon_prep.images import absolute_root
from griffon_prep.readers import FILES_OR_FOLDERS, FOLDERS, FORMATS, FURTHER_INPUTS, annotation_in, find_format
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.sources.compressed import SUFFIXES, opened, start_of_data
from griffon_prep.sources.manifest import ManifestLine
from griffon_shards.support.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInput:
    """A source of the manifest with its files found, before any record is read.

    Attributes:
        tag: unique name of the source.
        task: one of `TASKS`.
        data_root: absolute folder that the names of the files are relative to.
        annotation: absolute path of a file or a folder.
        companions: absolute paths of the files and folders that the format reads in addition, by their published,
            uncompressed names.
        image_root: absolute folder.
        options: options in the manifest, except the weight.
        weight: the weight as an exact fraction.
        limit: maximum number of records to use, in shuffled order, or None for all.
        format: annotation format, from the manifest or detected from the content.
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


def find_sources(lines: list[ManifestLine], data_root: Path, manifest: str | None) -> list[SourceInput]:
    """Resolve the paths of a manifest against the data root and detect the annotation formats.

    Args:
        lines: sources of the manifest, or the single source of the command line.
        data_root: folder that relative paths start from.
        manifest: name of the manifest in messages, or None if there is none.

    Raises:
        SettingsError: files or folders are missing, or a format does not match; one line per fault.
        DataError: the only faults are damaged annotations.
    """
    faults: list[tuple[type[ValueError], str]] = []
    sources: list[SourceInput] = []
    root = Path(os.path.normpath(data_root.absolute()))
    for line in lines:
        try:
            sources.append(_find_source(line, root))
        except (SettingsError, DataError) as error:
            where = f"{manifest}:{line.line_no}: {line.tag}: " if manifest is not None else ""
            faults += [(type(error), where + text) for text in str(error).splitlines()]
    if faults:
        settings = any(issubclass(kind, SettingsError) for kind, _ in faults)
        raise (SettingsError if settings else DataError)("\n".join(text for _, text in faults))
    return sources


def _find_source(line: ManifestLine, root: Path) -> SourceInput:
    if fault := _name_fault(line):
        raise SettingsError(fault)
    annotation = Path(os.path.normpath(root / line.annotation))
    image_root = root / line.image_root
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
    return SourceInput(
        tag=line.tag,
        task=line.task,
        data_root=root,
        annotation=annotation,
        companions=companions_of(annotation, format_name, line.options),
        image_root=absolute_root(image_root),
        options={name: value for name, value in line.options.items() if name != "weight"},
        weight=str(line.weight),
        limit=line.limit,
        format=format_name,
    )


def _path_hint(path: str) -> str:
    if "\\" in path:
        return "backslashes do not separate folders on this system; use / instead"
    return "relative paths start from --data-root"


def companions_of(annotation: Path, format_name: str, options: Mapping[str, str]) -> dict[str, Path]:
    """Find the files and folders that a format reads besides an annotation, by their published names.

    Raises:
        SettingsError: one of them is missing.
        DataError: the file that names them is damaged.
    """
    inputs = {name: _companion(annotation, name, format_name) for name in FORMATS[format_name].COMPANIONS}
    if format_name in FURTHER_INPUTS:
        inputs |= FURTHER_INPUTS[format_name](annotation, options)
    return {name: Path(os.path.normpath(path)) for name, path in inputs.items()}


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
