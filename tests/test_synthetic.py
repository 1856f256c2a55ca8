"""The scenes' flow is checked against the frames, against itself, and against a formula."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep import synthetic
from flowprep.errors import ConfigError
from flowprep.synthetic import (
    ACTIONS,
    LOOKS,
    Layer,
    Motion,
    Scene,
    Shape,
    Sway,
    action_scene,
    textured_image,
    write_action_dataset,
    write_video,
)

WIDTH, HEIGHT = 128, 96
CENTER_PX = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
X, Y = np.meshgrid(np.arange(WIDTH, dtype=np.float64), np.arange(HEIGHT, dtype=np.float64))

MOTIONS: dict[str, Motion | Sway] = {
    "translation": Motion(velocity_px=(2.3, -1.4)),
    "accelerating": Motion(velocity_px=(1.0, 0.5), acceleration=0.5),
    "zoom": Motion(CENTER_PX, zoom_rate=0.03),
    "rotation": Motion(CENTER_PX, turn_rate=-0.04),
    "shear": Motion(CENTER_PX, shear_rate=0.05),
    "sway": Sway(CENTER_PX, amplitude_px=(2.0, 1.0), amplitude_angle=0.05),
    "everything": Motion(
        CENTER_PX,
        velocity_px=(-1.0, 0.7),
        turn_rate=0.02,
        zoom_rate=-0.01,
        shear_rate=0.01,
        rest_frame=2.5,
        acceleration=0.1,
    ),
}


def background(motion: Motion | Sway) -> Scene:
    return Scene(WIDTH, HEIGHT, (Layer(5, (motion,)),))


def with_figure(motion: Motion | Sway) -> Scene:
    """A moving box before a background that moves otherwise."""
    camera = Motion(velocity_px=(-0.6, 0.8))
    box = Layer(6, (motion, Motion(offset_px=(60.0, 50.0), angle=0.3)), Shape(14, 10, 5))
    return Scene(WIDTH, HEIGHT, (Layer(5, (camera,)), box))


def clean(scene: Scene) -> Scene:
    return dataclasses.replace(scene, flicker=0.0, noise=0.0)


def residual(scene: Scene, t: float) -> tuple[float, float]:
    """Mean and 99th percentile of |frame(t + 1) fetched along the flow - frame(t)|, grey levels."""
    flow = scene.flow(t)
    map_x, map_y = (X + flow[..., 0]).astype(np.float32), (Y + flow[..., 1]).astype(np.float32)
    fetched = cv2.remap(
        scene.frame(t + 1), map_x, map_y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101
    )
    difference = np.abs(fetched.astype(np.float64) - scene.frame(t))[scene.valid(t)]
    return float(difference.mean()), float(np.percentile(difference, 99))


def follow(
    scene: Scene, t: float, step: float, then: float, then_step: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The flow (then, then_step) where the flow (t, step) ends, and where that is known exactly.

    Within a layer the flow is affine, so linear interpolation is exact between four of its pixels.
    """
    first, second, owner = scene.flow(t, step), scene.flow(then, then_step), scene.layer_map(then)
    end_x, end_y = X + first[..., 0], Y + first[..., 1]
    x0 = np.clip(np.floor(end_x), 0, WIDTH - 2).astype(int)
    y0 = np.clip(np.floor(end_y), 0, HEIGHT - 2).astype(int)
    ax, ay = (end_x - x0)[..., None], (end_y - y0)[..., None]
    upper = second[y0, x0] * (1 - ax) + second[y0, x0 + 1] * ax
    lower = second[y0 + 1, x0] * (1 - ax) + second[y0 + 1, x0 + 1] * ax
    known = scene.valid(t, step)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        known &= owner[y0 + dy, x0 + dx] == scene.layer_map(t)
    return upper * (1 - ay) + lower * ay, known


