"""`griffon-prep formats`: what it shows of a format is a file that the format reads."""

import json
import pickle
from pathlib import Path

import pytest

from griffon_prep.readers import FOLDERS, FORMATS, FURTHER_INPUTS
from griffon_prep.records import Record
from griffon_shards.support.errors import SettingsError

from ..conftest import Prep
from .reading import read_source

ANNOTATIONS = [
    (name, file)
    for name, module in FORMATS.items()
    for file in ([""] if name in {*FOLDERS, *FURTHER_INPUTS} else module.EXAMPLES)
    if file not in module.COMPANIONS
]
"""Examples to read; where the examples are the files of one source, their folder."""


def options_of(file: str) -> dict[str, str]:
    """The options that the name of an example states."""
    return {"boxes": "thousandth"} if "boxes=thousandth" in file else {}


def write(folder: Path, name: str) -> None:
    for file, content in FORMATS[name].EXAMPLES.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".p":
            path.write_bytes(pickle.dumps(json.loads(content), protocol=2))
        elif path.suffix == ".parquet":
            pyarrow = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(json.loads(content)), path)
        else:
            path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize(("name", "file"), ANNOTATIONS)
def test_each_example_is_recognised_as_its_format(tmp_path: Path, name: str, file: str) -> None:
    write(tmp_path, name)
    given = {}
    for task in FORMATS[name].TASKS:
        try:
            records, _ = read_source(tmp_path / file, task, **options_of(file))
        except SettingsError as error:  # objects.json has no regions for REG
            assert " needs " in str(error)
        else:
            given[task] = [record for record in records if isinstance(record, Record)]
    assert any(given.values())
    assert all(record.image_path or record.turns for records in given.values() for record in records)


@pytest.mark.parametrize("name", FORMATS)
def test_every_task_of_a_format_has_an_example(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    files = [file for of_format, file in ANNOTATIONS if of_format == name]
    for task in FORMATS[name].TASKS:
        result = []
        for file in files:
            try:
                result += [
                    record
                    for record in read_source(tmp_path / file, task, **options_of(file))[0]
                    if isinstance(record, Record)
                ]
            except SettingsError:
                continue
        assert result, task


def test_the_command_lists_them(prep: Prep) -> None:
    output = prep("formats").stdout
    for name, module in FORMATS.items():
        assert f"\n{name} " in output
        assert all(f"{name}: {file}\n{content}\n" in output for file, content in module.EXAMPLES.items())
