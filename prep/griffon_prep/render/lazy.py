"""LAZY: the record's own conversation, with `<image>` where training expects it."""

from collections.abc import Sequence

from griffon_prep.records import Record
from griffon_prep.render.boxes import CleanBox
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.types import IMAGE_TOKEN, Rendering, Turn


def render_lazy(
    record: Record, _boxes: Sequence[CleanBox], _source: Source, _settings: RenderSettings, _variant: int
) -> Rendering:
    """Return the record's turns, with `<image>` moved to the start of its turn and followed by a newline.

    An image that no turn mentions goes into the first question. `<image>` in an answer is plain text and stays.
    """
    turns = record.turns
    if record.image_path is None:
        return Rendering(turns=turns)
    questions = [index for index, turn in enumerate(turns) if turn.role == "human"]
    with_token = [index for index in questions if IMAGE_TOKEN in turns[index].text]
    first = (with_token or questions)[0]
    text = turns[first].text.replace(IMAGE_TOKEN, "").strip()
    moved = Turn(role="human", text=f"{IMAGE_TOKEN}\n{text}")
    return Rendering(turns=(*turns[:first], moved, *turns[first + 1 :]))


def join_rounds(rounds: Sequence[tuple[Rendering, ...]]) -> tuple[Rendering, ...]:
    """Join conversations about one image into one, for each variant; only the first question has `<image>`."""
    return tuple(
        Rendering(
            turns=(*first.turns, *(_without_image(turn) for item in others for turn in item.turns)),
            boxes_xyxy_px=tuple(box for item in (first, *others) for box in item.boxes_xyxy_px or ()),
        )
        for first, *others in zip(*rounds, strict=True)
    )


def _without_image(turn: Turn) -> Turn:
    """Return a turn without `<image>`; in the middle of a question it becomes "the picture"."""
    if turn.role == "gpt":
        return turn
    text = turn.text.removeprefix(f"{IMAGE_TOKEN}\n").replace(IMAGE_TOKEN, "the picture")
    return Turn(role="human", text=text)
