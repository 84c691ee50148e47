"""The two errors that users meet. A message says what is wrong, where, what was expected and how to fix it."""


class SettingsError(ValueError):
    """The command line or the manifest is wrong; nothing was written. Command lines exit with 2."""


class DataError(ValueError):
    """Data on disk are damaged, incomplete, or rejected too often. Command lines exit with 1."""
