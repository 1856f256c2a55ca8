"""The stream that is taken, against ffmpeg's own choice on files with several."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import ConfigError, VideoError
from flowprep.inputs.video import Video
from flowprep.video.decode import open_video, probe_video
from flowprep.video.reader import FrameReader

NATIVE = Resize.parse("none")
SMALL, LARGE = "testsrc2=size=64x48:rate=25:duration=0.4", "testsrc=size=96x64:rate=25:duration=0.4"
HUGE = "testsrc2=size=2400x2200:rate=25:duration=0.4"
STILL = "testsrc2=size=128x96:rate=25:duration=0.04"
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "5", "-pix_fmt", "yuv420p")


@pytest.fixture
def make(ffmpeg: str, tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of several streams, its options after the inputs."""

    def run(name: str, sources: tuple[str, ...], *options: str) -> Path:
        path = tmp_path / name
        inputs = itertools.chain.from_iterable(("-f", "lavfi", "-i", one) for one in sources)
        maps = itertools.chain.from_iterable(("-map", str(n)) for n in range(len(sources)))
        command = [ffmpeg, "-v", "error", "-y", *inputs, *maps, *H264, *options, str(path)]
        subprocess.run(command, check=True)
        return path

    return run


def opened(path: Path, number: int | None = None, decoder: str = "pyav") -> FrameReader:
    spec = DecodeSpec(resize=NATIVE, video_stream=number, decoder=decoder)  # type: ignore[arg-type]
    return open_video(Video("key", str(path)), spec)


def frames_of(path: Path, number: int | None = None, decoder: str = "pyav") -> np.ndarray:
    with opened(path, number, decoder) as reader:
        return np.stack([frame.rgb for frame in reader])


def shown_by_ffmpeg(ffmpeg: str, path: Path, size: tuple[int, int], *options: str) -> np.ndarray:
    command = [ffmpeg, "-v", "error", "-i", str(path), *options, "-fps_mode", "passthrough"]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, size[1], size[0], 3)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize("flags", list(itertools.product(["0", "default"], repeat=2)))
@pytest.mark.parametrize("order", [(SMALL, LARGE), (LARGE, SMALL)])
def test_sizes_and_default_flags_count_as_ffmpeg_counts_them(
    order: tuple[str, str],
    flags: tuple[str, str],
    suffix: str,
    make: Callable[..., Path],
    ffmpeg: str,
) -> None:
    dispositions = ("-disposition:v:0", flags[0], "-disposition:v:1", flags[1])
    path = make(f"two.{suffix}", order, *dispositions)
    with opened(path) as reader:
        frames = np.stack([frame.rgb for frame in reader])
        info, notes = reader.info, reader.notes
    assert np.array_equal(frames, shown_by_ffmpeg(ffmpeg, path, (info.width, info.height)))
    other = 1 - (info.video_stream or 0)
    assert notes["other-streams"].startswith(f"stream {info.video_stream} (h264, {info.width}x")
    assert f"and not stream {other} (h264" in notes["other-streams"]


def test_a_flag_weighs_less_than_a_much_larger_picture(
    make: Callable[..., Path], ffmpeg: str
) -> None:
    path = make("huge.mp4", (SMALL, HUGE), "-disposition:v:0", "default", "-disposition:v:1", "0")
    with opened(path) as reader:
        assert (reader.info.width, reader.info.video_stream) == (2400, 1)
    command = [ffmpeg, "-v", "error", "-i", str(path), "-frames:v", "1", "-f", "rawvideo", "-"]
    raw = subprocess.run([*command, "-pix_fmt", "gray"], check=True, capture_output=True).stdout
    assert len(raw) > 64 * 48 * 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("flags", list(itertools.product(["0", "default"], repeat=2)))
