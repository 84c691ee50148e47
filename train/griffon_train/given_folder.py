"""Folders that options name: there, or what the user meant instead."""

import re
from pathlib import Path

from griffon_shards.support.errors import SettingsError

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def existing_folder(option: str, given: Path | str) -> Path:
    """The folder that an option names.

    Raises:
        SettingsError: there is none; a name on the Hugging Face Hub is told apart, for nothing is downloaded here.
    """
    path = Path(given)
    if path.is_dir():
        return path
    if path.exists():
        raise SettingsError(f"{option} {given}: a file; give the folder that it is in")
    if _HUB_NAME.fullmatch(str(given)) and not path.parent.is_dir():
        raise SettingsError(
            f"{option} {given}: no such folder. If it is the name of a repository on the Hugging Face Hub, download it "
            f"with `hf download {given} --local-dir {path.name}`, then give {option} {path.name}"
        )
    raise SettingsError(f"{option} {given}: no such folder; give the one that holds its files")
