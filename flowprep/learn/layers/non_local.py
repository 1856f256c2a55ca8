"""The non-local block of Wang et al., "Non-local Neural Networks" (CVPR 2018)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["NonLocal"]


class NonLocal(nn.Module):
    """Adds to each position what it attends to over all others: x + BN(W softmax(theta phi) g).

    This is the embedded Gaussian of section 3.2, with half the channels. phi and g see maps that
    max pooling halves in H and W (section 3.3). Products are divided by the square root of their
    length, as in SlowFast (models/nonlocal_helper.py) but not in the paper.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halves = (1, min(2, x.shape[3]), min(2, x.shape[4]))
        pooled = F.max_pool3d(x, halves)  # (N, C, T, H/2, W/2)
        theta = self.theta(x).flatten(2)  # (N, C/2, P), P = T H W
        phi = self.phi(pooled).flatten(2)  # (N, C/2, Q), Q = P / 4
        g = self.g(pooled).flatten(2)  # (N, C/2, Q)
        scores = torch.bmm(theta.transpose(1, 2), phi) * theta.shape[1] ** -0.5  # (N, P, Q)
        seen: torch.Tensor = torch.bmm(g, scores.softmax(2).transpose(1, 2))  # (N, C/2, P)
        seen = seen.reshape(*seen.shape[:2], *x.shape[2:])  # (N, C/2, T, H, W)
        seen = self.bn(self.out(seen))  # (N, C, T, H, W)
        return x + seen
