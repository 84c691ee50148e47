"""The bytes of a sample: pinned, plain ustar to any reader, and taken apart only when complete."""

import hashlib
import tarfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffon_shards.support.errors import DataError
from griffon_shards.tar import BLOCK, END_OF_ARCHIVE, MAX_MEMBER_BYTES, crc32, header, sample_bytes, split_sample

KEY = "DET_0-000000012"
IMAGE = bytes(range(256)) * 3
JSON = b'{"task":"DET"}'
PINNED_WITH_IMAGE = "21d9f8354c2c516bb03afdd4afaed57bbf8e6e5ad4c5665587628b97f7f488f6"
PINNED_WITHOUT = "98c3c72a6728abc28af9c1338b74ca699d463b6d7f337546f4ecd3732681bd7c"
PINNED_CRC32 = 0x439FCD0B
keys = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcxyz0123456789_-", min_size=1, max_size=95)


def test_the_bytes_are_pinned() -> None:
    with_image, without = sample_bytes(KEY, IMAGE, JSON), sample_bytes(KEY, None, JSON)
    assert hashlib.sha256(with_image).hexdigest() == PINNED_WITH_IMAGE
    assert hashlib.sha256(without).hexdigest() == PINNED_WITHOUT
    assert crc32(without) == PINNED_CRC32


def test_a_tar_reader_finds_exactly_the_members() -> None:
    second = "LAZY-000000003"
    archive = sample_bytes(KEY, IMAGE, JSON) + sample_bytes(second, None, b"{}") + END_OF_ARCHIVE
    with tarfile.open(fileobj=BytesIO(archive), mode="r:") as tar:
        members = tar.getmembers()
        contents = {member.name: file.read() for member in members if (file := tar.extractfile(member))}
    assert list(contents.items()) == [(f"{KEY}.jpg", IMAGE), (f"{KEY}.json", JSON), (f"{second}.json", b"{}")]
    for member in members:
        assert member.isreg()
        assert (member.mode, member.mtime, member.uid, member.gid) == (0o644, 0, 0, 0)
        assert (member.uname, member.gname, member.linkname, member.pax_headers) == ("", "", "", {})


def test_the_header_is_the_one_that_python_writes_for_the_same_member() -> None:
    """`tarfile` of this Python agrees in every byte but the device numbers, which it leaves empty, and their sum."""
    member = tarfile.TarInfo(f"{KEY}.jpg")
    member.size = 1234
    theirs = member.tobuf(tarfile.USTAR_FORMAT)
    ours = header(f"{KEY}.jpg", 1234)
    assert len(ours) == BLOCK
    assert ours[:148] == theirs[:148]
    assert ours[156:329] == theirs[156:329]
    assert ours[345:] == theirs[345:]


@given(key=keys, image=st.none() | st.binary(max_size=1600), json=st.binary(max_size=1600))
def test_a_sample_is_split_into_the_parts_it_was_made_of(key: str, image: bytes | None, json: bytes) -> None:
    raw = sample_bytes(key, image, json)
    assert len(raw) % BLOCK == 0
    assert split_sample(raw, "here") == (key, image, json)


def test_only_contents_may_differ() -> None:
    """A changed byte outside the contents is refused. Inside, it is the checksum's to find, and comes out as it is."""
    raw = sample_bytes(KEY, IMAGE, JSON)
    image_at, json_at = BLOCK, len(raw) - BLOCK
    for offset in range(len(raw)):
        damaged = bytearray(raw)
        damaged[offset] ^= 0x10
        if image_at <= offset < image_at + len(IMAGE):
            image = bytes(damaged[image_at : image_at + len(IMAGE)])
            assert split_sample(bytes(damaged), "here") == (KEY, image, JSON)
        elif json_at <= offset < json_at + len(JSON):
            json = bytes(damaged[json_at : json_at + len(JSON)])
            assert split_sample(bytes(damaged), "here") == (KEY, IMAGE, json)
        else:
            with pytest.raises(DataError, match=r"here: .* damaged"):
                split_sample(bytes(damaged), "here")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        bytes(BLOCK),
        END_OF_ARCHIVE,
        sample_bytes(KEY, IMAGE, JSON)[:-1],
        sample_bytes(KEY, IMAGE, JSON)[:-BLOCK],
        sample_bytes(KEY, IMAGE, JSON)[:700],
        sample_bytes(KEY, IMAGE, JSON) + bytes(BLOCK),
        sample_bytes(KEY, IMAGE, JSON) + END_OF_ARCHIVE,
        sample_bytes(KEY, None, JSON) + sample_bytes(KEY, None, JSON),
        sample_bytes(KEY, None, JSON) + sample_bytes(KEY, IMAGE, JSON),
        sample_bytes("A-000000001", None, JSON) + sample_bytes("A-000000002", None, JSON),
        sample_bytes("A", IMAGE, JSON)[: -2 * BLOCK] + sample_bytes("B", None, JSON),
        header(f"{KEY}.jpg", len(IMAGE)) + IMAGE + bytes(-len(IMAGE) % BLOCK),
    ],
)
def test_what_is_not_one_complete_sample_is_refused(raw: bytes) -> None:
    with pytest.raises(DataError, match=r"X\.tar, sample K: .* damaged"):
        split_sample(raw, "X.tar, sample K")


def test_names_and_sizes_go_up_to_what_ustar_holds() -> None:
    for name, size in (("n" * 100, 0), ("n", MAX_MEMBER_BYTES)):
        member = tarfile.TarInfo.frombuf(header(name, size), "ascii", "strict")
        assert (member.name, member.size) == (name, size)


@pytest.mark.parametrize(("name", "size"), [("n" * 101, 0), ("n", MAX_MEMBER_BYTES + 1), ("n", -1), ("图", 0)])
def test_what_ustar_does_not_hold_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"no ustar header|ascii"):
        header(name, size)
