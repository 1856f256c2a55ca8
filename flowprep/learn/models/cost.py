"""The cost of a network: its parameters, and the multiply-adds of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs", "count_parameters"]


def count_parameters(model: nn.Module) -> int:
    """Returns the number of learnable values, including frozen ones."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, *input_shapes: Sequence[int]) -> int:
    """Returns the multiply-adds of convolutions and matrix products in one forward pass.

    `input_shapes` are the shapes of the inputs, with the batch dimension. Pooling, normalization
    and activations do not count, as is usual in papers. Papers call this number "FLOPs" (fvcore
    also counts batch norm). Nothing is computed: only shapes pass through the network, on
    PyTorch's meta device.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    inputs = tuple(torch.empty(*shape, device="meta") for shape in input_shapes)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, shapes, inputs)
    finally:
        for module, training in modes:
            module.training = training
    return int(counter.get_total_flops()) // 2  # an add and a multiply each
