"""Asks a model the questions of frozen sets, and scores its answers."""
