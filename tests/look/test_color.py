"""The colour wheel against the published coding, computed here as its C++ source does."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowprep import flow_to_color
from flowprep.errors import ConfigError


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
