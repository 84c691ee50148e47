"""The figures of a set as JSON: the fields of `Figures`, all categories included."""

from dataclasses import asdict

import orjson

from griffon_shards.stats.figures import Figures


def json_text(figures: Figures) -> str:
    """One line of JSON. Equal figures give equal bytes."""
    return orjson.dumps(asdict(figures), option=orjson.OPT_NON_STR_KEYS).decode()
