"""Metrics files when a run is resumed: truncated at their end, never rewritten, and damage in them is named."""

import logging
import os
from pathlib import Path

import orjson
import pytest

from griffon_train.training.metrics import Reporter, StepFigures, truncate_to_step


def line(step: int) -> bytes:
    return orjson.dumps({"step": step, "loss": 1 / (step + 1)}, option=orjson.OPT_APPEND_NEWLINE)


def lines(*steps: int) -> bytes:
    return b"".join(map(line, steps))


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", b""),
        (lines(0, 1, 2, 3, 4, 5, 6), lines(0, 1, 2, 3)),
        (lines(0, 1, 2, 3, 4)[:-9], lines(0, 1, 2, 3)),
        (lines(0, 1, 2, 3, 4)[:-1], lines(0, 1, 2, 3)),
        (lines(0, 1, 2, 3) + bytes(4096), lines(0, 1, 2, 3)),  # what a power cut leaves on some file systems
        (lines(0, 1, 2, 3) + b"{}\n" + lines(5), lines(0, 1, 2, 3)),
        (lines(0, 1), lines(0, 1)),
        (lines(0, 1)[:-3], lines(0)),
        (lines(4, 5), b""),
        (lines(1, 3, 5), lines(1, 3)),  # of validation
    ],
)
def test_a_log_is_truncated_to_the_steps_before(content: bytes, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    inode = path.stat().st_ino
    assert truncate_to_step(path, 4) == ""
    assert path.read_bytes() == kept
    assert path.stat().st_ino == inode, "it is the file that it was"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damaged",
    [b"\n", b"{\n", b"\xff\xfe\n", b"[1]\n", b'{"step":"2"}\n', line(2)[:5] + b"\n", line(97)],
)
def test_damage_in_the_middle_is_named(damaged: bytes, tmp_path: Path) -> None:
    """It stays, as does everything after it; only steps that will come again are truncated."""
    path = tmp_path / "metrics.jsonl"
    content = lines(0, 1) + damaged + lines(3, 4, 5)
    path.write_bytes(content + lines(6, 7))
    assert truncate_to_step(path, 6) == f"{path}, line 3: damaged; the readable lines are kept and the run continues"
    assert path.read_bytes() == content
    path.write_bytes(lines(0) + damaged * 3 + lines(4, 5, 6))
    assert "line 2: damaged, and 2 more; " in truncate_to_step(path, 6)


def test_files_that_need_no_truncation_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(0, 1, 2))
    os.utime(path, ns=(1, 1))
    truncate_to_step(path, 3)
    assert path.stat().st_mtime_ns == 1
    truncate_to_step(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()


def test_figures_of_a_gpu_are_logged_where_there_are_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Tokens per second are those of one of the four devices."""
    zeros: dict[str, object] = dict.fromkeys(("loss", "lr", "grad_norm", "overlong", "without_targets"), 0)
    reporter = Reporter(tmp_path, start=0, steps=2, log_every=1, hook=None)
    for step, of_gpu in enumerate(({}, {"mfu": 0.4123, "peak_memory_bytes": 23_300_000_000})):
        metrics = {**zeros, "step": step, "loss_by_task": {}}
        sums = {"samples": 8, "tokens": 4000, "seconds": 2.0, "wait_s": 0.0, "devices": 4}
        with caplog.at_level(logging.INFO):
            reporter.step(StepFigures(step=step, metrics=metrics, **sums, **of_gpu))  # type: ignore[arg-type]
    reporter.close()
    cpu, gpu = caplog.messages
    assert "4.0 samples/s  500 tokens/s per device  data wait 0%" in cpu
    assert "4.0 samples/s  500 tokens/s per device  MFU 41.2%  peak 23.3 GB  data wait 0%" in gpu
    first, second = (orjson.loads(line) for line in (tmp_path / "timing.jsonl").read_bytes().splitlines())
    assert "mfu" not in first and "peak_memory_bytes" not in first
    assert (second["mfu"], second["peak_memory_bytes"]) == (0.4123, 23_300_000_000)
