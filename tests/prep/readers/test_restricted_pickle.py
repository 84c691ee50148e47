"""Pickles from strangers: whatever is not plain data is refused by name, and nothing of it is ever called."""

import collections
import copyreg
import datetime
import fractions
import os
import pickle
import subprocess
import sys
import types
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from griffon_prep.readers.restricted_pickle import read_plain_pickle
from griffon_shards.support.errors import DataError

from ..conftest import Prep
from .published import coco, python2_binary_pickle, python2_text_pickle, ref, write

_FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1"}  # each has its own memory
_EXTENSION = 0x70717273  # of copyreg's range for private use
_PLAIN: list[Any] = [
    *(None, True, False, 0, -1, 255, 2**31, -(2**63), 2**70, -(2**2100), 0.5, float("inf"), -0.0),
    *("", "a", "猫 \n\\'\"", "x" * 300),
    *([], [[]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": {"b": [1, (2, "c")]}, 5: None, 1.5: 2}),
    *(list(range(3000)), {str(i): i for i in range(3000)}),
]
_BYTES = [b"", b"\xff\x00", {b"a": b"x" * 300}]
"""In protocols that Python 2 knows, Python 3 writes these as a call."""


class Trap:
    """Runs a command when it is made with one, or told its state."""

    def __new__(cls, command: str = "") -> "Trap":
        os.system(command or "true")
        return super().__new__(cls)

    def __setstate__(self, state: dict[str, str]) -> None:
        os.system(state["command"])


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes what the pickles below name importable."""
    module = types.ModuleType("griffon_trap")
    monkeypatch.setattr(module, "Trap", Trap, raising=False)
    monkeypatch.setitem(sys.modules, "griffon_trap", module)
    copyreg.add_extension("posix", "system", _EXTENSION)
    yield
    copyreg.remove_extension("posix", "system", _EXTENSION)


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def calls(command: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that run a command when `pickle.loads` gets them, through every instruction that calls; and the name."""
    ran, system, new = text(command), b"cposix\nsystem\n", b"cgriffon_trap\nTrap\n"
    expression = text(f"__import__('os').system({command!r})")
    state = b"}" + text("command") + ran + b"s"
    strings = b"\x8c\x05posix\x94\x8c\x06system\x94"
    return {
        "REDUCE": (b"(" + system + b"(" + ran + b"tRl.", "posix.system"),
        "REDUCE at the start": (system + b"(" + ran + b"tR.", "posix.system"),
        "REDUCE of protocol 2": (b"\x80\x02]" + system + ran + b"\x85Ra.", "posix.system"),
        "deep inside": (b"\x80\x02]}" + text("a") + b"](" + system + ran + b"\x85Resa.", "posix.system"),
        "STACK_GLOBAL": (b"\x80\x04]\x8c\x05posix\x8c\x06system\x93" + ran + b"\x85Ra.", "posix.system"),
        "STACK_GLOBAL of the memo": (b"\x80\x04" + strings + b"00]h\x00h\x01\x93" + ran + b"\x85Ra.", "posix.system"),
        "INST": (b"((" + ran + b"iposix\nsystem\nl.", "posix.system"),
        "OBJ": (b"((" + system + ran + b"ol.", "posix.system"),
        "NEWOBJ": (b"\x80\x02]" + new + ran + b"\x85\x81a.", "griffon_trap.Trap"),
        "NEWOBJ_EX": (b"\x80\x04]" + new + b")" + state + b"\x92a.", "griffon_trap.Trap"),
        "BUILD": (b"\x80\x02]" + new + b")\x81" + state + b"ba.", "griffon_trap.Trap"),
        "EXT4": (b"\x80\x02]\x84" + _EXTENSION.to_bytes(4, "little") + ran + b"\x85Ra.", "EXT4"),
        "eval": (b"(cbuiltins\neval\n(" + expression + b"tRl.", "builtins.eval"),
        "eval of Python 2": (b"(c__builtin__\neval\n(" + expression + b"tRl.", "__builtin__.eval"),
        "getattr": (b"(c__builtin__\ngetattr\n(cos\npath\n" + text("os") + b"tRl.", "__builtin__.getattr"),
    }


CALLS = sorted(set(calls("")) - {"getattr"})


@pytest.mark.parametrize("kind", CALLS)
def test_these_pickles_are_dangerous(tmp_path: Path, kind: str, trap: None) -> None:
    """Otherwise the tests below would not show that they do no harm."""
    pickle.loads(calls(f"touch '{tmp_path}/ran'")[kind][0])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", calls(""))
def test_callables_in_a_pickle_are_refused_by_name(tmp_path: Path, kind: str, trap: None) -> None:
    content, name = calls(f"touch '{tmp_path}/ran'")[kind]
    message = refusal(tmp_path, content)
    assert "refused" in message
    assert name in message
    assert not (tmp_path / "ran").exists()


def refusal(folder: Path, content: bytes) -> str:
    path = folder / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_plain_pickle(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 400
    return message


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\x80\x02]\x82\x01a.", "EXT1"),
        (b"\x80\x02]\x83\x01\x01a.", "EXT2"),
        (b"(P1\nl.", "PERSID"),
        (b"\x80\x02]K\x01Qa.", "BINPERSID"),
        (b"\x80\x02](K\x01RRa.", "REDUCE"),
        (b"\x80\x05]\x97a.", "NEXT_BUFFER"),
        (b"\x80\x05]K\x01\x98a.", "READONLY_BUFFER"),
        (b"\x80\x02]}ba.", "BUILD"),
        *((pickle.dumps([np.float64(1)], number), "multiarray.scalar") for number in (0, 2, 4)),
        *((pickle.dumps([np.ones(3)], number), "multiarray._") for number in (0, 2, 4)),
        *((pickle.dumps([collections.OrderedDict(a=1)], number), "collections.OrderedDict") for number in (0, 2, 4)),
        *((pickle.dumps(datetime.date(2014, 1, 1), number), "datetime.date") for number in (2, 4)),
        *((pickle.dumps([Path("a")], number), "pathlib.") for number in (2, 4)),
        (pickle.dumps([fractions.Fraction(1, 2)], 2), "fractions.Fraction"),
        (pickle.dumps([uuid.UUID(int=5)], 2), "uuid.UUID"),
        (pickle.dumps([1 + 2j], 2), "__builtin__.complex"),
        (pickle.dumps([range(3)], 4), "builtins.range"),
        (pickle.dumps([bytearray(b"a")], 5), "BYTEARRAY8"),
    ],
)
def test_what_is_not_plain_is_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    message = refusal(tmp_path, content)
    assert "refused" in message
    assert name in message


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04]\x8c\x05os\nsy\x8c\x06system\x93a.",
        b"\x80\x04]\x8c\x03os\x1b\x8c\x07[2Jsys\x07\x93a.",
        b"\x80\x04]" + text("x" * 10**6) + text("y\n" * 10**6) + b"\x93a.",
        b"(c" + b"x" * 10**6 + b"\ny\n(tRl.",
    ],
)
def test_a_name_of_any_kind_is_one_short_line(tmp_path: Path, content: bytes) -> None:
    message = refusal(tmp_path, content)
    assert message.isprintable()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_come_back(tmp_path: Path, protocol: int) -> None:
    for value in [*_PLAIN, *(_BYTES if protocol > 2 else [])]:
        (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol))
        actual = read_plain_pickle(tmp_path / "a.p")
        assert (type(actual), repr(actual)) == (type(value), repr(value))


