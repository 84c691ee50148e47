"""Which image a file name stands for: the same COCO image has other names in COCO 2014, COCO 2017 and Visual Genome.

`griffon-shards overlap`, exclusion lists and the split into train and val all decide by `identity_of`.
"""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec
import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import DataError

KINDS = ("coco", "visual_genome", "objects365")
"""Collections whose file names hold a number that names the image; an identity is `kind:number`."""

_COCO = re.compile(
    r"(?:COCO_(?:train|val|test)\d{4}_(\d{12})(?:_\d+)?|(\d{12}))"
)  # RefCOCO appends a reference's number
_OBJECTS365 = re.compile(r"(?:objects365_v\d_(\d{8})|obj365_(?:train|val|test)_(\d{12}))", re.IGNORECASE)
_NUMBER = re.compile(r"[1-9]\d{0,9}")
_VISUAL_GENOME_FOLDERS = ("VG_100K", "VG_100K_2")


class _ImageData(msgspec.Struct):
    """The fields of an entry of `image_data.json` that are used."""

    image_id: int
    coco_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisualGenomeImages:
    """The numbers of Visual Genome's images, and which of them are COCO's.

    Attributes:
        numbers: ascending; shape [images], int64.
        coco_ids: of the same images, -1 for those that are not COCO's; shape [images], int64.
    """

    numbers: NDArray[np.int64]
    coco_ids: NDArray[np.int64]

    def __contains__(self, number: int) -> bool:
        return self._place(number) is not None

    def coco_id(self, number: int) -> int | None:
        """The COCO id of an image, or None if it has none or the number is unknown."""
        place = self._place(number)
        return None if place is None or self.coco_ids[place] < 0 else int(self.coco_ids[place])

    def _place(self, number: int) -> int | None:
        place = int(np.searchsorted(self.numbers, number))
        return place if place < len(self.numbers) and self.numbers[place] == number else None


def visual_genome_images(image_data: bytes, name: str) -> VisualGenomeImages:
    """Read Visual Genome's `image_data.json`.

    Args:
        image_data: the content of the file.
        name: the file's name, for the error.

    Raises:
        DataError: it is not a list of objects with `image_id` and perhaps `coco_id`.
    """
    try:
        entries = msgspec.json.decode(image_data, type=list[_ImageData], strict=False)  # "7" is 7
        by_number = {entry.image_id: -1 if entry.coco_id is None else entry.coco_id for entry in entries}
        numbers = np.array(sorted(by_number), np.int64)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError) as error:
        raise DataError(f"{name}: is not Visual Genome's image_data.json ({error}); download it again") from None
    return VisualGenomeImages(
        numbers=numbers, coco_ids=np.array([by_number[number] for number in numbers.tolist()], np.int64)
    )


def identity_of(path: str, visual_genome: VisualGenomeImages | None = None) -> str:
    """The image that a path names, as `kind:number`; empty if its name does not say.

    COCO's names are those of 2014, 2015 and 2017, whose numbers are the same. Visual Genome's are numbers in its
    folders `VG_100K` and `VG_100K_2`, and with `visual_genome` also its numbers anywhere else; an image of COCO is then
    named as COCO's.

    Args:
        path: path of the image, with slashes or backslashes.
        visual_genome: the images of Visual Genome.
    """
    parts = path_parts(path)
    stem = PurePosixPath(parts[-1]).stem if parts else ""
    if coco := _COCO.fullmatch(stem):
        return f"coco:{int(coco[1] or coco[2])}"
    if objects365 := _OBJECTS365.fullmatch(stem):
        return f"objects365:{int(objects365[1] or objects365[2])}"
    if not _NUMBER.fullmatch(stem):
        return ""
    number = int(stem)
    if visual_genome is not None and number in visual_genome:
        coco_id = visual_genome.coco_id(number)
        return f"visual_genome:{number}" if coco_id is None else f"coco:{coco_id}"
    return f"visual_genome:{number}" if parts[-2:-1] and parts[-2] in _VISUAL_GENOME_FOLDERS else ""


def path_parts(path: str) -> tuple[str, ...]:
    """The folders and the name of a path or URL in one spelling: composed characters, without a URL's query."""
    if "://" in path:
        path = path.partition("://")[2].partition("?")[0]
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", "."))
