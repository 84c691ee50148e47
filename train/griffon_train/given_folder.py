"""Check that the folder given to an option exists and holds files, not pointers to them, and suggest a fix if not."""

import re
from pathlib import Path

from griffon_shards.support.errors import SettingsError

_LFS = b"version https://git-lfs"
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def existing_folder(option: str, given: Path | str) -> Path:
    """Return the folder given to an option.

    Raises:
        SettingsError: it does not exist. A repository name on the Hugging Face Hub gets a message of its own, because
            nothing is downloaded here.
    """
    path = Path(given)
    if path.is_dir():
        return path
    if path.exists():
        raise SettingsError(f"{option} {given}: is a file; give the folder that contains it")
    if _HUB_NAME.fullmatch(str(given)) and not path.parent.is_dir():
        raise SettingsError(
            f"{option} {given}: no such folder. If it is a repository on the Hugging Face Hub, download it with "
            f"`hf download {given} --local-dir {path.name}`, then give {option} {path.name}"
        )
    raise SettingsError(f"{option} {given}: no such folder; give the folder that contains the files")


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file holds the few lines of text that a clone without Git LFS has in place of a large file."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_LFS)) == _LFS
