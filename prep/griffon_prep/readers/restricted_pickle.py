"""Pickles that hold plain data, read so that nothing in them is ever called.

The standard library's unpickler in Python is used, with the instructions for containers, strings and numbers alone:
every instruction that could look something up or call it is gone, or refuses by name.
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
_STARTS = (b"\x80", b"(", b"]", b"}")  # protocols 2 and above; 0 and 1, which Python 2 wrote. No JSON begins so
_GLOBAL_FIRST = re.compile(
    rb"c[\w.]+\r?\n[\w.]+\r?\n"
)  # refused, and by name: the file must not pass for something else
_NAMES_A_GLOBAL = ("GLOBAL", "INST", "STACK_GLOBAL")  # they ask `find_class`, which refuses
_INSTRUCTIONS = {ord(each.code): each.name for each in pickletools.opcodes}
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
    """Whether a file that begins so (some hundred bytes are enough) is a pickle of a container, or names a global."""
    return start.startswith(_STARTS) or _GLOBAL_FIRST.match(start) is not None


class _Refused(Exception):
    """The pickle names something that is not plain data."""


_LOAD: dict[int, Any] = dict(pickle._Unpickler.dispatch)


class _PlainUnpickler(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Any]] = {
        code: _LOAD[code] for code in (ord(getattr(pickle, name)) for name in (*_PLAIN, *_NAMES_A_GLOBAL))
    }

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"names {short(f'{module}.{name}')}")


def _checked_keys(code: int, keys_of: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """Fill a dict only under flat keys: the hash of a tuple nested a million deep would end the process."""

    def load(unpickler: Any) -> None:  # noqa: ANN401 - the library's class, with its private stack
        if not _FLAT.issuperset(map(type, keys_of(unpickler.stack))):
            raise _Refused("has a dict with keys that are no strings or numbers")
        _LOAD[code](unpickler)

    return load


_FLAT = frozenset({str, bytes, int, float, bool, type(None)})
_PlainUnpickler.dispatch |= {
    pickle.SETITEM[0]: _checked_keys(pickle.SETITEM[0], lambda stack: stack[-2:-1]),
    pickle.SETITEMS[0]: _checked_keys(pickle.SETITEMS[0], lambda stack: stack[::2]),
    pickle.DICT[0]: _checked_keys(pickle.DICT[0], lambda stack: stack[::2]),
}


def read_plain_pickle(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """The content of a pickle of lists, tuples, dicts, sets, strings and numbers; Python 2's strings as UTF-8.

    Raises:
        DataError: it holds anything else, which is refused by name before anything is called; or it is damaged.
    """
    try:
        return _PlainUnpickler(BytesIO(path.read_bytes()), encoding="utf-8", errors="surrogateescape").load()
    except _Refused as refused:
        raise _refusal(path, str(refused)) from None
    except _DAMAGE as error:
        if isinstance(error, KeyError) and error.args[0] in _INSTRUCTIONS:  # `load` found no such one
            raise _refusal(path, f"has the instruction {_INSTRUCTIONS[error.args[0]]}") from None
        raise DataError(f"{path}: damaged, or no pickle of plain data ({short(str(error))}); fetch it again") from None


def _refusal(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: refused, the pickle {what}, and only plain lists, dicts, strings and numbers are read; "
        "nothing of it was run; get the file from its publisher"
    )
