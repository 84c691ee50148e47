"""The text of a label as an image can show it: one short line, in a font that has its characters.

Pillow's own font has the characters of ASCII and few more. For others a font of the system is taken, if it has one of
those below. Characters that no font shows are written without their accents, or become question marks.
"""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

from griffon_shards.stats.wording import one_line

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_SYSTEM_FONTS = (  # file names; Pillow looks for them in the folders that the system keeps fonts in
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)
_MOST_CHARS = 200
_NO_CHARACTER = "\U0010ffff"  # fonts draw it as they draw every character that they lack


def fit_label(text: str, size_px: int, limit_px: int) -> tuple[str, Font]:
    """The text that an image can show, at most `limit_px` wide, with the font to draw it in.

    Args:
        text: the label.
        size_px: size of the font.
        limit_px: text beyond this width is replaced by an ellipsis.
    """
    line = one_line(text, _MOST_CHARS)
    fonts = [_default_font(size_px)]
    if _shown(line, fonts[0]) != line:
        fonts += _system_fonts(size_px)
    font = max(fonts, key=lambda font: sum(_shows(font, character) for character in line))  # the first of equals
    return _shortened(_shown(line, font), font, limit_px), font


def _shown(line: str, font: Font) -> str:
    return "".join(character if _shows(font, character) else _plain(character, font) for character in line)


def _plain(character: str, font: Font) -> str:
    bare = unicodedata.normalize("NFKD", character)[0]
    return bare if _shows(font, bare) else "?"


def _shortened(line: str, font: Font, limit_px: int) -> str:
    if font.getlength(line) <= limit_px:
        return line
    fits, too_long = 0, len(line)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if font.getlength(f"{line[:middle]}…") <= limit_px:
            fits = middle
        else:
            too_long = middle
    return f"{line[:fits].rstrip()}…"


@lru_cache(maxsize=8)
def _default_font(size_px: int) -> Font:
    return ImageFont.load_default(size=size_px)


@lru_cache(maxsize=8)
def _system_fonts(size_px: int) -> list[Font]:
    fonts: list[Font] = []
    for name in _SYSTEM_FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size_px))
        except OSError:  # not installed
            continue
    return fonts


@lru_cache(maxsize=4096)
def _shows(font: Font, character: str) -> bool:
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))
