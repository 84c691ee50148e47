"""The answers of an evaluation that goes on: a file for each rank, to which every finished batch is appended.

A kill loses at most the batches that were being answered. Any number of ranks resumes from the files of any other: all
of them are read, and a line that a kill or a bad disk has damaged only means that its question is asked again.
"""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import TEMPORARY_PREFIX, remove_temporaries, sync_folder, write_whole
from griffon_shards.support.folder_lock import lock_folder
from griffon_train.evaluation.predictions import Prediction, decode_prediction, encode_prediction, place

_log = logging.getLogger(__name__)

PREDICTIONS, METRICS = "predictions.jsonl", "metrics.json"
"""The results in an output folder."""

_IDENTITY = "evaluation.json"
_ANSWERS = "answers-*.jsonl"

Place = tuple[str, str, int]


def claim(out: Path, identity: Mapping[str, Any]) -> BinaryIO:
    """Lock the output folder of an evaluation, and check that its answers are of this one. Only rank 0 calls this.

    Args:
        out: the folder; created if it does not exist.
        identity: all that the answers depend on.

    Returns:
        The lock, to be closed at the end.

    Raises:
        SettingsError: the folder holds another evaluation, or another process writes into it.
        DataError: the folder cannot be locked.
    """
    if out.is_file():
        raise SettingsError(f"--out {out}: a file; give a folder")
    stored_at = out / _IDENTITY
    if out.is_dir() and not stored_at.exists() and any(map(_is_foreign, out.iterdir())):
        raise SettingsError(f"--out {out}: is not empty and holds no evaluation; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(
        out / "lock",
        whose=f"--out {out}: another evaluation is writing into it",
        instead="wait for it, or give another folder",
    )
    remove_temporaries(out)
    if not stored_at.exists():
        write_whole(stored_at, orjson.dumps(identity, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return lock
    try:
        stored = orjson.loads(stored_at.read_bytes())
    except orjson.JSONDecodeError:
        stored = {}
    if not isinstance(stored, dict):
        stored = {}
    different = [name for name in identity if stored.get(name) != identity[name]]
    if different:
        lock.close()
        changes = "; ".join(f"{name}: {stored.get(name)} before, {identity[name]} now" for name in different)
        raise SettingsError(
            f"--out {out} holds another evaluation ({changes}); give another folder, or delete this one"
        )
    return lock


def _is_foreign(path: Path) -> bool:
    """Whether a path is not what an evaluation leaves that was killed before it named itself."""
    return path.name != "lock" and not path.name.startswith(TEMPORARY_PREFIX)


def read_answers(out: Path) -> dict[Place, Prediction]:
    """Read all answers in an output folder, by set, key and round. Lines that cannot be read are logged."""
    answers = {}
    for path in (*sorted(out.glob(_ANSWERS)), out / PREDICTIONS):
        if not path.exists():
            continue
        unreadable = []
        for line_no, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                prediction = decode_prediction(line)
            except DataError:
                if line:
                    unreadable.append(line_no)
                continue
            answers[place(prediction)] = prediction
        if unreadable:
            _log.info(
                f"{path}: {len(unreadable)} damaged or incomplete line{'s' * (len(unreadable) > 1)}, the first at line "
                f"{unreadable[0]}; what cannot be read is asked again"
            )
    return answers


def finish(out: Path, predictions: Iterable[bytes], metrics: bytes, others: Iterable[Prediction]) -> None:
    """Write the results, and delete the ranks' files, which they replace.

    `others` are answers to questions that this evaluation did not choose; they are kept for one that does.
    """
    kept = out / _ANSWERS.replace("*", "kept")
    if lines := b"".join(encode_prediction(each, {}) for each in others):
        write_whole(kept, lines)
    write_whole(out / PREDICTIONS, b"".join(predictions))
    write_whole(out / METRICS, metrics)
    for path in out.glob(_ANSWERS):
        if path != kept or not lines:
            path.unlink()
    sync_folder(out)


class AnswerFile:
    """The file of one rank."""

    def __init__(self, out: Path, rank: int) -> None:
        path = out / _ANSWERS.replace("*", f"{rank:05d}")
        self._file = path.open("ab", buffering=0)
        self._name = str(path)
        if self._file.tell():  # a kill may have left half a line
            self._write(b"\n")

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Append some answers; they are on disk when this returns.

        Raises:
            OSError: they cannot be written; the error names the file.
        """
        self._write(b"".join(encode_prediction(prediction, {}) for prediction in predictions))

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = self._name
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
