"""`part=`: whether an image belongs to train or to val, the same in every source that has it."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from griffon_prep.readers.base import AnnotationFiles, Reader
from griffon_prep.readers.rounds import Rounds
from griffon_prep.records import Record, Rejected
from griffon_prep.sources.compressed import opened
from griffon_shards.image_identity import VisualGenomeImages, identity_of, path_parts, visual_genome_images
from griffon_shards.support.files import write_whole

PARTS = ("train", "val")
DEFAULT_VAL_SHARE = Fraction(1, 100)

IMAGE_DATA = "image_data.json"
"""Name of Visual Genome's list of images among the companions of a source."""

_NUMBERS = "part.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How images are divided. Val with a larger share holds all of val with a smaller one.

    Attributes:
        val_share: share of the images that are val's.
        seed: key of the function; another seed gives another val.
    """

    val_share: Fraction
    seed: int

    def part_of(self, image: str) -> str:
        """The part, `train` or `val`, of an image or text that `split_key` names."""
        key = f"{self.seed}\0{image}".encode("utf-8", "surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(key, digest_size=8, person=b"griffon-split").digest(), "little")
        return "val" if Fraction(drawn, 1 << 64) < self.val_share else "train"


def split_key(record: Record, visual_genome: VisualGenomeImages | None) -> str:
    """The key by which a record's part is chosen: that of its image, or of a text-only record's conversation.

    It is the image's identity where a name says which image it is, and otherwise the file name without extension. A
    number alone is that of Visual Genome's image: whether its folder is in the path or is the image root, is the same.
    """
    if record.image_path is None:
        return "text:" + "\0".join(turn.text for turn in record.turns)
    if record.image_unnamed and record.image_bytes is not None:
        return f"sha256:{hashlib.sha256(record.image_bytes).hexdigest()}"
    for path in record.image_paths:
        if identity := identity_of(path, visual_genome):
            return identity
    stem = PurePosixPath((path_parts(record.image_path) or ("",))[-1]).stem
    return identity_of(f"VG_100K/{stem}.jpg") or f"name:{stem}"


def write_part(
    work: Path,
    records: Iterable[int],
    reader: Reader,
    rounds: Rounds | None,
    visual_genome: VisualGenomeImages | None,
    *,
    part: str,
    split: Split,
) -> int:
    """Write the numbers of the records in a part into the source's work folder; returns how many they are.

    A record that cannot be read belongs to train, where it is rejected.
    """
    chosen = [
        record_no
        for record_no in records
        if _part_of([record_no] if rounds is None else rounds[record_no], reader, visual_genome, split) == part
    ]
    write_whole(work / _NUMBERS, np.array(chosen, "<u4").tobytes())
    return len(chosen)


def _part_of(members: Iterable[int], reader: Reader, visual_genome: VisualGenomeImages | None, split: Split) -> str:
    for record_no in members:
        try:
            return split.part_of(split_key(reader.read(record_no), visual_genome))
        except Rejected:
            continue
    return "train"


def read_part(work: Path) -> NDArray[np.uint32]:
    """The record numbers that `write_part` has written, ascending; shape [records]."""
    path = work / _NUMBERS
    return np.memmap(path, "<u4", "r") if path.stat().st_size else np.zeros(0, np.uint32)


def visual_genome_of(files: AnnotationFiles) -> VisualGenomeImages | None:
    """The images of Visual Genome, if the source has their `image_data.json`.

    Raises:
        DataError: the file is damaged.
    """
    path = files.companions.get(IMAGE_DATA)
    return None if path is None else _read_visual_genome(path)


@lru_cache(maxsize=1)
def _read_visual_genome(path: Path) -> VisualGenomeImages:
    with opened(path) as file:
        return visual_genome_images(file.read(), str(path))
