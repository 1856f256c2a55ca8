"""Reads Caffe's .caffemodel files, without Caffe: one NetParameter in protobuf's wire format.

    NetParameter      layers 2 (V1LayerParameter, until 2014), layer 100 (LayerParameter)
    LayerParameter    name 1, type 2, blobs 7
    V1LayerParameter  name 4, type 5 (a number), blobs 6; layer 1 is of a still older format
    BlobProto         num, channels, height, width 1 to 4, data 5, shape 7, double_data 8
    BlobShape         dim 1

    facebookarchive/C3D, v1.0: LayerParameter as V1LayerParameter, and a BlobProto of its own:
    num, channels, length, height, width 1 to 5, data 6, diff 7

A .binaryproto is one BlobProto, such as the mean of all frames.

Everything else, such as gradients and what a layer computes, is skipped. The file has no checksums.
Each value is copied once, from the mapped file; so no file takes more memory than its own size.

Sources, in BVLC/caffe: src/caffe/proto/caffe.proto, Blob::FromProto in src/caffe/blob.cpp; in
facebookarchive/C3D: C3D-v1.0/src/caffe/proto/caffe.proto.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.weights.protobuf import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    fields,
    read_field,
    read_varint,
    signed,
)
from flowprep.learn.weights.reading import FormatError, UnsupportedError, map_file, show

__all__ = ["CAFFE_SUFFIXES", "CaffeLayer", "blob_name", "read_binaryproto", "read_caffemodel"]

CAFFE_SUFFIXES = (".caffemodel", ".v5")
"""The second is of yjxiong's files, x.caffemodel.v5: written when Caffe used cuDNN 5."""

MAX_BLOBS = 1 << 16
"""More blobs, and more layers, than any network has: few bytes must not become many objects."""

_MAX_DIMS = 32
"""As Caffe's kMaxBlobAxes (include/caffe/blob.hpp)."""

_ONE_FLOAT, _ONE_DOUBLE = 5 << 3 | FIXED32, 8 << 3 | FIXED64
"""The tags before single values of data and double_data, each of one byte."""

_MAX_PIECES = 1 << 12
"""The values of a blob come in one piece, or in one a value without anything between."""

_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
"""Types of V1LayerParameter that have blobs -> their later names (upgrade_proto.cpp)."""


@dataclass(frozen=True)
class CaffeLayer:
    """A layer that has values."""

    name: str
    type: str
    """Caffe's name, such as `Convolution`. Of an old file, for a rare type, its number."""
    blobs: tuple[NDArray[Any], ...]
    """float32, or float64 from double_data. Old files have four dimensions: (1, 1, 1, C) for a
    bias, (1, 1, out, in) for a matrix."""


def blob_name(layer: str, index: int) -> str:
    """Returns the name of a blob, which Caffe only numbers: `conv1[0]`."""
    return f"{layer}[{index}]"


def read_caffemodel(path: str | os.PathLike[str]) -> tuple[CaffeLayer, ...]:
    """Reads all layers that have blobs, in the file's order.

    Raises WeightsError if the file is missing, damaged, or of a format that is not read, with the
    layer, the blob and what is wrong.
    """
    path = Path(path)
    try:
        layers = tuple(_read_net(map_file(path)))
    except FormatError as error:
        raise WeightsError(
            f"{path} is damaged or not Caffe's: {error}; copy or download it again"
        ) from error
    except UnsupportedError as error:
        raise WeightsError(f"{path} is not read: {error}; convert it with Caffe itself") from error
    if not layers:
        raise WeightsError(
            f"{path} must have layers with values, got none; name the .caffemodel that training "
            "wrote, not the description of the network (.prototxt) or the state of the solver"
        )
    return layers


