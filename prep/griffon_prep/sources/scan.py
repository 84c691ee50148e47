"""Scanning sources: annotations are decompressed and scanned so that any record can be read from any process."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from griffon_prep.readers import FORMATS
from griffon_prep.readers.base import AnnotationFiles, Reader, Scan
from griffon_prep.readers.rounds import Rounds, samples_of, write_rounds
from griffon_prep.records import Rejected
from griffon_prep.sources.box_check import check_boxes
from griffon_prep.sources.compressed import is_packed, unpack, unpacked_name
from griffon_prep.sources.part import visual_genome_of, write_part
from griffon_prep.sources.resolve import SourceInput
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole

SUGGESTED_ROUNDS = 8
"""Value of `rounds=` that the size estimate suggests if the manifest has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnDisks:
    """Marks a source of a build whose jobs may run on machines that share no disk with that of the command.

    Attributes:
        run: unique to this run of the command.
        inputs: folder of the copies of annotations, at the same path on each machine.
        scans: whether each machine also scans for itself, because the work folder is not shared.
    """

    run: str
    inputs: Path
    scans: bool


_SCANNED, _VOCABULARY = "source.json", "vocabulary.json"
_LOOK_AT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedSource:
    """A source whose records can be read from any process.

    Attributes:
        source: the source, as the manifest names it.
        files: the files that its reader opens, and its work folder.
        sha256s: hashes of `source.all_files`.
        records: number of potential samples, after `split=`, grouping by `rounds=` and `part=`.
        record_numbers: one past the largest number of a record; with `part=` more than `records`.
        questions: number of records in the annotation; more than `records` with `rounds=`.
        with_rounds: number of potential samples with the suggested `rounds=`; 0 if not applicable.
        has_images: whether any of the first hundred records has an image.
        notes: notes on the file for the user, one line each.
        own_disks: how other machines come by these files, or None if all machines share them.
    """

    source: SourceInput
    files: AnnotationFiles
    sha256s: tuple[str, ...]
    records: int
    record_numbers: int
    questions: int
    with_rounds: int
    has_images: bool
    notes: tuple[str, ...]
    own_disks: OwnDisks | None = None

    @property
    def used_records(self) -> int:
        """Number of records that are used: all, or the first `limit=` in shuffled order."""
        limit = self.source.limit
        return self.records if limit is None else min(limit, self.records)


def scan_source(source: SourceInput, sha256s: Mapping[Path, str], work: Path) -> ScannedSource:
    """Decompress and scan a source into its folder in `work`, unless this was done before.

    Args:
        source: the source.
        sha256s: hashes of its files, and perhaps of others.
        work: the build's work folder.

    Raises:
        SettingsError: an option does not match the file's content.
        DataError: a file is damaged or has no records.
    """
    own_sha256s = tuple(sha256s[path] for path in source.all_files)
    # Everything that a scan depends on. The location of the files is not part of it.
    scan_of = [
        list(own_sha256s[: len(source.files)]),
        source.format,
        source.task,
        sorted(map(list, source.options.items())),
    ]
    files = _files_to_read(source, work / source.tag)
    facts = _facts_of_earlier_scan(files.work, scan_of)
    if facts is None:
        if files.work.exists():  # from another annotation, or damaged: its shards must not be used
            shutil.rmtree(files.work)
        files.work.mkdir(parents=True)
        with naming_source(source, files):
            facts = _scan(source, files)
        write_whole(files.work / _SCANNED, orjson.dumps({"scan_of": scan_of, "facts": facts}))
    notes = tuple(facts.pop("notes"))
    return ScannedSource(source=source, files=files, sha256s=own_sha256s, notes=notes, **facts)


def _scan(source: SourceInput, files: AnnotationFiles) -> dict[str, Any]:
    """Decompress and scan the files; returns the fields of `ScannedSource` that come from their content."""
    for packed, plain in zip(source.files, files.paths, strict=True):
        if plain != packed:
            unpack(packed, plain)
    scan = FORMATS[source.format].scan(files)
    if not scan.records:
        raise DataError(f"{source.annotation}: has no records")
    reader = FORMATS[source.format].Reader(files)
    takes_boxes = "boxes" in FORMATS[source.format].OPTIONS
    name = str(source.annotation)
    check_boxes(reader, scan.records, source.options, source.image_root, name, takes_boxes=takes_boxes)
    write_whole(files.work / _VOCABULARY, orjson.dumps(scan.vocabulary))
    total = records = _grouped(scan, source.rounds, files.work)
    if source.part is not None:
        records = _part_records(source, files, total)
    with_rounds = 0 if scan.round_keys is None else samples_of(scan.round_keys, SUGGESTED_ROUNDS)
    return {
        "records": records,
        "record_numbers": total,
        "questions": scan.records * records // total,
        "with_rounds": with_rounds * records // total,
        "has_images": _has_images(reader, scan.records),
        "notes": scan.notes,
    }


def _facts_of_earlier_scan(work: Path, scan_of: Sequence[object]) -> dict[str, Any] | None:
    """The facts in the work folder, if a scan of the same files and options has completed there."""
    try:
        scanned = orjson.loads((work / _SCANNED).read_bytes())
        return dict(scanned["facts"]) if scanned["scan_of"] == scan_of else None
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def read_vocabulary(work: Path) -> tuple[str, ...]:
    """The sorted names that the negatives of a scanned source are drawn from."""
    return tuple(orjson.loads((work / _VOCABULARY).read_bytes()))


def _grouped(scan: Scan, rounds: int, work: Path) -> int:
    """Number of potential samples. With `rounds=`, the groups of records are written to the work folder."""
    if rounds == 1:
        return scan.records
    assert scan.round_keys is not None, "a format that takes rounds= reports the image of each record"
    return write_rounds(work, scan.round_keys, rounds)


def _part_records(source: SourceInput, files: AnnotationFiles, total: int) -> int:
    """Choose the records of the source's part, by reading all of them once; returns how many they are."""
    assert source.part is not None
    return write_part(
        files.work,
        range(total),
        FORMATS[source.format].Reader(files),
        Rounds(files.work) if source.rounds > 1 else None,
        visual_genome_of(files),
        part=source.part,
        split=source.split,
    )


@contextmanager
def naming_source(source: SourceInput, files: AnnotationFiles) -> Iterator[None]:
    """Context manager that adds the source's tag, and the names of its files as published, to errors raised inside."""
    try:
        yield
    except (SettingsError, DataError) as error:
        message = str(error)
        for packed, plain in zip(source.files, files.paths, strict=True):
            message = message.replace(str(plain), str(packed))
        raise type(error)(f"{source.tag}: {message}") from None


def _files_to_read(source: SourceInput, work: Path) -> AnnotationFiles:
    """The files that the reader opens: the originals, or their decompressed copies, as it needs random access."""

    def plain(path: Path) -> Path:
        return work / f"unpacked-{unpacked_name(path)}" if path.is_file() and is_packed(path) else path

    return AnnotationFiles(
        annotation=plain(source.annotation),
        companions={name: plain(path) for name, path in source.companions.items()},
        task=source.task,
        options=source.options,
        work=work,
    )


def _has_images(reader: Reader, records: int) -> bool:
    for record_no in range(min(records, _LOOK_AT)):
        try:
            if reader.read(record_no).image_path is not None:
                return True
        except Rejected:
            continue
    return False
