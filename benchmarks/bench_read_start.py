"""The start of `bench_read.py`: a set opened, and the first batch at a share of its first epoch.

Prints, as JSON: seconds; private bytes of this process above what `import torch` took, once its workers are gone, for
as long as they live they share with it what they were forked from; most private bytes of a worker, while it lives.
"""

import multiprocessing
import sys
import time
from pathlib import Path

_WORKERS = 2


def main(root: str, share: float) -> None:
    """Import torch alone first, and all else behind it."""
    import torch  # noqa: F401

    torch_bytes = _private_bytes("self")
    import orjson

    from griffon_shards.frozen_set import open_set
    from griffon_train.data.loader import Loader
    from griffon_train.data.plan import Plan

    began = time.perf_counter()
    plan = Plan([open_set(root)], seed=0, global_batch=128, grouping="task")
    batches = iter(Loader(plan, micro_batch=1, workers=_WORKERS, start=int(plan.first_step(1) * share)))
    next(batches)
    seconds = time.perf_counter() - began
    workers = multiprocessing.active_children()
    assert len(workers) == _WORKERS
    of_worker = max(_private_bytes(worker.pid) for worker in workers)
    for worker in workers:
        worker.kill()
        worker.join()
    sys.stdout.write(orjson.dumps([seconds, _private_bytes("self") - torch_bytes, of_worker]).decode() + "\n")


def _private_bytes(process: int | str | None) -> int:
    """Of its pages, those that no other process has."""
    rows = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:"))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
