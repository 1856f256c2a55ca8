"""One pass over the levels gives what the transforms give one after the other."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from flowprep.config import FlowSpec, Quantizer
from flowprep.dataset.quantize import dequantize
from flowprep.learn.clip_inputs import NormalizationName
from flowprep.learn.clips.levels import fill_crop, mean_px, to_px
from flowprep.learn.clips.transforms import (
    Crop,
    crop_flow,
    normalize_flow,
    subtract_mean_flow,
    to_stack,
    to_volume,
)

SPECS = [
    FlowSpec(quantizer=name, bound_px=bound) for name in get_args(Quantizer) for bound in (20, 7)
]


def random_planes(seed: int = 0) -> np.ndarray[Any, Any]:
    planes = np.random.default_rng(seed).integers(0, 256, (3, 2, 40, 53), np.uint8)
    planes[1, 0] = 255  # beyond `floor`'s bound
    planes[2, 1] = 0
    return planes


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.quantizer}-{spec.bound_px}")
@pytest.mark.parametrize("name", get_args(NormalizationName))
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("subtract", [False, True])
def test_a_crop_is_what_the_transforms_make(
    spec: FlowSpec, name: NormalizationName, flip: bool, subtract: bool
) -> None:
    planes = random_planes()
    flow = dequantize(planes, spec)
    if subtract:
        flow = subtract_mean_flow(flow)
    crop = Crop(11, 5, 32, 32, flip)
    wanted = normalize_flow(crop_flow(flow, crop, 32, scale_vectors=True), name, spec)
    means = mean_px(planes, spec) if subtract else None
    for form, arrange in (("stack", to_stack), ("volume", to_volume)):
        expected = arrange(wanted)
        found = np.full_like(expected, np.nan)
        fill_crop(
            planes, (11, 5), spec, found, form=form, normalization=name, flip=flip,
            means_px=means,
        )  # fmt: skip
        # Numbers that are not divided are a hundred times larger than others.
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=3e-7)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.quantizer}-{spec.bound_px}")
def test_px_and_means_are_those_of_dequantized_levels(spec: FlowSpec) -> None:
    planes = random_planes(1)
    expected = dequantize(planes, spec)
    np.testing.assert_allclose(to_px(planes, spec), expected, atol=1e-5)
    means = expected.mean(axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(mean_px(planes, spec), means, atol=1e-6)


def test_the_mean_of_a_large_field_is_exact() -> None:
    planes = np.full((1, 2, 700, 900), 255, np.uint8)
    planes[0, 1] = 254
    np.testing.assert_allclose(mean_px(planes, FlowSpec()), [[20, 20 * 253 / 255]], rtol=1e-12)
