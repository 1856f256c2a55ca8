"""As many frames as ffmpeg's own command gives, of every real file, by both decoders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.decode import open_video
from tests.conftest import DATA
from tests.video.test_clock import ffmpeg_count

FOLDERS = ("cases", "odd", "clips", "ucf101/videos", "asl")
SUFFIXES = {".avi", ".flv", ".mkv", ".mov", ".mp4", ".ts", ".vob"}
RATES = (None, 25.0, 12.5)


def _real_files() -> Iterator[str]:
    for folder in FOLDERS:
        for path in sorted((DATA / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield str(path.relative_to(DATA))


FILES = list(_real_files())


REFUSED = {"damaged", "no-video-stream", "unreadable"}
"""What these files may be refused for; which of them is, is tested elsewhere, by its name."""


def count(path: Path, spec: DecodeSpec) -> tuple[int, int | None] | str:
    """Returns the number of frames, and the stream that they are of; or the reason of a failure."""
    try:
        with open_video(Video("key", str(path)), spec) as reader:
            return sum(1 for _ in reader), reader.info.video_stream
    except VideoError as error:
        return error.reason


@pytest.mark.parametrize("name", FILES)
def test_frames_are_as_many_as_ffmpeg_gives(name: str, test_data: Path, ffmpeg: str) -> None:
    path = test_data / name
    size = Resize.parse("short:16")
    for rate in RATES:
        found = count(path, DecodeSpec(fps=rate, resize=size))
        if isinstance(found, str):
            assert found in REFUSED
            continue
        number, stream = found
        options = [] if rate is None else ["-vf", f"fps={rate:g}"]
        # ffmpeg makes nothing of what is shorter than half a tick.
        expected = max(1, ffmpeg_count(path, ffmpeg, *options, stream=stream))
        assert number == expected, rate


@pytest.mark.parametrize("name", FILES)
def test_both_decoders_give_as_many_where_both_can(name: str, test_data: Path) -> None:
    pytest.importorskip("decord", reason="decord is not installed")
    path = test_data / name
    size = Resize.parse("short:16")
    found = count(path, DecodeSpec(resize=size))
    other = count(path, DecodeSpec("decord", resize=size))
    if isinstance(other, str):
        assert other in REFUSED
    else:
        assert other == found
