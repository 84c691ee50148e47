"""The interface of a format module: its members, its inputs, and the result of its scan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from griffon_prep.readers.rounds import RoundKeys
from griffon_prep.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFiles:
    """The annotation files of a source, and the task that they are read for.

    Attributes:
        annotation: path of the annotation, a file (decompressed) or a folder.
        companions: further files (decompressed) and folders that records are read from, by their published names.
        task: one of `TASKS`.
        options: the options of the manifest line.
        work: folder for the index that scanning writes and reading uses.
    """

    annotation: Path
    companions: Mapping[str, Path] = field(hash=False)
    task: str
    options: Mapping[str, str] = field(hash=False)
    work: Path

    @property
    def paths(self) -> list[Path]:
        """All files, the annotation first."""
        return [self.annotation, *self.companions.values()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """The result of a scan.

    Attributes:
        records: number of records, after `split=`.
        vocabulary: sorted category names from which negatives are drawn.
        round_keys: for REG and VG, which records may share a sample.
        notes: remarks about the file for the user, one line each.
    """

    records: int
    vocabulary: tuple[str, ...] = ()
    round_keys: RoundKeys | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The beginning of a file, from which its format is detected.

    Attributes:
        member: `""` for an array or JSONL; for one large object, the first of its arrays `images` and `annotations`;
            `pickle`, `csv`, `yaml` and `parquet` for such files; `folder of sentences` for Flickr30k's; `folder of XML`
            and `folder of JSON` for the first such file of a folder.
        element: the first element that parses; of XML the root, of CSV the columns, of YAML the keys, all without
            values; empty for a pickle.
    """

    member: str
    element: Mapping[str, Any]


class Reader(Protocol):
    """Reads the records of one scanned source."""

    def read(self, record_no: int) -> Record:
        """Return the record with this number.

        Raises:
            Rejected: the record cannot become a sample.
        """


class Format(Protocol):
    """The members of a format module."""

    @property
    def TASKS(self) -> Sequence[str]:
        """Supported tasks."""

    @property
    def OPTIONS(self) -> Sequence[str]:
        """Manifest options that the format takes besides those that all formats take."""

    @property
    def COMPANIONS(self) -> Sequence[str]:
        """Names of the files that must be in the annotation's folder."""

    @property
    def EXAMPLES(self) -> Mapping[str, str]:
        """Small complete example files as JSON, by file name; a pickle or a Parquet file holds the same values."""

    @property
    def Reader(self) -> Callable[[AnnotationFiles], Reader]:
        """Creates a reader from the inputs, after `scan`."""

    def recognises(self, head: Head, /) -> bool:
        """Whether a file with this beginning has this format."""

    def scan(self, inputs: AnnotationFiles, /) -> Scan:
        """Scan the annotation once and write the index that `Reader` needs."""
