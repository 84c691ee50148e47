"""`make bench-prep`: the speed of `griffon-prep build` beside tar, ShardWriter and the bare check, and its memory.

Every contender is run in turn, round after round, so that whatever else the machine does falls on all of them alike;
the page cache is warm, and whatever was written before is on disk, when a clock starts.
"""

import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import click
import orjson
from common import call, machine, scratch, word
from common import lines as lines_of

from griffon_shards.lock import read_lock
from griffon_shards.support.tables import size, table

_HERE = Path(__file__).resolve().parent
_MOST_OF_TAR = 2.0
_LEAST_OF_SHARD_WRITER = 3.0
_LEAST_OF_CHECK = 0.75
_MOST_OF_NO_REPORT = 1.03
_MOST_BYTES = {"worker": 150_000_000, "parent": 200_000_000}
_LARGE_LIMIT = 2000
_LARGE_IMAGES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where the benchmark's files lie and how much of everything there is."""

    folder: Path
    images: int
    workers: int
    megabytes: int

    @property
    def out(self) -> Path:
        """What contenders write; removed after each run."""
        return self.folder / "out"

    def build_command(self, manifest: str, check: str, *more: str) -> list[str]:
        """The command line of a build."""
        options = {
            "--manifest": self.folder / manifest,
            "--data-root": self.folder,
            "--out": self.out,
            "--workers": self.workers,
            "--check": check,
        }
        words = [str(word) for option in options.items() for word in option]
        return [str(Path(sys.executable).with_name("griffon-prep")), "build", *words, *more]

    def expect_samples(self, wanted: int) -> None:
        """See that the build which ran last has made what it should, or its speed means nothing."""
        samples = sum(source.samples for source in read_lock(self.out).sources)
        if samples != wanted:
            raise click.ClickException(f"the build made {samples} samples of {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something to time.

    Attributes:
        name: shown in the table.
        run: does it once; gives the seconds that count, or None where those of the whole call do.
        wall_s: of every run.
        cpu_s: of every run, user and system, of all its processes; of the loops their start, too.
        other_cpu_s: what the rest of the machine used meanwhile, the kernel's own threads with it.
    """

    name: str
    run: Callable[[Bench], float | None]
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    other_cpu_s: list[float] = field(default_factory=list)

    @property
    def typical_s(self) -> float:
        """The median wall time."""
        return median(self.wall_s)


@click.command(context_settings={"show_default": True})
@click.option("--images", type=click.IntRange(1), default=20_000, help="Pictures of about 80 kB.")
@click.option("--runs", type=click.IntRange(1), default=5, help="Runs of each; medians count.")
@click.option("--workers", type=click.IntRange(1), default=2, help="Processes of our builds and of the bare check.")
@click.option("--annotation-mb", "megabytes", type=click.IntRange(1), default=1000, help="Size of a large annotation.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the pictures and annotations there.")
@click.option("--quick", is_flag=True, help="2,000 pictures, one run, annotations of 100 MB.")
def main(images: int, runs: int, workers: int, megabytes: int, folder: Path | None, keep: bool, quick: bool) -> None:
    """Measure `griffon-prep build` and say which of its targets it meets."""
    if quick:
        images, runs, megabytes = 2000, 1, 100
    with scratch(folder, keep) as own:
        bench = Bench(folder=own, images=images, workers=workers, megabytes=megabytes)
        click.echo(machine(own))
        _make_data(bench)
        click.echo(f"{images:,} pictures, {size(_bytes_below(own / 'pictures'))}; medians of {runs} run(s)\n")
        click.echo(speed(bench, runs) + "\n")
        click.echo(memory(bench))
    if quick:
        click.echo("\n--quick: with so few pictures the start of a build weighs too much for a word on its speed")


def speed(bench: Bench, runs: int) -> str:
    """Time all contenders in turn; gives the tables of times and of targets."""
    ours, tar, writer = (
        Contender(name="griffon-prep build --check header", run=lambda bench: _run_build(bench, "header")),
        Contender(name="tar cf, sync", run=_run_tar),
        Contender(name="ShardWriter loop, sync", run=_run_shard_writer),
    )
    decoding, checking = (
        Contender(name="griffon-prep build --check decode", run=lambda bench: _run_build(bench, "decode")),
        Contender(name=f"bare decode check, {bench.workers} processes", run=_run_check),
    )
    bare, bare_decoding = (
        Contender(name=f"griffon-prep build --check {check} --no-report", run=partial(_run_bare_build, check=check))
        for check in ("header", "decode")
    )
    contenders = (ours, bare, tar, writer, decoding, bare_decoding, checking)
    for number in range(runs):
        for contender in contenders:
            _time(bench, contender)
            click.echo(f"run {number + 1} of {runs}: {contender.name}: {contender.wall_s[-1]:.2f} s", err=True)
    targets = [
        _target("A wall time of tar", ours, tar, most=_MOST_OF_TAR),
        _target("A samples/s of ShardWriter", writer, ours, least=_LEAST_OF_SHARD_WRITER),
        _target("B samples/s of the bare check", checking, decoding, least=_LEAST_OF_CHECK),
        _target("D wall time of --no-report, header", ours, bare, most=_MOST_OF_NO_REPORT),
        _target("D wall time of --no-report, decode", decoding, bare_decoding, most=_MOST_OF_NO_REPORT),
    ]
    times = table(
        ("contender", "median s", "min-max s", "CPU s", "others' CPU s", "samples/s"),
        [
            (
                contender.name,
                f"{contender.typical_s:.2f}",
                f"{min(contender.wall_s):.2f}-{max(contender.wall_s):.2f}",
                f"{median(contender.cpu_s):.2f}",
                f"{median(contender.other_cpu_s):.2f}",
                round(bench.images / contender.typical_s),
            )
            for contender in contenders
        ],
    )
    return f"{times}\n\n{table(('speed', 'of medians', 'round by round', 'target', ''), targets)}"


def _target(
    name: str, above: Contender, below: Contender, *, most: float = math.inf, least: float = 0.0
) -> tuple[str, ...]:
    """A row of the table of targets: the ratio of two wall times, of the medians and within each round."""
    ratio = above.typical_s / below.typical_s
    rounds = [one / other for one, other in zip(above.wall_s, below.wall_s, strict=True)]
    wanted = f"at most {most} x" if least == 0.0 else f"at least {least} x"
    return name, f"{ratio:.3f} x", f"{min(rounds):.2f}-{max(rounds):.2f}", wanted, word(least <= ratio <= most)


def memory(bench: Bench) -> str:
    """Build under observation, from small annotations and large ones; gives the table of peaks."""
    large = min(_LARGE_IMAGES, bench.images)
    of = f"annotation of {size(bench.megabytes * 1e6)}"
    cases = (
        ("det", f"{bench.images:,} pictures", ["DET & det.jsonl & pictures"], bench.images),
        (
            "ccmd",
            f"ccmd DET and VISJ, {of}",
            [f"{task} & ccmd.jsonl & pictures & limit={_LARGE_LIMIT}" for task in ("DET", "VISJ")],
            None,
        ),
        ("llava", f"llava array, {of}", [f"LAZY & llava.json & pictures & limit={_LARGE_LIMIT}"], None),
    )
    rows: list[Sequence[object]] = []
    for kind, name, lines, samples in cases:
        if kind != "det":
            suffix = Path(lines[0].split(" & ")[1])
            options = ("--kind", kind, "--megabytes", bench.megabytes, "--images", large)
            call([sys.executable, _HERE / "bench_data.py", "large", bench.folder / suffix, *options])
        (bench.folder / f"{kind}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = bench.build_command(f"{kind}.txt", "decode")
        peaks = orjson.loads(call([sys.executable, _HERE / "bench_memory.py", *command]))
        if samples is not None:
            bench.expect_samples(samples)
        shutil.rmtree(bench.out)
        for peak in sorted(peaks, key=lambda peak: str(peak["role"])):
            target = _MOST_BYTES.get(peak["role"])
            resident, private = peak["resident_bytes"], peak["private_bytes"]
            verdict = ("-", "") if target is None else (f"at most {size(target)}", word(resident <= target))
            rows.append((name, peak["role"], size(resident), size(private), *verdict))
    return table(("memory: C", "process", "peak resident", "peak private", "target (resident)", ""), rows)


def _make_data(bench: Bench) -> None:
    began = time.perf_counter()
    call([sys.executable, _HERE / "bench_data.py", "pictures", bench.folder, "--images", bench.images])
    (bench.folder / "det.txt").write_text("DET & det.jsonl & pictures\n", encoding="utf-8")
    click.echo(f"made the pictures in {time.perf_counter() - began:.1f} s", err=True)


def _time(bench: Bench, contender: Contender) -> None:
    """Run a contender once, the page cache warm and nothing waiting to be written."""
    for path in sorted(bench.folder.rglob("*")):
        if path.is_file():
            path.read_bytes()
    os.sync()
    cpu_before, machine_before, began = _cpu_s(), _machine_cpu_s(), time.perf_counter()
    counted_s = contender.run(bench)
    wall_s = time.perf_counter() - began
    contender.wall_s.append(wall_s if counted_s is None else counted_s)
    contender.cpu_s.append(_cpu_s() - cpu_before)
    contender.other_cpu_s.append(max(0.0, _machine_cpu_s() - machine_before - contender.cpu_s[-1]))
    if bench.out.is_dir() and (bench.out / "griffon.lock.json").exists():
        bench.expect_samples(bench.images)
    for path in (bench.out, bench.folder / "out.tar"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    os.sync()


def _run_build(bench: Bench, check: str) -> None:
    call(bench.build_command("det.txt", check))


def _run_bare_build(bench: Bench, check: str) -> None:
    call(bench.build_command("det.txt", check, "--no-report"))


def _run_tar(bench: Bench) -> None:
    """With a sync of this one file: what others write at the time is not tar's."""
    call(["tar", "cf", bench.folder / "out.tar", "-C", bench.folder, "pictures"])
    call(["sync", bench.folder / "out.tar"])


def _run_shard_writer(bench: Bench) -> float:
    return _loop_s("shard-writer", bench.folder / "det.jsonl", bench.folder / "pictures", bench.out)


def _run_check(bench: Bench) -> float:
    return _loop_s("check", bench.folder / "det.jsonl", bench.folder / "pictures", "--workers", bench.workers)


def _loop_s(loop: str, *arguments: object) -> float:
    return float(call([sys.executable, _HERE / "bench_loops.py", loop, *arguments]).split()[-1])


def _cpu_s() -> float:
    """Processor time of all processes that have ended so far and were waited for, by us or by theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _machine_cpu_s() -> float:
    """Processor time that the whole machine has spent since it was started, other than idle, waiting or stolen."""
    user, nice, system, _idle, _wait, irq, soft_irq = map(int, lines_of("/proc/stat")[0].split()[1:8])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.jpg"))


if __name__ == "__main__":
    main()
