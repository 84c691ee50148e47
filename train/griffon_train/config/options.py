"""How settings become command line options; the click types are derived from the settings' own types."""

import math
import re
from abc import ABC
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union, get_args, get_origin

import click
import msgspec

from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.parameter import LOCATION

Count = Annotated[int, msgspec.Meta(ge=1)]
CountOrZero = Annotated[int, msgspec.Meta(ge=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


def one_of(*names: str) -> msgspec.Meta:
    """A constraint: a string that is one of `names`."""
    return msgspec.Meta(pattern=f"^({'|'.join(map(re.escape, names))})$", extra={"names": names})


class NonEmptyPath(click.Path):
    """A path; an empty one, as an unset shell variable leaves it, would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to Path."""
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


if TYPE_CHECKING:
    SetRoot: TypeAlias = Location
else:

    class SetRoot(ABC):  # noqa: B024 - msgspec allows one custom type, but no union of them
        """A set's folder or its URL, as the type of a setting."""

    SetRoot.register(Path)
    SetRoot.register(ObjectPath)


class Whole(click.IntRange):
    """A whole number; `500.0`, as transformers writes it, is accepted too."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to int."""
        whole = re.fullmatch(r"(\d+)\.0*", str(value))
        return super().convert(int(whole[1]) if whole else value, param, ctx)


class StepsOrNone(Whole):
    """A number of steps; transformers' -1 means None."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to int or None."""
        return None if str(value) == "-1" else super().convert(value, param, ctx)


class Bytes(Whole):
    """A number of bytes, such as 500GB; 1 kB is 1000 bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to int."""
        size = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT])B", str(value))
        if size:
            value = round(float(size[1]) * 1000 ** ("kMGT".index(size[2]) + 1))
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A number; click itself takes nan as one within any bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to float."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail("expected a finite number", param, ctx)
        return number


class Epochs(click.FloatRange):
    """A number of epochs; the last one may be partial."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Convert to int if the value is whole, else to float."""
        epochs = super().convert(value, param, ctx)
        return int(epochs) if float(epochs).is_integer() else epochs


@dataclass(frozen=True, slots=True)
class Option:
    """How a setting appears on the command line.

    Attributes:
        help: the help text.
        number_type: click type of a number that is parsed in a special way; its bounds come from the setting's type.
        unset: shown instead of a value when the option is not given.
        reference_name: the option's name in the reference's training script, where it differs.
        spelling: the option's name, where it differs from the setting's.
    """

    help: str
    number_type: type[Whole | Epochs] | None = None
    unset: str = ""
    reference_name: str = ""
    spelling: str = ""


_UNBOUNDED: dict[Any, click.ParamType[Any]] = {
    bool: click.BOOL,
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    Path: NonEmptyPath(path_type=Path),
    SetRoot: LOCATION,
}


def takes_many(hint: Any) -> bool:  # noqa: ANN401 - a type
    """Return whether the option of a setting with this type can be repeated."""
    return get_origin(_bare(hint)) is tuple


def click_type(hint: Any) -> click.ParamType[Any]:  # noqa: ANN401 - a type
    """The click type of a single value, with the choices or bounds that the setting's type states.

    Args:
        hint: type of the setting with its annotations: `T`, `T | None` or `tuple[T, ...]`.
    """
    option = next((extra for extra in _extras(hint) if isinstance(extra, Option)), None)
    value = _bare(hint)
    if get_origin(value) in (Union, UnionType, tuple):
        value = next(arg for arg in get_args(value) if arg not in (type(None), ...))
    limits = next((extra for extra in (*_extras(value), *_extras(hint)) if isinstance(extra, msgspec.Meta)), None)
    kind = _bare(value)
    if limits is None:
        return _UNBOUNDED[kind]
    if kind is str:
        return click.Choice((limits.extra or {})["names"])
    ranged: Any = (option and option.number_type) or {int: Whole, float: click.FloatRange}[kind]
    bounded: click.ParamType[Any] = ranged(
        min=limits.gt if limits.ge is None else limits.ge,
        max=limits.lt if limits.le is None else limits.le,
        min_open=limits.gt is not None,
        max_open=limits.lt is not None,
    )
    return bounded


def _extras(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _bare(hint: Any) -> Any:  # noqa: ANN401 - a type
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint
