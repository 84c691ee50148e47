"""DET and RANDDET: find all objects of a set of categories."""

from collections.abc import Sequence

from griffon_prep.records import Record, name_key
from griffon_prep.render.boxes import CleanBox, check_question_text, no_boxes, unique_phrases
from griffon_prep.render.grounding import ask
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import format_answer
from griffon_shards.types import Rendering

_MOST_DRAWN = 5  # present categories of RANDDET, and as many absent ones


def render_det(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Ask for the present categories and negatives, shuffled; the answer is all boxes of the image.

    Negatives are the categories that the record itself lists as absent, then draws from the source's vocabulary.

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
    return ask(record, source, settings, variant, ", ".join(names), answer, boxes)


def render_randdet(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Ask for present and absent categories, shuffled, as one expression; the answer is all their boxes, or `None`.

    A record made for this task lists the categories itself. In a source with a vocabulary, a record lists everything in
    an image: a few of its categories are drawn, and as many absent ones.

    Raises:
        Rejected: `no_objects`, if there is no category to ask for.
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
    return ask(record, source, settings, variant, enumeration(shuffled), answer, boxes)


def enumeration(names: Sequence[str]) -> str:
    """Join names as `a`, `a and b`, `a, b, and c`."""
    if len(names) < 3:
        return " and ".join(names)
    return f"{', '.join(names[:-1])}, and {names[-1]}"


def _absent(record: Record) -> list[str]:
    """Return the categories that the record lists as absent, without those present in another spelling."""
    if not record.absent_phrases:
        return []
    seen = set(map(name_key, _not_absent(record)))
    return [phrase for phrase in record.absent_phrases if name_key(phrase) not in seen]


def _not_absent(record: Record) -> set[str]:
    """Return the names that must not be negatives, including those whose boxes were all dropped or are crowds."""
    return {region.phrase for region in record.regions}.union(record.incomplete_phrases, record.never_absent_phrases)


def _negatives(record: Record, absent: Sequence[str], source: Source, draws: KeyedRandom, wanted: int) -> list[str]:
    """Return up to `wanted` categories that are not in the image: first from `absent`, then from the vocabulary."""
    negatives = list(absent[:wanted])
    if record.only_these_absent:
        return negatives
    excluded = _not_absent(record)
    if source.spellings:
        excluded.update(*(source.spellings.get(name_key(name), ()) for name in excluded))
    excluded.update(negatives)
    return negatives + _draw_names(draws, source.vocabulary, wanted - len(negatives), excluded)


def _draw_names(draws: KeyedRandom, vocabulary: Sequence[str], wanted: int, excluded: set[str]) -> list[str]:
    """Return up to `wanted` names of the vocabulary that are not excluded: all of them, or some in drawn order.

    More names are drawn than needed, enough to cover every excluded name, so the cost does not depend on the size of
    the vocabulary.
    """
    if wanted <= 0:
        return []
    surplus = min(len(vocabulary), wanted + len(excluded))
    if surplus == len(vocabulary):
        allowed = [name for name in vocabulary if name not in excluded]
        if len(allowed) <= wanted:
            return allowed
    drawn = (vocabulary[i] for i in draws.sample(len(vocabulary), surplus))
    return [name for name in drawn if name not in excluded][:wanted]
