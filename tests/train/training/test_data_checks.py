"""Checks before the first step: data that teach nothing, truncated samples, and sources that come too often."""

from pathlib import Path

import numpy as np
import pytest

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.storage import Location
from griffon_shards.support.errors import SettingsError
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings
from griffon_train.data.lengths import Lengths, Table
from griffon_train.data.plan import Plan
from griffon_train.data.source_stream import Shows
from griffon_train.training.data_checks import check_taught, remarks, remarks_on_lengths, remarks_on_order

from ..conftest import Run
from ..synthetic import Source, write_synthetic

WORDS = Source(tag="LAZY_words", rows=6, pictured=lambda _: False)
MIXED = Source(tag="LAZY_mixed", rows=6, pictured=lambda row: row == 3)
BOXES = Source(tag="DET", rows=6)
REGIONS = Source(tag="VISJ", rows=6)


def settings_of(shards: Location, **given: object) -> Settings:
    needed = {"stage": "custom", "shards": (shards,), "output_dir": Path("r"), "model": "tiny-gemma2"}
    return resolve(needed | given).settings


def check(frozen: FrozenSet, settings: Settings, image_tokens: int = 9) -> None:
    check_taught(settings.freezing.trained_parts(), Shows.of([frozen]), settings, image_tokens=image_tokens)


SEES_NOTHING = {
    "regions alone, and none": (BOXES, {"stage": "visual_referring"}, "the region projector, which sees regions"),
    "regions alone, and words": (WORDS, {"tune_region_projector": True}, "the region projector"),
    "projector, and words": (WORDS, {"stage": "alignment"}, "the projector, which sees images"),
    "towers, and words": (WORDS, {"freeze_llm": True}, "the vision tower, which sees images; the projector, which"),
    "tower, and words": (WORDS, {"freeze_llm": True, "freeze_mm_mlp_adapter": True}, "the vision tower, which"),
    "projector alone, and words": (WORDS, {"freeze_llm": True, "freeze_vision_tower": True}, "the projector, which"),
}


@pytest.mark.parametrize(("source", "given", "says"), SEES_NOTHING.values(), ids=SEES_NOTHING)
def test_what_trains_and_is_shown_nothing_is_refused(
    source: Source, given: dict[str, object], says: str, tmp_path: Path
) -> None:
    frozen = write_synthetic(tmp_path / "set", [source])
    with pytest.raises(SettingsError) as refused:
        check(frozen, settings_of(frozen.root, **given))
    message = str(refused.value)
    assert message.startswith(f"nothing would be learned from {frozen.root}: the only parts that train are {says}")
    assert "--shards" in message and "freezing flags" in message


@pytest.mark.parametrize(
    ("sources", "given"),
    [
        ([WORDS], {}),
        ([WORDS], {"freeze_vision_tower": True, "freeze_mm_mlp_adapter": True}),
        ([MIXED], {"stage": "alignment"}),
        ([WORDS, BOXES], {"stage": "alignment"}),
        ([BOXES], {"freeze_llm": True}),
        ([BOXES, REGIONS], {"stage": "visual_referring"}),
    ],
)
def test_one_sample_that_shows_something_is_enough(
    sources: list[Source], given: dict[str, object], tmp_path: Path
) -> None:
    frozen = write_synthetic(tmp_path / "set", sources)
    check(frozen, settings_of(frozen.root, **given))


@pytest.mark.parametrize(
    ("sources", "given", "taught"),
    [
        ([BOXES], {}, False),
        ([MIXED], {"stage": "alignment"}, False),
        ([REGIONS, WORDS], {"stage": "visual_referring"}, False),
        ([MIXED], {}, True),
    ],
    ids=["all have pictures", "the projector", "the region projector", "words are learned"],
)
@pytest.mark.parametrize("image_tokens", [32, 100])
def test_images_that_do_not_fit_teach_nothing(
    sources: list[Source], given: dict[str, object], taught: bool, image_tokens: int, tmp_path: Path
) -> None:
    frozen = write_synthetic(tmp_path / "set", sources)
    settings = settings_of(frozen.root, max_length=32, **given)
    check(frozen, settings, image_tokens=31)
    if taught:
        check(frozen, settings, image_tokens)
        return
    with pytest.raises(SettingsError, match=f"--max-length 32: an image takes {image_tokens} tokens, .* raise"):
        check(frozen, settings, image_tokens)


