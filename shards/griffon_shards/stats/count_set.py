"""Counts a frozen set, in several processes."""

import os
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.stats.counts import CountTokens, SetCounts
from griffon_shards.stats.figures import Figures, make_figures
from griffon_shards.storage import Location
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.worker_pool import Engine, InProcess, LocalPool

_ROWS_PER_JOB = 1000
_Job = tuple[str, int, int, str | None]


def count_set(
    root: Location,
    *,
    workers: int,
    tokenizer: Path | None = None,
    rows_per_job: int = _ROWS_PER_JOB,
    done: Callable[[int], object] = lambda rows: None,
) -> Figures:
    """The figures of a set: the same for any number of workers. Every sample is read and checked against its crc32.

    Args:
        root: the set's folder, or its URL.
        workers: number of processes.
        tokenizer: folder with the `tokenizer.json` of a tokenizer, to count tokens too.
        rows_per_job: samples that a process counts at a time.
        done: called with the number of samples counted since the last call.

    Raises:
        SettingsError: the tokenizer cannot be loaded.
        DataError: the set is damaged, or a process was killed.
    """
    if tokenizer is not None:
        token_counter(str(tokenizer))  # report errors before processes start
    frozen = open_set(root)
    workers = min(workers, -(-len(frozen) // rows_per_job))
    with LocalPool(workers) if workers > 1 else InProcess() as pool:
        return count_frozen(frozen, pool, tokenizer=tokenizer, rows_per_job=rows_per_job, done=done)


def count_frozen(
    frozen: FrozenSet,
    pool: Engine,
    *,
    tokenizer: Path | None = None,
    rows_per_job: int = _ROWS_PER_JOB,
    done: Callable[[int], object] = lambda rows: None,
) -> Figures:
    """`count_set` of an open set, in the processes of `pool`.

    Raises:
        DataError: the set is damaged, or a process was killed.
    """
    frozen.check_shards()
    starts = range(0, len(frozen), rows_per_job)
    folder = None if tokenizer is None else str(tokenizer)
    jobs: list[_Job] = [(str(frozen.root), start, min(start + rows_per_job, len(frozen)), folder) for start in starts]
    counts = SetCounts(frozen.lock.render["boxes"])
    for rows, part in pool.run(_count_rows, jobs):
        counts.merge(part)
        done(rows)
    return make_figures(
        counts,
        [(source.tag, source.task) for source in frozen.lock.sources],
        digest=frozen.lock.digest,
        tokenizer="" if tokenizer is None else tokenizer.resolve().name,
    )


def _count_rows(job: _Job) -> tuple[int, SetCounts]:
    """Count some rows; returns their number and the counts."""
    root, start, stop, folder = job
    frozen = open_set(root).in_order()
    counts = SetCounts(frozen.lock.render["boxes"])
    count_tokens = None if folder is None else token_counter(folder)
    for row in range(start, stop):
        sample = frozen[row]
        try:
            counts.add(sample, count_tokens)
        except DataError as error:
            raise DataError(f"{error}; `griffon-shards verify --deep {root}` lists all damage") from None
    return stop - start, counts


@lru_cache(maxsize=1)
def token_counter(folder: str) -> CountTokens:
    """Counts the tokens of a text, without those that a tokenizer adds at its ends.

    Raises:
        SettingsError: the library tokenizers is not installed, or the folder has no readable `tokenizer.json`.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the processes are the parallelism
    path = Path(folder) / "tokenizer.json"
    try:
        library = import_module("tokenizers")  # not in the base install
    except ModuleNotFoundError:
        raise SettingsError(
            "--tokenizer: the library tokenizers is not installed; install it with `pip install tokenizers`, or leave "
            "out --tokenizer"
        ) from None
    try:
        loaded = library.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"--tokenizer {folder}: has no tokenizer.json; save one with transformers' "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises no narrower class for a damaged file
        raise SettingsError(f"--tokenizer {path}: cannot be read: {error}") from None
    loaded.no_truncation()

    def count_tokens(text: str) -> int:
        return len(loaded.encode(text, add_special_tokens=False).ids)

    return count_tokens
