"""Checks of the sets before a run's first step: sets from which nothing could be learned are refused.

Also reports samples that are too long, and samples that repeat within a step.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from griffon_shards.storage import Location
from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import DataSettings
from griffon_train.config.settings import Settings, weights_by_tag
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan
from griffon_train.data.source_stream import Shows

_SEES = {
    "vision_tower": "images",
    "projector": "images",
    "language_model": "text",
    "region_projector": "regions, which only VISJ samples have",
}
_SOURCES_NAMED = 3
_ROWS_AT_ONCE = 1 << 20
_WHEN_CUT = {
    "truncate": "they are truncated (--overlong truncate), and what is cut off is not learned",
    "mask": "nothing is learned from them (--overlong mask)",
    "error": "the first of them ends the run (--overlong error)",
}


def check_taught(trained: Sequence[str], shows: Shows, settings: Settings, *, image_tokens: int) -> None:
    """Check that the sets have something to learn from for a part that trains.

    An image comes before all answers, so it has to fit into `--max-length`.

    Args:
        trained: trained parts, of `PARTS`.
        shows: kinds of content in the sets.
        settings: settings of the run.
        image_tokens: number of tokens of an image; 0 if unknown.

    Raises:
        SettingsError: every gradient would be 0.
    """
    max_length = settings.data.max_length
    fits = image_tokens < max_length
    seen = {
        "vision_tower": shows.images and fits,
        "projector": shows.images and fits,
        "language_model": shows.words or fits,
        "region_projector": shows.regions and fits,
    }
    if any(seen[part] for part in trained):
        return
    roots = ", ".join(map(str, settings.shards))
    if shows.images and not fits:
        raise SettingsError(
            f"--max-length {max_length}: an image takes {image_tokens:,} tokens, so no answer about one "
            f"would be learned, and {roots} has nothing else for the parts that train; raise --max-length"
        )
    parts = "; ".join(f"the {part.replace('_', ' ')}, which sees {_SEES[part]}" for part in trained)
    raise SettingsError(
        f"nothing would be learned from {roots}: the only parts that train are {parts}, and no sample has any; give "
        "other --shards, another --stage, or other freezing flags"
    )


def remarks_on_order(plan: Plan, weights: Mapping[str, str]) -> Iterator[str]:
    """Messages about samples that are used more often than a user may expect."""
    for tag, weight in weights.items():
        with_tag = [frozen.root for frozen in plan.sets if any(source.tag == tag for source in frozen.lock.sources)]
        if len(with_tag) > 1:
            yield f"--weight {tag}={weight} applies to {tag} in each of {_listed(with_tag)}"
    for group, samples in plan.samples_by_group(0).items():
        if 0 < samples < plan.global_batch:
            size = plan.global_batch
            least, more = divmod(size, samples)
            often = f"{least} to {least + 1} times" if more else f"{least} times"
            of_group = "" if group == "all" else f" of the group {group}"
            yield (
                f"an epoch has {samples:,} samples{of_group}, and a step takes {size:,}: each is used {often} "
                f"in one step; to use each once per epoch, give --global-batch {samples} or less"
            )


def remarks_on_lengths(lengths: Lengths, settings: DataSettings, image_tokens: int) -> Iterator[str]:
    """A message about samples that are longer than `--max-length`, if there are any."""
    samples = sum(map(len, lengths.sets))
    longer = _longer(lengths, settings.max_length, image_tokens)
    if not longer:
        return
    worst = sorted(longer.items(), key=lambda source: -source[1][0] / source[1][1])
    named = [f"{tag} {count / rows:.0%}" for tag, (count, rows) in worst[:_SOURCES_NAMED]]
    rest = f", and {len(worst) - len(named)} more sources" if len(worst) > len(named) else ""
    overlong = sum(count for count, _ in longer.values())
    how = "estimated" if lengths.tables is None else "counted"
    yield (
        f"by {how} lengths {overlong:,} of {samples:,} samples ({overlong / samples:.1%}) are longer than --max-length "
        f"{settings.max_length} ({', '.join(named)}{rest}): {_WHEN_CUT[settings.overlong]}"
    )


def _longer(lengths: Lengths, max_length: int, image_tokens: int) -> dict[str, tuple[int, int]]:
    """By source with overlong rows: the number of rows whose longest variant is too long, and of all rows."""
    counts: dict[str, tuple[int, int]] = {}
    for set_no, frozen in enumerate(lengths.sets):
        for source in frozen.lock.sources:
            rows = frozen.rows_of_source(source.tag)
            longer = 0
            for first in range(rows.start, rows.stop, _ROWS_AT_ONCE):
                part = slice(first, min(first + _ROWS_AT_ONCE, rows.stop))
                of_images = frozen.index["has_image"][part].astype(np.int64) * image_tokens
                longer += int(np.count_nonzero(of_images + lengths.text_tokens(set_no, part) > max_length))
            if longer:
                before = counts.get(source.tag, (0, 0))
                counts[source.tag] = (before[0] + longer, before[1] + len(rows))
        frozen.let_index_go()
    return counts


def _listed(paths: Sequence[Location]) -> str:
    return " and ".join(map(str, paths))


def remarks(plan: Plan, settings: DataSettings, image_tokens: int) -> Iterator[str]:
    """All messages to show before the first step."""
    yield from remarks_on_order(plan, weights_by_tag(settings.weights))
    yield from remarks_on_lengths(plan.lengths, settings, image_tokens)
