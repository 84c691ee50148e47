"""`griffon-shards diff` of sets that `griffon-prep build` froze: what a reviewer asks about another build."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from griffon_prep.cli import main as prep
from griffon_shards import open_set
from griffon_shards.sample_json import encode_sample

Cli = Callable[..., subprocess.CompletedProcess[str]]
Build = Callable[..., Path]
TEMPLATES = Path(__file__).parents[3] / "shards/griffon_shards/templates"


@pytest.fixture(scope="module")
def manifest(demo_data: Path) -> list[str]:
    """The lines of the manifest that `frozen_set` was built from."""
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "& llava/" in line or "& ccmd/" in line]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build a set from a data root and manifest lines, in this process."""

    def run(root: Path, lines: Sequence[str], *options: str) -> Path:
        folder = tmp_path_factory.mktemp("built")
        (folder / "manifest.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths = ["--manifest", str(folder / "manifest.txt"), "--data-root", str(root), "--out", str(folder / "out")]
        command = ["build", *paths, "--workers", "1", "--samples-per-shard", "20", *options]
        result = CliRunner().invoke(prep, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return folder / "out"

    return run


@pytest.fixture(scope="module")
def data_copy(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Copy the sample data, for a test to change."""
    return lambda: Path(shutil.copytree(demo_data, tmp_path_factory.mktemp("changed") / "data"))


@pytest.fixture(scope="module")
def other_seed(build: Build, demo_data: Path, manifest: list[str]) -> Path:
    return build(demo_data, manifest, "--seed", "1")


@pytest.fixture(scope="module")
def other_template(
    build: Build, demo_data: Path, manifest: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = Path(shutil.copytree(TEMPLATES, tmp_path_factory.mktemp("templates") / "own"))
    (folder / "REG.json").write_text('["Which object is in <objs>?"]', encoding="utf-8")
    return build(demo_data, manifest, "--templates", str(folder))


@pytest.fixture(scope="module")
def other_box(build: Build, data_copy: Callable[[], Path], manifest: list[str]) -> Path:
    """One box of DET's record 5 has moved by a pixel, and the last record of VISJ is gone."""
    root = data_copy()
    det, visj = root / "ccmd/det.jsonl", root / "ccmd/visj.jsonl"
    lines = det.read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[5])
    record["objects"][0]["bboxes"][0][2] -= 1
    lines[5] = json.dumps(record)
    det.write_text("\n".join(lines) + "\n", encoding="utf-8")
    visj.write_text("".join(visj.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    return build(root, manifest)


@pytest.fixture(scope="module")
def other_image(build: Build, data_copy: Callable[[], Path], manifest: list[str]) -> tuple[Path, str]:
    """One image was saved again with another quality. Returns the set and the image's path in the annotations."""
    root = data_copy()
    path = next(path for path in sorted((root / "pictures").rglob("*.jpg")))
    with Image.open(path) as image:
        image.load()
    image.save(path, quality=30)
    return build(root, manifest), path.name


@pytest.fixture(scope="module")
def fewer_sources(build: Build, demo_data: Path, manifest: list[str]) -> Path:
    """The sources in reverse order, without that of VG."""
    return build(demo_data, [line for line in reversed(manifest) if not line.startswith("VG_")])


def sources_of(diff: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {source["tag"]: source for source in diff["sources"]}


def compared(cli: Cli, a: Path, b: Path, *options: str) -> dict[str, Any]:
    result = cli("diff", a, b, "--json", *options)
    assert (result.returncode, result.stderr) == (1, "")
    diff: dict[str, Any] = json.loads(result.stdout)
    assert diff["alike"] is False
    return diff


def test_a_copy_is_alike_although_its_index_and_shards_are_gone(
    copy_of_set: Path, frozen_set: Path, shards_cli: Cli
) -> None:
    for path in (*copy_of_set.rglob("*.tar"), copy_of_set / "index.npy"):
        path.unlink()
    digest = open_set(frozen_set).lock.digest
    result = shards_cli("diff", frozen_set, copy_of_set)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"alike: both sets have the digest {digest}\n"
    assert shards_cli("diff", frozen_set, copy_of_set, "--keys").stdout == ""
    result = shards_cli("diff", frozen_set, copy_of_set, "--json")
    assert (result.returncode, json.loads(result.stdout)["alike"]) == (0, True)


def test_weights_are_shown_but_make_no_difference(copy_of_set: Path, frozen_set: Path, shards_cli: Cli) -> None:
    lock = copy_of_set / "griffon.lock.json"
    lock.write_text(lock.read_text(encoding="utf-8").replace('"weight": "1"', '"weight": "3"', 1), encoding="utf-8")
    result = shards_cli("diff", frozen_set, copy_of_set)
    assert result.returncode == 0
    assert re.search(r"^weight of LAZY_caption +1 +3$", result.stdout, re.MULTILINE)


def test_another_seed(frozen_set: Path, other_seed: Path, shards_cli: Cli) -> None:
    diff = compared(shards_cli, frozen_set, other_seed)
    assert diff["settings"] == [{"name": "seed", "a": 0, "b": 1}]
    sources = sources_of(diff)
    assert not any(source["facts"] for source in sources.values())
    assert (sources["LAZY_text"]["same"], sources["LAZY_text"]["in_order"]) == (24, False)
    assert sources["DET_shapes"]["changed_parts"] == {"conversation": 24}


def test_another_template_changes_the_questions_of_its_task_alone(
    frozen_set: Path, other_template: Path, shards_cli: Cli
) -> None:
    diff = compared(shards_cli, frozen_set, other_template)
    assert [change["name"] for change in diff["settings"]] == ["templates"]
    changed = {tag: source["changed_parts"] for tag, source in sources_of(diff).items() if source["changed"]}
    assert changed == {"REG_shapes": {"conversation": 96}}
    (example,) = sources_of(diff)["REG_shapes"]["examples"]
    (change,) = example["parts"]
    assert change["a"]["from"] == change["b"]["from"] == "human"
    assert change["b"]["value"].startswith("<image>\nWhich object is in [")
    text = shards_cli("diff", frozen_set, other_template).stdout
    assert f"\n{example['key']}: conversation\n  conversation\n    A  [human] <image>\\n" in text
    assert "    B  [human] <image>\\nWhich object is in [" in text


def test_one_changed_annotation(frozen_set: Path, other_box: Path, shards_cli: Cli) -> None:
    diff = compared(shards_cli, frozen_set, other_box)
    det, visj = sources_of(diff)["DET_shapes"], sources_of(diff)["VISJ_shapes"]
    assert "annotation_sha256" in [change["name"] for change in det["facts"]]
    assert det["changed_parts"] == {"conversation": 1, "boxes": 1}
    (example,) = det["examples"]
    assert example["key"] == "DET_shapes-000000005"
    (boxes,) = (change for change in example["parts"] if change["part"] == "boxes")
    assert sum(x != y for x, y in zip(boxes["a"], boxes["b"], strict=True)) == 1
    assert {"name": "records", "a": 24, "b": 23} in visj["facts"]
    assert (visj["only_a"], visj["only_b"], visj["first_only_a"]) == (1, 0, ["VISJ_shapes-000000023"])
    others = [source for tag, source in sources_of(diff).items() if tag not in ("DET_shapes", "VISJ_shapes")]
    assert all(source["same"] == source["samples_a"] for source in others)


def test_one_image_encoded_again(frozen_set: Path, other_image: tuple[Path, str], shards_cli: Cli) -> None:
    diff = compared(shards_cli, frozen_set, other_image[0])
    changed = [source for source in diff["sources"] if source["changed"]]
    assert diff["settings"] == []
    assert changed
    for source in changed:
        assert source["changed_parts"] == {"image": source["changed"]}
        change = source["examples"][0]["parts"][0]
        assert change["a"]["bytes"] != change["b"]["bytes"]
        assert change["a"]["width"] == change["b"]["width"]


def test_sources_left_out_and_reordered(frozen_set: Path, fewer_sources: Path, shards_cli: Cli) -> None:
    diff = compared(shards_cli, frozen_set, fewer_sources)
    tags = [tag for tag in sources_of(diff) if tag != "VG_shapes"]
    assert diff["order_of_sources"] == {"a": tags, "b": tags[::-1]}
    vg = sources_of(diff)["VG_shapes"]
    assert (vg["only_a"], vg["samples_b"]) == (60, 0)
    assert vg["facts"] == [{"name": "source", "a": "ccmd/vg.jsonl", "b": None}]
    assert all(sources_of(diff)[tag]["same"] == sources_of(diff)[tag]["samples_b"] for tag in tags)
    text = shards_cli("diff", fewer_sources, frozen_set).stdout
    assert "only in B: VG_shapes-" in text
    assert " and 59 more\n" in text


def test_more_variants_and_another_style(frozen_set: Path, variants_set: Path, shards_cli: Cli) -> None:
    diff = compared(shards_cli, frozen_set, variants_set)
    assert {change["name"] for change in diff["settings"]} == {"boxes", "variants", "samples_per_shard"}
    for source in diff["sources"]:
        assert source["changed_parts"]["variants"] == source["changed"] == source["samples_a"]
    assert "conversation" not in sources_of(diff)["LAZY_text"]["changed_parts"]


def by_hand(a: Path, b: Path) -> Iterator[str]:
    """The lines of --keys, from the JSON and the images of all samples."""
    one, other = (
        {sample.key: sample for sample in map(frozen.__getitem__, range(len(frozen)))}
        for frozen in map(open_set, (a, b))
    )
    yield from (f"only A\t{key}" for key in one.keys() - other.keys())
    yield from (f"only B\t{key}" for key in other.keys() - one.keys())
    for key in one.keys() & other.keys():
        x, y = json.loads(encode_sample(one[key])), json.loads(encode_sample(other[key]))
        pairs = list(zip([x, *x.get("variants", [])], [y, *y.get("variants", [])], strict=False))
        differing = {
            "conversation": any(p["conversations"] != q["conversations"] for p, q in pairs),
            "image": one[key].image != other[key].image or any(x[name] != y[name] for name in ("width", "height")),
            "region": any(p["region"] != q["region"] for p, q in pairs),
            "boxes": any(p.get("boxes") != q.get("boxes") for p, q in pairs),
            "variants": len(x.get("variants", [])) != len(y.get("variants", [])),
            "origin": x["origin"] != y["origin"],
        }
        if any(differing.values()):
            yield f"changed\t{key}\t{','.join(name for name, differs in differing.items() if differs)}"


@pytest.mark.parametrize(
    "other", ["other_seed", "other_template", "other_box", "other_image", "fewer_sources", "variants_set"]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_keys_are_those_that_a_comparison_of_all_samples_gives(
    request: pytest.FixtureRequest, frozen_set: Path, shards_cli: Cli, other: str, swapped: bool
) -> None:
    given = request.getfixturevalue(other)
    sets = (frozen_set, given[0] if isinstance(given, tuple) else given)
    a, b = reversed(sets) if swapped else sets
    result = shards_cli("diff", a, b, "--keys")
    assert (result.returncode, result.stderr) == (1, "")
    expected = list(by_hand(a, b))
    assert sorted(result.stdout.splitlines()) == sorted(expected)
    diff = compared(shards_cli, a, b)
    kinds = Counter(line.partition("\t")[0] for line in expected)
    for name, kind in (("only_a", "only A"), ("only_b", "only B"), ("changed", "changed")):
        assert sum(source[name] for source in diff["sources"]) == kinds[kind]
