"""Pixels that are not square: the ratio that is read, and the size at which they are shown."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowprep
from flowprep.config import (
    DecodeSpec,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Resize,
)
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.decode import open_video
from flowprep.video.pixel_aspect import MAX_DISPLAYED_PIXELS, displayed_size, is_plausible
from flowprep.video.reader import FrameReader

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def make(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a clip of 160x120 px whose pixels are `aspect`."""
    folder = tmp_path_factory.mktemp("aspect")

    def run(name: str, aspect: str, *options: str, size: str = "160x120") -> Path:
        path = folder / name
        source = f"testsrc2=size={size}:rate=25:duration=0.2"
        command = [ffmpeg, "-v", "error", "-y", "-f", "lavfi", "-i", source]
        command += ["-vf", f"setsar={aspect}:max=100000", *(options or H264), str(path)]
        subprocess.run(command, check=True)
        return path

    return run


def opened(path: Path, resize: str = "none", *, square: bool = False) -> FrameReader:
    spec = DecodeSpec(resize=Resize.parse(resize), square_pixels=square)
    return open_video(Video("key", str(path)), spec)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "avi", "flv", "mpg"])
@pytest.mark.parametrize(("aspect", "width"), [("16/11", 233), ("8/9", 142), ("1/1", 160)])
def test_the_ratio_is_read_from_every_container(
    aspect: str, width: int, suffix: str, make: Callable[..., Path]
) -> None:
    path = make(f"{aspect.replace('/', '_')}.{suffix}", aspect)
    with opened(path) as reader:
        frames = list(reader)
        assert reader.info.pixel_aspect == Fraction(aspect)
        assert (reader.info.width, reader.info.height) == reader.size == (160, 120)
        noted = {} if aspect == "1/1" else {"not-square"}
        assert set(reader.notes) - {"irregular-stamps"} == set(noted)
        if noted:
            assert reader.notes["not-square"] == (
                f"its pixels are {aspect.replace('/', ':')}; a picture of 160x120 px is shown as "
                f"{width}x120"
            )
    with opened(path, square=True) as reader:
        square = list(reader)
        assert "not-square" not in reader.notes
        assert reader.size == (width, 120)
    assert len(frames) == len(square) == 5
    # One step of resampling, from the picture as it is stored.
    interpolation = cv2.INTER_LINEAR if width > 160 else cv2.INTER_AREA
    truth = cv2.resize(frames[3].rgb, (width, 120), interpolation=interpolation)
    assert np.array_equal(square[3].rgb, truth)


