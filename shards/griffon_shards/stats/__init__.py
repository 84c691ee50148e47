"""Statistics of a set: `count_set` counts its samples, and the renderers show the figures.

`SetCounts` is fed samples, from whatever source, and adds up with others; `make_figures` turns it into `Figures`.
"""

from griffon_shards.stats.count_set import count_set
from griffon_shards.stats.counts import SetCounts
from griffon_shards.stats.figures import Figures, make_figures
from griffon_shards.stats.html_page import html_page
from griffon_shards.stats.json_text import json_text

__all__ = ["Figures", "SetCounts", "count_set", "html_page", "json_text", "make_figures"]
