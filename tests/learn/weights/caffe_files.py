"""A writer of Caffe's .caffemodel, for tests alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.learn.weights.wire import bytes_field, number_field, varint

Blobs = Sequence[NDArray[Any]]
Style = Literal["packed", "single", "double", "v1"]
"""How values are written: in one piece, each with its tag, as doubles, or as before 2015."""

V1_TYPES = {"Convolution": 4, "InnerProduct": 14}


def blob(values: NDArray[Any], style: Style = "packed") -> bytes:
    if style == "v1":
        sides = (1,) * (4 - values.ndim) + values.shape
        before = b"".join(number_field(1 + place, side) for place, side in enumerate(sides))
        return before + bytes_field(5, values.astype("<f4").tobytes())
    shape = bytes_field(7, bytes_field(1, b"".join(map(varint, values.shape))))
    if style == "double":
        return bytes_field(8, values.astype("<f8").tobytes()) + shape
    if style == "single":
        tag = varint(5 << 3 | 5)
        return b"".join(tag + struct.pack("<f", value) for value in values.flat) + shape
    return bytes_field(5, values.astype("<f4").tobytes()) + shape


def c3d_blob(values: NDArray[Any]) -> bytes:
    """Returns a blob of facebookarchive/C3D's Caffe (v1.0), with gradients, which nobody reads."""
    sides = (1,) * (5 - values.ndim) + values.shape
    before = b"".join(number_field(1 + place, side) for place, side in enumerate(sides))
    data = values.astype("<f4").tobytes()
    return before + bytes_field(6, data) + bytes_field(7, data[::-1])


def c3d_caffemodel(layers: Mapping[str, Blobs]) -> bytes:
    """Returns a file of C3D's Caffe: name -> values."""
    return bytes_field(1, b"net") + b"".join(
        layer(name, "", map(c3d_blob, blobs), is_v1=True) for name, blobs in layers.items()
    )


def layer(name: str, kind: str, blobs: Iterable[bytes], *, is_v1: bool = False) -> bytes:
    """Returns the field of one layer. `blobs` are messages."""
    if is_v1:
        parts = bytes_field(4, name.encode()) + number_field(5, V1_TYPES.get(kind, 18))
        return bytes_field(2, parts + b"".join(bytes_field(6, one) for one in blobs))
    parts = bytes_field(1, name.encode()) + bytes_field(2, kind.encode())
    return bytes_field(100, parts + b"".join(bytes_field(7, one) for one in blobs))


def caffemodel(layers: Mapping[tuple[str, str], Blobs], style: Style = "packed") -> bytes:
    """Returns a file of these layers: name and type -> values."""
    return bytes_field(1, b"net") + b"".join(
        layer(name, kind, (blob(one, style) for one in blobs), is_v1=style == "v1")
        for (name, kind), blobs in layers.items()
    )


def drawn(*shape: int, seed: int = 0) -> NDArray[Any]:
    """Returns values that float32 has exactly."""
    return np.random.default_rng(seed).integers(-99, 99, shape).astype(np.float32) / 8
