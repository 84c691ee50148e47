"""`make bench-train`: a real little language model learns captions, and what the loop costs beside its model.

Each part runs in a process of its own, on one rank. `--shards` takes a frozen set of captions of one's own.
"""

import shutil
import sys
from pathlib import Path
from statistics import median

import click
import orjson
from common import call, machine, scratch, word

from griffon_shards.support.tables import table

_HERE = Path(__file__).resolve().parent
_MOST_OVERHEAD = 0.03
_MOST_APART = 0.05


@click.command(context_settings={"show_default": True})
@click.option("--shards", type=click.Path(path_type=Path, exists=True), help="Captions.  [default: the sample data's]")
@click.option("--runs", type=click.IntRange(1), default=9, help="Runs of the loops; medians count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the files there.")
def main(shards: Path | None, runs: int, folder: Path | None, keep: bool) -> None:
    """Measure training and say which targets are met."""
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        data = _sample_set(own)
        found = [_learning(own, shards or data), *_loop(own, data, runs), *_waiting(own, shards or data)]
        click.echo(table(("target", "found", "wanted", ""), found))


def _sample_set(own: Path) -> Path:
    prep = Path(sys.executable).with_name("griffon-prep")
    call([prep, "sample-data", own / "data", "--images", "64"])
    (own / "m.txt").write_text("LAZY & llava/captions.json & pictures\n", encoding="utf-8")
    call([prep, "build", "--manifest", own / "m.txt", "--data-root", own / "data", "--out", own / "set"])
    return own / "set"


def _learning(own: Path, shards: Path) -> tuple[str, str, str, str]:
    """SmolLM2-135M and a tower that has learned nothing, 20 steps."""
    call([sys.executable, _HERE / "bench_train_parts.py", "smollm", own / "smollm", own / "tower"])
    run = own / "learned"
    train = [sys.executable, "-m", "griffon_train", "run", "--stage", "custom", "--model", own / "smollm"]
    train += ["--vision-tower", own / "tower", "--chat", "qwen2", "--shards", shards, "--output-dir", run]
    train += ["--steps", 20, "--global-batch", 4, "--micro-batch", 4, "--lr", "1e-4", "--device", "cpu"]
    call(train)
    losses = [orjson.loads(line)["loss"] for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
    shutil.rmtree(run)
    return "SmolLM2-135M, loss after 20 steps", f"{first:.2f} to {last:.2f}", "falls", word(last < first)


def _loop(own: Path, shards: Path, runs: int) -> list[tuple[str, str, str, str]]:
    """Our loop and a bare one over the same batches, in turn within one process."""
    told = call([sys.executable, _HERE / "bench_train_parts.py", "loop", shards, own / "loop", runs])
    ours, bare = orjson.loads(told.splitlines()[-1])
    share = median(ours) / median(bare) - 1
    named = f"{share:+.1%} of {median(bare) * 1000:.0f} ms"
    return [
        ("the loop over a bare DeepSpeed loop", named, f"at most {_MOST_OVERHEAD:.0%}", word(share <= _MOST_OVERHEAD))
    ]


def _waiting(own: Path, shards: Path) -> list[tuple[str, str, str, str]]:
    """What a run says of waiting, against what the loader's own rate leaves to wait."""
    rows = []
    for workers in (2, 1):
        folder = own / f"wait-{workers}"
        told = call([sys.executable, _HERE / "bench_train_parts.py", "wait", shards, folder, workers])
        said, expected = orjson.loads(told.splitlines()[-1])
        named = f"{said:.0%}, and {expected:.0%} by the loader's rate"
        met = word(abs(said - expected) <= _MOST_APART)
        rows.append(
            (f"data wait at 50 ms a step, 1022 px, workers: {workers}", named, f"within {_MOST_APART:.0%}", met)
        )
    return rows


if __name__ == "__main__":
    main()
