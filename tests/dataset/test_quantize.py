"""Quantising: within half a level, as the peers' formulas say, and counted as it is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from fractions import Fraction
from typing import Any, get_args

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flowprep.config import FlowSpec, Quantizer
from flowprep.dataset.metadata import FlowSummary, read_histogram
from flowprep.dataset.quantize import (
    HISTOGRAM_BIN_PX,
    HISTOGRAM_NUM_BINS,
    FieldQuantizer,
    FlowStatistics,
    dequantize,
    quantize,
)

QUANTIZERS: tuple[Quantizer, ...] = get_args(Quantizer)
# One float32 rounding of the result, relative to the bound.
FLOAT32_SLACK = 2.0**-23

bounds = st.floats(0.01, 10000, allow_nan=False)
quantizers = st.sampled_from(QUANTIZERS)


def spec_of(quantizer: Quantizer, bound_px: float = 20.0) -> FlowSpec:
    return FlowSpec("dis", bound_px=bound_px, quantizer=quantizer)


def level_of(value: float, spec: FlowSpec) -> int:
    return int(quantize(np.array([value], np.float64), spec)[0])


def round_half_even(value: Fraction) -> int:
    """As cvRound and rint do; Python's round of a Fraction is exact."""
    return round(value)


# ---- the bar: half a level


@settings(deadline=None)
@given(quantizer=quantizers, bound_px=bounds, share=st.floats(-1, 1, allow_nan=False))
def test_a_value_inside_the_bound_comes_back_within_half_a_level(
    quantizer: Quantizer, bound_px: float, share: float
) -> None:
    spec = spec_of(quantizer, bound_px)
    value = share * bound_px
    back = float(dequantize(quantize(np.array([value]), spec), spec)[0])
    slack = bound_px * FLOAT32_SLACK
    error = abs(back - value)
    if quantizer == "centered" and value > bound_px - spec.px_per_level / 2:
        # There is no level 256.
        assert error <= spec.px_per_level + slack
    else:
        assert error <= spec.px_per_level / 2 + slack


@settings(deadline=None)
@given(
    quantizer=quantizers,
    bound_px=bounds,
    flow=hnp.arrays(
        np.float32, (3, 4, 2), elements=st.floats(-(2.0**15), 2.0**15, width=32, allow_nan=False)
    ),
)
def test_a_float32_field_comes_back_clipped_and_within_half_a_level(
    quantizer: Quantizer, bound_px: float, flow: NDArray[np.float32]
) -> None:
    spec = spec_of(quantizer, bound_px)
    levels = quantize(flow, spec)
    back = dequantize(levels, spec)
    assert (levels.shape, levels.dtype) == (flow.shape, np.uint8)
    assert (back.shape, back.dtype) == (flow.shape, np.float32)
    clipped = np.clip(flow.astype(np.float64), -bound_px, bound_px)
    allowed = np.full(flow.shape, spec.px_per_level / 2)
    if quantizer == "centered":
        allowed[clipped > bound_px - spec.px_per_level / 2] = spec.px_per_level
    assert (np.abs(back - clipped) <= allowed + bound_px * FLOAT32_SLACK).all()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_no_quantizer_is_biased(quantizer: Quantizer) -> None:
    spec = spec_of(quantizer)
    values = np.linspace(-19.5, 19.5, 100_001)
    error = dequantize(quantize(values, spec), spec) - values
    assert abs(error.mean()) < 0.002 * spec.px_per_level
    # Uniform in a level: one over the root of twelve.
    assert math.sqrt((error**2).mean()) == pytest.approx(
        spec.px_per_level / math.sqrt(12), rel=0.01
    )


@settings(deadline=None)
@given(quantizer=quantizers, bound_px=bounds, level=st.integers(0, 255))
def test_a_level_survives_dequantising_and_quantising(
    quantizer: Quantizer, bound_px: float, level: int
) -> None:
    spec = spec_of(quantizer, bound_px)
    value = (level - spec.center_level) * spec.px_per_level
    assert level_of(value, spec) == level


@settings(deadline=None)
@given(quantizer=quantizers, bound_px=bounds, shares=st.lists(st.floats(-1.5, 1.5), min_size=2))
def test_quantising_is_monotonic(
    quantizer: Quantizer, bound_px: float, shares: list[float]
) -> None:
    spec = spec_of(quantizer, bound_px)
    levels = quantize(np.sort(np.array(shares)) * bound_px, spec).astype(int)
    assert (np.diff(levels) >= 0).all()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_dequantising_is_strictly_monotonic_and_stays_inside_the_bound(
    quantizer: Quantizer,
) -> None:
    spec = spec_of(quantizer)
    table = dequantize(np.arange(256, dtype=np.uint8), spec)
    assert (np.diff(table) > 0).all()
    assert table.min() >= -20
    assert table.max() <= 20