def test_a_single_picture_gives_way_to_a_film(
    flags: tuple[str, str], suffix: str, make: Callable[..., Path]
) -> None:
    dispositions = ("-disposition:v:0", flags[0], "-disposition:v:1", flags[1])
    path = make(f"still.{suffix}", (STILL, SMALL), "-c:v:0", "mjpeg", *dispositions)
    assert frames_of(path).shape == (10, 48, 64, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_cover_is_no_candidate(place: int, suffix: str, make: Callable[..., Path]) -> None:
    sources = (STILL, SMALL) if place == 0 else (SMALL, STILL)
    options = (f"-c:v:{place}", "mjpeg", f"-disposition:v:{place}", "attached_pic")
    path = make(f"cover.{suffix}", sources, *options)
    with opened(path) as reader:
        assert len(list(reader)) == 10
        assert "other-streams" not in reader.notes or suffix == "mkv"
        assert (reader.info.width, reader.info.height) == (64, 48)


def test_programs_of_a_transport_stream(make: Callable[..., Path], ffmpeg: str) -> None:
    path = make("two.ts", (SMALL, LARGE), "-program", "title=a:st=0", "-program", "title=b:st=1")
    assert np.array_equal(frames_of(path), shown_by_ffmpeg(ffmpeg, path, (96, 64)))


def test_a_stream_is_chosen_by_its_number(make: Callable[..., Path], ffmpeg: str) -> None:
    sound = "sine=duration=0.4"
    path = make("three.mkv", (sound, SMALL, LARGE))
    for number, size in [(1, (64, 48)), (2, (96, 64))]:
        with opened(path, number) as reader:
            frames = np.stack([frame.rgb for frame in reader])
            assert reader.info.video_stream == number
            assert not reader.notes
        truth = shown_by_ffmpeg(ffmpeg, path, size, "-map", f"0:{number}")
        assert np.array_equal(frames, truth)
    there = r"its video streams are stream 1 \(h264, 64x48, default\), stream 2 \(h264, 96x64\)"
    for number, what in [(0, "stream 0 is no video but audio"), (7, "the file has no stream 7")]:
        with pytest.raises(VideoError, match=rf"{what} \(--video-stream\); {there}") as caught:
            opened(path, number)
        assert caught.value.reason == "no-video-stream"
    assert probe_video(Video("key", str(path)), DecodeSpec(video_stream=1)).width == 64
    with pytest.raises(ConfigError, match="video_stream must be >= 0, got -1"):
        DecodeSpec(video_stream=-1)


def test_decord_is_refused_where_it_shows_another_stream(make: Callable[..., Path]) -> None:
    path = make("two.mkv", (SMALL, LARGE), "-disposition:v", "0")
    assert frames_of(path).shape[2] == 96
    refusal = "another stream of this file instead of stream 1; try --decoder pyav"
    with pytest.raises(VideoError, match=refusal):
        opened(path, decoder="decord")
    assert np.array_equal(frames_of(path, 0, "decord"), frames_of(path, 0))
    # FFmpeg 4.1 in decord does not heed the flag, which is found by the pictures.
    flags = ("-disposition:v:0", "0", "-disposition:v:1", "default")
    with pytest.raises(VideoError, match=refusal):
        frames_of(make("flag.mkv", (SMALL, LARGE), *flags), None, "decord")
    same = make("same.mkv", (LARGE, SMALL), "-disposition:v", "0")
    assert np.array_equal(frames_of(same, None, "decord"), frames_of(same))


def test_segments_read_the_chosen_stream(make: Callable[..., Path]) -> None:
    long = ("testsrc2=size=64x48:rate=25:duration=3", "testsrc=size=96x64:rate=25:duration=3")
    path = make("long.mkv", long)
    whole = frames_of(path)
    # Seeking reopens and rewinds.
    spec = DecodeSpec(resize=NATIVE)
    with open_video(Video("key", str(path), start_seconds=1.0, end_seconds=2.0), spec) as reader:
        part = np.stack([frame.rgb for frame in reader])
    assert np.array_equal(part, whole[25:50])


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(
    ("name", "size", "number"),
    [
        ("preview_first.mp4", (160, 120), 1),
        ("thumbfirst.mov", (160, 120), 1),
        ("unknown_first.mkv", (160, 120), 1),
    ],
)
def test_cases(
    name: str, size: tuple[int, int], number: int, decoder: str, test_data: Path, ffmpeg: str
) -> None:
    path = test_data / "cases" / name
    with opened(path, None, decoder) as reader:
        frames = np.stack([frame.rgb for frame in reader])
        assert reader.info.video_stream == number
        assert (
            f"stream {number} (h264, 160x120, default) was taken" in reader.notes["other-streams"]
        )
    assert len(frames) == 50
    assert np.array_equal(frames, shown_by_ffmpeg(ffmpeg, path, size))