def test_samples_that_are_too_long_are_counted_by_source(tmp_path: Path) -> None:
    """Samples have 40 to 1,036 characters, four per token, and nine tokens per image."""
    frozen = write_synthetic(tmp_path / "set", [BOXES, WORDS, Source(tag="REG", rows=4, chars=lambda row: 396 + row)])
    lengths = Lengths.estimated([frozen])
    settings = settings_of(frozen.root, max_length=108)
    tokens = [-(-int(chars) // 4) for chars in frozen.index["text_chars"]]
    expected = {
        tag: sum(9 * pictured + tokens[row] > 108 for row in frozen.rows_of_source(tag))
        for tag, pictured in (("DET", True), ("LAZY_words", False), ("REG", True))
    }
    assert expected["REG"] == 3
    (line,) = remarks_on_lengths(lengths, settings.data, 9)
    actual = sum(expected.values())
    assert line.startswith(
        f"by estimated lengths {actual} of 16 samples ({actual / 16:.1%}) are longer than --max-length 108"
    )
    assert "REG 75%" in line and f"DET {expected['DET'] / 6:.0%}" in line
    assert "--overlong truncate" in line
    (masked,) = remarks_on_lengths(lengths, settings_of(frozen.root, max_length=108, overlong="mask").data, 9)
    assert "nothing is learned from them" in masked
    assert not [*remarks_on_lengths(lengths, settings_of(frozen.root, max_length=4096).data, 9)]


def test_counted_lengths_count_in_their_longest_variant(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [BOXES], variants=2)
    counts = np.array([[1, 30], [30, 1], [1, 1], [22, 23], [23, 24], [0, 0]], np.uint32)
    table = Table(path=Path("t"), sha256="", of_set=frozen.lock.digest, chat="", tokenizer="", counts=counts)
    lengths = Lengths(identity="", sets=[frozen], tables=[table])
    (line,) = remarks_on_lengths(lengths, settings_of(frozen.root, max_length=32).data, 9)
    assert line.startswith("by counted lengths 3 of 6 samples (50.0%) are longer than --max-length 32 (DET 50%)")


def test_a_set_that_is_smaller_than_a_step_is_reported(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="DET", rows=5)])
    assert [*remarks_on_order(Plan([frozen], seed=0, global_batch=16), {})] == [
        "an epoch has 5 samples, and a step takes 16: each is used 3 to 4 times in one step; "
        "to use each once per epoch, give --global-batch 5 or less"
    ]
    (twice,) = remarks_on_order(Plan([frozen], seed=0, global_batch=10), {})
    assert "each is used 2 times in one step" in twice
    assert not [*remarks_on_order(Plan([frozen], seed=0, global_batch=5), {})]


def test_a_group_that_is_smaller_than_a_step_is_reported(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="DET", rows=50), Source(tag="VISJ", rows=6, weight="1/2")])
    (line,) = remarks_on_order(Plan([frozen], seed=0, global_batch=10, grouping="task"), {})
    assert line.startswith(
        "an epoch has 3 samples of the group referring, and a step takes 10: each is used 3 to 4 times"
    )


def test_a_weight_that_counts_in_two_sets_is_reported(tmp_path: Path) -> None:
    sources = [Source(tag="DET", rows=9), Source(tag="REG", rows=9)]
    sets = [write_synthetic(tmp_path / name, sources[:count], content=name) for name, count in (("a", 2), ("b", 1))]
    weights = {"DET": "2", "REG": "3"}
    plan = Plan(sets, seed=0, global_batch=4, weights=weights)
    assert [*remarks_on_order(plan, weights)] == [
        f"--weight DET=2 applies to DET in each of {tmp_path / 'a'} and {tmp_path / 'b'}"
    ]
    settings = settings_of(sets[0].root, weights=("DET=2", "REG=3"), max_length=16)
    assert len([*remarks(plan, settings.data, 9)]) == 2


def test_plan_reports_it_next_to_its_result(train_cli: Run, tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="DET", rows=5)])
    ended = train_cli("plan", frozen.root, "--global-batch", 16, "--json")
    assert ended.returncode == 0
    assert "an epoch has 5 samples, and a step takes 16" in ended.stderr
    assert len(ended.stdout.splitlines()) == 1
