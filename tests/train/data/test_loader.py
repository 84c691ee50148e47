"""Batches hold the images, regions and texts of exactly the samples that the plan names."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from griffon_shards.frozen_set import open_set
from griffon_shards.types import Rendering, Sample, Turn
from griffon_train.data import batch as batch_module
from griffon_train.data import images as pictures
from griffon_train.data.batch import Batch
from griffon_train.data.loader import Loader, Slot, rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY, micro_steps
from griffon_train.text.tokenization import IGNORE, IMAGE_TOKEN_ID, Encoded

SIDE, REGION = 48, 20


@pytest.fixture(scope="module")
def plan(variants_set: Path) -> Plan:
    return Plan([open_set(variants_set)], seed=9, global_batch=10, window=4)


def batches(
    plan: Plan, rank: int = 0, world_size: int = 1, *, start: int = 0, stop: int = 2, workers: int = 0
) -> list[Batch]:
    loader = Loader(
        plan,
        rank=rank,
        world_size=world_size,
        micro_batch=4,
        workers=workers,
        start=start,
        stop=stop,
        image_px=SIDE,
        region_px=REGION,
    )
    return list(loader)


def filled(plan: Plan, batch: Batch, slots: list[Slot]) -> Iterator[tuple[int, Sample, Rendering]]:
    """Places of a batch, and the sample and rendering that stand there."""
    for position, slot in enumerate(slots):
        if slot.row != DUMMY:
            sample = plan.sets[slot.set_no][slot.row]
            assert batch.keys[position] == sample.key
            yield position, sample, sample.renderings[slot.variant]


def squeezed(data: bytes, side_px: int, box: tuple[int, int, int, int] | None = None) -> NDArray[np.uint8]:
    picture = Image.open(BytesIO(data)).convert("RGB")
    return np.asarray(picture.crop(box or (0, 0, *picture.size)).resize((side_px, side_px), Image.Resampling.BILINEAR))


def test_images_regions_and_words_are_those_of_the_plans_samples(plan: Plan) -> None:
    end = plan.first_step(1)
    seen = {"picture": 0, "region": 0, "text": 0, "variant": 0}
    for rank in range(3):
        got = iter(batches(plan, rank, 3, start=end - 4, stop=end + 4))
        for i in range(end - 4, end + 4):
            for slots in rank_slots(plan, i, rank, 3, 4):
                batch = next(got)
                assert (batch.step, batch.slots) == (i, tuple(slot.slot for slot in slots))
                pictures = dict(zip(batch.image_of_P.tolist(), batch.pixels_PHWC, strict=True))
                regions = dict(zip(batch.region_of_R.tolist(), batch.regions_RHWC, strict=True))
                for position, sample, rendering in filled(plan, batch, slots):
                    assert batch.conversations[position] == rendering.turns
                    seen["variant"] += slots[position].variant > 0
                    if sample.image is None:
                        seen["text"] += 1
                        assert position not in pictures
                        continue
                    seen["picture"] += 1
                    assert np.array_equal(pictures.pop(position), squeezed(sample.image, SIDE))
                    if rendering.region_xyxy_px is not None:
                        seen["region"] += 1
                        x1, y1, x2, y2 = rendering.region_xyxy_px
                        box = int(x1), int(y1), round(x2), round(y2)
                        assert np.array_equal(regions.pop(position), squeezed(sample.image, REGION, box))
                assert not pictures
                assert not regions
    assert all(seen.values())


def json_member(raw: bytes) -> bytes:
    """The JSON of a sample's tar bytes, by its tar header alone."""
    start = raw.index(b".json\0")
    block = start - start % 512
    size = int(raw[block + 124 : block + 135], 8)
    return raw[block + 512 : block + 512 + size]


def test_conversations_are_as_the_json_in_the_shard_says(plan: Plan) -> None:
    """Read past our own decoding: the member's bytes, and the variant that the plan asks for."""
    number = plan.first_step(1) + 1  # variant 1
    step = plan.step(number)
    assert 1 in step.variants
    by_slot = {
        slot: turns
        for batch in batches(plan, start=number, stop=number + 1)
        for slot, turns in zip(batch.slots, batch.conversations, strict=True)
    }
    for slot, (row, variant) in enumerate(zip(step.rows.tolist(), step.variants.tolist(), strict=True)):
        fields = orjson.loads(json_member(plan.sets[0].raw(row)))
        item = fields if variant == 0 else fields["variants"][variant - 1]
        reported = [{"from": turn.role, "value": turn.text} for turn in by_slot[slot]]
        assert reported == item["conversations"]


