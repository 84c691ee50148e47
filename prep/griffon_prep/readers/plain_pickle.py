"""Pickles that hold plain data, read so that nothing in them is ever called.

The standard library's unpickler in Python is used, with the instructions for containers, strings and numbers alone:
every instruction that could look something up or call it is gone, or refuses by name.
"""

import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from griffon_shards.errors import DataError

_PLAIN = (
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET", "MARK", "POP", "POP_MARK", "DUP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "PROTO", "FRAME", "STOP"),
)
_STARTS = (b"\x80", b"(", b"]", b"}")  # protocols 2 and above; 0 and 1, which Python 2 wrote. No JSON begins so
_NAMES_A_GLOBAL = ("GLOBAL", "INST", "STACK_GLOBAL")  # they ask `find_class`, which refuses
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
"""What reading a damaged pickle raises, by the standard library's documentation and by trial."""


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins so is a pickle of a container."""
    return start.startswith(_STARTS)


class _Refused(Exception):
    """The pickle names something that is not plain data."""


_LOAD: dict[int, Any] = dict(pickle._Unpickler.dispatch)


class _PlainUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = {
        code: _LOAD[code] for code in (ord(getattr(pickle, name)) for name in (*_PLAIN, *_NAMES_A_GLOBAL))
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"{module}.{name}")


def read_plain_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The content of a pickle of lists, tuples, dicts, sets, strings and numbers; Python 2's strings as UTF-8.

    Raises:
        DataError: it holds anything else, which is refused by name before anything is called; or it is damaged.
    """
    try:
        return _PlainUnpickler(BytesIO(path.read_bytes()), encoding="utf-8", errors="surrogateescape").load()
    except _Refused as refused:
        raise DataError(
            f"{path}: refused, the pickle names {refused}, and only plain lists, dicts, strings and numbers are read; "
            "nothing of it was run; get the file from its publisher"
        ) from None
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged, or no pickle of plain data ({error!r:.120}); fetch it again") from None
