"""Odd clocks: every frame is there, in the decoder's order, or there is a reason."""

from __future__ import annotations

import re
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowprep.config import DecodeSpec
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video.cut import plan_cut
from flowprep.video.decode import open_video
from flowprep.video.reader import FrameReader
from tests.video.irregular import CODECS, gray_of, join, patch_flv, write_plain, write_shown

FRAME = Fraction(1, 25)
REGULAR = [number * FRAME for number in range(12)]


def open_path(path: Path, spec: DecodeSpec | None = None, **values: float) -> FrameReader:
    return open_video(Video("key", str(path), **values), spec or DecodeSpec())  # type: ignore[arg-type]


def read_numbers(path: Path, count: int, spec: DecodeSpec | None = None) -> list[int]:
    """Returns which of `count` pictures each frame shows."""
    levels = {gray_of(number): number for number in range(count)}
    with open_path(path, spec) as reader:
        grays = [round(float(frame.gray.mean())) for frame in reader]
        check_counts(reader, len(grays))
    return [levels[min(levels, key=lambda level: abs(level - gray))] for gray in grays]


def check_counts(reader: FrameReader, num_kept: int) -> None:
    counts = reader.counts
    assert reader.num_frames_decoded == (
        counts.lead_in
        + counts.before_range
        + counts.after_range
        + num_kept
        - counts.repeated
        + counts.dropped
    )


def ffmpeg_count(path: Path, ffmpeg: str, *options: str, stream: int | None = None) -> int:
    """Returns how many frames ffmpeg's own command gives of a stream, or of the first of video."""
    which = "0:v:0" if stream is None else f"0:{stream}"
    command = [ffmpeg, "-nostdin", "-i", str(path), "-map", which, *options]
    command += ["-fps_mode", "passthrough", "-f", "null", "-"]
    text = subprocess.run(command, capture_output=True, check=True).stderr
    return int(re.findall(rb"frame=\s*(\d+)", text)[-1])


@st.composite
def shown_times(draw: st.DrawFn) -> list[Fraction]:
    """Times of presentation in s: mostly regular, with steps back and ahead, and repetitions."""
    times = [draw(st.sampled_from([Fraction(0), Fraction(3), Fraction(20)]))]
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["next", "next", "next", "back", "ahead", "equal"]))
        step = {"next": FRAME, "equal": Fraction(0)}.get(kind)
        if step is None:
            step = Fraction(draw(st.integers(1, 3000)), 100)
        times.append(max(Fraction(0), times[-1] + (-step if kind == "back" else step)))
    return times


