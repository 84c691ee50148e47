"""Preparing a machine that shares no disk with the one that the command runs on."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from griffon_prep.build.machines import check_unchanged, prepare
from griffon_prep.build.report import made_report
from griffon_prep.readers import FORMATS
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_prep.sources.scan import OwnDisks, ScannedSource, scan_source
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import sha256_of


def test_a_report_that_is_not_to_be_seen_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"000003\.report: missing or damaged, although the shard was made; rerun the"):
        made_report(tmp_path, 3)


def elsewhere(tmp_path: Path, records: int) -> ScannedSource:
    """A source whose jobs run on a machine with other folders for copies and scans."""
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "x"}]
    lines = [json.dumps({"id": str(number), "conversations": turns}) for number in range(records)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    line = ManifestLine(line_no=1, tag="LAZY_a", task="LAZY", annotation="a.jsonl", image_root=".", options={})
    (source,) = find_sources([line], tmp_path, "m.txt")
    scanned = scan_source(source, {path: sha256_of(path) for path in source.files}, tmp_path / "work")
    return replace(
        scanned,
        files=replace(scanned.files, work=tmp_path / "other" / "LAZY_a"),
        own_disks=OwnDisks(run="a run", inputs=tmp_path / "other" / "inputs", scans=True),
    )


def test_threads_of_one_process_prepare_a_source_once(tmp_path: Path) -> None:
    threads, records = 8, 2000
    source = elsewhere(tmp_path, records)
    together = threading.Barrier(threads)

    def prepared(_: int) -> None:
        together.wait()
        prepare(source, None)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(prepared, range(threads)))
    FORMATS["llava"].Reader(source.files).read(records - 1)


def test_a_job_notices_that_another_build_has_fetched_another_annotation(tmp_path: Path) -> None:
    source = elsewhere(tmp_path, 10)
    state = prepare(source, None)
    check_unchanged(source, state)
    (tmp_path / "other" / "inputs" / "versions.json").write_text("{}")  # as of another annotation
    check_unchanged(source, state)
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"a\.jsonl: the file on .* differs from the one that this build began"):
        check_unchanged(source, state)
