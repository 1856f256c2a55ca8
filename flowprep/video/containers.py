"""Opens files with PyAV 17, 18 or 19, which use different names for the same things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
from av.container import InputContainer

__all__ = ["open_container"]

# Names in a broken file are often not UTF-8, but the file must still open. PyAV 19 always keeps
# such bytes as `surrogateescape` does. Earlier versions fail by default.
_METADATA: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


def open_container(path: str, options: Mapping[str, str] | None = None) -> InputContainer:
    """Opens a file for reading, whatever bytes its names contain. `options` go to FFmpeg.

    Raises the errors of PyAV: av.FFmpegError, ValueError, IndexError, MemoryError.
    """
    container: InputContainer = av.open(path, "r", options=dict(options or {}), **_METADATA)
    return container