def test_shared_and_recursive_values_are_read(tmp_path: Path) -> None:
    shared: list[Any] = ["a" * 5, {"b": 1.5}]
    value = [shared, shared, {"again": shared}]
    value.append(value)
    for protocol in range(6):
        (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol))
        actual = read_plain_pickle(tmp_path / "a.p")
        assert actual[0] is actual[1] is actual[2]["again"]
        assert actual[0] == shared
        assert actual[3] is actual


REFS = [ref(1, "left cat", "猫"), ref([1, 2], "both", no_target=False)]
WRITTEN = {
    **{f"protocol {protocol}": pickle.dumps(REFS, protocol) for protocol in range(6)},
    "Python 2, text": python2_text_pickle(REFS) + b".",
    "Python 2, binary": b"\x80\x02" + python2_binary_pickle(REFS) + b".",
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_pickle_truncated_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    for size in range(len(WRITTEN[kind])):
        refusal(tmp_path, WRITTEN[kind][:size])


def test_a_second_pickle_after_the_first_is_never_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps([1]) + calls(f"touch '{tmp_path}/ran'")["REDUCE"][0])
    assert read_plain_pickle(tmp_path / "a.p") == [1]
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_a_pickle_is_bytes(tmp_path: Path) -> None:
    inner = calls(f"touch '{tmp_path}/ran'")["REDUCE"][0]
    (tmp_path / "a.p").write_bytes(pickle.dumps([inner], 4))
    assert read_plain_pickle(tmp_path / "a.p") == [inner]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("REDUCE", ""), ("REDUCE at the start", ""), ("STACK_GLOBAL", " & format=refcoco"), ("EXT4", "")],
)
def test_a_build_reports_it_in_one_line(tmp_path: Path, kind: str, options: str, prep: Prep) -> None:
    content, name = calls(f"touch '{tmp_path}/ran'")[kind]
    manifest = f"VG & refs(unc).p & .{options}\n"
    write(tmp_path, {"refs(unc).p": content, "instances.json": coco(), "m.txt": manifest})
    built = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert built.returncode == 1
    (line,) = built.stderr.splitlines()
    assert "refs(unc).p: refused" in line
    assert name in line
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out/griffon.lock.json").exists()