@pytest.mark.parametrize("name", MOTIONS)
def test_flow_fetches_the_next_frame(name: str) -> None:
    mean, worst = residual(background(MOTIONS[name]), 3)
    assert mean < 0.6
    assert worst <= 4


@pytest.mark.parametrize("name", MOTIONS)
def test_flow_fetches_the_next_frame_with_a_figure(name: str) -> None:
    mean, _ = residual(with_figure(MOTIONS[name]), 3)
    assert mean < 1.0


@pytest.mark.parametrize("name", ["move_left", "rotate_clockwise", "zoom_in"])
def test_flow_fetches_the_next_frame_of_an_action(name: str) -> None:
    mean, _ = residual(clean(action_scene(name, seed=3)), 10)
    assert mean < 0.8


def test_a_flow_half_a_pixel_off_would_be_noticed() -> None:
    """The residual measures the flow: it is several times larger for a wrong one."""
    scene = background(MOTIONS["translation"])
    wrong = scene.flow(3) + np.float32(0.35)
    map_x, map_y = (X + wrong[..., 0]).astype(np.float32), (Y + wrong[..., 1]).astype(np.float32)
    fetched = cv2.remap(scene.frame(4), map_x, map_y, cv2.INTER_LANCZOS4)
    difference = np.abs(fetched.astype(np.float64) - scene.frame(3))[8:-8, 8:-8]
    assert difference.mean() > 5 * residual(scene, 3)[0]


@pytest.mark.parametrize("make", [background, with_figure])
@pytest.mark.parametrize("name", MOTIONS)
def test_backward_flow_is_the_inverse(name: str, make) -> None:  # type: ignore[no-untyped-def]
    scene = make(MOTIONS[name])
    back, known = follow(scene, 3, 1, 4, -1)
    assert known.mean() > 0.8
    assert np.abs(scene.flow(3) + back)[known].max() < 1e-3
    np.testing.assert_array_equal(scene.backward_flow(3), scene.flow(4, -1))


@settings(max_examples=15, deadline=None)
@given(
    velocity=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    turn=st.floats(-0.05, 0.05),
    zoom=st.floats(-0.03, 0.03),
    shear=st.floats(-0.03, 0.03),
    acceleration=st.floats(-0.1, 0.1),
    t=st.floats(-2, 4),
    steps=st.tuples(st.floats(0.25, 2), st.floats(0.25, 2)),
)
def test_flows_compose(
    velocity: tuple[float, float],
    turn: float,
    zoom: float,
    shear: float,
    acceleration: float,
    t: float,
    steps: tuple[float, float],
) -> None:
    motion = Motion(
        CENTER_PX,
        velocity_px=velocity,
        turn_rate=turn,
        zoom_rate=zoom,
        shear_rate=shear,
        acceleration=acceleration,
    )
    scene = with_figure(motion)
    onward, known = follow(scene, t, steps[0], t + steps[0], steps[1])
    error = scene.flow(t, sum(steps)) - (scene.flow(t, steps[0]) + onward)
    assert np.abs(error)[known].max() < 1e-3


def test_translation_is_constant() -> None:
    flow = background(Motion(velocity_px=(2.3, -1.4))).flow(5, step=2)
    assert flow.shape == (HEIGHT, WIDTH, 2)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, np.broadcast_to((4.6, -2.8), flow.shape), atol=1e-5)


def test_acceleration_is_the_change_of_speed_per_frame() -> None:
    scene = background(Motion(velocity_px=(2.0, 0.0), acceleration=0.1))
    # The position is 2 (t + t^2 / 20), so a step from t covers 2 (1 + (2 t + 1) / 20).
    assert [float(scene.flow(t)[0, 0, 0]) for t in range(3)] == pytest.approx([2.1, 2.3, 2.5])


def test_zoom_is_linear_about_the_centre() -> None:
    flow = background(Motion(CENTER_PX, zoom_rate=0.03)).flow(7)
    np.testing.assert_allclose(flow[..., 0], math.expm1(0.03) * (X - CENTER_PX[0]), atol=1e-5)
    np.testing.assert_allclose(flow[..., 1], math.expm1(0.03) * (Y - CENTER_PX[1]), atol=1e-5)


def test_rotation_is_clockwise_and_keeps_the_distance() -> None:
    flow = background(Motion(CENTER_PX, turn_rate=0.04)).flow(7).astype(np.float64)
    x, y = X - CENTER_PX[0], Y - CENTER_PX[1]
    np.testing.assert_allclose(np.hypot(x + flow[..., 0], y + flow[..., 1]), np.hypot(x, y))
    # The chord stands at a right angle to the direction halfway between both ends.
    dot = (x + flow[..., 0] / 2) * flow[..., 0] + (y + flow[..., 1] / 2) * flow[..., 1]
    np.testing.assert_allclose(dot, 0, atol=1e-4)
    assert flow[0, WIDTH // 2, 0] > 0, "the top moves to the right"


def test_shear_moves_along_x_only() -> None:
    flow = background(Motion(CENTER_PX, shear_rate=0.05)).flow(0)
    np.testing.assert_allclose(flow[..., 0], 0.05 * (Y - CENTER_PX[1]), atol=1e-5)
    np.testing.assert_array_equal(flow[..., 1], 0)


def test_valid_leaves_out_the_occluded_and_what_leaves_the_frame() -> None:
    disc = Layer(6, (Motion(offset_px=(40.0, 48.0), velocity_px=(10.0, 0.0)),), Shape(0, 0, 15))
    scene = Scene(WIDTH, HEIGHT, (Layer(5), disc))
    owner = np.hypot(X - 40, Y - 48) <= 15
    np.testing.assert_array_equal(scene.layer_map(0), owner.astype(int))
    np.testing.assert_array_equal(scene.flow(0)[..., 0], np.where(owner, 10, 0).astype(np.float32))
    will_be_covered = (np.hypot(X - 50, Y - 48) <= 15) & ~owner
    np.testing.assert_array_equal(scene.valid(0), ~will_be_covered)
    # Backwards, the trace of the disc at t = 1 has no origin: it was behind the disc.
    uncovered = owner & ~(np.hypot(X - 50, Y - 48) <= 15)
    np.testing.assert_array_equal(scene.valid(1, -1), ~uncovered)
    leaving = background(Motion(velocity_px=(3.0, 0.0))).valid(0)
    np.testing.assert_array_equal(leaving, X <= WIDTH - 4)


@pytest.mark.parametrize("name", ["translation", "zoom", "rotation", "shear"])
def test_dis_recovers_the_flow(name: str) -> None:
    scene = background(MOTIONS[name])
    previous, following = (cv2.cvtColor(scene.frame(t), cv2.COLOR_RGB2GRAY) for t in (3, 4))
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    error_px = np.linalg.norm(estimator.calc(previous, following, None) - scene.flow(3), axis=-1)
    assert error_px[scene.valid(3)].mean() < 0.15


def test_frames_come_out_the_same_again_and_in_any_order() -> None:
    scene = action_scene("zoom_out", seed=9)
    frames = [scene.frame(t) for t in (0, 4, 2.5)]
    synthetic._tile.cache_clear()
    again = [action_scene("zoom_out", seed=9).frame(t) for t in (2.5, 4, 0)]
    np.testing.assert_array_equal(frames, again[::-1])
    assert frames[0].dtype == np.uint8
    assert frames[0].shape == (96, 128, 3)
    assert not np.array_equal(frames[0], action_scene("zoom_out", seed=10).frame(0))


def test_a_scene_goes_on_far_from_its_origin() -> None:
    far = Motion(offset_px=(256.0 * 300, -256.0 * 200))
    difference = background(far).frame(0).astype(int) - background(Motion()).frame(0)
    assert np.abs(difference).max() <= 1


def test_noise_and_flicker_spoil_the_frames_and_not_the_truth() -> None:
    scene = with_figure(MOTIONS["zoom"])
    noisy = dataclasses.replace(scene, noise=4.0, seed=3)
    difference = noisy.frame(1).astype(float) - scene.frame(1)
    assert difference.std() == pytest.approx(4, rel=0.1)
    assert not np.array_equal(noisy.frame(1), noisy.frame(2))
    flickering = dataclasses.replace(scene, flicker=0.2, seed=3)
    gains = [flickering.frame(t).mean() / scene.frame(t).mean() for t in range(6)]
    assert 0.1 < max(gains) - min(gains) < 0.41
    np.testing.assert_array_equal(noisy.flow(1), scene.flow(1))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (33, 71), (8, 8)])
