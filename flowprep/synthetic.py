"""Moving scenes whose optical flow is known exactly, and actions that only motion tells apart.

    Scene = layers, back to front   Layer = texture + shape + motions   frame(t), flow(t), valid(t)

A layer's place at time t is one 3x3 affine matrix, the product of its motions, outermost first.
A frame looks up every pixel in the layer's texture through the inverse of this matrix. The flow is
the product of two such matrices. No rendered picture is ever resampled, so the flow is exact.

Axes: x is right, y is down, the center of the first pixel is (0, 0). Angles are in radians, and a
positive angle turns clockwise on the screen. Times are in frames and need not be whole.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from flowprep.errors import ConfigError
from flowprep.frame_size import MAX_SIDE_PX
from flowprep.local_files import partial_file

__all__ = [
    "ACTIONS",
    "CAMERAS",
    "LOOKS",
    "Action",
    "Layer",
    "Motion",
    "Scene",
    "Shape",
    "Sway",
    "action_scene",
    "camera_scene",
    "textured_image",
    "write_action_dataset",
    "write_video",
]

TILE_PX = 256
"""A texture repeats after this many px."""

OVERSAMPLING = 2
"""Texture samples per px. With the blur below, linear interpolation errs by less than a gray level.
OpenCV 4 rounds coordinates to 1/32 sample, which is less than 0.01 px."""

BLUR_PX = 1.1
"""Standard deviation in px of a texture's low-pass filter: -60 dB at 1.9 px wavelength."""

TINT_LEVELS = 60.0
"""How far in gray levels a tint moves red and blue."""

Matrix = NDArray[np.float64]  # (3, 3), affine, from a layer's coordinates to the screen's


@dataclass(frozen=True)
class Motion:
    """A translation, turn, shear and zoom about a pivot. The speed is constant or changes linearly.

    With `s = (t - rest_frame) + acceleration / 2 * (t - rest_frame) ** 2` a point p moves to

        pivot + offset + velocity * s + scale * exp(zoom_rate * s)
            * R(angle + turn_rate * s) @ [[1, shear_rate * s], [0, 1]] @ (p - pivot)

    All pairs are (x, y) in px. Rates are per frame.
    """

    pivot_px: tuple[float, float] = (0.0, 0.0)
    offset_px: tuple[float, float] = (0.0, 0.0)
    angle: float = 0.0
    scale: float = 1.0
    velocity_px: tuple[float, float] = (0.0, 0.0)
    turn_rate: float = 0.0
    zoom_rate: float = 0.0
    """Change of the logarithm of the scale. Above 0 the layer grows."""
    shear_rate: float = 0.0
    """Change of x displacement per px of y."""
    rest_frame: float = 0.0
    """The time at which only offset, angle and scale have an effect."""
    acceleration: float = 0.0
    """Relative change of all rates, per frame."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ConfigError(f"scale of a Motion must be > 0, got {self.scale:g}")

    def matrix(self, t: float) -> Matrix:
        """Returns the (3, 3) float64 matrix from the layer's coordinates to the outer ones at t."""
        elapsed = t - self.rest_frame
        s = elapsed + self.acceleration / 2 * elapsed**2
        shear = np.array([[1.0, self.shear_rate * s], [0.0, 1.0]])
        linear = _rotation(self.angle + self.turn_rate * s) @ shear
        linear *= self.scale * math.exp(self.zoom_rate * s)
        shift_px = np.add(self.offset_px, np.multiply(self.velocity_px, s))
        return _affine(linear, self.pivot_px, shift_px)


@dataclass(frozen=True)
class Sway:
    """A periodic translation and turn about a pivot: `amplitude * sin(2 pi t / period + phase)`."""

    pivot_px: tuple[float, float] = (0.0, 0.0)
    amplitude_px: tuple[float, float] = (0.0, 0.0)
    amplitude_angle: float = 0.0
    period_frames: float = 12.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        if not self.period_frames > 0:
            raise ConfigError(f"period_frames of a Sway must be > 0, got {self.period_frames:g}")

    def matrix(self, t: float) -> Matrix:
        """Returns the (3, 3) float64 matrix from the layer's coordinates to the outer ones at t."""
        swing = math.sin(2 * math.pi * t / self.period_frames + self.phase)
        shift_px = np.multiply(self.amplitude_px, swing)
        return _affine(_rotation(self.amplitude_angle * swing), self.pivot_px, shift_px)


