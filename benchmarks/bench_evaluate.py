"""`make bench-evaluate`: answers in batches against answers one by one, and `seen` on millions of samples."""

import sys
import time
from pathlib import Path
from statistics import median

import click
import orjson
import torch
from bench_read_sets import make_sets, many_rows
from common import call, machine, scratch, word

from griffon_prep.sample_data import write_plain_data
from griffon_prep.sample_data.paint import paint
from griffon_prep.sample_data.plain import plain_scene
from griffon_shards.frozen_set import open_set
from griffon_shards.support.tables import table
from griffon_shards.types import Turn
from griffon_train.config.run_folder import METRICS, SETTINGS_NAME
from griffon_train.config.settings import from_values, settings_as_json
from griffon_train.evaluation.generation import Generator, Prompt
from griffon_train.evaluation.saved_model import open_saved
from griffon_train.model.new_model import new_model
from griffon_train.model.presets import SmallSize, family_chat

_FAMILIES = ("qwen2", "gemma2", "llama2")
_SIZE = SmallSize(width=256, layers=6)
_BATCH, _NEW_TOKENS, _QUESTIONS = 16, 60, 32
_LEAST_SPEED_UP = 4.0
_ROWS, _STEPS, _GLOBAL_BATCH = 8_000_000, 150_000, 128
_MOST_SECONDS = 1.0

Row = tuple[str, str, str, str]


@click.command(context_settings={"show_default": True})
@click.option("--runs", type=click.IntRange(1), default=3, help="Runs of each; medians count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
def main(runs: int, folder: Path | None) -> None:
    """Measure generation and `seen`, and say which targets are met."""
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        questions = _questions(own)
        rows = [_generation(family, questions, own, runs) for family in _FAMILIES]
        _, tasks = make_sets(own, 500)
        rows += _seen(many_rows(tasks, own / "many", _ROWS), own / "run", runs)
        click.echo(table(("target", "found", "wanted", ""), rows))


def _questions(own: Path) -> Path:
    """A set whose text the tokenizers are trained on; with a token for each byte, prompts would be far longer."""
    manifest = write_plain_data(own / "plain", seed=0, images=200, tasks=["VG", "DET"])
    command = [sys.executable, "-m", "griffon_prep", "build", "--manifest", manifest]
    call([*command, "--data-root", manifest.parent, "--out", own / "plain-set"])
    return own / "plain-set"


def _generation(family: str, questions: Path, own: Path, runs: int) -> Row:
    """Answers to questions about as many images, of at most `_NEW_TOKENS` tokens, in batches and one by one."""
    size = {"family": family, "size": _SIZE, "projector": "mlp2x_gelu", "select_layer": -2}
    new_model(own / family, tokenizer=str(questions), vocabulary=1000, seed=0, **size)  # type: ignore[arg-type]
    loaded = open_saved(own / family, "cpu", "float32")
    generator = Generator(loaded.model, loaded.tokenizer, chat=family_chat(family))
    images = [paint(plain_scene(0, number)) for number in range(_QUESTIONS)]
    turns = (Turn(role="human", text="<image>\nLocate the red bar."),)
    prompts = [Prompt(turns=turns, image=image) for image in images]
    seconds: dict[int, list[float]] = {1: [], _BATCH: []}
    for _ in range(runs):
        for batch, taken in seconds.items():
            began = time.perf_counter()
            for start in range(0, _QUESTIONS, batch):
                generator.answers(prompts[start : start + batch], _NEW_TOKENS)
            taken.append(time.perf_counter() - began)
    single, batched = (_QUESTIONS / median(taken) for taken in seconds.values())
    speeds = f"{batched:.1f} answers/s in batches of {_BATCH}, {single:.1f} one by one"
    name = f"{family}, {torch.get_num_threads()} threads: {speeds}"
    ratio = batched / single
    return name, f"{ratio:.2f} x", f"at least {_LEAST_SPEED_UP:g} x", word(ratio >= _LEAST_SPEED_UP)


def _seen(root: Path, run: Path, runs: int) -> list[Row]:
    """What a run that took `_STEPS` steps over a set has used; the index is in the page cache."""
    run.mkdir()
    settings = from_values(
        {"stage": "custom", "shards": (root,), "output_dir": run, "global_batch": _GLOBAL_BATCH, "steps": _STEPS}
    )
    (run / SETTINGS_NAME).write_bytes(orjson.dumps(settings_as_json(settings)))
    (run / METRICS).write_bytes(orjson.dumps({"step": _STEPS - 1}) + b"\n")
    key = open_set(root).key(_ROWS // 3)
    tag = key.rpartition("-")[0]
    rows: list[Row] = []
    for asked in (("--key", key), ("--source", tag), ("--step", 77_777), ("--before-step", 99_999)):
        taken = []
        for _ in range(runs):
            began = time.perf_counter()
            call([sys.executable, "-m", "griffon_train", "seen", run, *asked])
            taken.append(time.perf_counter() - began)
        found = median(taken)
        wanted = f"under {_MOST_SECONDS:g} s"
        rows.append((f"seen {asked[0]}, whole process", f"{found:.2f} s", wanted, word(found < _MOST_SECONDS)))
    return rows


if __name__ == "__main__":
    main()