def test_textured_image_is_textured_and_continues_across_edges(height: int, width: int) -> None:
    image = textured_image(height, width, seed=4)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, textured_image(height, width, seed=4))
    assert not np.array_equal(image, textured_image(height, width, seed=5))
    assert image.std() > 10
    wrapped = np.roll(image, 1, axis=1).astype(int)
    across, inside = np.abs(image - wrapped)[:, 0].mean(), np.abs(image - wrapped)[:, 1:].mean()
    assert across < 3 * inside


def motion_statistics(scene: Scene) -> list[float]:
    """Mean u, v, divergence and curl within layers, over a clip."""
    rows = []
    for t in range(1, 31, 5):
        flow, owner = scene.flow(t), scene.layer_map(t)
        du, dv = np.diff(flow[:-1], axis=1), np.diff(flow[:, :-1], axis=0)
        same = (owner[:-1, :-1] == owner[:-1, 1:]) & (owner[:-1, :-1] == owner[1:, :-1])
        du_dy, dv_dx = dv[..., 0], du[..., 1]
        divergence, curl = du[..., 0] + dv[..., 1], dv_dx - du_dy
        rows.append([*flow.mean(axis=(0, 1)), divergence[same].mean(), curl[same].mean()])
    return [float(value) for value in np.mean(rows, axis=0)]


def appearance_statistics(scene: Scene) -> list[float]:
    """What the first frame shows: mean and spread of colours, where it is bright, its sharpness."""
    frame = scene.frame(0).astype(np.float64)
    gray = frame.mean(axis=2)
    weight = gray / gray.sum()
    return [
        *frame.mean(axis=(0, 1)),
        *frame.std(axis=(0, 1)),
        float((weight * X).sum()),
        float((weight * Y).sum()),
        float(np.abs(np.diff(gray, axis=0)).mean()),
        float(np.abs(np.diff(gray, axis=1)).mean()),
    ]


def nearest_centroid_accuracy(samples: NDArray[np.float64]) -> float:
    """Leave-one-out accuracy on samples (classes, clips, features)."""
    scaled = samples / samples.std(axis=(0, 1))
    num_classes, num_clips = samples.shape[:2]
    correct = 0
    for label in range(num_classes):
        for clip in range(num_clips):
            centroids = scaled.mean(axis=1)
            centroids[label] = np.delete(scaled[label], clip, axis=0).mean(axis=0)
            distances = np.linalg.norm(centroids - scaled[label, clip], axis=1)
            correct += int(distances.argmin() == label)
    return correct / (num_classes * num_clips)


def test_motion_tells_the_classes_apart_and_appearance_does_not() -> None:
    scenes = [
        [action_scene(name, seed=(7, number, clip)) for clip in range(10)]
        for number, name in enumerate(ACTIONS)
    ]
    motion = np.array([[motion_statistics(scene) for scene in row] for row in scenes])
    appearance = np.array([[appearance_statistics(scene) for scene in row] for row in scenes])
    assert nearest_centroid_accuracy(motion) > 0.9
    # Chance is 1/8; three standard deviations of 80 trials are .11.
    assert nearest_centroid_accuracy(appearance) < 1 / 8 + 0.12


