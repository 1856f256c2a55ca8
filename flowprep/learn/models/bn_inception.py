"""BN-Inception of Ioffe and Szegedy, "Batch Normalization" (ICML 2015), as the networks of Wang et
al., "Temporal Segment Networks" (ECCV 2016), over images or stacks of flow fields.

Layers and names are those of tsn-pytorch (yjxiong/tensorflow-model-zoo.torch, bninception/
bn_inception.yaml), so that its files load. The poolings are Caffe's: sizes are rounded up, and the
average counts the padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.gate_shift import CHANNEL_MULTIPLE, GateShift
from flowprep.learn.layers.temporal_shift import TemporalShift
from flowprep.learn.models.base import ClipModel

__all__ = ["BNInception", "GatedNetwork", "PoolName"]


PoolName = Literal["average", "max"]
"""How a block's last branch pools its input."""


class Branches(NamedTuple):
    """The branches of an inception block, by the channels of their convolutions."""

    one: int
    """1x1; 0 if the block halves the map, and so lacks this branch."""
    three: tuple[int, int]
    """1x1, then 3x3."""
    double: tuple[int, int]
    """1x1, then 3x3 twice with the same channels."""
    pool: PoolName
    projection: int
    """1x1 after the pooling; 0 for none, where the block halves the map."""


BLOCKS: dict[str, Branches] = {
    "3a": Branches(64, (64, 64), (64, 96), "average", 32),
    "3b": Branches(64, (64, 96), (64, 96), "average", 64),
    "3c": Branches(0, (128, 160), (64, 96), "max", 0),
    "4a": Branches(224, (64, 96), (96, 128), "average", 128),
    "4b": Branches(192, (96, 128), (96, 128), "average", 128),
    "4c": Branches(160, (128, 160), (128, 160), "average", 128),
    "4d": Branches(96, (128, 192), (160, 192), "average", 128),
    "4e": Branches(0, (128, 192), (192, 256), "max", 0),
    "5a": Branches(352, (192, 320), (160, 224), "average", 128),
    "5b": Branches(352, (192, 320), (192, 224), "max", 128),
}

SHIFTED = ("conv2", *BLOCKS)
"""The blocks before which TSM shifts."""


