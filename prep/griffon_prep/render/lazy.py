"""LAZY: the record's own conversation, with `<image>` where training expects it."""

from collections.abc import Sequence

from griffon_prep.records import Record
from griffon_prep.render.boxes import CleanBox
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.types import IMAGE_TOKEN, Rendering, Turn


def render_lazy(
    record: Record, _boxes: Sequence[CleanBox], _source: Source, _settings: RenderSettings, _variant: int
) -> Rendering:
    """The record's turns; `<image>` moved to the start of the turn that holds it, followed by a newline.

    A picture that no turn mentions belongs to the first question. `<image>` in an answer is text and stays.
    """
    if record.image_path is None:
        return Rendering(turns=record.turns)
    questions = [place for place, turn in enumerate(record.turns) if turn.role == "human"]
    mentioned = [place for place in questions if IMAGE_TOKEN in record.turns[place].text]
    place = (mentioned or questions)[0]
    text = record.turns[place].text.replace(IMAGE_TOKEN, "").strip()
    moved = Turn(role="human", text=f"{IMAGE_TOKEN}\n{text}")
    return Rendering(turns=(*record.turns[:place], moved, *record.turns[place + 1 :]))


def join_rounds(rounds: Sequence[tuple[Rendering, ...]]) -> tuple[Rendering, ...]:
    """One conversation out of several about the same picture, for each variant; only the first question shows it."""
    return tuple(
        Rendering(turns=(*first.turns, *(_without_image(turn) for item in others for turn in item.turns)))
        for first, *others in zip(*rounds, strict=True)
    )


def _without_image(turn: Turn) -> Turn:
    """A question that comes after the one with the picture; a wording may speak of it in mid-sentence."""
    if turn.role == "gpt":
        return turn
    text = turn.text.removeprefix(f"{IMAGE_TOKEN}\n").replace(IMAGE_TOKEN, "the picture")
    return Turn(role="human", text=text)
