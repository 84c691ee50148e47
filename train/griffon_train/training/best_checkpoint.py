"""The checkpoint with the best validation, which `--keep-best` keeps beside the last ones."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.support.files import write_whole
from griffon_train.config.run_folder import BEST_NAME, VALIDATION
from griffon_train.evaluation.report import lower_is_better
from griffon_train.training.checkpoint_folders import folder_of, steps_there
from griffon_train.training.metrics import step_of_line

_log = logging.getLogger(__name__)


def best_checkpoint(run: Path, figure: str) -> tuple[int, float] | None:
    """The checkpoint whose validation has the best value of a figure, the earliest of equal ones; None without any.

    Of a loss or an error the lowest value is the best, of other scores the highest.

    Args:
        run: folder of the run.
        figure: name of the figure, as in `ValidationTotals.figures`.

    Returns:
        The number of steps that were done, and the value.
    """
    steps = steps_there(run)
    best: tuple[int, float] | None = None
    sign = -1 if figure.startswith("score/") and not lower_is_better(figure.rpartition("/")[2]) else 1
    with (run / VALIDATION).open("rb") as file:
        for line in file:
            step = step_of_line(line)
            value = None if step is None else _figure(orjson.loads(line), figure)
            if step is None or value is None or step + 1 not in steps:
                continue
            if best is None or sign * value < sign * best[1]:
                best = step + 1, value
    return best


def _figure(fields: Mapping[str, Any], figure: str) -> float | None:
    """A figure of a validation's line, by the names of `ValidationTotals.figures`."""
    part, _, name = figure.partition("/")
    if part == "score":
        tag, _, name = name.rpartition("/")
        values = fields.get("scores", {}).get(tag, {})
    else:
        values = fields.get(f"by_{part}", {}) if name else fields["validation_loss"]
    value = values.get(name or figure)
    return None if value is None else float(value)


def record_best(run: Path, figure: str) -> None:
    """Write into the run's folder which checkpoint is the best so far."""
    best = best_checkpoint(run, figure)
    if best is not None:
        done, value = best
        path = folder_of(run, done)
        fields = {"figure": figure, "value": value, "checkpoint": f"{path.parent.name}/{path.name}"}
        write_whole(run / BEST_NAME, orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
        _log.info("best %s: %.4f, of %s", figure, value, path)
