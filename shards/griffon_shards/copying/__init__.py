"""Copies a frozen set from anywhere to anywhere: `griffon-shards copy`."""
