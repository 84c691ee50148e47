"""Scanning sources: annotations are decompressed and scanned so that any record can be read from any process."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from griffon_prep.readers import FORMATS
from griffon_prep.readers.base import AnnotationFiles, Reader, Scan
from griffon_prep.readers.rounds import samples_of, write_rounds
from griffon_prep.records import Rejected
from griffon_prep.sources.compressed import is_packed, unpack, unpacked_name
from griffon_prep.sources.resolve import SourceInput
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole

SUGGESTED_ROUNDS = 8
"""Value of `rounds=` that the size estimate suggests if the manifest has none."""

_SCANNED = "source.json"
_LOOK_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedSource:
    """The result of scanning a source.

    Attributes:
        annotation_bytes: size of the annotation file as published.
        annotation_sha256: hash of the annotation file.
        companions: hashes of the additional files, by their paths relative to the data root.
        records: number of potential samples, after `split=` and grouping by `rounds=`.
        questions: number of records in the annotation; more than `records` with `rounds=`.
        with_rounds: number of potential samples with the suggested `rounds=`; 0 if not applicable.
        vocabulary: sorted names that negatives are drawn from.
        has_images: whether any of the first hundred records has an image.
        notes: notes on the file for the user, one line each.
    """

    annotation_bytes: int
    annotation_sha256: str
    companions: Mapping[str, str]
    records: int
    questions: int
    with_rounds: int
    vocabulary: tuple[str, ...]
    has_images: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """A source to scan into its work folder. The hashes are those of `source.files`."""

    source: SourceInput
    sha256s: tuple[str, ...]
    work: Path


def scan_source(job: ScanJob) -> ScannedSource:
    """Decompress and scan a source into its work folder, unless this was done before.

    Raises:
        SettingsError: an option does not match the file's content.
        DataError: a file is damaged or has no records.
    """
    source = job.source
    if scanned_before := _scanned_before(job):
        return scanned_before
    if job.work.exists():  # from another annotation, or damaged: its shards must not be used
        shutil.rmtree(job.work)
    job.work.mkdir(parents=True)
    inputs = inputs_of(source, job.work)
    with naming_source(source, inputs):
        for packed, plain in zip(source.files, (inputs.annotation, *inputs.companions.values()), strict=True):
            if plain != packed:
                unpack(packed, plain)
        scan = FORMATS[source.format].scan(inputs)
        if not scan.records:
            raise DataError(f"{source.annotation}: has no records")
        has_images = _has_images(FORMATS[source.format].Reader(inputs), scan.records)
    scanned = ScannedSource(
        annotation_bytes=source.annotation.stat().st_size,
        annotation_sha256=job.sha256s[0],
        companions=dict(zip((companion.stated for companion in source.companions), job.sha256s[1:], strict=True)),
        records=_grouped(scan, source.rounds, job.work),
        questions=scan.records,
        with_rounds=0 if scan.pictures is None else samples_of(scan.pictures, SUGGESTED_ROUNDS),
        vocabulary=scan.vocabulary,
        has_images=has_images,
        notes=scan.notes,
    )
    write_whole(job.work / _SCANNED, orjson.dumps({"scan_of": _scan_identity(job), **asdict(scanned)}))
    return scanned


def _grouped(scan: Scan, rounds: int, work: Path) -> int:
    """Number of potential samples. With `rounds=`, the groups of records are written to the work folder."""
    if rounds == 1:
        return scan.records
    assert scan.pictures is not None, "a format that takes rounds= reports the image of each record"
    return write_rounds(work, scan.pictures, rounds)


@contextmanager
def naming_source(source: SourceInput, inputs: AnnotationFiles) -> Iterator[None]:
    """Context manager that adds the source's tag, and the names of its files as published, to errors raised inside."""
    try:
        yield
    except (SettingsError, DataError) as error:
        raise type(error)(f"{source.tag}: {_as_published(str(error), source, inputs)}") from None


def _as_published(message: str, source: SourceInput, inputs: AnnotationFiles) -> str:
    """Replace the names of decompressed copies in an error message with the names of the original files."""
    copies = (inputs.annotation, *inputs.companions.values())
    for copy, path in zip(copies, source.files, strict=True):
        message = message.replace(str(copy), str(path))
    return message


def inputs_of(source: SourceInput, work: Path) -> AnnotationFiles:
    """The files that the reader opens: the originals, or their decompressed copies, as it needs random access."""

    def plain(path: Path) -> Path:
        return work / f"unpacked-{unpacked_name(path)}" if is_packed(path) else path

    return AnnotationFiles(
        annotation=plain(source.annotation),
        companions={companion.name: plain(companion.path) for companion in source.companions},
        task=source.task,
        options=source.options,
        work=work,
    )


def _scan_identity(job: ScanJob) -> list[object]:
    """Everything that a scan depends on. The location of the files is not part of it."""
    source = job.source
    return [list(job.sha256s), source.format, source.task, sorted(map(list, source.options.items()))]


def _scanned_before(job: ScanJob) -> ScannedSource | None:
    """The scan in the job's work folder, if it is complete and of the same files and options."""
    try:
        fields = orjson.loads((job.work / _SCANNED).read_bytes())
        return read_scanned(job.work) if fields["scan_of"] == _scan_identity(job) else None
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _has_images(reader: Reader, records: int) -> bool:
    for record_no in range(min(records, _LOOK_AT)):
        try:
            if reader.read(record_no).image_path is not None:
                return True
        except Rejected:
            continue
    return False


def read_scanned(work: Path) -> ScannedSource:
    """Read the result of `scan_source` from a work folder."""
    fields = orjson.loads((work / _SCANNED).read_bytes())
    del fields["scan_of"]
    lists = {name: tuple(fields[name]) for name in ("vocabulary", "notes")}
    return ScannedSource(**{**fields, **lists})
