"""From manifest lines to sources: files found, formats recognised."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from griffon_prep.images import absolute_root
from griffon_prep.readers import FORMATS, find_format
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.sources.compressed import SUFFIXES, opened, start_of_data
from griffon_prep.sources.manifest import ManifestLine
from griffon_shards.support.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A file that a format reads beside the annotation.

    Attributes:
        name: as it is published, not packed.
        path: absolute.
        stated: relative to the data root; its last part where it lies outside.
    """

    name: str
    path: Path
    stated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInput:
    """A manifest line with its files found: what a build is told of a source, before it reads any of it.

    Attributes:
        tag: unique name of the source.
        task: one of `TASKS`.
        annotation: absolute path.
        annotation_name: the path relative to the data root; its last part where it lies outside.
        image_root: absolute folder.
        options: the manifest's, weight apart.
        weight: as an exact fraction.
        limit: take only the first so many records in shuffled order.
        format: of the annotation, as the manifest says or by content.
        companions: further files that the format reads.
    """

    tag: str
    task: str
    annotation: Path
    annotation_name: str
    image_root: str
    options: Mapping[str, str] = field(hash=False)
    weight: str
    limit: int | None
    format: str
    companions: tuple[Companion, ...]

    @property
    def files(self) -> list[Path]:
        """Every file that decides what the source's records are."""
        return [self.annotation, *(companion.path for companion in self.companions)]

    @property
    def rounds(self) -> int:
        """Most questions of a sample."""
        return int(self.options.get("rounds", "1"))


def find_sources(lines: list[ManifestLine], data_root: Path, manifest: str | None) -> list[SourceInput]:
    """Resolve the paths of a manifest against the data root, and look into the annotations for their formats.

    Args:
        lines: of the manifest, or the one that the command line stands for.
        data_root: where relative paths begin.
        manifest: its name for messages, or None if there is none.

    Raises:
        SettingsError: files or folders are missing, or a format does not fit: one line of message for each.
        DataError: all that is wrong is that annotations are damaged.
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
    if not annotation.is_file():
        missing.append(f"no annotation file {annotation}; {_path_hint(line.annotation)}")
    if not image_root.is_dir():
        missing.append(f"no image folder {image_root}; {_path_hint(line.image_root)}")
    if missing:
        raise SettingsError("\n".join(missing))
    start = start_of_data(annotation)
    pickled = FORMATS["refcoco"]
    if is_pickle(start) and (line.task not in pickled.TASKS or line.options.get("format", "refcoco") != "refcoco"):
        raise DataError(
            f"{annotation}: is a pickle; of these RefCOCO's references are read, for {' and '.join(pickled.TASKS)}"
        )
    found = find_format(partial(opened, annotation), str(annotation), line.task, line.options)
    return SourceInput(
        tag=line.tag,
        task=line.task,
        annotation=annotation,
        annotation_name=_stated(annotation, root),
        image_root=absolute_root(image_root),
        options={name: value for name, value in line.options.items() if name != "weight"},
        weight=str(line.weight),
        limit=line.limit,
        format=found,
        companions=tuple(_companion(annotation, name, found, root) for name in FORMATS[found].COMPANIONS),
    )


def _path_hint(path: str) -> str:
    if "\\" in path:
        return "its backslashes do not part folders here; write / in their place"
    return "relative paths resolve against --data-root"


def _companion(annotation: Path, name: str, found: str, root: Path) -> Companion:
    """A file beside the annotation, packed or not."""
    for path in (annotation.with_name(name + suffix) for suffix in SUFFIXES):
        if path.is_file():
            if is_pickle(start_of_data(path)):
                raise DataError(f"{path}: is a pickle; expected the JSON that is published under this name")
            return Companion(name=name, path=path, stated=_stated(path, root))
    raise SettingsError(f"{annotation}: format {found} needs {name} beside it (or {name}.gz, {name}.zst); put it there")


def _stated(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _name_fault(line: ManifestLine) -> str | None:
    try:
        f"{line.annotation}{line.image_root}".encode()
    except UnicodeEncodeError:
        return "the paths are not UTF-8; rename the files, sets name them in UTF-8"
    return None