@dataclass(frozen=True)
class Shape:
    """A rounded rectangle about the origin: a disc if both halves are 0, a limb if only one is."""

    half_width_px: float
    half_height_px: float
    radius_px: float
    """The margin in px around the rectangle of the halves, with round corners."""

    def __post_init__(self) -> None:
        if min(self.half_width_px, self.half_height_px, self.radius_px) < 0 or self.reach_px == 0:
            raise ConfigError(f"sizes of a Shape must be >= 0 and not all 0, got {self}")

    @property
    def reach_px(self) -> float:
        """The largest distance of a point of the shape from its origin."""
        return math.hypot(self.half_width_px, self.half_height_px) + self.radius_px

    def distance(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the distances of points from the outline in px, negative inside.

        All arrays are (H, W) or (N,).
        """
        dx, dy = np.abs(x) - self.half_width_px, np.abs(y) - self.half_height_px
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - self.radius_px)


@dataclass(frozen=True)
class Layer:
    """A texture seen through a shape. The product of its motions, outermost first, moves it."""

    texture_seed: int
    motions: tuple[Motion | Sway, ...] = ()
    shape: Shape | None = None
    """None covers the whole plane."""
    brightness: float = 1.0
    """Factor on the texture. Colors saturate at 255."""
    tint: float | None = None
    """The angle in radians of the one color of the layer, from red (0) to blue (pi/2). Its grays,
    from which flow is computed, stay as they are. None leaves the texture's colors."""

    def matrix(self, t: float) -> Matrix:
        """Returns the (3, 3) float64 matrix from the layer's coordinates to the screen's at t.

        The camera of a scene moves the screen besides.
        """
        return _product(self.motions, t)


@dataclass(frozen=True)
class Scene:
    """Layers from back to front, seen through a window of width x height px.

    Pixels on an outline blend both layers. Their true flow is that of the layer that covers the
    center of the pixel. Flicker and noise change the frames, but not the true flow.
    """

    width: int
    height: int
    layers: tuple[Layer, ...]
    flicker: float = 0.0
    """Relative amplitude of a periodic change of brightness, from 0 to 1."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise of each frame, in gray levels."""
    seed: int = 0
    """Seed of the noise and of the flicker's phase."""
    camera: tuple[Motion | Sway, ...] = ()
    """The motion of the camera, which moves all layers: their product is the outermost."""

    def __post_init__(self) -> None:
        _check_size(self.width, self.height)
        if not self.layers or self.layers[0].shape is not None:
            raise ConfigError(
                f"the first of a Scene's layers must have shape None so that it fills the "
                f"background, got {self.layers[:1]}"
            )
        if not 0 <= self.flicker < 1 or self.noise < 0:
            raise ConfigError(
                f"flicker must be >= 0 and < 1, and noise >= 0, "
                f"got {self.flicker:g} and {self.noise:g}"
            )

    def frame(self, t: float) -> NDArray[np.uint8]:
        """Returns the picture at time t, (H, W, 3) uint8 RGB. Equal scenes give equal pictures."""
        picture = np.empty((self.height, self.width, 3), np.uint8)
        for layer in self.layers:
            matrix = self._matrix(layer, t)
            if (window := self._window(layer, matrix)) is None:
                continue
            rows, columns = window
            inverse = _invert(matrix)
            x, y = _transform(inverse, *_grid(rows, columns))
            color = _look_up(layer, x, y)
            if layer.tint is not None:
                color = _tinted(color, layer.tint)
            if layer.shape is None:
                picture[rows, columns] = color
                continue
            # Distances in screen px. They ignore the anisotropy of a shear.
            scale = math.sqrt(abs(np.linalg.det(matrix)))
            distance_px = layer.shape.distance(x, y) * scale
            cover = np.clip(0.5 - distance_px, 0, 1).astype(np.float32)[..., None]
            # A darker rim separates a figure from the background. The rim is a part of the figure.
            rim = np.clip(0.35 - distance_px / scale / 4, 0.35, 1).astype(np.float32)[..., None]
            behind = picture[rows, columns].astype(np.float32)
            blend = behind + cover * (rim * color - behind)
            picture[rows, columns] = np.rint(blend).astype(np.uint8)
        return self._spoil(picture, t) if self.flicker or self.noise else picture

    def flow(self, t: float, step: float = 1) -> NDArray[np.float32]:
        """Returns the exact motion from time t to t + step on the grid of t.

        (H, W, 2) float32 in px. [..., 0] is u to the right, [..., 1] is v down. A negative step
        gives the motion into the past.
        """
        owner = self.layer_map(t)
        result = np.empty((self.height, self.width, 2), np.float32)
        for index in np.unique(owner):
            layer = self.layers[index]
            there = self._matrix(layer, t + step) @ _invert(self._matrix(layer, t))
            y, x = np.nonzero(owner == index)
            moved_x, moved_y = _transform(there, x, y)
            result[y, x] = np.stack([moved_x - x, moved_y - y], axis=-1)
        return result

    def camera_matrix(self, t: float, step: float = 1) -> Matrix:
        """Returns the (3, 3) float64 matrix of the camera's motion on the screen, from t on."""
        return _product(self.camera, t + step) @ _invert(_product(self.camera, t))

    def own_flow(self, t: float, step: float = 1) -> NDArray[np.float32]:
        """Returns `flow` as a camera that stands still from t on would see it: 0 on the background.

        (H, W, 2) float32 in px, exact, on the grid of t.
        """
        flow = self.flow(t, step)
        x, y = _grid(slice(0, self.height), slice(0, self.width))
        back = _invert(self.camera_matrix(t, step))
        own_x, own_y = _transform(back, x + flow[..., 0], y + flow[..., 1])
        return np.stack([own_x - x, own_y - y], axis=-1).astype(np.float32)

    def backward_flow(self, t: float, step: float = 1) -> NDArray[np.float32]:
        """Returns the exact motion from t + step to t on the grid of t + step, like `flow`."""
        return self.flow(t + step, -step)

    def valid(self, t: float, step: float = 1) -> NDArray[np.bool_]:
        """Returns a mask: True where `flow(t, step)` ends inside the frame and is not occluded.

        (H, W) bool on the grid of t. For `backward_flow(t, step)` use `valid(t + step, -step)`.
        """
        flow = self.flow(t, step)
        x, y = _grid(slice(0, self.height), slice(0, self.width))
        end_x, end_y = x + flow[..., 0], y + flow[..., 1]
        in_columns = (end_x >= 0) & (end_x <= self.width - 1)
        in_rows = (end_y >= 0) & (end_y <= self.height - 1)
        unoccluded = self._owner(t + step, end_x, end_y) == self.layer_map(t)
        return np.asarray(in_columns & in_rows & unoccluded)

    def layer_map(self, t: float) -> NDArray[np.int64]:
        """Returns the index in `layers` that each pixel center shows at t, (H, W) int64."""
        x, y = _grid(slice(0, self.height), slice(0, self.width))
        return self._owner(t, *np.broadcast_arrays(x, y))

    def _owner(self, t: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
        """Returns the index of the front layer at points x, y (H, W) of the screen at t, int64."""
        owner = np.zeros(x.shape, np.int64)
        for index, layer in enumerate(self.layers):
            if layer.shape is None:
                owner[:] = index
                continue
            matrix = self._matrix(layer, t)
            if self._window(layer, matrix) is None:
                continue
            reach_px = _reach_px(layer.shape, matrix)
            near = (np.abs(x - matrix[0, 2]) <= reach_px) & (np.abs(y - matrix[1, 2]) <= reach_px)
            local_x, local_y = _transform(_invert(matrix), x[near], y[near])
            owner[near] = np.where(layer.shape.distance(local_x, local_y) <= 0, index, owner[near])
        return owner

    def _matrix(self, layer: Layer, t: float) -> Matrix:
        matrix = layer.matrix(t)
        return _product(self.camera, t) @ matrix if self.camera else matrix

    def _window(self, layer: Layer, matrix: Matrix) -> tuple[slice, slice] | None:
        """Returns the rows and columns that the layer can touch. None if it is out of the frame."""
        if layer.shape is None:
            return slice(0, self.height), slice(0, self.width)
        reach_px = _reach_px(layer.shape, matrix) + 1
        x, y = matrix[:2, 2].tolist()
        left, top = max(0, math.floor(x - reach_px)), max(0, math.floor(y - reach_px))
        right = min(self.width, math.ceil(x + reach_px) + 1)
        bottom = min(self.height, math.ceil(y + reach_px) + 1)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def _spoil(self, picture: NDArray[np.uint8], t: float) -> NDArray[np.uint8]:
        # The phase depends on the seed, and each frame has its own generator. So a frame that is
        # drawn alone equals the same frame of the clip.
        gain = 1 + self.flicker * math.sin(2 * math.pi * t / 6.3 + self.seed)
        rng = np.random.default_rng((self.seed, round(1000 * t) % 2**32))
        spoiled = picture * np.float32(gain)
        spoiled += self.noise * rng.standard_normal(picture.shape, np.float32)
        return np.asarray(np.clip(np.rint(spoiled), 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Action:
    """The signs of the motion of a class. They distinguish it from the other classes."""

    direction: tuple[int, int] = (0, 0)
    """(x, y): right and down are positive."""
    turn: int = 0
    """1 turns clockwise."""
    zoom: int = 0
    """1 comes nearer."""

    def __add__(self, other: Action) -> Action:
        """Returns both motions at once."""
        x, y = (one + two for one, two in zip(self.direction, other.direction, strict=True))
        return Action((x, y), self.turn + other.turn, self.zoom + other.zoom)


ACTIONS: dict[str, Action] = {
    "move_left": Action(direction=(-1, 0)),
    "move_right": Action(direction=(1, 0)),
    "move_up": Action(direction=(0, -1)),
    "move_down": Action(direction=(0, 1)),
    "rotate_clockwise": Action(turn=1),
    "rotate_counterclockwise": Action(turn=-1),
    "zoom_in": Action(zoom=1),
    "zoom_out": Action(zoom=-1),
}
"""Four pairs. Each class is the other class of its pair played backward, and each clip is equally
likely in both. So neither one frame nor a set of unordered frames tells the two classes apart."""

LOOKS: dict[str, float] = {
    "red": 0.0,
    "blue": math.radians(90),
    "green": math.radians(200),
    "yellow": math.radians(290),
}
"""The angle of `Layer.tint` of each look. Only colors tell two looks apart: gray frames, and so
flow, are the same."""


CAMERAS: dict[str, Motion | Sway] = {
    "still": Motion(),
    "pan": Motion(velocity_px=(3.0, -1.2), rest_frame=4),
    "zoom": Motion((160, 120), zoom_rate=0.02, rest_frame=4),
    "turn": Motion((160, 120), turn_rate=0.02, rest_frame=4),
    "all": Motion(
        (160, 120), velocity_px=(2.0, 1.0), zoom_rate=0.012, turn_rate=-0.012, rest_frame=4
    ),
    "shake": Sway((160, 120), amplitude_px=(5.0, 4.0), amplitude_angle=0.02, period_frames=7),
}
"""Cameras for `camera_scene`, whose frames have 320x240 px."""


def textured_image(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Returns overlapping pebbles of many sizes with a fine grain, (H, W, 3) uint8 RGB.

    The picture has no detail finer than about 2 px, and continues across its edges. It depends only
    on its size, the seed and the version of OpenCV. Raises ConfigError for a size out of range.
    """
    _check_size(width, height)
    return np.ascontiguousarray(_texture(height, width, seed)[::OVERSAMPLING, ::OVERSAMPLING])


def action_scene(
    action: str | Sequence[str],
    *,
    look: str | None = None,
    num_frames: int = 32,
    width: int = 128,
    height: int = 96,
    seed: int | tuple[int, ...] = 0,
    shake_px: float = 0.8,
    flicker: float = 0.06,
    noise: float = 3.0,
) -> Scene:
    """Returns a random scene of one class. Frames 0 to num_frames - 1 are the clip.

    Several names are a scene of all these actions at once, such as one that moves and comes nearer.

    Everything except the sign of the motion has the same distribution in all classes. Figures
    perform the full action, and the background a part of the action. Limbs swing and the camera
    shakes. `shake_px`, `flicker` and `noise` are the largest values that a clip draws, the last two
    as in `Scene`. A `look` is the one color of the scene, and changes nothing else. Raises
    ConfigError for an unknown action or look and for sizes out of range.
    """
    names = (action,) if isinstance(action, str) else tuple(action)
    _check_names("action", names, ACTIONS)
    _check_names("look", () if look is None else (look,), LOOKS)
    if num_frames < 2:
        raise ConfigError(f"num_frames must be >= 2 for a motion to show, got {num_frames}")
    _check_size(width, height)
    wanted = functools.reduce(operator.add, (ACTIONS[name] for name in names), Action())
    rng = np.random.default_rng(seed)
    side_px = min(width, height)
    # A long clip moves slower. Then its zoom is at most e^0.7, and its figures have similar sizes.
    pace = min(1.0, 0.7 / (0.03 * num_frames))
    speed_px = side_px * rng.uniform(0.012, 0.03) * pace
    rate = rng.uniform(0.015, 0.03) * pace
    share = rng.uniform(0.3, 0.7)
    # Poses are drawn for the middle of the clip. So the two classes of a pair are reversals.
    middle = (num_frames - 1) / 2
    acceleration = rng.uniform(-0.5, 0.5) / num_frames

    def perform(part: float, pivot_px: tuple[float, float]) -> Motion:
        strength_px = part * speed_px
        return Motion(
            pivot_px,
            velocity_px=(strength_px * wanted.direction[0], strength_px * wanted.direction[1]),
            turn_rate=part * rate * wanted.turn,
            zoom_rate=part * rate * wanted.zoom,
            rest_frame=middle,
            acceleration=acceleration,
        )

    def draw_sway(amplitude_px: tuple[float, float]) -> Sway:
        period, phase = rng.uniform(8, 20), rng.uniform(0, 2 * math.pi)
        return Sway(amplitude_px=amplitude_px, period_frames=period, phase=phase)

    shake_px *= rng.uniform(0, 1)
    shakes = draw_sway((shake_px, 0.0)), draw_sway((0.0, shake_px))
    camera = (*shakes, perform(share, ((width - 1) / 2, (height - 1) / 2)))
    x, y = rng.uniform(0, TILE_PX, 2)
    grain = Motion(offset_px=(x, y), scale=rng.uniform(0.8, 1.6))
    layers = [Layer(int(rng.integers(2**31)), (*camera, grain), brightness=0.75)]
    seeds = [int(value) for value in rng.integers(2**31, size=3)]
    # Figures stand on a jittered lattice with random origin. The lattice extends beyond the frame
    # by the distance that figures can move. So the density of figures does not depend on time,
    # place or direction of motion.
    cell_px = 0.8 * side_px
    margin_px = 0.5 * side_px + speed_px * num_frames / 2
    origin_px = rng.uniform(0, cell_px, 2)
    for row_px in np.arange(origin_px[1] - margin_px - cell_px, height + margin_px, cell_px):
        for column_px in np.arange(origin_px[0] - margin_px - cell_px, width + margin_px, cell_px):
            x, y = rng.uniform(-0.15, 0.15, 2) * cell_px + (column_px, row_px)
            angle, scale = rng.uniform(0, 2 * math.pi), math.exp(rng.uniform(-0.3, 0.3))
            pose = Motion(offset_px=(x, y), angle=angle, scale=scale)
            motions = (*camera, perform(1 - share, (x, y)), pose)
            layers += _figure(rng, motions, seeds[int(rng.integers(len(seeds)))], side_px)
    tint = None if look is None else LOOKS[look]
    return Scene(
        width,
        height,
        tuple(replace(layer, tint=tint) for layer in layers),
        flicker=flicker * rng.uniform(0, 1),
        noise=noise * rng.uniform(0, 1),
        seed=int(rng.integers(2**31)),
    )


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: float = 25.0,
    *,
    codec: str = "libx264",
    quality: int | None = None,
    pixel_format: str = "yuv420p",
) -> None:
    """Writes frames of one size, (H, W, 3) uint8 RGB each. The extension chooses the container.

    `quality` is the CRF (16 by default) or, for codecs without CRF, the quantizer (2 by default).
    Smaller is better. Equal frames give equal bytes with the same FFmpeg. The file appears when it
    is complete. Raises ConfigError for an unknown codec or pixel format, for frames that differ in
    size or are not uint8 RGB, for no frames, and for odd sizes that the pixel format cannot hold.
    """
    path = Path(path)
    if not 0 < fps <= 1000:
        raise ConfigError(f"fps must be > 0 and <= 1000, got {fps:g}")
    iterator = iter(frames)
    if (first := next(iterator, None)) is None:
        raise ConfigError(f"frames for {path} must hold at least one frame, got none")
    _check_frame(first, first)
    _check_subsampling(first.shape[1], first.shape[0], pixel_format)
    _check_codec(codec)
    if codec in _CRF_CODECS:
        options = {"crf": str(16 if quality is None else quality)}
        if codec == "libx264":
            # The vectorized macroblock tree of x264 reads unwritten memory if frames are small. The
            # same frames gave other bytes in 1 of 4 runs.
            options["x264-params"] = "mbtree=0"
    else:
        options = dict.fromkeys(("qmin", "qmax"), str(2 if quality is None else quality))
    with (
        partial_file(path) as partial,
        av.open(str(partial), "w", options={"fflags": "+bitexact"}) as container,
    ):
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(VideoStream, container.add_stream(codec, rate, options))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixel_format
        # With several threads, the bits of a frame could depend on the machine.
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for frame in itertools.chain([first], iterator):
            _check_frame(frame, first)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def camera_scene(camera: str, *, seed: int = 0, num_actors: int = 3, noise: float = 2.0) -> Scene:
    """Returns a scene of 320x240 px with actors that move by themselves, seen by a moving camera.

    Frames 0 to 8 are the clip. `Scene.own_flow` is what the actors do. Raises ConfigError for an
    unknown camera.
    """
    if camera not in CAMERAS:
        raise ConfigError(f"camera must be one of {', '.join(CAMERAS)}, got {camera!r}")
    width, height = 320, 240
    rng = np.random.default_rng(seed)
    background = Motion(scale=rng.uniform(0.8, 1.6))
    layers = [Layer(int(rng.integers(2**31)), (background,), brightness=0.75)]
    for number in range(num_actors):
        x = (number + 0.5) / num_actors * width + rng.uniform(-15, 15)
        y = height / 2 + rng.uniform(-40, 40)
        angle, speed_px = rng.uniform(0, 2 * math.pi), rng.uniform(1.5, 3.5)
        acts = Motion(
            (x, y),
            velocity_px=(speed_px * math.cos(angle), speed_px * math.sin(angle)),
            turn_rate=rng.uniform(-0.03, 0.03),
            rest_frame=4,
        )
        pose = Motion(offset_px=(x, y), angle=rng.uniform(0, 2 * math.pi))
        layers += _figure(rng, (acts, pose), int(rng.integers(2**31)), round(0.8 * height))
    return Scene(width, height, tuple(layers), noise=noise, seed=seed, camera=(CAMERAS[camera],))


def write_action_dataset(
    root: str | Path,
    *,
    num_videos_per_class: int = 20,
    num_frames: int = 32,
    width: int = 128,
    height: int = 96,
    seed: int = 0,
    fps: float = 25.0,
    actions: Sequence[str] = tuple(ACTIONS),
    looks: Sequence[str] = (),
) -> list[Path]:
    """Writes a small data set in which only motion tells the classes apart. Returns its videos.

    Each of `looks` with each of `actions` is a class, such as `red_move_left`. A single frame tells
    the look and flow tells the action, but neither tells both. Every class has the same scenes, in
    other colors and with other motions. Without looks, each action is a class with its own scenes.

    Videos are `root/videos/CLASS/CLASS_g01_c01.mp4`, each in its own group. `root/annotations` has
    `classInd.txt`, `trainlist01.txt` and `testlist01.txt` as in UCF101. The last quarter of each
    class is the test split. Raises ConfigError for impossible sizes, counts and rates, and for
    unknown or repeated actions and looks.
    """
    _check_classes("actions", actions, ACTIONS)
    _check_classes("looks", looks, LOOKS)
    if not actions:
        raise ConfigError(f"actions must name at least one of {', '.join(ACTIONS)}, got none")
    if num_videos_per_class < 2:
        raise ConfigError(
            f"num_videos_per_class must be >= 2, one to train and one to test, "
            f"got {num_videos_per_class}"
        )
    _check_subsampling(width, height, "yuv420p")
    root = Path(root)
    num_train = num_videos_per_class - math.ceil(num_videos_per_class / 4)
    paths, train, test = [], [], []
    shown: Sequence[str | None] = looks or (None,)
    pairs = list(itertools.product(shown, actions))
    names = [action if look is None else f"{look}_{action}" for look, action in pairs]
    for number, (label, (look, action)) in enumerate(zip(names, pairs, strict=True), start=1):
        (root / "videos" / label).mkdir(parents=True, exist_ok=True)
        for video in range(num_videos_per_class):
            name = f"{label}/{label}_g{video + 1:02d}_c01.mp4"
            path = root / "videos" / name
            scene = action_scene(
                action,
                look=look,
                num_frames=num_frames,
                width=width,
                height=height,
                seed=(seed, 0 if looks else number, video),
            )
            write_video(path, (scene.frame(t) for t in range(num_frames)), fps)
            paths.append(path)
            if video < num_train:
                train.append(f"{name} {number}\n")
            else:
                test.append(f"{name}\n")
    annotations = root / "annotations"
    annotations.mkdir(exist_ok=True)
    classes = [f"{number} {label}\n" for number, label in enumerate(names, start=1)]
    for name, lines in (("classInd", classes), ("trainlist01", train), ("testlist01", test)):
        (annotations / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return paths


_CRF_CODECS = frozenset({"libx264", "libx265", "libvpx-vp9", "libaom-av1", "libsvtav1"})


def _figure(
    rng: np.random.Generator,
    motions: tuple[Motion | Sway, ...],
    texture_seed: int,
    side_px: int,
) -> list[Layer]:
    """Draws a disc, a box or a gymnast with swinging limbs, about half as high as the frame."""
    unit_px = side_px / 96

    def part(half_width: float, half_height: float, radius: float, *own: Motion | Sway) -> Layer:
        shape = Shape(half_width * unit_px, half_height * unit_px, radius * unit_px)
        return Layer(texture_seed, (*motions, *own), shape, brightness=1.2)

    kind = rng.choice(["disc", "box", "gymnast", "gymnast"])
    if kind == "disc":
        return [part(0, 0, rng.uniform(15, 21))]
    if kind == "box":
        return [part(rng.uniform(9, 17), rng.uniform(9, 17), 4)]
    period, phase = rng.uniform(14, 24), rng.uniform(0, 2 * math.pi)
    parts = []
    # Two legs, then two arms: joint, angle at rest, half the length, and direction of the swing.
    # All have one phase. Otherwise, the limbs of a reversed clip could not occur in another clip.
    for x, y, angle, half_length, sense in (
        (-4.0, 8.0, 0.35, 8.5, -1),
        (4.0, 8.0, -0.35, 8.5, 1),
        (-6.0, -8.0, 1.3, 7.5, 1),
        (6.0, -8.0, -1.3, 7.5, -1),
    ):
        pivot_px = (0.0, -half_length * unit_px)
        hang = Motion(pivot_px, (x * unit_px, (y + half_length) * unit_px), angle)
        swing = Sway(pivot_px, amplitude_angle=0.4 * sense, period_frames=period, phase=phase)
        parts.append(part(0, half_length, 3.6, hang, swing))
    head = Motion(offset_px=(0.0, -19.0 * unit_px))
    return [*parts, part(2.5, 7, 5.5), part(0, 0, 7, head)]


@functools.lru_cache(maxsize=32)
def _tile(seed: int, brightness: float) -> NDArray[np.uint8]:
    return _texture(TILE_PX, TILE_PX, seed, brightness)


def _texture(height: int, width: int, seed: int, brightness: float = 1.0) -> NDArray[np.uint8]:
    """Returns a texture, periodic in x and y: height, width times OVERSAMPLING, uint8 RGB."""
    rng = np.random.default_rng(seed)
    rows, columns = height * OVERSAMPLING, width * OVERSAMPLING
    num_leaves = max(40, height * width // 70)
    # Few colors that match: one hue, its neighbors, and sometimes its complement.
    hue = rng.uniform(0, 360) + rng.normal(0, 20, num_leaves)
    hue += 180 * (rng.random(num_leaves) < 0.1)
    saturation, value = rng.uniform(0.1, 0.55, num_leaves), rng.uniform(0.25, 1.0, num_leaves)
    hsv = np.stack([hue % 360, saturation, value], axis=-1)[None].astype(np.float32)
    colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] * 255
    # Radii with a power law give detail at every scale, as occlusion does in nature.
    radii = OVERSAMPLING * 2.5 * (1 - rng.random(num_leaves) * 0.98) ** (-1 / 1.6)
    centers = rng.uniform(0, (columns, rows), (num_leaves, 2))
    axes = radii[:, None] * np.exp(rng.uniform(-0.35, 0.35, (num_leaves, 2)))
    turns = rng.uniform(0, 180, num_leaves)
    image = np.full((rows, columns, 3), colors.mean(axis=0).astype(np.uint8), np.uint8)
    # As plain numbers, which OpenCV takes in less time than NumPy's.
    leaves = (array.tolist() for array in (centers, axes, turns, colors))
    for (x, y), (a, b), turn, color in zip(*leaves, strict=True):
        reach = max(a, b) + 2
        # A pebble that crosses an edge continues at the opposite edge.
        over_x = columns * (x < reach) - columns * (x > columns - reach)
        over_y = rows * (y < reach) - rows * (y > rows - reach)
        for shift_x in (0, over_x) if over_x else (0,):
            for shift_y in (0, over_y) if over_y else (0,):
                box = ((x + shift_x, y + shift_y), (2 * a, 2 * b), turn)
                cv2.ellipse(image, box, color, cv2.FILLED, cv2.LINE_AA)
    # White noise keeps large pebbles from being blank. The blur leaves an eighth of the noise.
    grain = 0.5 * rng.standard_normal((rows, columns, 1), np.float32)
    margin = math.ceil(4 * BLUR_PX * OVERSAMPLING)
    shaded = image * (brightness * (1 + grain))
    padded = cv2.copyMakeBorder(shaded, margin, margin, margin, margin, cv2.BORDER_WRAP)
    blurred = cv2.GaussianBlur(padded, (0, 0), BLUR_PX * OVERSAMPLING)
    blurred = np.rint(blurred[margin:-margin, margin:-margin])
    return np.asarray(np.clip(blurred, 0, 255, out=blurred).astype(np.uint8))


def _look_up(layer: Layer, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Returns the texture's colors at x, y (H, W) in px of the layer, (H, W, 3) uint8 RGB."""
    # Shift by whole tiles towards the origin, because OpenCV's coordinates end at 32767.
    near_x, near_y = (axis - TILE_PX * np.floor(axis[0, 0] / TILE_PX) for axis in (x, y))
    map_x, map_y = ((axis * OVERSAMPLING).astype(np.float32) for axis in (near_x, near_y))
    colors = cv2.remap(
        _tile(layer.texture_seed, layer.brightness),
        map_x,
        map_y,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(colors, np.uint8)


def _tinted(color: NDArray[np.uint8], angle: float) -> NDArray[np.uint8]:
    """Returns the grays of (H, W, 3) uint8 RGB in the colors of one angle, (H, W, 3) uint8 RGB."""
    # Red and blue of the color. Green balances them, so that the gray of ITU-R BT.601 stays.
    red, blue = math.cos(angle), math.sin(angle)
    direction = np.array([red, -(0.299 * red + 0.114 * blue) / 0.587, blue], np.float32)
    gray = cv2.cvtColor(np.ascontiguousarray(color), cv2.COLOR_RGB2GRAY).astype(np.float32)
    # As far as every channel stays from 0 to 255, and not further than TINT_LEVELS.
    room = np.minimum(gray, 255 - gray) / np.abs(direction).max()
    strength = np.minimum(room, TINT_LEVELS)
    tinted = gray[..., None] + strength[..., None] * direction
    return np.asarray(np.rint(tinted).astype(np.uint8))


def _grid(rows: slice, columns: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns x (1, W) and y (H, 1) of the pixel centers, float64, for broadcasting."""
    x = np.arange(columns.start, columns.stop, dtype=np.float64)
    y = np.arange(rows.start, rows.stop, dtype=np.float64)
    return x[None, :], y[:, None]


def _transform(
    matrix: Matrix, x: NDArray[np.float64 | np.int64], y: NDArray[np.float64 | np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Applies a (3, 3) affine matrix to points, float64. x and y are broadcast."""
    (xx, xy, x0), (yx, yy, y0), _ = matrix
    return xx * x + (xy * y + x0), yx * x + (yy * y + y0)


def _rotation(angle: float) -> Matrix:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]])


@functools.lru_cache(maxsize=1024)
def _product(motions: tuple[Motion | Sway, ...], t: float) -> Matrix:
    # Recursive, because layers share outer motions: all share the camera's, limbs their body's.
    product = _product(motions[:-1], t) @ motions[-1].matrix(t) if motions else np.eye(3)
    product.setflags(write=False)
    return product


def _reach_px(shape: Shape, matrix: Matrix) -> float:
    """Returns the largest distance on the screen between a point of the shape and its origin."""
    # The larger singular value, in closed form because this runs for every layer of every frame.
    xx, xy, yx, yy = matrix[:2, :2].ravel().tolist()
    half = (xx * xx + xy * xy + yx * yx + yy * yy) / 2
    root = math.sqrt(max(half**2 - (xx * yy - xy * yx) ** 2, 0))
    return shape.reach_px * math.sqrt(half + root)


def _invert(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _affine(linear: Matrix, pivot_px: tuple[float, float], shift_px: NDArray[np.float64]) -> Matrix:
    """Returns p -> pivot + shift + linear @ (p - pivot) as a (3, 3) matrix."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = pivot_px + shift_px - linear @ np.array(pivot_px)
    return matrix


def _check_names(field: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{field} must be one of {', '.join(known)}, got {name!r}")


def _check_classes(field: str, names: Sequence[str], known: Mapping[str, object]) -> None:
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise ConfigError(
            f"{field} must be some of {', '.join(known)}, each once, got {', '.join(names)}"
        )


def _check_size(width: int, height: int) -> None:
    if not 8 <= min(width, height) <= max(width, height) <= MAX_SIDE_PX:
        raise ConfigError(
            f"width and height must be from 8 to {MAX_SIDE_PX} px, got {width}x{height}"
        )


def _check_frame(frame: NDArray[np.uint8], first: NDArray[np.uint8]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ConfigError(
            f"a frame must be (H, W, 3) uint8 RGB, got {frame.dtype} of shape {frame.shape}"
        )
    if frame.shape != first.shape:
        raise ConfigError(
            f"all frames of a video must have one size, got {frame.shape} after {first.shape}"
        )


def _check_codec(codec: str) -> None:
    try:
        is_video = av.Codec(codec, "w").type == "video"
    except av.codec.codec.UnknownCodecError:
        is_video = False
    if not is_video:
        raise ConfigError(
            f"codec must be a video encoder of PyAV's FFmpeg, such as libx264 or mpeg4, "
            f"got {codec!r}"
        )


def _check_subsampling(width: int, height: int, pixel_format: str) -> None:
    try:
        chroma = av.VideoFormat(pixel_format)
    except ValueError as error:
        raise ConfigError(
            f"pixel_format must be one of FFmpeg's, such as yuv420p, got {pixel_format!r}"
        ) from error
    # Two px side by side share one color, so the last column of an odd width would have none.
    odd_width = width % 2 == 1 and chroma.chroma_width(2) == 1
    if odd_width or (height % 2 == 1 and chroma.chroma_height(2) == 1):
        raise ConfigError(
            f"width and height must be even for pixel_format {pixel_format}, got {width}x{height}; "
            f"take an even size or pixel_format='yuv444p'"
        )
