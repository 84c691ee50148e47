"""The two errors a user can meet. Messages say what, where, what was expected and how to go on."""


class SettingsError(ValueError):
    """The command or its manifest is wrong; nothing was written. Command lines exit with 2."""


class DataError(ValueError):
    """Data on disk is not what it should be: rejected too often, damaged, unfinished. Command lines exit with 1."""
