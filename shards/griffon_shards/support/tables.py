"""Plain-text tables for the command lines."""

from collections.abc import Mapping, Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with aligned columns. Numbers are right-aligned, with thousands separators."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    numeric = [bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def counts(by_reason: Mapping[str, int]) -> str:
    """Counts by reason as one cell; a dash if there are none."""
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(by_reason.items())) or "-"


def counted(count: int, noun: str, nouns: str = "") -> str:
    """A count with its noun: `1 box`, `2,000 boxes`. `nouns` is its plural if that is not just the noun with an s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def size(number_bytes: float) -> str:
    """A number of bytes, readable, in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if number_bytes < 1000:
            return f"{number_bytes:.0f} B" if unit == "B" else f"{number_bytes:.1f} {unit}"
        number_bytes /= 1000
    return f"{number_bytes:.1f} TB"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def printable(text: str, kept: str = "") -> str:
    """The text with what a terminal would obey or hide escaped as in Python, except for the characters in `kept`."""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )
