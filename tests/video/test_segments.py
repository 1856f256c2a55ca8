"""Segments of a video against the same frames read uncut."""

from __future__ import annotations

import dataclasses
import subprocess
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.cut import is_long, plan_cut
from flowprep.video.decode import open_video
from flowprep.video.reader import FrameReader, Picture
from flowprep.video.segments import Scan, Segment, VideoCut
from flowprep.video.types import Frame, VideoInfo

NATIVE = Resize.parse("none")
NUM_FRAMES = 200
KEY_FRAMES = 20
SEGMENT_FRAMES = 45
"""No multiple of a group of pictures, so that segments begin in the midst of one."""

H264 = ("-c:v", "libx264", "-preset", "veryfast")
X265 = "log-level=error:pools=1:frame-threads=1"
# name: (options of ffmpeg, whether segments are found by seeking)
ENCODINGS: dict[str, tuple[tuple[str, ...], bool]] = {
    "open.mp4": ((*H264, "-bf", "3", "-x264-params", "open-gop=1:b-pyramid=normal"), True),
    "open.mkv": ((*H264, "-bf", "3", "-x264-params", "open-gop=1"), True),
    "open.ts": ((*H264, "-bf", "3", "-x264-params", "open-gop=1"), True),
    "interlaced.ts": ((*H264, "-bf", "2", "-flags", "+ilme+ildct"), True),
    "b_frames.avi": ((*H264, "-bf", "3"), True),
    "raw.h264": ((*H264, "-bf", "2"), False),
    "refresh.mp4": ((*H264, "-x264-params", "intra-refresh=1"), False),
    "one_group.mp4": ((*H264, "-g", "1000"), False),
    "key_frames.mp4": ((*H264, "-g", "1"), True),
    "open_hevc.mp4": (("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", X265), True),
    "packed.avi": (("-c:v", "mpeg4", "-bf", "2"), True),
    "mpeg4.avi": (("-c:v", "mpeg4"), True),
    "mpeg2.mpg": (("-c:v", "mpeg2video", "-bf", "2"), True),
    "mpeg2.ts": (("-c:v", "mpeg2video", "-bf", "2"), True),
    "mjpeg.avi": (("-c:v", "mjpeg"), True),
    "vp8.webm": (("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16"), True),
    "wmv2.wmv": (("-c:v", "wmv2"), True),
    "variable.mp4": ((*H264, "-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "vfr"), True),
}


@pytest.fixture(scope="module")
def make(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Encodes a moving picture as ENCODINGS says, once."""
    folder = tmp_path_factory.mktemp("videos")

    def run(name: str, *options: str, source: tuple[str, ...] = ()) -> Path:
        path = folder / name
        if not path.exists():
            lavfi = f"testsrc2=size=96x64:rate=25:duration={NUM_FRAMES / 25}"
            command = [ffmpeg, "-v", "error", *(source or ("-f", "lavfi", "-i", lavfi))]
            command += ["-threads", "1", "-g", str(KEY_FRAMES), *(options or ENCODINGS[name][0])]
            subprocess.run([*command, str(path)], check=True, capture_output=True)
        return path

    return run


def fingerprint(frame: Frame) -> tuple[int, int, float]:
    return zlib.crc32(frame.rgb), zlib.crc32(frame.gray), frame.seconds


def read(video: Video, spec: DecodeSpec) -> tuple[list[tuple[int, int, float]], int]:
    """Returns the frames of an uncut read, and how many frames it decoded."""
    with open_video(video, spec) as reader:
        return [fingerprint(frame) for frame in reader], reader.num_frames_decoded


def cut(
    video: Video, spec: DecodeSpec, segment_frames: int = SEGMENT_FRAMES, step: int = 1
) -> VideoCut | None:
    with open_video(video, spec) as reader:
        return plan_cut(reader, segment_frames=segment_frames, step=step, on_progress=lambda: None)


def read_segment(
    video: Video, spec: DecodeSpec, segment: Segment
) -> tuple[list[tuple[int, int, float]], int]:
    # As it comes out of storage.
    stored = Segment.from_dict(segment.to_dict())
    assert stored == segment
    with open_video(video, spec) as reader:
        return [fingerprint(frame) for frame in reader.read_segment(stored)], (
            reader.num_frames_decoded
        )


def check(
    path: Path,
    *,
    segment_frames: int = SEGMENT_FRAMES,
    step: int = 1,
    fps: float | None = None,
    decoder: str = "pyav",
    image_fps: float | None = None,
    **video_fields: float,
) -> tuple[int, int]:
    """Holds each segment against the uncut read; returns the frames that both decoded."""
    video = Video("key", str(path), **video_fields)  # type: ignore[arg-type]
    spec = DecodeSpec(decoder=decoder, fps=fps, resize=NATIVE, image_fps=image_fps)  # type: ignore[arg-type]
    whole, num_decoded = read(video, spec)
    found = cut(video, spec, segment_frames, step)
    assert found is not None
    segments = found.segments
    assert found.num_frames_decoded == num_decoded
    assert VideoCut.from_dict(found.to_dict()) == found
    assert [segment.start for segment in segments[1:]] == [one.stop for one in segments[:-1]]
    assert (segments[0].start, segments[-1].stop) == (0, len(whole) - step)
    assert max(segment.stop - segment.start for segment in segments) <= segment_frames
    total = 0
    for segment in segments:
        frames, decoded = read_segment(video, spec, segment)
        assert frames == whole[segment.start : segment.stop + step]
        total += decoded
    return num_decoded, total


@pytest.mark.parametrize("name", ENCODINGS)
def test_segments_are_the_uncut_frames(name: str, make: Callable[..., Path]) -> None:
    num_decoded, total = check(make(name))
    # From the begin of the file, five segments would decode 3 times as many frames as one read.
    assert (total < 2.5 * num_decoded) == ENCODINGS[name][1]


@pytest.mark.parametrize("fps", [7, 12.5, 29.97, 60])
@pytest.mark.parametrize("name", ["variable.mp4", "packed.avi"])
def test_segments_are_sampled_as_the_whole(
    name: str, fps: float, make: Callable[..., Path]
) -> None:
    check(make(name), fps=fps, segment_frames=20, step=2)


@pytest.mark.parametrize(("start", "end"), [(1.5, 6.3), (5.3, 7.9), (5.3, None), (None, 6.0)])
@pytest.mark.parametrize("fps", [None, 10])
def test_segments_of_a_range(
    start: float | None, end: float | None, fps: float | None, make: Callable[..., Path]
) -> None:
    # From 5 s on an uncut read seeks too.
    fields = {"start_seconds": start, "end_seconds": end}
    given = {name: value for name, value in fields.items() if value is not None}
    check(make("open.mp4"), segment_frames=7, fps=fps, **given)


def test_segments_of_one_flow_each(make: Callable[..., Path]) -> None:
    check(make("open.mp4"), segment_frames=1, end_seconds=0.6)


def test_segments_behind_an_edit_list(make: Callable[..., Path]) -> None:
    source = make("one_group.mp4")
    cut_off = make("edited.mp4", "-c", "copy", source=("-ss", "1.3", "-i", str(source)))
    num_decoded, _ = check(cut_off)
    assert num_decoded < NUM_FRAMES - 30


def test_segments_beside_sound(make: Callable[..., Path]) -> None:
    sound = ("-f", "lavfi", "-i", f"sine=duration={NUM_FRAMES / 25}")
    picture = ("-i", str(make("open.mp4")))
    check(make("sound.mp4", "-c:v", "copy", "-c:a", "aac", source=(*picture, *sound)))


def test_segments_with_decord(make: Callable[..., Path]) -> None:
    pytest.importorskip("decord")
    check(make("open.mp4"), decoder="decord", segment_frames=90)


@pytest.mark.parametrize(
    "name",
    [
        "clips/TrumanShow_wave_f_nm_np1_fr_med_26.avi",
        "clips/flipping_a_pancake.mkv",
        "clips/v_ApplyEyeMakeup_g01_c01.avi",
        "odd/av1.mkv",
        "odd/rotated_video.mp4",
        "odd/h264_10bits.mp4",
        "ucf101/videos/Biking/v_Biking_g20_c06.avi",
    ],
)
def test_segments_of_real_videos(name: str, test_data: Path) -> None:
    check(test_data / name, segment_frames=11 if "clips" not in name else 23)


def test_segments_of_a_folder_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(20):
        picture = rng.integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"img_{number}.png"), picture)
    check(tmp_path, segment_frames=4, step=3)
    check(tmp_path, segment_frames=4, image_fps=2.5, start_seconds=1.2, end_seconds=6)
    check(tmp_path, segment_frames=4, image_fps=2.5, fps=5, start_seconds=1.1)


def test_a_short_video_is_left_uncut(make: Callable[..., Path]) -> None:
    video, spec = Video("key", str(make("open.mp4"))), DecodeSpec(resize=NATIVE)
    assert cut(video, spec, segment_frames=(NUM_FRAMES - 1) // 2) is not None
    assert cut(video, spec, segment_frames=NUM_FRAMES // 2) is None
    with open_video(video, spec) as reader:
        assert reader.estimate_num_frames() == NUM_FRAMES
        assert is_long(reader, NUM_FRAMES // 2 - 1)
        assert not is_long(reader, NUM_FRAMES // 2)
    with open_video(Video("key", str(make("raw.h264"))), spec) as reader:
        assert reader.estimate_num_frames() is None
        assert is_long(reader, 10**6)


def test_the_estimate_counts_sampled_frames_of_the_range(make: Callable[..., Path]) -> None:
    video = Video("key", str(make("open.mp4")), start_seconds=2.0, end_seconds=100.0)
    with open_video(video, DecodeSpec(fps=10, resize=NATIVE)) as reader:
        assert reader.estimate_num_frames() == 60


def test_damage_within_the_first_frames_leaves_a_video_uncut(test_data: Path) -> None:
    video = Video("key", str(test_data / "odd" / "corrupted.mp4"))
    assert cut(video, DecodeSpec(resize=NATIVE), segment_frames=8) is None


def test_late_damage_is_met_by_a_segment(make: Callable[..., Path], tmp_path: Path) -> None:
    content = bytearray(make("open.mp4").read_bytes())
    begin = int(0.75 * len(content))
    content[begin : begin + 500] = np.random.default_rng(0).bytes(500)
    (tmp_path / "damaged.mp4").write_bytes(content)
    video, spec = Video("key", str(tmp_path / "damaged.mp4")), DecodeSpec(resize=NATIVE)
    with pytest.raises(VideoError, match="broke off") as caught:
        read(video, spec)
    found = cut(video, spec)
    assert found is not None  # its packets look sound
    refused = []
    for segment in found.segments:
        try:
            read_segment(video, spec, segment)
        except VideoError:
            refused.append(segment)
    assert refused
    assert caught.value.num_frames is not None
    assert refused[0].start <= caught.value.num_frames <= refused[0].stop + 1


def test_segments_of_another_video_are_refused(make: Callable[..., Path]) -> None:
    spec = DecodeSpec(resize=NATIVE)
    found = cut(Video("key", str(make("variable.mp4"))), spec)
    assert found is not None
    other = Video("key", str(make("open.mp4")))
    for segment in found.segments:
        with pytest.raises(VideoError, match="are not the frames that the scan found"):
            read_segment(other, spec, segment)


def test_a_video_that_goes_on_behind_its_last_segment_is_refused(
    make: Callable[..., Path],
) -> None:
    video, spec = Video("key", str(make("open.mp4"))), DecodeSpec(resize=NATIVE)
    found = cut(dataclasses.replace(video, end_seconds=6.0), spec)
    assert found is not None
    with pytest.raises(VideoError, match="are not the frames that the scan found"):
        read_segment(video, spec, found.segments[-1])


class MemoryReader(FrameReader):
    """Pictures with times at will, whose pixels are their numbers."""

    def __init__(self, times: list[Fraction], duration: Fraction, video: Video, spec: DecodeSpec):
        super().__init__(video, spec)
        self._times = times
        self._duration = duration
        self.info = VideoInfo(2, 2, 0, None, None, "memory")
        self.size = self._resized = (2, 2)

    def scan(self, on_progress: Callable[[], None]) -> Scan:
        return Scan(self._times, [self._duration] * len(self._times), [])

    def _pictures(self) -> Iterator[Picture]:
        return self._pictures_from(0)

    def _pictures_of(self, segment: Segment, on_progress: Callable[[], None]) -> Iterator[Picture]:
        return self._pictures_from(segment.first_picture)

    def _pictures_from(self, first: int) -> Iterator[Picture]:
        for number in range(first, len(self._times)):
            self.num_frames_decoded += 1
            rgb = np.full((2, 2, 3), number, np.uint8)
            yield Picture(self._times[number], self._duration, lambda rgb=rgb: rgb, number)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_times_and_any_sampling_are_cut_without_a_trace(data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(1, 12), min_size=8, max_size=60))
    times = [Fraction(sum(gaps[:number]), 50) for number in range(len(gaps))]
    duration = Fraction(data.draw(st.integers(0, 30)), 50)
    last = float(times[-1])
    start = data.draw(st.none() | st.floats(0, last / 2))
    end = data.draw(st.none() | st.floats(last / 2, last + 2))
    fps = data.draw(st.none() | st.sampled_from([3, 7.5, 12, 25, 29.97, 50, 120]))
    step = data.draw(st.integers(1, 4))
    video = Video("key", "source", start_seconds=start, end_seconds=end)
    spec = DecodeSpec(fps=fps, resize=NATIVE)

    def opened() -> MemoryReader:
        return MemoryReader(times, duration, video, spec)

    with opened() as reader:
        try:
            whole = [(int(frame.gray[0, 0]), frame.seconds) for frame in reader]
        except VideoError:
            return
        num_decoded = reader.num_frames_decoded
    segment_frames = data.draw(st.integers(1, max(1, len(whole) // 3)))
    found = plan_cut(opened(), segment_frames=segment_frames, step=step, on_progress=lambda: None)
    if found is None:
        assert len(whole) - step <= 2 * segment_frames
        return
    assert found.num_frames_decoded == num_decoded
    assert found.segments[-1].stop == len(whole) - step
    for segment in found.segments:
        frames = [(int(f.gray[0, 0]), f.seconds) for f in opened().read_segment(segment)]
        assert frames == whole[segment.start : segment.stop + step]


def test_times_that_do_not_rise_leave_a_video_uncut() -> None:
    times = [Fraction(number) for number in (0, 1, 2, 2, 3, 4)]
    reader = MemoryReader(times, Fraction(1), Video("key", "source"), DecodeSpec(resize=NATIVE))
    assert plan_cut(reader, segment_frames=1, step=1, on_progress=lambda: None) is None