BOMBS = {
    "a tuple of any depth as a key": (b"\x80\x02]})" + b"\x85" * 10**6 + b"K\x01sa.", "refused"),
    "a tuple of any depth in a dict": (b"\x80\x02](((" + b")" + b"\x85" * 10**6 + b"K\x01da.", "refused"),
    "a tuple of any depth in a set": (b"\x80\x04]\x8f()" + b"\x85" * 10**6 + b"\x90a.", "refused"),
    "a tuple of any depth in a frozenset": (b"\x80\x04](()" + b"\x85" * 10**6 + b"\x91a.", "refused"),
    "a tuple of any depth": (b"\x80\x02])" + b"\x85" * 10**6 + b"a.", "no references of split=train"),
    "a list of any depth": (b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "no references of split=train"),
    "marks of any number": (b"\x80\x02]" + b"(" * 10**6 + b".", "damaged"),
    "a list that doubles 60 times": (
        b"\x80\x02]]" + b"".join(b"q%c0](h%ch%ce" % (i, i, i) for i in range(60)) + b"a.",
        "no references of split=train",
    ),
    "a place of the memo far away": (b"\x80\x02]r\xff\xff\xff\xff.", "no references of split=train"),
    "a place of the memo that is not there": (b"\x80\x02]j\xff\xff\xff\xffa.", "damaged"),
    "a string longer than the file": (b"\x80\x04]\x8d" + b"\xff" * 7 + b"\x7fabc", "damaged"),
    "bytes longer than memory": (b"\x80\x04]\x8e" + b"\xff" * 8 + b"abc", "damaged"),
    "a frame longer than the file": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].", "no references of split=train"),
    "an integer of a million digits": (b"(lI" + b"9" * 10**6 + b"\na.", "damaged"),
    "an integer of a million bytes": (
        b"\x80\x02]\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6 + b"a.",
        "no references of split=train",
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_would_fill_memory_or_end_the_process_is_a_one_line_error(tmp_path: Path, kind: str) -> None:
    content, expected = BOMBS[kind]
    write(tmp_path, {"refs(unc).p": content, "instances.json": coco(), "m.txt": "VG & refs(unc).p & .\n"})
    limited = "import resource as r; r.setrlimit(r.RLIMIT_AS, (4 << 30,) * 2); r.setrlimit(r.RLIMIT_CPU, (30,) * 2);"
    command = [
        sys.executable,
        "-c",
        f"{limited} from griffon_prep.cli import main; main()",
        "build",
        "--manifest",
        "m.txt",
    ]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **_FEW_THREADS})
    assert built.returncode in (1, 2)
    (line,) = built.stderr.splitlines()
    assert expected in line
    assert len(line) < 600