def test_one_seed_shows_the_same_middle_frame_for_all_classes() -> None:
    middles = [action_scene(name, num_frames=15, seed=2).frame(7) for name in ACTIONS]
    for middle in middles[1:]:
        np.testing.assert_array_equal(middle, middles[0])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("move_left", "move_right"),
        ("move_up", "move_down"),
        ("rotate_clockwise", "rotate_counterclockwise"),
        ("zoom_in", "zoom_out"),
    ],
)
def test_a_clip_played_backwards_is_of_the_other_class(one: str, other: str) -> None:
    """Shaking and swinging aside, which are as likely backwards: their phases are uniform."""

    def poses(name: str, times: list[int], acceleration_sign: int) -> NDArray[np.float64]:
        scene = action_scene(name, num_frames=15, seed=4)
        steady = [
            tuple(
                dataclasses.replace(motion, acceleration=acceleration_sign * motion.acceleration)
                for motion in layer.motions
                if isinstance(motion, Motion)
            )
            for layer in scene.layers
        ]
        return np.array([[Layer(0, row).matrix(t) for row in steady] for t in times])

    forward, backward = list(range(15)), list(range(14, -1, -1))
    np.testing.assert_allclose(poses(one, forward, 1), poses(other, backward, -1), atol=1e-9)


def test_a_look_changes_colors_and_leaves_grays_and_motion_alone() -> None:
    plain, *looks = (clean(action_scene("zoom_in", look=look, seed=5)) for look in (None, *LOOKS))
    gray = cv2.cvtColor(plain.frame(3), cv2.COLOR_RGB2GRAY).astype(int)
    frames = [scene.frame(3).astype(int) for scene in looks]
    for scene in looks:
        difference = cv2.cvtColor(scene.frame(3), cv2.COLOR_RGB2GRAY) - gray
        assert np.abs(difference).max() <= 2
        assert np.abs(difference).mean() < 0.5
        np.testing.assert_array_equal(scene.flow(3), plain.flow(3))
    colors = [(frame - gray[..., None]).mean(axis=(0, 1)) for frame in frames]
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(one - other) > 20


def test_classes_of_looks_and_actions(tmp_path: Path) -> None:
    paths = write_action_dataset(
        tmp_path,
        num_videos_per_class=2,
        num_frames=2,
        width=32,
        height=32,
        actions=("zoom_in", "move_up"),
        looks=("blue", "red"),
    )
    classes = ["blue_zoom_in", "blue_move_up", "red_zoom_in", "red_move_up"]
    lines = (tmp_path / "annotations/classInd.txt").read_text().splitlines()
    assert lines == [f"{number} {name}" for number, name in enumerate(classes, start=1)]
    names = [f"videos/{name}/{name}_g{group}_c01.mp4" for name in classes for group in ("01", "02")]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == names
    # The scenes of all classes are the same: only color and motion differ.
    for name, (look, action) in zip(
        names[::2], itertools.product(("blue", "red"), ("zoom_in", "move_up")), strict=True
    ):
        scene = action_scene(action, look=look, num_frames=2, width=32, height=32, seed=(0, 0, 0))
        assert psnr_db(scene.frame(0), decode(tmp_path / name)[0]) > 25


def decode(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def psnr_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")]
)
def test_a_written_video_reads_back(tmp_path: Path, name: str, codec: str) -> None:
    scene = clean(action_scene("move_right", seed=1))
    frames = [scene.frame(t) for t in range(12)]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / name, iter(frames), 25.0, codec=codec)
    decoded = decode(tmp_path / "one" / name)
    assert len(decoded) == 12
    assert all(psnr_db(*pair) > 30 for pair in zip(frames, decoded, strict=True))
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with av.open(str(tmp_path / "one" / name)) as container:
        assert container.streams.video[0].average_rate == 25


