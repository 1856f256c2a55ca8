"""The flow of one video of a tree as arrays: .flo files, .npy, .npz, or HDF5.

open_fields -> Fields.chunks    (n, H, W, 2) float32 px or uint8 levels, a few at a time
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import InputError, VideoError
from flowprep.exchange.layouts import FormatName
from flowprep.extras import extra_needed
from flowprep.flow.files import read_flow

__all__ = ["Fields", "check_readable", "open_fields"]

_CHUNK_FIELDS = 8
_FLO = re.compile(r"(.*?)([0-9]{1,12})\.flo", re.DOTALL | re.IGNORECASE)
_ACCEPTED = "(N, H, W, 2), (N, 2, H, W) or (2, N, H, W)"


@dataclass(frozen=True)
class Fields:
    """The flow of a video."""

    num_flows: int
    size: tuple[int, int]
    """Width and height in px."""
    are_levels: bool
    """Whether the values are uint8 levels, not floats."""
    chunks: Callable[[], Iterator[NDArray[Any]]]
    """Yields (n, H, W, 2): uint8 levels, or float32, NaN where flow is unknown."""


def check_readable(format_name: FormatName) -> None:
    """Raises MissingExtraError if the format needs a package that is not installed."""
    if format_name == "hdf5":
        with extra_needed("an import of hdf5", "export"):
            import h5py  # noqa: F401


@contextmanager
def open_fields(place: str, format_name: FormatName) -> Iterator[Fields]:
    """Yields the flow that a file, or a folder of .flo files, holds.

    Raises VideoError for a file that cannot be read or holds something else.
    """
    if not os.path.exists(place):
        raise VideoError("missing", f"{place} does not exist")
    try:
        with ExitStack() as stack:
            if format_name == "flo":
                yield _flo_fields(place)
            elif format_name == "npy":
                yield _of_array(np.load(place, mmap_mode="r", allow_pickle=False), place)
            elif format_name == "npz":
                yield _npz_fields(place, stack)
            else:
                yield _hdf5_fields(place, stack)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        name = os.path.basename(place)
        raise VideoError("unreadable", f"{name} cannot be read: {error}") from error


# ---- .flo


def _flo_fields(folder: str) -> Fields:
    numbers: dict[int, str] = {}
    for name in sorted(os.listdir(folder)):
        if match := _FLO.fullmatch(name):
            number = int(match[2])
            if number in numbers:
                raise VideoError("incomplete", f"{numbers[number]} and {name} have the same number")
            numbers[number] = name
    ordered = sorted(numbers)
    if not ordered:
        raise VideoError("missing", f"{folder} holds no .flo files")
    for wanted, number in enumerate(ordered, start=ordered[0]):
        if number != wanted:
            before = numbers[wanted - 1]
            raise VideoError("incomplete", f"{numbers[number]} follows {before}: one is missing")
    if ordered[0] > 1:
        raise VideoError("incomplete", f"the first is {numbers[ordered[0]]}, not number 0 or 1")
    first = _read_flo(os.path.join(folder, numbers[ordered[0]]))
    height, width = first.shape[:2]

    def chunks() -> Iterator[NDArray[np.float32]]:
        for number in ordered:
            flow = _read_flo(os.path.join(folder, numbers[number]))
            if flow.shape != first.shape:
                raise VideoError(
                    "size-change",
                    f"{numbers[number]} is {flow.shape[1]}x{flow.shape[0]}, others are "
                    f"{width}x{height}",
                )
            yield flow[None]

    return Fields(len(ordered), (width, height), False, chunks)


def _read_flo(path: str) -> NDArray[np.float32]:
    try:
        flow, known = read_flow(path)
    except InputError as error:
        raise VideoError("unreadable", str(error)) from error
    flow[~known] = np.nan
    return flow


# ---- arrays


def _of_array(array: Any, place: str) -> Fields:
    """Returns the fields of an array, or of anything that has a shape and gives slices."""
    return _fields(tuple(array.shape), array.dtype, place, lambda part: np.asarray(array[part]))


def _fields(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    place: str,
    take: Callable[[Any], NDArray[Any]],
) -> Fields:
    """`take` returns a slice; it is called in the order of the fields."""
    name = os.path.basename(place)
    lead: tuple[Any, ...] = ()
    inner = shape
    if len(inner) == 5 and inner[0] == 1:  # kinetics-i3d's arrays have a place for the batch.
        lead, inner = (0,), inner[1:]
    is_single = len(inner) == 3 and inner[2] == 2
    if is_single:
        inner = (1, *inner)
    axis = next((axis for axis in (3, 1, 0) if len(inner) == 4 and inner[axis] == 2), None)
    if axis is None or 0 in inner:
        raise VideoError(
            "unreadable", f"{name} has the shape {shape}; flow of a video is {_ACCEPTED}"
        )
    if dtype != np.uint8 and dtype.kind != "f":
        raise VideoError("unreadable", f"{name} holds {dtype}; flow is floats, or levels of uint8")
    num_flows = inner[1 if axis == 0 else 0]
    height, width = {3: inner[1:3], 1: inner[2:4], 0: inner[2:4]}[axis]

    def chunks() -> Iterator[NDArray[Any]]:
        for start in range(0, num_flows, _CHUNK_FIELDS):
            part = slice(start, start + _CHUNK_FIELDS)
            if is_single:
                chunk = take(())[None]
            elif axis == 0:
                chunk = take((*lead, slice(None), part))
            else:
                chunk = take((*lead, part))
            if axis != 3:
                chunk = np.moveaxis(chunk, axis, 3)
            kept = np.uint8 if chunk.dtype == np.uint8 else np.float32
            with np.errstate(over="ignore"):  # float64 beyond float32 is infinite: invalid.
                yield np.ascontiguousarray(chunk, kept)

    return Fields(num_flows, (width, height), dtype == np.uint8, chunks)


def _npz_fields(place: str, stack: ExitStack) -> Fields:
    archive = stack.enter_context(zipfile.ZipFile(place))
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    name = _only(names, "flow.npy", place)
    with archive.open(name) as file:
        shape, is_fortran, dtype = _npy_header(file)
    if is_fortran or dtype.hasobject or len(shape) != 4 or shape[0] == 2:
        # Not in the order of the fields.
        loaded = stack.enter_context(np.load(place, allow_pickle=False))
        return _of_array(loaded[name.removesuffix(".npy")], place)

    def in_order() -> Callable[[Any], NDArray[Any]]:
        file: IO[bytes] | None = None

        def take(part: Any) -> NDArray[Any]:
            nonlocal file
            start, stop = part[0].start, min(part[0].stop, shape[0])
            if start == 0:
                file = stack.enter_context(archive.open(name))
                _npy_header(file)
            assert file is not None
            wanted = (stop - start) * int(np.prod(shape[1:])) * dtype.itemsize
            data = file.read(wanted)
            if len(data) < wanted:
                raise EOFError("it ends too early")
            return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

        return take

    return _fields(shape, dtype, place, in_order())


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"its .npy has version {version}")
    shape, is_fortran, dtype = read(file)
    return tuple(shape), bool(is_fortran), np.dtype(dtype)


def _hdf5_fields(place: str, stack: ExitStack) -> Fields:
    import h5py

    try:
        file = stack.enter_context(h5py.File(place, "r"))
    except OSError as error:
        name = os.path.basename(place)
        raise VideoError("unreadable", f"{name} is not HDF5, or damaged: {error}") from error
    names = [name for name, value in file.items() if isinstance(value, h5py.Dataset)]
    return _of_array(file[_only(names, "flow", place)], place)


def _only(names: list[str], usual: str, place: str) -> str:
    if usual in names:
        return usual
    if len(names) == 1:
        return names[0]
    raise VideoError(
        "unreadable",
        f"{os.path.basename(place)} must hold one array, or one with the name "
        f"{usual.removesuffix('.npy')}; it holds {', '.join(names[:5]) or 'none'}",
    )
