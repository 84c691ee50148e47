"""How long a test waits for a process before it gives up."""

TIMEOUT_S = 900
"""Generous: tests pass on a machine that is busy with other work, and a wait only ends late if something is broken."""
