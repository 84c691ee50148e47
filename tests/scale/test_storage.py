"""The storage layer against an S3 server behind a proxy that throttles and loses connections."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from griffon_shards.storage import object_path
from griffon_shards.storage.object_path import ObjectPath

from .faulty_proxy import FaultyProxy

pytestmark = pytest.mark.scale


def url(text: str) -> ObjectPath:
    path = object_path(text)
    assert path is not None
    return path


def test_what_is_written_is_read_whatever_the_network_does(faulty_bucket: str, proxy: FaultyProxy) -> None:
    root = url(faulty_bucket) / "a folder/目录"
    content = {f"{number:03} #.bin": random.Random(number).randbytes(1 + number * 997) for number in range(100)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: (root / name).write_bytes(content[name]), content))
        assert list(pool.map(lambda name: (root / name).read_bytes(), content)) == list(content.values())
        parts = pool.map(lambda name: (root / name).read_range(0, len(content[name]) // 2), content)
        assert list(parts) == [data[: len(data) // 2] for data in content.values()]
        assert list(pool.map(lambda name: (root / name).size(), content)) == [*map(len, content.values())]
    assert list(root.listing()) == [(name, len(data)) for name, data in content.items()]
    counters = proxy.counters()
    assert counters.refused > 0 and counters.cut > 0
