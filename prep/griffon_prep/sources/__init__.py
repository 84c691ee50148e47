"""Resolving manifest lines to sources, and hashing, decompressing and scanning their files."""
