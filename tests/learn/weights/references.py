"""Networks of other projects as tables of names and plain functions, written from their sources.

A table says how a project calls each tensor of a ResNet-50. `resnet_values` draws a file of these
names, and `resnet_logits` computes with it by `torch.nn.functional` alone: neither knows flowprep's
rules or networks. `NAMES_IN_SOURCE` in `test_foreign` holds the tables to the sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812

Values = dict[str, torch.Tensor]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

DEPTHS = (3, 4, 6, 3)
NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class NonLocalNaming:
    """How a project calls the tensors of a non-local block after a block, which it wraps."""

    parts: Mapping[str, str]
    """theta, phi, g, out and bn -> what follows the name of the block."""
    out_has_bias: bool


NON_LOCAL_AFTER = {
    (2, 0): 512,
    (2, 2): 512,
    (3, 0): 1024,
    (3, 2): 1024,
    (3, 4): 1024,
}
"""Stage and block with a non-local block after it -> its channels. g and phi are pooled after
they are projected, and products are not divided (ops/non_local.py of TSM)."""

TSM_NON_LOCAL = NonLocalNaming(
    {"theta": "nl.theta", "phi": "nl.phi.0", "g": "nl.g.0", "out": "nl.W.0", "bn": "nl.W.1"}, True
)
"""mit-han-lab/temporal-shift-module: ops/non_local.py."""

MMACTION2_NON_LOCAL = NonLocalNaming(
    {
        "theta": "non_local_block.theta.conv",
        "phi": "non_local_block.phi.0.conv",
        "g": "non_local_block.g.0.conv",
        "out": "non_local_block.conv_out.conv",
        "bn": "non_local_block.conv_out.bn",
    },
    False,
)
"""open-mmlab/mmaction2: models/backbones/resnet_tsm.py, and mmcv's NonLocal3d."""


@dataclass(frozen=True)
class Naming:
    """How a project calls the tensors of a ResNet-50. STAGE counts from 1, BLOCK from 0."""

    stem: str
    stem_norm: str
    conv: tuple[str, str, str]
    norm: tuple[str, str, str]
    shortcut: str
    shortcut_norm: str
    classifier: str
    stage: Mapping[int, str]
    """What stands for STAGE in each stage."""
    block: str = ""
    """The name of a block, where non-local blocks wrap some."""
    non_local: NonLocalNaming | None = None

    def of(self, template: str, stage: int, block: int) -> str:
        if self.non_local is not None and (stage, block) in NON_LOCAL_AFTER:
            template = template.replace(self.block, f"{self.block}.block")
        return template.replace("STAGE", self.stage[stage]).replace("BLOCK", str(block))

    def of_non_local(self, part: str, stage: int, block: int) -> str:
        assert self.non_local is not None
        name = self.block.replace("STAGE", self.stage[stage]).replace("BLOCK", str(block))
        return f"{name}.{self.non_local.parts[part]}"


def _numbered(template: str, *numbers: str) -> tuple[str, str, str]:
    first, second, third = (template.replace("#", number) for number in numbers)
    return first, second, third


_STAGES = {stage: str(stage) for stage in (1, 2, 3, 4)}


def tsm_naming(*, shifts: bool, pools_time: bool = False, non_local: bool = False) -> Naming:
    """mit-han-lab/temporal-shift-module: ops/models.py, ops/temporal_shift.py, ops/non_local.py."""
    wrapper = ".net" if shifts else ""
    block = "base_model.layerSTAGE.BLOCK"
    return Naming(
        "base_model.conv1",
        "base_model.bn1",
        (f"{block}.conv1{wrapper}", f"{block}.conv2", f"{block}.conv3"),
        _numbered(f"{block}.bn#", "1", "2", "3"),
        f"{block}.downsample.0",
        f"{block}.downsample.1",
        "new_fc",
        {**_STAGES, **({2: "2.net"} if pools_time else {})},
        block,
        TSM_NON_LOCAL if non_local else None,
    )


def mmaction2_naming(*, shifts: bool = False, non_local: bool = False) -> Naming:
    """open-mmlab/mmaction2: models/backbones/resnet.py, resnet_tsm.py and resnet3d.py."""
    wrapper = ".net" if shifts else ""
    block = "backbone.layerSTAGE.BLOCK"
    return Naming(
        "backbone.conv1.conv",
        "backbone.conv1.bn",
        (f"{block}.conv1.conv{wrapper}", f"{block}.conv2.conv", f"{block}.conv3.conv"),
        _numbered(f"{block}.conv#.bn", "1", "2", "3"),
        f"{block}.downsample.conv",
        f"{block}.downsample.bn",
        "cls_head.fc_cls",
        _STAGES,
        block,
        MMACTION2_NON_LOCAL if non_local else None,
    )


MMACTION1 = Naming(
    "backbone.conv1",
    "backbone.bn1",
    _numbered("backbone.layerSTAGE.BLOCK.conv#", "1", "2", "3"),
    _numbered("backbone.layerSTAGE.BLOCK.bn#", "1", "2", "3"),
    "backbone.layerSTAGE.BLOCK.downsample.0",
    "backbone.layerSTAGE.BLOCK.downsample.1",
    "cls_head.fc_cls",
    _STAGES,
)
"""open-mmlab/mmaction: models/tenons/backbones/resnet.py and resnet_i3d.py."""

SLOWFAST = Naming(
    "s1.pathway0_stem.conv",
    "s1.pathway0_stem.bn",
    _numbered("sSTAGE.pathway0_resBLOCK.branch2.#", "a", "b", "c"),
    _numbered("sSTAGE.pathway0_resBLOCK.branch2.#_bn", "a", "b", "c"),
    "sSTAGE.pathway0_resBLOCK.branch1",
    "sSTAGE.pathway0_resBLOCK.branch1_bn",
    "head.projection",
    {1: "2", 2: "3", 3: "4", 4: "5"},
)
"""facebookresearch/SlowFast: models/stem_helper.py, resnet_helper.py and head_helper.py."""

PYTORCHVIDEO = Naming(
    "blocks.0.conv",
    "blocks.0.norm",
    _numbered("blocks.STAGE.res_blocks.BLOCK.branch2.conv_#", "a", "b", "c"),
    _numbered("blocks.STAGE.res_blocks.BLOCK.branch2.norm_#", "a", "b", "c"),
    "blocks.STAGE.res_blocks.BLOCK.branch1_conv",
    "blocks.STAGE.res_blocks.BLOCK.branch1_norm",
    "blocks.5.proj",
    _STAGES,
)
"""facebookresearch/pytorchvideo: models/resnet.py and stem.py."""


SLOW_TIME = {1: (1, 1, 1), 2: (1,) * 4, 3: (3,) * 6, 4: (3,) * 3}
"""Time sizes of the first kernel of each block of Slow."""


# ---- a file


def resnet_shapes(
    naming: Naming,
    in_channels: int,
    num_classes: int,
    width: int,
    time: Mapping[int, tuple[int, ...]] | None,
) -> Shapes:
    """Yields the name and shape of every tensor. `time` is given for a 3D network, whose other
    kernels are over single frames."""

    def window(size: int, frames: int = 1) -> tuple[int, ...]:
        return (size, size) if time is None else (frames, size, size)

    def norm(name: str, channels: int) -> Shapes:
        yield from ((f"{name}.{part}", (channels,)) for part in NORM)
        yield f"{name}.num_batches_tracked", ()

    yield f"{naming.stem}.weight", (width, in_channels, *window(7))
    yield from norm(naming.stem_norm, width)
    before = width
    for stage, depth in enumerate(DEPTHS, 1):
        inner, wide = width << stage - 1, width << stage + 1
        for block in range(depth):
            frames = 1 if time is None else time[stage][block]
            shapes = (
                (inner, before, *window(1, frames)),
                (inner, inner, *window(3)),
                (wide, inner, *window(1)),
            )
            for conv, bn, shape in zip(naming.conv, naming.norm, shapes, strict=True):
                yield f"{naming.of(conv, stage, block)}.weight", shape
                yield from norm(naming.of(bn, stage, block), shape[0])
            if block == 0:
                yield (
                    f"{naming.of(naming.shortcut, stage, block)}.weight",
                    (wide, before, *window(1)),
                )
                yield from norm(naming.of(naming.shortcut_norm, stage, block), wide)
            if naming.non_local is not None and (stage, block) in NON_LOCAL_AFTER:
                yield from _non_local_shapes(naming, stage, block, wide)
            before = wide
    yield f"{naming.classifier}.weight", (num_classes, before)
    yield f"{naming.classifier}.bias", (num_classes,)


def _non_local_shapes(naming: Naming, stage: int, block: int, channels: int) -> Shapes:
    assert naming.non_local is not None
    inner = channels // 2
    for part in ("theta", "phi", "g", "out"):
        shape = (channels, inner, 1, 1, 1) if part == "out" else (inner, channels, 1, 1, 1)
        name = naming.of_non_local(part, stage, block)
        yield f"{name}.weight", shape
        if part != "out" or naming.non_local.out_has_bias:
            yield f"{name}.bias", shape[:1]
    name = naming.of_non_local("bn", stage, block)
    yield from ((f"{name}.{part}", (channels,)) for part in NORM)
    yield f"{name}.num_batches_tracked", ()


def draw_values(shapes: Shapes, seed: int) -> Values:
    """Draws values that neither fade nor grow from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    values: Values = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            values[name] = torch.tensor(7)
            continue
        value = torch.randn(shape, generator=generator)
        is_row = len(shape) == 2 and shape[0] == 1
        if len(shape) > 1 and not is_row:
            value *= (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            value = torch.exp(0.1 * value)
        elif name.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        values[name] = value
    return values


def digest(shapes: Shapes) -> str:
    """Returns the SHA-256 of the sorted names and shapes, a line for each."""
    lines = sorted(f"{name} {list(shape)}\n" for name, shape in shapes)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# ---- its numbers


def normed(values: Values, name: str, x: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    weight, bias, mean, variance = (values[f"{name}.{part}"].flatten() for part in NORM)
    return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)


def convolved(values: Values, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Returns a convolution that keeps T, H and W but for the stride in H and W."""
    weight = values[f"{name}.weight"]
    padding = [size // 2 for size in weight.shape[2:]]
    if weight.dim() == 4:
        return F.conv2d(x, weight, None, stride, padding)
    return F.conv3d(x, weight, None, (1, stride, stride), padding)


def shifted(x: torch.Tensor, num_segments: int) -> torch.Tensor:
    """An eighth of the channels comes from the next frame, another from the one before."""
    frames = x.unflatten(0, (-1, num_segments))  # (N, S, C, H, W)
    eighth = frames.shape[2] // 8
    result = frames.clone()
    result[:, :, : 2 * eighth] = 0
    result[:, :-1, :eighth] = frames[:, 1:, :eighth]
    result[:, 1:, eighth : 2 * eighth] = frames[:, :-1, eighth : 2 * eighth]
    return result.flatten(0, 1)


def _attended(
    values: Values, naming: Naming, stage: int, block: int, x: torch.Tensor
) -> torch.Tensor:
    """Adds to each position of (N, C, T, H, W) what an embedded Gaussian finds at all others."""

    def project(part: str, y: torch.Tensor) -> torch.Tensor:
        name = naming.of_non_local(part, stage, block)
        return F.conv3d(y, values[f"{name}.weight"], values.get(f"{name}.bias"))

    theta = project("theta", x).flatten(2)  # (N, D, P)
    phi, g = (F.max_pool3d(project(part, x), (1, 2, 2)).flatten(2) for part in ("phi", "g"))
    attention = torch.softmax(theta.transpose(1, 2) @ phi, 2)  # (N, P, Q)
    seen = (g @ attention.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:])
    return x + normed(values, naming.of_non_local("bn", stage, block), project("out", seen))


