"""The manifest option `boxes=`: how the four numbers of a source's boxes are to be read."""

from collections.abc import Mapping
from dataclasses import dataclass

from griffon_prep.readers.fields import corners_of
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import BoxXYXY

_UNITS = {"pixel": None, "fraction": 1.0, "thousandth": 1000.0}
"""Units by name: how many of them each side of the image has; None for pixels of the image file."""

_ORDERS = ("xyxy", "xywh")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxForm:
    """How the numbers of a box are to be read.

    Attributes:
        order: `xyxy` for two corners, `xywh` for the upper left corner, width and height.
        units_per_side: as in `Record`.
    """

    order: str
    units_per_side: float | None

    def corners(self, box: BoxXYXY) -> BoxXYXY:
        """Return the corners of a box, in its own unit."""
        return corners_of(box) if self.order == "xywh" else box


def box_form(options: Mapping[str, str], own_order: str) -> BoxForm:
    """Return the form of a source's boxes: as the manifest line states it, or pixels in the format's own order."""
    words = options.get("boxes", "").split("+")
    return BoxForm(
        order=next((word for word in words if word in _ORDERS), own_order),
        units_per_side=next((_UNITS[word] for word in words if word in _UNITS), None),
    )


def own_units(options: Mapping[str, str], format_name: str) -> float | None:
    """Return `units_per_side` for a format whose files name the numbers of a box, so only their unit may be stated.

    Raises:
        SettingsError: the manifest line states an order.
    """
    if states_order(options):
        raise SettingsError(
            f"boxes={options['boxes']}: files of format {format_name} name the numbers of a box, so their order "
            f"is known; give a unit alone: {' or '.join(_UNITS)}"
        )
    return box_form(options, "xyxy").units_per_side


def states_unit(options: Mapping[str, str]) -> bool:
    """Whether the manifest line states the unit of the numbers."""
    return any(word in _UNITS for word in options.get("boxes", "").split("+"))


def states_order(options: Mapping[str, str]) -> bool:
    """Whether the manifest line states the order of the numbers."""
    return any(word in _ORDERS for word in options.get("boxes", "").split("+"))


def boxes_fault(value: str) -> str | None:
    """Return what is wrong with a value of `boxes=`, or None."""
    words = value.split("+")
    if set(words) <= {*_UNITS, *_ORDERS} and all(
        sum(word in kind for word in words) <= 1 for kind in (_UNITS, _ORDERS)
    ):
        return None
    return f"expected one of {', '.join((*_UNITS, *_ORDERS))}, or a unit and an order, such as fraction+xyxy"
