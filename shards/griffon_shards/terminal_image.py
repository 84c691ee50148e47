"""Images as the bytes that make a terminal show them.

Sources: kitty's documentation, "Terminal graphics protocol"; iterm2.com, "Inline Images Protocol"; for sixel, DEC's
VT330/VT340 Programmer Reference Manual, volume 2, chapter 14.
"""

from base64 import b64encode
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_KITTY_CHUNK = 4096  # base64 characters in one sequence, the most that the protocol allows
_SIXEL_ROWS = 6
_SIXEL_COLOURS = 256
_MOST_SIXEL_PX = 1000  # of each side; xterm shows no more, unless it is set up to
_LEAST_RUN = 4  # sixels that are shorter with a repeat count


def encode_for_terminal(image: Image.Image, protocol: str, size_px: tuple[int, int]) -> bytes:
    """The bytes that show an image at the cursor, and leave the cursor at the start of a line below.

    Args:
        image: an image in RGB.
        protocol: `kitty`, `iterm2` or `sixel`.
        size_px: the image is shrunk to this width and height if it is larger.
    """
    shown = image.copy()
    shown.thumbnail(size_px, Image.Resampling.BICUBIC)
    return _ENCODERS[protocol](shown) + b"\n"


def _kitty(image: Image.Image) -> bytes:
    data = b64encode(_png(image))
    chunks = [data[start : start + _KITTY_CHUNK] for start in range(0, len(data), _KITTY_CHUNK)]
    sequences = []
    for place, chunk in enumerate(chunks):
        # Transmit and display a PNG, and answer nothing; later sequences just go on.
        control = b"a=T,f=100,q=2," if place == 0 else b""
        sequences.append(b"\x1b_G%sm=%d;%s\x1b\\" % (control, place + 1 < len(chunks), chunk))
    return b"".join(sequences)


def _iterm2(image: Image.Image) -> bytes:
    data = _png(image)
    return b"\x1b]1337;File=inline=1;size=%d:%s\x07" % (len(data), b64encode(data))


def _sixel(image: Image.Image) -> bytes:
    image.thumbnail((_MOST_SIXEL_PX, _MOST_SIXEL_PX), Image.Resampling.BICUBIC)
    indexed = image.quantize(_SIXEL_COLOURS, dither=Image.Dither.NONE)
    palette = np.array(indexed.getpalette(), np.int64).reshape(-1, 3)
    places = np.asarray(indexed)
    parts = [b'\x1bP0;1q"1;1;%d;%d' % image.size]
    for colour in np.unique(places).tolist():
        red, green, blue = (palette[colour] * 100 + 127) // 255  # in percent
        parts.append(b"#%d;2;%d;%d;%d" % (colour, red, green, blue))
    for top in range(0, len(places), _SIXEL_ROWS):
        band = places[top : top + _SIXEL_ROWS]
        bits = 1 << np.arange(len(band))  # the top row is the lowest bit
        for colour in np.unique(band).tolist():
            parts.append(b"#%d%s$" % (colour, _runs(bits @ (band == colour))))
        parts.append(b"-")
    return b"".join([*parts, b"\x1b\\"])


def _runs(sixels: NDArray[np.int64]) -> bytes:
    """A row of sixels, with repeated ones written as a count."""
    starts = np.flatnonzero(np.diff(sixels, prepend=-1))
    lengths = np.diff(starts, append=len(sixels))
    return b"".join(
        b"!%d%c" % (length, 63 + sixel) if length >= _LEAST_RUN else b"%c" % (63 + sixel) * length
        for sixel, length in zip(sixels[starts].tolist(), lengths.tolist(), strict=True)
    )


def _png(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


_ENCODERS = {"kitty": _kitty, "iterm2": _iterm2, "sixel": _sixel}
