"""The recommended bound keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest

from flowprep.config import FlowSpec
from flowprep.dataset.metadata import FlowSummary
from flowprep.dataset.quantize import FieldQuantizer
from flowprep.look.report.bound import NICE_BOUNDS_PX, most_beyond, recommend_bound
from flowprep.synthetic import Layer, Motion, Scene, Shape


@pytest.mark.parametrize("bound_px", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1])
@pytest.mark.parametrize("seed", range(8))
def test_recommended_bound_keeps_its_promise_on_known_motion(
    seed: int, share: float, bound_px: float
) -> None:
    rng = np.random.default_rng(seed)
    figure = Motion(
        offset_px=(32, 24), velocity_px=tuple(rng.normal(0, 12, 2)), turn_rate=rng.normal(0, 0.4)
    )
    camera = Motion((32, 24), velocity_px=tuple(rng.normal(0, 3, 2)), zoom_rate=rng.normal(0, 0.05))
    scene = Scene(64, 48, (Layer(1, (camera,)), Layer(2, (figure,), Shape(4, 4, 4))))
    fields = np.stack([scene.flow(t) for t in range(3)])
    quantizer = FieldQuantizer(FlowSpec(bound_px=bound_px))
    for field in fields:
        quantizer.quantize(field)
    summary = FlowSummary.of(quantizer.statistics)
    bounds = np.array(NICE_BOUNDS_PX)
    true = np.array([(np.abs(fields) > np.float32(bound)).mean() for bound in bounds])
    most = most_beyond(summary, bound_px, bounds)
    assert (most / fields.size >= true - 1e-12).all()
    assert (np.diff(most) <= 0).all()
    advice = recommend_bound(
        most,
        fields.size,
        quantizer.statistics.num_clipped,
        bound_px=bound_px,
        requested_share=share,
    )
    place = bounds.tolist().index(advice.recommended_px)
    assert true[place] <= share
    assert advice.recommended_share <= share
    # Not wasteful either: by the square root of two, a bin and a round number at most.
    least = bounds[np.flatnonzero(true <= share)[0]]
    assert advice.recommended_px <= 1.2 * (np.sqrt(2) * least + 0.25)


def test_recommended_bound_of_one_straight_motion_is_exact() -> None:
    field = np.zeros((10, 10, 2), np.float32)
    field[:, :5] = (7.3, 0)
    quantizer = FieldQuantizer(FlowSpec(bound_px=20))
    quantizer.quantize(field)
    most = most_beyond(FlowSummary.of(quantizer.statistics), 20, np.array(NICE_BOUNDS_PX))
    settings = {"bound_px": 20.0, "requested_share": 0.01}
    advice = recommend_bound(most, field.size, 0, **settings)  # type: ignore[arg-type]
    assert (advice.recommended_px, advice.recommended_share) == (8, 0)


def test_motion_beyond_the_last_bin_is_not_forgotten() -> None:
    field = np.full((4, 4, 2), 300, np.float32)
    quantizer = FieldQuantizer(FlowSpec(bound_px=20))
    quantizer.quantize(field)
    most = most_beyond(FlowSummary.of(quantizer.statistics), 20, np.array(NICE_BOUNDS_PX))
    advice = recommend_bound(most, 32, 32, bound_px=20, requested_share=0.01)
    assert advice.recommended_px == 320


def test_a_bound_that_is_enough_is_not_made_larger() -> None:
    field = np.zeros((10, 10, 2), np.float32)
    field[0, 0] = (30, 0)
    quantizer = FieldQuantizer(FlowSpec(bound_px=33))
    quantizer.quantize(field)
    most = most_beyond(FlowSummary.of(quantizer.statistics), 33, np.array(NICE_BOUNDS_PX))
    # 33 is no round bound; the next one is 36.
    most[np.array(NICE_BOUNDS_PX) < 33] = field.size
    advice = recommend_bound(most, field.size, 0, bound_px=33, requested_share=0.001)
    assert (advice.recommended_px, advice.recommended_share) == (33, 0)


def test_nobody_is_told_to_take_a_larger_and_a_smaller_bound() -> None:
    most = np.zeros(len(NICE_BOUNDS_PX))
    advice = recommend_bound(most, 1000, 5, bound_px=20, requested_share=0.01)
    assert advice.recommended_px < 20
    kept = advice.not_smaller()
    assert (kept.recommended_px, kept.recommended_share) == (20, 0.005)
    most[:-1] = 1000
    larger = recommend_bound(most, 1000, 500, bound_px=20, requested_share=0.01)
    assert larger.not_smaller() is larger
