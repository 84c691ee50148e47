"""`griffon-train evaluate`: ask a model the questions of frozen sets, and score its answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.command_line import resumable
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.logs import verbosity_option
from griffon_shards.types import TASKS
from griffon_train.cli.model_options import model_options
from griffon_train.config.options import Finite

if TYPE_CHECKING:
    from griffon_train.evaluation.evaluate import Result

_PATH = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("model", metavar="MODEL", type=_PATH)
@click.option(
    "--shards",
    "roots",
    metavar="DIR",
    type=LOCATION,
    multiple=True,
    required=True,
    help="Shard folder made by griffon-prep build, or its URL; repeat for several folders.",
)
@click.option("--out", type=_PATH, help="Folder for predictions.jsonl and metrics.json.  [default: only print a table]")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Number of questions to answer at once."
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    help="Maximum number of tokens in an answer.  [default: a quarter more than in the longest reference answer]",
)
@click.option(
    "--convention",
    type=click.Choice(["gt", "ge"]),
    default="gt",
    show_default=True,
    help="gt: a box is correct if its IoU is above the threshold; ge: at or above it.",
)
@click.option(
    "--task", "tasks", type=click.Choice(TASKS), multiple=True, help="Evaluate only this task; repeat for several."
)
@click.option(
    "--source", "sources", metavar="TAG", multiple=True, help="Evaluate only this source; repeat for several."
)
@click.option("--limit", type=click.IntRange(1), help="Maximum number of samples of each source.  [default: all]")
@click.option(
    "--coco-json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the predicted boxes of DET and RANDDET to this file as COCO results, and the ground truth next to it.",
)
@model_options
@click.option(
    "--stall-s",
    type=Finite(1),
    default=1800.0,
    show_default=True,
    help="End with an error after this many seconds without progress.",
)
@verbosity_option
@resumable
def evaluate_command(
    model: Path,
    roots: tuple[Location, ...],
    out: Path | None,
    checkpoint: str | None,
    batch: int,
    max_new_tokens: int | None,
    convention: str,
    tasks: tuple[str, ...],
    sources: tuple[str, ...],
    limit: int | None,
    coco_json: Path | None,
    device: str,
    dtype: str,
    stall_s: float,
) -> None:
    """Ask a model every question in shard folders and score its answers.

    MODEL is a saved model, the output folder of a run, one of its checkpoints, or an adapter of a run. Answers are
    generated greedily. Progress goes to standard error, and a table of scores to standard output. With --out, an
    evaluation that was stopped resumes when the same command is rerun, with any number of processes and any --batch:
    these do not change the answers.

    To use 8 GPUs: torchrun --nproc_per_node 8 -m griffon_train evaluate MODEL --shards DIR --out OUT
    """
    sets = _opened(roots)
    import torch  # it takes seconds to import

    from griffon_train.distributed.process_group import distributed_session
    from griffon_train.evaluation.evaluate import Evaluation, evaluate
    from griffon_train.evaluation.matching import NAMED_TASKS
    from griffon_train.evaluation.questions import chosen_rows
    from griffon_train.evaluation.report import figures_table
    from griffon_train.training.model_source import open_model

    rows = chosen_rows(sets, tasks=tasks, sources=sources, limit=limit)
    if coco_json is not None and not {TASKS[sets[set_no].index["task"][row]] for set_no, row in rows} & {*NAMED_TASKS}:
        raise SettingsError(f"--coco-json {coco_json}: there are no samples of {' or '.join(NAMED_TASKS)}")
    with distributed_session(device, stall_s) as ranks:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # float32 is to be float32
        opened = open_model(model, checkpoint, dtype, ranks)
        result = evaluate(
            Evaluation(
                loaded=opened.loaded,
                weights_sha256=opened.weights_sha256,
                sets=sets,
                rows=rows,
                batch=batch,
                max_new_tokens=max_new_tokens,
                convention=convention,
                out=out,
            ),
            ranks,
        )
        if ranks.first:
            if coco_json is not None:
                _write_coco(result, coco_json)
            click.echo(figures_table(result.metrics))


def _opened(roots: Sequence[Location]) -> list[FrozenSet]:
    sets = [open_set(root) for root in roots]
    if len({frozen.lock.digest for frozen in sets}) < len(sets):
        raise SettingsError("--shards: the same set is given twice")
    for frozen in sets:
        frozen.check_shards()
    return sets


def _write_coco(result: "Result", path: Path) -> None:
    """Write the answered boxes in the layout of COCO's results, and the true ones in that of its annotations."""
    from griffon_train.evaluation.detection import coco_results, coco_truth
    from griffon_train.evaluation.matching import NAMED_TASKS, mark

    marked = [mark(each) for each in result.predictions if each.question.task in NAMED_TASKS]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, orjson.dumps(coco_results(marked)))
    write_whole(path.with_name(f"{path.stem}.truth.json"), orjson.dumps(coco_truth(marked)))
