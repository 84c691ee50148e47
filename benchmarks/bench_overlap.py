"""`make bench-overlap`: does `griffon-shards overlap` find copies of images, and what does it cost?

Copies of real images are made and examined as a user would have them: renamed, encoded again at quality 70, at half the
size, cropped by 2 %. Two million images cannot be made here. For their number the search is measured on made-up hashes:
parts of real ones with random bits flipped, with copies as far from them as the copies of real images were; and names
and SHA-256s with the command itself, on lists.
"""

import hashlib
import resource
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import orjson
from common import call, machine, scratch, word
from numpy.typing import NDArray
from PIL import Image

from griffon_prep.sample_data import write_sample_data
from griffon_shards.overlap.examine import WORDS, perceptual_hashes
from griffon_shards.overlap.inputs import ENDINGS
from griffon_shards.overlap.table import MOST_BITS, make_table
from griffon_shards.support.tables import size, table

_TRAIN, _EVAL = 2_000_000, 100_000
_COPIES = 10_000  # of each kind, among the two million
_CROPS, _MORE_CROPS = 25, 100  # of every image: to make copies of, and to find false matches among
_BLOCK = 2048
_LEAST_FOUND, _MOST_FALSE, _MOST_BYTES = 0.99, 1e-6, 1e9
_FLIPPED = 0.15  # share of the bits of a made-up hash


def _encoded(image: Image.Image, quality: int) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def _half(image: Image.Image) -> bytes:
    return _encoded(image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS), 90)


def _cropped(image: Image.Image) -> bytes:
    width_px, height_px = image.size
    left, top = width_px // 100, height_px // 100
    return _encoded(image.crop((left, top, left + int(width_px * 0.98), top + int(height_px * 0.98))), 90)


_KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "renamed": lambda image: _encoded(image, 95),
    "encoded at quality 70": lambda image: _encoded(image, 70),
    "half the size": _half,
    "cropped by 2 %": _cropped,
}


@click.group(invoke_without_command=True, context_settings={"show_default": True})
@click.option("--images", type=click.Path(path_type=Path), help="Folder of real images.  [default: draws sample data]")
@click.option("--train", type=click.IntRange(1), default=_TRAIN, help="Images of the training side.")
@click.option("--evaluation", type=click.IntRange(1), default=_EVAL, help="Images of the evaluation side.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the files there.")
@click.pass_context
def main(
    context: click.Context, images: Path | None, train: int, evaluation: int, folder: Path | None, keep: bool
) -> None:
    """Measure what is found, what is found falsely, and time and memory of the search."""
    if context.invoked_subcommand:
        return
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        if images is None:
            images = write_sample_data(own / "sample data", seed=0, images=48).parent
        wholes, crops = _write_copies(images, own)
        targets = _copies_of_images(own, wholes, crops)
        targets += _false_matches(images)
        targets += _lists(own, train, evaluation)
        targets += _search(own, train, evaluation)
    rows = [(what, found, wanted, word(met)) for what, found, wanted, met in targets]
    click.echo("\n" + table(("target", "found", "wanted", ""), rows))


_Targets = list[tuple[str, str, str, bool]]


def _write_copies(images: Path, own: Path) -> tuple[int, int]:
    """Write every image and crops of it into a folder, and copies of each kind into others; returns their numbers."""
    distinct = _distinct(images)
    random = np.random.default_rng(0)
    (own / "eval").mkdir()
    for kind in _KINDS:
        (own / kind).mkdir()
    number = 0
    for data in distinct:
        with Image.open(BytesIO(data)) as opened:
            image = opened.convert("RGB")
        for crop in range(1 + _CROPS):
            part = _crop(image, random) if crop else image
            name = f"{'crop' if crop else 'whole'} {number:06d}.jpg"
            (own / "eval" / name).write_bytes(_encoded(part, 95))
            for kind, copied in _KINDS.items():
                (own / kind / f"other {name}").write_bytes(copied(part))
            number += 1
    return len(distinct), number - len(distinct)


def _copies_of_images(own: Path, wholes: int, crops: int) -> _Targets:
    """Look for the copies with the command; a copy is found if its own original is."""
    click.echo(f"\n{wholes} images and {crops:,} crops of them, and a copy of each kind of all of them")
    rows: list[tuple[object, ...]] = []
    targets: _Targets = []
    for kind in _KINDS:
        whole_bits, crop_bits, by_bytes, seconds = _found(own, kind)
        whole, crop = (int((bits <= MOST_BITS).sum()) for bits in (whole_bits, crop_bits))
        rows.append(
            (
                *(kind, by_bytes, f"{whole / wholes:.2%}", int(np.median(whole_bits)), int(whole_bits.max())),
                *(f"{crop / crops:.2%}", int(np.median(crop_bits)), int(crop_bits.max()), f"{seconds:.1f}"),
            )
        )
        if kind == "renamed":
            targets.append(("SHA-256: renamed", f"{by_bytes} of {wholes + crops}", "all", by_bytes == wholes + crops))
        if kind in ("encoded at quality 70", "half the size"):
            share = (whole + crop) / (wholes + crops)
            targets.append(
                (f"perceptual: {kind}", f"{share:.2%}", f"at least {_LEAST_FOUND:.0%}", share >= _LEAST_FOUND)
            )
    bits = ("bits, median", "most")
    click.echo(table(("copies", "by SHA-256", "of the images", *bits, "of the crops", *bits, "s"), rows))
    return targets


