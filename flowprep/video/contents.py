"""The checksum of a source, by which a later look knows whether the file is still the same."""

from __future__ import annotations

import hashlib
import os

from flowprep.inputs.video import Video

__all__ = ["source_sha256"]

_READ_BYTES = 1 << 20


def source_sha256(video: Video) -> str | None:
    """Returns the SHA-256 of a video's file, which must be on this machine.

    None of a folder of images; of a range, whose file may be a hundred times as long as what is
    decoded of it; and of a file that cannot be read.
    """
    is_range = video.start_seconds is not None or video.end_seconds is not None
    if is_range or os.path.isdir(video.source):
        return None
    digest = hashlib.sha256()
    try:
        with open(video.source, "rb", buffering=0) as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
