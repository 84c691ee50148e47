"""The keys of an image: what its name says, the SHA-256 of its bytes, and a perceptual hash of its pixels.

The perceptual hash is `imagehash.phash` with 16x16 bits: signs of the low frequencies of the grey image, against their
median. docs/clean-data.md says why this one, and how its threshold was chosen. An image with an EXIF orientation has
two hashes, because its copies may have been turned by it, or may have lost it.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.image_identity import VisualGenomeImages, identity_of, visual_genome_images
from griffon_shards.image_list import ImageListEntry
from griffon_shards.images import SHOWING, ImageError, decode_with_orientation
from griffon_shards.overlap.inputs import Job, local_path
from griffon_shards.storage import Location

HASH_SIDE = 16
WORDS = HASH_SIDE * HASH_SIDE // 64
_DECODED_PX = 4 * HASH_SIDE * 2  # twice the side that imagehash shrinks images to
_LEAST_ONES = HASH_SIDE * HASH_SIDE // 4  # an image of one colour has hardly any, and would equal all others like it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Keys:
    """The keys of some images.

    Attributes:
        names: their names in results: keys of samples, paths.
        sources: number of the source of each among all sources of its side; shape [images], uint16.
        identities: `kind:number`, or empty; Visual Genome's images that are COCO's have COCO's numbers.
        own_identities: the same without `image_data.json`.
        sha256s: shape [images, 32], uint8; zeros if the bytes are not known.
        hashes: perceptual hashes as `perceptual_hashes` returns them; shape [images, 2, WORDS], uint64; zeros for none.
        from_file: whether `sha256s` are of files as their publishers have them, and not of shrunk or turned copies.
        unreadable: messages about images that could not be read or decoded.
    """

    names: list[str]
    sources: NDArray[np.uint16]
    identities: list[str]
    own_identities: list[str]
    sha256s: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    from_file: list[bool]
    unreadable: list[str]


def perceptual_installed() -> bool:
    """Whether the libraries for perceptual hashes are installed (`pip install 'griffon-pipeline[overlap]'`)."""
    return find_spec("imagehash") is not None and hasattr(np, "bitwise_count")


def perceptual_hashes(data: bytes) -> NDArray[np.uint64]:
    """The perceptual hash of an image as viewers show it and, if they turn or mirror it, that of the stored pixels.

    Returns:
        Shape [2, WORDS]; zeros if there is no second hash, and for an image of nearly one colour.

    Raises:
        ImageError: it is not a supported image, or is damaged.
    """
    stored, orientation = decode_with_orientation(data, "L", at_least_px=_DECODED_PX)
    turn = SHOWING.get(orientation)
    if turn is None:
        return np.stack([_hash_of(stored), np.zeros(WORDS, np.uint64)])
    return np.stack([_hash_of(stored.transpose(turn)), _hash_of(stored)])


def _hash_of(grey: Image.Image) -> NDArray[np.uint64]:
    hashed = _imagehash().phash(grey, hash_size=HASH_SIDE)
    bits = np.asarray(hashed.hash, bool).reshape(-1)
    if min(bits.sum(), bits.size - bits.sum()) < _LEAST_ONES:
        return np.zeros(WORDS, np.uint64)
    return np.packbits(bits, bitorder="little").view("<u8").astype(np.uint64)


def examine(job: Job) -> Keys:
    """The keys of a job's images."""
    keys = Keys(
        names=[],
        sources=np.zeros(len(job.items), np.uint16),
        identities=[],
        own_identities=[],
        sha256s=np.zeros((len(job.items), 32), np.uint8),
        hashes=np.zeros((len(job.items), 2, WORDS), np.uint64),
        from_file=[],
        unreadable=[],
    )
    visual_genome = None if job.image_data is None else read_image_data(job.image_data)
    for place, image in enumerate(_images(job)):
        keys.names.append(image.name)
        keys.sources[place] = job.input.first_source + image.source
        keys.own_identities.append(image.identity or identity_of(image.path))
        keys.identities.append(_mapped(image, visual_genome) or keys.own_identities[-1])
        keys.from_file.append(image.from_file)
        if image.sha256:
            keys.sha256s[place] = np.frombuffer(image.sha256, np.uint8)
        if image.error:
            keys.unreadable.append(f"{job.input.path}, {image.name}: {image.error}")
        elif image.data is not None and job.perceptual:
            try:
                keys.hashes[place] = perceptual_hashes(image.data)
            except ImageError as error:
                keys.unreadable.append(f"{job.input.path}, {image.name}: {error}")
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    name: str
    path: str = ""
    source: int = 0
    identity: str = ""
    sha256: bytes = b""
    data: bytes | None = None
    from_file: bool = True
    error: str = ""


def _images(job: Job) -> Iterator[_Image]:
    frozen = open_frozen(job.input.path) if job.input.kind == "set" else None
    for item in job.items:
        if isinstance(item, ImageListEntry):
            name = item.path or item.identity or item.sha256
            sha256 = bytes.fromhex(item.sha256)
            yield _Image(name=name, path=item.path, identity=item.identity, sha256=sha256)
        elif isinstance(item, str):
            yield _file_image(local_path(job.input) / item, item)
        else:
            assert frozen is not None
            yield _sample_image(frozen, item)


def _file_image(file: Path, name: str) -> _Image:
    path = os.fspath(file.absolute())  # the given folder may be the one that tells whose numbers the names are
    if file.is_symlink() and file.exists() and not file.is_file():  # reading a pipe would wait for ever
        return _Image(name=name, path=path, error="is no file; only its name is compared")
    try:
        data = file.read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:  # a dead link, for example
        return _Image(name=name, path=path, error=f"{error.strerror}; only its name is compared")
    return _Image(name=name, path=path, sha256=hashlib.sha256(data).digest(), data=data)


def _sample_image(frozen: FrozenSet, row: int) -> _Image:
    sample = frozen[row]
    assert sample.image is not None
    path = sample.origin.image or ""
    source = int(frozen.index[row]["source"])
    options = frozen.lock.sources[source].options
    changed = bool(frozen.lock.render.get("resize")) or options.get("orientation") == "shown"
    return _Image(
        name=path if changed and path else sample.key,
        path=path,
        source=source,
        sha256=hashlib.sha256(sample.image).digest(),
        data=sample.image,
        from_file=not changed,
    )


def _mapped(image: _Image, visual_genome: VisualGenomeImages | None) -> str:
    if visual_genome is None:
        return ""
    kind, _, number = image.identity.partition(":")
    if kind == "visual_genome":
        coco_id = visual_genome.coco_id(int(number))
        return "" if coco_id is None else f"coco:{coco_id}"
    return identity_of(image.path, visual_genome)


@lru_cache(maxsize=4)
def open_frozen(root: Location) -> FrozenSet:
    """A set, open in this process."""
    return open_set(root).in_order()


@lru_cache(maxsize=1)
def read_image_data(path: Path) -> VisualGenomeImages:
    """Visual Genome's `image_data.json`, read once in each process."""
    return visual_genome_images(path.read_bytes(), str(path))


@lru_cache(maxsize=1)
def _imagehash():  # type: ignore[no-untyped-def]  # noqa: ANN202 - the library has no types
    return import_module("imagehash")
