"""Shared memory that is too small for the images that reading processes have ready: said with what to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.data import shared_memory
from griffon_train.data.shared_memory import check_shared_memory, needed_bytes
from griffon_train.data.source_stream import Shows

from ...waiting import TIMEOUT_S
from ..synthetic import Source, write_synthetic

WITH_8_MB = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"', "sh"]

needs_own_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*WITH_8_MB, "true"], capture_output=True).returncode != 0,
    reason="/dev/shm can only be made small by who may mount",
)

LOOP = """
import sys
from griffon_shards.support.errors import DataError
from griffon_shards.frozen_set import open_set
from griffon_train.data.loader import Loader
from griffon_train.data.plan import Plan
try:
    list(Loader(Plan([open_set(sys.argv[1])], seed=0, global_batch=32), micro_batch=8, stop=1))
except DataError as error:
    sys.exit(f"error: {error}")
"""


@needs_own_mounts
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("-m griffon_train read SET --global-batch 32 --micro-batch 8", "8 MB free"),
        (
            "-m griffon_train run --stage custom --model tiny-gemma2 --shards SET --output-dir RUN --steps 1 "
            "--device cpu --micro-batch 128 --workers 64",
            "8 MB free",
        ),
        ("-c LOOP SET", "/dev/shm is full"),
    ],
    ids=["read", "run", "full on the way"],
)
def test_small_shared_memory_is_named_with_the_remedy(
    arguments: str, says: str, frozen_set: Path, tmp_path: Path
) -> None:
    places = {"LOOP": LOOP, "SET": str(frozen_set), "RUN": str(tmp_path / "run")}
    command = [*WITH_8_MB, sys.executable, *(places.get(item, item) for item in arguments.split())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ended.returncode in (1, 2), ended.stderr
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert says in last
    assert "--shm-size" in last and "--workers" in last
    assert not (tmp_path / "run").exists()


def test_text_alone_and_a_rank_without_workers_need_no_shared_memory(tmp_path: Path) -> None:
    sources = (Source(tag="LAZY_words", rows=9, pictured=lambda _: False), Source(tag="LAZY", rows=9))
    words, both = (write_synthetic(tmp_path / str(count), sources[:count]) for count in (1, 2))
    region = write_synthetic(tmp_path / "region", (Source(tag="VISJ", rows=1),))
    sizes = {"micro_batch": 4, "image_px": 100, "region_px": 10}
    assert needed_bytes(Shows.of([words]), workers=2, **sizes) == 0
    assert needed_bytes(Shows.of([words, both]), workers=2, **sizes) == 6 * 4 * 3 * 100**2
    assert needed_bytes(Shows.of([region]), workers=2, **sizes) == 6 * 4 * 3 * (100**2 + 10**2)
    assert needed_bytes(Shows.of([both]), workers=0, **sizes) == 0


def test_memory_of_all_ranks_of_a_machine_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "SHARED", tmp_path)
    free = shutil.disk_usage(tmp_path).free
    check_shared_memory(free // 8, loaders=4)
    with pytest.raises(SettingsError, match=r"MB free, but .* take up to [\d,]+ MB: enlarge it"):
        check_shared_memory(free // 4, loaders=8)
    monkeypatch.setattr(shared_memory, "SHARED", tmp_path / "no such folder")
    check_shared_memory(free, loaders=8)
