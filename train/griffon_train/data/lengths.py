"""Sample lengths in tokens: estimated from the index, or counted with a tokenizer into a table.

The table is stored next to a set and is not part of it. Its hash is part of the plan's identity, because other lengths
make other batches.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import sha256_of, write_whole
from griffon_shards.support.worker_pool import LocalPool
from griffon_shards.types import Sample
from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, Tokenizer, check_tokenizer, encode
from griffon_train.text.tokenizer import load_tokenizer

IMAGE_TOKENS = 1369
"""Tokens of an image of 1022 px: 73 x 73 patches, halved by the projector to 37 x 37."""

_CHARS_PER_TOKEN = 4
_ROWS_A_JOB = 2000
_MAGIC = "griffon lengths 1"
_RECOUNTED = 4  # rows per source that are counted again as a check


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A table of counted lengths.

    Attributes:
        path: path of the file.
        sha256: SHA-256 of the file.
        of_set: digest of the set whose rows were counted.
        chat: chat template used for counting.
        tokenizer: SHA-256 of the files of the tokenizer used for counting.
        counts: text tokens, shape [rows, variants], memory-mapped.
    """

    path: Path
    sha256: str
    of_set: str
    chat: str
    tokenizer: str
    counts: NDArray[np.uint32]

    def __reduce__(self) -> tuple[Callable[[Path], "Table"], tuple[Path]]:
        return _read_table, (self.path,)  # another process maps the file instead of getting a copy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lengths:
    """Lengths of the rows of several sets.

    Attributes:
        identity: identifies the lengths in the plan's digest.
        sets: the sets, in the plan's order.
        tables: one per set; None for estimates.
    """

    identity: Any
    sets: Sequence[FrozenSet]
    tables: Sequence[Table] | None

    @classmethod
    def estimated(cls, sets: Sequence[FrozenSet]) -> "Lengths":
        """Estimate one token for every four characters, plus the tokens of the image."""
        return cls(identity="estimate", sets=sets, tables=None)

    @classmethod
    def counted(cls, sets: Sequence[FrozenSet], paths: Sequence[Path]) -> "Lengths":
        """Read tables written by `count_lengths`, one per set, in any order.

        Raises:
            SettingsError: a set has no table, a table belongs to none of the sets, or the tables were counted with
                different templates or tokenizers.
            DataError: a table is damaged.
        """
        tables = {table.of_set: table for table in map(_read_table, paths)}
        for frozen in sets:
            table = tables.get(frozen.lock.digest)
            if table is not None and table.counts.shape != (len(frozen), int(frozen.lock.render["variants"])):
                raise DataError(
                    f"{table.path}: the table's shape {table.counts.shape} does not fit {frozen.root}; count it again"
                )
        missing = [str(frozen.root) for frozen in sets if frozen.lock.digest not in tables]
        if missing or len(paths) != len(sets):
            raise SettingsError(
                f"--lengths: {len(paths)} table(s) for {len(sets)} set(s)"
                + (f", none for {', '.join(missing)}" if missing else "")
                + "; give one table per set, written by `griffon-train lengths`"
            )
        ordered = [tables[frozen.lock.digest] for frozen in sets]
        for table in ordered[1:]:
            for name in ("chat", "tokenizer"):
                if getattr(table, name) != getattr(ordered[0], name):
                    raise SettingsError(
                        f"--lengths {ordered[0].path} and {table.path}: counted with a different {name} "
                        f"({getattr(ordered[0], name):.12} and {getattr(table, name):.12}); count both with the model's"
                    )
        return cls(identity=[table.sha256 for table in ordered], sets=sets, tables=ordered)

    def check(self, chat: str, tokenizer: Tokenizer) -> None:
        """Check that the tables were counted as the run counts; some rows of every source are counted again.

        Raises:
            SettingsError: a table was counted with another template or tokenizer.
        """
        for frozen, table in zip(self.sets, self.tables or (), strict=self.tables is not None):
            again = f"count it again with `griffon-train lengths {frozen.root} --chat {chat}` and the model's tokenizer"
            if table.chat != chat:
                raise SettingsError(f"--lengths {table.path}: counted with --chat {table.chat}, not {chat}; {again}")
            for row in (row for source in frozen.lock.sources for row in _some(frozen.rows_of_source(source.tag))):
                stored, counted = (
                    table.counts[row].tolist(),
                    _text_tokens(frozen[row], frozen.where(row), chat, tokenizer),
                )
                if stored != counted:
                    raise SettingsError(
                        f"--lengths {table.path}: not counted with the model's tokenizer: {frozen.where(row)} "
                        f"has {stored} tokens in the table, but {counted} with the model's tokenizer; {again}"
                    )

    def text_tokens(self, set_no: int, rows: slice) -> NDArray[np.int64]:
        """Text tokens of some rows in their longest variant, without the image's; shape [rows]."""
        if self.tables is None:
            chars = self.sets[set_no].index["text_chars"][rows].astype(np.int64)
            return -(-chars // _CHARS_PER_TOKEN)
        longest: NDArray[np.int64] = self.tables[set_no].counts[rows].max(axis=1).astype(np.int64)
        return longest

    def of(self, set_no: int, rows: NDArray[np.int64], variants: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows' variants, including the image's; same shape as `rows`."""
        index = self.sets[set_no].index
        of_image = index["has_image"][rows].astype(np.int64) * IMAGE_TOKENS
        if self.tables is None:
            return of_image + -(-index["text_chars"][rows].astype(np.int64) // _CHARS_PER_TOKEN)
        return of_image + self.tables[set_no].counts[rows, variants].astype(np.int64)


def default_table_path(root: Location, chat: str) -> Path:
    """Return the path of a set's table, named after set and template: next to the set, or here if that is at a URL."""
    if isinstance(root, ObjectPath):
        return Path(f"{root.name}.lengths-{chat}")
    return root.absolute().with_name(f"{root.absolute().name}.lengths-{chat}")


def count_lengths(
    root: Location, tokenizer: str, chat: str, path: Path, *, workers: int, done: Callable[[int], object]
) -> str:
    """Count the tokens of every row and variant of a set, and write the table.

    Args:
        root: the set's folder or its URL.
        tokenizer: folder of a tokenizer, as transformers' AutoTokenizer loads it.
        chat: a name in `griffon_train.text.chat_templates.CHATS`.
        path: where to write the table.
        workers: number of processes.
        done: called with the number of rows counted since the last call.

    Returns:
        The table's SHA-256, which becomes part of a plan's identity.

    Raises:
        SettingsError: the template is unknown, transformers cannot load the tokenizer, or the two do not fit.
        DataError: the set is damaged, a conversation has no `<image>` for its image, or a process was killed.
    """
    check_tokenizer(chat, _tokenizer(tokenizer))  # report errors before processes start
    frozen = open_set(root)
    counts = np.zeros((len(frozen), int(frozen.lock.render["variants"])), "<u4")
    jobs = [(str(root), tokenizer, chat, first) for first in range(0, len(frozen), _ROWS_A_JOB)]
    with LocalPool(workers) as pool:
        for first, part in pool.run(_count, jobs):
            counts[first : first + len(part)] = part
            done(len(part))
    raw = counts.tobytes()
    head = {
        "magic": _MAGIC,
        "set": frozen.lock.digest,
        "chat": chat,
        "tokenizer": _tokenizer_sha256(tokenizer),
        "shape": list(counts.shape),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    content = orjson.dumps(head) + b"\n" + raw
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def _count(job: tuple[str, str, str, int]) -> tuple[int, NDArray[np.uint32]]:
    """Count the tokens of some rows; returns the first row and the counts, shape [rows, variants]."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    root, folder, chat, first = job
    frozen, tokenizer = open_set(root), _tokenizer(folder)
    rows = range(first, min(first + _ROWS_A_JOB, len(frozen)))
    return first, np.array(
        [
            _text_tokens(sample, frozen.where(row), chat, tokenizer)
            for row, sample in zip(rows, frozen.samples(rows), strict=True)
        ],
        np.uint32,
    )


def _text_tokens(sample: Sample, where: str, chat: str, tokenizer: Tokenizer) -> list[int]:
    """Count the text tokens of each variant of a sample; a region counts as one."""
    counts = []
    for rendering in sample.renderings:
        images, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
        try:
            encoded = encode(chat, rendering.turns, tokenizer, images=images, regions=regions)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        counts.append(len(encoded.ids) - encoded.ids.count(IMAGE_TOKEN_ID))
    return counts


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    tokenizer: Tokenizer = load_tokenizer(folder)
    return tokenizer


def _tokenizer_sha256(folder: str) -> str:
    """Hash all files in a folder that define its tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and ("token" in path.name or path.name in ("vocab.json", "merges.txt")):
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _some(rows: range) -> Sequence[int]:
    """Pick a few rows, evenly spaced."""
    return rows[:: max(1, len(rows) // _RECOUNTED)][:_RECOUNTED]


def _read_table(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            head = file.readline(4096)
            fields = orjson.loads(head)
            rows, variants = fields["shape"]
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if fields["magic"] != _MAGIC or fields["sha256"] != digest:
            raise ValueError
        table: NDArray[np.uint32] = np.memmap(path, "<u4", "r", len(head), (rows, variants))
        return Table(
            path=path,
            sha256=sha256_of(path),
            of_set=str(fields["set"]),
            chat=str(fields["chat"]),
            tokenizer=str(fields["tokenizer"]),
            counts=table,
        )
    except (FileNotFoundError, IsADirectoryError):
        raise SettingsError(f"{path}: no such table; create one with `griffon-train lengths`") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise DataError(f"{path}: not a table of lengths, or damaged; count it again") from None
