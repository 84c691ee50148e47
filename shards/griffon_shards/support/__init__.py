"""Helpers that all three packages share and that are not part of the shard format."""
