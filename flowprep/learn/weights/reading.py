"""The error that every reader of weights raises for a file that it may not read."""

from __future__ import annotations

from pathlib import Path

from flowprep.errors import WeightsError

__all__ = ["cannot_read"]


def cannot_read(path: Path, error: OSError) -> WeightsError:
    """Returns the error for a file that the system does not let us read."""
    return WeightsError(
        f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
    )
