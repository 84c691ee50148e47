"""Counts of a step, and the groups that they are counted in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch._C._distributed_c10d import HashStore

from griffon_shards.frozen_set import open_set
from griffon_train.data.loader import Loader
from griffon_train.data.plan import Plan
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.distributed.signals import Requests
from griffon_train.distributed.watchdog import Watchdog
from griffon_train.text.chat_templates import IGNORE
from griffon_train.text.tokenization import IMAGE_TOKEN_ID, REGION_TOKEN_ID, Encoded
from griffon_train.training.loss_stats import LossAccumulator

from ...waiting import TIMEOUT_S


@pytest.fixture
def alone() -> Iterator[ProcessGroup]:
    """A run of one rank."""
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    watchdog = Watchdog(0, TIMEOUT_S)
    yield ProcessGroup(rank=0, world_size=1, device=torch.device("cpu"), watchdog=watchdog, requests=Requests())
    watchdog.close()
    distributed.destroy_process_group()


@pytest.mark.parametrize("group", ["text", "general", "localization", "referring"])
@pytest.mark.parametrize("sees", [True, False], ids=["seen", "cut off"])
def test_a_sample_is_counted_in_the_group_that_the_plan_has_it_in(
    frozen_set: Path, alone: ProcessGroup, group: str, sees: bool
) -> None:
    """Even if its image was dropped because of the maximum length."""

    def encode(_turns: object, pictures: int, regions: int, _where: str) -> tuple[Encoded, bool]:
        places = [IMAGE_TOKEN_ID] * pictures + [REGION_TOKEN_ID] * regions if sees else []
        return Encoded(ids=[*places, 5, 6], labels=[IGNORE] * len(places) + [IGNORE, 6]), not sees

    plan = Plan([open_set(frozen_set)], seed=0, global_batch=6, grouping="task")
    i = next(i for i in range(plan.first_step(1)) if plan.step(i).group == group)
    loader = Loader(
        plan, rank=0, world_size=1, micro_batch=4, workers=0, encode=encode, start=i, stop=i + 1, image_px=8
    )
    tally = LossAccumulator()
    for batch in loader:
        tally.add(batch, torch.tensor([1.0 if key else 0.0 for key in batch.keys]))
    whole = tally.over(alone)
    assert whole.loss_by_group == {group: 1.0}
    assert (whole.loss, whole.overlong) == (1.0, 0 if sees else 6)