def read_binaryproto(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Reads a file of one blob, such as a mean image: float32, in the blob's shape.

    Raises WeightsError if the file is missing, damaged, or of a format that is not read.
    """
    path = Path(path)
    try:
        return _read_blob(map_file(path))
    except FormatError as error:
        raise WeightsError(
            f"{path} is damaged or no blob of Caffe's: {error}; copy or download it again"
        ) from error
    except UnsupportedError as error:
        raise WeightsError(f"{path} is not read: {error}; convert it with Caffe itself") from error


def _read_net(data: memoryview) -> Iterator[CaffeLayer]:
    left = MAX_BLOBS
    names = set()
    for index, (number, message) in enumerate(fields(data, {2: BYTES, 100: BYTES})):
        if index == MAX_BLOBS:
            raise FormatError(f"it must have {MAX_BLOBS} layers at most")
        try:
            layer = _read_layer(message, is_v1=number == 2, left=left)
        except (FormatError, UnsupportedError) as error:
            raise type(error)(f"layer {index}: {error}") from error
        if not layer.blobs:
            continue
        if layer.name in names:
            raise FormatError(f"two layers with values have the name {show(layer.name.encode())}")
        names.add(layer.name)
        left -= len(layer.blobs)
        yield layer


def _read_layer(data: memoryview, *, is_v1: bool, left: int) -> CaffeLayer:
    if is_v1:
        wanted = {1: BYTES, 4: BYTES, 5: VARINT, 6: BYTES}
        name_field, type_field, blobs_field = 4, 5, 6
    else:
        wanted = {1: BYTES, 2: BYTES, 7: BYTES}
        name_field, type_field, blobs_field = 1, 2, 7
    name, kind = "", ""
    messages: list[memoryview] = []
    for number, value in fields(data, wanted):
        if number == blobs_field:
            messages.append(value)
            if len(messages) > left:
                raise FormatError(f"it must have {MAX_BLOBS} blobs at most")
        elif number == name_field:
            name = _text(value)
        elif number == type_field:
            kind = _V1_TYPES.get(value, str(value)) if is_v1 else _text(value)
        else:  # the field `layer` of V1LayerParameter
            raise UnsupportedError(
                "it has layers of Caffe's oldest format (V0LayerParameter), which "
                "upgrade_net_proto_binary renews"
            )
    blobs = []
    for index, message in enumerate(messages):
        try:
            blobs.append(_read_blob(message))
        except (FormatError, UnsupportedError) as error:
            place = f"blob {index} of {show(name.encode())}"
            raise type(error)(f"{place}: {error}") from error
    return CaffeLayer(name, kind, tuple(blobs))


def _read_blob(data: memoryview) -> NDArray[Any]:
    sides: dict[int, int] = {}
    shapes: list[memoryview] = []
    sixth: list[memoryview] = []
    floats: list[NDArray[Any]] = []
    doubles: list[NDArray[Any]] = []
    position = 0
    while position < len(data):
        if data[position] in (_ONE_FLOAT, _ONE_DOUBLE):
            is_float = data[position] == _ONE_FLOAT
            values, position = _read_run(data, position, "<f4" if is_float else "<f8")
            _add(floats if is_float else doubles, values)
            continue
        number, wire_type, value, position = read_field(data, position)
        if number in (1, 2, 3, 4, 5) and wire_type == VARINT:
            sides[number] = signed(value)
        elif number == 5 and wire_type == BYTES:
            _add(floats, _packed(value, "<f4"))
        elif number == 6 and wire_type == BYTES:
            sixth.append(value)
        elif number == 7 and wire_type == BYTES:
            shapes.append(value)
        elif number == 8 and wire_type == BYTES:
            _add(doubles, _packed(value, "<f8"))
        elif number in (1, 2, 3, 4, 5, 7, 8):
            raise FormatError(f"field {number} has wire type {wire_type}, which it never has")
        elif number in (10, 12):  # raw_data_type and raw_data of NVIDIA's Caffe
            raise UnsupportedError(
                "its values are raw data, as NVIDIA's Caffe writes and BVLC's does not"
            )
    if 5 in sides:
        # C3D's, where the fifth field is the width, the sixth the values, the seventh gradients.
        if len(sides) < 5 or floats:
            raise FormatError(
                "field 5 has wire type 0, which it has only beside four other sizes and no data"
            )
        parts: list[NDArray[Any]] = []
        for value in sixth:
            _add(parts, _packed(value, "<f4"))
        return _join(parts, tuple(sides.get(number, 0) for number in range(1, 6)))
    shape: list[int] = []
    for value in shapes:
        shape += _read_shape(value)
        if len(shape) > _MAX_DIMS:
            raise FormatError(f"its shape must have {_MAX_DIMS} dimensions at most")
    four = tuple(sides.get(number, 0) for number in range(1, 5))
    return _join(doubles or floats, four if sides else tuple(shape))


def _add(parts: list[NDArray[Any]], values: NDArray[Any]) -> None:
    if values.size:
        parts.append(values)
    if len(parts) > _MAX_PIECES:
        raise FormatError(f"its values must come in {_MAX_PIECES} pieces at most")


def _join(parts: list[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns a copy of the values in this shape. Raises FormatError if their number differs."""
    if min(shape, default=0) < 0:
        raise FormatError(f"its sizes must be >= 0, got {_told(shape)}")
    size = sum(part.size for part in parts)
    if size != math.prod(shape):
        raise FormatError(
            f"a blob of shape {_told(shape)} must have {math.prod(shape)} values, got {size}"
        )
    if not parts:
        return np.zeros(shape, np.float32)
    values: NDArray[Any] = np.concatenate(parts)
    return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape)


def _told(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _read_shape(data: memoryview) -> list[int]:
    dims: list[int] = []
    for _, value in fields(data, {1: None}):
        if isinstance(value, int):
            dims.append(signed(value))
            continue
        position = 0
        while position < len(value) and len(dims) <= _MAX_DIMS:
            dim, position = read_varint(value, position)
            dims.append(signed(dim))
    return dims[: _MAX_DIMS + 1]


def _packed(data: memoryview, kind: str) -> NDArray[Any]:
    if len(data) % np.dtype(kind).itemsize:
        raise FormatError(f"{len(data)} bytes are no whole number of values")
    return np.frombuffer(data, kind)


def _read_run(data: memoryview, position: int, kind: str) -> tuple[NDArray[Any], int]:
    """Returns the values of one field that follow, each after its tag, and the position after them.

    Looks ahead in steps that double, so that many short runs take no longer than one long run.
    """
    record = np.dtype([("tag", "u1"), ("value", kind)])
    tag = data[position]
    num_left = (len(data) - position) // record.itemsize
    if num_left == 0:
        raise FormatError("its last value goes beyond its end")
    count, step = 1, 16
    while count < num_left:
        step = min(2 * step, num_left - count)
        tags = np.frombuffer(data, record, step, position + count * record.itemsize)["tag"]
        others = np.flatnonzero(tags != tag)
        if others.size:
            count += int(others[0])
            break
        count += step
    values: NDArray[Any] = np.frombuffer(data, record, count, position)["value"]
    return values, position + count * record.itemsize


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"the name {show(value)} is not UTF-8") from error
