"""From a record's number to a Sample: read, render, fetch the picture. The one place where a sample is made."""

from collections import Counter
from dataclasses import dataclass, replace

from griffon_prep.pictures import Picture, check_picture, read_picture, shrink_picture
from griffon_prep.readers import Reader
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import ANSWERED_WITH_BOXES, count_boxes
from griffon_shards.types import Origin, Rendering, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMaker:
    """Everything that a source's samples are made with.

    Attributes:
        reader: of the source's records.
        source: tag, task and vocabulary.
        settings: of rendering.
        annotation_name: the annotation relative to the data root, for `origin`.
        image_root: absolute folder of the pictures.
        check: one of `griffon_prep.pictures.CHECKS`.
        resize_px: longest side that pictures are baked to, or None.
    """

    reader: Reader
    source: Source
    settings: RenderSettings
    annotation_name: str
    image_root: str
    check: str
    resize_px: int | None

    def make(self, record_no: int) -> tuple[Sample, Counter[str]]:
        """The sample of a record, and how many of its boxes were dropped for which reason.

        Raises:
            Rejected: the record cannot become a sample.
            OSError: a picture cannot be read for a reason that is not the record's.
        """
        record = self.reader.read(record_no)
        renderings, dropped = render(record, self.source, self.settings)  # before the picture: it costs less
        picture = None
        if record.image_path is not None:
            data = read_picture(self.image_root, record.image_path)
            picture = check_picture(data, self.check, (record.width_px, record.height_px), record.image_path)
            if self.resize_px is not None:
                shrunk = shrink_picture(picture, self.resize_px, record.image_path)
                renderings = tuple(_scale_region(rendering, picture, shrunk) for rendering in renderings)
                picture = shrunk
        sample = Sample(
            key=f"{self.source.tag}-{record_no:09d}",
            image=picture.data if picture else None,
            image_format=picture.format if picture else "",
            width_px=picture.width_px if picture else 0,
            height_px=picture.height_px if picture else 0,
            task=self.source.task,
            renderings=renderings,
            origin=Origin(annotation=self.annotation_name, record=record_no),
        )
        return sample, dropped


def _scale_region(rendering: Rendering, before: Picture, after: Picture) -> Rendering:
    if rendering.region_xyxy_px is None or after is before:
        return rendering
    x, y = after.width_px / before.width_px, after.height_px / before.height_px
    x1, y1, x2, y2 = rendering.region_xyxy_px
    return replace(rendering, region_xyxy_px=(x1 * x, y1 * y, x2 * x, y2 * y))


def boxes_written(sample: Sample, style: str) -> int:
    """How many boxes the sample's conversation holds, the largest number over its variants."""
    if sample.task in ANSWERED_WITH_BOXES:
        return max(count_boxes(rendering.turns[-1].text, style) for rendering in sample.renderings)
    return 1 if sample.task == "REG" else 0


def text_chars(sample: Sample) -> int:
    """Characters of all turns together, the largest number over the sample's variants."""
    return max(sum(len(turn.text) for turn in rendering.turns) for rendering in sample.renderings)