def test_odd_sizes_need_full_colour_resolution(tmp_path: Path) -> None:
    frames = [textured_image(33, 71, seed) for seed in range(2)]
    with pytest.raises(ConfigError, match="must be even for pixel_format yuv420p, got 71x33"):
        write_video(tmp_path / "odd.mp4", frames)
    write_video(tmp_path / "odd.mp4", frames, pixel_format="yuv444p")
    assert decode(tmp_path / "odd.mp4")[0].shape == (33, 71, 3)
    with pytest.raises(ConfigError, match="must be even"):
        write_action_dataset(tmp_path / "set", width=127)


def test_a_failed_video_leaves_no_file(tmp_path: Path) -> None:
    frames = [textured_image(32, 32, 0), textured_image(32, 34, 0)]
    with pytest.raises(ConfigError, match="one size"):
        write_video(tmp_path / "a.mp4", frames)
    with pytest.raises(ConfigError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ConfigError, match="uint8 RGB"):
        write_video(tmp_path / "a.mp4", [np.zeros((32, 32), np.uint8)])
    with pytest.raises(ConfigError, match="codec must be a video encoder"):
        write_video(tmp_path / "a.mp4", frames, codec="x265000")
    with pytest.raises(ConfigError, match="codec must be a video encoder"):
        write_video(tmp_path / "a.mp4", frames, codec="aac")
    with pytest.raises(ConfigError, match="pixel_format must be one"):
        write_video(tmp_path / "a.mp4", frames, pixel_format="yuv421p")
    with pytest.raises(ConfigError, match="fps"):
        write_video(tmp_path / "a.mp4", frames, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_action_set_has_ucf101_lists(tmp_path: Path) -> None:
    paths = write_action_dataset(
        tmp_path, num_videos_per_class=2, num_frames=3, width=64, height=48, seed=5, fps=12.5
    )
    assert len(paths) == 2 * len(ACTIONS)
    assert paths[0] == tmp_path / "videos" / "move_left" / "move_left_g01_c01.mp4"
    assert all(path.is_file() for path in paths)
    assert len(decode(paths[-1])) == 3
    lists = tmp_path / "annotations"
    assert (lists / "classInd.txt").read_text().splitlines() == [
        f"{number} {name}" for number, name in enumerate(ACTIONS, start=1)
    ]
    train = (lists / "trainlist01.txt").read_text().splitlines()
    test = (lists / "testlist01.txt").read_text().splitlines()
    assert train[1] == "move_right/move_right_g01_c01.mp4 2"
    assert test[1] == "move_right/move_right_g02_c01.mp4"
    named = {line.split()[0] for line in train + test}
    assert named == {path.relative_to(tmp_path / "videos").as_posix() for path in paths}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: action_scene("move_lef"), "action must be one of move_left, .*, got 'move_lef'"),
        (lambda: action_scene("zoom_in", num_frames=1), "num_frames must be >= 2"),
        (lambda: action_scene("zoom_in", width=4), "width and height must be from 8"),
        (lambda: textured_image(10, 100_000, 0), "width and height must be from 8"),
        (lambda: Scene(64, 64, ()), "must have shape None"),
        (lambda: Scene(64, 64, (Layer(0, (), Shape(1, 1, 1)),)), "must have shape None"),
        (lambda: Scene(64, 64, (Layer(0),), noise=-1), "noise >= 0"),
        (lambda: Shape(0, 0, 0), "not all 0"),
        (lambda: Motion(scale=0), "scale of a Motion must be > 0, got 0"),
        (lambda: Sway(period_frames=0), "period_frames of a Sway must be > 0"),
        (lambda: write_action_dataset("x", num_videos_per_class=1), "must be >= 2"),
        (lambda: write_action_dataset("x", actions=()), "at least one of move_left, .*, got none"),
        (lambda: write_action_dataset("x", looks=("red", "red")), "each once, got red, red"),
        (lambda: action_scene("zoom_in", look="pink"), "look must be one of red, .*, got 'pink'"),
    ],
)
def test_errors_name_the_rule_and_the_value(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        make()