def test_players_show_the_same_shape(make: Callable[..., Path], ffmpeg: str) -> None:
    path = make("players.mp4", "16/11")
    with opened(path, square=True) as reader:
        ours = np.stack([frame.gray for frame in reader])
    command = [ffmpeg, "-v", "error", "-i", str(path), "-vf", "scale=233:ih:flags=bilinear"]
    command += ["-pix_fmt", "gray", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    theirs = np.frombuffer(raw, np.uint8).reshape(-1, 120, 233).astype(float)
    for one, other in zip(ours.astype(float), theirs, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98


def test_the_resize_counts_in_shown_pixels(make: Callable[..., Path]) -> None:
    path = make("resize.mp4", "16/11")
    for resize, size in [
        ("short:60", (117, 60)),
        ("height:60", (117, 60)),
        ("100x40", (100, 40)),
        ("short:256", (233, 120)),
    ]:
        with opened(path, resize, square=True) as reader:
            assert reader.size == size
            assert next(iter(reader)).rgb.shape == (size[1], size[0], 3)


def test_a_turn_turns_the_pixels_too(make: Callable[..., Path], ffmpeg: str) -> None:
    plain = make("plain.mp4", "16/11")
    path = plain.with_name("turned.mp4")
    command = [ffmpeg, "-v", "error", "-y", "-display_rotation", "90", "-i", str(plain)]
    subprocess.run([*command, "-c", "copy", str(path)], check=True)
    with opened(path, square=True) as reader:
        assert reader.info.rotation == 270
        assert reader.info.pixel_aspect == Fraction(11, 16)
        assert (reader.info.width, reader.info.height) == (120, 160)
        assert reader.size == (83, 160)


@pytest.mark.parametrize("aspect", ["1/1000", "1000/1", "1/11", "11/1"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_impossible_pixels_are_square_with_a_note(
    suffix: str, aspect: str, make: Callable[..., Path]
) -> None:
    with opened(make(f"odd.{suffix}", aspect), square=True) as reader:
        assert reader.size == (160, 120)
        assert reader.info.pixel_aspect == 1
        # What would leave no line or no column FFmpeg passes over itself.
        stated = f"its header states pixels of {aspect.replace('/', ':')}"
        noted = reader.notes.get("odd-pixels")
        assert noted == stated or (noted is None and "1000" in aspect)


def test_pixels_of_almost_the_same_sides_are_no_note(make: Callable[..., Path]) -> None:
    with opened(make("almost.mp4", "401/400")) as reader:
        assert reader.info.pixel_aspect == Fraction(401, 400)
        assert not reader.notes


@given(
    st.integers(1, 8192),
    st.integers(1, 8192),
    st.fractions(Fraction(1, 10), 10, max_denominator=100_000),
)
def test_sizes_are_rounded_and_bounded(width: int, height: int, aspect: Fraction) -> None:
    assert is_plausible(aspect)
    if (2 * width * aspect + 1) // 2 * height > MAX_DISPLAYED_PIXELS:
        with pytest.raises(VideoError, match="more than 67108864 px") as caught:
            displayed_size(width, height, aspect)
        assert caught.value.reason == "too-large"
        return
    wide, high = displayed_size(width, height, aspect)
    assert high == height
    assert wide * high <= MAX_DISPLAYED_PIXELS
    assert abs(wide - width * aspect) <= Fraction(1, 2) or wide == 1


@pytest.mark.parametrize(
    ("target", "size", "rate", "aspect", "shown"),
    [
        ("pal-dv", "720x576", 25.0, Fraction(16, 15), (768, 576)),
        ("ntsc-dv", "720x480", 30000 / 1001, Fraction(8, 9), (640, 480)),
    ],
)
def test_raw_dv_has_a_sane_rate(
    target: str,
    size: str,
    rate: float,
    aspect: Fraction,
    shown: tuple[int, int],
    tmp_path: Path,
    ffmpeg: str,
) -> None:
    path = tmp_path / "clip.dv"
    source = f"testsrc2=size={size}:rate={'25' if rate == 25 else '30000/1001'}:duration=0.4"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-target", target, str(path)]
    subprocess.run(command, check=True)
    with opened(path, square=True) as reader:
        assert reader.info.fps == pytest.approx(rate)
        assert reader.info.pixel_aspect == aspect
        assert reader.size == shown
        num_estimated = reader.estimate_num_frames()
        frames = list(reader)
    assert len(frames) == round(0.4 * rate) == num_estimated
    assert frames[1].seconds == pytest.approx(1 / rate)


def test_the_case_and_its_record(test_data: Path, tmp_path: Path) -> None:
    path = test_data / "cases" / "sar1611.mp4"
    for square, size in [(False, (160, 120)), (True, (233, 120))]:
        spec = DecodeSpec(resize=Resize.parse("none"), square_pixels=square)
        config = ExtractConfig(
            spec, FlowSpec("farneback"), EncodeSpec(directions=("forward",), keep_rgb=False)
        )
        out = tmp_path / str(square)
        report = flowprep.extract(path, out, config, executor="inline")
        (record,) = flowprep.open_dataset(out).videos
        assert (record.width, record.height, record.num_frames) == (*size, 50)
        assert set(report.video_notes) == ({"not-square"} if not square else set())
        assert flowprep.open_dataset(out).metadata(record.key).pixel_aspect == (16, 11)
