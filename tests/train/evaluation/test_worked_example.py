"""The example of docs/evaluation.md comes out as printed."""

import dataclasses
import re
from pathlib import Path

import orjson

from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.report import figures_table, metrics

from .made_up import predicted

PAGE = Path(__file__).parents[3] / "docs/evaluation.md"
ROW = re.compile(r"^\| (VG|DET) \| `(.+)` \| `(.+)` \| (\S+) \| (\S+) \| (\S+) \|$", re.MULTILINE)


def test_the_worked_example_comes_out_as_printed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = ROW.findall(text)
    predictions = []
    for number, (task, truth, answer, *derived) in enumerate(rows):
        prediction = predicted(task, truth, answer, key=f"{number}", question="Detect: plate, cup.")
        predictions.append(dataclasses.replace(prediction, box_scores=(0.9, 0.2, 0.4)[: len(prediction.box_scores)]))
        fields = judged(prediction, "gt")
        values = (fields["iou"], fields["right"], fields["unparsed"])
        assert [orjson.dumps(value).decode().strip('"') for value in values] == derived
    assert len(predictions) == 5
    figures = metrics(predictions, "gt")
    assert f"```\n{figures_table(figures)}\n```" in text
    detection = figures["tasks"]["DET"]  # type: ignore[index]
    assert (detection["duplicates"], detection["absent_categories"]) == (1, 1)
    half = metrics(predictions, "ge")["tasks"]["VG"]["one_box"]  # type: ignore[index]
    assert half["accuracy@0.5"] == 0.666667
