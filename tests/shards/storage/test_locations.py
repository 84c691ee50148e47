"""What counts as a URL, and what it is refused for."""

import pickle
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from griffon_shards.storage import Location, ObjectPath, as_location
from griffon_shards.storage.parameter import LOCATION
from griffon_shards.support.errors import SettingsError


@pytest.mark.parametrize(
    "text", ["s3://bucket", "s3://bucket/a/b c/冻结", "gs://bucket/a", "gcs://b/a", "az://b/a", "abfs://b/a"]
)
def test_a_url_is_an_object_path(text: str) -> None:
    location = as_location(text)
    assert isinstance(location, ObjectPath)
    assert str(location) == text
    assert as_location(f"{text}/") == location


@pytest.mark.parametrize("text", ["shards/mine", "/a/s3:/b", "s3:/bucket/a", "a s3 ", "冻结 set", ""])
def test_everything_else_is_a_path(text: str) -> None:
    assert as_location(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://", "names no bucket"),
        ("s3:///a", "names no bucket"),
        ("s3://bucket//a", "empty part"),
        ("s3://bucket/a/../b", ".. between"),
        ("s3://bucket/./b", "empty part, . or .."),
        ("s3://bucket/a?versionId=3", "queries"),
        ("s3://bucket/a#b", "fragments"),
        ("http://host/a", "unknown kind of URL"),
        ("file:///a", "unknown kind of URL"),
    ],
)
def test_other_urls_are_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        as_location(text)
    assert str(caught.value).startswith(text)
    assert says in str(caught.value)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        as_location("s3://AKIA:secret@bucket/a")
    assert "credentials" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_parts_of_a_url() -> None:
    url = ObjectPath("s3://bucket/sets/a.tar")
    assert (url.name, url.suffix, str(url.parent)) == ("a.tar", ".tar", "s3://bucket/sets")
    assert str(url.with_name("a.tar.idx")) == "s3://bucket/sets/a.tar.idx"
    assert str(url.parent / "x/y") == "s3://bucket/sets/x/y"
    bucket = url.parent.parent
    assert (str(bucket), bucket.name, bucket.parent) == ("s3://bucket", "bucket", bucket)
    assert pickle.loads(pickle.dumps(url)) == url
    assert {url, ObjectPath(str(url))} == {url}
    assert sorted([url, bucket]) == [bucket, url]


def test_an_argument_of_a_command() -> None:
    @click.command()
    @click.argument("place", type=LOCATION)
    def command(place: Location) -> None:
        click.echo(f"{type(place).__name__} {place}")

    assert CliRunner().invoke(command, ["s3://bucket/a"]).stdout == "ObjectPath s3://bucket/a\n"
    assert CliRunner().invoke(command, ["a/b"]).stdout == f"{type(Path()).__name__} a/b\n"
    refused = CliRunner().invoke(command, ["s3:///a"])
    assert refused.exit_code == 2
    assert refused.stderr.endswith("s3:///a: names no bucket; expected s3://BUCKET/FOLDER\n")
