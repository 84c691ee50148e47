"""Samples hold the boxes of their answers in pixels: one for each that is written, in the same order."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.build.run import build
from griffon_prep.build.settings import BuildSettings
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sample_data import write_sample_data
from griffon_prep.sources.manifest import read_manifest
from griffon_prep.sources.resolve import find_sources
from griffon_shards import open_set
from griffon_shards.grammar import ANSWERED_WITH_BOXES, clamp_box, parse_answer, round_box
from griffon_shards.templates import load_templates
from griffon_shards.verify import verify_set

REAL = Path(__file__).parents[4] / "shared/data/real"


@pytest.fixture(scope="module", params=["drawn", "real"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data root, and a manifest of sources of every format; some join several records in rounds."""
    if request.param == "drawn":
        root = write_sample_data(tmp_path_factory.mktemp("drawn") / "data", seed=5, images=8).parent
        lines = (root / "manifest.txt").read_text(encoding="utf-8").splitlines()
    elif REAL.is_dir():
        root = REAL
        lines = (root / "manifest_native.txt").read_text(encoding="utf-8").splitlines()
    else:
        pytest.skip(f"the real data are not in {REAL}")
    sources = [line for line in lines if line.partition("_")[0] in (*ANSWERED_WITH_BOXES, "REG")]
    rounds = [
        f"{line.replace('VG_', 'VG_rounds_', 1)}{', ' if line.count('&') > 2 else ' & '}rounds=3"
        for line in sources
        if line.startswith("VG_") and "rounds=" not in line
    ]
    manifest = tmp_path_factory.mktemp("manifest") / "manifest.txt"
    manifest.write_text("".join(f"{line}\n" for line in [*sources, *rounds]), encoding="utf-8")
    return root, manifest


@pytest.mark.parametrize(
    "options",
    [{"boxes": "text", "check": "header"}, {"boxes": "bin", "variants": 2, "resize_px": 97}],
    ids=["text", "bins, variants, shrunk images"],
)
def test_boxes_in_pixels_round_to_those_of_the_answers(
    data: tuple[Path, Path], options: dict[str, Any], tmp_path: Path
) -> None:
    root, manifest = data
    settings = BuildSettings(
        sources=find_sources(read_manifest(manifest), root, str(manifest)),
        render=RenderSettings(templates=load_templates(None), **options),
        max_rejects=Fraction(1),
        workers=1,
    )
    build(settings, tmp_path / "set", reuse=None, recheck=False, overwrite=False)
    shards = open_set(tmp_path / "set")
    seen = dict.fromkeys(ANSWERED_WITH_BOXES, 0)
    exact = several_rounds = 0
    for sample in map(shards.__getitem__, range(len(shards))):
        sides_px = sample.width_px, sample.height_px
        for rendering in sample.renderings:
            answers = [turn.text for turn in rendering.turns if turn.role == "gpt"]
            written = [
                box
                for answer in answers
                if sample.task in ANSWERED_WITH_BOXES
                for _, box in parse_answer(answer, sample.task, options["boxes"])
            ]
            boxes = rendering.boxes_xyxy_px
            assert boxes is not None
            assert [round_box(box, *sides_px) for box in boxes] == written, sample.key
            assert [clamp_box(box, *sides_px) for box in boxes] == list(boxes), sample.key
            if rendering.region_xyxy_px is not None:
                assert rendering.region_xyxy_px in boxes
            if written:
                seen[sample.task] += 1
                several_rounds += len(answers) > 1
                exact += any(
                    tuple(value * side for value, side in zip(box, sides_px * 2, strict=True)) != box_px
                    for box, box_px in zip(written, boxes, strict=True)
                )
    assert all(seen.values()) and several_rounds and exact
    assert list(verify_set(tmp_path / "set", deep=True)) == []
