"""The same inputs give the same bytes, however and wherever they are built."""

import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.build.run import build
from griffon_prep.build.settings import BuildSettings
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.manifest import read_manifest
from griffon_prep.sources.resolve import find_sources
from griffon_shards.templates import load_templates

from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]


def settings(data: Path, *, workers: int, start_method: str) -> BuildSettings:
    return BuildSettings(
        sources=find_sources(read_manifest(data / "manifest.txt"), data, "manifest.txt"),
        render=RenderSettings(templates=load_templates(None), samples_per_shard=5),
        max_rejects=Fraction(1, 100),
        workers=workers,
        start_method=start_method,
    )


def tree(out: Path) -> dict[str, bytes]:
    """Every file of a set but the work folder."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and ".griffon-build" not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def reference(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("reference") / "set"
    build(
        settings(small_data, workers=1, start_method="spawn"),
        out,
        reuse=None,
        recheck=False,
        overwrite=False,
    )
    return tree(out)


@pytest.mark.parametrize(("workers", "start_method"), [(2, "spawn"), (4, "spawn"), (1, "fork"), (3, "fork")])
def test_workers_and_start_method(
    small_data: Path, tmp_path: Path, reference: dict[str, bytes], workers: int, start_method: str
) -> None:
    chosen = settings(small_data, workers=workers, start_method=start_method)
    build(chosen, tmp_path / "set", reuse=None, recheck=False, overwrite=False)
    assert tree(tmp_path / "set") == reference


def test_surroundings(small_data: Path, tmp_path: Path, reference: dict[str, bytes], prep: Prep) -> None:
    """Another copy of the inputs, working directory, hash seed, locale, time zone, umask and file order."""
    copy = tmp_path / "elsewhere" / "données"
    for path in sorted(small_data.rglob("*"), reverse=True):  # files come to lie in another order on disk
        if path.is_file():
            target = copy / path.relative_to(small_data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    surroundings = {"PYTHONHASHSEED": "4711", "LC_ALL": "C", "LANG": "C", "TZ": "Pacific/Kiritimati"}
    before = os.umask(0o077)
    try:
        result = prep(
            *("build", "--manifest", "données/manifest.txt", "--data-root", "données", "--out", tmp_path / "set"),
            *("--samples-per-shard", 5),
            cwd=tmp_path / "elsewhere",
            environment=surroundings,
        )
    finally:
        os.umask(before)
    assert result.returncode == 0, result.stderr
    assert tree(tmp_path / "set") == reference


def test_golden_digest(tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    """Bytes must not change between versions of ours unless RENDER_VERSION says so; this set decodes no image."""
    (tmp_path / "chat.jsonl").write_text(
        '{"id": 1, "conversations": [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "4"}]}\n'
        '{"id": 2, "conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "Hello & bye"}]}\n',
        encoding="utf-8",
    )
    result = prep(
        *("build", "--data-path", "chat.jsonl", "--image-folder", ".", "--data-root", tmp_path),
        *("--out", tmp_path / "set", "--templates", one_template_each(tmp_path / "templates")),
    )
    assert result.returncode == 0, result.stderr
    lock = lock_of(tmp_path / "set")
    assert lock["shards"] == [
        {
            "name": "LAZY/LAZY-000000.tar",
            "samples": 2,
            "bytes": 3072,
            "sha256": "cff20fbf2f448ff4ce26a30615c881369e991a07e54b7d55bab8bbabdd9ae268",
            "dropped_boxes": {},
        }
    ]
    assert lock["index_sha256"] == "10e576543bdd5629a7bc883072742288a64a9989769df35368aae89116bd86af"
    assert lock["digest"] == "7767625334ad1c84127faae3bf678bcb78ef576c98116b1c4f54e7c993c0e2a8"
    assert result.stdout.splitlines()[-1] == f"digest {lock['digest']}"


def one_template_each(folder: Path) -> Path:
    """Templates of the test's own, so that a new wording of ours does not change the golden digest."""
    folder.mkdir()
    for name, text in {
        "nvn": "Find <category set>.",
        "1vn": "Where is <expr>?",
        "REG": "What is <objs>?",
        "visual_search": "More of <region>?",
    }.items():
        (folder / f"{name}.json").write_text(f'["{text}"]')
    (folder / "answer_format.json").write_text('{"DET": "", "VISJ": ""}')
    return folder


def test_seed_and_settings_change_the_digest(small_data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    digests = set()
    for index, option in enumerate([(), ("--seed", 1), ("--boxes", "bin"), ("--det-categories", 9)]):
        out = tmp_path / str(index)
        result = prep(
            *("build", "--manifest", small_data / "manifest.txt", "--data-root", small_data, "--out", out, *option)
        )
        assert result.returncode == 0, result.stderr
        digests.add(lock_of(out)["digest"])
    assert len(digests) == 4