def resnet_logits(
    values: Values,
    naming: Naming,
    x: torch.Tensor,
    *,
    shift_over: int | None = None,
    pools_time: bool = False,
) -> torch.Tensor:
    """Returns the logits of images (N, C, H, W) or volumes (N, C, T, H, W)."""
    is_video = x.dim() == 5
    x = F.relu(normed(values, naming.stem_norm, convolved(values, naming.stem, x, 2)))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)) if is_video else F.max_pool2d(x, 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, 1):
        if stage == 2 and pools_time and shift_over is not None:
            clips = x.unflatten(0, (-1, shift_over)).transpose(1, 2)
            clips = F.max_pool3d(clips, (3, 1, 1), (2, 1, 1), (1, 0, 0))
            x = clips.transpose(1, 2).flatten(0, 1)
            shift_over //= 2
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            y = x if shift_over is None else shifted(x, shift_over)
            for k, (conv, bn) in enumerate(zip(naming.conv, naming.norm, strict=True)):
                y = convolved(values, naming.of(conv, stage, block), y, stride if k == 1 else 1)
                y = normed(values, naming.of(bn, stage, block), y)
                y = F.relu(y) if k < 2 else y
            if block == 0:
                x = convolved(values, naming.of(naming.shortcut, stage, block), x, stride)
                x = normed(values, naming.of(naming.shortcut_norm, stage, block), x)
            x = F.relu(x + y)
            if naming.non_local is not None and (stage, block) in NON_LOCAL_AFTER:
                assert shift_over is not None
                clips = x.unflatten(0, (-1, shift_over)).transpose(1, 2)
                clips = _attended(values, naming, stage, block, clips)
                x = clips.transpose(1, 2).flatten(0, 1)
    features = x.mean(tuple(range(2, x.dim())))
    classifier = naming.classifier
    return F.linear(features, values[f"{classifier}.weight"], values[f"{classifier}.bias"])


# ---- MobileNetV2 of tonylins/pytorch-mobilenet-v2

MOBILENET_BLOCKS = [
    (expansion, channels, stride if index == 0 else 1)
    for expansion, channels, depth, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for index in range(depth)
]
"""Sandler et al., MobileNetV2 (CVPR 2018), table 2."""


def mobilenet_features(
    values: Values, x: torch.Tensor, before: str = "", shift_over: int | None = None
) -> torch.Tensor:
    """Returns (N, 1280), the average of the last map, of images (N, C, H, W)."""

    def layer(name: str, number: int, x: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
        wrapper = ".net" if f"{name}.{number}.net.weight" in values else ""
        weight = values[f"{name}.{number}{wrapper}.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, groups)
        return normed(values, f"{name}.{number + 1}", x)

    x = F.relu6(layer(f"{before}features.0", 0, x, 2, 1))
    for index, (expansion, channels, stride) in enumerate(MOBILENET_BLOCKS, 1):
        name = f"{before}features.{index}.conv"
        is_residual = stride == 1 and x.shape[1] == channels
        y, number = x, 0
        if expansion > 1:
            if shift_over is not None and is_residual:
                y = shifted(y, shift_over)
            y, number = F.relu6(layer(name, 0, y, 1, 1)), 3
        y = F.relu6(layer(name, number, y, stride, y.shape[1]))
        y = layer(name, number + 3, y, 1, 1)
        x = x + y if is_residual else y
    return F.relu6(layer(f"{before}features.18", 0, x, 1, 1)).mean((2, 3))


def mobilenet_shapes(
    in_channels: int, num_classes: int, before: str = "", *, shifts: bool = False
) -> Shapes:
    """Yields the name and shape of every tensor; with `shifts`, as TSM wraps them."""

    def layer(name: str, number: int, shape: tuple[int, ...], wrapper: str = "") -> Shapes:
        yield f"{name}.{number}{wrapper}.weight", shape
        yield from ((f"{name}.{number + 1}.{part}", shape[:1]) for part in NORM)
        yield f"{name}.{number + 1}.num_batches_tracked", ()

    yield from layer(f"{before}features.0", 0, (32, in_channels, 3, 3))
    last = 32
    for index, (expansion, channels, stride) in enumerate(MOBILENET_BLOCKS, 1):
        name, inner, number = f"{before}features.{index}.conv", last * expansion, 0
        if expansion > 1:
            is_wrapped = shifts and stride == 1 and last == channels
            yield from layer(name, 0, (inner, last, 1, 1), ".net" if is_wrapped else "")
            number = 3
        yield from layer(name, number, (inner, 1, 3, 3))
        yield from layer(name, number + 3, (channels, inner, 1, 1))
        last = channels
    yield from layer(f"{before}features.18", 0, (1280, last, 1, 1))
    classifier = "new_fc" if before else "classifier"
    yield f"{classifier}.weight", (num_classes, 1280)
    yield f"{classifier}.bias", (num_classes,)
