"""Records that cannot be used: counted, listed, and a stop when there are too many."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]
RECORD: dict[str, Any] = {"width": 64, "height": 48, "image_path": "p.jpg", "expression": "a", "bboxes": [[1, 2, 3, 4]]}


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A folder with one image of 64x48 and a manifest of one VG source."""
    from PIL import Image

    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "p.jpg")
    (folder / "m.txt").write_text("VG & vg.jsonl & .\n")
    return folder


def write(data: Path, records: list[dict[str, Any]]) -> None:
    (data / "vg.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))


def arguments(command: str, data: Path) -> list[object]:
    return [command, "--manifest", data / "m.txt", "--data-root", data]


def test_rejects_are_listed_and_counted(data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    write(
        data, [RECORD, {**RECORD, "image_path": "gone.jpg"}, {**RECORD, "width": 65}, {**RECORD, "bboxes": [[9] * 3]}]
    )
    with (data / "vg.jsonl").open("ab") as file:
        file.write(
            b'{"image_path": "p.jpg", "width": 64, "height": 48, "expression": "a", "bboxes": [[NaN, 0, 1, 1]]}\n'
        )
        file.write(b'{"image_path": "../../../etc/passwd", "width": 1, "height": 1, "expression": "a", "bboxes": []}\n')
        file.write(b'{"image_path": "p.j\n')
    result = prep(*arguments("build", data), "--out", tmp_path / "set")
    assert result.returncode == 0, result.stderr
    rejects = [orjson.loads(line) for line in (tmp_path / "set/rejects.jsonl").read_bytes().splitlines()]
    assert sorted((reject["record"], reject["reason"]) for reject in rejects) == [
        (1, "picture_not_found"),
        (2, "size_mismatch"),
        (3, "bad_record"),
        (4, "all_boxes_dropped"),
        (5, "path_outside_root"),
        (6, "bad_json"),
    ]
    assert all(set(reject) == {"source", "record", "reason", "detail"} and reject["detail"] for reject in rejects)
    (source,) = lock_of(tmp_path / "set")["sources"]
    assert (source["records"], source["samples"]) == (7, 1)
    assert source["rejected"] == {reject["reason"]: 1 for reject in rejects}
    assert "VG: record 1 rejected, picture_not_found: gone.jpg" in result.stderr
    assert "size_mismatch: p.jpg: the image is 64x48, the record says 65x48" in result.stderr


def test_too_many_stop_the_build_and_fixed_data_continue_it(
    data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf
) -> None:
    missing = [{**RECORD, "image_path": f"later/{i}.jpg"} for i in range(12)]
    write(data, [RECORD] * 30 + missing)
    build = [*arguments("build", data), "--samples-per-shard", 3]
    out = tmp_path / "set"
    result = prep(*build, "--out", out)
    assert result.returncode == 1
    assert "VG: 11 records rejected so far (picture_not_found 11), but --max-rejects allows 10 of 42" in result.stderr
    assert not (out / "griffon.lock.json").exists()
    (data / "later").mkdir()
    for i in range(12):
        shutil.copyfile(data / "p.jpg", data / f"later/{i}.jpg")
    assert prep(*build, "--out", out).returncode == 0
    assert lock_of(out)["sources"][0]["samples"] == 42, "pictures that came later are in the shards made before"
    assert prep(*build, "--out", tmp_path / "fresh").returncode == 0
    assert lock_of(out) == lock_of(tmp_path / "fresh")


def test_max_rejects_is_a_share_above_ten(data: Path, tmp_path: Path, prep: Prep) -> None:
    write(data, [RECORD] * 30 + [{**RECORD, "image_path": "gone.jpg"}] * 12)
    assert prep(*arguments("check", data), "--max-rejects", "28%").returncode == 1  # 11 of 42
    assert prep(*arguments("check", data), "--max-rejects", "29%").returncode == 0  # 12 of 42
    assert prep(*arguments("check", data), "--max-rejects", "1.5").returncode == 2


def test_images_without_objects_do_not_count(data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    objects = {"image_path": "p.jpg", "width": 64, "height": 48, "objects": []}
    some = {**objects, "objects": [{"category_name": "a", "bboxes": [[1, 1, 9, 9]]}]}
    (data / "det.jsonl").write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in [objects] * 20 + [some]))
    (data / "m.txt").write_text("DET & det.jsonl & .\n")
    result = prep(*arguments("build", data), "--out", tmp_path / "set")
    assert result.returncode == 0, result.stderr
    assert lock_of(tmp_path / "set")["sources"][0]["rejected"] == {"no_objects": 20}


def test_check_writes_nothing_and_says_the_same(data: Path, tmp_path: Path, prep: Prep) -> None:
    write(data, [RECORD] * 5 + [{**RECORD, "image_path": "gone.jpg"}] * 11)
    before = sorted(tmp_path.rglob("*"))
    result = prep(*arguments("check", data), cwd=tmp_path)
    assert result.returncode == 1
    assert "VG: 11 records rejected, but --max-rejects allows 10" in result.stderr
    assert result.stdout.splitlines()[-1].split()[:3] == ["VG", "16", "5"]
    assert sorted(tmp_path.rglob("*")) == before


def test_quiet_and_verbose(data: Path, tmp_path: Path, prep: Prep) -> None:
    """`-q` leaves warnings; `-v` adds a line for each shard."""
    write(data, [RECORD, {**RECORD, "image_path": "gone.jpg"}])
    quiet = prep(*arguments("check", data), "-q").stderr.splitlines()
    assert [line.split(" ", 2)[2] for line in quiet] == ["warning: VG: record 1 rejected, picture_not_found: gone.jpg"]
    plain = prep(*arguments("check", data)).stderr
    verbose = prep(*arguments("build", data), "--out", tmp_path / "set", "-v").stderr
    shard = "VG/VG-000000.tar: 1 sample, 1 reject, "
    assert shard in verbose and shard not in plain
    assert "VG: 2 of 2 records, " in plain
    assert prep(*arguments("build", data), "--out", tmp_path / "set", "-q").stderr == "", "it is up to date"


def test_dropped_boxes_are_counted(data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    boxes = [[1, 2, 30, 40], [9, 9, 3, 3], [70, 1, 80, 9], [-5, -5, 20, 20]]
    write(data, [{**RECORD, "bboxes": boxes}])
    result = prep(*arguments("build", data), "--out", tmp_path / "set")
    assert lock_of(tmp_path / "set")["shards"][0]["dropped_boxes"] == {"inverted": 1, "outside": 1}
    assert "inverted 1, outside 1" in result.stdout


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (b"", "has no records"),
        (b"[]", "has no records"),
        (b'[{"conversations": []}, {"conv', "never ends"),
        (b'[{"conversations": []}] trailing', "text after the end"),
        (b'{"something": "else"}\n', "matches no known format"),
    ],
)
def test_an_invalid_annotation(data: Path, tmp_path: Path, prep: Prep, annotation: bytes, message: str) -> None:
    (data / "a.json").write_bytes(annotation)
    out = tmp_path / "set"
    result = prep("build", "--data-path", data / "a.json", "--image-folder", data, "--out", out)
    assert result.returncode in (1, 2)
    assert message in result.stderr and str(data / "a.json") in result.stderr
    assert "Traceback" not in result.stderr
    assert not out.exists()


