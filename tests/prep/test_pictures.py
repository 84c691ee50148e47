"""Pictures: where they are looked for, and which of them are refused."""

import os
import socket
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from griffon_prep.pictures import CHECKS, Picture, check_picture, read_picture, shrink_picture
from griffon_prep.records import Rejected

SIDES_PX = (129, 97)
SAVED_AS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "progressive JPEG": {"progressive": True, "quality": 90},
    "JPEG with restarts": {"restart_marker_blocks": 4},
    "CMYK JPEG": {},
    "grey JPEG": {},
    "PNG": {},
    "palette PNG": {},
    "16-bit PNG": {},
    "RGBA PNG": {},
    "grey PNG": {},
    "WebP": {"quality": 90},
    "lossless WebP": {"lossless": True},
    "RGBA WebP": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
}
MODES = {"CMYK": "CMYK", "grey": "L", "palette": "P", "16-bit": "I;16", "RGBA": "RGBA"}


def textured() -> Image.Image:
    generator = np.random.default_rng(0)
    smooth = np.kron(generator.integers(0, 256, (13, 17, 3)), np.ones((8, 8, 1), int))[: SIDES_PX[1], : SIDES_PX[0]]
    noisy = np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def encoded(image: Image.Image, coding: str, **options: Any) -> bytes:  # noqa: ANN401
    out = BytesIO()
    image.save(out, coding, **options)
    return out.getvalue()


def picture(kind: str) -> bytes:
    mode = next((mode for word, mode in MODES.items() if word in kind), "RGB")
    image = textured()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    return encoded(image, kind.split()[0 if kind.endswith("restarts") else -1], **SAVED_AS[kind])


