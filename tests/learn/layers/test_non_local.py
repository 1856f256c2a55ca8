"""A non-local block is attention over all positions."""

from __future__ import annotations

import torch
from torch import nn

from flowprep.learn.layers.non_local import NonLocal


@torch.no_grad()
def test_non_local_is_attention_over_all_positions() -> None:
    block = NonLocal(4).eval()
    nn.init.ones_(block.bn.weight)
    x = torch.randn(1, 4, 2, 2, 2)

    flat = x[0].flatten(1).T  # (8, 4)
    seen = x[0].amax((2, 3)).T  # (2, 4): halved in H and W, one position a frame
    theta, phi, g = (
        rows @ layer.weight.flatten(1).T + layer.bias
        for rows, layer in ((flat, block.theta), (seen, block.phi), (seen, block.g))
    )
    attention = (theta @ phi.T / 2**0.5).softmax(1)  # (8, 2)
    out = attention @ g @ block.out.weight.flatten(1).T + block.out.bias
    out = out / (1 + block.bn.eps) ** 0.5

    torch.testing.assert_close(block(x)[0].flatten(1).T, flat + out)
