"""DET and RANDDET: find every object of a set of categories."""

from collections.abc import Sequence

from griffon_prep.draws import Draws
from griffon_prep.records import Record, Rejected
from griffon_prep.render.boxes import CleanBox, check_question_text, unique_phrases
from griffon_prep.render.grounding import ask
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import format_answer
from griffon_shards.types import Rendering


def render_det(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """A category set of those present and negatives, shuffled; all boxes of the picture.

    Categories that the record itself calls absent come first as negatives, then those of the source's vocabulary.

    Raises:
        Rejected: `no_objects`.
    """
    if not boxes:
        raise Rejected("no_objects", "no boxes")
    present = unique_phrases(boxes)
    excluded = {region.phrase for region in record.regions}  # with those whose boxes were dropped
    wanted = max(0, settings.det_categories - len(present))
    negatives = [phrase for phrase in record.absent_phrases if phrase not in excluded][:wanted]
    excluded.update(negatives)
    draws = source.draws(settings.seed, record.record_no, variant, "negatives")
    negatives += _draw_names(draws, source.vocabulary, wanted - len(negatives), excluded)
    names = source.draws(settings.seed, record.record_no, variant, "category order").shuffled(present + negatives)
    check_question_text(names)
    answer = format_answer([(box.phrase, box.box_xyxy) for box in boxes], settings.boxes)
    return ask(record, source, settings, variant, ", ".join(names), answer)


def render_randdet(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """The present and absent categories as one expression, shuffled; all boxes, or `None` if all are absent.

    Raises:
        Rejected: `no_objects`, when the record names no category at all.
    """
    dropped = {region.phrase for region in record.regions}.difference(unique_phrases(boxes))
    names = [*unique_phrases(boxes), *(phrase for phrase in record.absent_phrases if phrase not in dropped)]
    if not names:
        raise Rejected("no_objects", "no categories")
    check_question_text(names)
    shuffled = source.draws(settings.seed, record.record_no, variant, "category order").shuffled(names)
    answer = format_answer([(box.phrase, box.box_xyxy) for box in boxes], settings.boxes)
    return ask(record, source, settings, variant, enumeration(shuffled), answer)


def enumeration(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, and c`."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _draw_names(draws: Draws, vocabulary: Sequence[str], wanted: int, excluded: set[str]) -> list[str]:
    """Up to `wanted` names of the vocabulary, without the excluded: all there are, or some in drawn order.

    Drawn with a surplus that covers every excluded name, so the cost does not grow with the vocabulary.
    """
    if wanted <= 0:
        return []
    surplus = min(len(vocabulary), wanted + len(excluded))
    if surplus == len(vocabulary):
        left = [name for name in vocabulary if name not in excluded]
        if len(left) <= wanted:
            return left
    drawn = (vocabulary[i] for i in draws.sample(len(vocabulary), surplus))
    return [name for name in drawn if name not in excluded][:wanted]
