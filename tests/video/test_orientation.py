"""All eight ways to show a picture, against ffmpeg's own output and against known motion."""

from __future__ import annotations

import itertools
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import flowprep
from flowprep.config import (
    DecodeSpec,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    Resize,
    RunOptions,
)
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.decode import open_video
from flowprep.video.orientation import Orientation, orientation_of_matrix
from flowprep.video.types import VideoInfo

NATIVE = DecodeSpec(resize=Resize.parse("none"))
TURNS = (0, 90, 180, 270)
FLIPS = ("", "-display_hflip", "-display_vflip")
ONE = 1 << 16


@pytest.fixture(scope="module")
def make(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Copies one clip of 48x32 px, its colors not subsampled, with other headers."""
    folder = tmp_path_factory.mktemp("orientation")
    plain = folder / "plain.mp4"
    source = "testsrc2=size=48x32:rate=25:duration=0.2,noise=alls=20"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-qp", "0"]
    subprocess.run([*command, "-pix_fmt", "yuv444p", str(plain)], check=True)

    def run(name: str, *before: str, after: tuple[str, ...] = ()) -> Path:
        path = folder / name
        command = [ffmpeg, "-v", "error", "-y", *before, "-i", str(plain), "-c", "copy", *after]
        subprocess.run([*command, str(path)], check=True)
        return path

    return run


def read(
    path: Path | str, spec: DecodeSpec = NATIVE
) -> tuple[NDArray[np.uint8], VideoInfo, dict[str, str]]:
    with open_video(Video("key", str(path)), spec) as reader:
        frames = np.stack([frame.rgb for frame in reader])
        return frames, reader.info, dict(reader.notes)


def shown_by_ffmpeg(ffmpeg: str, path: Path | str, width: int, height: int) -> NDArray[np.uint8]:
    command = [ffmpeg, "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_all_headers_are_shown_as_ffmpeg_shows_them(
    suffix: str, make: Callable[..., Path], ffmpeg: str
) -> None:
    plain, _, _ = read(make(f"base.{suffix}"))
    seen = set()
    for turn, flip in itertools.product(TURNS, FLIPS):
        before = [option for option in (flip,) if option] + ["-display_rotation", str(turn)]
        path = make(f"{turn}{flip}.{suffix}", *before)
        frames, info, notes = read(path)
        seen.add((info.rotation, info.is_mirrored))
        assert not notes
        truth = shown_by_ffmpeg(ffmpeg, path, info.width, info.height)
        assert np.array_equal(frames, truth), (turn, flip)
        again = Orientation(info.rotation, info.is_mirrored)
        assert np.array_equal(frames[1], again.apply(plain[1]))
    assert seen == {(turn, mirrored) for turn in TURNS for mirrored in (False, True)}


def test_the_orientation_of_the_stream_counts(make: Callable[..., Path], ffmpeg: str) -> None:
    bsf = "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal"
    # ffmpeg itself says it at the first picture alone, and shows all of them so.
    path = make("sei.mp4", after=("-bsf:v", bsf))
    frames, info, _ = read(path)
    assert (info.width, info.height, info.is_mirrored) == (32, 48, True)
    assert np.array_equal(frames, shown_by_ffmpeg(ffmpeg, path, 32, 48))
    # The container's goes before it.
    both = make("both.mkv", "-display_rotation", "180", after=("-bsf:v", bsf))
    _, info, _ = read(both)
    assert (info.rotation, info.is_mirrored) == (180, False)


@pytest.mark.parametrize("suffix", ["avi", "mov", "mkv"])
def test_the_orientation_of_jpegs_counts(suffix: str, tmp_path: Path, ffmpeg: str) -> None:
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8), (48, 32))
    for tag in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = tag
        for number in (1, 2):
            Image.fromarray(picture).save(
                tmp_path / f"{tag}_{number}.jpg", exif=exif, subsampling=0
            )
        path = tmp_path / f"{tag}.{suffix}"
        command = [ffmpeg, "-v", "error", "-i", str(tmp_path / f"{tag}_%d.jpg"), "-c", "copy"]
        subprocess.run([*command, str(path)], check=True)
        frames, info, _ = read(path)
        truth = shown_by_ffmpeg(ffmpeg, path, info.width, info.height)
        assert len(frames) == 2
        assert np.array_equal(frames, truth), tag
        assert info.is_mirrored == (tag in (2, 4, 5, 7))


def test_an_odd_angle_is_noted(make: Callable[..., Path]) -> None:
    plain, _, _ = read(make("base.mp4"))
    frames, info, notes = read(make("odd.mp4", "-display_rotation", "33"))
    assert (info.rotation, info.is_mirrored) == (0, False)
    assert np.array_equal(frames, plain)
    assert notes == {"odd-angle": "it is to be turned by 327 degrees; not turned"}
    # ffmpeg takes less than a degree for none.
    _, info, notes = read(make("near.mp4", "-display_rotation", "90.5"))
    assert info.rotation == 270
    assert not notes


def test_a_turn_in_mid_stream_is_a_change_of_size(
    make: Callable[..., Path], ffmpeg: str, tmp_path: Path
) -> None:
    insert = "h264_metadata=display_orientation=insert:rotate="
    parts = [make(f"part{turn}.ts", after=("-bsf:v", f"{insert}{turn}")) for turn in (180, 90)]
    path = tmp_path / "joined.ts"
    path.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    with pytest.raises(VideoError) as caught:
        read(path)
    assert (caught.value.reason, caught.value.num_frames) == ("size-change", 5)
    assert "turns in the middle of the video, from 48x32 to 32x48" in caught.value.message
    # Upside down it has the same size, and is shown as it says.
    parts = [make(f"flip{flip}.ts", after=("-bsf:v", f"{insert}{flip}")) for flip in (0, 180)]
    plain, _, _ = read(make("base.mp4"))
    path.write_bytes(make("base.ts").read_bytes() + parts[1].read_bytes())
    frames, _, _ = read(path)
    assert np.array_equal(frames[:5], plain)
    assert np.array_equal(frames[5:], plain[:, ::-1, ::-1])


@given(
    st.sampled_from(TURNS),
    st.booleans(),
    st.integers(1, 1 << 20),
    st.integers(1, 1 << 20),
)
def test_a_matrix_moves_pixels_as_it_says(
    turn: int, mirrored: bool, x_scale: int, y_scale: int
) -> None:
    # By numbers alone: a corner's pixel lands where the matrix sends the corner.
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    sign = -1 if mirrored else 1
    a, b, c, d = sign * cos, sign * sin, -sin, cos
    matrix = (a * x_scale, b * y_scale, 0, c * x_scale, d * y_scale, 0, 0, 0, 1 << 30)
    orientation = orientation_of_matrix(matrix)
    assert orientation == Orientation(turn, mirrored)
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 5] = 255  # right of the middle and above it: (1, -1)
    shown = orientation.apply(picture)
    x, y = a * 1 + c * -1, b * 1 + d * -1
    row = 0 if y < 0 else shown.shape[0] - 1
    column = 0 if x < 0 else shown.shape[1] - 1
    assert shown[row, column, 0] == 255
    assert shown.flags.c_contiguous
    assert orientation.displayed_size(6, 4) == shown.shape[1::-1]


@given(st.binary(min_size=36, max_size=36))
def test_any_matrix_gives_one_of_the_eight(data: bytes) -> None:
    orientation = orientation_of_matrix(struct.unpack("=9i", data))
    assert orientation.rotation in TURNS


def test_a_matrix_of_nothing_is_noted() -> None:
    for matrix in [(0,) * 9, (ONE, ONE, 0, ONE, ONE, 0, 0, 0, 0)]:
        assert orientation_of_matrix(matrix).problem is not None
        assert orientation_of_matrix(matrix).rotation == 0


def test_decord_shows_the_same_picture_or_is_refused(
    make: Callable[..., Path], ffmpeg: str, tmp_path: Path
) -> None:
    decord = DecodeSpec(resize=Resize.parse("none"), decoder="decord")
    turned = make("turned.mp4", "-display_rotation", "90")
    assert np.array_equal(read(turned, decord)[0], read(turned)[0])
    for name, options in [
        ("turned.mkv", ("-display_rotation", "180")),
        ("mirrored.mp4", ("-display_hflip",)),
    ]:
        with pytest.raises(VideoError, match="of this h264 video; try --decoder pyav") as caught:
            read(make(name, *options), decord)
        assert caught.value.reason == "unreadable"
    # A dark scene with a small light, upside down by the stream's own word: the mean of all
    # differences is below a level.
    dark = tmp_path / "dark.mp4"
    source = "color=black:size=160x120:rate=25:duration=0.2,drawbox=8:8:6:6:color=white:t=fill"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264"]
    command += ["-bsf:v", "h264_metadata=display_orientation=insert:rotate=180", str(dark)]
    subprocess.run(command, check=True)
    frames, info, _ = read(dark)
    assert info.rotation == 180
    assert frames[0, 110, 150].min() > 200
    with pytest.raises(VideoError, match="shows a wrong picture at frame 0"):
        read(dark, decord)


def moving_square(path: Path) -> Path:
    """Writes a clip whose textured square moves right and down."""
    rng = np.random.default_rng(1)
    square = cv2.resize(rng.integers(60, 256, (8, 8), np.uint8), (40, 40))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv444p"  # type: ignore[attr-defined]
        stream.options = {"qp": "0", "g": "10"}
        for number in range(44):
            picture = np.full((64, 96, 3), 30, np.uint8)
            x, y = 8 + number, 4 + number // 2
            height, width = min(40, 64 - y), min(40, 96 - x)
            picture[y : y + height, x : x + width] = square[:height, :width, None]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        container.mux(stream.encode(None))  # type: ignore[attr-defined]
    return path


def test_flow_turns_with_the_picture_also_in_segments(ffmpeg: str, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    plain = moving_square(videos / "plain.mp4")
    for name, option in [("hflip", "-display_hflip"), ("vflip", "-display_vflip")]:
        command = [ffmpeg, "-v", "error", option, "-i", str(plain), "-c", "copy"]
        subprocess.run([*command, str(videos / f"{name}.mp4")], check=True)
    config = ExtractConfig(
        NATIVE, FlowSpec("farneback"), EncodeSpec(directions=("forward",), keep_rgb=True)
    )
    outs = {}
    for segment_frames in (0, 10):
        outs[segment_frames] = tmp_path / f"out{segment_frames}"
        report = flowprep.extract(
            videos,
            outs[segment_frames],
            config,
            executor="inline",
            options=RunOptions(segment_frames=segment_frames),
        )
        assert report.num_complete == 3
    whole, cut = (flowprep.open_dataset(out) for out in outs.values())
    means = {}
    for key in ("plain", "hflip", "vflip"):
        one, other = whole.quantized(key, 0, 43), cut.quantized(key, 0, 43)
        assert np.array_equal(one, other)
        indices = list(range(44))
        assert np.array_equal(whole.frames(key, indices), cut.frames(key, indices))
        flow = whole.flow(key, 5, 10)
        means[key] = flow[np.abs(flow[..., 0]) > 0.5].mean(axis=0)
    u, v = means["plain"]
    assert u > 0.5
    assert v > 0.2
    assert np.allclose(means["hflip"], (-u, v), atol=0.1)
    assert np.allclose(means["vflip"], (u, -v), atol=0.1)


def test_the_mirrored_cases(test_data: Path, ffmpeg: str) -> None:
    for name, orientation in [("hflip", Orientation(0, True)), ("vflip", Orientation(180, True))]:
        path = test_data / "cases" / f"{name}.mp4"
        frames, info, _ = read(path)
        assert (info.rotation, info.is_mirrored) == (orientation.rotation, True)
        assert len(frames) == 12
        assert np.array_equal(frames, shown_by_ffmpeg(ffmpeg, path, 160, 120))
        grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames[[2, 8]]]
        shift, _ = cv2.phaseCorrelate(*(gray.astype(np.float32) for gray in grays))
        assert (shift[0] < -1) == (name == "hflip")
        with pytest.raises(VideoError, match="--decoder pyav"):
            read(path, DecodeSpec(decoder="decord"))
