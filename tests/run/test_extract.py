"""One video through `extract_video`: what theory says of mirrored, reversed and shifted videos."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flowprep import (
    DecodeSpec,
    EncodeSpec,
    ExtractConfig,
    FlowSpec,
    VideoError,
    create_estimator,
    dequantize,
)
from flowprep.config import Resize
from flowprep.inputs.video import Video
from flowprep.run.extract import ExtractedVideo, extract_video
from flowprep.synthetic import Layer, Motion, Scene, action_scene, write_video

NUM_FRAMES = 5
NATIVE = DecodeSpec(resize=Resize.parse("none"))
FINE = EncodeSpec(jpeg_quality=100, keep_rgb=False)

# How far each algorithm is from exact equivariance, as a mean endpoint error in px over the frame.
# TV-L1 warps and medians at occlusions, and DIS propagates in scan order; measured .16, .16, .002
# and .07.
EQUIVARIANCE_PX = {"tvl1": 0.25, "tvl1-opencv": 0.25, "farneback": 0.01, "dis": 0.12}


def scene_frames(seed: int = 3, width: int = 112, height: int = 80) -> list[NDArray[np.uint8]]:
    """Frames of a scene with figures in front of a moving background."""
    scene = action_scene("rotate_clockwise", num_frames=20, width=width, height=height, seed=seed)
    return [scene.frame(3 * t) for t in range(NUM_FRAMES)]


def folder_of(frames: list[NDArray[np.uint8]], folder: Path) -> Video:
    """Writes frames without loss, so that two videos differ by what the test did to them alone."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        path = folder / f"img_{number:05d}.png"
        assert cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return Video(folder.name, str(folder))


def extracted(video: Video, algorithm: str = "farneback", **spec: object) -> ExtractedVideo:
    config = ExtractConfig(NATIVE, FlowSpec(algorithm, **spec), FINE)
    return extract_video(video, config, create_estimator(algorithm))


def levels_of(result: ExtractedVideo, direction: str = "forward") -> NDArray[np.uint8]:
    """Decodes a result's streams as (N - step, H, W, 2) uint8."""
    names = ("flow_x", "flow_y") if direction == "forward" else ("back_x", "back_y")
    planes = []
    for name in names:
        stream = result.streams[name]
        data, fields, begin = stream.read(), [], 0
        for size in stream.sizes:
            jpeg = np.frombuffer(data[begin : begin + size], np.uint8)
            fields.append(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))
            begin += size
        assert begin == len(data)
        planes.append(np.stack(fields))
    return np.stack(planes, axis=-1)


def flow_of(video: Video, algorithm: str, direction: str = "forward") -> NDArray[np.float32]:
    with extracted(video, algorithm) as result:
        return dequantize(levels_of(result, direction), FlowSpec())


def mean_epe(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.hypot(*np.moveaxis(one - other, -1, 0)).mean())


@pytest.mark.parametrize("algorithm", EQUIVARIANCE_PX)
def test_mirrored_video_has_mirrored_flow_with_u_negated(algorithm: str, tmp_path: Path) -> None:
    frames = scene_frames()
    plain = flow_of(folder_of(frames, tmp_path / "plain"), algorithm)
    mirrored = flow_of(folder_of([f[:, ::-1] for f in frames], tmp_path / "mirrored"), algorithm)
    expected = plain[:, :, ::-1] * np.float32([-1, 1])
    assert mean_epe(mirrored, expected) < EQUIVARIANCE_PX[algorithm]
    # Without the sign the error is that of a flow against its opposite.
    assert mean_epe(mirrored, plain[:, :, ::-1]) > 1


@pytest.mark.parametrize("algorithm", EQUIVARIANCE_PX)
def test_upside_down_video_has_v_negated(algorithm: str, tmp_path: Path) -> None:
    frames = scene_frames(4)
    plain = flow_of(folder_of(frames, tmp_path / "plain"), algorithm)
    flipped = flow_of(folder_of([f[::-1] for f in frames], tmp_path / "flipped"), algorithm)
    assert mean_epe(flipped, plain[:, ::-1] * np.float32([1, -1])) < EQUIVARIANCE_PX[algorithm]