def test_types_and_shapes(plan: Plan) -> None:
    for batch in batches(plan):
        pictures, regions = len(batch.image_of_P), len(batch.region_of_R)
        assert batch.pixels_PHWC.shape == (pictures, SIDE, SIDE, 3)
        assert batch.regions_RHWC.shape == (regions, REGION, REGION, 3)
        assert batch.pixels_PHWC.dtype == batch.regions_RHWC.dtype == torch.uint8
        assert batch.image_of_P.dtype == batch.region_of_R.dtype == torch.int64
        assert len(batch.slots) == len(batch.keys) == len(batch.conversations) == 4


def test_all_ranks_get_as_many_batches_and_dummies_are_empty(plan: Plan) -> None:
    """10 samples on 4 ranks in micro-batches of 4: two ranks get 3, two get 2, and each gets one batch a step."""
    ranks = [batches(plan, rank, 4, stop=3) for rank in range(4)]
    assert {len(rank) for rank in ranks} == {3 * micro_steps(10, 4, 4)} == {3}
    for step in range(3):
        dummies = [rank[step].slots.count(DUMMY) for rank in ranks]
        assert sorted(dummies) == [1, 1, 2, 2]
    for batch in (batch for rank in ranks for batch in rank):
        empty = [position for position, slot in enumerate(batch.slots) if slot == DUMMY]
        assert {(batch.keys[position], batch.conversations[position]) for position in empty} == {("", ())}
        assert not set(empty) & {*batch.image_of_P.tolist(), *batch.region_of_R.tolist()}


def test_a_batch_of_text_alone_has_no_images(frozen_set: Path) -> None:
    plan = Plan([open_set(frozen_set)], seed=0, global_batch=6, grouping="modality")
    i = next(i for i in range(plan.first_step(1)) if plan.step(i).group == "text")
    (batch, _) = batches(plan, start=i, stop=i + 1)
    assert batch.pixels_PHWC.shape == (0, SIDE, SIDE, 3)
    assert batch.regions_RHWC.shape == (0, REGION, REGION, 3)
    assert all(batch.conversations)


def test_a_loader_without_an_end_continues_over_epochs(plan: Plan) -> None:
    loader = iter(Loader(plan, micro_batch=10, workers=0, image_px=16, start=plan.first_step(1) - 1))
    steps = [next(loader).step for _ in range(3)]
    assert steps == [plan.first_step(1) - 1, plan.first_step(1), plan.first_step(1) + 1]


def test_a_loader_can_be_gone_through_again(plan: Plan) -> None:
    loader = Loader(plan, micro_batch=5, workers=1, image_px=16, stop=3)
    first, again = ([(batch.step, batch.slots, batch.keys) for batch in loader] for _ in range(2))
    assert first == again
    assert len(first) == 6


def words_as_tokens(turns: Sequence[Turn], pictures: int, _regions: int, _where: str) -> tuple[Encoded, bool]:
    """A token for each word; those of answers are learned."""
    ids, labels = [IMAGE_TOKEN_ID] * pictures, [IGNORE] * pictures
    for turn in turns:
        tokens = [len(word) for word in turn.text.split()]
        ids += tokens
        labels += tokens if turn.role == "gpt" else [IGNORE] * len(tokens)
    return Encoded(ids=ids, labels=labels), False


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("skipped", [(), (0, 1, 4)], ids=["all", "some skipped"])
def test_the_targets_of_a_step_are_known_before_its_images(plan: Plan, workers: int, skipped: tuple[int, ...]) -> None:
    """They equal those of the micro-batches that follow: on every rank, with dummies, and after skipped steps."""
    expected = [step for step in range(6) if step not in skipped]
    for rank in range(3):
        loader = Loader(
            plan,
            rank=rank,
            world_size=3,
            micro_batch=2,
            workers=workers,
            encode=words_as_tokens,
            stop=6,
            skipped=skipped,
            image_px=16,
            region_px=8,
        )
        steps = []
        for share in loader.steps():
            batches = list(share.batches)
            examples = [example for batch in batches for example in batch.examples if example is not None]
            assert share.targets == sum(label != IGNORE for item in examples for label in item.labels[1:]) > 0
            assert [batch.slots for batch in batches] == [
                tuple(slot.slot for slot in slots) for slots in rank_slots(plan, share.step, rank, 3, 2)
            ]
            assert {batch.step for batch in batches} == {share.step}
            steps.append(share.step)
        assert steps == expected


def test_a_step_of_many_micro_batches_is_read_as_it_is_computed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the first of 10 micro-batches is there, no other's images have been decoded."""
    decoded: list[str] = []

    def decode(sample: Sample, where: str) -> Image.Image:
        decoded.append(sample.key)
        return pictures.decode(sample, where)

    monkeypatch.setattr(batch_module, "decode", decode)
    loader = Loader(plan, micro_batch=1, workers=0, encode=words_as_tokens, stop=2, image_px=16, region_px=8)
    seen = 0
    for share in loader.steps():
        assert share.targets > 0
        for batch in share.batches:
            assert set(decoded) <= {*batch.keys}
            seen += len(decoded)
            decoded.clear()
    assert seen > 10
