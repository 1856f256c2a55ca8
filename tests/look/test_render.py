"""Pages, their panels, and arrows."""

from __future__ import annotations

import numpy as np
import pytest

from flowprep.errors import ConfigError
from flowprep.look.color import error_ramp
from flowprep.look.render import Page, Panel, Ramp, arrow_factor, draw_arrows, fit, panel_size

# ---- scales


@pytest.mark.parametrize(
    ("own", "wanted", "size"),
    [
        ((340, 256), None, (340, 256)),
        ((64, 48), None, (256, 192)),
        ((16, 16), None, (208, 208)),
        ((100, 400), None, (100, 400)),
        ((3840, 2160), None, (640, 360)),
        ((360, 1280), None, (180, 640)),
        ((340, 256), 170, (170, 128)),
    ],
)
def test_panels_are_whole_factors_or_shrunk(
    own: tuple[int, int], wanted: int | None, size: tuple[int, int]
) -> None:
    assert panel_size(*own, wanted) == size


def test_a_whole_factor_repeats_px_and_another_shape_is_fitted_inside() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    assert np.array_equal(fit(image, (48, 36)), image.repeat(3, axis=0).repeat(3, axis=1))
    assert fit(image, (16, 12)) is image
    assert fit(image, (8, 100)).shape == (6, 8, 3)
    assert fit(image, (100, 24)).shape == (24, 32, 3)


# ---- arrows


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_arrows_point_where_the_flow_goes(direction: tuple[int, int]) -> None:
    frame = np.full((90, 90, 3), 128, np.uint8)
    flow = np.zeros((90, 90, 2), np.float32)
    flow[45, 45] = np.multiply(direction, 10)
    drawn = draw_arrows(frame, flow, scale=1, factor=2, spacing_px=90)
    yellow = (drawn[..., 0] > 200) & (drawn[..., 2] < 120)
    y, x = np.nonzero(yellow)
    u, v = direction
    along = (x - 45) * u + (y - 45) * v
    across = (x - 45) * v - (y - 45) * u
    assert 18 <= along.max() <= 22
    assert along.min() >= -2
    assert np.abs(across).max() <= 4


def test_arrows_grow_in_steps_that_can_be_named() -> None:
    assert arrow_factor(4, 1, 24) == 10
    assert arrow_factor(48, 1, 24) == 1
    assert arrow_factor(1000, 4, 24) == 0.1


# ---- pages


def test_a_page_has_even_sides_and_its_pictures_px_by_px() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (33, 201, 3), np.uint8) for _ in range(3)]
    panels = [Panel("frame"), Panel("flow", wheel="5 px"), Panel("e", Ramp(error_ramp(), "0", "3"))]
    page = Page(panels, (201, 33))
    drawn = page.draw([images], ["frame 0 to 1"], "a clip")
    assert (drawn.shape[1], drawn.shape[0]) == page.size
    assert page.size[0] % 2 == 0 == page.size[1] % 2
    for image in images:
        found = [
            (y, x)
            for y, x in zip(*np.nonzero((drawn == image[0, 0]).all(axis=-1)), strict=True)
            if np.array_equal(drawn[y : y + 33, x : x + 201], image)
        ]
        assert len(found) == 1


def test_a_long_name_does_not_run_into_the_label() -> None:
    page = Page([Panel("frame")], (200, 40))
    image = np.zeros((40, 200, 3), np.uint8)
    long = page.draw([[image]], ["frame 7 to 8"], "very/" * 40)
    short = page.draw([[image]], ["frame 7 to 8"], "v")
    assert np.array_equal(long[:, -80:], short[:, -80:])


def test_a_page_that_is_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"width must leave a page of at most 16384 px"):
        Page([Panel("frame")] * 3, (8000, 100))
