"""The colour wheel against the published coding, computed here as its C++ source does."""

from __future__ import annotations

import math

import numpy as np
import pytest

import flowprep
from flowprep import FlowSpec, flow_to_color
from flowprep.errors import ConfigError
from flowprep.look.color import (
    OUTSIDE,
    color_wheel,
    error_ramp,
    error_to_color,
    levels_to_color,
    round_scale,
)


def middlebury_color(fx: float, fy: float) -> tuple[int, int, int]:
    """Transcribes the published formula: RY 15, YG 6, GC 4, CB 11, BM 13, MR 6 steps."""
    hues = [(255, 255 * i // 15, 0) for i in range(15)]
    hues += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    hues += [(0, 255, 255 * i // 4) for i in range(4)]
    hues += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    hues += [(255 * i // 13, 0, 255) for i in range(13)]
    hues += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    radius = math.hypot(fx, fy)
    fk = (math.atan2(-fy, -fx) / math.pi + 1) / 2 * (len(hues) - 1)
    k0 = int(fk)
    f = fk - k0
    color = []
    for one, other in zip(hues[k0], hues[(k0 + 1) % len(hues)], strict=True):
        value = (1 - f) * one / 255 + f * other / 255
        value = 1 - radius * (1 - value) if radius <= 1 else value * 0.75
        color.append(int(255 * value))
    return color[0], color[1], color[2]


def test_full_disc_is_the_published_one_to_a_level() -> None:
    axis = np.linspace(-1.3, 1.3, 53)
    u, v = np.meshgrid(axis, axis)
    drawn = flow_to_color(np.stack([7 * u, 7 * v], axis=-1), max_flow_px=7)
    wanted = np.array(
        [[middlebury_color(x, y) for x, y in zip(*r, strict=True)] for r in zip(u, v, strict=True)]
    )
    # On the rim itself rounding decides between saturated and darkened.
    off_rim = np.abs(np.hypot(u, v) - 1) > 1e-6
    assert np.abs(drawn.astype(int) - wanted)[off_rim].max() <= 1


@pytest.mark.parametrize(
    ("flow", "dominant"),
    [
        ((1, 0), (255, 0, 0)),  # right is red
        ((0, 1), (255, 229, 0)),  # down is yellow
        ((-1, 0), (0, 209, 255)),  # left is cyan to blue
        ((0, -1), (97, 0, 255)),  # up is violet
    ],
)
def test_cardinal_directions_have_the_colours_of_the_paper(
    flow: tuple[int, int], dominant: tuple[int, int, int]
) -> None:
    color = flow_to_color(np.array(flow, dtype=np.float32), max_flow_px=1)
    assert np.abs(color.astype(int) - dominant).max() <= 20


def test_zero_is_white_and_invalid_is_black() -> None:
    flow = np.array([[0, 0], [np.nan, 1], [np.inf, 0]], dtype=np.float32)
    assert flow_to_color(flow, 5).tolist() == [[255] * 3, [0] * 3, [0] * 3]


def test_the_scale_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"max_flow_px must be > 0, got 0"):
        flow_to_color(np.zeros((2, 2)), 0)


@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
@pytest.mark.parametrize("max_flow_px", [1.0, 7.3, 40.0])
def test_stored_levels_have_the_colours_of_their_flow(quantizer: str, max_flow_px: float) -> None:
    spec = FlowSpec("dis", bound_px=12, quantizer=quantizer)  # type: ignore[arg-type]
    levels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 2), np.uint8)
    drawn = levels_to_color(levels, spec, max_flow_px)
    assert drawn.shape == (3, 40, 30, 3)
    assert np.array_equal(drawn, flow_to_color(flowprep.dequantize(levels, spec), max_flow_px))


@pytest.mark.parametrize("shape", [(2,), (5, 2), (2, 3, 4, 2), (0, 2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_any_shape_and_type_of_float(shape: tuple[int, ...], kind: type) -> None:
    flow = np.random.default_rng(0).normal(0, 3, shape).astype(kind)
    drawn = flow_to_color(flow, 5)
    assert (drawn.shape, drawn.dtype) == ((*shape[:-1], 3), np.uint8)
    assert np.array_equal(drawn, flow_to_color(flow.astype(np.float32), 5))


def test_every_direction_has_a_colour_of_its_own() -> None:
    angle = np.linspace(-np.pi, np.pi, 721)[:-1]
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * 0.999
    colors = flow_to_color(rim, 1).astype(int)
    wanted = np.array([middlebury_color(u, v) for u, v in rim])
    assert np.abs(colors - wanted).max() <= 1
    # It goes round smoothly; the published wheel has one seam, at red, of a sixth of magenta.
    jumps = np.sort(np.abs(np.diff(colors, axis=0)).max(axis=1))
    assert jumps[-2] <= 6
    assert jumps[-1] <= 48


def test_the_wheel_is_a_disc_of_the_directions_that_it_points_to() -> None:
    wheel = color_wheel(41)
    assert wheel.shape == (41, 41, 4)
    assert wheel[0, 0, 3] == 0 == wheel[-1, 0, 3]
    assert wheel[20, 20].tolist() == pytest.approx([255] * 4, abs=12)
    for (x, y), flow in {(38, 20): (1, 0), (20, 38): (0, 1), (2, 20): (-1, 0)}.items():
        wanted = flow_to_color(np.array(flow) * 18 / 20.5, 1).astype(int)
        # To the right it averages both sides of the published seam.
        assert np.abs(wheel[y, x, :3] - wanted).max() <= (24 if flow == (1, 0) else 6)
        assert wheel[y, x, 3] == 255


@pytest.mark.parametrize("scale", [-1, float("nan"), float("inf")])
def test_a_scale_that_is_none(scale: float) -> None:
    with pytest.raises(ConfigError, match="max_flow_px must be > 0"):
        flow_to_color(np.zeros((2, 2)), scale)
    with pytest.raises(ConfigError, match="max_flow_px must be > 0"):
        levels_to_color(np.zeros((2, 2), np.uint8), FlowSpec(), scale)


@pytest.mark.parametrize(
    ("px", "scale"),
    [(0, 1), (0.3, 1), (1, 1), (1.01, 1.5), (2, 2), (6.5, 8), (9, 10), (11, 15), (28.3, 30)],
)
def test_scales_read_well(px: float, scale: float) -> None:
    assert round_scale(px) == pytest.approx(scale)


def test_errors_are_white_to_dark_and_gray_where_there_are_none() -> None:
    colors = error_to_color(np.array([[0, 1.5, 3, 9, np.nan]]), 3)
    assert colors[0, 0].tolist() == [255, 255, 255]
    assert colors[0, 2].tolist() == colors[0, 3].tolist() == error_ramp()[-1].tolist()
    assert colors[0, 4].tolist() == list(OUTSIDE)
    brightness = error_ramp().astype(int).sum(axis=1)
    assert (np.diff(brightness) <= 0).all()
