"""Sources ready for reading: an annotation found, hashed, unpacked, recognised and scanned."""

import contextlib
import gzip
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import orjson
import zstandard

from griffon_prep.manifest import ManifestLine
from griffon_prep.pictures import absolute_root
from griffon_prep.readers import FORMATS, Reader, find_format, open_reader
from griffon_prep.records import Rejected
from griffon_shards.errors import DataError, SettingsError
from griffon_shards.files import sha256_of, whole_file, write_whole

_SCANNED = "source.json"
_UNPACKED = "annotation"
_LOOK_AT = 100


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
    """

    tag: str
    task: str
    annotation: Path
    annotation_name: str
    image_root: str
    options: Mapping[str, str]
    weight: str
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedSource:
    """What scanning found: enough to read any record of the source from any process.

    Attributes:
        format: of the annotation.
        annotation_bytes: size of the file as published.
        annotation_sha256: its hash.
        records: how many it has, after `split=`.
        vocabulary: sorted names that DET's negatives are drawn from.
        has_pictures: whether any of the first hundred records has a picture.
    """

    format: str
    annotation_bytes: int
    annotation_sha256: str
    records: int
    vocabulary: tuple[str, ...]
    has_pictures: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """A source to scan into its work folder."""

    source: SourceInput
    annotation_sha256: str
    work: Path


def find_sources(lines: list[ManifestLine], data_root: Path, manifest: str) -> list[SourceInput]:
    """Resolve the paths of a manifest against the data root.

    Raises:
        SettingsError: annotations or image roots are missing: one line of message for each.
    """
    faults: list[str] = []
    sources: list[SourceInput] = []
    root = Path(os.path.normpath(data_root.absolute()))
    for line in lines:
        annotation = Path(os.path.normpath(root / line.annotation))
        image_root = root / line.image_root
        where = f"{manifest}:{line.line_no}: {line.tag}"
        if fault := _name_fault(line):
            faults.append(f"{where}: {fault}")
            continue
        if not annotation.is_file():
            faults.append(f"{where}: no annotation file {annotation}; relative paths resolve against --data-root")
        if not image_root.is_dir():
            faults.append(f"{where}: no image folder {image_root}; relative paths resolve against --data-root")
        inside = annotation.is_relative_to(root)
        sources.append(
            SourceInput(
                tag=line.tag,
                task=line.task,
                annotation=annotation,
                annotation_name=annotation.relative_to(root).as_posix() if inside else annotation.name,
                image_root=absolute_root(image_root),
                options={name: value for name, value in line.options.items() if name != "weight"},
                weight=str(line.weight),
                limit=line.limit,
            )
        )
    if faults:
        raise SettingsError("\n".join(faults))
    return sources


def _name_fault(line: ManifestLine) -> str | None:
    try:
        f"{line.annotation}{line.image_root}".encode()
    except UnicodeEncodeError:
        return "its paths are not UTF-8; rename the files, sets name them in UTF-8"
    return None


def scan_source(job: ScanJob) -> ScannedSource:
    """Unpack, recognise and scan a source into its work folder, unless that was done before.

    Raises:
        SettingsError: the format is unknown or cannot give the task.
        DataError: the file is damaged, or has no records.
    """
    source = job.source
    if found := _scanned_before(job):
        return found
    if job.work.exists():  # of another annotation, or damaged: nothing made from it may be used
        shutil.rmtree(job.work)
    job.work.mkdir(parents=True)
    readable = _unpack(source.annotation, job.work)
    try:
        name = find_format(readable, source.task, source.options)
        records, vocabulary = FORMATS[name].scan(readable, source.task, source.options, job.work)
    except (SettingsError, DataError) as error:
        told = str(error).removeprefix(f"{readable}: ")
        raise type(error)(f"{source.tag}: {source.annotation}: {told}") from None
    if not records:
        raise DataError(f"{source.tag}: {source.annotation}: has no records")
    scanned = ScannedSource(
        format=name,
        annotation_bytes=source.annotation.stat().st_size,
        annotation_sha256=job.annotation_sha256,
        records=records,
        vocabulary=vocabulary,
        has_pictures=_has_pictures(open_reader(name, readable, source.task, source.options, job.work), records),
    )
    write_whole(job.work / _SCANNED, orjson.dumps({"scan_of": _scan_identity(job), **asdict(scanned)}))
    return scanned


def _scan_identity(job: ScanJob) -> list[object]:
    """What a scan depends on; where the annotation lies is not part of it."""
    source = job.source
    return [job.annotation_sha256, source.annotation.suffix, source.task, sorted(map(list, source.options.items()))]


def _scanned_before(job: ScanJob) -> ScannedSource | None:
    """The scan in the job's work folder, if it is whole and of this very annotation and use."""
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
    return ScannedSource(**{**fields, "vocabulary": tuple(fields["vocabulary"])})


def readable_annotation(annotation: Path, work: Path) -> Path:
    """The annotation itself, or its content in the work folder where it is compressed: spans need random access."""
    return work / _UNPACKED if annotation.suffix in (".gz", ".zst") else annotation


def _unpack(annotation: Path, work: Path) -> Path:
    target = readable_annotation(annotation, work)
    if target == annotation:
        return annotation
    try:
        with annotation.open("rb") as packed, whole_file(target) as out:
            if annotation.suffix == ".gz":
                with gzip.open(packed) as plain:
                    shutil.copyfileobj(plain, out, 1 << 20)
            else:
                _unpack_zstd(packed, out)
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise DataError(f"{annotation}: damaged or cut short, it does not unpack ({error}); fetch it again") from None
    return target


def _unpack_zstd(packed: BinaryIO, out: BinaryIO) -> None:
    """Frame by frame: the library's own streams take a file that is cut short for one that ends."""
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    while piece := packed.read(1 << 16):
        while piece:
            frame = frame or decompressor.decompressobj()
            out.write(frame.decompress(piece))
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("its last frame never ends")


class Stamps:
    """Hashes of annotations, remembered with size and time so that an unchanged file is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):  # a damaged memory is no memory
            self._known = orjson.loads(path.read_bytes())

    def sha256(self, annotation: Path) -> str:
        """The hash of an annotation; read only if its size or time is not the remembered one."""
        status = annotation.stat()
        size, time, digest = self._known.get(str(annotation), (0, 0, ""))
        if (size, time) != (status.st_size, status.st_mtime_ns):
            digest = sha256_of(annotation)
            self._known[str(annotation)] = [status.st_size, status.st_mtime_ns, digest]
            self._changed = True
        return str(digest)

    def save(self) -> None:
        """Write what is remembered, if there is anything new."""
        if self._changed:
            write_whole(self._path, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