@settings(deadline=None)
@given(quantizer=quantizers, bound_px=bounds, share=st.floats(-1, 1))
def test_255_minus_a_level_negates_within_one_level(
    quantizer: Quantizer, bound_px: float, share: float
) -> None:
    spec = spec_of(quantizer, bound_px)
    value = share * bound_px
    negated = 255 - quantize(np.array([value]), spec)
    back = float(dequantize(negated, spec)[0])
    # Half a level of quantising, and the distance of the centre from 127.5 twice.
    assert abs(back + value) <= 1.5 * spec.px_per_level + bound_px * FLOAT32_SLACK
    assert abs(int(negated[0]) - level_of(-value, spec)) <= 1


def test_255_minus_a_level_negates_exactly_about_127_5() -> None:
    spec = spec_of("round")
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(dequantize(255 - levels, spec), -dequantize(levels, spec))


# ---- the peers' formulas


@settings(deadline=None)
@given(
    bound_px=st.sampled_from([1.0, 15.0, 20.0, 32.0]),
    value=st.floats(-40, 40, width=32, allow_nan=False),
)
def test_round_is_denseflows_cast(bound_px: float, value: float) -> None:
    # denseflow: v > H ? 255 : v < L ? 0 : cvRound(255 * (v - L) / (H - L)), in doubles.
    if value > bound_px:
        expected = 255
    elif value < -bound_px:
        expected = 0
    else:
        expected = round(255 * (value - -bound_px) / (bound_px - -bound_px))
    assert level_of(value, spec_of("round", bound_px)) == expected


def test_ties_of_round_go_to_the_even_level() -> None:
    # With bound 127.5 levels are 1 px apart, and every tie is a binary fraction.
    spec = spec_of("round", 127.5)
    values = np.arange(-127, 128, dtype=np.float64)
    expected = [round_half_even(Fraction(value) + Fraction(255, 2)) for value in values]
    np.testing.assert_array_equal(quantize(values, spec), expected)
    assert quantize(np.array([0.0, 1.0, 2.0, 3.0]), spec).tolist() == [128, 128, 130, 130]


@settings(deadline=None)
@given(value=st.floats(-40, 40, width=32, allow_nan=False))
def test_floor_is_mediapipes_formula(value: float) -> None:
    clipped = min(max(value, -20.0), 20.0)
    assert level_of(value, spec_of("floor")) == math.floor(255 * (clipped + 20.0) / 40.0)


@settings(deadline=None)
@given(value=st.floats(-40, 40, width=32, allow_nan=False))
def test_centered_is_agethens_formula(value: float) -> None:
    # saturate_cast<uchar>(round(128 + 128 v / b)); exact in fractions.
    exact = round_half_even(128 + 128 * Fraction(value) / 20)
    ours = level_of(value, spec_of("centered"))
    wanted = min(max(exact, 0), 255)
    tie = (128 + 128 * Fraction(value) / 20) % 1
    assert ours == wanted or abs(tie - Fraction(1, 2)) < Fraction(1, 2**40)


def test_mediapipes_own_decoder_leaves_half_a_level_of_bias_that_ours_does_not() -> None:
    spec = spec_of("floor")
    values = np.linspace(-19.9, 19.9, 9973)
    levels = quantize(values, spec)
    theirs = (levels / 255 - 0.5) * 40 - values
    ours = dequantize(levels, spec) - values
    assert theirs.mean() == pytest.approx(-0.078, abs=0.001)
    assert math.sqrt((theirs**2).mean()) == pytest.approx(0.091, abs=0.001)
    assert ours.mean() == pytest.approx(0, abs=0.001)
    assert math.sqrt((ours**2).mean()) == pytest.approx(0.045, abs=0.001)


