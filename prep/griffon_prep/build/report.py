"""Reports of finished shards, kept in the work folder so that finished shards are not made again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from griffon_shards.index import INDEX_DTYPE
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A record that was left out."""

    record: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """The result of a job. If every record was rejected, `bytes` is 0 and no shard is written.

    `by_last_part` is the number of images that were found by file name alone.
    """

    tag: str
    shard_no: int
    name: str
    samples: int
    bytes: int
    sha256: str
    rejects: tuple[Reject, ...]
    dropped_boxes: Mapping[str, int]
    by_last_part: int = 0


def report_path(work: Path, shard_no: int) -> Path:
    """Path of a finished shard's report in its source's work folder."""
    return work / f"{shard_no:06d}.report"


def counts_path(work: Path, shard_no: int) -> Path:
    """Path of the counts of a finished shard's samples in its source's work folder."""
    return work / f"{shard_no:06d}.counts"


def write_report(work: Path, report: ShardReport, rows: bytes) -> None:
    """Write the report of a finished shard: a line of JSON, followed by its index rows."""
    write_whole(report_path(work, report.shard_no), orjson.dumps(asdict(report)) + b"\n" + rows)


def read_report(work: Path, shard_no: int) -> tuple[ShardReport, bytes] | None:
    """Read the report and the index rows of a finished shard, or return None if it is not finished."""
    try:
        head, rows = report_path(work, shard_no).read_bytes().split(b"\n", 1)
        fields = orjson.loads(head)
        fields["rejects"] = tuple(Reject(**reject) for reject in fields["rejects"])
        report = ShardReport(**fields)
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # missing or damaged: the shard is made again
        return None
    return (report, rows) if len(rows) == report.samples * INDEX_DTYPE.itemsize else None


def made_report(work: Path, shard_no: int) -> tuple[ShardReport, bytes]:
    """The report and the index rows of a shard that was made.

    Raises:
        DataError: they are not there: somebody has deleted them, or the storage does not show them yet.
    """
    finished = read_report(work, shard_no)
    if finished is None:
        raise DataError(
            f"{report_path(work, shard_no)}: missing or damaged, although the shard was made; rerun the same command "
            "(if machines share this disk over NFS, mount it with lookupcache=positive)"
        )
    return finished
