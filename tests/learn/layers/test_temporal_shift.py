"""The temporal shift is a convolution over time; its gradient and its layout."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.layers.temporal_shift import TemporalShift, temporal_pool, temporal_shift

SEGMENTS = 5


def taps(channels: int, div: int, uni_directional: bool) -> torch.Tensor:
    """One-hot kernels (C, 1, 3) over the segment before, itself and the next one."""
    fold = channels // div
    place = torch.ones(channels, dtype=torch.int64)
    if uni_directional:
        place[:fold] = 0
    else:
        place[:fold], place[fold : 2 * fold] = 2, 0
    return F.one_hot(place, 3).unsqueeze(1).float()


def as_convolution(x: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """The same by a depthwise convolution over time with zeros beyond the ends."""
    videos = x.unflatten(0, (-1, SEGMENTS)).permute(0, 3, 4, 2, 1)  # (N, H, W, C, S)
    rows = videos.reshape(-1, *videos.shape[3:])  # (N H W, C, S)
    rows = F.conv1d(rows, kernels.to(rows), padding=1, groups=len(kernels))
    return rows.view(videos.shape).permute(0, 4, 3, 1, 2).flatten(0, 1)


@pytest.mark.parametrize("uni_directional", [False, True])
@pytest.mark.parametrize(("channels", "div"), [(16, 8), (17, 8), (8, 2), (7, 8)])
@torch.no_grad()
def test_shift_is_a_depthwise_convolution_with_one_hot_taps(
    channels: int, div: int, uni_directional: bool
) -> None:
    x = torch.randn(2 * SEGMENTS, channels, 3, 4)

    shifted = temporal_shift(x, SEGMENTS, div, uni_directional)

    assert torch.equal(shifted, as_convolution(x, taps(channels, div, uni_directional)))


@pytest.mark.parametrize("uni_directional", [False, True])
def test_gradients_are_the_convolutions_twice(uni_directional: bool) -> None:
    x = torch.randn(2 * SEGMENTS, 16, 2, 2, requires_grad=True)
    loss = torch.randn(2 * SEGMENTS, 16, 2, 2)
    both = []
    for result in (
        temporal_shift(x, SEGMENTS, 8, uni_directional),
        as_convolution(x, taps(16, 8, uni_directional)),
    ):
        (gradient,) = torch.autograd.grad((result**2 * loss).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((gradient**3).sum(), x)
        both.append((gradient, second))

    torch.testing.assert_close(both[0], both[1])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_layout_stays(layout: torch.memory_format) -> None:
    x = torch.randn(2 * SEGMENTS, 16, 3, 4).contiguous(memory_format=layout).requires_grad_()

    shifted = temporal_shift(x, SEGMENTS)
    (gradient,) = torch.autograd.grad(shifted, x, torch.ones_like(shifted))

    assert shifted.is_contiguous(memory_format=layout)
    assert gradient.is_contiguous(memory_format=layout)
    assert torch.equal(shifted, temporal_shift(x.contiguous(), SEGMENTS))


@torch.no_grad()
def test_a_segment_alone_gets_zeros() -> None:
    x = torch.ones(3, 8, 2, 2)

    assert temporal_shift(x, 1, 4).sum((0, 2, 3)).tolist() == [0, 0, 0, 0, 12, 12, 12, 12]


@torch.no_grad()
def test_pooled_segments_are_maxima_of_three() -> None:
    x = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6]).view(8, 1, 1, 1)

    assert temporal_pool(x, 8).flatten().tolist() == [3, 4, 9, 9]
    assert temporal_pool(x, 4).flatten().tolist() == [3, 4, 9, 9]
    assert temporal_pool(-x, 4).flatten().tolist() == [-1, -1, -5, -2]


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # by PyTorch's own tracing
def test_compiled_graphs_hold_it() -> None:
    """Nothing of it breaks a graph, so that torch.compile sees the network as a whole."""
    x = torch.randn(2 * SEGMENTS, 16, 2, 2, requires_grad=True)
    compiled = torch.compile(TemporalShift(SEGMENTS), backend="eager", fullgraph=True)

    results = [shift(x).square().sum() for shift in (compiled, TemporalShift(SEGMENTS))]
    gradients = [torch.autograd.grad(result, x)[0] for result in results]

    assert results[0] == results[1]
    assert torch.equal(*gradients)


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="shift_div must be at least 2, got 1"):
        TemporalShift(8, shift_div=1)
