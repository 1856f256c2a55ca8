"""Where a network runs: device, memory layout and precision. Also the number of loaders."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.training_specs import PrecisionName
from flowprep.machine import usable_cores

__all__ = [
    "autocast",
    "choose_device",
    "default_loaders",
    "place_model",
    "resolve_device",
    "with_channels_last",
]

_AUTOCAST: dict[PrecisionName, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Returns the device with a name such as `cpu` or `cuda:1`; ConfigError if it does not exist.

    `auto` is a GPU if the machine has one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Torch without CUDA raises AssertionError. Only its first line is meant for users.
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device must be auto, cpu, cuda or cuda:N, got {name!r}: {reason}"
        ) from error
    return device


def place_model(model: ClipModel | MultiTask, device: torch.device) -> nn.Module:
    """Moves a network to a device, with channels innermost in memory: convolutions are faster."""
    model.to(device)
    for tensor in (*model.parameters(), *model.buffers()):
        # A network of several inputs may have 2D and 3D convolutions.
        # Not `contiguous`: it leaves kernels of one pixel unchanged. For these, convolutions would
        # use another algorithm and round differently.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
        elif tensor.dim() == 5:
            tensor.data = tensor.data.to(memory_format=torch.channels_last_3d)
    return model


def with_channels_last(clips: torch.Tensor) -> torch.Tensor:
    """Returns clips (N, C, H, W) or (N, C, T, H, W) with channels innermost in memory."""
    layout = torch.channels_last_3d if clips.dim() == 5 else torch.channels_last
    return clips.contiguous(memory_format=layout)


def autocast(device: torch.device, precision: PrecisionName) -> AbstractContextManager[Any]:
    """Returns the context in which a network computes with a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _AUTOCAST[precision])


def default_loaders() -> int:
    """Returns the number of cores that this process may use, minus one."""
    return usable_cores() - 1


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Returns the device called `name`; `auto` is a GPU if the machine has one.

    With several processes on a machine, each takes the GPU with its local rank. Raises ConfigError
    for a device that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return resolve_device(f"cuda:{local_rank}" if name == "cuda" else name)
