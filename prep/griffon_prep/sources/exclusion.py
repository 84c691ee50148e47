"""Images and samples that a build leaves out: the lists of `exclude=` and `--exclude`, the keys of `--exclude-keys`."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import orjson

from griffon_prep.records import Rejected
from griffon_shards.image_identity import VisualGenomeImages, identity_of, path_parts
from griffon_shards.image_list import list_lines, read_image_list
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import counted

_KEY = re.compile(r"([A-Za-z0-9_]+)-(\d{9,10})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionList:
    """The images that a list names, each in one of three ways.

    Attributes:
        name: the list's file name.
        identities: as `griffon_shards.image_identity.identity_of` returns them.
        sha256s: hashes of the files' bytes, in lower-case hexadecimal.
        paths: the last parts of paths, for images whose name does not say which they are.
    """

    name: str
    identities: frozenset[str]
    sha256s: frozenset[str]
    paths: frozenset[tuple[str, ...]]

    def check_name(self, image_root: str, image_path: str, identities: Collection[str]) -> None:
        """Raise Rejected (`excluded`) if the list names an image of this path or one of these identities."""
        for identity in identities:
            if identity in self.identities:
                raise Rejected("excluded", f"{image_path}: {identity} is in {self.name}")
        if self.paths:
            parts = path_parts(f"{image_root}/{image_path}")
            if any(parts[-length:] in self.paths for length in range(1, len(parts) + 1)):
                raise Rejected("excluded", f"{image_path}: the name is in {self.name}")

    def check_data(self, image_path: str, data: bytes) -> None:
        """Raise Rejected (`excluded`) if the list has the SHA-256 of the image's bytes."""
        if self.sha256s and hashlib.sha256(data).hexdigest() in self.sha256s:
            raise Rejected("excluded", f"{image_path}: its SHA-256 is in {self.name}")


@lru_cache(maxsize=16)
def read_exclusion_list(path: Path) -> ExclusionList:
    """Read a list of images; see `griffon_shards.image_list`.

    Raises:
        SettingsError: the file cannot be read, or lines name no image; one line per fault.
    """
    identities: set[str] = set()
    sha256s: set[str] = set()
    paths: set[tuple[str, ...]] = set()
    for entry in read_image_list(path):
        if entry.identity:
            identities.add(entry.identity)
        elif entry.sha256:
            sha256s.add(entry.sha256)
        else:
            paths.add(path_parts(entry.path))
    return ExclusionList(
        name=path.name, identities=frozenset(identities), sha256s=frozenset(sha256s), paths=frozenset(paths)
    )


@lru_cache(maxsize=16)
def read_excluded_keys(path: Path) -> Mapping[str, Mapping[int, int]]:
    """Read keys of samples, one a line: bare, or JSON objects with a `key`, as `griffon-shards view` writes its marks.

    Returns:
        For each tag, its record numbers, each with the line that names it.

    Raises:
        SettingsError: the file cannot be read, or lines hold no key; one line per fault.
    """
    records: dict[str, dict[int, int]] = defaultdict(dict)
    faults = []
    for line_no, line in list_lines(path):
        key: object = line
        if line.startswith("{"):
            try:
                key = orjson.loads(line).get("key")
            except orjson.JSONDecodeError:
                key = None
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None:
            faults.append(
                f'{path}:{line_no}: expected a key such as DET_coco-000000007, or {{"key": "DET_coco-000000007"}}, '
                f"got {line[:80]!r}"
            )
        else:
            records[match[1]].setdefault(int(match[2]), line_no)
    if faults:
        raise SettingsError("\n".join(faults))
    return dict(records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """The images and records that a source leaves out. Every method raises Rejected (`excluded`) for one of them.

    Attributes:
        lists: the lists of images.
        keys: names of the files with keys, each with the source's record numbers in it.
        image_root: absolute folder of the images.
        visual_genome: the images of Visual Genome, if the source has their `image_data.json`.
    """

    lists: tuple[ExclusionList, ...]
    keys: tuple[tuple[str, Mapping[int, int]], ...]
    image_root: str
    visual_genome: VisualGenomeImages | None

    def check_record(self, record_no: int) -> None:
        """Check a record by its number."""
        for name, records in self.keys:
            if record_no in records:
                raise Rejected("excluded", f"its key is in {name}")

    def check_paths(self, image_paths: Sequence[str]) -> None:
        """Check an image by its paths: those that the annotation gives for it, and where else it may be."""
        for image_path in image_paths if self.lists else ():
            # The image root may be the folder that tells whose numbers the file names are.
            path = f"{self.image_root}/{image_path}"
            identities = {identity_of(path, self.visual_genome), identity_of(path)}
            for images in self.lists:
                images.check_name(self.image_root, image_path, identities)

    def check_data(self, image_path: str, data: bytes) -> None:
        """Check an image by the bytes of its file."""
        for images in self.lists:
            images.check_data(image_path, data)


def unknown_keys(path: Path, records_by_tag: Mapping[str, int]) -> str:
    """A sentence about keys that name no record of the build; empty if there are none.

    Args:
        path: the file with the keys.
        records_by_tag: number of records of every source of the build.
    """
    unknown = [
        (line_no, f"{tag}-{record_no:09d}")
        for tag, records in read_excluded_keys(path).items()
        for record_no, line_no in records.items()
        if record_no >= records_by_tag.get(tag, 0)
    ]
    if not unknown:
        return ""
    line_no, key = min(unknown)
    keys = counted(len(unknown), "key names", "keys name")
    return f"{path}: {keys} no record of this build, such as {key} in line {line_no}"