def coding_of(kind: str) -> str:
    return next(coding for coding in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") if coding in kind.upper())


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def reason(function: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        function()
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", SAVED_AS)
def test_a_whole_picture_is_taken_as_it_is(kind: str, check: str) -> None:
    data = picture(kind)
    for stated in (SIDES_PX, (0, 0)):
        assert check_picture(data, check, stated, "a.jpg") == Picture(
            data=data, format=coding_of(kind), width_px=SIDES_PX[0], height_px=SIDES_PX[1]
        )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", SAVED_AS)
def test_a_picture_that_is_cut_short_is_refused_unless_all_pixels_are_there(kind: str) -> None:
    data = picture(kind)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    sizes = {len(data) * percent // 100 for percent in range(0, 100, 5)} | set(range(len(data) - 40, len(data)))
    accepted = []
    for size in sorted(sizes):
        try:
            check_picture(data[:size], "decode", SIDES_PX, "a.jpg")
        except Rejected as rejected:
            assert rejected.reason == "picture_unreadable"
            assert rejected.detail.startswith("a.jpg: ")
        else:
            accepted.append(len(data) - size)
            assert np.array_equal(pixels(data[:size]), pixels(data))
    # What may be missing: the checksum of a PNG's empty last chunk, what closes a GIF, a BMP's last padding.
    assert accepted == {"PNG": [4, 3, 2, 1], "GIF": [2, 1], "BMP": [1]}.get(coding_of(kind), [])


@pytest.mark.parametrize("kind", ["PNG", "palette PNG", "16-bit PNG", "RGBA PNG"])
def test_a_png_with_one_wrong_bit_is_refused(kind: str) -> None:
    data = bytearray(picture(kind))
    for place in range(16, len(data) - 12, 97):
        data[place] ^= 4
        assert reason(lambda: check_picture(bytes(data), "decode", (0, 0), "a.jpg"))[0] == "picture_unreadable"
        data[place] ^= 4


@pytest.mark.parametrize("check", ["decode", "header"])
@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"<html>not found</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", bytes(999)],
)
def test_what_is_no_picture_is_refused_in_the_same_words(data: bytes, check: str) -> None:
    first = reason(lambda: check_picture(data, check, (1, 1), "b.png"))
    assert first == ("picture_unreadable", "b.png: not a picture, or one of a kind that is not read")
    assert reason(lambda: check_picture(bytes(data), check, (1, 1), "b.png")) == first


def test_a_png_without_picture_data_is_refused() -> None:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    assert reason(lambda: check_picture(data, "decode", (9, 9), "a.png"))[0] == "picture_unreadable"


@pytest.mark.parametrize("check", ["decode", "header"])
@pytest.mark.parametrize("stated", [(97, 129), (129, 98), (128, 97), (129, 0), (1, 1)])
def test_another_size_than_the_record_states(check: str, stated: tuple[int, int]) -> None:
    assert reason(lambda: check_picture(picture("PNG"), check, stated, "a.jpg")) == (
        "size_mismatch",
        "a.jpg: the picture is 129x97, the record says {}x{}".format(*stated),
    )


def test_without_a_check_the_records_word_is_taken() -> None:
    data = picture("PNG")[:50]
    assert check_picture(data, "none", (7, 8), "a.jpg") == Picture(data=data, format="PNG", width_px=7, height_px=8)
    for stated in ((7, 8), (0, 0)):  # no format at all would mean: no picture
        assert reason(partial(check_picture, b"anything", "none", stated, "a"))[0] == "picture_unreadable"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_stored_one(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for coding in ("JPEG", "PNG", "WEBP"):
        data = encoded(textured(), coding, exif=exif)
        found = check_picture(data, "decode", SIDES_PX, "a.jpg")
        assert (found.width_px, found.height_px, found.data) == (*SIDES_PX, data)


def test_a_picture_of_several_frames_is_its_first() -> None:
    data = encoded(textured(), "MPO", save_all=True, append_images=[textured()])
    assert check_picture(data, "decode", SIDES_PX, "a.jpg").format == "JPEG"


@pytest.mark.parametrize("kind", SAVED_AS)
def test_shrinking(kind: str) -> None:
    before = check_picture(picture(kind), "decode", SIDES_PX, "a.jpg")
    assert shrink_picture(before, 129, "a.jpg") is before
    after = shrink_picture(before, 64, "a.jpg")
    assert (after.format, after.width_px, after.height_px) == ("JPEG", 64, 48)
    assert check_picture(after.data, "decode", (64, 48), "a.jpg") == after


def test_shrinking_keeps_the_look_and_at_least_a_pixel() -> None:
    wide = Image.new("RGB", (400, 2), "#c04020")
    after = shrink_picture(check_picture(encoded(wide, "PNG"), "decode", (400, 2), "a.png"), 100, "a.png")
    assert (after.width_px, after.height_px) == (100, 1)
    assert np.abs(pixels(after.data)[..., :3].astype(int) - (0xC0, 0x40, 0x20)).max() < 8


def test_shrinking_a_damaged_picture() -> None:
    before = check_picture(picture("JPEG")[:2000], "header", SIDES_PX, "a.jpg")
    assert reason(lambda: shrink_picture(before, 64, "a.jpg"))[0] == "picture_unreadable"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that each hold their own path."""
    root = tmp_path / "图片 root"
    for name in ("a.jpg", "x/a.jpg", "x/y/a.jpg", "y/b.jpg", "文件 夹/c d.jpg", "d.jpg", "..e.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    (tmp_path / "secret.jpg").write_text("outside")
    return root


def found(root: Path, name: str) -> str:
    return read_picture(str(root), name).decode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("x/a.jpg", "x/a.jpg"),
        ("x/y/a.jpg", "x/y/a.jpg"),
        ("z/x/a.jpg", "x/a.jpg"),  # the last two parts
        ("images/v1/patch8/y/b.jpg", "y/b.jpg"),
        ("images/v1/patch8/d.jpg", "d.jpg"),  # the last
        ("patch8/a.jpg", "a.jpg"),
        ("z/y/a.jpg", "a.jpg"),
        ("文件 夹/c d.jpg", "文件 夹/c d.jpg"),
        ("./x//./a.jpg", "x/a.jpg"),
        ("..e.jpg", "..e.jpg"),
        ("x/../a.jpg", "a.jpg"),
        ("x/y/../../d.jpg", "d.jpg"),
    ],
)
def test_where_a_picture_is_looked_for(root: Path, name: str, expected: str) -> None:
    assert found(root, name) == expected
    assert found(root, str(root / name)) == expected


@pytest.mark.parametrize("name", ["../secret.jpg", "x/../../secret.jpg", "..", "../../etc/passwd", "/etc/passwd", "/"])
def test_a_path_that_leaves_the_root(root: Path, name: str) -> None:
    assert reason(lambda: read_picture(str(root), name)) == ("path_outside_root", name)
    sibling = str(root) + "2/a.jpg"
    assert reason(lambda: read_picture(str(root), sibling)) == ("path_outside_root", sibling)


def test_a_nul_in_a_path(root: Path) -> None:
    assert reason(lambda: read_picture(str(root), "a\0.jpg"))[0] == "path_outside_root"
    assert "NUL" in reason(lambda: read_picture(str(root), "a\0.jpg"))[1]


@pytest.mark.parametrize("name", ["gone.jpg", "x/gone.jpg", "a.jpg/b", "x", "x/y", ".", "n" * 300, "n/" * 3000])
def test_what_is_not_there(root: Path, name: str) -> None:
    assert reason(lambda: read_picture(str(root), name)) == ("picture_not_found", name)


def test_a_folder_of_that_name_is_passed_over(root: Path) -> None:
    (root / "z/x/a.jpg").mkdir(parents=True)
    assert found(root, "z/x/a.jpg") == "x/a.jpg"


def test_links(root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "x/a.jpg")
    (root / "data").symlink_to(root.parent)  # a user's own link: pictures kept elsewhere
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "dangling.jpg").symlink_to("gone.jpg")
    assert found(root, "link.jpg") == "x/a.jpg"
    assert found(root, "data/secret.jpg") == "outside"
    for name in ("loop.jpg", "dangling.jpg"):
        assert reason(partial(read_picture, str(root), name))[0] == "picture_not_found"


def test_what_is_no_file_does_not_hold_the_build_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "empty.jpg").write_bytes(b"")
    with (root / "huge.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)
    monkeypatch.chdir(root)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    for name in ("pipe.jpg", "empty.jpg", "huge.jpg", "socket.jpg"):
        why, what = reason(partial(read_picture, str(root), name))
        assert why == "picture_unreadable"
        assert what.startswith(f"{name}: ")


def test_a_file_that_may_not_be_read(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (root / "a.jpg").chmod(0)
    assert reason(lambda: read_picture(str(root), "a.jpg")) == ("picture_unreadable", "a.jpg: no permission to read it")


def test_a_large_file_comes_whole(root: Path) -> None:
    data = os.urandom(5_000_001)
    (root / "large.jpg").write_bytes(data)
    assert read_picture(str(root), "large.jpg") == data