@pytest.mark.parametrize("algorithm", EQUIVARIANCE_PX)
def test_reversed_video_swaps_forward_and_backward_exactly(algorithm: str, tmp_path: Path) -> None:
    frames = scene_frames()
    with (
        extracted(folder_of(frames, tmp_path / "plain"), algorithm) as plain,
        extracted(folder_of(frames[::-1], tmp_path / "reversed"), algorithm) as reversed_,
    ):
        np.testing.assert_array_equal(levels_of(reversed_), levels_of(plain, "backward")[::-1])
        np.testing.assert_array_equal(levels_of(reversed_, "backward"), levels_of(plain)[::-1])


@pytest.mark.parametrize("algorithm", EQUIVARIANCE_PX)
def test_shifted_video_has_the_shifted_flow(algorithm: str, tmp_path: Path) -> None:
    frames = scene_frames(width=160, height=128)
    right, down, margin = 8, 16, 16
    one = flow_of(folder_of([f[:-down, :-right] for f in frames], tmp_path / "one"), algorithm)
    other = flow_of(folder_of([f[down:, right:] for f in frames], tmp_path / "other"), algorithm)
    inner = slice(margin, -margin)
    common = one[:, down:, right:][:, inner, inner]
    shifted = other[:, :-down, :-right][:, inner, inner]
    assert mean_epe(common, shifted) < 2 * EQUIVARIANCE_PX[algorithm]


def test_flow_is_the_known_motion_right_and_down(tmp_path: Path) -> None:
    motion = Motion(velocity_px=(2.5, -1.5))
    scene = Scene(128, 96, (Layer(7, (motion,)),))
    video = folder_of([scene.frame(t) for t in range(3)], tmp_path / "scene")
    for direction, sign in (("forward", 1), ("backward", -1)):
        inner = flow_of(video, "tvl1", direction)[:, 8:-8, 8:-8]
        error = inner.mean(axis=(0, 1, 2)) - sign * np.array(motion.velocity_px)
        assert np.abs(error).max() < 0.1


def test_step_two_is_step_one_of_every_second_frame(tmp_path: Path) -> None:
    frames = scene_frames()
    with (
        extracted(folder_of(frames, tmp_path / "all"), step=2) as result,
        extracted(folder_of(frames[::2], tmp_path / "even")) as even,
    ):
        assert result.metadata.num_flows == NUM_FRAMES - 2
        np.testing.assert_array_equal(levels_of(result)[::2], levels_of(even))


def test_flow_of_a_range_is_that_part_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, scene_frames(), fps=25)
    with (
        extracted(Video("whole", str(path))) as whole,
        extracted(Video("part", str(path), start_seconds=0.04, end_seconds=0.16)) as part,
    ):
        assert part.metadata.num_frames == 3
        np.testing.assert_array_equal(levels_of(part), levels_of(whole)[1:3])


def test_two_extractions_give_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, scene_frames())
    config = ExtractConfig(flow=FlowSpec("farneback"))
    estimator = create_estimator("farneback")
    video = Video("clip", str(path))
    with (
        extract_video(video, config, estimator) as one,
        extract_video(video, config, estimator) as other,
    ):
        assert one.metadata == other.metadata
        for name, stream in one.streams.items():
            assert stream.read() == other.streams[name].read()


def test_metadata_says_what_was_read_and_computed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, scene_frames(), fps=25)
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("short:40")), FlowSpec("farneback", bound_px=0.3)
    )
    video = Video("clip", str(path), labels=(3,), split="train")
    with extract_video(video, config, create_estimator("farneback")) as result:
        metadata = json.loads(result.metadata.to_json())
        assert metadata["source"] == str(path)
        assert metadata["source_bytes"] == path.stat().st_size
        assert (metadata["source_width"], metadata["source_height"]) == (112, 80)
        assert (metadata["width"], metadata["height"]) == (56, 40)
        assert (metadata["num_frames"], metadata["num_flows"]) == (NUM_FRAMES, NUM_FRAMES - 1)
        assert (metadata["fps"], metadata["labels"], metadata["split"]) == (25, [3], "train")
        libraries = {"flowprep", "numba", "numpy", "opencv", "jpeg", "av", "ffmpeg"}
        assert metadata["versions"].keys() == libraries
        assert {name: len(sizes) for name, sizes in metadata["sizes"].items()} == {
            **dict.fromkeys(("flow_x", "flow_y", "back_x", "back_y"), NUM_FRAMES - 1),
            "rgb": NUM_FRAMES,
        }
        forward = metadata["flow"]["forward"]
        assert forward["num_values"] == 56 * 40 * 2 * (NUM_FRAMES - 1)
        assert sum(forward["magnitude_histogram"]) == 56 * 40 * (NUM_FRAMES - 1)
        # A scene that turns goes beyond a bound of .3 px.
        assert forward["num_clipped"] > 0
        assert forward["max_px"] > 0.3 > -0.3 > forward["min_px"]
        assert set(result.seconds) == {"decode", "flow", "encode"}


