"""Prompt templates: our own wording, as package data."""
