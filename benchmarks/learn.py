"""`make learn`: small models with random weights learn to point at what is named, on plain sample data.

Beside the models a control is trained on labels that are permuted among the images, and each model is shown other
images than those it is asked about. If labels, coordinates, masks, the order of samples or resumption were wrong, a
model would score no better than the controls. Two trainings run at a time, on one core each. Rerun the command to
resume.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from common import call, lines, machine, word

import griffon_shards.templates
from griffon_shards.support.tables import table

_RESULTS = Path(__file__).with_name("RESULTS.md")
_TEMPLATES = Path(griffon_shards.templates.__file__).parent
_BEGIN, _END = "<!-- tables of make learn -->", "<!-- end of the tables of make learn -->"
_HELD_OUT_SEED = 1_000_000  # no seed of the data to train on
_CURVE_SAMPLES = 150
_FIGURE = "accuracy@0.5"
_WANTED, _WANTED_OF_CONTROLS = 0.6, 0.1
_WANTED_MINUTES = 40
_AT_ONCE = 2

_TASKS = "VG,LAZY"
"""Tasks to train on. Without captions a model learns where bars are before it sees their colours, and stays there."""

_MODEL: Sequence[object] = ("--like", "qwen2", "--image-size", 70, "--select-layer", -1, "--vocabulary", 350)
_TRAINING: Sequence[object] = (
    *("--stage", "custom", "--device", "cpu", "--workers", 0, "--max-length", 1024),
    *("--global-batch", 32, "--micro-batch", 32),
    *("--lr", 1e-3, "--beta2", 0.98, "--warmup-steps", 100),
)

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Head and rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The figures of one seed.

    Attributes:
        learned: of the model on the held-out images, as `metrics.json` has them.
        other_images: of the model on questions about other images than it is shown.
        permuted: of a control that was trained on permuted labels; the first seed has one.
        curve: accuracy of the model by step.
        minutes: time that training took.
    """

    learned: Mapping[str, Any]
    other_images: Mapping[str, Any]
    permuted: Mapping[str, Any] | None
    curve: Mapping[int, float]
    minutes: float


