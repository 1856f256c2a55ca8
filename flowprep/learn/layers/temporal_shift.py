"""The temporal shift of Lin, Gan and Han, "TSM: Temporal Shift Module for Efficient Video
Understanding" (ICCV 2019), section 3, and the pooling over time of its release.

Shares and directions of the channels are those of the release (mit-han-lab/temporal-shift-module,
ops/temporal_shift.py). Both layers take the frames of all videos in one batch, (N S, C, H, W), with
the S segments of a video side by side. Neither has parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError

__all__ = ["TemporalShift", "temporal_pool", "temporal_shift"]


class TemporalShift(nn.Module):
    """Lets some channels of each segment come from the segments before and after it."""

    past: list[torch.Tensor] | None
    """What the segment before left here, or an empty list, while a stream is followed
    (`flowprep.learn.models.tsm.TSMStream`); otherwise None. A batch is one segment then."""

    def __init__(
        self, num_segments: int, *, shift_div: int = 8, uni_directional: bool = False
    ) -> None:
        super().__init__()
        if shift_div < 2:
            raise ConfigError(f"shift_div must be at least 2, got {shift_div}")
        self.num_segments = num_segments
        self.shift_div = shift_div
        self.uni_directional = uni_directional
        self.past = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.past is None:
            return temporal_shift(x, self.num_segments, self.shift_div, self.uni_directional)
        fold = x.shape[1] // self.shift_div
        before = self.past.pop() if self.past else torch.zeros_like(x[:, :fold])
        self.past.append(x[:, :fold].clone())  # a view would keep the whole map in memory
        return torch.cat([before, x[:, fold:]], 1)

    def extra_repr(self) -> str:
        """Returns the arguments."""
        return (
            f"{self.num_segments}, shift_div={self.shift_div}, "
            f"uni_directional={self.uni_directional}"
        )


def temporal_shift(
    x: torch.Tensor, num_segments: int, shift_div: int = 8, uni_directional: bool = False
) -> torch.Tensor:
    """Shifts channels between neighboring segments: (N S, C, H, W) -> the same shape and layout.

    Of C channels, the first C // shift_div come from the next segment, as many after them from the
    segment before, and the others stay. With `uni_directional`, only the first C // shift_div come
    from the segment before, as in the release's online network (online_demo/mobilenet_v2_tsm.py).
    Zeros come from beyond the first and the last segment.
    """
    return _apply(x, num_segments, x.shape[1] // shift_div, uni_directional, False)


def temporal_pool(x: torch.Tensor, num_segments: int) -> torch.Tensor:
    """Halves the segments: (N S, C, H, W) -> (N S/2, C, H, W), the maximum of each three.

    The windows of three segments are two apart, and the first begins before the first segment.
    """
    x = x.view(-1, num_segments, *x.shape[1:]).transpose(1, 2)  # (N, C, S, H, W)
    x = F.max_pool3d(x, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
    return x.transpose(1, 2).flatten(0, 1)


class _Shift(torch.autograd.Function):
    """Writes each value once, forward and backward. Slices would copy whole maps several times."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        num_segments: int,
        fold: int,
        uni_directional: bool,
        is_reversed: bool,
    ) -> torch.Tensor:
        ctx.arguments = num_segments, fold, uni_directional, is_reversed
        from_next, from_before = slice(0, fold), slice(fold, 2 * fold)
        if uni_directional:
            from_next, from_before = slice(0, 0), slice(0, fold)
        rest = slice(from_before.stop, None)
        if is_reversed:
            from_next, from_before = from_before, from_next
        shifted = torch.empty_like(x)  # with the layout of x
        source = x.view(-1, num_segments, *x.shape[1:])  # (N, S, C, H, W)
        target = shifted.view_as(source)
        target[:, :-1, from_next] = source[:, 1:, from_next]
        target[:, -1, from_next] = 0
        target[:, 1:, from_before] = source[:, :-1, from_before]
        target[:, 0, from_before] = 0
        target[:, :, rest] = source[:, :, rest]
        return shifted

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        num_segments, fold, uni_directional, is_reversed = ctx.arguments
        (gradient,) = gradients
        # What went to the segment before comes back from it, and the other way round.
        back = _apply(gradient, num_segments, fold, uni_directional, not is_reversed)
        return back, None, None, None, None


def _apply(
    x: torch.Tensor, num_segments: int, fold: int, uni_directional: bool, is_reversed: bool
) -> torch.Tensor:
    shifted: torch.Tensor = _Shift.apply(  # type: ignore[no-untyped-call]
        x, num_segments, fold, uni_directional, is_reversed
    )
    return shifted
