"""The folder for copies of annotations that are in object stores."""

from pathlib import Path

import pytest

from griffon_prep.build.folder import BuildFolder
from griffon_prep.sources.mirror import Mirror
from griffon_shards.storage import ObjectPath
from griffon_shards.support.errors import SettingsError


def test_a_work_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    work, url = tmp_path / "file", ObjectPath("s3://bucket/a.json")
    work.write_bytes(b"")
    mirror = Mirror(work / "inputs")
    with pytest.raises(SettingsError, match=r"file/inputs: not writable \(Not a directory\); give --work a folder"):
        mirror.fetch(mirror.path_of(url))  # before any request
    with pytest.raises(SettingsError, match=r"file/x: not writable \(Not a directory\); give --out a writable folder"):
        BuildFolder(work / "x").__enter__()
