"""What the two sets of the browser tests hold. Tests name samples of set 0 by their keys."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from griffon_shards import FrozenSet
from griffon_shards.types import Origin, Rendering, Sample, Turn

CAT, DOG, BIRD = "cat", "dog", "red bird"
GREY = "#808080"
HOSTILE = (
    "<script>window.broken = 1</script><img src=x onerror=window.broken=1>\"'`&amp; "
    "javascript:window.broken=1 \0\x1b[31m"
)
RIGHT_TO_LEFT = "\u202eשלום עולם, هذه قطة"
CHINESE = "图中有一只很大的猫"
LONG_NAME = "n" * 1000
LONG_TEXT = "w" * 50_000 + " words" * 8_500


def png(width_px: int, height_px: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (width_px, height_px), GREY).save(out, "PNG")
    return out.getvalue()


def boxes_of(record: int) -> list[str]:
    """Record i has i % 5 boxes, in a row; their names repeat."""
    names = [CAT, DOG, BIRD, CAT]
    top, bottom = 0.2 + 0.01 * (record % 7), 0.5 + 0.01 * (record % 7)
    return [
        f"{names[i]}-[{0.05 + 0.24 * i:.3f},{top:.3f},{0.2 + 0.24 * i:.3f},{bottom:.3f}]" for i in range(record % 5)
    ]


Make = Callable[..., Sample]


def known_samples(make_sample: Make) -> list[Sample]:
    """80 samples of DET, with 0 to 4 boxes; two of VG, one of each other task."""
    samples = [
        _with_image(
            make_sample(
                f"DET_zoo-{record:09d}",
                "&".join(boxes_of(record)) or "None",
                question=f"<image>\nFind all animals of cage number{record}.",
                size_px=(300 + record, 200),
            )
        )
        for record in range(80)
    ]
    quiet = ("the quiet cat-[0.100,0.100,0.400,0.600]", "the cat, quietly-[0.100,0.100,0.400,0.600]")
    visj = make_sample(
        "VISJ_zoo-000000000",
        "[0.550,0.200,0.850,0.700]",
        question="<image>\nFind all objects like <region>.",
        size_px=(400, 300),
        region_xyxy_px=(40.0, 60.0, 160.0, 210.0),
    )
    reg = make_sample(
        "REG_zoo-000000000",
        "the parrot on the left",
        question="<image>\nDescribe [0.100,0.200,0.300,0.400].",
        size_px=(400, 300),
    )
    tiger = make_sample("VG_zoo-000000001", "the tiger-[0.500,0.500,0.900,0.900]", size_px=(400, 300))
    return [
        *samples,
        _with_image(make_sample("VG_zoo-000000000", *quiet, size_px=(400, 300))),
        _with_image(tiger),
        replace(visj, image=_image_with_region()),
        _with_image(reg),
        _conversation("LAZY_talk-000000000", "What is this?", "A zoo.", "And that?", "Another zoo."),
    ]


def known_rejects() -> str:
    """The lines of `rejects.jsonl`. The image of the first can be found."""
    rejects = [
        {"source": "DET_zoo", "record": 900, "reason": "all_boxes_dropped", "detail": "left.png: all inverted"},
        {"source": "DET_zoo", "record": 901, "reason": "picture_not_found", "detail": f"gone.png: {HOSTILE}"},
        {"source": "VG_zoo", "record": 902, "reason": "picture_not_found", "detail": "gone.png: not there"},
    ]
    return "".join(json.dumps(line) + "\n" for line in rejects)


def hostile_samples(make_sample: Make) -> list[Sample]:
    """Texts that might run, break the layout, or not be readable; and an image that does not decode."""
    box = "[0.100,0.100,0.500,0.500]"
    names = [HOSTILE, LONG_NAME, RIGHT_TO_LEFT, CHINESE]
    boxed = [make_sample(f"DET_odd-{i:09d}", f"{name}-{box}", size_px=(64, 48)) for i, name in enumerate(names)]
    return [
        *boxed,
        replace(boxed[0], key="DET_odd-000000009", image=b"\x89PNG\r\n\x1a\n" + b"?" * 64),
        _conversation("LAZY_odd-000000000", HOSTILE, HOSTILE),
        _conversation("LAZY_odd-000000001", "Write a lot.", LONG_TEXT),
        _conversation("LAZY_odd-000000002", RIGHT_TO_LEFT, CHINESE * 200),
        _conversation("LAZY_odd-000000003", "Flip me.", "A bit of this sample is flipped."),
    ]


def known_predictions(frozen: FrozenSet) -> str:
    """Lines of `predictions.jsonl` for three samples: right, wrong and unparsed."""
    boxes = [[0.05, 0.22, 0.2, 0.52], [0.6, 0.6, 0.9, 0.9]]
    answers: list[tuple[str, str, list[list[float]], float, bool, str | None]] = [
        ("DET_zoo-000000001", "cat-[0.050,0.210,0.200,0.510]", [[0.05, 0.21, 0.2, 0.51]], 1.0, True, None),
        ("DET_zoo-000000002", "cat-[0.050,0.220,0.200,0.520]&dog-[0.600,0.600,0.900,0.900]", boxes, 0.25, False, None),
        ("DET_zoo-000000003", "I cannot say.", [], 0.0, False, "no_box"),
    ]
    return "".join(
        json.dumps(_prediction(frozen, key, answer, fractions, iou, right, unparsed)) + "\n"
        for key, answer, fractions, iou, right, unparsed in answers
    )


def _prediction(
    frozen: FrozenSet, key: str, answer: str, boxes: list[list[float]], iou: float, right: bool, unparsed: str | None
) -> dict[str, Any]:
    sample = frozen[frozen.row(key)]
    sides = (sample.width_px, sample.height_px) * 2
    return {
        "set": frozen.lock.digest,
        "key": key,
        "source": key.rpartition("-")[0],
        "task": sample.task,
        "round": 0,
        "question": sample.turns[0].text,
        "truth": sample.turns[1].text,
        "answer": answer,
        "width": sample.width_px,
        "height": sample.height_px,
        "iou": iou,
        "right": right,
        "unparsed": unparsed,
        "boxes_px": [[value * side for value, side in zip(box, sides, strict=True)] for box in boxes],
    }


def _with_image(sample: Sample) -> Sample:
    return replace(sample, image=png(sample.width_px, sample.height_px))


def _image_with_region() -> bytes:
    image = Image.new("RGB", (400, 300), GREY)
    ImageDraw.Draw(image).rectangle((40, 60, 160, 210), fill="#ff0000")
    out = BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _conversation(key: str, *texts: str) -> Sample:
    turns = tuple(Turn(role="gpt" if i % 2 else "human", text=text) for i, text in enumerate(texts))
    return Sample(
        key=key,
        image=None,
        image_format="",
        width_px=0,
        height_px=0,
        task=key.partition("_")[0],
        renderings=(Rendering(turns=turns),),
        origin=Origin(annotation="talk.json", record=int(key.rpartition("-")[2])),
    )
