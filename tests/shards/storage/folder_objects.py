"""Objects that are files of a folder: an object store for tests that run without one."""

from collections.abc import Iterator
from pathlib import Path

from griffon_shards.storage import ObjectPath


class FolderObject(ObjectPath):
    """`s3://bucket/NAME` is the file NAME of a folder. Every range that is read adds a line to the file `reads`."""

    __slots__ = ("folder",)

    def __init__(self, text: str, folder: Path) -> None:
        super().__init__(text)
        self.folder = folder

    def __truediv__(self, name: str) -> "FolderObject":
        return FolderObject(f"{self}/{name}", self.folder)

    @property
    def file(self) -> Path:
        return self.folder / str(self).removeprefix("s3://bucket/")

    def size(self) -> int:
        return self.file.stat().st_size

    def read_range(self, start: int, size: int) -> bytes:
        with (self.folder.parent / "reads").open("a") as reads:
            reads.write(f"{self.name} {start} {size}\n")
        return self.file.read_bytes()[start : start + size]

    def listing(self) -> Iterator[tuple[str, int]]:
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(self.folder).as_posix(), path.stat().st_size


def reads_of(folder: Path) -> list[str]:
    """The ranges that were read."""
    path = folder.parent / "reads"
    return path.read_text().splitlines() if path.exists() else []
