"""Lists that name images, one a line: file names, COCO ids, identities, SHA-256s. `overlap` writes and reads them.

# a comment
000000000042                  a COCO id: a number alone
visual_genome:2315            a number of another collection
COCO_val2014_000000000042.jpg a file name that says which image it is: the image under any of its names
holiday/IMG_0007.jpg          another file name, or the end of a path
b94d27b9...cde9               the SHA-256 of a file's bytes
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from griffon_shards.image_identity import KINDS, identity_of
from griffon_shards.support.errors import SettingsError

_MOST_FAULTS = 20
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_COCO_ID = re.compile(r"\d{1,12}")
_IDENTITY = re.compile(rf"({'|'.join(KINDS)}):(\d{{1,12}})")
_FILE_NAME = re.compile(r".*[^/\\]\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageListEntry:
    """One image of a list. Either the identity or the SHA-256 or the path is set, and the others are empty.

    Attributes:
        identity: as `griffon_shards.image_identity.identity_of` returns it.
        sha256: of the file's bytes, in lower-case hexadecimal.
        path: the last parts of the image's path, if they do not say which image it is.
    """

    identity: str = ""
    sha256: str = ""
    path: str = ""


def read_image_list(path: Path) -> Iterator[ImageListEntry]:
    """Read a list line by line. Blank lines and lines that begin with `#` are skipped.

    Raises:
        SettingsError: the file cannot be read, or lines name no image; the first of them, one line per fault.
    """
    faults: list[str] = []
    for line_no, line in list_lines(path):
        if entry := _entry(line):
            yield entry
            continue
        faults.append(
            f"{path}:{line_no}: expected an image's file name, COCO id, {'|'.join(KINDS)}:NUMBER or SHA-256, "
            f"got {line[:80]!r}"
        )
        if len(faults) == _MOST_FAULTS:
            break
    if faults:
        raise SettingsError("\n".join(faults))


def _entry(line: str) -> ImageListEntry | None:
    if _SHA256.fullmatch(line):
        return ImageListEntry(sha256=line.lower())
    if _COCO_ID.fullmatch(line):
        return ImageListEntry(identity=f"coco:{int(line)}")
    if identity := _IDENTITY.fullmatch(line):
        return ImageListEntry(identity=f"{identity[1]}:{int(identity[2])}")
    if is_file_name(line):
        known = identity_of(line)
        return ImageListEntry(identity=known) if known else ImageListEntry(path=line)
    return None


def is_file_name(line: str) -> bool:
    """Whether a line of a list would be read as the file name of an image."""
    return bool(_FILE_NAME.fullmatch(line))


def list_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list with their numbers, from 1, without blank lines and comments.

    Raises:
        SettingsError: the file cannot be read.
    """
    if path.exists() and not path.is_file():  # a pipe can be read only once, and a build reads its lists again
        raise SettingsError(f"{path}: the list is a folder, pipe or device; give a file")
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for line_no, line in enumerate(lines, 1):
                if (stripped := line.strip()) and not stripped.startswith("#"):
                    yield line_no, stripped
    except OSError as error:
        raise SettingsError(f"{path}: the list cannot be read ({error.strerror}); give a file") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not UTF-8; save the list as UTF-8") from None
