"""Decodes images and hears what the libraries behind OpenCV say against them.

libjpeg guesses what a damaged stream should have said, OpenCV returns the guess, and only a line on
the C library's stderr tells of it.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
import threading
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["conceal_image", "decode_image", "decode_strictly", "find_damage"]

Image = NDArray[np.uint8]

# Of libjpeg, libpng and, through OpenCV's log, libtiff.
_DAMAGE = re.compile(r"Corrupt JPEG data: |Premature end of JPEG|libpng error|\[ERROR:")
# No pixel is lost by a damaged color profile, nor by a few bytes of padding, as webcams have it.
_HARMLESS = re.compile(r"Corrupt JPEG data: (bad ICC|1?\d extraneous bytes before marker 0xd9)")

# stderr is one for all threads.
_stderr_lock = threading.Lock()


def decode_image(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> tuple[Image | None, list[str]]:
    """Returns the image, None if there is none or it is cut, and what was said meanwhile.

    `flags` are those of cv2.imread. The image is (H, W) or (H, W, C), of the depth that they ask
    for.
    """
    # Unlike a file, which libjpeg ends itself if it is cut, memory that ends early is an error.
    return _listen(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), flags))


def decode_strictly(jpeg: bytes) -> tuple[Image | None, str]:
    """Returns the image, None if there is none, and what libjpeg says against it."""
    image, lines = decode_image(jpeg)
    return image, lines[0] if lines else ""


def conceal_image(path: str, flags: int) -> Image | None:
    """Returns what OpenCV makes of a damaged file, as cv2.imread does; None for nothing."""
    return _listen(lambda: cv2.imread(path, flags))[0]


def find_damage(lines: list[str]) -> str:
    """Returns the first line that tells of lost pixels, or nothing."""
    return next((one for one in lines if _DAMAGE.match(one) and not _HARMLESS.match(one)), "")


def _listen(read: Callable[[], object]) -> tuple[Image | None, list[str]]:
    """Returns what `read` returns, and what was written to stderr meanwhile."""
    with _stderr_lock:
        try:
            stderr = os.dup(2)
        except OSError:  # of a process without a terminal it may be closed
            return read(), []  # type: ignore[return-value]
        said = _file_of_process(os.getpid())
        os.dup2(said, 2)
        try:
            image = read()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        size = os.fstat(said).st_size
        lines = os.pread(said, size, 0).decode(errors="replace").splitlines() if size else []
        if size:
            os.lseek(said, 0, os.SEEK_SET)
            os.ftruncate(said, 0)
        return image, lines  # type: ignore[return-value]


@functools.lru_cache(maxsize=1)
def _file_of_process(process: int) -> int:
    """Returns an empty temporary file, open as long as the process lives."""
    # A new one for each image would take a third of the time, and a forked process shares its
    # parent's place in a file.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
