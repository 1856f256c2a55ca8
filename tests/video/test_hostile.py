"""Videos made to do harm: huge pictures, endless time stamps, play lists, what memory held."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.decode import DECODERS, open_video
from flowprep.video.pyav_decoder import MAX_DECODED_PIXELS
from flowprep.video.reader import MAX_STILL_SECONDS

SMALL = Resize.parse("short:32")


@pytest.fixture
def make(ffmpeg: str, tmp_path: Path) -> Callable[..., Path]:
    """Encodes a second of ffmpeg's test picture, 64x48 at 10 fps."""

    def run(name: str, *options: str) -> Path:
        source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1")
        command = [ffmpeg, "-v", "error", "-nostdin", *source, *options, str(tmp_path / name)]
        subprocess.run(command, check=True)
        return tmp_path / name

    return run


def num_frames(path: Path, decoder: str = "pyav", fps: float | None = None) -> int:
    spec = DecodeSpec(decoder=decoder, resize=SMALL, fps=fps)  # type: ignore[arg-type]
    with open_video(Video("key", str(path)), spec) as reader:
        return sum(1 for _ in reader)


def failure(path: Path, decoder: str = "pyav", fps: float | None = None) -> VideoError:
    with pytest.raises(VideoError) as caught:
        num_frames(path, decoder, fps)
    return caught.value


# ---- sizes


def with_gif_size(path: Path, width: int, height: int) -> None:
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", width, height)
    path.write_bytes(data)


def with_vp8_size(path: Path, width: int, height: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"\x9d\x01\x2a") + 3
    data[at : at + 4] = struct.pack("<HH", width, height)
    path.write_bytes(data)


def with_y4m_size(path: Path, width: int, height: int) -> None:
    data = path.read_bytes().replace(b"W64 H48", b"W%d H%d" % (width, height), 1)
    path.write_bytes(data)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("width", "height"), [(16000, 16000), (65535, 65535), (8193, 8192)])
def test_no_picture_is_made_that_a_forged_header_asks_for(
    decoder: str, width: int, height: int, make: Callable[..., Path]
) -> None:
    for forge, path in (
        (with_gif_size, make("a.gif")),
        (with_vp8_size, make("a.webm", "-c:v", "libvpx")),
        (with_y4m_size, make("a.y4m")),
    ):
        # VP8 has 14 bits for a side.
        if forge is with_vp8_size and width > 16383:
            continue
        forge(path, width, height)
        error = failure(path, decoder)
        assert error.reason in ("too-large", "no-frames", "unreadable"), path
        assert error.num_frames == 0


def test_too_large_pictures_are_refused_by_name(ffmpeg: str, tmp_path: Path) -> None:
    path = tmp_path / "large.y4m"
    path.write_bytes(b"YUV4MPEG2 W9000 H8000 F10:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(5000))
    error = failure(path)
    assert error.reason == "too-large"
    assert error.message == (
        f"its pictures of 9000x8000 px have more than {MAX_DECODED_PIXELS} (MAX_DECODED_PIXELS)"
    )


# ---- time stamps


def write_with_times(path: Path, times_ms: list[int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times_ms):
            pixels = np.full((48, 64, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_time_stamp_far_ahead_does_not_repeat_a_picture_without_end(tmp_path: Path) -> None:
    path = tmp_path / "jump.mkv"
    later = 1000 * (MAX_STILL_SECONDS + 60)
    write_with_times(path, [0, 100, 200, later, later + 100])
    error = failure(path, fps=25)
    assert error.reason == "damaged"
    assert "MAX_STILL_SECONDS" in error.message
    # Nothing is repeated where every frame counts once.
    assert num_frames(path) == 5


def test_a_picture_may_stand_still_for_minutes(tmp_path: Path) -> None:
    path = tmp_path / "slides.mkv"
    later = 1000 * (MAX_STILL_SECONDS - 60)
    write_with_times(path, [0, 100, later])
    assert num_frames(path, fps=1) == pytest.approx(MAX_STILL_SECONDS - 60, abs=2)


# ---- other files, other pictures


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile a.ts\nfile a.ts\n"),
    ],
)
def test_play_lists_show_no_other_file(
    decoder: str, name: str, text: str, make: Callable[..., Path]
) -> None:
    other = make("a.ts", "-c:v", "libx264")
    assert num_frames(other) == 10
    path = other.with_name(name)
    path.write_text(text)
    error = failure(path, decoder)
    assert error.reason == "unreadable"
    assert "playlist" in error.message


def test_a_jpeg_that_breaks_off_is_damage(make: Callable[..., Path]) -> None:
    """FFmpeg shows it, with what an earlier picture left in memory for the rest."""
    path = make("a.avi", "-c:v", "mjpeg")
    assert num_frames(path) == 10
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 10
    middle = (starts[4] + starts[5]) // 2
    data[middle : middle + 40] = b"\xff\xd9" * 20
    path.write_bytes(data)
    error = failure(path)
    assert (error.reason, error.num_frames) == ("damaged", 4)
