"""`griffon.lock.json`: what was frozen, with which settings, and the digest that names it.

The digest leaves out what may differ between machines (tool and library versions) and what may differ between runs over
the same samples (weights); everything else in the lock is a function of the inputs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

LOCK_NAME = "griffon.lock.json"
REJECTS_NAME = "rejects.jsonl"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """One manifest line as it was frozen.

    Attributes:
        tag: unique name of the source, and of its folder.
        task: one of `TASKS`.
        format: the annotation's format.
        annotation: its path relative to the data root.
        annotation_bytes: its size.
        annotation_sha256: its hash.
        options: the manifest options that decide which records are taken and how (`limit`, `split`, `rounds`).
        records: how many records the annotation has, after `split`, before `limit` and rejections.
        samples: how many samples were made.
        rejected: rejected records by reason.
        weight: how often an epoch shows the source, as an exact fraction (`2`, `1/2`).
        companions: further files that the records were read from: hashes by name; left out of the JSON where empty.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One shard: name relative to the set, size, hash, and the boxes that its samples lost, by reason."""

    name: str
    samples: int
    bytes: int
    sha256: str
    dropped_boxes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The whole lock. `render` holds every setting that changes bytes."""

    format_version: int = FORMAT_VERSION
    tool_version: str
    library_versions: Mapping[str, str]
    render: Mapping[str, Any]
    sources: tuple[SourceEntry, ...]
    shards: tuple[ShardEntry, ...]
    index_sha256: str
    digest: str = field(default="")

    def fields(self) -> dict[str, Any]:
        """The lock as it stands in its file."""
        fields = asdict(self)
        for source in fields["sources"]:
            if not source["companions"]:
                del source["companions"]
        return fields

    def computed_digest(self) -> str:
        """SHA-256 of the canonical JSON (sorted keys, no blanks, UTF-8) of what identifies the set."""
        fields = self.fields()
        for name in ("digest", "tool_version", "library_versions"):
            del fields[name]
        for source in fields["sources"]:
            del source["weight"]
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def write_lock(root: Path, lock: Lock) -> Lock:
    """Write the lock, with its digest, into `root`: from then on the set is frozen. Returns what was written."""
    whole = replace(lock, digest=lock.computed_digest())
    write_whole(
        root / LOCK_NAME, orjson.dumps(whole.fields(), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"
    )
    return whole


def read_lock(root: Path) -> Lock:
    """The lock of a frozen set.

    Raises:
        DataError: `root` is no set, is not frozen, or its lock is damaged or of another format version.
    """
    path = root / LOCK_NAME
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that `griffon-prep build` wrote")
    try:
        fields = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{root}: not a frozen set, it has no {LOCK_NAME}; a build that was stopped goes on when run again"
        ) from None
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path}: damaged, not JSON ({error}); copy the set again or build it anew") from error
    if not isinstance(fields, dict) or fields.get("format_version") != FORMAT_VERSION:
        raise DataError(f"{path}: its format_version is not {FORMAT_VERSION}; read it with the version that wrote it")
    try:
        fields["sources"] = tuple(SourceEntry(**source) for source in fields["sources"])
        fields["shards"] = tuple(ShardEntry(**shard) for shard in fields["shards"])
        lock = Lock(**fields)
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged, {error}; copy the set again or build it anew") from error
    if lock.computed_digest() != lock.digest:
        raise DataError(f"{path}: altered, its content gives digest {lock.computed_digest()} and it says {lock.digest}")
    return lock
