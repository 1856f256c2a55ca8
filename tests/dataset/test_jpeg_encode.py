"""The encoder writes OpenCV's bytes (libjpeg-turbo's), whatever the image is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep import DecodeSpec, EncodeSpec, FlowSpec
from flowprep.config import Resize
from flowprep.dataset.jpeg.blocks import ZIGZAG
from flowprep.dataset.jpeg.encode import JpegEncoder
from flowprep.dataset.write import JpegStream
from flowprep.flow.estimators import create_estimator
from flowprep.inputs.video import Video
from flowprep.run.flow_streams import FlowStreams
from flowprep.video.decode import open_video
from tests.dataset.test_jpeg import encode, flow_like

Image = NDArray[np.uint8]


def by_opencv(image: Image, quality: int) -> bytes:
    return encode(image if image.ndim == 2 else image[..., ::-1].copy(), quality)


def color_like(seed: int, width: int = 84, height: int = 60) -> Image:
    """Blobs of color."""
    return np.dstack([flow_like(3 * seed + plane, width, height) for plane in range(3)])


def assert_same(image: Image, quality: int) -> None:
    found = JpegEncoder(image.shape, quality).encode(image).tobytes()
    assert found == by_opencv(image, quality), f"{image.shape} at quality {quality}"


@pytest.mark.parametrize("shape", [(60, 84), (60, 84, 3)])
@pytest.mark.parametrize("quality", [0, 1, 30, 75, 90, 95, 97, 100])
def test_bytes_are_those_of_opencv(quality: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(quality)
    encoder = JpegEncoder(shape, quality)
    like = flow_like if len(shape) == 2 else color_like
    images = [like(seed) for seed in range(6)]
    images += [rng.integers(0, 256, shape, np.uint8) for _ in range(2)]
    images += [np.full(shape, level, np.uint8) for level in (0, 1, 128, 255)]
    images.append((rng.integers(0, 2, shape) * 255).astype(np.uint8))
    # Checkers of whole pixels and of whole blocks have the largest numbers there are.
    cells = np.indices(shape)
    for size in (1, 8, 16):
        checkers = cells[0] // size + cells[1] // size + (cells[2] if len(shape) == 3 else 0)
        images.append((checkers % 2 * 255).astype(np.uint8))
    # One encoder for all of them: nothing is left of the image before.
    for image in images:
        assert encoder.encode(image).tobytes() == by_opencv(image, quality)


@pytest.mark.parametrize("like", [flow_like, color_like])
@pytest.mark.parametrize(
    ("width", "height"),
    [
        *((1, 1), (7, 9), (8, 8), (9, 8), (16, 17), (17, 24), (127, 3), (128, 8), (129, 40)),
        *((25, 25), (256, 32), (257, 33), (340, 256), (3, 2000)),
    ],
)
def test_every_size_is_encoded(width: int, height: int, like: Callable[..., Image]) -> None:
    assert_same(like(3, width + 8, height + 8)[:height, :width], 95)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_image_is_encoded(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 180)), data.draw(st.integers(1, 140))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    like = data.draw(st.sampled_from([flow_like, color_like]))
    image = like(int(rng.integers(100)), width, height).astype(np.int64)
    amplitude = data.draw(st.sampled_from([0, 1, 5, 60, 255]))
    image += rng.integers(-amplitude, amplitude + 1, image.shape)
    assert_same(np.clip(image, 0, 255).astype(np.uint8), data.draw(st.integers(0, 100)))


def test_rows_that_are_apart_in_memory_are_encoded() -> None:
    for image in (flow_like(1, 200, 120)[10:90:2, 5:100], color_like(1)[::-1, 5:, ::-1]):
        assert not image.flags.c_contiguous
        assert_same(image, 95)


def test_codes_are_limited_to_16_bits() -> None:
    # Each symbol is rarer than the next by more than the golden ratio, and so has one bit more.
    counts = [int(np.ceil(1.7**i)) for i in range(20)]
    side = int(np.ceil(sum(counts) ** 0.5))
    # Symbol i is a single coefficient: at place i + 1 after a run of zeros, or a larger one.
    kinds = np.repeat(np.arange(20), counts)
    kinds = np.concatenate([kinds, np.full(side * side - kinds.size, 19)])
    small = by_opencv(flow_like(0), 50)
    quantizers = small[small.index(b"\xff\xdb") + 5 :][:64]
    basis = np.zeros((20, 8, 8), np.float32)
    for i in range(20):
        k, times = (i + 1, 1) if i < 15 else (i - 14, 2.5)
        basis[i].reshape(-1)[ZIGZAG[k]] = times * quantizers[k]
        basis[i] = cv2.idct(basis[i])
    image = basis[kinds].reshape(side, side, 8, 8).transpose(0, 2, 1, 3)
    levels = np.rint(128 + image.reshape(8 * side, 8 * side)).astype(np.uint8)
    jpeg = JpegEncoder(levels.shape, 50).encode(levels).tobytes()
    at = jpeg.index(b"\xff\xc4", jpeg.index(b"\xff\xc4") + 1)
    assert jpeg[at + 4] == 0x10
    assert jpeg[at + 20] > 1, "no code of 16 bits, so that none was limited"
    assert jpeg == by_opencv(levels, 50)


def test_a_stream_of_gray_and_color_is_opencv_s() -> None:
    grays = [flow_like(0), flow_like(1), flow_like(2, 50, 40), flow_like(3)]
    color = color_like(4)
    stream = JpegStream(90)
    for image in (*grays, color):
        stream.append(image)
    assert stream.read() == b"".join(by_opencv(image, 90) for image in (*grays, color))
    stream.close()


@pytest.mark.parametrize("shape", [(0, 8), (8, 0), (8, 70_000), (70_000, 8, 3), (8, 8, 2)])
def test_sizes_that_jpegs_do_not_have_are_refused(shape: tuple[int, ...]) -> None:
    stream = JpegStream(95)
    with pytest.raises((ValueError, cv2.error)):
        stream.append(np.zeros(shape, np.uint8))
    assert stream.sizes == []
    stream.close()


@pytest.mark.parametrize("algorithm", ["farneback", "dis"])
def test_flow_and_frames_of_real_clips_have_opencv_s_levels(
    test_data: Path, algorithm: str
) -> None:
    path = sorted(test_data.glob("ucf101/videos/*/*.avi"))[3]
    flow, encode = FlowSpec(algorithm), EncodeSpec()

    class Both(JpegStream):
        def append(self, image: Image) -> None:
            super().append(image)
            quality = encode.rgb_jpeg_quality if image.ndim == 3 else encode.jpeg_quality
            expected.append(by_opencv(image, quality))
            begin = self.num_bytes - self.sizes[-1]
            found.append(self.read()[begin:])

    expected: list[bytes] = []
    found: list[bytes] = []
    streams = FlowStreams(flow, encode, create_estimator(algorithm), make_stream=Both)
    with open_video(Video("clip", str(path)), DecodeSpec(resize=Resize.parse("none"))) as reader:
        streams.compute(frame for frame, _ in zip(reader, range(6), strict=False))
    streams.close()
    assert len(found) == 26
    for one, other in zip(found, expected, strict=True):
        pictures = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), -1) for jpeg in (one, other)]
        np.testing.assert_array_equal(*pictures)
    assert found == expected
