"""A count of one has its noun in the singular, in everything that a build prints and writes."""

from pathlib import Path

import orjson
from PIL import Image

from ..shards.test_singular import PLURAL
from .conftest import Prep


def test_of_a_build_of_one_sample(tmp_path: Path, prep: Prep) -> None:
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "p.jpg")
    record = {"width": 64, "height": 48, "image_path": "far/p.jpg", "expression": "it", "bboxes": [[1, 2, 30, 40]]}
    (tmp_path / "vg.jsonl").write_bytes(orjson.dumps(record))
    (tmp_path / "m.txt").write_text("VG & vg.jsonl & .\n")
    (tmp_path / "keys.txt").write_text("VG-000000007\n")
    arguments = ("--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--exclude-keys", tmp_path / "keys.txt")
    result = prep("build", *arguments, "--out", tmp_path / "set", "--workers", 1, "-v")
    assert result.returncode == 0, result.stderr
    for line in (
        "VG: 1 record, about 1 sample and ",
        "VG/VG-000000.tar: 1 sample, 0 rejects, ",
        "VG: 1 image was found by file name alone; ",
        "keys.txt: 1 key names no record of this build, ",
    ):
        assert line in result.stderr
    page = (tmp_path / "set/report.html").read_text(encoding="utf-8")
    assert "<p>1 record, 1 sample, 0 rejected records.</p>" in page
    assert PLURAL.findall(result.stderr + result.stdout + page) == []
