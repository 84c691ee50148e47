"""`griffon.lock.json`: the sources and shards of a set, the settings it was built with, and its digest.

The digest leaves out tool and library versions, which may differ between machines, and weights, which may differ
between trainings on the same samples. Everything else in the lock is a function of the inputs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.storage import Location
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

LOCK_NAME = "griffon.lock.json"
REJECTS_NAME = "rejects.jsonl"
REPORT_NAME = "report.html"
"""The build's page about the set: written beside it, not part of it, and read by nobody."""
FORMAT_VERSION = 1
FIRST_WITH_BOXES = 3
"""The `render_version` since which samples have their answers' boxes in pixels."""

FIRST_WITH_IMAGE_PATHS = 4
"""The `render_version` since which samples say where their images came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """A source of the set: one line of the manifest.

    Attributes:
        tag: unique name of the source and of its folder.
        task: one of `TASKS`.
        format: format of the annotation file.
        annotation: path of the annotation file or folder, relative to the data root.
        annotation_bytes: its size; of a folder, that of its texts.
        annotation_sha256: its hash; of a folder, that of the list of its files.
        options: options that select records or group them (`limit`, `split`, `rounds`; `part` with `val_share` and
            `val_seed`).
        records: number of records in the annotation, after `split` and `part`, before `limit` and rejections.
        samples: number of samples in the set.
        rejected: rejected records by reason.
        weight: how many times an epoch goes through the source, as an exact fraction (`2`, `1/2`).
        companions: hashes of further files that the records were read from, by name; not in the JSON if empty.
        excluded: hashes of the lists of images and keys that were left out, by file name; not in the JSON if empty.
    """

    tag: str
    task: str
    format: str
    annotation: str
    annotation_bytes: int
    annotation_sha256: str
    options: Mapping[str, str]
    records: int
    samples: int
    rejected: Mapping[str, int]
    weight: str
    companions: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """A shard: path relative to the set, size, hash, and the number of boxes left out of its samples, by reason."""

    name: str
    samples: int
    bytes: int
    sha256: str
    dropped_boxes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The content of the lock. `render` holds every setting that changes bytes."""

    format_version: int = FORMAT_VERSION
    tool_version: str
    library_versions: Mapping[str, str]
    render: Mapping[str, Any]
    sources: tuple[SourceEntry, ...]
    shards: tuple[ShardEntry, ...]
    index_sha256: str
    digest: str = field(default="")

    @property
    def has_boxes(self) -> bool:
        """Whether the samples have their answers' boxes in pixels."""
        return bool(self.render.get("render_version", FIRST_WITH_BOXES) >= FIRST_WITH_BOXES)

    @property
    def has_image_paths(self) -> bool:
        """Whether the samples have the paths of their images."""
        return bool(self.render.get("render_version", 0) >= FIRST_WITH_IMAGE_PATHS)

    def fields(self) -> dict[str, Any]:
        """The lock as the JSON object in its file."""
        fields = asdict(self)
        for source in fields["sources"]:
            for name in ("companions", "excluded"):
                if not source[name]:
                    del source[name]
        return fields

    def computed_digest(self) -> str:
        """SHA-256 of the canonical JSON (sorted keys, no whitespace, UTF-8) of the fields that identify the set."""
        fields = self.fields()
        for name in ("digest", "tool_version", "library_versions"):
            del fields[name]
        for source in fields["sources"]:
            del source["weight"]
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def write_lock(root: Path, lock: Lock) -> Lock:
    """Write the lock with its digest into `root`, which freezes the set. Returns the lock with its digest."""
    complete, data = lock_bytes(lock)
    write_whole(root / LOCK_NAME, data)
    return complete


def lock_bytes(lock: Lock) -> tuple[Lock, bytes]:
    """The lock with its digest, and the content of its file."""
    complete = replace(lock, digest=lock.computed_digest())
    return complete, orjson.dumps(complete.fields(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"


def read_lock(root: Location) -> Lock:
    """Read the lock of a frozen set.

    Raises:
        DataError: `root` is not a set, is not frozen, or its lock is damaged or has another format version.
    """
    path = root / LOCK_NAME
    try:
        fields = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give the --out folder of `griffon-prep build`") from None
        raise DataError(
            f"{root}: not a frozen set, it has no {LOCK_NAME}; if its build was interrupted, rerun it"
        ) from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: damaged, not JSON ({error}); copy the set again or rebuild it") from error
    if not isinstance(fields, dict) or fields.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path}: its format_version is not {FORMAT_VERSION}; read it with the version that wrote it")
    try:
        fields["sources"] = tuple(SourceEntry(**source) for source in fields["sources"])
        fields["shards"] = tuple(ShardEntry(**shard) for shard in fields["shards"])
        lock = Lock(**fields)
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged, {error}; copy the set again or rebuild it") from error
    if lock.computed_digest() != lock.digest:
        raise DataError(f"{path}: altered, its content has digest {lock.computed_digest()}, it states {lock.digest}")
    return lock
