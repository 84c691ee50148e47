"""Records with boxes in pixels, whether their annotation states the sizes of images or not."""

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
    return read_image(image_root, record.image_path, record.image_elsewhere, record.image_file)


def sized(record: Record, image_root: str, *, upright: bool) -> Record:
    """Return the record with its boxes in pixels; if it has boxes, the size of its image is known.

    The size is read from the image only if the annotation does not state it, because it shows whether an image was
    replaced or turned.

    Raises:
        Rejected: its boxes cannot be used, or its image, where it is needed, cannot be read.
        OSError: the storage fails.
    """
    if record.needs_size and record.image_path is not None:
        data = image_file(image_root, record).data
        width_px, height_px = shown_size(data, record.image_path, upright=upright)
        record = replace(record, width_px=width_px, height_px=height_px)
    return in_pixels(record)