def _found(own: Path, kind: str) -> tuple[NDArray[np.int64], NDArray[np.int64], int, float]:
    """Run the command, and compare every copy with its original.

    Returns:
        In how many bits copies of images differ from their originals, and copies of crops (256 without a hash); how
        many copies the command has found by SHA-256; and its seconds.
    """
    began = time.monotonic()
    out = call([sys.executable, "-m", "griffon_shards", "overlap", own / kind, "--eval", own / "eval", "--json"])
    seconds = time.monotonic() - began
    (pair,) = orjson.loads(out)["pairs"]
    originals, copies = _hashes(own / "eval"), _hashes(own / kind)
    bits: dict[str, list[int]] = {"whole": [], "crop": []}
    for name, original in originals.items():
        copy = copies[f"other {name}"]
        hashed = original.any() and copy.any()
        bits[name.split()[0]].append(int(np.bitwise_count(copy ^ original).sum()) if hashed else 256)
    whole, crop = (np.array(values, np.int64) for values in bits.values())
    np.save(own / f"{kind}.npy", np.concatenate([whole, crop]))
    np.save(own / "hashes.npy", np.array(list(originals.values())))
    near = int((whole <= MOST_BITS).sum() + (crop <= MOST_BITS).sum())
    if pair["perceptual"] < near:
        raise click.ClickException(
            f"{kind}: {near} copies are near their originals, the command found {pair['perceptual']}"
        )
    return whole, crop, pair["sha256"], seconds


def _hashes(folder: Path) -> dict[str, NDArray[np.uint64]]:
    return {path.name: perceptual_hashes(path.read_bytes())[0] for path in sorted(folder.iterdir())}


def _false_matches(images: Path) -> _Targets:
    """Compare the hashes of all pairs of parts of different images; more crops of each than there are copies of."""
    random = np.random.default_rng(2)
    hashes: list[NDArray[np.uint64]] = []
    owners: list[int] = []
    for owner, data in enumerate(_distinct(images)):
        with Image.open(BytesIO(data)) as opened:
            image = opened.convert("RGB")
        for part in (image, *(_crop(image, random) for _ in range(_MORE_CROPS))):
            hashes.append(perceptual_hashes(_encoded(part, 95))[0])
            owners.append(owner)
    all_hashes, all_owners = np.array(hashes), np.array(owners)
    hashed = all_hashes.any(axis=1)
    false = pairs = 0
    nearest = WORDS * 64
    for place in np.flatnonzero(hashed).tolist():
        others = all_hashes[(all_owners > all_owners[place]) & hashed]
        if len(others):
            bits = np.bitwise_count(others ^ all_hashes[place]).sum(axis=1)
            false += int((bits <= MOST_BITS).sum())
            pairs += len(bits)
            nearest = min(nearest, int(bits.min()))
    click.echo(
        f"\n{pairs:,} pairs of parts of different images: {false} differ in at most {MOST_BITS} bits; the nearest two "
        f"in {nearest}; {int((~hashed).sum())} of {len(hashes):,} parts, of nearly one colour, have no hash"
    )
    return [("false matches", f"{false} of {pairs:,}", f"under {_MOST_FALSE:.0e} of them", false / pairs < _MOST_FALSE)]


