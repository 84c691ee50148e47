"""Streaming scan of JSON files that are larger than memory."""
