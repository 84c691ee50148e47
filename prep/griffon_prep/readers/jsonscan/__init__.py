"""Scanning JSON that is larger than memory."""
