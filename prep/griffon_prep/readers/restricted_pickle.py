"""Reads pickles of plain data without ever calling anything in them.

It uses the standard library's unpickler in Python, restricted to the opcodes for containers, strings and numbers. Every
opcode that could look up or call something is removed, or raises an error that names it.

The documented way, `pickle.Unpickler` with a `find_class` of one's own, would call nothing either. But files that name
no class could still end the process: hashing a deeply nested tuple as a key of a dict or set overflows the C stack
(SETITEM, SETITEMS, DICT, ADDITEMS, FROZENSET), and LONG_BINPUT with a large number has the memo, an array in C, fill
memory.
"""

import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from griffon_prep.readers.fields import short
from griffon_shards.support.errors import DataError

_PLAIN = (
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("MARK", "POP", "POP_MARK", "DUP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "PROTO", "FRAME", "STOP"),
)
_STARTS = (b"\x80", b"(", b"]", b"}")  # protocols 2 and above; 0 and 1 of Python 2. No JSON starts like this
_GLOBAL_FIRST = re.compile(rb"c[\w.]+\r?\n[\w.]+\r?\n")  # recognised as a pickle, so that it is refused by name
_NAMES_A_GLOBAL = ("GLOBAL", "INST", "STACK_GLOBAL")  # they call `find_class`, which refuses
_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
_DAMAGE = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""Exceptions raised for damaged pickles, according to the standard library's documentation and to tests."""


def is_pickle(start: bytes) -> bool:
    """Whether a file is a pickle of a container or of a global, by its first few hundred bytes."""
    return start.startswith(_STARTS) or _GLOBAL_FIRST.match(start) is not None


class _Refused(Exception):
    """The pickle contains something that is not plain data."""


_LOAD: dict[int, Any] = dict(pickle._Unpickler.dispatch)


class _PlainUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = {
        code: _LOAD[code] for code in (ord(getattr(pickle, name)) for name in (*_PLAIN, *_NAMES_A_GLOBAL))
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"names {short(f'{module}.{name}')}")


def _checked_keys(code: int, keys_of: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """Return an opcode handler that allows flat dict keys only: hashing a deeply nested tuple crashes the process."""

    def load(unpickler: Any) -> None:  # noqa: ANN401 - the library's class, with its private stack
        if not _FLAT.issuperset(map(type, keys_of(unpickler.stack))):
            raise _Refused("has a dict with keys that are not strings or numbers")
        _LOAD[code](unpickler)

    return load


_FLAT = frozenset({str, bytes, int, float, bool, type(None)})
_PlainUnpickler.dispatch |= {
    pickle.SETITEM[0]: _checked_keys(pickle.SETITEM[0], lambda stack: stack[-2:-1]),
    pickle.SETITEMS[0]: _checked_keys(pickle.SETITEMS[0], lambda stack: stack[::2]),
    pickle.DICT[0]: _checked_keys(pickle.DICT[0], lambda stack: stack[::2]),
}


def read_plain_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Return the content of a pickle of lists, tuples, dicts, strings and numbers; Python 2's strings are UTF-8.

    Raises:
        DataError: the pickle holds anything else, which is refused before anything is called; or it is damaged.
    """
    try:
        return _PlainUnpickler(BytesIO(path.read_bytes()), encoding="utf-8", errors="surrogateescape").load()
    except _Refused as refused:
        raise _refusal(path, str(refused)) from None
    except _DAMAGE as error:
        if isinstance(error, KeyError) and error.args[0] in _OPCODES:  # `load` found no handler for it
            raise _refusal(path, f"has the opcode {_OPCODES[error.args[0]]}") from None
        raise DataError(
            f"{path}: damaged, or not a pickle of plain data ({short(str(error))}); download it again"
        ) from None


def _refusal(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: refused: the pickle {what}, but only plain lists, dicts, strings and numbers are read; "
        "no code in it was run; get the file from its publisher"
    )
