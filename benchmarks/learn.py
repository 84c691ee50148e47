"""`make learn`: small models with random weights learn to point at what is named, on plain sample data.

Beside each model a control is trained on labels that are permuted among the images, and each model is shown other
images than those it is asked about. If labels, coordinates, masks, the order of samples or resumption were wrong, a
model would score no better than the controls. A model and its control train side by side on one core each. Rerun the
command to resume.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from common import call, lines, machine, word

from griffon_shards.support.tables import table

_RESULTS = Path(__file__).with_name("RESULTS.md")
_BEGIN, _END = "<!-- tables of make learn -->", "<!-- end of the tables of make learn -->"
_HELD_OUT_SEED = 1_000_000  # no seed of the data to train on
_CURVE_SAMPLES = 150
_FIGURE = "accuracy@0.5"
_WANTED, _WANTED_OF_CONTROLS = 0.6, 0.1
_WANTED_MINUTES = 40

_TASKS = {"VG": "rounds=4", "DET": ""}
"""Tasks to train on, each with its manifest options."""

_MODEL: Sequence[object] = ("--like", "qwen2", "--select-layer", -1)
_TRAINING: Sequence[object] = (
    *("--stage", "custom", "--device", "cpu", "--workers", 0, "--max-length", 1024),
    *("--global-batch", 8, "--micro-batch", 8),
    *("--lr", 1e-3, "--beta2", 0.98, "--warmup-steps", 150),
)


Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Head and rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The figures of one seed.

    Attributes:
        learned: of the model on the held-out images, as `metrics.json` has them.
        other_images: of the model on questions about other images than it is shown.
        permuted: of the control, which was trained on permuted labels.
        curve: accuracy of the model by step.
        minutes: time that training took.
    """

    learned: Mapping[str, Any]
    other_images: Mapping[str, Any]
    permuted: Mapping[str, Any]
    curve: Mapping[int, float]
    minutes: float


