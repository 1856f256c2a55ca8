"""Opening files with any PyAV from 17 to 19, in which the same things have different names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
from av.container import InputContainer

__all__ = ["open_container"]

# Names in a broken file are often not UTF-8, and must not be why it can't be opened. PyAV 19 keeps
# such bytes as `surrogateescape` does and has no choice of it; before, the default was to fail.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


def open_container(path: str, options: Mapping[str, str] | None = None) -> InputContainer:
    """Opens a file for reading, whatever bytes its names are; `options` are FFmpeg's.

    Raises what PyAV does: av.FFmpegError, ValueError, IndexError, MemoryError.
    """
    container: InputContainer = av.open(path, "r", options=dict(options or {}), **_METADATA)
    return container