class GatedNetwork(ClipModel):
    """A 2D network of units, which are a convolution with a bias, a batch norm and a ReLU.

    GSM puts gates between convolution and batch norm of the units in `gated`. `width` multiplies
    the channels of every unit. With `is_gated`, those of gated units are rounded up to a multiple
    of 4. The momentum of the moving averages is PyTorch's .1. tsn-pytorch passes .9, which is
    Caffe's name of .1 and would keep only the last batches; its trainings freeze all but the first
    batch norm.
    """

    gated: ClassVar[tuple[str, ...]] = ()
    """The names of the units that get gates (swathikirans/GSM, model_zoo/bninception)."""
    fc: nn.Linear
    dropout: nn.Dropout

    def __init__(self, inputs: Sequence[ClipInput], width: float, *, is_gated: bool) -> None:
        super().__init__(inputs)
        self._width = width
        self._is_gated = is_gated
        self.gates: nn.ModuleDict | None = None

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.fc(self.dropout(features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        self._init_classifier()

    def insert_gates(self, num_segments: int) -> None:
        """Puts GSM's gates in, for batches with the segments of a video side by side."""
        gates = {}
        for name in self.gated:
            conv = self.get_submodule(name)
            assert isinstance(conv, nn.Conv2d)
            gates[name] = GateShift(conv.out_channels, num_segments)
        self.gates = nn.ModuleDict(gates)
        self.stages = tuple(
            (*stage, *(f"gates.{name}" for name in stage if name in gates)) for stage in self.stages
        )

    def _add_unit(
        self,
        name: str,
        in_channels: int,
        published: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> int:
        """Adds a convolution and its batch norm; returns its channels.

        Initialized as in Caffe (yjxiong/temporal-segment-networks, models/ucf101): `xavier` with
        variance 1 / fan-in, bias .2.
        """
        channels = max(1, round(published * self._width))
        if self._is_gated and name in self.gated:
            channels = -(-channels // CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding)
        nn.init.kaiming_uniform_(conv.weight, nonlinearity="linear")
        assert conv.bias is not None
        nn.init.constant_(conv.bias, 0.2)
        self.add_module(name, conv)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(channels))
        return channels

    def _unit(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = self.get_submodule(name)(x)
        if self.gates is not None and name in self.gates:
            x = self.gates[name](x)
        return F.relu(self.get_submodule(f"{name}_bn")(x), inplace=True)

    def _init_classifier(self) -> None:
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)


class BNInception(GatedNetwork):
    """BN-Inception over (N, C, H, W), with H and W of any size.

    `width` multiplies the channels of every layer. With `is_gated`, layers have channels for GSM's
    gates.
    """

    head = ("fc",)
    gated = tuple(
        f"inception_{block}_{'1x1' if branches.one else '3x3_reduce'}"
        for block, branches in BLOCKS.items()
    )

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.0,
        width: float = 1.0,
        is_gated: bool = False,
    ) -> None:
        super().__init__(inputs, width, is_gated=is_gated)
        (clip,) = self.inputs
        self.shifts = nn.ModuleDict()
        channels = self._add_unit("conv1_7x7_s2", clip.num_channels, 64, 7, stride=2, padding=3)
        channels = self._add_unit("conv2_3x3_reduce", channels, 64, 1)
        channels = self._add_unit("conv2_3x3", channels, 192, 3, padding=1)
        for block, branches in BLOCKS.items():
            channels = self._add_block(f"inception_{block}", channels, branches)
            self.add_module(f"inception_{block}_output", _Output(channels))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._init_classifier()
        stages = ("conv1_", "conv2_", "inception_3", "inception_4", "inception_5")
        names = [name for name, _ in self.named_children()]
        self.stages = tuple(
            tuple(name for name in names if name.startswith(stage)) for stage in stages
        )

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the average of the last map, (N, 1024 * width)."""
        return self.extract_maps(x).mean((2, 3))  # (N, 1024)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (N, 1024 * width, H / 32, W / 32)."""
        x = _halve(self._unit("conv1_7x7_s2", x))  # (N, 64, H/4, W/4)
        x = self._shift("conv2", x)
        x = self._unit("conv2_3x3_reduce", x)  # (N, 64, H/4, W/4)
        x = _halve(self._unit("conv2_3x3", x))  # (N, 192, H/8, W/8)
        for block, branches in BLOCKS.items():
            # 3a to 3c: 256, 320, 576 channels; 4a to 4e: 576, 576, 608, 608, 1056; 5: 1024, 1024
            x = self._block(f"inception_{block}", self._shift(block, x), branches)
        return x

    def insert_shifts(self, num_segments: int, make_shift: Callable[[int], TemporalShift]) -> None:
        """Puts TSM's shifts in, for batches with the segments of a video side by side.

        As in TSM's release (archs/bn_inception.py, place `block`): before conv2 and before each
        inception block, for all of its branches. Blocks have no shortcut. The release's place
        `blockres`, which adds one around each block, fails: a block changes the shape.
        """
        for block in SHIFTED:
            self.shifts[block] = make_shift(num_segments)

    @property
    def block_stages(self) -> tuple[tuple[str, ...], ...]:
        """The results of the blocks, by stage."""
        return tuple(
            tuple(f"inception_{block}_output" for block in BLOCKS if block.startswith(stage))
            for stage in ("3", "4", "5")
        )

    def _shift(self, block: str, x: torch.Tensor) -> torch.Tensor:
        if block not in self.shifts:
            return x
        shifted: torch.Tensor = self.shifts[block](x)
        return shifted

    def _add_block(self, name: str, in_channels: int, branches: Branches) -> int:
        """Adds the layers of an inception block; returns the channels of its result."""
        stride = 1 if branches.one else 2
        channels = 0
        if branches.one:
            channels += self._add_unit(f"{name}_1x1", in_channels, branches.one, 1)
        reduced, wide = branches.three
        reduced = self._add_unit(f"{name}_3x3_reduce", in_channels, reduced, 1)
        channels += self._add_unit(f"{name}_3x3", reduced, wide, 3, stride=stride, padding=1)
        reduced, wide = branches.double
        reduced = self._add_unit(f"{name}_double_3x3_reduce", in_channels, reduced, 1)
        first = self._add_unit(f"{name}_double_3x3_1", reduced, wide, 3, padding=1)
        channels += self._add_unit(f"{name}_double_3x3_2", first, wide, 3, stride=stride, padding=1)
        if not branches.projection:
            return channels + in_channels
        projection = branches.projection
        return channels + self._add_unit(f"{name}_pool_proj", in_channels, projection, 1)

    def _block(self, name: str, x: torch.Tensor, branches: Branches) -> torch.Tensor:
        parts = [self._unit(f"{name}_1x1", x)] if branches.one else []
        parts.append(self._unit(f"{name}_3x3", self._unit(f"{name}_3x3_reduce", x)))
        double = self._unit(f"{name}_double_3x3_reduce", x)
        double = self._unit(f"{name}_double_3x3_1", double)
        parts.append(self._unit(f"{name}_double_3x3_2", double))
        if not branches.projection:
            # Caffe's pooling and the convolutions differ by a pixel where a side is odd, and the
            # release fails there, as at 112 px. Padding gives the convolutions' size.
            odd = x.shape[2] % 2, x.shape[3] % 2
            parts.append(_halve(x, odd))
        else:
            pool = F.avg_pool2d if branches.pool == "average" else F.max_pool2d
            pooled = pool(x, 3, stride=1, padding=1)
            parts.append(self._unit(f"{name}_pool_proj", pooled))
        joined: torch.Tensor = self.get_submodule(f"{name}_output")(torch.cat(parts, 1))
        return joined


class _Output(nn.Identity):
    """The joined branches of a block, Caffe's layer `output`: the place of a non-local block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def _halve(x: torch.Tensor, padding: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """Returns the maxima of windows of 3 x 3, two apart: Caffe's rounding keeps a part window."""
    return F.max_pool2d(x, 3, stride=2, padding=padding, ceil_mode=True)
