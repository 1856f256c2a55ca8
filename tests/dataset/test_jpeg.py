"""The decoder gives OpenCV's pixels (libjpeg-turbo's), or refuses; whatever the bytes are."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from flowprep.dataset.jpeg import decode_planes

Gray = NDArray[np.uint8]


def encode(image: Gray, quality: int = 95, *, optimize: bool = True) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize)]
    done, jpeg = cv2.imencode(".jpg", image, options)
    assert done
    return jpeg.tobytes()


def decode(
    jpegs: Sequence[bytes], size: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> tuple[int, Gray]:
    """Decodes JPEGs that follow each other, with bytes that belong to none around them."""
    box = box or (0, 0, *size)
    ends = 3 + np.cumsum([len(jpeg) for jpeg in jpegs], dtype=np.int64)
    starts = np.concatenate(([3], ends[:-1]))
    out = np.full((len(jpegs), box[3], box[2]), 77, np.uint8)
    targets = np.arange(len(jpegs)) * (box[2] * box[3])
    data = b"\xff\xd8\xff" + b"".join(jpegs) + b"\x00" * 3
    return decode_planes(data, starts, ends, out, targets, size, box), out


def expected(jpeg: bytes) -> Gray:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)


def flow_like(seed: int, width: int = 84, height: int = 60) -> Gray:
    """Blobs on level ground, as flow is; a few edges."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 90, (height, width)).astype(np.float32)
    image = 128 + cv2.GaussianBlur(noise, (0, 0), 4) * 3
    image[: height // 3] = 128
    image[:, width // 2 :] += rng.integers(-60, 60)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("quality", [1, 30, 75, 90, 95, 100])
def test_pixels_are_those_of_opencv(quality: int, optimize: bool) -> None:
    rng = np.random.default_rng(quality)
    images = [flow_like(seed) for seed in range(4)]
    images += [rng.integers(0, 256, (60, 84), np.uint8) for _ in range(2)]
    images += [np.full((60, 84), level, np.uint8) for level in (0, 128, 255)]
    images.append((rng.integers(0, 2, (60, 84)) * 255).astype(np.uint8))
    jpegs = [encode(image, quality, optimize=optimize) for image in images]
    count, out = decode(jpegs, (84, 60))
    assert count == len(jpegs)
    for found, jpeg in zip(out, jpegs, strict=True):
        np.testing.assert_array_equal(found, expected(jpeg))


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (7, 9), (8, 8), (16, 17), (127, 3), (128, 8), (129, 40), (340, 256)],
)
def test_every_size_is_decoded(width: int, height: int) -> None:
    jpeg = encode(flow_like(3, width + 8, height + 8)[:height, :width])
    count, out = decode([jpeg], (width, height))
    assert count == 1
    np.testing.assert_array_equal(out[0], expected(jpeg))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_box_is_that_part_of_the_whole(data: st.DataObject) -> None:
    x, y = data.draw(st.integers(0, 339)), data.draw(st.integers(0, 255))
    width, height = data.draw(st.integers(1, 340 - x)), data.draw(st.integers(1, 256 - y))
    jpegs = [encode(flow_like(seed, 340, 256)) for seed in (0, 1)]
    count, out = decode(jpegs, (340, 256), (x, y, width, height))
    assert count == 2
    for found, jpeg in zip(out, jpegs, strict=True):
        np.testing.assert_array_equal(found, expected(jpeg)[y : y + height, x : x + width])


def test_images_go_where_they_are_wanted_and_nowhere_else() -> None:
    jpegs = [encode(flow_like(seed)) for seed in range(3)]
    data = b"".join(jpegs)
    ends = np.cumsum([len(jpeg) for jpeg in jpegs])
    out = np.full((5, 10, 84), 7, np.uint8)
    targets = np.array([4, 0, 2]) * 840
    box = (0, 20, 84, 10)
    assert decode_planes(data, ends - [len(j) for j in jpegs], ends, out, targets, (84, 60), box)
    for place, jpeg in zip((4, 0, 2), jpegs, strict=True):
        np.testing.assert_array_equal(out[place], expected(jpeg)[20:30])
    assert (out[[1, 3]] == 7).all()


def with_pillow(image: Gray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def test_pillow_s_jpegs_are_decoded_with_comments_and_profiles() -> None:
    jpeg = with_pillow(flow_like(0), quality=90, comment=b"x" * 300, dpi=(72, 72))
    count, out = decode([jpeg], (84, 60))
    assert count == 1
    np.testing.assert_array_equal(out[0], expected(jpeg))


@pytest.mark.parametrize(
    "other",
    [
        encode(cv2.cvtColor(flow_like(1), cv2.COLOR_GRAY2BGR)),
        with_pillow(flow_like(1), progressive=True),
        with_pillow(flow_like(1), restart_marker_blocks=5),
        encode(flow_like(1, 80, 60)),
        b"",
        b"\xff\xd8",
        bytes(500),
        encode(flow_like(1))[:-2],
        encode(flow_like(1))[:-40] + b"\xff\xd9",
        encode(flow_like(1))[:-40],
        encode(flow_like(1))[:300],
        encode(flow_like(1))[:-2] + b"\x12\xff\xd9",
        encode(flow_like(1))[:-2] + bytes(30) + b"\xff\xd9",
    ],
    ids=[
        *("color", "progressive", "restarts", "size", "empty", "begin", "zeros"),
        *("no-end", "early-end", "cut", "cut-tables"),
        *("one-byte-more", "bytes-more"),
    ],
)
def test_other_kinds_and_cut_ones_are_refused(other: bytes) -> None:
    good = encode(flow_like(0))
    count, out = decode([good, other, good], (84, 60))
    assert count == 1
    np.testing.assert_array_equal(out[0], expected(good))
    assert (out[2] == 77).all()


@pytest.mark.parametrize(("start", "end"), [(-1, 40), (0, 10**6), (40, 0), (-(10**9), 10)])
def test_places_outside_of_the_data_are_refused(start: int, end: int) -> None:
    jpeg = encode(flow_like(0))
    out = np.full((60, 84), 77, np.uint8)
    places = np.array([start]), np.array([end])
    box = (0, 0, 84, 60)
    assert decode_planes(jpeg, *places, out, np.array([0]), (84, 60), box) == 0
    assert (out == 77).all()


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 2),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0.5, 1),
)
def test_damaged_bytes_do_no_harm(seed: int, changes: list[tuple[float, int]], kept: float) -> None:
    jpeg = bytearray(encode(flow_like(seed), 95 - 30 * seed))
    jpeg = jpeg[: int(len(jpeg) * kept)] if seed == 2 else jpeg
    for place, value in changes:
        jpeg[int(place * len(jpeg))] = value
    guard = encode(flow_like(5))
    count, out = decode([guard, bytes(jpeg)], (84, 60))
    assert count in (1, 2)
    np.testing.assert_array_equal(out[0], expected(guard))
