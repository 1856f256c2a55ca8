"""The gate-shift module of Sudhakaran, Escalera and Lanz, "Gate-Shift Networks for Video Action
Recognition" (CVPR 2020), section 3.2, in the form of its release (swathikirans/GSM, gsm.py)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError

__all__ = ["CHANNEL_MULTIPLE", "GateShift"]

CHANNEL_MULTIPLE = 4
"""The channels are two halves, of which each is joined from two parts at the end."""


class GateShift(nn.Module):
    """Shifts what a gate lets through to neighboring segments: (N S, C, H, W) -> the same shape.

    A convolution over 3 x 3 x 3 places and tanh make one gate for each half of the channels. What
    the gate lets through of the first half goes to the segment before, of the second half to the
    segment after. The rest stays. Zeros come from beyond the first and the last segment. At the
    end, the two parts of each half are interleaved, so that with closed gates the module is a
    shuffle of channels. It begins so: the convolution is zero.
    """

    def __init__(self, channels: int, num_segments: int) -> None:
        super().__init__()
        if channels % CHANNEL_MULTIPLE:
            raise ConfigError(f"channels must be a multiple of {CHANNEL_MULTIPLE}, got {channels}")
        self.num_segments = num_segments
        self.conv = nn.Conv3d(channels, 2, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clips = x.reshape(-1, self.num_segments, *x.shape[1:]).transpose(1, 2)  # (N, C, S, H, W)
        gates = torch.tanh(self.conv(F.relu(self.bn(clips))))  # (N, 2, S, H, W)
        num_clips, channels, *places = clips.shape
        halves = clips.reshape(num_clips, 2, channels // 2, *places)  # (N, 2, C/2, S, H, W)
        through = gates.unsqueeze(2) * halves
        earlier = F.pad(through[:, 0, :, 1:], (0, 0, 0, 0, 0, 1))  # (N, C/2, S, H, W)
        later = F.pad(through[:, 1, :, :-1], (0, 0, 0, 0, 1, 0))
        shifted = torch.stack([earlier, later], 1) + (halves - through)
        parts = shifted.reshape(num_clips, 2, 2, channels // 4, *places)
        parts = parts.transpose(2, 3)  # (N, 2, C/4, 2, S, H, W)
        return parts.flatten(1, 3).transpose(1, 2).flatten(0, 1)  # (N S, C, H, W)

    def extra_repr(self) -> str:
        """Returns the arguments."""
        return f"{self.num_segments}"