@pytest.mark.parametrize("suffix", CODECS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(times=shown_times())
def test_every_picture_of_a_file_is_read_in_order(suffix: str, times: list[Fraction]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"odd{suffix}")
        if not write_shown(path, times):
            return  # the muxer refuses such stamps
        assert read_numbers(path, len(times)) == list(range(len(times)))


@pytest.mark.parametrize("suffix", CODECS)
def test_a_regular_clock_is_called_regular(suffix: str, tmp_path: Path) -> None:
    write_plain(tmp_path / f"plain{suffix}", 12)
    with open_path(tmp_path / f"plain{suffix}") as reader:
        assert len(list(reader)) == 12
        assert (reader.num_irregular_stamps, reader.notes) == (0, {})


@pytest.mark.parametrize(
    ("times", "num_irregular"),
    [
        ([20 + FRAME, *REGULAR[1:]], 1),
        ([*REGULAR[:6], *(97 + time for time in REGULAR[6:])], 1),
        ([*REGULAR[:6], *REGULAR[5:11]], 1),
        ([*REGULAR[:4], *(20 + time for time in REGULAR[4:8]), *REGULAR[8:]], 2),
    ],
    ids=["late", "ahead", "equal", "ahead and back"],
)
def test_irregular_stamps_are_counted_and_noted(
    times: list[Fraction], num_irregular: int, tmp_path: Path
) -> None:
    path = tmp_path / "odd.mkv"
    if not write_shown(path, times):
        pytest.fail("matroska takes these times")
    with open_path(path) as reader:
        assert len(list(reader)) == 12
        assert reader.num_irregular_stamps == num_irregular
        assert list(reader.notes) == ["irregular-stamps"]


RECORDINGS = [(7, Fraction(20)), (7, Fraction(0)), (7, Fraction(90))]


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
def test_joined_recordings_get_one_clock(suffix: str, tmp_path: Path, ffmpeg: str) -> None:
    path = tmp_path / f"joined{suffix}"
    join(path, RECORDINGS)
    assert read_numbers(path, 21) == list(range(21))
    # At the source's own rate each picture is shown once, and no gap is filled.
    assert read_numbers(path, 21, DecodeSpec(fps=25)) == list(range(21))
    for rate in (10, 12.5, 30, 60):
        count = len(read_numbers(path, 21, DecodeSpec(fps=rate)))
        assert count == ffmpeg_count(path, ffmpeg, "-vf", f"fps={rate}")


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
@pytest.mark.parametrize("bounds", [(0.1, 0.6), (0.0, 0.6), (7.0, 9.0)])
def test_a_range_of_joined_recordings_is_refused(
    suffix: str, bounds: tuple[float, float], tmp_path: Path
) -> None:
    path = tmp_path / f"joined{suffix}"
    join(path, [(10, Fraction(20)), (250, Fraction(0))])
    with (
        pytest.raises(VideoError) as caught,
        open_path(path, start_seconds=bounds[0], end_seconds=bounds[1]) as reader,
    ):
        list(reader)
    assert caught.value.reason == "irregular-clock"
    assert f"the range from {bounds[0]:g} s to {bounds[1]:g} s" in caught.value.message


def test_stamps_that_no_muxer_writes(tmp_path: Path, ffmpeg: str) -> None:
    path = tmp_path / "patched.flv"
    write_plain(path, 12)
    patch_flv(path, [900, 0, 40, 80, 80, 80, 60000, 100, 140, 180, 30, 20])
    assert read_numbers(path, 12) == list(range(12))
    with open_path(path) as reader:
        list(reader)
        # 0, twice 80, 60000, 100, 30 and 20.
        assert reader.num_irregular_stamps == 7
    with pytest.raises(VideoError, match=r"goes back from 0.900 to 0.000 s") as caught:
        list(open_path(path, end_seconds=0.5))
    assert caught.value.reason == "irregular-clock"


def test_a_late_first_stamp_costs_frames_only_at_a_rate_and_is_noted(
    tmp_path: Path, ffmpeg: str
) -> None:
    path = tmp_path / "late.mkv"
    assert write_shown(path, [Fraction(1, 5), *REGULAR[1:]])
    assert read_numbers(path, 12) == list(range(12))
    with open_path(path, DecodeSpec(fps=25)) as reader:
        num_frames = len(list(reader))
        assert num_frames == ffmpeg_count(path, ffmpeg, "-vf", "fps=25")
        assert "left out at 25 fps" in reader.notes["rate-drops"]


def test_a_file_that_was_trimmed_before_is_taken_whole(tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    write_plain(path, 250)
    for start in (5.0, 85.0, 2.0):
        with open_path(path, start_seconds=start, end_seconds=start + 10) as reader:
            assert len(list(reader)) == 250
            assert list(reader.notes) == ["already-trimmed"]
            assert f"from {start:g} s to {start + 10:g} s" in reader.notes["already-trimmed"]
            assert "10 s" in reader.notes["already-trimmed"]
    # The range fits: it is cut.
    with open_path(path, start_seconds=0.0, end_seconds=10.0) as reader:
        assert len(list(reader)) == 250
        assert reader.notes == {}
    with open_path(path, start_seconds=2.0, end_seconds=4.0) as reader:
        assert len(list(reader)) == 50
        assert (reader.notes, reader.counts.before_range) == ({}, 50)


def test_a_range_past_the_end_is_noted_or_has_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_plain(path, 50)
    with open_path(path, start_seconds=1.0, end_seconds=6.0) as reader:
        assert len(list(reader)) == 25
        assert reader.notes["past-the-end"] == (
            "the range from 1 s to 6 s ends 4 s after the video, which ends at 2 s"
        )
    # A clock that is off by a frame is ordinary.
    with open_path(path, start_seconds=1.0, end_seconds=2.03) as reader:
        assert len(list(reader)) == 25
        assert reader.notes == {}
    with (
        pytest.raises(VideoError, match="no frame lies from 7 s to 10 s of a video of 2 s"),
        open_path(path, start_seconds=7.0, end_seconds=10.0) as reader,
    ):
        list(reader)


@pytest.mark.parametrize("bounds", [(0.4, 1.2), (6.0, 7.0), (0.0, 0.5)])
@pytest.mark.parametrize("fps", [None, 10.0, 60.0])
def test_frames_of_a_range_are_accounted_for(
    bounds: tuple[float, float], fps: float | None, tmp_path: Path
) -> None:
    path = tmp_path / "long.mkv"
    write_plain(path, 250)
    spec = DecodeSpec(fps=fps)
    with open_path(path, spec, start_seconds=bounds[0], end_seconds=bounds[1]) as reader:
        check_counts(reader, len(list(reader)))
        assert reader.counts.after_range == 1
        # Later ranges are reached from a key frame; every picture is one here.
        is_far = bounds[0] >= 5
        assert reader.counts.before_range == (0 if is_far else 25 * bounds[0])


def test_a_long_still_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    assert write_shown(path, [*REGULAR[:6], *(15 + time for time in REGULAR[6:])])
    with open_path(path, DecodeSpec(fps=25)) as reader:
        assert len(list(reader)) == 12 + 15 * 25
        assert set(reader.notes) == {"irregular-stamps", "long-still"}
        assert reader.counts.repeated == 15 * 25


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(times=shown_times())
def test_an_edit_list_hides_what_ffmpeg_hides_and_says_so(
    times: list[Fraction], ffmpeg: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edited.mp4")
        if not write_shown(path, times, has_edit_list=True):
            return
        shown = ffmpeg_count(path, ffmpeg)
        try:
            with open_path(path) as reader:
                num_frames = len(list(reader))
                notes = dict(reader.notes)
        except VideoError as error:
            assert (error.reason, shown) == ("no-frames", 0)  # noqa: PT017
            return
        assert num_frames == shown
        assert ("edit-list" in notes) == (num_frames < len(times))
        # In the order of decoding, as far as they are shown.
        numbers = read_numbers(path, len(times))
        assert numbers == sorted(numbers)


def test_hidden_frames_are_noted_alike_in_segments(tmp_path: Path, ffmpeg: str) -> None:
    path = tmp_path / "edited.mp4"
    regular = [number * FRAME for number in range(60)]
    # The muxer begins the edit list with the first picture.
    times = [regular[9], *regular[1:9], *regular[10:]]
    assert write_shown(path, times, has_edit_list=True)
    shown = ffmpeg_count(path, ffmpeg)
    assert 40 < shown <= len(times) - 8
    note = f"its edit list hides {len(times) - shown} frames"
    with open_path(path) as reader:
        assert len(list(reader)) == shown
        assert reader.notes["edit-list"] == note
    with open_path(path) as reader:
        cut = plan_cut(reader, segment_frames=10, step=1, on_progress=lambda: None)
    assert cut is not None
    assert cut.notes["edit-list"] == note
