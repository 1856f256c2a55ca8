"""The bicubic warp of a frame and its gradient: the numbers of cv2.remap, wherever one looks."""

from __future__ import annotations

import cv2
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.flow.simd import load, store
from flowprep.flow.warp import WEIGHTS_SIZE, pack_frame, packed_shape, place_taps, read_taps

Plane = NDArray[np.float32]

needs_opencv_5 = pytest.mark.skipif(
    int(cv2.__version__.split(".")[0]) < 5,
    reason="before OpenCV 5, cv2.remap rounds positions to 1/32 px",
)


@numba.njit
def read_positions(packed, row_stride, width, height, x, y, weights, starts, results):
    """Reads the frame at positions of whole blocks; `results` are three planes, flat."""
    for block in range(x.size // 16):
        i = block * 16
        place_taps(row_stride, width, height, load(x, i), load(y, i), weights, starts, block)
    for block in range(x.size // 16):
        image, gradient_x, gradient_y = read_taps(packed, row_stride, weights, starts, block)
        store(results, block * 16, image)
        store(results, x.size + block * 16, gradient_x)
        store(results, 2 * x.size + block * 16, gradient_y)


def pack(image: Plane) -> Plane:
    height, width = image.shape
    packed = np.zeros(packed_shape(width, height), np.float32)
    pack_frame(image, packed)
    return packed


def read(image: Plane, x: Plane, y: Plane) -> Plane:
    """Returns brightness, d/dx and d/dy at the positions (x, y), (3, N)."""
    packed = pack(image)
    height, width = image.shape
    before = packed.copy()
    num_blocks = -(-x.size // 16)
    padded = np.zeros((2, num_blocks * 16), np.float32)
    padded[0, : x.size], padded[1, : x.size] = x.ravel(), y.ravel()
    weights = np.full(num_blocks * WEIGHTS_SIZE, np.nan, np.float32)
    starts = np.zeros(num_blocks * 16, np.int32)
    results = np.full((3, num_blocks * 16), np.nan, np.float32)
    read_positions(
        packed.ravel(),
        packed.shape[1] * 4,
        width,
        height,
        padded[0],
        padded[1],
        weights,
        starts,
        results.ravel(),
    )
    np.testing.assert_array_equal(packed, before)
    # All four taps of each position lie in the frame and its margin.
    assert starts.min() >= 0
    assert starts.max() + 3 * packed.shape[1] * 4 + 16 <= packed.size
    return results[:, : x.size]


def gradient_of(image: Plane) -> tuple[Plane, Plane]:
    padded = np.pad(image, 1, mode="edge")
    half = np.float32(0.5)
    return (
        half * (padded[1:-1, 2:] - padded[1:-1, :-2]),
        half * (padded[2:, 1:-1] - padded[:-2, 1:-1]),
    )


@pytest.mark.parametrize("height", [1, 2, 5])
def test_a_packed_frame_is_brightness_and_gradient_inside_a_margin(height: int) -> None:
    rng = np.random.default_rng(height)
    # Rows shorter than a vector, of one vector exactly, and with one that overlaps.
    for width in range(1, 53):
        image = rng.uniform(0, 255, (height, width)).astype(np.float32)
        planes = [image, *gradient_of(image), np.zeros_like(image)]
        expected = np.pad(np.stack(planes, axis=-1), ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(pack(image), expected)


def expected_of(image: Plane, x: Plane, y: Plane) -> Plane:
    return np.stack(
        [
            np.asarray(cv2.remap(plane, x, y, cv2.INTER_CUBIC), np.float32).ravel()
            for plane in (image, *gradient_of(image))
        ]
    )


def random_image(width: int, height: int, seed: int = 0) -> Plane:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(0, 256, (height, width)), np.float32)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (33, 20), (40, 17), (1, 1), (2, 3)])
def test_a_packed_frame_holds_brightness_gradient_and_a_margin_of_zeros(
    width: int, height: int
) -> None:
    image = random_image(width, height)
    packed = pack(image)
    inside = packed[4:-4, 4:-4]
    assert inside.shape == (height, width, 4)
    gradient_x, gradient_y = gradient_of(image)
    np.testing.assert_array_equal(inside[..., 0], image)
    np.testing.assert_array_equal(inside[..., 1], gradient_x)
    np.testing.assert_array_equal(inside[..., 2], gradient_y)
    assert not inside[..., 3].any()
    inside[...] = 0
    assert not packed.any()


@needs_opencv_5
@settings(deadline=None, max_examples=100)
@given(
    width=st.integers(16, 40),
    height=st.integers(16, 40),
    reach_px=st.sampled_from([0.0, 0.9, 5.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_positions_are_read_as_cv2_remap_reads_them(
    width: int, height: int, reach_px: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = random_image(width, height, seed)
    shape = (1, int(rng.integers(1, 200)))
    x = rng.uniform(-reach_px, width - 1 + reach_px, shape).astype(np.float32)
    y = rng.uniform(-reach_px, height - 1 + reach_px, shape).astype(np.float32)
    np.testing.assert_allclose(read(image, x, y), expected_of(image, x, y), rtol=0, atol=1e-3)


@needs_opencv_5
def test_the_border_is_read_as_cv2_remap_reads_it() -> None:
    """Every sixteenth of a px from where all is 0 to the image's inside, on all sides."""
    width, height = 19, 16
    image = random_image(width, height)
    x, y = np.meshgrid(
        np.arange(-4, width + 4, 1 / 16, np.float32), np.arange(-4, height + 4, 1 / 16, np.float32)
    )
    found = read(image, x, y)
    np.testing.assert_allclose(found, expected_of(image, x, y), rtol=0, atol=1e-3)
    outside = ((x <= -2) | (x >= width + 1) | (y <= -2) | (y >= height + 1)).ravel()
    np.testing.assert_array_equal(found[:, outside], 0)
    # Just inside of that the image shines through.
    assert np.abs(found[0, ~outside]).max() > 200


@pytest.mark.parametrize(("width", "height"), [(16, 16), (40, 17), (17, 40)])
def test_on_a_pixel_its_own_numbers_are_read_exactly(width: int, height: int) -> None:
    image = random_image(width, height)
    y, x = np.indices(image.shape, np.float32)
    expected = np.stack([plane.ravel() for plane in (image, *gradient_of(image))])
    np.testing.assert_array_equal(read(image, x, y), expected)


@pytest.mark.parametrize("far", [3.0, 100.0, 1e6, 3e9, 1e30, np.inf])
def test_far_outside_all_is_zero(far: float) -> None:
    width, height = 40, 17
    image = random_image(width, height)
    inside = np.float32(8.3)
    for x, y in (
        (-far, inside),
        (width - 1 + far, inside),
        (inside, -far),
        (inside, height - 1 + far),
        (-far, -far),
        (width - 1 + far, height - 1 + far),
    ):
        position = np.full(16, x, np.float32), np.full(16, y, np.float32)
        np.testing.assert_array_equal(read(image, *position), 0)


def test_a_slope_is_read_between_its_pixels() -> None:
    """This needs no OpenCV: the weights' sum is 1, and a ramp is read to a twentieth of a pixel."""
    width, height = 40, 30
    y, x = np.indices((height, width), np.float32)
    ramp = np.asarray(3 * x - 2 * y, np.float32)
    rng = np.random.default_rng(0)
    at_x = rng.uniform(2, width - 4, 100).astype(np.float32)
    at_y = rng.uniform(2, height - 4, 100).astype(np.float32)
    image, gradient_x, gradient_y = read(ramp, at_x, at_y)
    np.testing.assert_allclose(image, 3 * at_x - 2 * at_y, rtol=0, atol=0.05 * (3 + 2))
    np.testing.assert_allclose(gradient_x, 3, rtol=0, atol=1e-5)
    np.testing.assert_allclose(gradient_y, -2, rtol=0, atol=1e-5)
