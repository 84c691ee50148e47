"""Marks: a small JSONL file beside the set."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ...waiting import TIMEOUT_S
from .conftest import ORIGIN, View

HEADERS = {"origin": ORIGIN}
MARKER = """
import sys
from pathlib import Path
from griffon_shards.view.marks import Marks
marks = Marks(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    marks.put(f"DET_{sys.argv[2]}-{number:09d}", "")
"""


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "out.marks.jsonl"


@pytest.fixture
def marked(frozen_set: Path, open_view: Callable[..., View], marks: Path) -> View:
    return open_view(frozen_set, marks=marks)


def put(view: View, row: int, note: object) -> int:
    return view.client.put(f"/api/marks/0/{row}", json={"note": note}, headers=HEADERS).status_code


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_mark_is_written_shown_filtered_by_and_taken_away(marked: View, marks: Path) -> None:
    key = marked.sets[0].frozen.key(7)
    assert put(marked, 7, 'wrong box\n"左"') == 200
    assert lines(marks) == [{"key": key, "note": 'wrong box\n"左"'}]
    assert marked.get("/api/marks") == [{"set": 0, "key": key, "row": 7, "note": 'wrong box\n"左"'}]
    assert marked.rows(marked=1) == [7]
    assert marked.get("/api/samples/0/7")["mark"] == 'wrong box\n"左"'
    put(marked, 3, "")
    put(marked, 7, "changed")
    assert [line["note"] for line in lines(marks)] == ["changed", ""]
    assert (marked.rows(marked=1), marked.rows(marked=1, sort="order", desc=1)) == ([3, 7], [7, 3])
    assert marked.client.delete("/api/marks/0/7", headers=HEADERS).status_code == 200
    assert marked.client.delete("/api/marks/0/7", headers=HEADERS).status_code == 200
    assert (marked.rows(marked=1), len(lines(marks))) == ([3], 1)


def test_what_others_wrote_into_the_file_is_kept_and_shown(marked: View, marks: Path) -> None:
    first = marked.sets[0].frozen.key(0)
    marks.write_text(
        f'\ufeff# mine\nDET_old-000000001\n{{"key": "{first}", "note": "n", "by": "Ann"}}\n\n', encoding="utf-8"
    )
    assert [mark["key"] for mark in marked.get("/api/marks")] == [first]
    put(marked, 1, "new")
    comment, rest = marks.read_text(encoding="utf-8").split("\n", 1)
    assert comment == "# mine"
    marks.write_text(rest, encoding="utf-8")
    assert [line["key"] for line in lines(marks)] == ["DET_old-000000001", first, marked.sets[0].frozen.key(1)]
    assert lines(marks)[1]["by"] == "Ann"


def test_servers_that_mark_at_once_lose_nothing(marks: Path) -> None:
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", MARKER, marks, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
    for server in servers:
        server.communicate(timeout=TIMEOUT_S)
        assert server.returncode == 0
    assert sorted(line["key"] for line in lines(marks)) == [
        f"DET_{name}-{number:09d}" for name in "ab" for number in range(25)
    ]


def test_a_set_that_is_shown_twice_loses_no_marks(copy_of_set: Path, open_view: Callable[..., View]) -> None:
    again = copy_of_set.with_name("again")
    again.symlink_to(copy_of_set)
    sets = open_view(copy_of_set, again).sets
    keys = [f"DET_a-{number:09d}" for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda place: sets[place % 2].marks.put(keys[place], ""), range(len(keys))))
    assert sorted(sets[0].marks.notes()) == sorted(sets[1].marks.notes()) == keys


@pytest.mark.parametrize("content", [b'{"key": "DET', b'{"note": "no key"}\n', b"\xff\xfe\n", b'{"key": 7}\n'])
def test_a_damaged_file_is_left_alone(marked: View, marks: Path, content: bytes) -> None:
    marks.write_bytes(content)
    answer = marked.client.put("/api/marks/0/0", json={"note": "x"}, headers=HEADERS)
    assert answer.status_code == 422
    assert str(marks) in answer.json()["error"]
    assert marks.read_bytes() == content
    sets = marked.get("/api/sets")
    assert (sets["marks_writable"], str(marks) in sets["marks_error"]) == (False, True)
    assert marked.rows(marked=1) == []
    marks.unlink()
    assert put(marked, 0, "x") == 200


def test_a_folder_that_cannot_be_written_is_reported(
    frozen_set: Path, tmp_path: Path, open_view: Callable[..., View]
) -> None:
    marks = tmp_path / "missing" / "marks.jsonl"
    view = open_view(frozen_set, marks=marks)
    assert put(view, 0, "x") == 422
    sets = view.get("/api/sets")
    assert (sets["marks_writable"], str(marks) in sets["marks_error"]) == (False, True)


def test_a_note_of_null_is_no_note(marked: View, marks: Path) -> None:
    key = marked.sets[0].frozen.key(0)
    marks.write_text(json.dumps({"key": key, "note": None}))
    assert [mark["note"] for mark in marked.get("/api/marks")] == [""]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_a_file_that_is_read_only_is_left_alone(marked: View, marks: Path) -> None:
    marks.write_bytes(b"DET_shapes-000000001\n")
    marks.chmod(0o444)
    assert put(marked, 0, "x") == 422
    assert marks.read_bytes() == b"DET_shapes-000000001\n"
    assert not marked.get("/api/sets")["marks_writable"]


def test_a_link_to_a_file_of_marks_stays_a_link(
    frozen_set: Path, tmp_path: Path, open_view: Callable[..., View]
) -> None:
    (tmp_path / "shared").mkdir()
    target, link = tmp_path / "shared" / "marks.jsonl", tmp_path / "link"
    link.symlink_to(target)
    view = open_view(frozen_set, marks=link)
    for note in ("x", "y"):  # the target does not exist, then it does
        assert put(view, 0, note) == 200
        assert (link.is_symlink(), lines(target)[0]["note"]) == (True, note)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"note": 7}', b'{"note": null}', b'{"text": ""}', b'"note"'])
def test_a_body_that_is_no_note_is_refused(marked: View, marks: Path, body: bytes) -> None:
    headers = {**HEADERS, "content-type": "application/json"}
    assert marked.client.put("/api/marks/0/0", content=body, headers=headers).status_code == 400
    assert not marks.exists()


def test_a_browser_that_leaves_while_it_sends_a_note_is_no_error(marked: View, marks: Path) -> None:
    headers = {"host": "127.0.0.1:8765", "content-type": "application/json", **HEADERS}
    path = "/api/marks/0/0"
    scope = {
        **{"type": "http", "method": "PUT", "path": path, "raw_path": path.encode(), "query_string": b""},
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    events: list[dict[str, object]] = [
        {"type": "http.request", "body": b'{"note', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, object]:
        return events.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(marked.client.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
    assert not marks.exists()


def test_notes_have_a_limit(marked: View, marks: Path) -> None:
    assert put(marked, 0, "x" * 2001) == 400
    assert put(marked, 0, "x" * 5000) == 413
    assert put(marked, 0, "左" * 1300) == 200
    form = {**HEADERS, "content-type": "text/plain"}
    assert marked.client.put("/api/marks/0/0", content=b'{"note": ""}', headers=form).status_code == 415
    assert put(marked, 10**9, "x") == 404
    assert len(lines(marks)) == 1


def test_marks_lie_beside_the_set_by_default(copy_of_set: Path, open_view: Callable[..., View]) -> None:
    other = copy_of_set.with_name("other")
    copy_of_set.rename(other)
    copy = other.with_name("copy")
    copy.symlink_to(other)
    view = open_view(other, copy)  # two of them, so that no file of marks is given
    put(view, 0, "x")
    assert lines(other.with_name("other.marks.jsonl"))[0]["note"] == "x"
    assert [mark["set"] for mark in view.get("/api/marks")] == [0, 1]  # both lead to one set
