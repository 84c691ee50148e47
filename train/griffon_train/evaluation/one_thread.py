"""Figures that are the same in every digit, however many threads a process has."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread of the CPU; also a decorator.

    Matrices of a few rows are multiplied in another order on several threads. torchrun gives every process one thread,
    and a process alone has all.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
