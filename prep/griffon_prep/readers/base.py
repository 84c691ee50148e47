"""What a format is: the shape of its module, what it is given, and what its scan gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from griffon_prep.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFiles:
    """The files of a source and what they are wanted for.

    Attributes:
        annotation: not compressed.
        companions: files that the format reads beside the annotation, by their published names; not compressed.
        task: one of `TASKS`.
        options: the manifest's.
        work: folder for whatever scanning leaves for reading.
    """

    annotation: Path
    companions: Mapping[str, Path]
    task: str
    options: Mapping[str, str]
    work: Path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """What scanning found.

    Attributes:
        records: how many, after `split=`.
        vocabulary: sorted names that negatives are drawn from.
        pictures: for REG and VG a number for each record, the same for records of the same picture (and, short of an
            accident of hashing, only for these); uint64, shape [records].
        notes: what the user should know of the file, a line each.
    """

    records: int
    vocabulary: tuple[str, ...] = ()
    pictures: NDArray[np.uint64] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a file begins with.

    Attributes:
        member: `""` for an array or lines; for one large object the name of the first of its arrays that says what it
            is, `images` or `annotations`; `pickle` for a pickle.
        element: the first element that parses; empty for a pickle.
    """

    member: str
    element: Mapping[str, Any]


class Reader(Protocol):
    """What every format's `Reader` does."""

    def read(self, record_no: int) -> Record:
        """The record of this number.

        Raises:
            Rejected: it cannot become a sample.
        """


class Format(Protocol):
    """What a format module has."""

    @property
    def TASKS(self) -> Sequence[str]:
        """The tasks it gives."""

    @property
    def OPTIONS(self) -> Sequence[str]:
        """Manifest options it takes besides `format`, `weight` and `limit`."""

    @property
    def COMPANIONS(self) -> Sequence[str]:
        """Names of the files that must lie beside the annotation."""

    @property
    def EXAMPLES(self) -> Mapping[str, str]:
        """By file, what it holds: whole small files, as JSON; a pickle holds the same values."""

    @property
    def Reader(self) -> Callable[[AnnotationFiles], Reader]:
        """Made of the inputs, after `scan`."""

    def recognises(self, head: Head, /) -> bool:
        """Whether a file that begins so is of this format."""

    def scan(self, inputs: AnnotationFiles, /) -> Scan:
        """Make ready for reading."""
