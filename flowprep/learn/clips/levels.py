"""Turns stored levels into network input in one pass: crop, mirror, dequantize and normalize.

    fill_crop    (L, 2, H, W) uint8 -> one crop, as a network takes it
    mean_px      (L, 2, H, W) uint8 -> the mean vector of each field
    to_px        (L, 2, H, W) uint8 -> the same fields in px

The result equals `dequantize`, `subtract_mean_flow`, `crop_flow` and `normalize_flow` one after the
other, for crops that need no resampling. Each of those functions alone takes longer than this pass.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from flowprep.config import FlowSpec
from flowprep.flow.kernel import kernel
from flowprep.garbage import collector_paused
from flowprep.learn.clip_inputs import ChannelOrder, ClipForm, NormalizationName
from flowprep.learn.clips.transforms import normalize_flow

__all__ = ["fill_crop", "flow_line", "mean_px", "prepare", "to_px"]

_MIDDLE_LEVEL = 128


def fill_crop(
    planes: NDArray[np.uint8],
    place: tuple[int, int],
    spec: FlowSpec,
    out: NDArray[np.float32],
    *,
    form: ClipForm,
    normalization: NormalizationName,
    flip: bool,
    means_px: NDArray[np.float64] | None = None,
    channel_order: ChannelOrder = "interleaved",
) -> None:
    """Fills `out` with the crop whose upper left corner is `place`, (x, y) px.

    The size of `out` is the size of the crop. `planes` is (L, 2, H, W) uint8 levels of `spec`.
    `out` is C-contiguous float32: (2L, h, w) for `stack`, (2, L, h, w) for `volume`, or (2k, L / k,
    h, w) for stacks of k fields along time. In a stack, `interleaved` channels are x1, y1, x2, ...,
    `grouped` ones x1, x2, ..., y1, y2, ... `flip` mirrors the crop and negates u. `means_px`, (L,
    2), is subtracted from the fields; see `mean_px`.
    """
    assert out.flags.c_contiguous
    length = len(planes)
    zero, per_px = flow_line(normalization, spec.bound_px)
    # Mirroring negates u.
    signs = per_px * (-1 if flip else 1, 1)
    scales = np.empty((length, 2), np.float32)
    offsets = np.empty((length, 2), np.float32)
    scales[:] = signs * spec.px_per_level
    # In double precision and relative to the middle level: this loses the least precision.
    middle_px = (_MIDDLE_LEVEL - spec.center_level) * spec.px_per_level
    offsets[:] = zero + signs * (middle_px if means_px is None else middle_px - means_px)
    # Where each plane goes: planes lie by stack, field and component.
    num_stacks = 1 if form == "stack" else out.shape[1]
    if channel_order == "interleaved":
        order = np.arange(2 * length).reshape(-1, 2, num_stacks).transpose(2, 0, 1).ravel()
    else:
        order = np.arange(2 * length).reshape(2, -1, num_stacks).transpose(2, 1, 0).ravel()
    _convert(
        planes.reshape(-1, *planes.shape[2:]),
        *place,
        scales.ravel(),
        offsets.ravel(),
        np.float32(_top_level(spec) - _MIDDLE_LEVEL),
        flip,
        order,
        out.reshape(-1, *out.shape[-2:]),
    )


def to_px(planes: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float32]:
    """Returns levels (L, 2, H, W) as flow in px, float32, as `dequantize` does."""
    length, _, height, width = planes.shape
    flow = np.empty((2 * length, height, width), np.float32)
    fill_crop(planes, (0, 0), spec, flow, form="stack", normalization="px", flip=False)
    return flow.reshape(planes.shape)


def mean_px(planes: NDArray[np.uint8], spec: FlowSpec) -> NDArray[np.float64]:
    """Returns the mean vector of each field in px, (L, 2) float64, from (L, 2, H, W) levels."""
    length, _, height, width = planes.shape
    sums = np.empty(2 * length)
    _sum_levels(planes.reshape(2 * length, height * width), _top_level(spec), sums)
    means = sums.reshape(length, 2) / (height * width)
    return np.asarray((means - spec.center_level) * spec.px_per_level)


def prepare() -> None:
    """Compiles the kernels, or reads them from the disk cache."""
    planes = np.zeros((1, 2, 8, 8), np.uint8)
    with collector_paused():
        mean_px(planes, FlowSpec())
        to_px(planes, FlowSpec())


@functools.cache
def flow_line(
    normalization: NormalizationName, bound_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the values of 0 px, and the increases per px, of x and y: (2,) each."""
    ends = np.array([0, bound_px], np.float32) + np.zeros((2, 1, 1), np.float32)
    values = normalize_flow(ends, normalization, FlowSpec(bound_px=bound_px)).astype(np.float64)
    zero, at_bound = values[:, 0, 0], values[:, 0, 1]
    return zero, (at_bound - zero) / bound_px


def _top_level(spec: FlowSpec) -> float:
    """Returns the level of the bound. For `floor`, it is half a level below the highest level."""
    return min(255.0, spec.center_level + spec.bound_px / spec.px_per_level)


# ---- kernels


@kernel
def _convert(  # type: ignore[no-untyped-def]
    levels, left, upper, scales, offsets, top, flip, order, out
):
    """out[order[p]] = crop of levels[p] * scales[p] + offsets[p]; levels are limited to `top`.

    Levels are relative to the middle level.
    """
    middle = np.float32(_MIDDLE_LEVEL)
    height, width = out.shape[1:]
    # Unsigned: for signed indices, each access would also test for a negative index.
    columns, last = np.uint64(width), np.uint64(width - 1)
    for plane in range(levels.shape[0]):
        scale, offset = scales[plane], offsets[plane]
        for y in range(height):
            source = levels[plane, upper + y, left : left + width]
            target = out[order[plane], y]
            if flip:
                for x in range(columns):
                    level = min(np.float32(source[last - x]) - middle, top)
                    target[x] = level * scale + offset
            else:
                for x in range(columns):
                    level = min(np.float32(source[x]) - middle, top)
                    target[x] = level * scale + offset


@kernel
def _sum_levels(levels, top_level, sums):  # type: ignore[no-untyped-def]
    """Sums each row of (P, N) uint8 levels; a level of 255 counts as `top_level`."""
    for plane in range(levels.shape[0]):
        total = np.int64(0)
        num_highest = np.int64(0)
        begin = 0
        row = levels[plane]
        while begin < row.size:
            # The sum of 65536 levels is below 2^24, so 32-bit lanes are enough.
            part, highest = np.uint32(0), np.uint32(0)
            for i in range(begin, min(begin + 65536, row.size)):
                part += np.uint32(row[i])
                highest += np.uint32(row[i] == 255)
            total += np.int64(part)
            num_highest += np.int64(highest)
            begin += 65536
        sums[plane] = total - num_highest * (255.0 - top_level)
