"""What the sets have in store for a run, seen before its first step: what nothing could be learned from is refused.

And lines are said about samples that are cut, and about samples that come again and again.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from griffon_shards.support.errors import SettingsError
from griffon_train.config.settings import Settings, weights_by_tag
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan
from griffon_train.data.source_stream import Shows

_SEES = {
    "vision_tower": "pictures",
    "projector": "pictures",
    "language_model": "words",
    "region_projector": "regions, which VISJ samples alone have",
}
_SOURCES_NAMED = 3
_ROWS_AT_ONCE = 1 << 20
_WHEN_CUT = {
    "truncate": "they are cut (--overlong truncate), and what is behind the cut is not learned",
    "mask": "nothing is learned of them (--overlong mask)",
    "error": "the first of them ends the run (--overlong error)",
}


def check_taught(trained: Sequence[str], shows: Shows, settings: Settings, *, image_tokens: int) -> None:
    """See that something that trains is shown something. A picture comes before all answers, so it has to fit.

    Args:
        trained: the parts that train, of `PARTS`.
        shows: what the sets have.
        settings: of the run.
        image_tokens: what a picture takes; 0 where that is not known yet.

    Raises:
        SettingsError: every gradient would be 0.
    """
    fits = image_tokens < settings.max_length
    seen = {
        "vision_tower": shows.pictures and fits,
        "projector": shows.pictures and fits,
        "language_model": shows.words or fits,
        "region_projector": shows.regions and fits,
    }
    if any(seen[part] for part in trained):
        return
    roots = ", ".join(map(str, settings.shards))
    if shows.pictures and not fits:
        raise SettingsError(
            f"--max-length {settings.max_length}: a picture takes {image_tokens:,} tokens, so no answer about one "
            f"would be learned, and nothing else in {roots} is for what trains; raise --max-length"
        )
    parts = "; ".join(f"the {part.replace('_', ' ')}, which sees {_SEES[part]}" for part in trained)
    raise SettingsError(
        f"nothing that trains would learn from {roots}: what trains is {parts}, and no sample there has any; give "
        "--shards that have, or another --stage or freezing flags"
    )


def remarks_on_order(plan: Plan, weights: Mapping[str, str]) -> Iterator[str]:
    """Lines about samples that come more often than one would think."""
    for tag, weight in weights.items():
        with_tag = [each.root for each in plan.sets if any(source.tag == tag for source in each.lock.sources)]
        if len(with_tag) > 1:
            yield f"--weight {tag}={weight} counts for {tag} in each of {_listed(with_tag)}"
    for group, samples in plan.samples_by_group(0).items():
        if 0 < samples < plan.global_batch:
            size = plan.global_batch
            least, more = divmod(size, samples)
            often = f"{least} to {least + 1} times" if more else f"{least} times"
            of_group = "" if group == "all" else f" of the group {group}"
            yield (
                f"an epoch has {samples:,} samples{of_group}, and a step takes {size:,}: each comes {often} "
                f"in one step; for once an epoch take --global-batch {samples} or less"
            )


def remarks_on_lengths(lengths: Lengths, settings: Settings, image_tokens: int) -> Iterator[str]:
    """A line about samples that are longer than training takes, if there are any."""
    samples = sum(map(len, lengths.sets))
    longer = _longer(lengths, settings.max_length, image_tokens)
    if not longer:
        return
    worst = sorted(longer.items(), key=lambda each: -each[1][0] / each[1][1])
    named = [f"{tag} {count / rows:.0%}" for tag, (count, rows) in worst[:_SOURCES_NAMED]]
    rest = f", and {len(worst) - len(named)} sources more" if len(worst) > len(named) else ""
    found = sum(count for count, _ in longer.values())
    how = "estimated" if lengths.tables is None else "counted"
    yield (
        f"by {how} lengths {found:,} of {samples:,} samples ({found / samples:.1%}) are longer than --max-length "
        f"{settings.max_length} ({', '.join(named)}{rest}): {_WHEN_CUT[settings.overlong]}"
    )


def _longer(lengths: Lengths, max_length: int, image_tokens: int) -> dict[str, tuple[int, int]]:
    """By source that has any: rows that are longer in their longest variant, and all its rows."""
    found: dict[str, tuple[int, int]] = {}
    for set_no, each in enumerate(lengths.sets):
        for source in each.lock.sources:
            rows = each.rows_of_source(source.tag)
            longer = 0
            for first in range(rows.start, rows.stop, _ROWS_AT_ONCE):
                part = slice(first, min(first + _ROWS_AT_ONCE, rows.stop))
                pictures = each.index["has_image"][part].astype(np.int64) * image_tokens
                longer += int(np.count_nonzero(pictures + lengths.text_tokens(set_no, part) > max_length))
            if longer:
                before = found.get(source.tag, (0, 0))
                found[source.tag] = (before[0] + longer, before[1] + len(rows))
        each.let_index_go()
    return found


def _listed(paths: Sequence[Path]) -> str:
    return " and ".join(map(str, paths))


def remarks(plan: Plan, settings: Settings, image_tokens: int) -> Iterator[str]:
    """All lines to be said before the first step."""
    yield from remarks_on_order(plan, weights_by_tag(settings.weights))
    yield from remarks_on_lengths(plan.lengths, settings, image_tokens)