@click.command(context_settings={"show_default": True})
@click.option("--seeds", type=click.IntRange(1), default=3, help="Number of models, each with images of its own.")
@click.option("--steps", type=click.IntRange(1), default=5000, help="Training steps.")
@click.option("--images", type=click.IntRange(2), default=12000, help="Images to train on.")
@click.option("--held-out", type=click.IntRange(2), default=200, help="Images to evaluate on.")
@click.option("--points", type=click.IntRange(1), default=8, help="Checkpoints to evaluate for the curve.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("learn"), help="Folder for all files.")
@click.option("--results", is_flag=True, help="Write the tables into benchmarks/RESULTS.md.")
def main(seeds: int, steps: int, images: int, held_out: int, points: int, folder: Path, results: bool) -> None:
    """Train models and a control, evaluate them, and say which targets are met."""
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(machine(folder))
    asked = _frozen(folder / "held_out", "VG", _HELD_OUT_SEED, held_out)
    elsewhere = _frozen(folder / "other_images", "VG", _HELD_OUT_SEED, held_out, "--permute-labels")
    every = max(1, steps // points)
    learned = [folder / f"learned-{seed}" for seed in range(seeds)]
    permuted = folder / "permuted-0"
    _frozen(permuted, _TASKS, 0, images, "--permute-labels")
    for seed, trained in enumerate(learned):
        _new_model(folder / f"model-{seed}", _frozen(trained, _TASKS, seed, images), seed)
    with ThreadPoolExecutor(_AT_ONCE) as threads:  # each waits for a process
        seed_of = {learned[0]: 0, permuted: 0} | {trained: seed for seed, trained in enumerate(learned)}
        given = ("--steps", steps, "--save-steps", every)
        trainings = [
            threads.submit(_train, trained, folder / f"model-{seed}", "--seed", seed, *given)
            for trained, seed in seed_of.items()
        ]
        for training in trainings:
            training.result()
    scores = [
        Scores(
            learned=_scores(trained, asked),
            other_images=_scores(trained, elsewhere),
            permuted=_scores(permuted, asked) if trained == learned[0] else None,
            curve=_curve(trained, asked, range(every, steps, every)),
            minutes=_minutes(trained / "run"),
        )
        for trained in learned
    ]
    for head, rows in (figures := (_figures(scores), _curves(scores))):
        click.echo(f"\n{table(head, rows)}")
    if results:
        _write_tables([_markdown(head, rows) for head, rows in figures])


def _frozen(folder: Path, tasks: str, seed: int, images: int, *options: str) -> Path:
    """Draw plain sample data, and freeze them with one wording of the question: to see is what is to be learned."""
    prep, data, templates = [sys.executable, "-m", "griffon_prep"], folder / "data", folder / "templates"
    shutil.copytree(_TEMPLATES, templates, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py*", "__pycache__"))
    (templates / "1vn.json").write_text('["Locate <expr>."]')
    if not (data / "manifest.txt").exists():
        call([*prep, "sample-data", data, "--plain", "--tasks", tasks, "--seed", seed, "--images", images, *options])
    frozen = ["--data-root", data, "--templates", templates, "--out", folder / "set"]
    call([*prep, "build", "--manifest", data / "manifest.txt", *frozen])
    return folder / "set"


def _new_model(folder: Path, shards: Path, seed: int) -> None:
    if not folder.exists():
        given = ("--tokenizer", shards, "--seed", seed)
        call([sys.executable, "-m", "griffon_train", "new-model", folder, *_MODEL, *given])


def _train(trained: Path, model: Path, *options: object) -> None:
    """Train a model on the set in a folder, with one thread; progress goes to a log file."""
    command = [sys.executable, "-m", "griffon_train", "run", *_TRAINING, "--keep", 1000, *options]
    command += ["--model", model, "--shards", trained / "set", "--output-dir", trained / "run"]
    path = trained / "training.log"
    click.echo(f"training {trained}; progress in {path}", err=True)
    with path.open("ab") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ended = subprocess.run(list(map(str, command)), stderr=log, env=environment)
    if ended.returncode:
        raise click.ClickException(f"{path}: training ended with {ended.returncode}")


def _curve(trained: Path, shards: Path, steps: Sequence[int]) -> dict[int, float]:
    """The accuracy of checkpoints on the first samples of a set."""
    return {step: _scores(trained, shards, step, limit=_CURVE_SAMPLES)[_FIGURE] for step in steps}


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
    learned, other_images = ([getattr(of_seed, name) for of_seed in scores] for name in ("learned", "other_images"))
    permuted = [of_seed.permuted for of_seed in scores]
    met = [
        min(model[_FIGURE] for model in learned) >= _WANTED,
        *(
            max(model[_FIGURE] for model in control if model is not None) < _WANTED_OF_CONTROLS
            for control in (other_images, permuted)
        ),
    ]
    rows: list[Sequence[str]] = [
        ("held-out images", *map(_with_interval, learned), f"at least {_WANTED}", word(met[0])),
        ("the same models, shown other images", *map(_with_interval, other_images), controls, word(met[1])),
        ("a model trained on permuted labels", *map(_with_interval, permuted), controls, word(met[2])),
    ]
    ious = [f"{of_seed.learned['mean_iou']:.3f}" for of_seed in scores]
    minutes = [f"{of_seed.minutes:.1f}" for of_seed in scores]
    fast = word(all(of_seed.minutes <= _WANTED_MINUTES for of_seed in scores))
    rows += [
        ("mean IoU on held-out images", *ious, "", ""),
        ("minutes of training", *minutes, f"at most {_WANTED_MINUTES}", fast),
    ]
    return ("accuracy at IoU 0.5", *_seeds(scores), "wanted", ""), rows


def _curves(scores: Sequence[Scores]) -> Table:
    """Accuracy by step."""
    rows = [(f"{step:,}", *(f"{of_seed.curve[step]:.3f}" for of_seed in scores)) for step in scores[0].curve]
    return ("steps", *_seeds(scores)), rows


def _seeds(scores: Sequence[Scores]) -> list[str]:
    return [f"seed {seed}" for seed in range(len(scores))]


def _with_interval(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "-"
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
