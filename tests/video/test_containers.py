"""Files open with each PyAV that setup.cfg allows, whatever bytes their names are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.containers import open_container
from flowprep.video.decode import open_video

TITLE = b"TITLE-OF-A-FILM"


def write_titled(path: Path, title: bytes) -> None:
    """Writes 5 frames whose file, and whose stream where it has names, is called `title`."""
    assert len(title) == len(TITLE)
    with av.open(str(path), "w") as container:
        container.metadata["title"] = TITLE.decode()
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["title"] = TITLE.decode()
        for number in range(5):
            pixels = np.full((48, 64, 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert TITLE in data
    path.write_bytes(data.replace(TITLE, title))


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
@pytest.mark.parametrize(
    "title",
    [b"caf\xe9 in Latin-1", b"\x82\xa0\x82\xa2 Shift-JIS.", b"\xff" * 15, b"\xf0\x9f\x8e" * 5],
    ids=["latin-1", "shift-jis", "no text", "cut UTF-8"],
)
def test_names_that_are_not_utf8_are_no_fault(tmp_path: Path, suffix: str, title: bytes) -> None:
    path = tmp_path / f"clip{suffix}"
    write_titled(path, title)
    with open_video(Video("a", str(path)), DecodeSpec()) as reader:
        assert [frame.rgb.shape for frame in reader] == [(48, 64, 3)] * 5


def test_options_reach_ffmpeg(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    write_titled(path, TITLE)
    with open_container(str(path)) as container:
        assert container.metadata["title"] == TITLE.decode()
    with pytest.raises(av.FFmpegError):
        open_container(str(path), {"format_whitelist": "matroska"})


def test_what_a_stream_does_not_tell_is_none_of_pyavs_numbers(tmp_path: Path) -> None:
    # A raw stream has neither rate nor length; PyAV 19 says so with a zero, older ones with None.
    path = tmp_path / "clip.m4v"
    with av.open(str(path), "w", format="rawvideo") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(5):
            pixels = np.zeros((48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(Video("a", str(path)), DecodeSpec()) as reader:
        assert isinstance(reader.info.fps, float | None)
        assert isinstance(reader.info.duration_seconds, float | None)
        assert len(list(reader)) == 5
        assert all(isinstance(picture.time, Fraction) for picture in reader._pictures())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\xff\xfe no video \xe9" * 9)
    with pytest.raises(VideoError, match="FFmpeg cannot open it"):
        open_video(Video("a", str(path)), DecodeSpec())
