"""Rendering: turns a Record into questions and answers; all randomness comes from keyed draws.

Each task is a function from (record, clean boxes, source, settings, variant) to a Rendering; one dict holds them all.
"""

from collections import Counter
from collections.abc import Callable

from griffon_prep.records import Record, Rejected
from griffon_prep.render.boxes import CleanBox, clean_boxes, unique_phrases
from griffon_prep.render.boxes_in_text import write_boxes
from griffon_prep.render.detection import render_det, render_randdet
from griffon_prep.render.grounding import render_reg, render_vg, render_visj
from griffon_prep.render.lazy import render_lazy
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import count_boxes
from griffon_shards.types import Rendering

_TASKS: dict[str, Callable[[Record, list[CleanBox], Source, RenderSettings, int], Rendering]] = {
    "LAZY": render_lazy,
    "DET": render_det,
    "RANDDET": render_randdet,
    "REG": render_reg,
    "VG": render_vg,
    "VISJ": render_visj,
}


def render(record: Record, source: Source, settings: RenderSettings) -> tuple[tuple[Rendering, ...], Counter[str]]:
    """Render all variants of a record, and count its dropped boxes by reason.

    `record` must state the image's true size, unless it is text only.

    Raises:
        Rejected: `no_objects`, `all_boxes_dropped`, `boxes_not_in_pixels`, `image_token_in_text`, or `bad_record` for
            a phrase that contains a box.
    """
    boxes, dropped = clean_boxes(record, settings.resize_px)
    for phrase in unique_phrases(boxes):
        if count_boxes(phrase, settings.boxes):
            raise Rejected("bad_record", f"the text {phrase!r:.80} contains a box, so the answer could not be parsed")
    if record.boxes_in_text:
        record, repeated = write_boxes(record, settings.boxes)
        dropped += Counter(duplicate=repeated)
    task = _TASKS[source.task]
    return tuple(task(record, boxes, source, settings, variant) for variant in range(settings.variants)), dropped
