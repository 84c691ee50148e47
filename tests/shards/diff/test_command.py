"""`griffon-shards diff` of sets written by hand: older sets, damage, what is read, and every combination of changes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffon_shards import Sample
from griffon_shards.index import INDEX_NAME
from griffon_shards.sample_json import encode_sample

Cli = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., Sample]
Write = Callable[..., Path]
BOX, OTHER_BOX = "cat-[0.100,0.200,0.300,0.400]", "cat-[0.100,0.200,0.300,0.500]"


@pytest.fixture
def pair(tmp_path: Path, make_sample: Make, write_set: Write) -> tuple[Path, Path]:
    """Two sets of two shards each, which differ in one sample of the second shard."""
    samples = [make_sample(f"DET-{record:09d}", size_px=(40, 30)) for record in range(4)]
    changed = make_sample("DET-000000003", OTHER_BOX, size_px=(40, 30))
    return write_set(tmp_path / "a", samples), write_set(tmp_path / "b", [*samples[:3], changed])


def test_samples_whose_checksums_are_equal_are_not_read(pair: tuple[Path, Path], shards_cli: Cli) -> None:
    for root in pair:
        (root / "DET/DET-000000.tar").unlink()
    result = shards_cli("diff", *pair, "--keys")
    assert (result.returncode, result.stdout) == (1, "changed\tDET-000000003\tconversation,boxes\n")


def test_a_changed_sample_is_shown_with_one_line_above_the_other(pair: tuple[Path, Path], shards_cli: Cli) -> None:
    assert shards_cli("diff", *pair).stdout.endswith(
        "DET-000000003: conversation, boxes\n"
        "  conversation\n"
        "    A  [gpt] cat-[0.100,0.200,0.300,0.400]\n"
        "    B  [gpt] cat-[0.100,0.200,0.300,0.500]\n"
        "  boxes\n"
        "    A  1: [4.0, 6.0, 12.0, 12.0]\n"
        "    B  1: [4.0, 6.0, 12.0, 15.0]\n"
    )
    assert "conversation\n" not in shards_cli("diff", *pair, "--limit", 0).stdout


def test_a_difference_late_in_a_long_text_is_in_the_excerpt(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    roots = [
        write_set(tmp_path / name, [make_sample("DET-000000001", question=f"{'many words ' * 50}{name}{' more' * 50}")])
        for name in ("this", "that")
    ]
    lines = shards_cli("diff", *roots).stdout.splitlines()
    a, b = (next(line for line in lines if line.startswith(f"    {name}  ...")) for name in ("A", "B"))
    assert a.index(" this ") == b.index(" that ")
    assert len(a) == len(b) < 120


def damage_sample(root: Path) -> str:
    tar = root / "DET/DET-000001.tar"
    data = bytearray(tar.read_bytes())
    data[-3000] ^= 1
    tar.write_bytes(data)
    return f"{tar}, sample DET-000000003: damaged"


def remove_shard(root: Path) -> str:
    (root / "DET/DET-000001.tar").unlink()
    return f"{root / 'DET/DET-000001.tar'}, sample DET-000000003: the shard is missing"


def damage_index(root: Path) -> str:
    index = root / INDEX_NAME
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(data)
    return f"{index}: damaged, its SHA-256 is"


def remove_index(root: Path) -> str:
    (root / INDEX_NAME).unlink()
    return f"{root / INDEX_NAME}: missing"


def alter_lock(root: Path) -> str:
    lock = root / "griffon.lock.json"
    lock.write_text(lock.read_text(encoding="utf-8").replace('"samples": 2', '"samples": 3'), encoding="utf-8")
    return f"{lock}: altered"


def remove_lock(root: Path) -> str:
    (root / "griffon.lock.json").unlink()
    return f"{root}: not a frozen set"


def remove_set(root: Path) -> str:
    shutil.rmtree(root)
    return f"{root}: no such folder"


@pytest.mark.parametrize(
    "damage", [damage_sample, remove_shard, damage_index, remove_index, alter_lock, remove_lock, remove_set]
)
@pytest.mark.parametrize(("of_b", "options"), [(False, []), (True, ["--json"])])
def test_damage_is_an_error_and_not_a_difference(
    pair: tuple[Path, Path], shards_cli: Cli, damage: Callable[[Path], str], of_b: bool, options: list[str]
) -> None:
    message = damage(pair[of_b])
    result = shards_cli("diff", *pair, *options)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "arguments", [["{a}"], ["{a}", "{b}", "{b}"], ["{a}", "{b}", "--limit", "-1"], ["{a}", "{b}", "--json", "--keys"]]
)
def test_wrong_usage_is_an_error_and_not_a_difference(
    pair: tuple[Path, Path], shards_cli: Cli, arguments: list[str]
) -> None:
    result = shards_cli("diff", *(argument.format(a=pair[0], b=pair[1]) for argument in arguments))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr


def test_a_full_disk_is_an_error_and_not_a_difference(pair: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "griffon_shards", "diff", *map(str, pair)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert result.returncode not in (0, 1)
    assert result.stderr.startswith("error: [Errno 28] No space left on device; free some space\n")


def test_a_set_without_boxes_in_pixels_against_one_that_has_them(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    newer = [make_sample(f"DET-{record:09d}", size_px=(100, 100)) for record in range(3)]
    older = [
        replace(sample, renderings=tuple(replace(item, boxes_xyxy_px=None) for item in sample.renderings))
        for sample in newer
    ]
    a = write_set(tmp_path / "a", older, render={"boxes": "text", "render_version": 2})
    b = write_set(tmp_path / "b", newer)
    result = shards_cli("diff", a, b)
    assert result.returncode == 1
    assert "\nrender_version  2  3\n" in result.stdout
    assert "DET-000000000: boxes\n  boxes\n    A  -\n    B  1: [10.0, 20.0, 30.0, 40.0]\n" in result.stdout
    (source,) = json.loads(shards_cli("diff", a, b, "--json").stdout)["sources"]
    assert source["changed_parts"] == {"boxes": 3}
    assert source["examples"][0]["parts"][0]["a"] is None


def test_the_rare_change_is_shown_among_many_others(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    keys = [f"DET-{record:09d}" for record in range(9)]
    a = write_set(tmp_path / "a", [make_sample(key, question="old") for key in keys])
    newer = [make_sample(key, question="new") for key in keys[:-1]]
    b = write_set(tmp_path / "b", [*newer, make_sample(keys[-1], OTHER_BOX, question="new")])
    (source,) = json.loads(shards_cli("diff", a, b, "--json").stdout)["sources"]
    assert [example["key"] for example in source["examples"]] == [keys[0], keys[-1]]
    assert source["changed_parts"] == {"conversation": 9, "boxes": 1}


def test_json_of_another_form_is_a_difference_of_encoding(
    tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli
) -> None:
    sample = make_sample("DET-000000001")
    a = write_set(tmp_path / "a", [sample])
    json_bytes = encode_sample(sample).replace(b'"task":"DET"', b'"task": "DET"')
    b = write_set(tmp_path / "b", [sample], json={sample.key: json_bytes})
    assert shards_cli("diff", a, b, "--keys").stdout == "changed\tDET-000000001\tencoding\n"


def test_text_cannot_control_the_terminal(tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli) -> None:
    hostile = "\x1b[2J\x9b31m\x00\u202e图\nB  forged"
    a = write_set(tmp_path / "a", [make_sample("LAZY-000000001", "plain", size_px=None)])
    b = write_set(tmp_path / "b", [make_sample("LAZY-000000001", hostile, size_px=None)])
    text = shards_cli("diff", a, b).stdout
    assert "    B  [gpt] \\x1b[2J\\x9b31m\\x00\\u202e图\\nB  forged\n" in text
    (source,) = json.loads(shards_cli("diff", a, b, "--json").stdout)["sources"]
    assert source["examples"][0]["parts"][0]["b"] == {"from": "gpt", "value": hostile}


def test_records_that_are_far_apart(tmp_path: Path, make_sample: Make, write_set: Write, shards_cli: Cli) -> None:
    """Record numbers use all 32 bits of the index: nothing as long as the largest number is allocated."""
    a = write_set(tmp_path / "a", [make_sample("DET-4294967295"), make_sample("DET-000000000")])
    b = write_set(tmp_path / "b", [make_sample("DET-2147483648"), make_sample("DET-4294967295")])
    assert shards_cli("diff", a, b, "--keys").stdout == "only A\tDET-000000000\nonly B\tDET-2147483648\n"


SETS = st.lists(
    st.tuples(
        st.sampled_from(["DET_a", "DET_b", "VISJ"]),
        st.integers(0, 3),
        st.sampled_from(["old", "new"]),
        st.booleans(),
        st.sampled_from([None, (1.0, 2.0, 3.0, 4.0)]),
        st.sampled_from([(4, 3), (5, 3)]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda facts: facts[:2],
)
Facts = tuple[str, int, str, bool, Any, tuple[int, int]]


def tag_of(key: str) -> str:
    return key.rpartition("-")[0]


@given(one=SETS, other=SETS)
@settings(max_examples=15, deadline=None, database=None)
def test_any_two_sets(
    one: list[Facts],
    other: list[Facts],
    tmp_path_factory: pytest.TempPathFactory,
    make_sample: Make,
    write_set: Write,
    shards_cli: Cli,
) -> None:
    folder = tmp_path_factory.mktemp("any")

    def written(name: str, facts: list[Facts]) -> tuple[Path, dict[str, tuple[Any, ...]]]:
        samples = [
            make_sample(
                f"{tag}-{record:09d}", "None", *["None"] * more, question=text, region_xyxy_px=region, size_px=size_px
            )
            for tag, record, text, more, region, size_px in facts
        ]
        return write_set(folder / name, samples), {
            sample.key: fact[2:] for sample, fact in zip(samples, facts, strict=True)
        }

    (a, facts_a), (b, facts_b) = written("a", one), written("b", other)
    parts = ("conversation", "variants", "region", "image")
    expected = {f"only A {key}" for key in facts_a.keys() - facts_b.keys()}
    expected |= {f"only B {key}" for key in facts_b.keys() - facts_a.keys()}
    for key in facts_a.keys() & facts_b.keys():
        pairs = zip(parts, facts_a[key], facts_b[key], strict=True)
        if names := sorted(part for part, x, y in pairs if x != y):
            expected.add(f"changed {key} {','.join(names)}")
    result = shards_cli("diff", a, b, "--keys")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    listed = [" ".join((*line[:2], *(",".join(sorted(names.split(","))) for names in line[2:]))) for line in lines]
    assert sorted(listed) == sorted(expected)
    orders = [
        [key for tag in dict.fromkeys(map(tag_of, facts)) for key in facts if tag_of(key) == tag]
        for facts in (facts_a, facts_b)
    ]
    assert result.returncode == int(bool(expected) or orders[0] != orders[1])
    shutil.rmtree(folder)
