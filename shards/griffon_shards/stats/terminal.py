"""The figures of a set as tables for a terminal."""

from collections.abc import Sequence

from griffon_shards.stats.figures import Category, Figures, Group
from griffon_shards.stats.wording import TITLES, box_sizes, long_tail, number, one_line
from griffon_shards.support.tables import counted, table

_CATEGORIES = 10
_PAIRS = 10
_NAME_CHARS = 60


def text(figures: Figures) -> str:
    """The tables, one below the other, without a newline at the end."""
    parts = [_groups(figures), _distributions(figures.total)]
    if figures.total.boxes:
        parts.append(box_sizes(figures.total))
    if figures.categories:
        parts += _categories(figures)
    if figures.total.images:
        parts.append(_images(figures))
    return "\n\n".join([*parts, f"digest {figures.digest}"])


def _groups(figures: Figures) -> str:
    head = ("", "samples", "images", "distinct", "boxes", "no box", "categories", "answer chars (median, p99)")
    rows = [_group(group) for group in (*figures.sources, *figures.tasks, figures.total)]
    names = [f"{group.name}" for group in figures.sources]
    names += [f"task {group.name}" for group in figures.tasks]
    return table(head, [(name, *row) for name, row in zip([*names, "all"], rows, strict=True)])


def _group(group: Group) -> tuple[object, ...]:
    chars = group.distributions.get("answer_chars")
    lengths = "-" if chars is None else f"{chars.p50:,}, {chars.p99:,}"
    return (
        *(group.samples, group.images, group.distinct_images),
        *(group.boxes, group.without_boxes, group.categories, lengths),
    )


def _distributions(total: Group) -> str:
    rows = []
    for name, values in total.distributions.items():
        numbers = (values.least, values.p10, values.p50, values.p90, values.p99, values.most, values.mean)
        rows.append((TITLES[name], *(number(name, value) for value in numbers)))
    head = ("all samples", "least", "p10", "median", "p90", "p99", "most", "mean")
    return _right(head, rows)


def _categories(figures: Figures) -> list[str]:
    if len(figures.categories) <= 2 * _CATEGORIES:
        return [long_tail(figures), _category_table("category", figures.categories)]
    return [
        long_tail(figures),
        _category_table("most frequent", figures.categories[:_CATEGORIES]),
        _category_table("least frequent", figures.categories[-_CATEGORIES:]),
    ]


def _category_table(title: str, categories: Sequence[Category]) -> str:
    rows = [(category.boxes, category.samples, one_line(category.name, _NAME_CHARS)) for category in categories]
    return table(("boxes", "samples", title), rows)


def _images(figures: Figures) -> str:
    total = figures.total
    formats = ", ".join(f"{name} {count:,}" for name, count in total.formats.items())
    lines = [f"{counted(total.images, 'sample')} with an image ({formats}), {total.distinct_images:,} different"]
    if figures.repeated_images:
        rows = [(image.samples, image.first_key) for image in figures.repeated_images]
        lines += ["", table(("samples", "most repeated image, first in"), rows)]
    if figures.shared_images:
        pairs = [(pair.images, *pair.sources) for pair in figures.shared_images[:_PAIRS]]
        lines += ["", table(("images", "in both", ""), pairs)]
        if len(figures.shared_images) > _PAIRS:
            lines.append(f"and {counted(len(figures.shared_images) - _PAIRS, 'more pair')} of sources; --json has all")
    return "\n".join(lines)


def _right(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns after the first are aligned to the right."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if place else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
