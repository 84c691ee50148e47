"""Sources ready for reading: an annotation found, hashed, unpacked, recognised and scanned."""

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import orjson

from griffon_prep.images import absolute_root
from griffon_prep.readers import FORMATS, find_format
from griffon_prep.readers.base import Inputs, Reader, Scan
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.readers.rounds import samples_of, write_rounds
from griffon_prep.records import Rejected
from griffon_prep.sources.compressed import SUFFIXES, is_packed, opened, start_of_data, unpack, unpacked_name
from griffon_prep.sources.manifest import ManifestLine
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import sha256_of, write_whole

SUGGESTED_ROUNDS = 8
"""What the estimate says of `rounds=` where a manifest has none."""

_SCANNED = "source.json"
_LOOK_AT = 100


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedSource:
    """What scanning found: enough to read any record of the source from any process.

    Attributes:
        annotation_bytes: size of the file as published.
        annotation_sha256: its hash.
        companions: hashes of the other files, by their names relative to the data root.
        records: how many samples its records may become, after `split=`.
        questions: how many records that are: more than `records` with `rounds=`.
        with_rounds: how many samples they would be with `rounds=` at the suggested number; 0 where it has no use.
        vocabulary: sorted names that negatives are drawn from.
        has_pictures: whether any of the first hundred records has a picture.
        notes: what the user should know of the file, a line each.
    """

    annotation_bytes: int
    annotation_sha256: str
    companions: Mapping[str, str]
    records: int
    questions: int
    with_rounds: int
    vocabulary: tuple[str, ...]
    has_pictures: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """A source to scan into its work folder; the hashes are those of `source.files`."""

    source: SourceInput
    sha256s: tuple[str, ...]
    work: Path


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


def scan_source(job: ScanJob) -> ScannedSource:
    """Unpack and scan a source into its work folder, unless that was done before.

    Raises:
        SettingsError: an option does not fit the file's content.
        DataError: a file is damaged, or has no records.
    """
    source = job.source
    if found := _scanned_before(job):
        return found
    if job.work.exists():  # of another annotation, or damaged: nothing made from it may be used
        shutil.rmtree(job.work)
    job.work.mkdir(parents=True)
    inputs = inputs_of(source, job.work)
    try:
        for packed, plain in zip(source.files, (inputs.annotation, *inputs.companions.values()), strict=True):
            if plain != packed:
                unpack(packed, plain)
        scan = FORMATS[source.format].scan(inputs)
        if not scan.records:
            raise DataError(f"{source.annotation}: has no records")
    except (SettingsError, DataError) as error:
        raise type(error)(f"{source.tag}: {_as_published(str(error), source, inputs)}") from None
    scanned = ScannedSource(
        annotation_bytes=source.annotation.stat().st_size,
        annotation_sha256=job.sha256s[0],
        companions=dict(zip((companion.stated for companion in source.companions), job.sha256s[1:], strict=True)),
        records=_grouped(scan, source.rounds, job.work),
        questions=scan.records,
        with_rounds=0 if scan.pictures is None else samples_of(scan.pictures, SUGGESTED_ROUNDS),
        vocabulary=scan.vocabulary,
        has_pictures=_has_pictures(FORMATS[source.format].Reader(inputs), scan.records),
        notes=scan.notes,
    )
    write_whole(job.work / _SCANNED, orjson.dumps({"scan_of": _scan_identity(job), **asdict(scanned)}))
    return scanned


def _grouped(scan: Scan, rounds: int, work: Path) -> int:
    """How many samples the records may become; with `rounds=` the work folder says which of them share one."""
    if rounds == 1:
        return scan.records
    assert scan.pictures is not None, "a format that takes rounds= says which picture each record is of"
    return write_rounds(work, scan.pictures, rounds)


def _as_published(message: str, source: SourceInput, inputs: Inputs) -> str:
    """An error that names the unpacked copy of a file, made to name the file."""
    copies = (inputs.annotation, *inputs.companions.values())
    for copy, path in zip(copies, source.files, strict=True):
        message = message.replace(str(copy), str(path))
    return message


def inputs_of(source: SourceInput, work: Path) -> Inputs:
    """What the source's format is given: the files themselves, or their copies where packed: it needs random access."""

    def plain(path: Path) -> Path:
        return work / f"unpacked-{unpacked_name(path)}" if is_packed(path) else path

    return Inputs(
        annotation=plain(source.annotation),
        companions={companion.name: plain(companion.path) for companion in source.companions},
        task=source.task,
        options=source.options,
        work=work,
    )


def _scan_identity(job: ScanJob) -> list[object]:
    """What a scan depends on; where the files lie is not part of it."""
    source = job.source
    return [list(job.sha256s), source.format, source.task, sorted(map(list, source.options.items()))]


def _scanned_before(job: ScanJob) -> ScannedSource | None:
    """The scan in the job's work folder, if it is whole and of these very files and use."""
    try:
        fields = orjson.loads((job.work / _SCANNED).read_bytes())
        return read_scanned(job.work) if fields["scan_of"] == _scan_identity(job) else None
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _has_pictures(reader: Reader, records: int) -> bool:
    for record_no in range(min(records, _LOOK_AT)):
        try:
            if reader.read(record_no).image_path is not None:
                return True
        except Rejected:
            continue
    return False


def read_scanned(work: Path) -> ScannedSource:
    """What `scan_source` left in a work folder."""
    fields = orjson.loads((work / _SCANNED).read_bytes())
    del fields["scan_of"]
    lists = {name: tuple(fields[name]) for name in ("vocabulary", "notes")}
    return ScannedSource(**{**fields, **lists})


class Stamps:
    """Hashes of annotation files, remembered with size and time so that an unchanged file is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):  # a damaged memory is no memory
            self._known = orjson.loads(path.read_bytes())

    def sha256s(self, sources: Sequence[SourceInput]) -> dict[Path, str]:
        """The hashes of all files of some sources; a file is read only if its size or time is not the remembered."""
        return {path: self._sha256(path) for source in sources for path in source.files}

    def _sha256(self, path: Path) -> str:
        status = path.stat()
        size, time, digest = self._known.get(str(path), (0, 0, ""))
        if (size, time) != (status.st_size, status.st_mtime_ns):
            digest = sha256_of(path)
            self._known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
            self._changed = True
        return str(digest)

    def save(self) -> None:
        """Write what is remembered, if there is anything new."""
        if self._changed:
            write_whole(self._path, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