@pytest.mark.parametrize(
    ("quantizer", "of_zero", "of_bound", "of_minus_bound"),
    [("round", 128, 255, 0), ("floor", 127, 255, 0), ("centered", 128, 255, 0)],
)
@pytest.mark.parametrize("bound_px", [0.5, 20.0, 333.0])
def test_the_levels_of_zero_and_of_the_bounds(
    quantizer: Quantizer, of_zero: int, of_bound: int, of_minus_bound: int, bound_px: float
) -> None:
    spec = spec_of(quantizer, bound_px)
    assert level_of(0.0, spec) == spec.zero_level == of_zero
    assert level_of(-0.0, spec) == of_zero
    assert level_of(bound_px, spec) == of_bound
    assert level_of(-bound_px, spec) == of_minus_bound


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_the_center_level_decodes_to_zero(quantizer: Quantizer) -> None:
    spec = spec_of(quantizer)
    center = spec.center_level
    below, above = math.floor(center), math.ceil(center)
    low, high = dequantize(np.array([below, above], np.uint8), spec)
    assert low == -high
    assert high == pytest.approx((above - center) * spec.px_per_level)


def test_zero_of_round_decodes_to_half_a_level() -> None:
    spec = spec_of("round")
    assert dequantize(quantize(np.zeros(1), spec), spec)[0] == pytest.approx(0.078, abs=0.0005)


# ---- what is out of range or no number


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_beyond_the_bound_are_clipped(quantizer: Quantizer, dtype: type) -> None:
    spec = spec_of(quantizer)
    flow = np.array([-60000, -20.5, 20.5, 60000], dtype)
    assert quantize(flow, spec).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_no_numbers_become_the_zero_level(quantizer: Quantizer) -> None:
    spec = spec_of(quantizer)
    flow = np.array([np.nan, np.inf, -np.inf, 20.0], np.float32)
    zero = spec.zero_level
    assert quantize(flow, spec).tolist() == [zero, zero, zero, 255]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (5, 4, 3, 2)])
def test_any_shape_is_kept(shape: tuple[int, ...]) -> None:
    spec = spec_of("round")
    levels = quantize(np.zeros(shape, np.float32), spec)
    assert levels.shape == shape
    assert levels.dtype == np.uint8
    assert dequantize(levels, spec).shape == shape


def test_the_input_is_left_as_it_was() -> None:
    flow = np.array([[np.nan, 30.0, -1.0]], np.float64)
    before = flow.copy()
    quantize(flow, spec_of("floor"))
    np.testing.assert_array_equal(flow, before)


# ---- fields of a video, by compiled code


def edges_of(spec: FlowSpec) -> NDArray[np.float32]:
    """Where a level begins, the bounds, both zeros, the ends of float32, and what is no number.

    Each with its two neighbours in float32.
    """
    halves = np.arange(-1, 256.5, 0.5)
    starts = (halves - spec.center_level) * spec.px_per_level
    bounds = [-spec.bound_px, spec.bound_px]
    values = np.array([*starts, *bounds, -0.0, 0.0, 1e-45, 3e38, np.inf, -np.inf], np.float32)
    with np.errstate(over="ignore"):
        neighbours = [np.nextafter(values, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([values, *neighbours, np.float32([np.nan])])


def assert_same_levels(field: NDArray[np.float32], spec: FlowSpec) -> None:
    planes = FieldQuantizer(spec).quantize(field)
    expected = quantize(field, spec)
    assert planes.dtype == np.uint8
    assert planes.flags.c_contiguous
    np.testing.assert_array_equal(planes, np.moveaxis(expected, -1, 0))


@settings(deadline=None)
@given(
    quantizer=quantizers,
    bound_px=st.one_of(st.sampled_from([1.0, 15.0, 20.0, 127.5, 128.0]), bounds),
    field=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20).map(lambda shape: (*shape, 2)),
        elements=st.floats(width=32) | st.floats(-25, 25, width=32),
    ),
)
def test_a_field_has_the_levels_of_quantize(
    quantizer: Quantizer, bound_px: float, field: NDArray[np.float32]
) -> None:
    assert_same_levels(field, spec_of(quantizer, bound_px))


@settings(deadline=None)
@given(
    quantizer=quantizers,
    bound_px=st.one_of(st.sampled_from([1.0, 15.0, 20.0, 127.5, 128.0]), bounds),
)
def test_the_edges_of_levels_have_the_levels_of_quantize(
    quantizer: Quantizer, bound_px: float
) -> None:
    spec = spec_of(quantizer, bound_px)
    edges = edges_of(spec)
    assert_same_levels(np.stack([edges, edges[::-1]], axis=-1)[None], spec)


