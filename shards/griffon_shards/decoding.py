"""What can go wrong when Pillow decodes bytes that are no picture, or a damaged one."""

import struct
import zlib

from PIL import Image

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""All that its decoders were seen to raise; they share no base class."""
