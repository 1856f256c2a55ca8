"""The median filter: the numbers of OpenCV's, and nothing touched beside the plane."""

from __future__ import annotations

from typing import Any

import cv2
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flowprep.flow.median import median_filter_3, median_filter_5, median_scratch_size

FILTERS = {3: median_filter_3, 5: median_filter_5}
# Blocks of a plane by itself, and of one plane among ten.
BLOCK_STRIDES = (16, 160)
WIDTHS = (1, 2, 3, 4, 15, 16, 17, 29, 30, 31, 32, 33, 48, 63, 64, 65, 340)
HEIGHTS = (1, 2, 3, 4, 5, 6, 17)

sizes = st.sampled_from(sorted(FILTERS))
block_strides = st.sampled_from(BLOCK_STRIDES)


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def ties(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    return rng.integers(-3, 4, shape).astype(np.float32)


def binary(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """What a sorting network does to zeros and ones, it does to all numbers (0-1 principle)."""
    return rng.integers(0, 2, shape).astype(np.float32)


def huge(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    largest = np.finfo(np.float32).max
    return rng.choice(np.array([-largest, -1e38, -1, 1, 1e38, largest], np.float32), shape)


def tiny(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Subnormal numbers of both signs, and both zeros."""
    smallest = np.finfo(np.float32).smallest_subnormal
    numbers = np.float32(smallest) * rng.integers(-4, 5, shape).astype(np.float32)
    return np.copysign(numbers, rng.standard_normal(shape)).astype(np.float32)


def constant(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.full(shape, rng.standard_normal(), np.float32)


KINDS = (normal, ties, binary, huge, tiny, constant)


def filtered(
    image: NDArray[np.float32], size: int, block_stride: int, run: Any = None
) -> NDArray[np.float32]:
    """Returns `image` filtered as a plane in blocks; fails where the filter wrote beside it.

    Whatever is not the plane or the scratch holds noise, and the scratch NaN.
    """
    height, width = image.shape
    rng = np.random.default_rng(0)
    num_blocks = -(-width // 16)
    row_stride = num_blocks * block_stride + 32
    start = 16 + 3 * 16 * (block_stride > 16)
    planes = rng.standard_normal(start + height * row_stride + 32).astype(np.float32)
    x = np.arange(num_blocks * 16)
    columns = x // 16 * block_stride + x % 16
    indices = start + np.arange(height)[:, None] * row_stride + columns
    planes[indices] = 0
    planes[indices[:, :width]] = image
    before = planes.copy()
    scratch_size = median_scratch_size(width)
    scratch = rng.standard_normal(scratch_size + 64).astype(np.float32)
    scratch_before = scratch.copy()
    scratch[32:-32] = np.nan

    run = run or FILTERS[size]
    run(planes, start, row_stride, block_stride, width, height, scratch[32:-32])

    result = planes[indices]
    planes[indices] = before[indices]
    np.testing.assert_array_equal(planes, before, "written beside the plane")
    np.testing.assert_array_equal(scratch[:32], scratch_before[:32], "written before the scratch")
    np.testing.assert_array_equal(scratch[-32:], scratch_before[-32:], "written behind the scratch")
    assert not result[:, width:].view(np.int32).any(), "pad lanes are not zero"
    return result[:, :width]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block_stride", BLOCK_STRIDES)
@pytest.mark.parametrize("size", FILTERS)
def test_the_median_is_that_of_opencv_at_every_size_of_plane(
    size: int, block_stride: int, kind: Any
) -> None:
    rng = np.random.default_rng(1)
    for width in WIDTHS:
        for height in HEIGHTS:
            image = kind(rng, (height, width))
            np.testing.assert_array_equal(
                filtered(image, size, block_stride),
                cv2.medianBlur(image, size),
                f"{width} x {height}",
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", FILTERS)
def test_the_median_is_that_of_opencv_for_whole_frames(size: int, kind: Any) -> None:
    for width, height in ((340, 256), (1280, 180), (2100, 33), (33, 2100)):
        image = kind(np.random.default_rng(2), (height, width))
        np.testing.assert_array_equal(filtered(image, size, 160), cv2.medianBlur(image, size))


@settings(deadline=None, max_examples=200)
@given(
    size=sizes,
    block_stride=block_strides,
    image=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 12), st.integers(1, 70)),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
)
def test_the_median_is_that_of_opencv_for_any_finite_numbers(
    size: int, block_stride: int, image: NDArray[np.float32]
) -> None:
    np.testing.assert_array_equal(filtered(image, size, block_stride), cv2.medianBlur(image, size))


@pytest.mark.parametrize("size", FILTERS)
def test_the_median_is_the_middle_of_the_window_with_its_border_replicated(size: int) -> None:
    image = normal(np.random.default_rng(3), (23, 51))
    padded = np.pad(image, size // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    np.testing.assert_array_equal(filtered(image, size, 16), np.median(windows, axis=(2, 3)))


@pytest.mark.parametrize("size", FILTERS)
def test_kernels_can_call_the_filter(size: int) -> None:
    median_filter = FILTERS[size]

    @numba.njit
    def run_twice(planes, start, row_stride, block_stride, width, height, scratch):
        for _ in range(2):
            median_filter(planes, start, row_stride, block_stride, width, height, scratch)

    image = normal(np.random.default_rng(4), (9, 37))
    twice = cv2.medianBlur(cv2.medianBlur(image, size), size)
    np.testing.assert_array_equal(filtered(image, size, 160, run_twice), twice)