def test_fields_may_change_their_size_and_their_layout() -> None:
    spec = spec_of("round")
    quantizer = FieldQuantizer(spec)
    rng = np.random.default_rng(2)
    for height, width in [(9, 7), (7, 9), (1, 1), (9, 7)]:
        planar = (9 * rng.standard_normal((2, height, width))).astype(np.float32)
        field = np.moveaxis(planar, 0, -1)
        expected = np.moveaxis(quantize(field, spec), -1, 0)
        before = field.copy()
        first = quantizer.quantize(field)
        np.testing.assert_array_equal(quantizer.quantize(np.ascontiguousarray(field)), expected)
        quantizer.quantize(-field)
        # Levels given away earlier are not written to again.
        np.testing.assert_array_equal(first, expected)
        np.testing.assert_array_equal(field, before)


def test_readers_do_without_the_compiler() -> None:
    """numba takes half a second; who reads or verifies a data set must not wait for it."""
    code = "import sys, flowprep, flowprep.cli; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- statistics


def plain_statistics(fields: list[NDArray[np.float32]], bound_px: float) -> dict[str, Any]:
    """The same numbers by numpy alone, in float64."""
    invalid = sum(int((~np.isfinite(field)).sum()) for field in fields)
    cleaned = [np.where(np.isfinite(f), f, 0).astype(np.float64) for f in fields]
    magnitudes = np.concatenate([np.hypot(f[..., 0], f[..., 1]).ravel() for f in cleaned])
    edges = np.append(np.arange(HISTOGRAM_NUM_BINS + 1) * HISTOGRAM_BIN_PX, np.inf)
    histogram = np.searchsorted(edges, magnitudes, side="right") - 1
    counts = np.bincount(histogram, minlength=HISTOGRAM_NUM_BINS + 1)
    return {
        "min_px": round(min(float(f.min()) for f in cleaned), 4),
        "max_px": round(max(float(f.max()) for f in cleaned), 4),
        "magnitude_histogram": np.trim_zeros(counts, "b").tolist(),
        "histogram_bin_px": HISTOGRAM_BIN_PX,
        "num_values": sum(f.size for f in fields),
        "num_clipped": sum(int((np.abs(f) > bound_px).sum()) for f in cleaned),
        "num_invalid": invalid,
        "num_fields": len(fields),
        "num_zero_fields": sum(not f.any() for f in cleaned),
    }


def summary_of(quantizer: FieldQuantizer) -> dict[str, Any]:
    summary: dict[str, Any] = msgspec.to_builtins(FlowSummary.of(quantizer.statistics))
    return summary


def test_statistics_are_those_of_plain_numpy() -> None:
    rng = np.random.default_rng(5)
    fields = [
        (scale * rng.standard_normal((24, 32, 2))).astype(np.float32) for scale in (0.3, 3, 12, 40)
    ]
    fields.insert(1, np.zeros((24, 32, 2), np.float32))
    fields[2][3, 4] = (np.nan, 1.0)
    fields[3][0, 0] = (np.inf, -np.inf)
    fields.append(np.full((24, 32, 2), -0.0, np.float32))
    statistics = FieldQuantizer(spec_of("round"))
    for field in fields:
        statistics.quantize(field)
    expected = plain_statistics(fields, 20.0)
    found = summary_of(statistics)
    assert found == expected
    assert found["num_invalid"] == 3
    assert found["num_zero_fields"] == 2
    assert len(found["magnitude_histogram"]) == HISTOGRAM_NUM_BINS + 1
    assert sum(found["magnitude_histogram"]) == 6 * 24 * 32
    counts = statistics.statistics
    assert (counts.num_values, counts.num_clipped) == (
        expected["num_values"],
        expected["num_clipped"],
    )


_edge_values = st.sampled_from([0.0, -0.0, 1e-6, -1e-6, 3.0, -25.0, 70.0, np.nan, np.inf])


@settings(deadline=None, max_examples=50)
@given(
    values=st.lists(st.lists(_edge_values, min_size=4, max_size=4), min_size=1, max_size=12),
    data=st.data(),
)
def test_statistics_of_parts_add_up_to_those_of_the_whole(
    values: list[list[float]], data: st.DataObject
) -> None:
    fields = [np.array(field, np.float32).reshape(1, 2, 2) for field in values]
    whole = FieldQuantizer(spec_of("round"))
    for field in fields:
        whole.quantize(field)
    bounds = data.draw(st.lists(st.integers(0, len(fields)), max_size=4).map(sorted))
    total = FlowStatistics()
    for start, stop in itertools.pairwise([0, *bounds, len(fields)]):
        part = FieldQuantizer(spec_of("round"))
        for field in fields[start:stop]:
            part.quantize(field)
        stored = json.dumps(
            dataclasses.asdict(part.statistics), default=lambda value: value.tolist()
        )
        total += msgspec.convert(json.loads(stored), FlowStatistics, dec_hook=read_histogram)
    # As text, which tells 0.0 and -0.0 apart.
    assert repr(FlowSummary.of(total)) == repr(FlowSummary.of(whole.statistics))


