"""Each fault is told by its signs, and sound videos are not told at all."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import flowprep
from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.errors import NoteCode
from flowprep.inputs.manifest import collect_videos
from flowprep.look.findings.checks import find_in_sample, find_in_statistics
from flowprep.look.findings.kinds import KINDS
from flowprep.look.findings.measures import VideoSample, measure_pair, plateau, repeats
from flowprep.look.findings.statistics import (
    VideoStatistics,
    jumps,
    suspected_copies,
    suspicious_pairs,
)
from flowprep.look.report.report import Report, make_report
from flowprep.synthetic import Layer, Motion, Scene, Shape
from flowprep.video.decode import open_video
from tests.look.faults import SEEDED

Flow = NDArray[np.float32]
SPEC = FlowSpec("farneback")
SCENE = Scene(
    120,
    90,
    (
        Layer(1, (Motion(velocity_px=(1.4, -0.8)),)),
        Layer(
            2, (Motion(offset_px=(60, 45), velocity_px=(-1, 2), turn_rate=0.05),), Shape(9, 9, 9)
        ),
    ),
)
STATISTICS = VideoStatistics(
    key="a/b",
    num_flows=6,
    num_values=1000,
    num_clipped=0,
    num_invalid=0,
    num_fields=12,
    num_zero_fields=0,
    mean_px=1.0,
    max_px=3.0,
    moving_share=0.5,
    num_expected=7,
    num_decoded=7,
    rotation=0,
    is_partial=False,
    damage="",
    num_damaged=0,
    notes={},
    flat=np.zeros(6, bool),
    flow_bytes=np.full(6, 1000),
    repeated=np.zeros(7, bool),
)


def stored(flow: Flow) -> Flow:
    return flowprep.dequantize(flowprep.quantize(flow, SPEC), SPEC)


def sample_of(change: Callable[[Flow, Flow], tuple[Flow, Flow]]) -> VideoSample:
    """Frames of a moving scene with its exact flow, changed and quantised."""
    pairs, plateaus = [], []
    for t in range(6):
        forward, backward = change(SCENE.flow(t), SCENE.backward_flow(t))
        frames = np.stack([SCENE.frame(t), SCENE.frame(t + 1)])
        pairs.append(measure_pair(t, frames, stored(forward), stored(backward), SPEC))
        plateaus.append((t, *plateau(stored(forward), SPEC)))
    return VideoSample(tuple(pairs), (), 120 * 90, True, True, 120, tuple(plateaus))


def kinds_of(sample: VideoSample, statistics: VideoStatistics = STATISTICS) -> list[str]:
    return [finding.kind for finding in find_in_sample(statistics, sample)]


def flipped(flow: Flow, axis: int) -> Flow:
    signs = np.ones(2, np.float32)
    signs[axis] = -1
    return flow * signs


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda f, b: (f[..., ::-1], b[..., ::-1]), "swapped"),
        (lambda f, b: (-f, -b), "reversed"),
        (lambda f, b: (b, f), "reversed"),
        (lambda f, b: (flipped(f, 0), flipped(b, 0)), "mirrored"),
        (lambda f, b: (flipped(f, 1), flipped(b, 1)), "mirrored"),
    ],
)
def test_exact_flow_taken_for_another_is_told(
    change: Callable[[Flow, Flow], tuple[Flow, Flow]], kind: str
) -> None:
    assert kind in kinds_of(sample_of(change))


def test_exact_flow_is_sound() -> None:
    assert set(kinds_of(sample_of(lambda f, b: (f, b)))) <= {"camera"}


def test_noise_is_blown_up() -> None:
    rng = np.random.default_rng(0)

    def noise(forward: Flow, backward: Flow) -> tuple[Flow, Flow]:
        fields = rng.normal(0, 6, (2, *forward.shape)).astype(np.float32)
        return fields[0], fields[1]

    assert "blown-up" in kinds_of(sample_of(noise))


def test_zero_flow_of_moving_frames() -> None:
    assert kinds_of(
        sample_of(lambda f, b: (0 * f, 0 * b)),
        dataclasses.replace(STATISTICS, flat=np.ones(6, bool)),
    ) == ["zero-flow"]


def test_still_picture() -> None:
    frames = np.stack([SCENE.frame(0)] * 2)
    zero = stored(np.zeros((90, 120, 2), np.float32))
    pairs = tuple(measure_pair(t, frames, zero, zero, SPEC) for t in range(6))
    sample = VideoSample(pairs, (), 120 * 90, True, True, 120)
    assert kinds_of(sample, dataclasses.replace(STATISTICS, flat=np.ones(6, bool))) == ["still"]


@pytest.mark.parametrize("level", [0, 128])
def test_blank_frames(level: int) -> None:
    frames = np.full((2, 90, 120, 3), level, np.uint8)
    zero = stored(np.zeros((90, 120, 2), np.float32))
    pairs = tuple(measure_pair(t, frames, zero, zero, SPEC) for t in range(6))
    assert kinds_of(VideoSample(pairs, (), 120 * 90, True, True, 120)) == ["black"]


def test_motion_cut_off_at_a_low_bound() -> None:
    def clip(forward: Flow, backward: Flow) -> tuple[Flow, Flow]:
        return np.clip(2 * forward, -2, 2), np.clip(2 * backward, -2, 2)

    assert "clipped" in kinds_of(sample_of(clip))


def test_copies_are_counted_by_size_and_confirmed_by_pixels() -> None:
    sample = sample_of(lambda f, b: (f, b))
    repeated = np.array([False, True] * 3 + [True])
    statistics = dataclasses.replace(STATISTICS, repeated=repeated)
    assert suspected_copies(statistics) == [1, 3, 5, 6]
    copies = dataclasses.replace(sample, copies=((1, 0.0), (3, 0.1), (5, 0.0), (6, 0.0)))
    assert "duplicates" in kinds_of(copies, statistics)
    chance = dataclasses.replace(sample, copies=((1, 3.0), (3, 2.0), (5, 0.0), (6, 4.0)))
    assert "duplicates" not in kinds_of(chance, statistics)


def test_frames_that_come_twice_are_dips_between_others() -> None:
    sample = sample_of(lambda f, b: (f, b))
    twice = dataclasses.replace(sample, run=(27.0, 0.1, 28.0, 0.6) * 3 + (25.0,))
    assert "duplicates" in kinds_of(twice)
    thrice = dataclasses.replace(sample, run=(9.0, 0.1, 0.2) * 4 + (8.0,))
    assert repeats(np.array(thrice.run)) == [1, 2, 4, 5, 7, 8, 10, 11]
    pulldown = dataclasses.replace(sample, run=(9.0, 8.0, 1.0, 9.0, 10.0) * 3)
    assert "duplicates" in kinds_of(pulldown)
    # A swing rests at its turns, and a video that stands still has no frame that comes twice.
    swing = np.abs(4 * np.sin(np.arange(15) * np.pi / 5))
    for run in (swing, np.full(15, 0.1), np.r_[np.full(7, 9.0), np.full(8, 0.1)]):
        assert "duplicates" not in kinds_of(dataclasses.replace(sample, run=tuple(run.tolist())))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"num_invalid": 3}, "invalid"),
        ({"is_partial": True, "damage": "broken"}, "partial"),
        ({"num_expected": 100, "num_decoded": 60}, "short"),
        ({"num_clipped": 90}, "clipped"),
    ],
)
def test_what_statistics_alone_tell(change: dict[str, object], kind: str) -> None:
    assert find_in_statistics(STATISTICS) == []
    (finding,) = find_in_statistics(dataclasses.replace(STATISTICS, **change))  # type: ignore[arg-type]
    assert (finding.kind, finding.key) == (kind, "a/b")


def test_a_jump_in_size_shows_the_cut() -> None:
    sizes = np.array([100, 104, 98, 101, 400, 99, 103, 100, 97], np.float64)
    jump = jumps(sizes, 1)
    assert jump.argmax() == 4
    assert jump[4] == pytest.approx(4, rel=0.05)
    assert np.delete(jump, 4).max() < 1.1
    statistics = dataclasses.replace(STATISTICS, flow_bytes=sizes.astype(np.int64))
    assert suspicious_pairs(statistics, 1) == [4, 3, 5]
    assert jumps(np.array([7.0]), 1).tolist() == [1.0]


def test_ten_seeded_faults_are_found_and_nothing_else(seeded_report: Report) -> None:
    found = {
        (finding.key, finding.kind)
        for finding in seeded_report.findings
        if KINDS[finding.kind].severity != "note"
    }
    assert found == set(SEEDED.items())


REPEATING = {
    "Biking/v_Biking_g10_c02",
    "Biking/v_Biking_g20_c06",
    "BoxingSpeedBag/v_BoxingSpeedBag_g09_c01",
    "Diving/v_Diving_g03_c07",
    "JavelinThrow/v_JavelinThrow_g22_c01",
    "JavelinThrow/v_JavelinThrow_g24_c01",
}
"""Clips of UCF101 whose files hold every second to every fifth frame twice."""


def test_no_false_alarm_on_real_clips(test_data: Path, tmp_path: Path) -> None:
    annotations = test_data / "ucf101/ucfTrainTestlist"
    ucf = collect_videos(test_data / "ucf101/videos", annotations=annotations, allow_missing=True)
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("short:96")), FlowSpec("farneback"))
    found = set()
    for name, manifest in (("ucf", ucf), ("asl", collect_videos(test_data / "asl"))):
        # The first seconds are enough, and affordable.
        videos = tuple(dataclasses.replace(video, end_seconds=1.5) for video in manifest.videos)
        out = tmp_path / name
        cut = dataclasses.replace(manifest, videos=videos)
        flowprep.extract(cut, out, config, executor="inline")
        report = make_report(out)
        assert len(report.rows) == {"ucf": 24, "asl": 20}[name]
        for finding in report.findings:
            if KINDS[finding.kind].severity != "note":
                found.add((finding.key, finding.kind))
    # In their first seconds not all of them do.
    assert found <= {(key, "duplicates") for key in REPEATING}
    assert len(found) >= 4
    # And these are no false alarms: the files themselves have it.
    for video in ucf.videos:
        if video.key in REPEATING:
            with open_video(video, config.decode) as reader:
                frames = np.stack([frame.gray for frame in itertools.islice(reader, 45)])
            differences = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2))
            assert len(repeats(differences)) >= 7, video.key


def test_what_extract_noted_is_found() -> None:
    notes: dict[NoteCode, str] = {
        "concealed": "2 pictures damaged",
        "irregular-stamps": "3 time stamps out of order",
    }
    noted = dataclasses.replace(STATISTICS, num_damaged=2, notes=notes)
    found = find_in_statistics(noted)
    assert [(one.kind, one.key) for one in found] == [("noted", "a/b"), ("concealed", "a/b")]
    assert found[0].detail.endswith(": 3 time stamps out of order")
    assert find_in_statistics(STATISTICS) == []
