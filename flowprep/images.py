"""Decodes images and catches the complaints of the libraries behind OpenCV.

libjpeg guesses the content of a damaged stream, and OpenCV returns the guess. Only a line on the C
library's stderr reports the damage.
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

# Messages of libjpeg, libpng and, through OpenCV's log, libtiff.
_DAMAGE = re.compile(r"Corrupt JPEG data: |Premature end of JPEG|libpng error|\[ERROR:")
# A damaged color profile loses no pixels. A few bytes of padding, as webcams write, do not either.
_HARMLESS = re.compile(r"Corrupt JPEG data: (bad ICC|1?\d extraneous bytes before marker 0xd9)")

# All threads share one stderr.
_stderr_lock = threading.Lock()


def decode_image(data: bytes, flags: int = cv2.IMREAD_UNCHANGED) -> tuple[Image | None, list[str]]:
    """Returns the image (None if there is none or it is cut) and the lines that decoding printed.

    `flags` are those of cv2.imread. The image is (H, W) or (H, W, C), with the depth that `flags`
    ask for.
    """
    # For data in memory that ends early, decoding fails. libjpeg would complete a file that is cut.
    return _listen(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), flags))


def decode_strictly(jpeg: bytes) -> tuple[Image | None, str]:
    """Returns the image (None if there is none) and libjpeg's first complaint (empty if none)."""
    image, lines = decode_image(jpeg)
    return image, lines[0] if lines else ""


def conceal_image(path: str, flags: int) -> Image | None:
    """Returns the image that cv2.imread makes of a damaged file, or None if it makes none."""
    return _listen(lambda: cv2.imread(path, flags))[0]


def find_damage(lines: list[str]) -> str:
    """Returns the first line that reports lost pixels, or an empty string."""
    return next((one for one in lines if _DAMAGE.match(one) and not _HARMLESS.match(one)), "")


def _listen(read: Callable[[], object]) -> tuple[Image | None, list[str]]:
    """Returns the result of `read`, and the lines that were written to stderr meanwhile."""
    with _stderr_lock:
        try:
            stderr = os.dup(2)
        except OSError:  # In a process without a terminal, stderr may be closed.
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
    """Returns an empty temporary file that stays open as long as the process lives."""
    # A new file for each image would take a third of the time. Each process has its own file,
    # because a forked process shares its parent's position in a file.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
