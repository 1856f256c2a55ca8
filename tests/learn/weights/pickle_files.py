"""A writer of pickles as Python 2 made them of arrays, for tests alone."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def python2_pickle(
    blobs: Mapping[str, NDArray[Any]], protocol: int = 2, key: str | None = "blobs"
) -> bytes:
    """Returns what Python 2's pickle makes of {key: blobs}, or of blobs if `key` is None."""
    out = b"\x80\x02" if protocol == 2 else b""
    table = _empty_dict(protocol) + b"".join(
        _text(name.encode(), protocol) + _array(value, protocol) + b"s"
        for name, value in blobs.items()
    )
    if key is not None:
        table = _empty_dict(protocol) + _text(key.encode(), protocol) + table + b"s"
    return out + table + b"."


def _empty_dict(protocol: int) -> bytes:
    return b"}" if protocol == 2 else b"(d"


def _text(value: bytes, protocol: int) -> bytes:
    if protocol == 2:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + struct.pack("<i", len(value)) + value
    return b"S" + repr(value)[1:].encode() + b"\n"


def _number(value: int, protocol: int) -> bytes:
    return b"J" + struct.pack("<i", value) if protocol == 2 else f"I{value}\n".encode()


def _array(value: NDArray[Any], protocol: int) -> bytes:
    value = np.asarray(value, order="C")
    sizes = b"".join(_number(size, protocol) for size in value.shape)
    kind = value.dtype.str
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
        + _number(0, protocol)
        + b"t"
        + _text(b"b", protocol)
        + b"tR("
        + _number(1, protocol)
        + (b"(" + sizes + b"t")
        + b"cnumpy\ndtype\n("
        + _text(kind[1:].encode(), protocol)
        + _number(0, protocol)
        + _number(1, protocol)
        + b"tR("
        + _number(3, protocol)
        + _text(kind[:1].encode(), protocol)
        + b"NNN"
        + _number(-1, protocol) * 2
        + _number(0, protocol)
        + b"tb"
        + (b"\x89" if protocol == 2 else b"I00\n")
        + _text(value.tobytes(), protocol)
        + b"tb"
    )
