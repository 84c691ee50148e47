"""A machine that has only the annotation, and not the work folder of the command's machine, prepares itself."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from griffon_prep.build.machines import check_unchanged, prepare
from griffon_prep.build.report import made_report
from griffon_prep.readers import FORMATS
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_prep.sources.scan import OwnDisks, ScannedSource, scan_source
from griffon_shards.support.errors import DataError, SettingsError

RECORD = '{"id": "%d", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "%d 猫"}]}\n'
LAST = 99


@pytest.fixture
def elsewhere(tmp_path: Path) -> ScannedSource:
    """A source that was scanned on one machine, as another machine gets it."""
    annotation = tmp_path / "a.jsonl"
    annotation.write_text("".join(RECORD % (number, number) for number in range(LAST + 1)))
    line = ManifestLine(line_no=1, tag="LAZY_x", task="LAZY", annotation="a.jsonl", image_root=".", options={})
    sources = find_sources([line], tmp_path, "m.txt")
    sha256s = AnnotationHashes(tmp_path / "hashes.json").sha256s(sources)
    scanned = scan_source(sources[0], sha256s, tmp_path / "here")
    there = tmp_path / "there"
    return replace(
        scanned,
        files=replace(scanned.files, work=there / "work" / "LAZY_x"),
        own_disks=OwnDisks(run="1", inputs=there / "inputs", scans=True),
    )


def read_last(scanned: ScannedSource) -> object:
    return FORMATS[scanned.source.format].Reader(scanned.files).read(LAST)


def test_threads_that_prepare_at_once(elsewhere: ScannedSource) -> None:
    """All of them can read once their own call has returned."""

    def prepare_and_read(_: int) -> object:
        prepare(elsewhere, None)
        return read_last(elsewhere)

    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(prepare_and_read, range(8)))
    assert all("99 猫" in str(record) for record in records)


def test_another_file_than_that_of_the_command(elsewhere: ScannedSource) -> None:
    elsewhere.source.annotation.write_text(RECORD % (0, 0))
    with pytest.raises(DataError, match=r"LAZY_x: .*a\.jsonl: the file on \S+ differs from the one"):
        prepare(elsewhere, None)


def test_a_file_that_is_not_on_this_machine(elsewhere: ScannedSource) -> None:
    elsewhere.source.annotation.unlink()
    with pytest.raises(DataError, match=r"a\.jsonl: missing on \S+; files that are not in an"):
        prepare(elsewhere, None)


def test_a_work_folder_that_cannot_be_made(elsewhere: ScannedSource) -> None:
    own_disks = OwnDisks(run="1", inputs=Path("/proc/griffon/inputs"), scans=True)
    with pytest.raises(SettingsError, match=r"/proc/griffon\S*: cannot be made on \S+ .*give --work a folder"):
        prepare(replace(elsewhere, own_disks=own_disks), None)


def test_a_job_notices_that_another_build_has_fetched_another_annotation(elsewhere: ScannedSource) -> None:
    state = prepare(elsewhere, None)
    check_unchanged(elsewhere, state)
    assert elsewhere.own_disks is not None
    (elsewhere.own_disks.inputs / "versions.json").write_text("{}")  # as after fetching any annotation
    check_unchanged(elsewhere, state)
    elsewhere.source.annotation.write_text(RECORD % (0, 0))
    with pytest.raises(DataError, match=r"a\.jsonl: the file on \S+ differs from the one"):
        check_unchanged(elsewhere, state)


def test_a_report_that_is_not_to_be_seen_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"000003\.report: missing or damaged, although the shard was made; rerun the"):
        made_report(tmp_path, 3)
