"""Quantizing on a device: the host's levels bit for bit, and its counts."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from flowprep.config import DIRECTIONS, Direction, FlowSpec
from flowprep.dataset.quantize import (
    HISTOGRAM_BIN_PX,
    HISTOGRAM_NUM_BINS,
    FieldQuantizer,
    FlowStatistics,
)
from tests.dataset.test_quantize import QUANTIZERS, bounds, edges_of, quantizers, spec_of

if os.environ.get("FLOWPREP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="PyTorch is not installed")

import torch

from flowprep.dataset.quantize_torch import DeviceQuantizer
from flowprep.flow.farneback_torch import FarnebackTorch
from flowprep.flow.parameters import FarnebackParameters
from tests.flow.scenes import turning_frames
from tests.torch_devices import devices, one_thread

__all__ = ["one_thread"]

BIN_EDGES_PX = HISTOGRAM_BIN_PX * np.arange(1, HISTOGRAM_NUM_BINS + 1)


def on_device(
    fields: NDArray[np.float32], spec: FlowSpec, device: str = "cpu"
) -> list[NDArray[Any]]:
    with torch.inference_mode():
        results = DeviceQuantizer(spec)(torch.from_numpy(fields).to(device))
    return [result.cpu().numpy() for result in results]


def magnitudes_of(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """By numpy, each operation rounded to float32."""
    with np.errstate(over="ignore"):
        x, y = np.moveaxis(np.where(np.isfinite(fields), fields, np.float32(0)), -1, 0)
        return np.asarray(np.sqrt(x * x + y * y))


def assert_as_on_the_host(fields: NDArray[np.float32], spec: FlowSpec, device: str) -> None:
    host, taken = FieldQuantizer(spec), FieldQuantizer(spec)
    for field, *results in zip(fields, *on_device(fields, spec, device), strict=True):
        levels = taken.add(*results)
        assert levels.dtype == np.uint8
        np.testing.assert_array_equal(levels, host.quantize(field))
    found, expected = vars(taken.statistics).copy(), vars(host.statistics).copy()
    histogram, opencv_s = found.pop("histogram"), expected.pop("histogram")
    assert found == expected
    # These are exactly the magnitudes by IEEE 754. OpenCV's are two roundings away from them.
    magnitudes = magnitudes_of(fields).astype(np.float64).ravel()
    edges = np.append(0, np.append(BIN_EDGES_PX, np.inf))
    bins = np.searchsorted(edges[1:-1], magnitudes, side="right")
    np.testing.assert_array_equal(histogram, np.bincount(bins, minlength=len(edges) - 1))
    for edge, below in zip(BIN_EDGES_PX, np.cumsum(opencv_s), strict=False):
        low, high = (np.count_nonzero(magnitudes < edge * (1 + s * 2.0**-22)) for s in (-1, 1))
        assert low <= below <= high


@devices
@settings(deadline=None)
@given(
    quantizer=quantizers,
    bound_px=st.one_of(st.sampled_from([1.0, 15.0, 20.0, 127.5, 128.0]), bounds),
    fields=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=9).map(lambda shape: (*shape, 2)),
        elements=st.floats(width=32) | st.floats(-25, 25, width=32) | st.integers(-9, 9),
    ),
)
def test_fields_have_the_levels_and_counts_of_the_host(
    device: str, quantizer: Any, bound_px: float, fields: NDArray[np.float32]
) -> None:
    assert_as_on_the_host(fields, spec_of(quantizer, bound_px), device)


@devices
@settings(deadline=None)
@given(
    quantizer=quantizers,
    bound_px=st.one_of(st.sampled_from([1.0, 15.0, 20.0, 127.5, 128.0]), bounds),
)
def test_the_edges_of_levels_have_the_levels_of_the_host(
    device: str, quantizer: Any, bound_px: float
) -> None:
    spec = spec_of(quantizer, bound_px)
    edges = edges_of(spec)
    assert_as_on_the_host(np.stack([edges, edges[::-1]], axis=-1)[None, None], spec, device)


@devices
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_batch_of_real_size_has_the_levels_and_counts_of_the_host(
    device: str, quantizer: Any
) -> None:
    rng = np.random.default_rng(7)
    sigmas_px = np.array([0.0, 0.05, 1, 30, 300]).reshape(-1, 1, 1, 1)
    fields = (sigmas_px * rng.standard_normal((5, 70, 91, 2))).astype(np.float32)
    fields[2, 3, 4], fields[3, 0, 0] = (np.nan, 1.0), (np.inf, -np.inf)
    # As estimators may lay them out: x and y apart, and rows with a margin.
    wide = np.zeros((5, 2, 70, 96), np.float32)
    wide[..., 5:] = np.moveaxis(fields, -1, 1)
    spec = spec_of(quantizer)
    assert_as_on_the_host(fields, spec, device)
    found = on_device(np.moveaxis(wide[..., 5:], 1, -1), spec, device)
    for one, other in zip(found, on_device(fields, spec, device), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sum(one.nbytes for one in found) < fields.nbytes / 3


@devices
def test_both_zeros_are_zero_whatever_their_order(device: str) -> None:
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0]):
        fields = np.array(values * 40, np.float32).reshape(1, 8, 5, 2)
        extremes = on_device(fields, spec_of("round"), device)[1]
        assert not np.signbit(extremes).any()
        quantizer = FieldQuantizer(spec_of("round"))
        quantizer.add(*(result[0] for result in on_device(fields, spec_of("round"), device)))
        assert quantizer.statistics.num_zero_fields == 1


@devices
def test_a_quantizer_serves_batches_of_any_size(device: str) -> None:
    spec, rng = spec_of("centered"), np.random.default_rng(1)
    quantizer = DeviceQuantizer(spec)
    total, parts = FlowStatistics(), FieldQuantizer(spec)
    for shape in [(3, 20, 30, 2), (1, 7, 9, 2), (3, 20, 30, 2)]:
        fields = (9 * rng.standard_normal(shape)).astype(np.float32)
        results = [
            result.cpu().numpy() for result in quantizer(torch.from_numpy(fields).to(device))
        ]
        for found in zip(*results, strict=True):
            parts.add(*found)
        for one in fields:
            alone = FieldQuantizer(spec)
            alone.add(*(result[0] for result in on_device(one[None], spec, device)))
            total += alone.statistics
    assert repr(parts.statistics) == repr(total)


@devices
@pytest.mark.parametrize("directions", [("forward", "backward"), ("backward",)])
def test_an_estimator_gives_the_levels_of_its_own_fields(
    device: str, directions: tuple[Direction, ...]
) -> None:
    spec, frames = spec_of("round", 2.0), turning_frames(8)
    estimator = FarnebackTorch(FarnebackParameters(), device=device, batch_pairs=3)
    assert estimator.reduces_fields == (device == "cuda")
    host, taken = FieldQuantizer(spec), FieldQuantizer(spec)
    whole = list(estimator.pairs(frames, step=2, directions=directions))
    reduced = list(
        estimator.reduced_pairs(frames, DeviceQuantizer(spec), step=2, directions=directions)
    )
    assert [pair.index for pair in reduced] == [pair.index for pair in whole] == list(range(6))
    for pair, fields in zip(reduced, whole, strict=True):
        for direction in DIRECTIONS:
            found, field = getattr(pair, direction), getattr(fields, direction)
            assert (found is None) == (field is None) == (direction not in directions)
            if found is not None:
                np.testing.assert_array_equal(taken.add(*found), host.quantize(field))
    assert taken.statistics.num_clipped == host.statistics.num_clipped > 0
    assert taken.statistics.num_fields == 6 * len(directions)