def _distinct(images: Path) -> list[bytes]:
    """The images of a folder, each once."""
    paths = (path for path in sorted(images.rglob("*")) if path.suffix.lower() in ENDINGS)
    return list(dict.fromkeys(path.read_bytes() for path in paths))


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A crop, a quarter to three fifths of the sides."""
    share = random.uniform(0.25, 0.6)
    width_px, height_px = int(image.width * share), int(image.height * share)
    left, top = int(random.integers(image.width - width_px)), int(random.integers(image.height - height_px))
    return image.crop((left, top, left + width_px, top + height_px))


def _lists(own: Path, train: int, evaluation: int) -> _Targets:
    """Identities and SHA-256s with the command, on lists in which every fifth image of EVAL is in TRAIN."""
    lines = {
        "train.txt": [_line(number) for number in range(train)],
        "eval.txt": [_line(number if number % 5 == 0 else train + number) for number in range(evaluation)],
    }
    known = {kind: sum(number % 2 == kind for number in range(0, evaluation, 5)) for kind in (0, 1)}
    for name, content in lines.items():
        (own / name).write_text("\n".join(content))
    out = orjson.loads(call([sys.executable, __file__, "peak", own / "train.txt", own / "eval.txt"]))
    (pair,) = out["pairs"]
    click.echo(
        f"\nlists of {train:,} and {evaluation:,} names and SHA-256s, with --workers 1: {out['cpu_s']:.0f} s of CPU; "
        f"peak resident {size(out['peak'])}"
    )
    exact = (pair["identity"], pair["sha256"]) == (known[0], known[1])
    return [
        (
            "identity and SHA-256",
            f"{pair['identity']:,} and {pair['sha256']:,}",
            f"{known[0]:,} and {known[1]:,}",
            exact,
        ),
        ("peak memory, lists", size(out["peak"]), "under 1 GB", out["peak"] < _MOST_BYTES),
    ]


def _line(number: int) -> str:
    return f"{number:012d}.jpg" if number % 2 == 0 else hashlib.sha256(b"%d" % number).hexdigest()


@main.command("peak")
@click.argument("train", type=click.Path(path_type=Path))
@click.argument("evaluation", type=click.Path(path_type=Path))
def peak_command(train: Path, evaluation: Path) -> None:
    """Run the command and add its peak memory and its seconds of CPU to what it prints."""
    out = orjson.loads(
        call([sys.executable, "-m", "griffon_shards", "overlap", train, "--eval", evaluation, "--json", "--workers", 1])
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    click.echo(orjson.dumps({**out, "peak": used.ru_maxrss * 1024, "cpu_s": cpu_s}).decode())


def _search(own: Path, train: int, evaluation: int) -> _Targets:
    out = orjson.loads(call([sys.executable, __file__, "search", own, train, evaluation]))
    click.echo(
        f"\nmade-up hashes, {train:,} against {evaluation:,}, in one process: table {out['table_s']:.1f} s, search "
        f"{out['search_s']:.0f} s of CPU ({out['search_s'] / train * 1e6:.0f} us an image); "
        f"peak resident {size(out['peak'])}"
    )
    rows = [(kind, f"{found:,} of {known:,}") for kind, (found, known) in out["found"].items()]
    click.echo(table(("copies", "found"), [*rows, ("others, found falsely", f"{out['false']:,}")]))
    missed = sum(known - found for found, known in out["found"].values())
    return [
        ("search: within the threshold", f"{missed} missed", "none missed", missed == 0),
        ("peak memory, search", size(out["peak"]), "under 1 GB", out["peak"] < _MOST_BYTES),
    ]


@main.command("search")
@click.argument("own", type=click.Path(path_type=Path))
@click.argument("train", type=int)
@click.argument("evaluation", type=int)
def search_command(own: Path, train: int, evaluation: int) -> None:
    """Search the table with made-up hashes, and print what was found as JSON."""
    random = np.random.default_rng(1)
    real = np.load(own / "hashes.npy")
    real = real[real.any(axis=1)]
    hashes = _made_up(random, real, evaluation)
    began = time.process_time()
    none, no_bytes = np.zeros(evaluation, np.uint64), np.zeros((evaluation, 2), np.uint64)
    images = make_table(np.zeros(evaluation, np.uint16), none, no_bytes, hashes[:, None])
    table_s = time.process_time() - began
    kinds = list(_KINDS)
    far = {kind: np.load(own / f"{kind}.npy") for kind in kinds}
    found = {kind: [0, 0] for kind in kinds}
    false, search_s = 0, 0.0
    for start in range(0, train, _BLOCK):
        count = min(_BLOCK, train - start)
        queries = _made_up(random, real, count)
        originals = np.full(count, -1)
        copies = min(count, -(-_COPIES * len(kinds) * _BLOCK // train))
        originals[:copies] = random.choice(evaluation, copies, replace=False)
        for place in range(copies):
            kind = kinds[place % len(kinds)]
            bits = min(int(random.choice(far[kind])), WORDS * 64)
            queries[place] = hashes[originals[place]] ^ _mask(random, bits)
            found[kind][1] += bits <= MOST_BITS
        began = time.process_time()
        matches = images.look_up(none[:count], no_bytes[:count], queries[:, None])
        search_s += time.process_time() - began
        right = matches.images == originals[matches.queries]
        false += int((~right).sum())
        for place in matches.queries[right].tolist():
            found[kinds[place % len(kinds)]][0] += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    click.echo(
        orjson.dumps({"table_s": table_s, "search_s": search_s, "peak": peak, "found": found, "false": false}).decode()
    )


def _made_up(random: np.random.Generator, real: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Hashes of which each part of 16 bits is that of some real one, with bits flipped; shape [count, WORDS]."""
    parts = real.view("<u2")
    mixed = np.stack([parts[random.integers(len(parts), size=count), part] for part in range(parts.shape[1])], axis=1)
    flips = np.packbits(random.random((count, mixed.shape[1] * 16), np.float32) < _FLIPPED, axis=1, bitorder="little")
    made: NDArray[np.uint64] = (mixed ^ flips.view("<u2")).view("<u8").astype(np.uint64)
    return made


def _mask(random: np.random.Generator, bits: int) -> NDArray[np.uint64]:
    chosen = np.zeros(WORDS * 64, bool)
    chosen[random.choice(WORDS * 64, bits, replace=False)] = True
    mask: NDArray[np.uint64] = np.packbits(chosen, bitorder="little").view("<u8").astype(np.uint64)
    return mask


if __name__ == "__main__":
    main()
