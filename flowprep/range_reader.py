"""A file that is read by ranges, as an object of a store is."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

__all__ = ["range_reader"]

_READ_BYTES = 4 << 20


def range_reader(read_range: Callable[[int, int], bytes], size: int) -> io.BufferedReader:
    """Returns a file of `size` bytes, of which `read_range` returns so many from an offset."""
    return io.BufferedReader(_RangeReader(read_range, size), _READ_BYTES)


class _RangeReader(io.RawIOBase):
    """Each range is asked for again where it does not come whole."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range = read_range
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = max(0, begins[whence] + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._position))
        data = self._read_range(self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        # Python's own asks for 8 kB at a time.
        data = bytearray()
        while piece := self.read(_READ_BYTES):
            data += piece
        return bytes(data)
