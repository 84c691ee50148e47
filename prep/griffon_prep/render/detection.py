"""DET and RANDDET: find every object of a set of categories."""

from collections.abc import Sequence

from griffon_prep.records import Record, name_key
from griffon_prep.render.boxes import CleanBox, check_question_text, no_boxes, unique_phrases
from griffon_prep.render.grounding import ask
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import format_answer
from griffon_shards.types import Rendering

_MOST_DRAWN = 5  # present categories of RANDDET, and absent ones


def render_det(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """A category set of those present and negatives, shuffled; all boxes of the picture.

    Categories that the record itself calls absent come first as negatives, then those of the source's vocabulary.

    Raises:
        Rejected: `no_objects`.
    """
    if not boxes:
        raise no_boxes(record)
    present = unique_phrases(boxes)
    wanted = max(0, settings.det_categories - len(present))
    draws = source.draws(settings.seed, record.record_no, variant, "negatives")
    negatives = _negatives(record, _absent(record), source, draws, wanted)
    names = source.draws(settings.seed, record.record_no, variant, "category order").shuffled(present + negatives)
    check_question_text(names)
    answer = format_answer([(box.phrase, box.box_xyxy) for box in boxes], settings.boxes)
    return ask(record, source, settings, variant, ", ".join(names), answer)


def render_randdet(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Present and absent categories as one expression, shuffled; all their boxes, or `None` if all are absent.

    A record that is made for this task names the categories itself. Of one that lists whatever a picture holds, which
    is one of a source with a vocabulary, a few are drawn, and as many that are absent.

    Raises:
        Rejected: `no_objects`, when there is no category to ask for.
    """
    present, absent = unique_phrases(boxes), _absent(record)
    if source.vocabulary:
        draws = source.draws(settings.seed, record.record_no, variant, "present")
        present = draws.shuffled(present)[:_MOST_DRAWN]
        boxes = [box for box in boxes if box.phrase in present]
        draws = source.draws(settings.seed, record.record_no, variant, "negatives")
        absent = _negatives(record, draws.shuffled(absent), source, draws, len(present))
    names = [*present, *absent]
    if not names:
        raise no_boxes(record)
    check_question_text(names)
    shuffled = source.draws(settings.seed, record.record_no, variant, "category order").shuffled(names)
    answer = format_answer([(box.phrase, box.box_xyxy) for box in boxes], settings.boxes)
    return ask(record, source, settings, variant, enumeration(shuffled), answer)


def enumeration(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, and c`."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _absent(record: Record) -> list[str]:
    """The categories that the record itself calls absent, less those that are there under some spelling."""
    if not record.absent_phrases:
        return []
    seen = set(map(name_key, _not_absent(record)))
    return [phrase for phrase in record.absent_phrases if name_key(phrase) not in seen]


def _not_absent(record: Record) -> set[str]:
    """The names that may not be called absent; with them those of which every box was dropped or is a crowd."""
    return {region.phrase for region in record.regions}.union(record.incomplete_phrases, record.never_absent_phrases)


def _negatives(record: Record, absent: Sequence[str], source: Source, draws: KeyedRandom, wanted: int) -> list[str]:
    """Up to `wanted` categories that are not in the picture: the first of `absent`, then drawn of the vocabulary."""
    negatives = list(absent[:wanted])
    if record.only_these_absent:
        return negatives
    excluded = _not_absent(record)
    if source.spellings:
        excluded.update(*(source.spellings.get(name_key(name), ()) for name in excluded))
    excluded.update(negatives)
    return negatives + _draw_names(draws, source.vocabulary, wanted - len(negatives), excluded)


def _draw_names(draws: KeyedRandom, vocabulary: Sequence[str], wanted: int, excluded: set[str]) -> list[str]:
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
