"""Tables as people read them: aligned, numbers to the right, thousands apart."""

import pytest

from griffon_shards.support.tables import counts, size, table


def test_columns_are_aligned_and_numbers_to_the_right() -> None:
    rows = [("DET_0", 1234567, "-"), ("LAZY_caption", 5, "size_mismatch 2")]
    assert table(("source", "records", "rejected"), rows).splitlines() == [
        "source          records  rejected",
        "DET_0         1,234,567  -",
        "LAZY_caption          5  size_mismatch 2",
    ]
    assert table(("source", "records"), []) == "source  records"


def test_counts_are_sorted_by_reason() -> None:
    assert counts({"size_mismatch": 2, "picture_not_found": 12345}) == "picture_not_found 12,345, size_mismatch 2"
    assert counts({}) == "-"


@pytest.mark.parametrize(
    ("number_bytes", "expected"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (7_640_000, "7.6 MB"), (83.04e9, "83.0 GB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_in_decimal_units(number_bytes: float, expected: str) -> None:
    assert size(number_bytes) == expected
