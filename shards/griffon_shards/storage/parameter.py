"""The type of command-line arguments that name a place on disk or in an object store."""

import click

from griffon_shards.storage import Location, as_location
from griffon_shards.support.errors import SettingsError


class _LocationType(click.ParamType[Location]):
    name = "path"

    def convert(self, value: str | Location, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        if not isinstance(value, str):  # a default that is converted already
            return value
        if not value:  # as an unset shell variable leaves it; it would be the working directory
            self.fail("expected a path or a URL, got an empty text", param, ctx)
        try:
            return as_location(value)
        except SettingsError as error:
            self.fail(str(error), param, ctx)


LOCATION = _LocationType()
"""`type=LOCATION` of arguments and options: a path, or a URL such as `s3://bucket/folder`. It need not exist."""