TALKS = [
    {
        "id": i,
        "conversations": [{"from": "human", "value": f"{i}?"}, {"from": "gpt", "value": f"Nr {i}"}],
    }
    for i in range(2000)
]


def test_two_quotes_too_many_swallow_nothing_in_silence(tmp_path: Path, prep: Prep) -> None:
    text = orjson.dumps(TALKS, option=orjson.OPT_INDENT_2).decode()
    for number in (100, 1900):
        text = text.replace(f'"Nr {number}"', f'"Nr "{number}"')
    (tmp_path / "a.json").write_text(text)
    built = prep("build", "--data-path", tmp_path / "a.json", "--image-folder", tmp_path, "--out", tmp_path / "set")
    assert built.returncode == 1
    (line,) = [line for line in built.stderr.splitlines() if "a.json" in line]
    byte = text.index('100"', text.index('"Nr "'))
    location = f"line {text[:byte].count(chr(10)) + 1}, byte {byte}"
    assert (
        f"a.json: not valid JSON at {location}, in element 100 (from 0) of the array: Expecting ',' delimiter, got '100"
        in line
    )
    assert not (tmp_path / "set/griffon.lock.json").exists()


def test_two_quotes_in_one_record_are_one_reject(tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    text = orjson.dumps(TALKS).decode().replace('"Nr 100"', '"Nr "100""').replace('"Nr 1900"', '"Nr "1900""')
    (tmp_path / "a.json").write_text(text)
    out = tmp_path / "set"
    built = prep("build", "--data-path", tmp_path / "a.json", "--image-folder", tmp_path, "--out", out)
    assert built.returncode == 0, built.stderr
    (source,) = lock_of(out)["sources"]
    assert (source["records"], source["samples"], source["rejected"]) == (2000, 1998, {"bad_json": 2})
    rejects = [orjson.loads(line) for line in (out / "rejects.jsonl").read_bytes().splitlines()]
    assert {reject["record"]: reject["detail"].split(":")[0] for reject in rejects} == {
        number: f"line 1, byte {text.index(str(number) + chr(34) * 2)}" for number in (100, 1900)
    }
    keys: set[str] = set()
    for path in out.glob("*/*.tar"):
        with tarfile.open(path) as tar:
            keys.update(tar.getnames())
    assert keys == {f"LAZY-{number:09d}.json" for number in range(2000) if number not in (100, 1900)}
