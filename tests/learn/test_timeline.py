"""Scores over time: the windows of a video, their segments, times and files."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, InputError, VideoError
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import Checkpoint, restore_model
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.clips.window_spans import cut_windows, frame_borders
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.predict import Predictor
from flowprep.learn.scores import Scores
from flowprep.learn.timeline import Timeline, clock, find_segments, parse_thresholds
from flowprep.learn.timeline_files import write_timeline
from flowprep.learn.timeline_png import drawn_classes, timeline_png
from flowprep.learn.timeline_spec import TimelineSpec
from flowprep.run.driver import run_extract
from flowprep.synthetic import action_scene, write_video
from tests.learn.small import FLOW, RGB, make_checkpoint
from tests.torch_devices import one_thread
from tests.video.test_damage import end_a_picture

__all__ = ["one_thread"]

CENTER = ViewSpec(1, 1)
NUM_FRAMES = 30
SPEC = TimelineSpec(8, 5)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    scene = action_scene("zoom_in", num_frames=NUM_FRAMES, width=64, height=48, seed=5)
    write_video(path, (scene.frame(t) for t in range(NUM_FRAMES)), 10)
    return path


def extracted(video: Path, config: ExtractConfig, out: Path) -> FlowDataset:
    options = RunOptions(executor="inline", progress=False)
    assert run_extract(collect_videos(video), str(out), config, options).is_complete
    return open_dataset(out)


@pytest.mark.parametrize(
    "clip", [FLOW, RGB, ClipSpec("flow", 4, stack="bidirectional", crop_px=32)]
)
def test_a_window_scores_as_its_own_middle_clip(
    dataset: FlowDataset, long_video: Path, tmp_path: Path, clip: ClipSpec
) -> None:
    checkpoint = make_checkpoint(dataset, clip=clip)
    timeline = Predictor([checkpoint], CENTER).timeline(long_video, SPEC)
    count = NUM_FRAMES if clip.stream == "rgb" else NUM_FRAMES - 1
    assert timeline.windows.starts.tolist() == [0, 5, 10, 15, 20, count - 8]
    np.testing.assert_allclose(timeline.start_seconds, timeline.windows.starts / 10)
    np.testing.assert_allclose(timeline.end_seconds, timeline.windows.stops / 10)

    stored = extracted(long_video, dataset.config, tmp_path / "out")
    model = restore_model(checkpoint)
    (one,) = model.inputs
    video = stored.videos[0]
    (crop,) = view_crops(video.width, video.height, clip, 1)
    for number, start in enumerate(timeline.windows.starts.tolist()):
        # The middle clip of 8 fields; the lower of two middles.
        first = start + (8 - one.num_frames) // 2
        x = load_clip(stored, video, range(first, first + one.num_frames), crop, clip, one)
        with torch.inference_mode():
            logits = model.eval()(torch.from_numpy(x)[None])
        np.testing.assert_allclose(timeline.scores.logits[number], logits[0], atol=1e-4)
    assert np.ptp(timeline.scores.logits, axis=0).max() > 0.01


def test_networks_are_fused_window_by_window(dataset: FlowDataset, long_video: Path) -> None:
    networks = [make_checkpoint(dataset, clip=RGB), make_checkpoint(dataset, seed=1)]
    both = Predictor(networks, CENTER).timeline(long_video, SPEC)
    alone = [Predictor([one], CENTER).timeline(long_video, SPEC).scores for one in networks]
    # Windows of RGB alone may take one frame more: the last window is another.
    rgb, flow = (scores.select(range(5)) for scores in alone)
    fused = fuse_scores([rgb, flow])
    assert both.windows.starts.tolist() == [0, 5, 10, 15, 20, 21]
    np.testing.assert_allclose(both.probabilities[:5], fused.probabilities, atol=1e-5)
    assert both.scores.stream == "rgb+flow"


def test_a_short_video_is_one_window_as_predict_sees_it(
    dataset: FlowDataset, long_video: Path
) -> None:
    predictor = Predictor([make_checkpoint(dataset)], ViewSpec(3, 3))
    timeline = predictor.timeline(long_video, TimelineSpec(64, 16))
    (prediction,) = predictor.predict(long_video)
    assert prediction.scores is not None
    np.testing.assert_allclose(timeline.probabilities, prediction.scores.probabilities, atol=1e-6)
    assert timeline.end_seconds.tolist() == [2.9]
    (note,) = predictor.notes
    assert note == f"{long_video} has 29 frames, fewer than a window of 64; it is one window"


def test_tail_may_be_dropped(dataset: FlowDataset, long_video: Path) -> None:
    predictor = Predictor([make_checkpoint(dataset)], CENTER)
    timeline = predictor.timeline(long_video, TimelineSpec(8, 5, "drop"))
    assert timeline.windows.starts.tolist() == [0, 5, 10, 15, 20]
    assert timeline.summary() == (
        f"{long_video}: 5 windows of 8 frames, one every 5, up to 0:02.8; the last 1 frame left out"
    )


def test_damage_ends_the_timeline(dataset: FlowDataset, tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.avi", tmp_path / "damaged.avi"
    scene = action_scene("zoom_in", num_frames=NUM_FRAMES, width=64, height=48, seed=5)
    frames = (scene.frame(t) for t in range(NUM_FRAMES))
    write_video(whole, frames, 10, codec="mjpeg", pixel_format="yuvj420p")
    damaged.write_bytes(end_a_picture(whole.read_bytes()))
    checkpoint = make_checkpoint(dataset)
    with pytest.raises(VideoError) as error:
        Predictor([checkpoint], CENTER).timeline(damaged, SPEC)
    assert error.value.reason == "damaged"
    expected = Predictor([checkpoint], CENTER).timeline(whole, SPEC)
    predictor = Predictor([with_decode(checkpoint, on_damage="cut")], CENTER)
    timeline = predictor.timeline(damaged, SPEC)
    assert timeline.damage is not None
    assert expected.damage is None
    same = len(timeline.windows) - 1
    assert 1 <= same < len(expected.windows) - 1
    assert timeline.windows.starts[:same].tolist() == expected.windows.starts[:same].tolist()
    np.testing.assert_allclose(
        timeline.probabilities[:same], expected.probabilities[:same], atol=1e-6
    )
    assert f"{damaged} is damaged; only what came before the damage was seen" in predictor.notes


def with_decode(checkpoint: Checkpoint, **values: Any) -> Checkpoint:
    (task,) = checkpoint.tasks
    decode = dataclasses.replace(task.config.decode, **values)
    config = dataclasses.replace(task.config, decode=decode)
    changed = dataclasses.replace(task, extract=config.to_dict())
    return dataclasses.replace(checkpoint, tasks=(changed,))


def test_times_are_those_of_the_stamps(
    dataset: FlowDataset, long_video: Path, tmp_path: Path
) -> None:
    # From frame 10 on, a frame is shown three times as long.
    stamps = [t if t < 10 else 10 + 3 * (t - 10) for t in range(NUM_FRAMES)]
    path = tmp_path / "variable.mkv"
    with av.open(str(long_video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"  # type: ignore[union-attr]
        stream.codec_context.options = {"bf": "0"}
        for stamp, frame in zip(stamps, source.decode(video=0), strict=True):
            frame.pts = stamp
            frame.time_base = Fraction(1, 10)
            target.mux(stream.encode(frame))  # type: ignore[union-attr]
        target.mux(stream.encode(None))  # type: ignore[union-attr]
    predictor = Predictor([make_checkpoint(dataset)], CENTER)
    timeline = predictor.timeline(path, SPEC)
    starts, stops = timeline.windows.starts, timeline.windows.stops
    np.testing.assert_allclose(timeline.start_seconds, np.array(stamps)[starts] / 10, atol=1e-3)
    np.testing.assert_allclose(timeline.end_seconds, np.array(stamps)[stops] / 10, atol=1e-3)
    # Sampled at a fixed rate, frame t is shown at t / fps.
    fixed = Predictor([with_decode(make_checkpoint(dataset), fps=5.0)], CENTER)
    timeline = fixed.timeline(path, SPEC)
    np.testing.assert_allclose(timeline.start_seconds, timeline.windows.starts / 5)


def test_what_cannot_have_a_timeline(
    dataset: FlowDataset, long_video: Path, tmp_path: Path
) -> None:
    predictor = Predictor([make_checkpoint(dataset)], CENTER)
    with pytest.raises(ConfigError, match="window must be at least 3, because a clip of the net"):
        predictor.timeline(long_video, TimelineSpec(2, 1))
    with pytest.raises(InputError, match="VIDEO does not exist"):
        predictor.timeline(tmp_path / "no.mp4", SPEC)
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(long_video.read_bytes())
    with pytest.raises(InputError, match=r"must be one video for a timeline, but .* holds 2"):
        predictor.timeline(tmp_path, SPEC)
    other = with_decode(make_checkpoint(dataset, clip=RGB), fps=5.0)
    with pytest.raises(ConfigError, match="one for the source's rate and one for 5 fps"):
        Predictor([make_checkpoint(dataset), other], CENTER).timeline(long_video, SPEC)
    with pytest.raises(ConfigError, match="stride must be at least 1, got 0"):
        TimelineSpec(8, 0)


# ---- segments


def made(
    probabilities: NDArray[np.float64], length: int, stride: int, *, fps: float | None = 10.0
) -> Timeline:
    """A timeline of windows with the given scores."""
    num_windows, num_classes = probabilities.shape
    windows = cut_windows((num_windows - 1) * stride + length, length=length, stride=stride)
    assert len(windows) == num_windows
    names = tuple(f"class {n}" for n in range(num_classes))
    keys = tuple(map(str, range(num_windows)))
    labels = np.full(num_windows, -1)
    scores = Scores(keys, labels, np.zeros_like(probabilities), probabilities, names, "flow")
    borders = frame_borders(int(windows.stops[-1]), fps=fps)
    return Timeline("video.mp4", TimelineSpec(length, stride), windows, scores, borders, fps)


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.data())
def test_segments_are_the_frames_whose_nearest_window_is_above(
    num_windows: int, length: int, stride: int, data: st.DataObject
) -> None:
    above = data.draw(st.lists(st.booleans(), min_size=num_windows, max_size=num_windows))
    timeline = made(np.where(above, 0.8, 0.2)[:, None], length, stride)
    first, last = timeline.spans()
    assert (first < last).all()
    assert (first >= timeline.windows.starts).all()
    assert (last <= timeline.windows.stops).all()
    if stride <= length:
        # They leave no gap, and each is at the middle of its window.
        assert first[0] == 0
        assert (first[1:] == last[:-1]).all()
        middle = (timeline.windows.starts + timeline.windows.stops) / 2
        for frame in range(int(last[-1])):
            own = int(np.searchsorted(last, frame, side="right"))
            distances = abs(frame + 0.5 - middle)
            assert distances[own] <= distances.min() + 1
    expected = np.zeros(int(last[-1]), bool)
    for number in np.flatnonzero(above):
        expected[first[number] : last[number]] = True
    found = find_segments(timeline, {0: 0.5})
    frames = np.zeros_like(expected)
    for one in found:
        assert not frames[one.first_frame : one.stop_frame].any()
        frames[one.first_frame : one.stop_frame] = True
        assert one.score == pytest.approx(0.8)
    np.testing.assert_array_equal(frames, expected)
    # Neighbors are joined.
    assert all(a.stop_frame < b.first_frame for a, b in itertools.pairwise(found))


def test_short_segments_are_left_out_and_classes_have_their_own_threshold() -> None:
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.3, 0.7], [0.9, 0.1]])
    timeline = made(scores, 4, 4)
    found = find_segments(timeline, parse_thresholds(["0.5"], timeline.class_names))
    assert [(one.name, one.start_seconds, one.end_seconds) for one in found] == [
        ("class 0", 0.0, 0.4),
        ("class 1", 0.4, 1.6),
        ("class 0", 1.6, 2.0),
    ]
    assert found[1].score == pytest.approx(2 / 3)
    long = find_segments(timeline, {0: 0.5, 1: 0.5}, min_seconds=0.5)
    assert [one.label for one in long] == [1]
    thresholds = parse_thresholds([".5", "class 0=0.35"], timeline.class_names)
    assert thresholds == {0: 0.35, 1: 0.5}
    found = find_segments(timeline, thresholds)
    assert [(one.label, one.first_frame, one.stop_frame) for one in found if not one.label] == [
        (0, 0, 8),
        (0, 16, 20),
    ]
    assert parse_thresholds(["class 1=0.65"], timeline.class_names) == {1: 0.65}
    assert find_segments(timeline, {}) == []


def test_windows_with_a_gap_are_not_joined() -> None:
    found = find_segments(made(np.ones((3, 1)), 4, 6), {0: 0.5})
    assert [(one.first_frame, one.stop_frame) for one in found] == [(0, 4), (6, 10), (12, 16)]


def test_without_a_frame_rate_there_are_frames() -> None:
    timeline = made(np.ones((3, 1)), 4, 2, fps=None)
    (one,) = find_segments(timeline, {0: 0.5})
    assert one.times() == "frames 0 to 7"
    assert math.isnan(one.start_seconds)
    with pytest.raises(ConfigError, match=r"min_seconds needs times, but video\.mp4 has no frame"):
        find_segments(timeline, {0: 0.5}, min_seconds=1)
    assert timeline_png(timeline).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["1.5"], "must be a probability above 0"),
        (["0"], "must be a probability above 0"),
        (["walk"], "must be a probability above 0 and at most 1, or CLASS=VALUE, got 'walk'"),
        (["wlak=.5"], "must name a class of the networks, got wlak; did you mean walk?"),
        ([".5", ".6"], "for all classes must be given once"),
        (["walk=.5", "walk=.6"], "of walk must be given once"),
    ],
)
def test_what_is_no_threshold(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_thresholds(texts, ["walk", "a=b"])
    assert words in str(error.value)
    assert parse_thresholds(["a=b=.5"], ["walk", "a=b"]) == {1: 0.5}


def test_times_are_written_for_people() -> None:
    assert [clock(seconds) for seconds in (0, 59.96, 65.25, 3600)] == [
        "0:00.0",
        "1:00.0",
        "1:05.2",
        "1:00:00.0",
    ]


# ---- files


def test_files_hold_the_same_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    timeline = made(rng.dirichlet(np.ones(3), 6), 8, 4)
    thresholds = {0: 0.4, 2: 0.4}
    segments = find_segments(timeline, thresholds)
    assert segments
    options: dict[str, Any] = {"segments": segments, "thresholds": thresholds}
    written = write_timeline(timeline, str(tmp_path / "new/t.csv"), **options)
    assert written == [str(tmp_path / "new/t.csv"), str(tmp_path / "new/t.segments.csv")]
    rows = list(csv.DictReader(io.StringIO(Path(written[0]).read_text())))
    values = json.loads(
        Path(*write_timeline(timeline, str(tmp_path / "t.json"), **options)).read_text()
    )
    assert len(rows) == len(values["windows"]) == 6
    for row, window, expected in zip(rows, values["windows"], timeline.probabilities, strict=True):
        assert [float(row[name]) for name in timeline.class_names] == window["scores"]
        np.testing.assert_allclose(window["scores"], expected, atol=1e-6)
        assert [float(row["start_seconds"]), float(row["end_seconds"])] == window["segment"]
        assert [int(row["first_frame"]), int(row["stop_frame"])] == window["frames"]
    cells = list(csv.DictReader(io.StringIO(Path(written[1]).read_text())))
    assert [one["class"] for one in cells] == [one["label"] for one in values["segments"]]
    assert [one["label"] for one in values["segments"]] == [one.name for one in segments]
    assert values["thresholds"] == {"class 0": 0.4, "class 2": 0.4}
    # Without a threshold, there is no file of segments; without a rate, no seconds.
    alone = made(np.ones((1, 1)), 8, 4, fps=None)
    assert write_timeline(alone, str(tmp_path / "a.csv")) == [str(tmp_path / "a.csv")]
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == ",,0,8,1.0"
    with pytest.raises(ConfigError, match=r"must end in \.csv, \.png, \.json, got 'a\.txt'"):
        write_timeline(alone, "a.txt")


def test_picture_shows_the_classes_that_matter() -> None:
    # Class 7 is high for one window; class 3 has the longest segment; the rest is low.
    scores = np.full((40, 40), 0.005)
    scores[:20, 3] = 0.6
    scores[30, 7] = 0.9
    timeline = made(scores, 8, 4)
    segments = find_segments(timeline, {3: 0.5})
    assert drawn_classes(timeline, segments, 1) == [3]
    assert drawn_classes(timeline, [], 1) == [7]
    assert drawn_classes(timeline, segments, 2) == [3, 7]
    sizes = []
    for number in (1, 10):
        png = timeline_png(timeline, segments, {3: 0.5}, num_drawn=number)
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        sizes.append(image.shape[0])
        # The bar of the segment covers half of the time, and nothing else has its color.
        is_bar = (image == (0x9C, 0x51, 0x08)).all(axis=2).sum(axis=1)
        assert 0.4 < is_bar.max() / image.shape[1] < 0.55
    assert sizes[0] < sizes[1]
