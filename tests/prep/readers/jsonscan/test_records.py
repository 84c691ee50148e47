"""Records by number: the same as `json` reads, in any order, in any process; what is not a record is rejected alone."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.readers.jsonscan.records import JsonRecords, parse_json, scan_json
from griffon_prep.records import Rejected

RECORDS: list[dict[str, Any]] = [{"number": i, "文": 'a "quoted" \\ ' * (i % 7)} for i in range(500)]


@pytest.fixture(params=["array", "pretty", "lines"])
def annotation(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "annotation.json"
    if request.param == "lines":
        path.write_text("\n".join(map(json.dumps, RECORDS)), encoding="utf-8")
    else:
        indent = 1 if request.param == "pretty" else None
        path.write_text(json.dumps(RECORDS, ensure_ascii=False, indent=indent), encoding="utf-8")
    return path


def rejected(read: Any, *arguments: Any) -> tuple[str, str]:  # noqa: ANN401
    with pytest.raises(Rejected) as caught:
        read(*arguments)
    return caught.value.reason, caught.value.detail


def test_every_record_by_its_number(annotation: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    assert scan_json(annotation, table, None) == len(RECORDS)
    records = JsonRecords(annotation, table)
    for i in [*range(499, -1, -1), 7, 7, 250]:
        assert records[i] == (RECORDS[i], 0)


def test_the_table_is_small(annotation: Path, tmp_path: Path) -> None:
    scan_json(annotation, tmp_path / "table", None)
    assert (tmp_path / "table").stat().st_size == 16 * len(RECORDS)


def test_an_element_may_hold_several_records(annotation: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def parts_of(text: bytes) -> int:
        seen.append(json.loads(text)["number"])
        return 1 + seen[-1] % 3

    records = scan_json(annotation, tmp_path / "table", parts_of)
    assert seen == list(range(500))
    expected = [(record, part) for record in RECORDS for part in range(1 + record["number"] % 3)]
    assert records == len(expected)
    reader = JsonRecords(annotation, tmp_path / "table")
    assert [reader[i] for i in range(records)] == expected


def test_a_process_that_was_forked_reads_too(annotation: Path, tmp_path: Path) -> None:
    scan_json(annotation, tmp_path / "table", None)
    records = JsonRecords(annotation, tmp_path / "table")
    child = os.fork()
    if child == 0:
        right = all(records[i][0] == RECORDS[i] for i in range(500))
        os._exit(0 if right else 1)
    assert all(records[i][0] == RECORDS[i] for i in range(499, -1, -1))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"a": 1', "bad_json", ""),
        (b"{'a': 1}", "bad_json", ""),
        (b'{"a": "\xff\xfe"}', "bad_json", ""),
        (b'{"a": "\\ud800"}', "bad_json", ""),
        (b'{"a": NaN, "b": "\\ud800"}', "bad_json", ""),
        (b'{"a": NaN, "b": 1' + b"0" * 400 + b"}", "bad_json", ""),
        (b'{"a": NaNa}', "bad_json", ""),
        (b"[" * 100_000, "bad_json", ""),
        (b'{"NaN": ' + b"[" * 100_000, "bad_json", ""),
        (b"[1, 2]", "bad_record", "expected an object, got list"),
        (b'"text"', "bad_record", "expected an object, got str"),
        (b"null", "bad_record", "expected an object, got NoneType"),
    ],
)
def test_what_is_not_a_record_is_rejected_alone(tmp_path: Path, line: bytes, reason: str, detail: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 0}\n' + line + b'\n{"b": 2}\n')
    assert scan_json(path, tmp_path / "table", None) == 3
    records = JsonRecords(path, tmp_path / "table")
    assert (records[0][0], records[2][0]) == ({"a": 0}, {"b": 2})
    why, what = rejected(records.__getitem__, 1)
    assert why == reason
    assert what and detail in what


def test_numbers_as_python_writes_them_are_read() -> None:
    x1, y1, x2, y2 = parse_json(b"[NaN, Infinity, -Infinity, 2.5]")
    assert math.isnan(x1)
    assert (y1, x2, y2) == (math.inf, -math.inf, 2.5)
    assert parse_json(b'"NaN"') == "NaN"
