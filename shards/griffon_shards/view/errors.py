"""Errors of a request that are neither the user's settings nor the data."""


class NotFoundError(Exception):
    """There is no such set, sample or reject."""


class TooSlowError(Exception):
    """A query took too long and was stopped."""