@click.command(context_settings={"show_default": True})
@click.option("--seeds", type=click.IntRange(1), default=3, help="Number of models, each with images of its own.")
@click.option("--steps", type=click.IntRange(1), default=6000, help="Training steps.")
@click.option("--images", type=click.IntRange(2), default=8000, help="Images to train on.")
@click.option("--held-out", type=click.IntRange(2), default=200, help="Images to evaluate on.")
@click.option("--points", type=click.IntRange(1), default=8, help="Checkpoints to evaluate for the curve.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("learn"), help="Folder for all files.")
@click.option("--results", is_flag=True, help="Write the tables into benchmarks/RESULTS.md.")
def main(seeds: int, steps: int, images: int, held_out: int, points: int, folder: Path, results: bool) -> None:
    """Train models and controls, evaluate them, and say which targets are met."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(machine(folder))
    asked = _frozen(folder / "held_out", {"VG": ""}, _HELD_OUT_SEED, held_out)
    elsewhere = _frozen(folder / "other_images", {"VG": ""}, _HELD_OUT_SEED, held_out, "--permute-labels")
    scores = []
    for seed in range(seeds):
        learned, permuted = folder / f"learned-{seed}", folder / f"permuted-{seed}"
        sets = [_frozen(learned, _TASKS, seed, images), _frozen(permuted, _TASKS, seed, images, "--permute-labels")]
        model = _new_model(folder / f"model-{seed}", sets[0], seed)
        every = max(1, steps // points)
        given = ("--seed", seed, "--steps", steps, "--save-steps", every)
        _train([learned / "run", permuted / "run"], sets, model, *given)
        saved = range(every, steps, every)
        curve = {step: _scores(learned, asked, step, limit=_CURVE_SAMPLES)[_FIGURE] for step in saved}
        scores.append(
            Scores(
                learned=_scores(learned, asked),
                other_images=_scores(learned, elsewhere),
                permuted=_scores(permuted, asked),
                curve=curve,
                minutes=_minutes(learned / "run"),
            )
        )
    for head, rows in (figures := (_figures(scores), _curves(scores))):
        click.echo(f"\n{table(head, rows)}")
    if results:
        _write_tables([_markdown(head, rows) for head, rows in figures])


def _frozen(folder: Path, tasks: Mapping[str, str], seed: int, images: int, *options: str) -> Path:
    """Draw plain sample data and freeze them."""
    prep = [sys.executable, "-m", "griffon_prep"]
    data, manifest = folder / "data", folder / "manifest.txt"
    if not (data / "manifest.txt").exists():
        drawn = ["--plain", "--tasks", ",".join(tasks), "--seed", seed, "--images", images]
        call([*prep, "sample-data", data, *drawn, *options])
    sources = [f"{task}_plain & {task.lower()}.jsonl & images & {given}" for task, given in tasks.items()]
    manifest.write_text("".join(f"{source.removesuffix(' & ')}\n" for source in sources), encoding="utf-8")
    call([*prep, "build", "--manifest", manifest, "--data-root", data, "--out", folder / "set", "--det-categories", 6])
    return folder / "set"


def _new_model(folder: Path, shards: Path, seed: int) -> Path:
    if not folder.exists():
        given = ("--tokenizer", shards, "--seed", seed)
        call([sys.executable, "-m", "griffon_train", "new-model", folder, *_MODEL, *given])
    return folder


def _train(runs: Sequence[Path], sets: Sequence[Path], model: Path, *options: object) -> None:
    """Train a model on each set, at the same time, with one thread each; their progress goes to log files."""
    started = []
    for run, shards in zip(runs, sets, strict=True):
        command = [sys.executable, "-m", "griffon_train", "run", *_TRAINING, "--keep", 1000, *options]
        command += ["--model", model, "--shards", shards, "--output-dir", run]
        with run.with_name("training.log").open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            started.append(subprocess.Popen(list(map(str, command)), stderr=log, env=environment))
        click.echo(f"training {run}; progress in {run.with_name('training.log')}", err=True)
    codes = [process.wait() for process in started]
    for code, run in zip(codes, runs, strict=True):
        if code:
            raise click.ClickException(f"{run.with_name('training.log')}: training ended with {code}")


def _scores(trained: Path, shards: Path, step: int | None = None, limit: int | None = None) -> Mapping[str, Any]:
    """Evaluate the result of a run, or a checkpoint of it; return the figures of pointing."""
    out = trained / f"evaluation-{shards.parent.name}-{step or 'last'}"
    command = [sys.executable, "-m", "griffon_train", "evaluate", trained / "run", "--shards", shards, "--out", out]
    command += ["--batch", 64, "--convention", "ge", "--device", "cpu"]
    command += [] if step is None else ["--from", step]
    command += [] if limit is None else ["--limit", limit]
    call(command)
    figures: Mapping[str, Any] = orjson.loads((out / "metrics.json").read_bytes())["tasks"]["VG"]["one_box"]
    return figures


def _minutes(run: Path) -> float:
    seconds: list[float] = [orjson.loads(line)["seconds"] for line in lines(str(run / "timing.jsonl"))]
    return sum(seconds) / 60


def _figures(scores: Sequence[Scores]) -> Table:
    """The figures of each seed beside what is wanted."""
    controls = f"under {_WANTED_OF_CONTROLS}"
    learned, other_images, permuted = (
        [getattr(each, name) for each in scores] for name in ("learned", "other_images", "permuted")
    )
    met = [
        min(each[_FIGURE] for each in learned) >= _WANTED,
        *(max(each[_FIGURE] for each in control) < _WANTED_OF_CONTROLS for control in (other_images, permuted)),
    ]
    rows: list[Sequence[str]] = [
        ("held-out images", *map(_with_interval, learned), f"at least {_WANTED}", word(met[0])),
        ("the same models, shown other images", *map(_with_interval, other_images), controls, word(met[1])),
        ("models trained on permuted labels", *map(_with_interval, permuted), controls, word(met[2])),
    ]
    ious = [f"{each.learned['mean_iou']:.3f}" for each in scores]
    minutes = [f"{each.minutes:.1f}" for each in scores]
    fast = word(all(each.minutes <= _WANTED_MINUTES for each in scores))
    rows += [
        ("mean IoU on held-out images", *ious, "", ""),
        ("minutes of training", *minutes, f"at most {_WANTED_MINUTES}", fast),
    ]
    return ("accuracy at IoU 0.5", *_seeds(scores), "wanted", ""), rows


def _curves(scores: Sequence[Scores]) -> Table:
    """Accuracy by step."""
    rows = [(f"{step:,}", *(f"{each.curve[step]:.3f}" for each in scores)) for step in scores[0].curve]
    return ("steps", *_seeds(scores)), rows


def _seeds(scores: Sequence[Scores]) -> list[str]:
    return [f"seed {seed}" for seed in range(len(scores))]


def _with_interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["interval"][_FIGURE]
    return f"{figures[_FIGURE]:.3f} ({low:.3f} to {high:.3f})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _write_tables(tables: Sequence[str]) -> None:
    """Replace what stands between our marks in RESULTS.md."""
    before, begin, rest = _RESULTS.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert begin and end, f"{_RESULTS} has lost the marks of its tables"
    _RESULTS.write_text("\n\n".join((before + begin, *tables, end + after)), encoding="utf-8")


if __name__ == "__main__":
    main()
