"""Making a Sample from a record number: read the record, render it, read the image."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

from griffon_prep.image_bytes import is_url
from griffon_prep.images import ImageFile, bake_image, check_image, check_not_turned, stored_path
from griffon_prep.readers.base import Reader
from griffon_prep.readers.rounds import Rounds
from griffon_prep.records import Record, Rejected
from griffon_prep.render import render
from griffon_prep.render.lazy import join_rounds
from griffon_prep.render.settings import RenderSettings, Source
from griffon_prep.sources.exclusion import Exclusion
from griffon_prep.sources.sized_records import ImageOnce, sized
from griffon_shards.grammar import ANSWERED_WITH_BOXES, count_boxes
from griffon_shards.types import Origin, Rendering, Sample

Made: TypeAlias = tuple[Sample, Counter[str], bool]

_REQUESTS = 16  # images that a process reads at once from an object store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """All that a sample is made of, and the number of dropped boxes and rounds by reason."""

    record_no: int
    record: Record
    renderings: tuple[Rendering, ...]
    dropped: Counter[str]
    image: ImageFile | None


def _or_rejected(make: Callable[[], Made]) -> Made | Rejected:
    """What a function makes, or the rejection that it raises."""
    try:
        return make()
    except Rejected as rejected:
        return rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleMaker:
    """Everything that a source's samples are made with.

    Attributes:
        reader: reader of the source's records.
        rounds: groups of records that share a sample, or None if each record has its own sample.
        source: tag, task and vocabulary.
        settings: settings that change bytes.
        annotation_name: path of the annotation relative to the data root, for `origin`.
        image_root: absolute folder of the images, or its URL.
        upright: store images as their EXIF orientation shows them.
        exclusion: images and records to leave out, or None.
    """

    reader: Reader
    rounds: Rounds | None
    source: Source
    settings: RenderSettings
    annotation_name: str
    image_root: str
    upright: bool = False
    exclusion: Exclusion | None = None

    def make(self, record_no: int) -> Made:
        """The sample of a record, or of a group of them.

        Returns:
            The sample, the number of dropped boxes and rounds by reason, and whether its image was found by file name
            alone.

        Raises:
            Rejected: the record cannot become a sample.
            OSError: the storage fails.
        """
        return self._complete(self._draft(record_no))

    def make_all(self, record_nos: Iterable[int]) -> Iterator[tuple[int, Made | Rejected]]:
        """Yield each record with what `make` returns, or with its rejection. Images at URLs are read ahead.

        Raises OSError as `make`.
        """
        if not is_url(self.image_root):
            for record_no in record_nos:
                yield record_no, _or_rejected(partial(self.make, record_no))
            return
        with ThreadPoolExecutor(_REQUESTS) as pool:
            begun = ((record_no, self._begin(record_no, pool)) for record_no in record_nos)
            waiting = deque(islice(begun, _REQUESTS))
            while waiting:
                record_no, finish = waiting.popleft()
                waiting.extend(islice(begun, 1))
                yield record_no, _or_rejected(finish)

    def _begin(self, record_no: int, pool: ThreadPoolExecutor) -> Callable[[], Made]:
        """Draft a sample in a thread; returns what completes it, or raises its rejection."""
        draft = pool.submit(self._draft, record_no)
        return lambda: self._complete(draft.result())

    def _draft(self, record_no: int) -> _Draft:
        """Read and render a record, and then read its image, which takes longer."""
        if self.exclusion is not None:
            self.exclusion.check_record(record_no)
        read = ImageOnce(self.image_root)
        record, renderings, dropped = self._rendered(record_no, read)
        image = None if record.image_path is None else read(record)
        return _Draft(record_no=record_no, record=record, renderings=renderings, dropped=dropped, image=image)

    def _complete(self, draft: _Draft) -> Made:
        record = draft.record
        image, by_last_part = None, False
        if record.image_path is not None and draft.image is not None:
            data, by_last_part = draft.image.data, draft.image.by_last_part
            if self.exclusion is not None:
                self.exclusion.check_data(record.image_path, data)
            stated_size_px, name = (record.width_px, record.height_px), record.image_path
            if record.tool_turns_images and not self.upright:
                check_not_turned(data, name)
            image = check_image(data, self.settings.check, stated_size_px, name, upright=self.upright)
            image = bake_image(image, self.settings.resize_px, name, upright=self.upright)
        sample = Sample(
            key=f"{self.source.tag}-{draft.record_no:09d}",
            image=image.data if image else None,
            image_format=image.format if image else "",
            width_px=image.width_px if image else 0,
            height_px=image.height_px if image else 0,
            task=self.source.task,
            renderings=draft.renderings,
            origin=Origin(
                annotation=self.annotation_name,
                record=draft.record_no,
                image="" if record.image_path is None else stored_path(record.image_path),
            ),
        )
        return sample, draft.dropped, by_last_part

    def _rendered(self, record_no: int, read: ImageOnce) -> tuple[Record, tuple[Rendering, ...], Counter[str]]:
        if self.rounds is None:
            record = self._read(record_no, read)
            return record, *self._render(record)
        dropped: Counter[str] = Counter()
        first: Record | None = None
        rounds: list[tuple[Rendering, ...]] = []
        faults: list[Rejected] = []
        for member_no in self.rounds[record_no]:
            try:
                record = self._read(member_no, read)
                first = first or record
                if _image_of(record) != _image_of(first):
                    raise Rejected(
                        "bad_record",
                        f"record {member_no} gives another path or size for the same image",
                    )
                renderings, lost = self._render(record)
            except Rejected as rejected:
                faults.append(rejected)
                continue
            rounds.append(renderings)
            dropped.update(lost)
        if first is None or not rounds:
            raise next((fault for fault in faults if fault.reason == "excluded"), faults[0])
        dropped.update(fault.reason for fault in faults)
        return first, join_rounds(rounds), dropped

    def _read(self, record_no: int, read: ImageOnce) -> Record:
        record = self.reader.read(record_no)
        if self.exclusion is not None:
            self.exclusion.check_paths(record.image_paths)  # first, so that no excluded image needs to exist
        return sized(record, read, upright=self.upright)

    def _render(self, record: Record) -> tuple[tuple[Rendering, ...], Counter[str]]:
        """Call `render`, and add the image's name to the detail of a rejection."""
        try:
            return render(record, self.source, self.settings)
        except Rejected as rejected:
            raise Rejected(rejected.reason, f"{record.image_path}: {rejected.detail}") from None


def _image_of(record: Record) -> tuple[str | None, int, int]:
    return record.image_path, record.width_px, record.height_px


def boxes_written(sample: Sample, style: str) -> int:
    """Number of boxes in the sample's conversation, the maximum over its variants."""
    if sample.task in ANSWERED_WITH_BOXES:
        return max(
            sum(count_boxes(turn.text, style) for turn in rendering.turns if turn.role == "gpt")
            for rendering in sample.renderings
        )
    return len(sample.turns) // 2 if sample.task == "REG" else 0


def text_chars(sample: Sample) -> int:
    """Number of characters in all turns, the maximum over the sample's variants."""
    return max(sum(len(turn.text) for turn in rendering.turns) for rendering in sample.renderings)
