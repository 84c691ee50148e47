"""The size of an ordinary JPEG out of its header, in a fraction of the time that opening it with Pillow takes.

With `--check header` that is a good part of what a sample costs. Whatever is unusual is left to Pillow.
Source of the layout: ITU-T T.81, annex B.
"""

_START, _SCAN, _QUANTISATION = b"\xff\xd8\xff", 0xDA, 0xDB
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_OTHERS = frozenset({0xC4, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # Huffman tables, restarts, comments, application data
_MAX_PIXELS = 80_000_000  # from there on Pillow has something to say
_TABLE_BYTES = 65  # of a quantisation table with 8-bit entries


def jpeg_size_px(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG whose header, up to the scan, has nothing unusual in it; None for all else.

    Args:
        data: the bytes of a picture, whole or only its beginning.
    """
    if not data.startswith(_START):
        return None
    position, size = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], data[position + 2] << 8 | data[position + 3]
        segment = data[position + 4 : position + 2 + length]
        if length < 2 or len(segment) != length - 2:
            return None
        if marker == _SCAN:
            return size
        if marker in _FRAMES:
            if size is not None or (size := _frame_size_px(segment)) is None:
                return None
        elif marker == _QUANTISATION:
            if len(segment) % _TABLE_BYTES or any(kind > 0x0F for kind in segment[::_TABLE_BYTES]):
                return None
        elif marker not in _OTHERS:
            return None
        position += 2 + length
    return None


def _frame_size_px(segment: bytes) -> tuple[int, int] | None:
    """The size in a frame header of 8-bit samples and 1, 3 or 4 components."""
    if len(segment) < 6 or segment[0] != 8 or segment[5] not in (1, 3, 4) or len(segment) != 6 + 3 * segment[5]:
        return None
    height_px, width_px = segment[1] << 8 | segment[2], segment[3] << 8 | segment[4]
    return (width_px, height_px) if 0 < width_px * height_px < _MAX_PIXELS else None
