"""Where a network computes."""

from __future__ import annotations

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.placement import place_model


@pytest.mark.parametrize("model", ["resnet18", "i3d"])
def test_a_network_lies_in_memory_as_torch_itself_puts_it(model: str) -> None:
    """Kernels of one pixel too: their strides decide how a convolution rounds."""
    made = [create_model(model, stream="flow", num_classes=3, width=0.0625) for _ in range(2)]
    formats = {"resnet18": torch.channels_last, "i3d": torch.channels_last_3d}
    expected = made[0].to(memory_format=formats[model])  # type: ignore[call-overload]
    found = place_model(made[1], torch.device("cpu"))
    strides = {name: tensor.stride() for name, tensor in expected.state_dict().items()}
    assert {name: tensor.stride() for name, tensor in found.state_dict().items()} == strides
