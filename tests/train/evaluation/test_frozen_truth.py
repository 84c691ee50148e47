"""The true answers of a frozen set, given as answers, are right in every figure."""

from pathlib import Path
from typing import Any

import griffon_shards
from griffon_shards.types import TASKS
from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.report import metrics

from .made_up import predicted


def test_the_truth_is_right(frozen_set: Path) -> None:
    frozen = griffon_shards.open_set(frozen_set)
    predictions = []
    for sample in (frozen[row] for row in range(len(frozen))):
        questions, truths = sample.turns[::2], sample.turns[1::2]
        for asked, (question, truth) in enumerate(zip(questions, truths, strict=True)):
            made = predicted(
                sample.task,
                truth.text,
                truth.text,
                key=sample.key,
                round=asked,
                question=question.text,
                source=sample.task,
            )
            predictions.append(made)
            assert judged(made, "gt")["right"] in (True, None)
    tasks: Any = metrics(predictions, "gt")["tasks"]
    assert set(tasks) == set(TASKS)
    assert {tasks[task]["parsing"]["strict"] for task in ("DET", "RANDDET", "VG", "VISJ")} == {1.0}
    for task in ("DET", "RANDDET"):
        assert tasks[task]["coco"]["ap"] == tasks[task]["f1@0.75"] == 1.0
        assert tasks[task]["unknown_names"] == tasks[task]["absent_categories"] == tasks[task]["duplicates"] == 0
    assert tasks["VG"]["one_box"]["accuracy@0.9"] == tasks["VG"]["sets"]["exact"] == 1.0
    assert (tasks["VISJ"]["f1@0.75"], tasks["VISJ"]["count_exact"], tasks["VISJ"]["count_rmse"]) == (1.0, 1.0, 0.0)
    assert tasks["REG"]["exact_match"] == 1.0 and tasks["REG"]["cider"] > 0
