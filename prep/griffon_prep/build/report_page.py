"""`report.html`: the statistics page of a set that was just frozen, with its rejects and examples of each source.

It is made of the frozen set and of the counts in its work folder alone, so that a build that was killed before it had
written the page writes the same one when it is rerun. A set that was made without counts is read again.
"""

import logging
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import orjson

from griffon_prep.build.engines import open_engine
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard_counts import read_counts
from griffon_shards.draw import draw_sample
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.lock import REJECTS_NAME, REPORT_NAME
from griffon_shards.stats import html_page, make_figures
from griffon_shards.stats.count_set import count_frozen
from griffon_shards.stats.figures import Figures
from griffon_shards.stats.html_page import section, table, text
from griffon_shards.storage import Location, write_location
from griffon_shards.storage.reading import open_location
from griffon_shards.summary import totals
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import counted, size
from griffon_shards.support.worker_pool import Engine

_log = logging.getLogger(__name__)

_EXAMPLES = 9  # of each source
_MOST_SOURCES = 100  # with examples
_MOST_EXAMPLES_BYTES = 3_000_000  # of all of them
_MOST_ROWS = 200  # of the table of rejects
_DETAILS = 3  # rejected records shown for each source and reason
_LONGEST_PX = 280
_QUALITY = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sample as the page shows it. Without an image, `jpeg` is empty; `fault` says why an image cannot be drawn."""

    key: str
    question: str
    answer: str
    jpeg: bytes
    fault: str


def write_report_page(out: Location, settings: BuildSettings, pool: Engine) -> None:
    """Write the page into the folder of a frozen set, if the settings ask for it.

    Raises:
        DataError: the set was made without being counted, and is damaged.
    """
    if not settings.report:
        return
    frozen = open_set(out)
    lock = frozen.lock
    figures = _figures(frozen, settings, pool)
    examples = _examples_section(_examples(frozen, pool), sum(1 for source in lock.sources if source.samples))
    name = f"set {lock.digest[:12]}"  # not the folder's name: equal sets have equal pages
    page = html_page(figures, name, _rejects(frozen), examples, with_images=True)
    write_location(out / REPORT_NAME, page.encode())


def write_missing_page(out: Location, settings: BuildSettings) -> None:
    """Write the page if there is none: the build had --no-report, or was killed just before; or somebody deleted it."""
    if settings.report and not (out / REPORT_NAME).exists():
        with open_engine(settings) as pool:
            write_report_page(out, settings, pool)


def _figures(frozen: FrozenSet, settings: BuildSettings, pool: Engine) -> Figures:
    """The figures of a set, from the counts in its work folder or, where those are missing, from its samples."""
    lock = frozen.lock
    sha256s: dict[str, list[str]] = {source.tag: [] for source in lock.sources}
    for shard in lock.shards:
        sha256s[shard.name.partition("/")[0]].append(shard.sha256)
    counts = read_counts(frozen.root, settings.render.boxes, sha256s)
    if counts is not None:
        return make_figures(counts, [(source.tag, source.task) for source in lock.sources], digest=lock.digest)
    shards, total = counted(len(lock.shards), "shard"), size(sum(shard.bytes for shard in lock.shards))
    _log.info(f"counting {shards} ({total}) for {REPORT_NAME}; --no-report leaves it out")
    return count_frozen(frozen, pool)


def _rejects(frozen: FrozenSet) -> str:
    """The section about records that were left out, and boxes that were dropped."""
    sources = totals(frozen.lock)
    rejected = [(source.tag, reason, count) for source in sources for reason, count in source.rejected.items()]
    dropped = [(source.tag, reason, count) for source in sources for reason, count in source.dropped_boxes.items()]
    records, used = sum(source.records for source in sources), sum(source.samples for source in sources)
    rejects = sum(count for _, _, count in rejected)
    sums = (counted(records, "record"), counted(used, "sample"), counted(rejects, "rejected record"))
    parts = [f"<p>{', '.join(sums)}.</p>\n"]
    if rejected:
        details = _details(frozen.root / REJECTS_NAME)
        rows = [
            (text(tag), text(reason), f"{count:,}", "<br>".join(map(text, details[tag, reason])))
            for tag, reason, count in rejected[:_MOST_ROWS]
        ]
        head = ("source", "reason", "records", "the first of them")
        parts.append(table("Rejected records", head, rows, named=(0, 1, 3)))
        parts.append(_left_out(len(rejected) - _MOST_ROWS, "rows"))
        parts.append(f"<p><code>{REJECTS_NAME}</code> lists all of them.</p>\n")
    if dropped:
        boxes = [(text(tag), text(reason), f"{count:,}") for tag, reason, count in dropped[:_MOST_ROWS]]
        parts.append(table("Dropped boxes", ("source", "reason", "boxes dropped"), boxes, named=(0, 1)))
        parts.append(_left_out(len(dropped) - _MOST_ROWS, "rows"))
    return section("Rejects", *parts)


def _details(path: Location) -> Mapping[tuple[str, str], list[str]]:
    """Record number and detail of the first few rejected records, by source and reason."""
    details: dict[tuple[str, str], list[str]] = defaultdict(list)
    with open_location(path) as file:
        for line in file:
            fields = orjson.loads(line)
            shown = details[fields["source"], fields["reason"]]
            if len(shown) < _DETAILS:
                shown.append(f"{fields['record']}: {fields['detail']}")
    return details


def _examples(frozen: FrozenSet, pool: Engine) -> dict[str, list[Example]]:
    """The first samples of the first sources. Samples are in shuffled order, so these are random ones."""
    tags = [source.tag for source in frozen.lock.sources if source.samples][:_MOST_SOURCES]
    jobs = [(str(frozen.root), tag) for tag in tags]
    by_tag = dict(pool.run(_examples_of, jobs))
    return {tag: by_tag[tag] for tag in tags}


def _examples_of(job: tuple[str, str]) -> tuple[str, list[Example]]:
    root, tag = job
    frozen = open_set(root)
    return tag, [_example(frozen, row) for row in frozen.rows_of_source(tag)[:_EXAMPLES]]


def _example(frozen: FrozenSet, row: int) -> Example:
    try:
        sample = frozen[row]
    except DataError as error:  # a shard that was linked from another set may be damaged
        return Example(key=frozen.key(row), question="", answer="", jpeg=b"", fault=str(error))
    jpeg, fault = BytesIO(), ""
    if sample.image is not None:
        try:
            image = draw_sample(sample, frozen.lock.render["boxes"], longest_px=_LONGEST_PX)
            image.save(jpeg, "JPEG", quality=_QUALITY)
        except DataError as error:  # a set that was built with --check none or header may hold damaged images
            fault = str(error)
    return Example(
        key=sample.key,
        question=sample.turns[0].text,
        answer=sample.turns[1].text if len(sample.turns) > 1 else "",
        jpeg=jpeg.getvalue(),
        fault=fault,
    )


def _examples_section(examples: Mapping[str, Sequence[Example]], sources: int) -> str:
    """The section with as many sources as there is room for; `sources` is the number of those that have samples."""
    parts: list[str] = []
    size_bytes = 0
    for tag, own in examples.items():
        figures = "".join(map(_figure, own))
        size_bytes += len(figures.encode())
        if size_bytes > _MOST_EXAMPLES_BYTES:
            break
        parts.append(f'<h3>{text(tag)}</h3>\n<div class="examples">\n{figures}</div>\n')
    note = "<p>The first samples of each source, which are in random order, in their first wording.</p>\n"
    left_out = _left_out(sources - len(parts), "sources, for which there is no room here")
    return section("Examples", note, *parts, left_out)


def _figure(example: Example) -> str:
    if example.jpeg:
        data = b64encode(example.jpeg).decode()
        image = f'<img alt="{escape(example.key)} with its boxes" src="data:image/jpeg;base64,{data}">'
    else:
        image = f"<p>{text(example.fault)}</p>" if example.fault else ""
    caption = f"<b>{text(example.key)}</b><br>{text(example.question)}<br>{text(example.answer)}"
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>\n"


def _left_out(number_of: int, what: str) -> str:
    return f'<p class="soft">and {number_of:,} more {what}</p>\n' if number_of > 0 else ""
