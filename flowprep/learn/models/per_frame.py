"""What networks over time share: a 2D network, the base, that looks at each frame of a clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models import alexnet, vgg
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.bn_inception import BNInception
from flowprep.learn.models.googlenet import GoogLeNet
from flowprep.learn.models.resnet import resnet18, resnet50
from flowprep.learn.network_options import FrameBackbone

__all__ = ["FrameBase", "base_stages", "by_clip", "each_frame", "map_base", "vector_base"]

_BACKBONES: dict[FrameBackbone, tuple[Callable[..., ClipModel], int]] = {
    "googlenet": (GoogLeNet, 1),
    "alexnet": (alexnet.AlexNet, alexnet.MAP_PX),
    "vgg16": (vgg.VGG16, vgg.MAP_PX),
    "resnet18": (resnet18, 1),
    "resnet50": (resnet50, 1),
    "bn-inception": (BNInception, 1),
}
"""What makes each base, and the side of the map that its first layer over vectors takes. 1 is a
network that averages its last map."""


class FrameBase(NamedTuple):
    """A base without the layers that the network over time replaces."""

    model: ClipModel
    num_channels: int
    """Of its last maps, or the length of its vectors."""
    map_px: int
    """The side to which a map is averaged before it becomes a vector: 1 where the base averages
    its map over the image."""


def vector_base(backbone: FrameBackbone, clip: ClipInput, width: float) -> FrameBase:
    """Returns a base without its classifier: `extract_features` gives a vector of each frame."""
    base = _make(backbone, clip, width)
    (head,) = base.head
    layer = base.get_submodule(head)
    if isinstance(layer, nn.Sequential):
        head = f"{head}.{len(layer) - 1}"
    length = _linears(base)[-1].in_features
    _cut(base, head)
    return FrameBase(base, length, 1)


def map_base(backbone: FrameBackbone, clip: ClipInput, width: float) -> FrameBase:
    """Returns a base without all that follows its last maps: `extract_maps` gives these."""
    base = _make(backbone, clip, width)
    (head,) = base.head
    side = _BACKBONES[backbone][1]
    num_channels = _linears(base)[0].in_features // side**2
    _cut(base, head)
    return FrameBase(base, num_channels, side)


def base_stages(base: ClipModel) -> tuple[tuple[str, ...], ...]:
    """Returns the stages of a base in a network that calls it `base`, without what was cut off."""
    names = {name for name, _ in base.named_modules()}
    weighted = (
        tuple(name for name in stage if name in names and _has_weights(base, name))
        for stage in base.stages
    )
    return tuple(tuple(f"base.{name}" for name in stage) for stage in weighted if stage)


def each_frame(x: torch.Tensor) -> torch.Tensor:
    """Returns the frames of clips (N, C, T, H, W) as images (N T, C, H, W)."""
    return x.transpose(1, 2).flatten(0, 1)


def by_clip(x: torch.Tensor, num_clips: int) -> torch.Tensor:
    """Returns what was made of each frame, (N T, ...), by clip and frame: (N, T, ...)."""
    return x.reshape(num_clips, -1, *x.shape[1:])


def _make(backbone: FrameBackbone, clip: ClipInput, width: float) -> ClipModel:
    frame = dataclasses.replace(clip, form="stack", num_frames=1, frame_stride=1)
    return _BACKBONES[backbone][0]((frame,), 1, width=width)


def _linears(base: ClipModel) -> list[nn.Linear]:
    return [layer for layer in base.modules() if isinstance(layer, nn.Linear)]


def _cut(base: ClipModel, name: str) -> None:
    parent, _, child = name.rpartition(".")
    setattr(base.get_submodule(parent), child, nn.Identity())


def _has_weights(base: ClipModel, name: str) -> bool:
    return any(True for _ in base.get_submodule(name).parameters())
