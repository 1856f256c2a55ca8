"""The two file formats of published flow: Middlebury's .flo and KITTI's 16-bit PNG.

.flo    float32 "PIEH" (202021.25), int32 width, int32 height, then u, v by turns as float32,
        all little-endian; values beyond 1e9 are unknown     vision.middlebury.edu/flow, flowIO.cpp
.png    16-bit RGB: R = 64 u + 32768, G = 64 v + 32768, B = 1 where known, in steps of 1/64 px
                                                     cvlibs.net/datasets/kitti, devkit readme
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowprep.errors import ConfigError, InputError
from flowprep.local_files import partial_file

__all__ = ["FLOW_FILE_SUFFIXES", "read_flow", "write_flow"]

FLOW_FILE_SUFFIXES = (".flo", ".png")
"""Endings of flow files, in lower case."""

_MAGIC = 202021.25
_HEADER = struct.Struct("<fii")
_UNKNOWN_PX = 1e9
_WRITTEN_UNKNOWN_PX = 1.666666752e9
_MAX_SIDE_PX = 99999  # flowIO.cpp's

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KITTI_CENTER = 32768
_KITTI_PER_PX = 64
# 0 is reserved for unknown flow.
_KITTI_RANGE_PX = (1 - _KITTI_CENTER) / _KITTI_PER_PX, (65535 - _KITTI_CENTER) / _KITTI_PER_PX


def read_flow(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Reads a .flo or a KITTI PNG. Returns the flow, and where it is known.

    The flow is (H, W, 2) float32 px, (u right, v down), and 0 where it is unknown. The second array
    is (H, W) bool. Raises InputError for a file that is missing, truncated, or of another format.
    """
    suffix = _suffix(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; check the path and its permissions"
        ) from error
    return _read_flo(path, data) if suffix == ".flo" else _read_kitti(path, data)


def write_flow(
    path: str | os.PathLike[str],
    flow: NDArray[np.floating[Any]],
    known: NDArray[np.bool_] | None = None,
) -> None:
    """Writes a .flo or a KITTI PNG, depending on the ending. The file appears once it is complete.

    `flow` is (H, W, 2) px, (u right, v down). `known` is (H, W) bool; None means that all flow is
    known. Values that are not finite are written as unknown. Raises ConfigError for another shape,
    and for a KITTI PNG with flow beyond -511.98 to 511.98 px, which it cannot hold.
    """
    suffix = _suffix(path)
    if flow.ndim != 3 or flow.shape[2] != 2 or not flow.size:
        raise ConfigError(f"flow must be (H, W, 2) and not empty, got shape {flow.shape}")
    if known is not None and known.shape != flow.shape[:2]:
        raise ConfigError(f"known must be {flow.shape[:2]} as the flow is, got {known.shape}")
    finite = np.isfinite(flow).all(axis=-1)
    known = finite if known is None else finite & known
    if suffix == ".flo":
        height, width = known.shape
        body = np.where(known[..., None], flow, _WRITTEN_UNKNOWN_PX).astype("<f4")
        data = _HEADER.pack(_MAGIC, width, height) + body.tobytes()
    else:
        least, most = _KITTI_RANGE_PX
        inside = flow[known]
        if inside.size and not (least <= inside.min() and inside.max() <= most):
            raise ConfigError(
                f"{path}: a KITTI PNG holds flow from {least:.2f} to {most:.2f} px, got "
                f"{inside.min():.2f} to {inside.max():.2f} px; write a .flo"
            )
        levels = np.zeros((*known.shape, 3), np.uint16)  # B, G, R: known, v, u
        scaled = np.rint(np.where(known[..., None], flow, 0) * _KITTI_PER_PX) + _KITTI_CENTER
        levels[..., 2], levels[..., 1] = scaled[..., 0], scaled[..., 1]
        levels[~known] = 0
        levels[..., 0] = known
        done, png = cv2.imencode(".png", levels)
        assert done
        data = png.tobytes()
    with partial_file(Path(path)) as partial:
        partial.write_bytes(data)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in FLOW_FILE_SUFFIXES:
        raise InputError(f"a flow file must end in {' or '.join(FLOW_FILE_SUFFIXES)}, got {path}")
    return suffix


def _read_flo(
    path: str | os.PathLike[str], data: bytes
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if len(data) < _HEADER.size:
        raise InputError(
            f"{path} is cut: a .flo begins with {_HEADER.size} B, it has {len(data)}; copy it again"
        )
    magic, width, height = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise InputError(
            f"{path} is not a .flo file: it must begin with {_MAGIC:.2f}, got {magic:g}"
        )
    if not (1 <= width <= _MAX_SIDE_PX and 1 <= height <= _MAX_SIDE_PX):
        raise InputError(f"{path}: sides must be from 1 to {_MAX_SIDE_PX} px, got {width}x{height}")
    wanted = _HEADER.size + 8 * width * height
    if len(data) != wanted:
        state = "is cut" if len(data) < wanted else "is too long"
        raise InputError(
            f"{path} {state}: {width}x{height} px take {wanted} B, it has {len(data)}; "
            "copy it again"
        )
    stored = np.frombuffer(data, "<f4", offset=_HEADER.size).reshape(height, width, 2)
    # NaN counts as unknown too.
    known = np.asarray((np.abs(stored) <= _UNKNOWN_PX).all(axis=-1))
    flow = stored.astype(np.float32)
    flow[~known] = 0
    return flow, known


def _read_kitti(
    path: str | os.PathLike[str], data: bytes
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    # For the missing parts of a damaged file, OpenCV returns black without an error.
    levels = None
    if _is_whole_png(data):
        levels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None:
        raise InputError(
            f"{path} is cut off, damaged or not a PNG; copy it again, or name a PNG of flow"
        )
    if levels.dtype != np.uint16 or levels.ndim != 3 or levels.shape[2] != 3:
        channels = levels.shape[2] if levels.ndim == 3 else 1
        raise InputError(
            f"{path} is not KITTI flow: it must be 16-bit RGB, got "
            f"{8 * levels.dtype.itemsize}-bit of {channels} channel{'s' * (channels != 1)}"
        )
    known = np.asarray(levels[..., 0] > 0)
    flow = levels[..., :0:-1].astype(np.float32)
    flow -= _KITTI_CENTER
    flow /= _KITTI_PER_PX
    flow[~known] = 0
    return flow, known


def _is_whole_png(data: bytes) -> bool:
    """Whether every chunk up to the last has its checksum (PNG specification, section 5.3)."""
    if not data.startswith(_PNG_SIGNATURE):
        return False
    begin, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[begin : begin + 4], "big")
        end = begin + 8 + length
        kind = data[begin + 4 : begin + 8]
        if len(data) < end + 4:
            return False
        if zlib.crc32(data[begin + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return False
        begin = end + 4
    return True
