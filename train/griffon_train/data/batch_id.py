"""A hash of which sample stood in which slot of a step; the ranks of a run add up their parts of it."""

import hashlib


def place_id(slot: int, key: str) -> int:
    """Return a 40-bit hash of a sample's slot and key: thousands of them add up exactly in float64, in any order."""
    return int.from_bytes(hashlib.blake2b(f"{slot}:{key}".encode(), digest_size=5).digest())


def batch_id_of(total: int) -> str:
    """Return the batch's hash as it is logged, from the sum of its samples'."""
    return f"{total:013x}"
