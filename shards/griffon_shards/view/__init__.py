"""`griffon-shards view`: a local page that shows frozen sets.

`server` has the routes, `access` the checks of every request; all else knows nothing of HTTP.
"""

DEFAULT_PORT = 8765
"""Tried first if no port is given."""
