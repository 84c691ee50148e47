"""Rendering: a Record becomes question and answer, by keyed draws alone.

Every task is a function from (record, its clean boxes, source, settings, variant) to a Rendering, found in one dict.
"""

from collections import Counter
from collections.abc import Callable

from griffon_prep.records import Record, Rejected
from griffon_prep.render.boxes import CleanBox, clean_boxes, unique_phrases
from griffon_prep.render.detection import render_det, render_randdet
from griffon_prep.render.grounding import render_reg, render_vg, render_visj
from griffon_prep.render.lazy import render_lazy
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import count_boxes
from griffon_shards.types import Rendering

RENDER_VERSION = 2
"""Raised only when our code changes what a sample's bytes are for the same inputs and settings."""

_TASKS: dict[str, Callable[[Record, list[CleanBox], Source, RenderSettings, int], Rendering]] = {
    "LAZY": render_lazy,
    "DET": render_det,
    "RANDDET": render_randdet,
    "REG": render_reg,
    "VG": render_vg,
    "VISJ": render_visj,
}


def render(record: Record, source: Source, settings: RenderSettings) -> tuple[tuple[Rendering, ...], Counter[str]]:
    """All variants of a record, and how many of its boxes were dropped for which reason.

    `record` states the picture's true size, unless it is text alone.

    Raises:
        Rejected: `no_objects`, `all_boxes_dropped`, `image_token_in_text`, or `bad_record` for text with a box in it.
    """
    boxes, dropped = clean_boxes(record)
    for phrase in unique_phrases(boxes):
        if count_boxes(phrase, settings.boxes):
            raise Rejected(
                "bad_record", f"a box stands in the text {phrase!r:.80}, so the answer could not be read back"
            )
    task = _TASKS[source.task]
    return tuple(task(record, boxes, source, settings, variant) for variant in range(settings.variants)), dropped
