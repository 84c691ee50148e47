"""How long a sample is, in tokens: estimated from the index, or counted with a tokenizer into a table of its own.

The table lies beside a set and is no part of it. Its hash enters the plan: other lengths, other batches.
"""

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import sha256_of, write_whole
from griffon_train.data.worker_process import end_with_parent
from griffon_train.text.chat_templates import IMAGE_TOKEN_ID, Tokenizer, check_tokenizer, encode
from griffon_train.text.tokenizer import load_tokenizer

IMAGE_TOKENS = 1369
"""What a picture of 1022 px takes: 73 x 73 patches, halved by the projector to 37 x 37."""

_CHARS_PER_TOKEN = 4
_ROWS_A_JOB = 2000
_MAGIC = "griffon lengths 1"
_RECOUNTED = 4  # rows of a source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A table of counted lengths.

    Attributes:
        path: where it lies.
        sha256: of the file.
        of_set: digest of the set that it is of.
        chat: template that it was counted with.
        tokenizer: SHA-256 of the files of the tokenizer that it was counted with.
        counts: text tokens, shape [rows, variants], memory-mapped.
    """

    path: Path
    sha256: str
    of_set: str
    chat: str
    tokenizer: str
    counts: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lengths:
    """Lengths of the rows of some sets.

    Attributes:
        identity: what they are, for the plan's digest.
        sets: the sets, in the plan's order.
        tables: one for each set; None for estimates.
    """

    identity: Any
    sets: Sequence[FrozenSet]
    tables: Sequence[Table] | None

    @classmethod
    def estimated(cls, sets: Sequence[FrozenSet]) -> "Lengths":
        """A token for every four characters, and the picture's."""
        return cls(identity="estimate", sets=sets, tables=None)

    @classmethod
    def counted(cls, sets: Sequence[FrozenSet], paths: Sequence[Path]) -> "Lengths":
        """Those of tables that `count_lengths` wrote, one for each set, in any order.

        Raises:
            SettingsError: a set has no table among them, a table is of no set, or they were counted in different ways.
            DataError: a table is damaged.
        """
        tables = {table.of_set: table for table in map(_read_table, paths)}
        for each in sets:
            table = tables.get(each.lock.digest)
            if table is not None and table.counts.shape != (len(each), int(each.lock.render["variants"])):
                raise DataError(f"a table of lengths has {table.counts.shape} counts for {each.root}; count it again")
        missing = [str(each.root) for each in sets if each.lock.digest not in tables]
        if missing or len(paths) != len(sets):
            raise SettingsError(
                f"{len(paths)} tables of lengths for {len(sets)} sets"
                + (f", none of {', '.join(missing)}" if missing else "")
                + "; give one for each set, counted with `griffon-train lengths`"
            )
        found = [tables[each.lock.digest] for each in sets]
        for table in found[1:]:
            for name in ("chat", "tokenizer"):
                if getattr(table, name) != getattr(found[0], name):
                    raise SettingsError(
                        f"--lengths {found[0].path} and {table.path}: counted with another {name} "
                        f"({getattr(found[0], name):.12} and {getattr(table, name):.12}); count both with the model's"
                    )
        return cls(identity=[table.sha256 for table in found], sets=sets, tables=found)

    def check(self, chat: str, tokenizer: Tokenizer) -> None:
        """See that the tables were counted as a run counts; some rows of every source are counted again for it.

        Raises:
            SettingsError: with another template, or another tokenizer.
        """
        for each, table in zip(self.sets, self.tables or (), strict=self.tables is not None):
            again = f"count it again with `griffon-train lengths {each.root} --chat {chat}` and the model's tokenizer"
            if table.chat != chat:
                raise SettingsError(f"--lengths {table.path}: counted with --chat {table.chat}, not {chat}; {again}")
            for row in (row for source in each.lock.sources for row in _some(each.rows_of_source(source.tag))):
                there, here = table.counts[row].tolist(), _text_tokens(each, row, chat, tokenizer)
                if there != here:
                    raise SettingsError(
                        f"--lengths {table.path}: counted with another tokenizer than the model's: {each.where(row)} "
                        f"has {there} tokens there and {here} here; {again}"
                    )

    def text_tokens(self, set_no: int, rows: slice) -> NDArray[np.int64]:
        """Tokens of some rows in their longest variant, without those of the picture; shape [rows]."""
        if self.tables is None:
            chars = self.sets[set_no].index["text_chars"][rows].astype(np.int64)
            return -(-chars // _CHARS_PER_TOKEN)
        longest: NDArray[np.int64] = self.tables[set_no].counts[rows].max(axis=1).astype(np.int64)
        return longest

    def of(self, set_no: int, rows: NDArray[np.int64], variants: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows' variants, those of the picture among them; shape as `rows`."""
        index = self.sets[set_no].index
        pictures = index["has_image"][rows].astype(np.int64) * IMAGE_TOKENS
        if self.tables is None:
            return pictures + -(-index["text_chars"][rows].astype(np.int64) // _CHARS_PER_TOKEN)
        return pictures + self.tables[set_no].counts[rows, variants].astype(np.int64)


def default_table_path(root: Path, chat: str) -> Path:
    """Beside the set."""
    return root.absolute().with_name(f"{root.absolute().name}.lengths-{chat}")


def count_lengths(
    root: Path, tokenizer: str, chat: str, path: Path, *, workers: int, done: Callable[[int], object]
) -> str:
    """Count the tokens of every row and variant of a set, and write the table.

    Args:
        root: the set's folder.
        tokenizer: folder of a tokenizer, as transformers' AutoTokenizer takes it.
        chat: a name of `griffon_train.text.chat_templates.CHATS`.
        path: where to write the table.
        workers: processes.
        done: called with the number of rows counted since it was called last.

    Returns:
        The table's SHA-256, which enters plans.

    Raises:
        SettingsError: there is no such template, transformers cannot load the tokenizer, or it is not the template's.
        DataError: the set is damaged, or a picture has no place in its conversation.
    """
    check_tokenizer(chat, _tokenizer(tokenizer))  # what is wrong with it is said before processes start
    frozen = open_set(root)
    counts = np.zeros((len(frozen), int(frozen.lock.render["variants"])), "<u4")
    jobs = [(str(root), tokenizer, chat, first) for first in range(0, len(frozen), _ROWS_A_JOB)]
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
            for (*_, first), part in zip(jobs, pool.map(_count, jobs), strict=True):
                counts[first : first + len(part)] = part
                done(len(part))
    except BrokenProcessPool:
        raise DataError(f"{root}: a counting process was killed, perhaps for memory; take fewer --workers") from None
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


def _count(job: tuple[str, str, str, int]) -> NDArray[np.uint32]:
    root, folder, chat, first = job
    frozen, tokenizer = open_set(root), _tokenizer(folder)
    rows = range(first, min(first + _ROWS_A_JOB, len(frozen)))
    return np.array([_text_tokens(frozen, row, chat, tokenizer) for row in rows], np.uint32)


def _text_tokens(frozen: FrozenSet, row: int, chat: str, tokenizer: Tokenizer) -> list[int]:
    """Of each variant of a row; a region is one."""
    sample = frozen[row]
    counts = []
    for rendering in sample.renderings:
        pictures, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
        try:
            encoded = encode(chat, rendering.turns, tokenizer, pictures=pictures, regions=regions)
        except DataError as error:
            raise DataError(f"{frozen.where(row)}: {error}") from None
        counts.append(len(encoded.ids) - encoded.ids.count(IMAGE_TOKEN_ID))
    return counts


@lru_cache(maxsize=1)
def _tokenizer(folder: str) -> Tokenizer:
    found: Tokenizer = load_tokenizer(folder)
    return found


def _tokenizer_sha256(folder: str) -> str:
    """Of all files in a tokenizer's folder that make it what it is."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and ("token" in path.name or path.name in ("vocab.json", "merges.txt")):
            digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _begin() -> None:
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism


def _some(rows: range) -> Sequence[int]:
    """A few rows, spread evenly."""
    return rows[:: max(1, len(rows) // _RECOUNTED)][:_RECOUNTED]


def _read_table(path: Path) -> Table:
    try:
        with path.open("rb") as file:
            head = file.readline(4096)
            fields = orjson.loads(head)
            rows, variants = fields["shape"]
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if fields["magic"] != _MAGIC or fields["sha256"] != found:
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
        raise SettingsError(f"{path}: no such table; `griffon-train lengths` writes one") from None
    except (ValueError, KeyError, TypeError, OverflowError):
        raise DataError(f"{path}: no table of lengths, or a damaged one; count it again") from None
