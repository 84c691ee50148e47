"""A run takes a table of lengths only if it was counted as the run counts: with its template and its tokenizer."""

import hashlib
from pathlib import Path

import numpy as np
import orjson
import pytest

from griffon_shards.frozen_set import open_set

from .conftest import command
from .launcher import Launcher


@pytest.mark.parametrize(
    ("chat", "says"),
    [
        ("qwen2", "counted with --chat qwen2, not gemma_instruct; count it again with"),
        ("gemma_instruct", "not counted with the model's tokenizer: "),
    ],
)
def test_a_table_that_does_not_fit_the_run_is_refused(
    chat: str, says: str, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    frozen, table = open_set(frozen_set), tmp_path / "table"
    counts = np.full((len(frozen), 1), 7, "<u4")
    head = {"magic": "griffon lengths 1", "set": frozen.lock.digest, "chat": chat, "tokenizer": "0" * 64}
    shape = {"shape": list(counts.shape), "sha256": hashlib.sha256(counts.tobytes()).hexdigest()}
    table.write_bytes(orjson.dumps(head | shape) + b"\n" + counts.tobytes())
    options = ("--lengths", table, "--global-batch", 4, "--steps", 1, "--workers", 0)
    ended = launcher.run(*command(frozen_set, tmp_path / "run", *options))
    assert ended.codes == [2, 2], ended.said
    for output in ended.said:
        assert f"error: --lengths {table}: {says}" in output.splitlines()[-1]
    assert not (tmp_path / "run").exists()
