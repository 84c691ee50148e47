"""Numbers written as text, in label files, XML and CSV."""

import re

from griffon_prep.readers.fields import short
from griffon_prep.records import Rejected

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_LEAST, _MOST = -0.01, 1.01  # as Ultralytics tolerates


def number_in(text: str, name: str) -> float:
    """Return a decimal number; Python's own spellings, such as `1_000` and `nan`, are not numbers here.

    Raises:
        Rejected: `bad_record`, with the name in the detail.
    """
    if not _NUMBER.fullmatch(text):
        raise Rejected("bad_record", f"{name}: expected a number, got {short(text)}")
    return float(text)


def check_fractions(*values: float) -> None:
    """Reject a record whose values are not fractions of the image's sides, such as pixels; a hundredth is tolerated."""
    for value in values:
        if not _LEAST <= value <= _MOST:
            raise Rejected("bad_record", f"expected fractions of the image's sides, from 0 to 1, got {value:g}")
