"""The command line `griffon-shards`, as it is used."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from griffon_shards import FrozenSet, open_set
from griffon_shards.grammar import parse_answer
from griffon_shards.sample_json import encode_sample

Cli = Callable[..., subprocess.CompletedProcess[str]]

TAGS = ["LAZY_caption", "LAZY_text", "DET_shapes", "RANDDET_shapes", "REG_shapes", "VG_shapes", "VISJ_shapes"]


@pytest.fixture(scope="module")
def shards(frozen_set: Path) -> FrozenSet:
    return open_set(frozen_set)


def keys_in(shards: FrozenSet, *tags: str) -> list[str]:
    return [shards.key(row) for tag in tags for row in shards.rows_of_source(tag)]


def output(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A shell line in which `griffon-shards` stands for ours, with Python's own output buffers."""
    line = command.replace("griffon-shards", f"{sys.executable} -m griffon_shards")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment)


def test_info_shows_what_a_set_holds(frozen_set: Path, shards: FrozenSet, shards_cli: Cli) -> None:
    text = output(shards_cli("info", frozen_set))
    for source in shards.lock.sources:
        shard_bytes = [shard.bytes for shard in shards.lock.shards if shard.name.startswith(f"{source.tag}/")]
        row = rf"^{source.tag} +{source.records} +{source.samples} +- +- +{len(shard_bytes)} +[\d.]+ [kM]B$"
        assert re.search(row, text, re.MULTILINE)
    assert re.search(r"^all +288 +288 +- +- +18 +7\.\d MB$", text, re.MULTILINE)
    assert re.search(r"^LAZY +60 samples  LAZY_caption, LAZY_text$", text, re.MULTILINE)
    assert "boxes=text" in text
    assert "samples_per_shard=[20, 20]" in text
    assert text.endswith(f"digest {shards.lock.digest}\n")


def test_info_for_programs(frozen_set: Path, shards: FrozenSet, shards_cli: Cli) -> None:
    info = json.loads(output(shards_cli("info", frozen_set, "--json")))
    assert info["digest"] == shards.lock.digest
    assert info["samples"] == 288
    assert info["bytes"] == sum(path.stat().st_size for path in frozen_set.rglob("*.tar"))
    assert info["render"] == shards.lock.render
    assert [source["tag"] for source in info["sources"]] == TAGS
    assert [source["samples"] for source in info["sources"]] == [36, 24, 24, 24, 96, 60, 24]


