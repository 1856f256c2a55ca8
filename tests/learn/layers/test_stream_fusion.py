"""Each fusion against its formula, and where fusions by convolution start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from flowprep.learn.layers.stream_fusion import StreamFusion, gaussian_3d
from flowprep.learn.network_options import FusionInit, StreamFusionKind

N, C, T, H, W = 2, 3, 4, 5, 6


def maps(num_frames: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps as they are after a ReLU."""
    torch.manual_seed(0)
    shape = (N, C, num_frames, H, W)
    return torch.randn(shape).relu(), torch.randn(shape).relu()


def drawn(kind: StreamFusionKind) -> StreamFusion:
    torch.manual_seed(1)
    fusion = StreamFusion(kind, C, "random")
    assert isinstance(fusion.conv, nn.Conv3d)
    assert fusion.conv.bias is not None
    nn.init.normal_(fusion.conv.bias)
    return fusion


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("sum", lambda a, b: a + b),
        ("max", lambda a, b: np.where(a > b, a, b)),
        ("concat", lambda a, b: np.concatenate([a, b], 1)),
    ],
)
def test_fusions_without_weights(kind: StreamFusionKind, formula: object) -> None:
    a, b = maps()

    fused = StreamFusion(kind, C)(a, b)

    np.testing.assert_array_equal(fused.numpy(), formula(a.numpy(), b.numpy()))  # type: ignore[operator]


@torch.no_grad()
def test_conv_is_a_matrix_at_each_place() -> None:
    a, b = maps()
    fusion = drawn("conv")

    weight = fusion.conv.weight.flatten(1).numpy()  # (C, 2 C)
    wanted = np.einsum("kc,ncthw->nkthw", weight[:, :C], a.numpy())
    wanted += np.einsum("kc,ncthw->nkthw", weight[:, C:], b.numpy())
    assert fusion.conv.bias is not None
    wanted += fusion.conv.bias.numpy()[:, None, None, None]

    np.testing.assert_allclose(fusion(a, b).numpy(), np.maximum(wanted, 0), atol=1e-5)


@torch.no_grad()
def test_conv3d_sums_27_neighbors_of_both() -> None:
    a, b = maps()
    fusion = drawn("conv3d")

    wanted = np.zeros((N, C, T, H, W))
    weight = fusion.conv.weight.double().numpy()
    both = np.concatenate([a.numpy(), b.numpy()], 1)
    padded = np.pad(both, ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    for t, y, x in np.ndindex(3, 3, 3):
        part = padded[:, :, t : t + T, y : y + H, x : x + W]
        wanted += np.einsum("kc,ncthw->nkthw", weight[:, :, t, y, x], part)
    assert fusion.conv.bias is not None
    wanted += fusion.conv.bias.numpy()[:, None, None, None]

    np.testing.assert_allclose(fusion(a, b).numpy(), np.maximum(wanted, 0), atol=1e-5)


def test_bilinear_is_the_root_of_the_summed_products_of_length_1() -> None:
    a, b = maps()

    fused = StreamFusion("bilinear", C)(a, b).numpy()

    for n in range(N):
        products = [[(a[n, i] * b[n, j]).sum().item() for j in range(C)] for i in range(C)]
        roots = np.sqrt(np.ravel(products))
        np.testing.assert_allclose(fused[n], roots / np.linalg.norm(roots), atol=1e-5)


def test_bilinear_has_a_gradient_where_maps_are_zero() -> None:
    a = torch.zeros(1, C, 1, H, W, requires_grad=True)

    StreamFusion("bilinear", C)(a, torch.ones_like(a)).sum().backward()

    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_the_gaussian_is_the_releases() -> None:
    """exp(-(X^2 + Y^2 + Z^2) / 2) over -1:1, divided by its sum (cnn_ucf101_fusion.m)."""
    grid = np.mgrid[-1:2, -1:2, -1:2]
    wanted = np.exp(-(grid**2).sum(0) / 2)

    np.testing.assert_allclose(gaussian_3d(3).numpy(), wanted / wanted.sum(), rtol=1e-6)
    assert gaussian_3d(1).tolist() == [[[1]]]


def blurred(x: torch.Tensor) -> NDArray[np.float64]:
    """Blurs each channel of (N, C, T, H, W), with zeros around it, place by place."""
    padded = np.pad(x.numpy().astype(float), ((0, 0), (0, 0), (1, 1), (1, 1), (1, 1)))
    result = np.zeros(x.shape)
    for (t, y, x_px), share in np.ndenumerate(gaussian_3d(3).numpy()):
        result += share * padded[:, :, t : t + T, y : y + H, x_px : x_px + W]
    return result


SHARES = [("weighted-sum", 0.25, 0.75), ("sum", 1, 1), ("spatial", 1, 0), ("temporal", 0, 1)]


@torch.no_grad()
@pytest.mark.parametrize(("init", "spatial", "temporal"), SHARES)
def test_at_the_start_the_result_is_a_blurred_sum(
    init: FusionInit, spatial: float, temporal: float
) -> None:
    a, b = maps()
    mixed = spatial * a + temporal * b

    conv3d, conv = StreamFusion("conv3d", C, init), StreamFusion("conv", C, init)

    np.testing.assert_allclose(conv3d(a, b).numpy(), blurred(mixed), atol=1e-6)
    np.testing.assert_allclose(conv(a, b).numpy(), mixed.numpy(), atol=1e-6)


@torch.no_grad()
def test_one_frame_uses_the_middle_slice_only() -> None:
    a, b = maps(1)
    fusion = drawn("conv3d")
    flat = nn.functional.conv2d(
        torch.cat([a, b], 1)[:, :, 0], fusion.conv.weight[:, :, 1], fusion.conv.bias, padding=1
    )

    torch.testing.assert_close(fusion(a, b)[:, :, 0], flat.relu())

    # Whatever the slices of the frames before and after are.
    before = fusion(a, b)
    fusion.conv.weight[:, :, 0::2] *= -3
    torch.testing.assert_close(fusion(a, b), before)


def test_random_weights_are_hes_over_the_outputs() -> None:
    """xavierimproved: deviation sqrt(2 / (h w out)) (network_surgery/insert_conv_layers.m)."""
    torch.manual_seed(0)

    weight = StreamFusion("conv", 256, "random").conv.weight

    assert weight.std().item() == pytest.approx((2 / 256) ** 0.5, rel=0.02)


def test_scores_may_be_negative() -> None:
    a, b = -torch.ones(2, N, C, 1, 1, 1)

    fused = StreamFusion("conv", C, is_scores=True)(a, b)

    torch.testing.assert_close(fused, a)
