"""The errors that a command line answers with one sentence; imports nothing."""

from __future__ import annotations


class DataError(ValueError):
    """Input that cannot be used. The message names the file and says what to do about it."""


class VideoError(DataError):
    """A video that gives no frame. The message names the file."""


class OutputError(DataError):
    """A recording that cannot be written. The message names the path."""


class SourceError(DataError):
    """A camera, file or stream that gives no frame, or no more. The message says what to do."""