@pytest.mark.parametrize("sigma_px", [0.05, 1.0, 30.0])
def test_the_histogram_is_that_of_opencv(sigma_px: float) -> None:
    rng = np.random.default_rng(3)
    field = (sigma_px * rng.standard_normal((240, 320, 2))).astype(np.float32)
    statistics = FieldQuantizer(spec_of("round"))
    statistics.quantize(field)
    magnitude = cv2.magnitude(field[..., 0], field[..., 1])
    limits = [0, HISTOGRAM_NUM_BINS * HISTOGRAM_BIN_PX]
    counts = cv2.calcHist([magnitude], [0], None, [HISTOGRAM_NUM_BINS], limits)
    expected = counts.ravel().astype(int).tolist()
    expected.append(magnitude.size - sum(expected))
    found = FlowSummary.of(statistics.statistics).magnitude_histogram
    assert found + [0] * (len(expected) - len(found)) == expected


def test_a_magnitude_beyond_float32_is_long() -> None:
    # OpenCV's own histogram takes the NaN that its magnitude has there for 0 px.
    statistics = FieldQuantizer(spec_of("round"))
    statistics.quantize(np.full((4, 64, 2), 3e38, np.float32))
    assert FlowSummary.of(statistics.statistics).magnitude_histogram == [0] * HISTOGRAM_NUM_BINS + [
        4 * 64
    ]


@settings(deadline=None)
@given(bound_px=bounds, shares=st.lists(st.floats(-2, 2), min_size=2, max_size=40))
def test_what_is_clipped_is_what_is_beyond_the_bound_in_float32(
    bound_px: float, shares: list[float]
) -> None:
    values = np.float32([*(share * bound_px for share in shares), bound_px, -bound_px])
    field = np.stack([values, np.zeros_like(values)], axis=-1)[None]
    statistics = FieldQuantizer(spec_of("round", bound_px))
    statistics.quantize(field)
    assert statistics.statistics.num_clipped == np.count_nonzero(
        np.abs(values) > np.float32(bound_px)
    )


def test_a_magnitude_on_an_edge_belongs_to_the_bin_above_it() -> None:
    statistics = FieldQuantizer(spec_of("round"))
    field = np.zeros((1, 6, 2), np.float32)
    field[0, :, 0] = (0.0, 0.25, 0.2499, -0.5, 63.75, 64.0)
    statistics.quantize(field)
    histogram = FlowSummary.of(statistics.statistics).magnitude_histogram
    filled = {index: count for index, count in enumerate(histogram) if count}
    assert filled == {0: 2, 1: 1, 2: 1, 255: 1, 256: 1}


def test_a_field_without_a_number_counts_as_invalid_and_zero() -> None:
    statistics = FieldQuantizer(spec_of("round"))
    statistics.quantize(np.full((2, 3, 2), np.nan, np.float32))
    found = summary_of(statistics)
    assert (found["num_invalid"], found["num_clipped"]) == (12, 0)
    assert (found["min_px"], found["max_px"]) == (0.0, 0.0)
    assert found["magnitude_histogram"] == [6]


def test_statistics_of_no_field_say_nothing() -> None:
    found = summary_of(FieldQuantizer(spec_of("round")))
    assert (found["min_px"], found["max_px"]) == (None, None)
    assert found["magnitude_histogram"] == []
    assert found["num_fields"] == 0


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_values_on_the_bound_are_not_clipped(quantizer: Quantizer) -> None:
    statistics = FieldQuantizer(spec_of(quantizer))
    field = np.array([[[20.0, -20.0], [20.001, -21.0]]], np.float32)
    statistics.quantize(field)
    assert statistics.statistics.num_clipped == 2


def test_statistics_do_not_depend_on_the_order_of_the_fields() -> None:
    rng = np.random.default_rng(1)
    fields = list((9 * rng.standard_normal((3, 8, 9, 2))).astype(np.float32))
    found = []
    for order in itertools.permutations(fields):
        statistics = FieldQuantizer(spec_of("round"))
        for field in order:
            statistics.quantize(field)
        found.append(summary_of(statistics))
    assert all(item == found[0] for item in found)
