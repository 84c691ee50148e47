"""A count of one has its noun in the singular, whichever command prints it."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from griffon_shards.support.tables import counted
from griffon_shards.types import Sample

Cli = Callable[..., subprocess.CompletedProcess[str]]
PLURAL = re.compile(
    r"(?<![\w.,])1 (?:\w+ )?(?:boxes|samples|shards|records|images|files|lines|characters|categories)\b"
)


@pytest.fixture
def one(tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample]) -> Path:
    """A set of one shard with one sample of one box, and one rejected record."""
    return write_set(tmp_path / "one", [make_sample("DET-000000000")], rejected=1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["info"], " 1 sample "),
        (["ls", "--sort", "box-area"], " 1 box "),
        (["stats", "--workers", "1", "--html", "page.html"], "1 category: "),
        (["verify", "--deep"], " of 1 sample in 1 shard\n"),
    ],
)
def test_of_a_set_of_one_sample(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards_cli: Cli, arguments: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = shards_cli(*arguments, one)
    assert result.returncode == 0, result.stderr
    page = tmp_path / "page.html"
    printed = result.stdout + (page.read_text(encoding="utf-8") if page.exists() else "")
    assert expected in printed
    assert PLURAL.findall(printed) == []


def test_of_two_sets_of_one_sample(one: Path, tmp_path: Path, shards_cli: Cli) -> None:
    def printed(*arguments: object) -> str:
        result = shards_cli(*arguments)
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    listing = tmp_path / "list.txt"
    texts: Sequence[str] = [
        printed("copy", one, tmp_path / "copy"),
        printed("overlap", one, "--eval", tmp_path / "copy", "--no-perceptual", "--workers", 1, "--out", listing),
    ]
    assert "1 image examined" in texts[1] and "wrote 1 line to " in texts[1]
    assert [PLURAL.findall(text) for text in texts] == [[], []]


def test_counts_with_their_nouns() -> None:
    assert [counted(count, "box", "boxes") for count in (0, 1, 2000)] == ["0 boxes", "1 box", "2,000 boxes"]
    assert [counted(count, "image was", "images were") for count in (1, 3)] == ["1 image was", "3 images were"]
    assert [counted(count, "sample") for count in (1, 12)] == ["1 sample", "12 samples"]