def test_directions_and_rgb_are_stored_as_asked(tmp_path: Path) -> None:
    video = folder_of(scene_frames(), tmp_path / "frames")
    encode = EncodeSpec(directions=("backward",), keep_rgb=False)
    config = ExtractConfig(NATIVE, FlowSpec("farneback"), encode)
    with extract_video(video, config, create_estimator("farneback")) as result:
        assert list(result.streams) == ["back_x", "back_y"]


def test_rgb_stream_shows_the_frames(tmp_path: Path) -> None:
    frames = scene_frames()
    config = ExtractConfig(NATIVE, FlowSpec("farneback"), EncodeSpec(rgb_jpeg_quality=100))
    video = folder_of(frames, tmp_path / "frames")
    with extract_video(video, config, create_estimator("farneback")) as result:
        stream = result.streams["rgb"]
        first = np.frombuffer(stream.read()[: stream.sizes[0]], np.uint8)
        rgb = cv2.cvtColor(cv2.imdecode(first, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        # JPEG halves the chroma's resolution; red and blue swapped would be tens of levels off.
        assert np.abs(rgb.astype(int) - frames[0]).mean() < 6


def test_static_video_has_zero_flow_and_says_so(tmp_path: Path) -> None:
    video = folder_of([scene_frames()[0]] * 3, tmp_path / "still")
    with extracted(video, "tvl1") as result:
        assert np.all(levels_of(result) == 128)
        assert result.metadata.flow["forward"].num_zero_fields == 2


@pytest.mark.parametrize(
    ("num_frames", "step", "message"),
    [
        (1, 1, "1 frame gives no flow at step 1; at least 2 are needed"),
        (3, 3, "3 frames give no flow at step 3; at least 4 are needed"),
    ],
)
def test_too_few_frames_are_refused(
    num_frames: int, step: int, message: str, tmp_path: Path
) -> None:
    video = folder_of(scene_frames()[:num_frames], tmp_path / "short")
    with pytest.raises(VideoError) as caught:
        extracted(video, step=step)
    assert caught.value.reason == "too-few-frames"
    assert str(caught.value) == message


def test_frames_too_small_for_flow_are_refused(tmp_path: Path) -> None:
    video = folder_of([f[:12, :40] for f in scene_frames()], tmp_path / "small")
    with pytest.raises(VideoError) as caught:
        extracted(video)
    assert caught.value.reason == "too-small"
    assert str(caught.value) == (
        "frames of 40x12 px are too small for flow; each side needs at least 16 px"
    )


def test_progress_is_called_for_every_frame_and_pair(tmp_path: Path) -> None:
    calls: list[None] = []
    video = folder_of(scene_frames(), tmp_path / "frames")
    config = ExtractConfig(NATIVE, FlowSpec("farneback"))
    with extract_video(
        video, config, create_estimator("farneback"), on_progress=lambda: calls.append(None)
    ):
        assert len(calls) == NUM_FRAMES + NUM_FRAMES - 1


def test_damaged_video_gives_nothing_or_what_came_before(test_data: Path) -> None:
    video = Video("corrupted", str(test_data / "odd" / "corrupted.mp4"))
    spec = DecodeSpec(resize=Resize.parse("short:64"))
    config = ExtractConfig(spec, FlowSpec("farneback"))
    estimator = create_estimator("farneback")
    with pytest.raises(VideoError) as caught:
        extract_video(video, config, estimator)
    assert caught.value.reason == "damaged"
    config = ExtractConfig(dataclasses.replace(spec, on_damage="cut"), FlowSpec("farneback"))
    with extract_video(video, config, estimator) as result:
        assert result.status == result.metadata.status == "partial"
        assert result.metadata.num_frames == caught.value.num_frames
        assert result.metadata.damage == caught.value.message
