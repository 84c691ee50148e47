"""Manifest lines become sources that can be read: found, hashed, decompressed, scanned."""
