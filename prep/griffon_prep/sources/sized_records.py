"""Records with boxes in pixels, whether their annotation states the sizes of images or not."""

from collections.abc import Callable
from dataclasses import replace

from griffon_prep.images import ImageFile, read_image, shown_size
from griffon_prep.records import Record, in_pixels


def image_file(image_root: str, record: Record) -> ImageFile:
    """Return the image of a record, which must have one: from the annotation itself, or from its file.

    Raises:
        Rejected: as `read_image`.
        OSError: the storage fails.
    """
    if record.image_bytes is not None:
        return ImageFile(data=record.image_bytes, by_last_part=False)
    assert record.image_path is not None
    return read_image(image_root, record.image_path, record.image_elsewhere)


class ImageOnce:
    """The image of some records, read when it is first needed and kept; of several images, each is read once."""

    def __init__(self, image_root: str) -> None:
        self._image_root = image_root
        self._files: dict[tuple[str | None, tuple[str, ...]], ImageFile] = {}

    def __call__(self, record: Record) -> ImageFile:
        """Return the image of a record; as `image_file`."""
        if record.image_bytes is not None:
            return image_file(self._image_root, record)
        key = (record.image_path, record.image_elsewhere)
        if key not in self._files:
            self._files[key] = image_file(self._image_root, record)
        return self._files[key]


def sized(record: Record, read: Callable[[Record], ImageFile], *, upright: bool) -> Record:
    """Return the record with its boxes in pixels; if it has boxes, the size of its image is known.

    The size is read from the image only if the annotation does not state it, because it shows whether an image was
    replaced or turned.

    Args:
        record: the record.
        read: reads the image of a record.
        upright: whether the image is stored as its EXIF orientation shows it.

    Raises:
        Rejected: its boxes cannot be used, or its image, where it is needed, cannot be read.
        OSError: the storage fails.
    """
    if record.needs_size and record.image_path is not None:
        data = read(record).data
        width_px, height_px = shown_size(data, record.image_path, upright=upright)
        record = replace(record, width_px=width_px, height_px=height_px)
    return in_pixels(record)
