"""The two Inceptions of open-mmlab/mmaction as tables of names and plain functions.

Written from models/tenons/backbones/inception_v1_i3d.py and bninception.py: neither knows
flowprep's rules or networks.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from tests.learn.weights.references import NORM, Shapes, Values, normed

I3D_MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Szegedy et al., Going Deeper with Convolutions (CVPR 2015), table 1."""

BN_MODULES: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}
"""Ioffe and Szegedy, Batch Normalization (2015), figure 5: 1x1, 3x3 reduce and 3x3, double 3x3
reduce and both, pool. Without 1x1 and pool, a module has stride 2."""


def _layer(name: str, shape: tuple[int, ...], *, bias: bool, row: bool = False) -> Shapes:
    yield f"backbone.{name}.weight", shape
    if bias:
        yield f"backbone.{name}.bias", shape[:1]
    for part in NORM:
        yield f"backbone.{name}_bn.{part}", (1, *shape[:1]) if row else shape[:1]
    yield f"backbone.{name}_bn.num_batches_tracked", ()


# ---- I3D


def i3d_shapes(in_channels: int, num_classes: int, divisor: int) -> Shapes:
    """Yields names and shapes of a network whose channels are divided by `divisor`."""

    def layer(name: str, before: int, after: int, size: int) -> Shapes:
        return _layer(name, (after // divisor, before, size, size, size), bias=False)

    yield from layer("conv1_7x7_s2", in_channels, 64, 7)
    yield from layer("conv2_3x3_reduce", 64 // divisor, 64, 1)
    yield from layer("conv2_3x3", 64 // divisor, 192, 3)
    before = 192 // divisor
    for module, (b0, b1a, b1b, b2a, b2b, b3) in I3D_MODULES.items():
        name = f"inception_{module}"
        yield from layer(f"{name}_1x1", before, b0, 1)
        yield from layer(f"{name}_branch1_3x3_reduce", before, b1a, 1)
        yield from layer(f"{name}_branch1_3x3", b1a // divisor, b1b, 3)
        yield from layer(f"{name}_branch2_3x3_reduce", before, b2a, 1)
        yield from layer(f"{name}_branch2_3x3", b2a // divisor, b2b, 3)
        yield from layer(f"{name}_pool_proj", before, b3, 1)
        before = sum(channels // divisor for channels in (b0, b1b, b2b, b3))
    yield "cls_head.fc_cls.weight", (num_classes, before)
    yield "cls_head.fc_cls.bias", (num_classes,)


def i3d_logits(values: Values, x: torch.Tensor) -> torch.Tensor:
    """Returns the logits of volumes (N, C, T, H, W)."""

    def layer(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = values[f"backbone.{name}.weight"]
        padding = 0 if stride == 2 else weight.shape[2] // 2
        x = F.conv3d(x, weight, None, stride, padding)
        return F.relu(normed(values, f"backbone.{name}_bn", x, 1e-5))

    x = layer("conv1_7x7_s2", F.pad(x, (2, 4, 2, 4, 2, 4)), 2)
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), ceil_mode=True)
    x = layer("conv2_3x3", layer("conv2_3x3_reduce", x))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), ceil_mode=True)
    for module in I3D_MODULES:
        name = f"inception_{module}"
        x = F.max_pool3d(x, 3, 2, ceil_mode=True) if module == "4a" else x
        x = F.max_pool3d(x, 2, 2, ceil_mode=True) if module == "5a" else x
        branches = [
            layer(f"{name}_1x1", x),
            layer(f"{name}_branch1_3x3", layer(f"{name}_branch1_3x3_reduce", x)),
            layer(f"{name}_branch2_3x3", layer(f"{name}_branch2_3x3_reduce", x)),
            layer(f"{name}_pool_proj", F.max_pool3d(x, 3, 1, 1, ceil_mode=True)),
        ]
        x = torch.cat(branches, 1)
    return _classified(values, x)


# ---- BN-Inception


def bn_inception_shapes(in_channels: int, num_classes: int, divisor: int, *, row: bool) -> Shapes:
    """The same for BN-Inception; with `row`, batch norms are (1, C), as Caffe's were."""

    def layer(name: str, before: int, after: int, size: int) -> Shapes:
        return _layer(name, (after // divisor, before, size, size), bias=True, row=row)

    yield from layer("conv1_7x7_s2", in_channels, 64, 7)
    yield from layer("conv2_3x3_reduce", 64 // divisor, 64, 1)
    yield from layer("conv2_3x3", 64 // divisor, 192, 3)
    before = 192 // divisor
    for module, (one, three_a, three, double_a, double, pool) in BN_MODULES.items():
        name = f"inception_{module}"
        if one:
            yield from layer(f"{name}_1x1", before, one, 1)
        yield from layer(f"{name}_3x3_reduce", before, three_a, 1)
        yield from layer(f"{name}_3x3", three_a // divisor, three, 3)
        yield from layer(f"{name}_double_3x3_reduce", before, double_a, 1)
        yield from layer(f"{name}_double_3x3_1", double_a // divisor, double, 3)
        yield from layer(f"{name}_double_3x3_2", double // divisor, double, 3)
        if pool:
            yield from layer(f"{name}_pool_proj", before, pool, 1)
        kept = 0 if pool else before
        before = kept + sum(channels // divisor for channels in (one, three, double, pool))
    yield "cls_head.fc_cls.weight", (num_classes, before)
    yield "cls_head.fc_cls.bias", (num_classes,)


def bn_inception_logits(values: Values, x: torch.Tensor) -> torch.Tensor:
    """Returns the logits of images (N, C, H, W)."""

    def layer(name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = (values[f"backbone.{name}.{part}"] for part in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, stride, weight.shape[2] // 2)
        return F.relu(normed(values, f"backbone.{name}_bn", x))

    x = F.max_pool2d(layer("conv1_7x7_s2", x, 2), 3, 2, ceil_mode=True)
    x = layer("conv2_3x3", layer("conv2_3x3_reduce", x))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for module, (one, *_, pool) in BN_MODULES.items():
        name, stride = f"inception_{module}", 1 if pool else 2
        double = layer(f"{name}_double_3x3_1", layer(f"{name}_double_3x3_reduce", x))
        branches = [layer(f"{name}_1x1", x)] if one else []
        branches.append(layer(f"{name}_3x3", layer(f"{name}_3x3_reduce", x), stride))
        branches.append(layer(f"{name}_double_3x3_2", double, stride))
        if not pool:
            branches.append(F.max_pool2d(x, 3, 2, ceil_mode=True))
        elif module == "5b":
            branches.append(layer(f"{name}_pool_proj", F.max_pool2d(x, 3, 1, 1, ceil_mode=True)))
        else:
            branches.append(layer(f"{name}_pool_proj", F.avg_pool2d(x, 3, 1, 1, ceil_mode=True)))
        x = torch.cat(branches, 1)
    return _classified(values, x)


def _classified(values: Values, x: torch.Tensor) -> torch.Tensor:
    features = x.mean(tuple(range(2, x.dim())))
    return F.linear(features, values["cls_head.fc_cls.weight"], values["cls_head.fc_cls.bias"])
