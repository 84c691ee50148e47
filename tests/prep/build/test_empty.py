"""Sources of which no sample is left, and builds of one file; `check` and `build` judge alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]
IMAGE = {"image_path": "p.jpg", "width": 64, "height": 48}
SOME = {**IMAGE, "objects": [{"category_name": "a", "bboxes": [[1, 1, 9, 9]]}]}
NOTHING = {**IMAGE, "objects": []}
GONE = {**SOME, "image_path": "gone.jpg"}
TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "p.jpg")
    return folder


def both(prep: Prep, data: Path, sources: dict[str, list[dict[str, Any]]], *more: str) -> list[tuple[int, list[str]]]:
    """Exit code and errors of `build` and of `check`."""
    for tag, lines in sources.items():
        (data / f"{tag}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data / "m.txt").write_text("".join(f"{tag} & {tag}.jsonl & .\n" for tag in sources))
    arguments = ["--manifest", data / "m.txt", "--data-root", data, *more]
    return [told(prep("build", *arguments, "--out", data / "set")), told(prep("check", *arguments))]


def told(result: Any) -> tuple[int, list[str]]:  # noqa: ANN401 - a finished process
    assert "Traceback" not in result.stderr
    return result.returncode, [line for line in result.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([NOTHING], "(no_objects 1 of 1)"),  # which counts nowhere
        ([GONE] * 3, "(picture_not_found 3 of 3)"),  # fewer than stop a build
        ([GONE, NOTHING], "(no_objects 1, picture_not_found 1 of 2)"),
    ],
)
def test_a_source_without_a_sample_is_named(
    data: Path, prep: Prep, lock_of: LockOf, lines: list[dict[str, Any]], why: str
) -> None:
    sources = {"DET_good": [SOME], "DET_empty": lines}
    built, checked = both(prep, data, sources)
    assert built == checked
    assert built[0] == 1
    (error,) = built[1]
    assert error.startswith(f"error: DET_empty: no record became a sample {why}; ")
    assert "--allow-empty" in error
    assert not (data / "set/griffon.lock.json").exists()
    assert both(prep, data, sources, "--allow-empty") == [(0, []), (0, [])]
    assert [source["samples"] for source in lock_of(data / "set")["sources"]] == [1, 0]


def test_all_sources_without_a_sample(data: Path, prep: Prep) -> None:
    sources = {"DET_a": [NOTHING], "VISJ_b": [GONE]}
    built, checked = both(prep, data, sources)
    assert built == checked
    assert [line.split()[1] for line in built[1]] == ["DET_a:", "VISJ_b:"]
    nothing = (1, ["error: no source has any samples, so there is nothing to freeze; fix the data"])
    assert both(prep, data, sources, "--allow-empty") == [nothing, nothing]
    assert not (data / "set/griffon.lock.json").exists()


def one_file(prep: Prep, data: Path, file: str, folder: str = ".") -> tuple[int, list[str]]:
    """Run `check` on one file without a manifest; return its exit code and its lines."""
    return told(prep("check", "--data-path", file, "--image-folder", folder, "--data-root", data))


def test_errors_about_a_single_file_mention_no_manifest(data: Path, prep: Prep) -> None:
    (data / "talk.json").write_text(json.dumps([{"conversations": TALK}]))
    (data / "det.jsonl").write_text(json.dumps(SOME))
    (data / "odd.json").write_text('[{"a": 1}]')
    assert one_file(prep, data, "talk.json") == (0, [])
    missing = "relative paths start from --data-root"
    for file, folder, message in (
        ("gone.json", ".", f"no annotation file {data / 'gone.json'}; {missing}"),
        ("talk.json", "gone", f"no image folder {data / 'gone'}; {missing}"),
        ("det.jsonl", ".", f"{data / 'det.jsonl'}: format ccmd supports DET, RANDDET, REG, VG, VISJ, not LAZY; "),
        ("odd.json", ".", f"{data / 'odd.json'}: the content matches no known format"),
    ):
        code, (error,) = one_file(prep, data, file, folder)
        assert (code, error[: len(message) + 7]) == (2, f"error: {message}")


def test_backslashes_are_reported_as_the_cause(data: Path, prep: Prep) -> None:
    hint = "backslashes do not separate folders on this system; use / instead"
    (data / "m.txt").write_text("LAZY & C:\\data\\talk.json & .\nDET & det.jsonl & D:\\images\n")
    (data / "det.jsonl").write_text(json.dumps(SOME))
    result = prep("check", "--manifest", data / "m.txt", "--data-root", data)
    assert (result.returncode, result.stderr.splitlines()) == (
        2,
        [
            f"error: {data / 'm.txt'}:1: LAZY: no annotation file {data}/C:\\data\\talk.json; {hint}",
            f"error: {data / 'm.txt'}:2: DET: no image folder {data}/D:\\images; {hint}",
        ],
    )