def test_info_shows_rejects_dropped_boxes_and_weights(demo_data: Path, tmp_path: Path, shards_cli: Cli) -> None:
    annotation = demo_data / "ccmd/det.jsonl"
    lines = [orjson.loads(line) for line in annotation.read_bytes().splitlines()]
    lines[0]["image_path"] = "nowhere.png"
    lines[1]["objects"].append({"category_name": "ghost", "bboxes": [[5, 5, 1, 1], [9, 9, 2, 2]]})
    (tmp_path / "det.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    (tmp_path / "m.txt").write_text(f"DET_0 & det.jsonl & {demo_data}/pictures & weight=0.5\n", encoding="utf-8")
    build = [sys.executable, "-m", "griffon_prep", "build", "--manifest", "m.txt", "--out", "out"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    text = output(shards_cli("info", tmp_path / "out"))
    assert re.search(r"^DET_0 +24 +23 +picture_not_found 1 +inverted 2 +1 ", text, re.MULTILINE)
    assert "DET_0 (weight 1/2)" in text
    (source,) = json.loads(output(shards_cli("info", tmp_path / "out", "--json")))["sources"]
    assert (source["rejected"], source["dropped_boxes"]) == ({"picture_not_found": 1}, {"inverted": 2})
    output(shards_cli("verify", tmp_path / "out", "--deep"))


def test_ls_lists_every_sample_in_order(frozen_set: Path, shards: FrozenSet, shards_cli: Cli) -> None:
    lines = output(shards_cli("ls", frozen_set)).splitlines()
    assert [line.split()[0] for line in lines] == keys_in(shards, *TAGS)
    for row, line in enumerate(lines):
        facts = shards.index[row]
        sample = shards[row]
        kind = "text" if sample.image is None else "image"
        boxes = "box" if facts["boxes"] == 1 else "boxes"
        assert line.split() == [
            *(sample.key, sample.task, shards.lock.shards[facts["shard"]].name, f"{facts['bytes']:,}", "B", kind),
            *(str(facts["boxes"]), boxes, f"{facts['text_chars']:,}", "characters"),
        ]


@pytest.mark.parametrize(
    ("options", "tags", "limit"),
    [
        (["--source", "VG_shapes"], ["VG_shapes"], None),
        (["--task", "LAZY"], ["LAZY_caption", "LAZY_text"], None),
        (["--task", "LAZY", "--source", "LAZY_text"], ["LAZY_text"], None),
        (["--task", "DET", "--source", "LAZY_text"], [], None),
        (["--limit", "3"], TAGS, 3),
        (["--limit", "9999"], TAGS, None),
        (["--task", "VISJ", "--limit", "1"], ["VISJ_shapes"], 1),
    ],
)
def test_ls_lists_what_is_asked_for(
    frozen_set: Path, shards: FrozenSet, shards_cli: Cli, options: list[str], tags: list[str], limit: int | None
) -> None:
    lines = output(shards_cli("ls", frozen_set, *options)).splitlines()
    assert [line.split()[0] for line in lines] == keys_in(shards, *tags)[:limit]


def test_cat_gives_a_line_of_json_for_every_sample(frozen_set: Path, shards: FrozenSet, shards_cli: Cli) -> None:
    lines = output(shards_cli("cat", frozen_set)).splitlines()
    for row, line in enumerate(lines):
        sample = shards[row]
        assert json.loads(line) == {"__key__": sample.key, **json.loads(encode_sample(sample))}
    assert len(lines) == 288


def test_cat_gives_what_is_asked_for(frozen_set: Path, shards: FrozenSet, shards_cli: Cli) -> None:
    for options, tags in ((["--source", "VG_shapes"], ["VG_shapes"]), (["--task", "LAZY"], TAGS[:2])):
        lines = output(shards_cli("cat", frozen_set, *options)).splitlines()
        assert [json.loads(line)["__key__"] for line in lines] == keys_in(shards, *tags)
    (line,) = output(shards_cli("cat", frozen_set, "--key", "VG_shapes-000000005")).splitlines()
    assert json.loads(line)["__key__"] == "VG_shapes-000000005"


def test_cat_gives_variants_too(variants_set: Path, shards_cli: Cli) -> None:
    (line,) = output(shards_cli("cat", variants_set, "--key", "VG_shapes-000000005")).splitlines()
    (variant,) = json.loads(line)["variants"]
    assert variant["conversations"][1]["value"].startswith(json.loads(line)["conversations"][1]["value"][:5])


@pytest.mark.parametrize(
    "command",
    [
        "griffon-shards cat '{}' | head -1",
        "griffon-shards ls '{}' | head -1",
        "griffon-shards cat '{}' --key VG_shapes-000000005 | true",  # all of it still in a buffer
    ],
)
def test_a_reader_that_closes_the_pipe_is_not_an_error(frozen_set: Path, command: str) -> None:
    result = shell(command.format(frozen_set) + "; echo ${PIPESTATUS[0]}")
    assert result.stderr == ""
    *lines, code = result.stdout.splitlines()
    assert code in ("0", "1")  # 0 if all went into the pipe before it was closed
    assert len(lines) == ("head" in command)


def test_a_full_disk_is_named_in_one_line(frozen_set: Path) -> None:
    result = shell(f"griffon-shards cat '{frozen_set}' --key VG_shapes-000000005 > /dev/full")
    assert result.stderr.splitlines()[0].startswith("error: ")
    assert "No space left on device" in result.stderr
    assert "Traceback (most" not in result.stderr


def test_show_prints_the_conversation_and_where_it_came_from(
    frozen_set: Path, shards: FrozenSet, shards_cli: Cli
) -> None:
    sample = shards[shards.row("VISJ_shapes-000000003")]
    assert sample.region_xyxy_px is not None
    text = output(shards_cli("show", frozen_set, sample.key))
    assert text.startswith(
        f"{sample.key}  VISJ\nfrom   record 3 of ccmd/visj.jsonl\nin     VISJ_shapes/VISJ_shapes-00000"
    )
    assert f"image  {sample.image_format} {sample.width_px}x{sample.height_px}, " in text
    assert "region {:.1f}, {:.1f}, {:.1f}, {:.1f} px\n".format(*sample.region_xyxy_px) in text
    first, *others = sample.boxes_xyxy_px or ()
    assert "\nboxes  {:.2f}, {:.2f}, {:.2f}, {:.2f} px\n".format(*first) in text
    assert all("\n       {:.2f}, {:.2f}, {:.2f}, {:.2f} px\n".format(*box) in text for box in others)
    for turn in sample.turns:
        assert f"\n[{turn.role}] {turn.text}\n" in text


def test_show_escapes_what_a_terminal_would_obey(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., object], shards_cli: Cli
) -> None:
    answer = "two\nlines\tof 字\u3000with \x1b]52;c;YQ==\x07 \x9b31m \u202e and \0"
    made = write_set(tmp_path / "set", [make_sample("LAZY_a-000000000", answer, size_px=None)])
    text = output(shards_cli("show", made, "LAZY_a-000000000"))
    assert text.endswith("[gpt] two\nlines\tof 字\u3000with \\x1b]52;c;YQ==\\x07 \\x9b31m \\u202e and \\x00\n")


def test_show_prints_every_variant(variants_set: Path, shards_cli: Cli) -> None:
    sample = open_set(variants_set)[open_set(variants_set).row("REG_shapes-000000003")]
    text = output(shards_cli("show", variants_set, sample.key))
    first, second = text.split("variant 0")[1].split("variant 1")
    for part, rendering in zip((first, second), sample.renderings, strict=True):
        assert all(turn.text in part for turn in rendering.turns)


@pytest.mark.parametrize("key", ["DET_shapes-000000003", "VG_shapes-000000005", "RANDDET_shapes-000000002"])
@pytest.mark.parametrize("style", ["text", "bin"])
def test_show_draws_the_boxes(
    frozen_set: Path, variants_set: Path, tmp_path: Path, shards_cli: Cli, key: str, style: str
) -> None:
    root = frozen_set if style == "text" else variants_set
    drawing = tmp_path / "图 drawn.png"
    assert f"wrote {drawing}" in output(shards_cli("show", root, key, "--draw", drawing))
    sample = open_set(root)[open_set(root).row(key)]
    assert sample.image is not None
    plain = np.asarray(Image.open(BytesIO(sample.image)).convert("RGB")).astype(int)
    drawn = np.asarray(Image.open(drawing)).astype(int)
    assert drawn.shape == plain.shape == (sample.height_px, sample.width_px, 3)
    differs = (drawn != plain).any(axis=2)
    boxes = parse_answer(sample.turns[-1].text, sample.task, style)
    assert boxes
    for _, (x1, y1, x2, y2) in boxes:
        right, bottom = (
            min(int(x2 * sample.width_px), sample.width_px - 1),
            min(int(y2 * sample.height_px), sample.height_px - 1),
        )
        left, top = int(x1 * sample.width_px), int(y1 * sample.height_px)
        edge = np.concatenate([differs[bottom, left:right], differs[top:bottom, right], differs[top:bottom, left]])
        assert edge.mean() > 0.9
    assert differs.mean() < 0.5


def test_show_of_a_text_has_no_image_to_draw(frozen_set: Path, tmp_path: Path, shards_cli: Cli) -> None:
    result = shards_cli("show", frozen_set, "LAZY_text-000000003", "--draw", tmp_path / "x.png")
    assert (result.returncode, result.stderr) == (1, "error: LAZY_text-000000003: has no image to draw on\n")
    assert not (tmp_path / "x.png").exists()
    assert "image" not in output(shards_cli("show", frozen_set, "LAZY_text-000000003"))


def test_show_names_a_drawing_that_cannot_be_written(frozen_set: Path, tmp_path: Path, shards_cli: Cli) -> None:
    result = shards_cli("show", frozen_set, "VG_shapes-000000005", "--draw", tmp_path / "x.xyz")
    assert result.returncode == 2
    assert "name it .png or .jpg" in result.stderr
    result = shards_cli("show", frozen_set, "VG_shapes-000000005", "--draw", tmp_path / "nowhere/x.png")
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {tmp_path / 'nowhere/x.png'}: No such file or directory\n",
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "{}", "VG_shapes-000000999"], "no sample has the key 'VG_shapes-000000999'"),
        (["cat", "{}", "--key", "nonsense"], "no sample has the key 'nonsense'"),
        (["ls", "{}", "--source", "VG"], "no source 'VG'; it has LAZY_caption, LAZY_text, DET_shapes"),
        (["cat", "{}", "--source", "VG"], "no source 'VG'; it has LAZY_caption, LAZY_text, DET_shapes"),
        *(([command, "{}/VG_shapes"], "not a frozen set") for command in ("info", "ls", "cat", "verify")),
        *(([command, "{}/nowhere"], "no such folder") for command in ("info", "ls", "cat", "verify")),
        (["show", "{}/nowhere", "x"], "no such folder"),
    ],
)
def test_wrong_data_is_one_line_and_code_1(
    frozen_set: Path, shards_cli: Cli, arguments: list[str], expected: str
) -> None:
    result = shards_cli(*(argument.replace("{}", str(frozen_set)) for argument in arguments))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {frozen_set}")
    assert expected in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ls", "{}", "--task", "COUNT"],
        ["ls", "{}", "--limit", "0"],
        ["ls"],
        ["show", "{}"],
        ["ls", "{}", "-x"],
    ],
)
def test_wrong_settings_are_code_2(frozen_set: Path, shards_cli: Cli, arguments: list[str]) -> None:
    result = shards_cli(*(argument.replace("{}", str(frozen_set)) for argument in arguments))
    assert (result.returncode, result.stdout) == (2, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize("command", [["ls"], ["cat"], ["cat", "--key", "DET_shapes-000000003"]])
def test_damage_stops_what_reads_samples(copy_of_set: Path, shards_cli: Cli, command: list[str]) -> None:
    """`ls` reads the index only, and lists; `cat` stops at the damaged sample and names it."""
    shards = open_set(copy_of_set)
    row = shards.row("DET_shapes-000000003")
    tar = copy_of_set / shards.lock.shards[shards.index[row]["shard"]].name
    data = bytearray(tar.read_bytes())
    data[int(shards.index[row]["offset"]) + 700] ^= 4
    tar.write_bytes(data)
    result = shards_cli(command[0], copy_of_set, *command[1:])
    if command == ["ls"]:
        assert len(output(result).splitlines()) == 288
        return
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tar}, sample DET_shapes-000000003: damaged")
    assert len(result.stdout.splitlines()) == (row if len(command) == 1 else 0)


def test_help_and_version(shards_cli: Cli) -> None:
    text = output(shards_cli("--help"))
    assert all(command in text for command in ("info", "ls", "show", "cat", "verify"))
    assert re.fullmatch(r"griffon-shards, version \d+\.\d+\.\d+\n", output(shards_cli("--version")))


def test_the_codes_reach_the_shell(frozen_set: Path) -> None:
    result = shell(
        f"griffon-shards info '{frozen_set}' > /dev/null; echo $?; griffon-shards info '{frozen_set}/x'; echo $?; "
        f"griffon-shards info; echo $?"
    )
    assert result.stdout.split() == ["0", "1", "2"]
    assert "Traceback" not in result.stderr
