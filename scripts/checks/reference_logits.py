"""Gives reference implementations drawn weights, and stores their logits for our tests.

The weights and the clip are those of `tests/learn/models/drawn.py`, drawn for our network and given
to the reference tensor by tensor, in order. The reference computes in double precision. What is
stored are numbers, not code: tests/data/reference_logits.json.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from consumer_truth import declare_torchvision_operators
from torch import nn

from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.formats import FOREIGN
from tests.learn.models.drawn import draw_clips, drawn_network

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests/data/reference_logits.json"

TSM = "temporal-shift-module"
NUM_FIRST = 4


@dataclass(frozen=True)
class Case:
    """A network of ours, and what makes the same one of a reference."""

    source: str
    """The name of the checkout, or torchvision or transformers."""
    reference: Callable[..., nn.Module]
    """Takes the number of classes."""
    network: dict[str, Any]
    """Arguments of `create_model`."""
    shape: tuple[int, ...] | tuple[tuple[int, ...], ...]
    """Of its clip, or of each of its inputs."""
    num_classes: int = 7
    arguments: dict[str, Any] = field(default_factory=dict)
    """More arguments of `reference`."""
    seed: int | None = None
    """The seed, for a network that does not take any numbers. The default is by the place."""


# ---- torchvision


def _torchvision(num_classes: int, name: str, **options: Any) -> nn.Module:
    import torchvision

    network: nn.Module = getattr(torchvision.models, name)(num_classes=num_classes, **options)
    return network


def _narrow_resnet(num_classes: int, depths: list[int], width: float) -> nn.Module:
    """torchvision's ResNet of bottlenecks with fewer channels: 152 layers have 60 M weights."""
    from torchvision.models import resnet

    class Narrow(resnet.ResNet):
        def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
            narrow = round(planes * width)
            if planes == 64:
                self.inplanes = narrow
                self.conv1 = nn.Conv2d(3, narrow, 7, stride=2, padding=3, bias=False)
                self.bn1 = nn.BatchNorm2d(narrow)
            return super()._make_layer(block, narrow, *args, **kwargs)

    network = Narrow(resnet.Bottleneck, depths)
    network.fc = nn.Linear(network.inplanes, num_classes)
    return network


def _narrow_vgg16(num_classes: int, width: float) -> nn.Module:
    """torchvision's VGG-16, its layers made for fewer channels: the whole has 134 M weights."""
    from torchvision.models import vgg

    plan = [one if one == "M" else round(one * width) for one in vgg.cfgs["D"]]
    network = vgg.VGG(vgg.make_layers(plan), num_classes)
    wide = round(4096 * width)
    network.classifier[0] = nn.Linear(plan[-2] * 49, wide)
    network.classifier[3] = nn.Linear(wide, wide)
    network.classifier[6] = nn.Linear(wide, num_classes)
    return network


# ---- Cadene/pretrained-models.pytorch


def _cadene_bn_inception(num_classes: int) -> nn.Module:
    from pretrainedmodels.models.bninception import BNInception

    network: nn.Module = BNInception(num_classes)
    return network


# ---- mit-han-lab/temporal-shift-module


def _tsm(num_classes: int, base: str, modality: str = "RGB", **options: Any) -> nn.Module:
    from ops.models import TSN

    TSN.print_spec = False  # which the release forgets to store
    given = {
        "is_shift": True,
        "shift_div": 8,
        "partial_bn": False,
        "pretrain": None,
        "dropout": 0.5,
    }
    network = TSN(num_classes, 8, modality, base_model=base, **{**given, **options})
    if network.temporal_pool:
        from ops.temporal_shift import make_temporal_pool

        make_temporal_pool(network.base_model, 8)  # as main.py does
    return _Segments(network)


class _Segments(nn.Module):
    """The release's network over (N, S, C, H, W); it takes segments in the channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x.flatten(1, 2))
        return logits


class _BNInceptionTSM(nn.Module):
    """The release's BN-Inception in the place `block`, without its download of weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from archs.bn_inception import BNInception

        self.base = BNInception(num_classes)
        self.base.build_temporal_ops(8, is_temporal_shift="block", shift_div=8)
        self.base.global_pool = nn.AdaptiveAvgPool2d(1)  # 7 x 7 there: for 224 px alone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.base(x.flatten(0, 1))
        return logits.unflatten(0, x.shape[:2]).mean(1)


class _Online(nn.Module):
    """The release's online network frame by frame; the mean of its logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from online_demo.mobilenet_v2_tsm import MobileNetV2

        self.base = MobileNetV2(num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = {3: 4, 4: 8, 8: 16, 12: 16, 20: 32}
        buffers = [
            x.new_zeros(len(x), kept, *(-(-side // sizes[kept]) for side in x.shape[3:]))
            for kept in (3, 4, 4, 8, 8, 8, 12, 12, 20, 20)
        ]
        results = []
        for frame in x.unbind(1):
            logits, *buffers = self.base(frame, *buffers)
            results.append(logits)
        return torch.stack(results, 1).mean(1)


# ---- torchvision's video networks


def _torchvision_video(num_classes: int, name: str) -> nn.Module:
    from torchvision.models import video

    network: nn.Module = getattr(video, name)(num_classes=num_classes)
    return network


def _vmz(num_classes: int, kinds: Sequence[str], stem_frames: int) -> nn.Module:
    """A network of VMZ (c2/lib/models/r3d_model.py, create_rmcx and create_r2d).

    VMZ computes in Caffe2, of which nothing is left. The parts are torchvision's: convolutions of
    these names in the stages, and a first one over so many frames.
    """
    from torchvision.models.video import resnet

    makers = [getattr(resnet, kind) for kind in kinds]
    network = resnet.VideoResNet(
        resnet.BasicBlock, makers, [2, 2, 2, 2], resnet.BasicStem, num_classes
    )
    network.stem[0] = nn.Conv3d(3, 64, (stem_frames, 7, 7), (1, 2, 2), (0, 3, 3), bias=False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.eps = 1e-3
    return network


# ---- moabitcoin/ig65m-pytorch, craston/MARS, facebookresearch/pytorchvideo


def _ig65m(num_classes: int) -> nn.Module:
    from ig65m.models import r2plus1d_34

    network: nn.Module = r2plus1d_34(num_classes)
    return network


def _mars(num_classes: int) -> nn.Module:
    from models.resnext import resnet101

    network: nn.Module = resnet101(
        num_classes=num_classes, input_channels=2, sample_size=48, sample_duration=16
    )
    return network


def _pytorchvideo_slow(num_classes: int) -> nn.Module:
    """slow_r50 over flow, its head pooling the whole map, and shortcuts named after the blocks."""
    from pytorchvideo.models.hub.resnet import slow_r50

    network: nn.Module = slow_r50(model_num_class=num_classes, input_channel=2)
    network.get_submodule("blocks.5").pool = nn.AdaptiveAvgPool3d(1)
    _shortcuts_last(network)
    return network


def _shortcuts_last(network: nn.Module) -> None:
    for module in network.modules():
        for name in ("branch1_conv", "branch1_norm"):
            if name in module._modules:
                module._modules[name] = module._modules.pop(name)


class _PytorchvideoSlowFast(nn.Module):
    """create_slowfast, its head pooling the whole map, with its parts in our order."""

    def __init__(self, num_classes: int, in_channels: int, alpha: int, lateral_frames: int) -> None:
        super().__init__()
        from pytorchvideo.models.slowfast import create_slowfast

        network = create_slowfast(
            input_channels=(in_channels, in_channels),
            model_num_class=num_classes,
            slowfast_fusion_conv_kernel_size=(lateral_frames, 1, 1),
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            head_pool=nn.AdaptiveAvgPool3d,
        )
        _shortcuts_last(network)
        *stages, _, head = network.blocks
        for path in range(2):
            parts = [stage.multipathway_blocks[path] for stage in stages]
            self.add_module(f"path{path}", nn.ModuleList(parts))
        self.laterals = nn.ModuleList(stage.multipathway_fusion for stage in stages[:-1])
        self.head = head
        self.forwards = [network.forward]

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.forwards[0]([slow, fast])
        return logits


class _MMAction2SlowFast(nn.Module):
    """ResNet3dSlowFast, whose slow path gets the frames that are given, not some of the others."""

    def __init__(self, num_classes: int, alpha: int, lateral_frames: int) -> None:
        super().__init__()
        for name in ("mmaction", "mmaction.models", "mmaction.models.backbones"):
            # Only this file is wanted of all that the packages import.
            package = types.ModuleType(name)
            folder = name.replace(".", "/")
            package.__path__ = [f"{place}/{folder}" for place in sys.path if "mmaction2" in place]
            sys.modules[name] = package
        from mmaction.models.backbones.resnet3d_slowfast import ResNet3dSlowFast

        path = {"type": "resnet3d", "depth": 50, "conv1_stride_t": 1, "pool1_stride_t": 1}
        slow = {
            "lateral": True,
            "conv1_kernel": (1, 7, 7),
            "inflate": (0, 0, 1, 1),
            "fusion_kernel": lateral_frames,
        }
        fast = {"lateral": False, "base_channels": 8, "conv1_kernel": (5, 7, 7)}
        self.trunk = ResNet3dSlowFast(
            resample_rate=alpha,
            speed_ratio=alpha,
            slow_pathway={**path, **slow, "pretrained": None},
            fast_pathway={**path, **fast, "pretrained": None},
        )
        slow_path = self.trunk.slow_path
        names = [name for name in slow_path._modules if name.endswith("_lateral")]
        self.slow_path, self.fast_path = slow_path, self.trunk.fast_path
        self.laterals = nn.ModuleList(slow_path._modules[name] for name in names)
        self.fc = nn.Linear(2304, num_classes)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Returns the paths' tensors in their order, then the laterals', then the classifier's."""
        state: dict[str, torch.Tensor] = super().state_dict(*args, **kwargs)
        return {
            name: value
            for name, value in state.items()
            if not name.startswith("trunk.") and "_lateral" not in name
        }

    def load_state_dict(self, state: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads the tensors of `state_dict`, which are all."""
        return super().load_state_dict(state, strict=False)

    def forward(self, slow: torch.Tensor, fast: torch.Tensor) -> torch.Tensor:
        given = self.slow_path.conv1.register_forward_pre_hook(lambda *_: (slow,))
        maps = self.trunk(fast)
        given.remove()
        logits: torch.Tensor = self.fc(torch.cat([one.mean((2, 3, 4)) for one in maps], 1))
        return logits


def _c3d_pytorch(num_classes: int, width: float) -> nn.Module:
    """C3D with fewer channels: the whole has 78 M weights. Its forward pass wants 8192 of pool5."""
    from C3D_model import C3D

    network: nn.Module = C3D()
    layers = [layer for layer in network.named_children() if hasattr(layer[1], "weight")]
    before = 3
    for name, layer in layers:
        wide = num_classes if name == "fc8" else round(layer.weight.shape[0] * width)
        if isinstance(layer, nn.Conv3d):
            network.add_module(name, nn.Conv3d(before, wide, 3, padding=1))
        else:
            network.add_module(name, nn.Linear(8192 if name == "fc6" else before, wide))
        before = wide
    network.softmax = nn.Identity()
    return network


def _representation_flow(num_classes: int) -> nn.Module:
    """The release's network, with its last layer as ours, for a PyTorch whose masks are bool."""
    name = "rep_flow_layer"
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    module = ModuleType(name)
    exec(re.sub(r"\((mask\d)\^1\)", r"(~\1)", source), module.__dict__)
    sys.modules[name] = module
    from kinetics_2p1d_model import resnet_3d_v1

    class Classifier(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.transpose(1, -1)).transpose(1, -1)

    network: nn.Module = resnet_3d_v1(50, num_classes)
    network.classify = Classifier(2048, num_classes)
    network.register_forward_hook(lambda module, clips, logits: logits.flatten(1))
    return network


# ---- facebookresearch/TimeSformer, huggingface/transformers


def _timesformer(num_classes: int, attention: str, crop_px: int, channels: int) -> nn.Module:
    """The release's network, without what its package imports besides."""
    import types

    def module(name: str, **values: Any) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(values)
        sys.modules[name] = made
        return made

    import collections.abc
    from functools import partial

    (root,) = (Path(place) for place in sys.path if place.endswith("/TimeSformer"))
    package = str(root / "timesformer")
    module("timesformer", __path__=[package])
    module("timesformer.models", __path__=[f"{package}/models"])
    module("torch._six", container_abcs=collections.abc)
    registry = types.SimpleNamespace(register=lambda: lambda kind: kind)
    module("timesformer.models.build", MODEL_REGISTRY=registry)
    module("timesformer.models.helpers", load_pretrained=None)
    from timesformer.models.vit import VisionTransformer

    network: nn.Module = VisionTransformer(
        img_size=crop_px,
        num_classes=num_classes,
        embed_dim=channels,
        num_heads=channels // 64,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        num_frames=4,
        attention_type=attention,
    )
    return network


class _HuggingFaceTimeSformer(nn.Module):
    """transformers' network over (N, C, T, H, W), its tensors in the order of ours."""

    def __init__(self, num_classes: int, attention: str, crop_px: int, channels: int) -> None:
        super().__init__()
        from transformers import TimesformerConfig, TimesformerForVideoClassification

        self.network = TimesformerForVideoClassification(
            TimesformerConfig(
                image_size=crop_px,
                num_frames=4,
                hidden_size=channels,
                num_attention_heads=channels // 64,
                intermediate_size=4 * channels,
                attention_type=attention,
                num_labels=num_classes,
            )
        )

    def take(self, state: dict[str, torch.Tensor]) -> None:
        """Takes our tensors by the names that our loader has for transformers' files."""
        form = FOREIGN["huggingface-timesformer"]
        given = {}
        for name in self.network.state_dict():
            found = form.find_rule(name)
            if found is None or found[0].ours is None:
                raise SystemExit(f"transformers has {name}, for which the loader has no rule")
            given[name] = state[found[1].expand(found[0].ours)]
        self.network.load_state_dict(given)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pixel_values=x.transpose(1, 2)).logits
        return logits


# ---- swathikirans/GSM


class _GateShift(nn.Module):
    """The release's network over (N, S, C, H, W), without its download of weights."""

    def __init__(self, num_classes: int, base: str, num_segments: int) -> None:
        super().__init__()
        import gsm
        import yaml
        from model_zoo.bninception import pytorch_load

        gsm.ftens = torch.zeros  # which a CPU has too
        torch.utils.model_zoo.load_url = lambda _: {}
        pytorch_load.yaml = types.SimpleNamespace(load=yaml.safe_load)
        folder = Path(pytorch_load.__file__).parent
        file = {"BNInception_gsm": "bn_inception_gsm", "InceptionV3_gsm": "inceptionv3_gsm"}[base]
        network = getattr(pytorch_load, base)(f"{folder}/{file}.yaml", num_segments=num_segments)
        (pool,) = (name for name in network._modules if name in ("global_pool", "top_cls_pool"))
        (last,) = (name for name in network._modules if name in ("fc", "top_cls_fc"))
        setattr(network, pool, nn.AdaptiveAvgPool2d(1))  # 7 x 7 or 6 x 6 there
        setattr(network, last, nn.Linear(getattr(network, last).in_features, num_classes))
        # Gates come last here.
        gates = [name for name in network._modules if name.startswith("gsm_")]
        for name in gates:
            network._modules[name] = network._modules.pop(name)
        self.base = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.base(x.flatten(0, 1))
        return logits.unflatten(0, x.shape[:2]).mean(1)


# ---- the cases

RGB = {"stream": "rgb"}
FLOW = {"stream": "flow"}

CASES: dict[str, Case] = {
    "mobilenet-v2": Case(
        "torchvision",
        _torchvision,
        {"name": "mobilenet-v2", **RGB},
        (1, 3, 43, 58),
        arguments={"name": "mobilenet_v2"},
    ),
    "mobilenet-v2, width .35": Case(
        "torchvision",
        _torchvision,
        {"name": "mobilenet-v2", "width": 0.35, **RGB},
        (1, 3, 75, 90),
        arguments={"name": "mobilenet_v2", "width_mult": 0.35},
    ),
    "vgg16, width .125": Case(
        "torchvision",
        _narrow_vgg16,
        {"name": "vgg16", "width": 0.125, **RGB},
        (1, 3, 75, 90),
        arguments={"width": 0.125},
    ),
    "resnet101, width .125": Case(
        "torchvision",
        _narrow_resnet,
        {"name": "resnet101", "width": 0.125, **RGB},
        (1, 3, 75, 90),
        arguments={"depths": [3, 4, 23, 3], "width": 0.125},
    ),
    "resnet152, width .125": Case(
        "torchvision",
        _narrow_resnet,
        {"name": "resnet152", "width": 0.125, **RGB},
        (1, 3, 75, 90),
        arguments={"depths": [3, 8, 36, 3], "width": 0.125},
    ),
    "bn-inception": Case(
        "pretrained-models.pytorch",
        _cadene_bn_inception,
        {"name": "bn-inception", **RGB},
        (1, 3, 64, 64),
    ),
    "tsm-resnet18": Case(
        TSM,
        _tsm,
        {"name": "tsm-resnet18", **FLOW},
        (1, 8, 10, 35, 43),
        arguments={"base": "resnet18", "modality": "Flow"},
    ),
    "tsm-resnet18, block": Case(
        TSM,
        _tsm,
        {"name": "tsm-resnet18", "shift_place": "block", "shift_div": 4, **RGB},
        (1, 8, 3, 35, 43),
        arguments={"base": "resnet18", "shift_place": "block", "shift_div": 4},
    ),
    "tsm-resnet50": Case(
        TSM,
        _tsm,
        {"name": "tsm-resnet50", **FLOW},
        (1, 8, 10, 35, 43),
        arguments={"base": "resnet50", "modality": "Flow"},
    ),
    "tsm-resnet18, temporal pool": Case(
        TSM,
        _tsm,
        {"name": "tsm-resnet18", "temporal_pool": True, **RGB},
        (1, 8, 3, 35, 43),
        arguments={"base": "resnet18", "temporal_pool": True},
    ),
    "tsm-mobilenet-v2": Case(
        TSM,
        _tsm,
        {"name": "tsm-mobilenet-v2", **RGB},
        (1, 8, 3, 35, 43),
        arguments={"base": "mobilenetv2"},
    ),
    "tsm-mobilenet-v2, online": Case(
        TSM,
        _Online,
        {"name": "tsm-mobilenet-v2", "uni_directional": True, **RGB},
        (1, 8, 3, 35, 43),
    ),
    "tsm-bn-inception": Case(
        TSM,
        _BNInceptionTSM,
        {"name": "tsm-bn-inception", **RGB},
        (1, 8, 3, 64, 64),
    ),
    "r3d-18": Case(
        "torchvision",
        _torchvision_video,
        {"name": "r3d-18", **RGB},
        (1, 3, 9, 35, 43),
        arguments={"name": "r3d_18"},
    ),
    "mc3-18": Case(
        "torchvision",
        _torchvision_video,
        {"name": "mc3-18", **RGB},
        (1, 3, 9, 35, 43),
        arguments={"name": "mc3_18"},
    ),
    "r2plus1d-18": Case(
        "torchvision",
        _torchvision_video,
        {"name": "r2plus1d-18", **RGB},
        (1, 3, 9, 35, 43),
        arguments={"name": "r2plus1d_18"},
    ),
    "rmc3-18": Case(
        "torchvision",
        _vmz,
        {"name": "rmc3-18", **RGB},
        (1, 3, 9, 35, 43),
        arguments={"kinds": ["Conv3DNoTemporal", *["Conv3DSimple"] * 3], "stem_frames": 1},
    ),
    "r2d-18": Case(
        "torchvision",
        _vmz,
        {"name": "r2d-18", **RGB},
        (1, 3, 16, 35, 43),
        arguments={"kinds": ["Conv3DNoTemporal"] * 4, "stem_frames": 16},
    ),
    "r2plus1d-34": Case(
        "ig65m-pytorch",
        _ig65m,
        {"name": "r2plus1d-34", **RGB},
        (1, 3, 9, 35, 43),
    ),
    "resnext101-3d": Case(
        "MARS",
        _mars,
        {"name": "resnext101-3d", **FLOW},
        (1, 2, 13, 43, 48),
    ),
    "slow-8x8": Case(
        "pytorchvideo",
        _pytorchvideo_slow,
        {"name": "slow-8x8", **FLOW},
        (1, 2, 8, 43, 51),
    ),
    "c3d, width .125, padded": Case(
        "c3d-pytorch",
        _c3d_pytorch,
        {"name": "c3d", "width": 0.125, "crop_px": 224, "num_frames": 32, "pool5": "padded", **RGB},
        (1, 3, 32, 224, 224),
        arguments={"width": 0.125},
    ),
    "representation-flow": Case(
        "representation-flow-cvpr19",
        _representation_flow,
        {"name": "representation-flow", **RGB},
        (1, 3, 16, 51, 64),
        # The constants of its flow are positive.
        seed=46,
    ),
    **{
        f"timesformer, {attention}": Case(
            "TimeSformer",
            _timesformer,
            {
                "name": "timesformer",
                "attention": attention,
                "width": 1 / 6,
                "crop_px": 48,
                "num_frames": 4,
                **RGB,
            },
            (1, 3, 4, 48, 48),
            arguments={"attention": theirs, "crop_px": 48, "channels": 128},
        )
        for attention, theirs in {
            "divided": "divided_space_time",
            "joint": "joint_space_time",
            "space": "space_only",
        }.items()
    },
    "timesformer, divided, Hugging Face": Case(
        "transformers",
        _HuggingFaceTimeSformer,
        {"name": "timesformer", "width": 1 / 6, "crop_px": 48, "num_frames": 4, **RGB},
        (1, 3, 4, 48, 48),
        arguments={"attention": "divided_space_time", "crop_px": 48, "channels": 128},
    ),
    "slowfast-4x16": Case(
        "pytorchvideo",
        _PytorchvideoSlowFast,
        {"name": "slowfast-4x16", **RGB},
        ((1, 3, 4, 43, 51), (1, 3, 32, 43, 51)),
        arguments={"in_channels": 3, "alpha": 8, "lateral_frames": 5},
    ),
    "slowfast-8x8": Case(
        "pytorchvideo",
        _PytorchvideoSlowFast,
        {"name": "slowfast-8x8", "num_frames": 4, **FLOW},
        ((1, 2, 4, 43, 51), (1, 2, 16, 43, 51)),
        arguments={"in_channels": 2, "alpha": 4, "lateral_frames": 7},
    ),
    "slowfast-8x8, mmaction2": Case(
        "mmaction2",
        _MMAction2SlowFast,
        {
            "name": "slowfast-8x8",
            "num_frames": 4,
            "slow_frames": "first",
            "lateral_norm": False,
            **RGB,
        },
        ((1, 3, 4, 43, 51), (1, 3, 16, 43, 51)),
        arguments={"alpha": 4, "lateral_frames": 7},
    ),
    "gsm-bn-inception": Case(
        "GSM",
        _GateShift,
        {"name": "gsm-bn-inception", "num_segments": 4, **RGB},
        (1, 4, 3, 64, 64),
        arguments={"base": "BNInception_gsm", "num_segments": 4},
    ),
    "gsm-inception-v3": Case(
        "GSM",
        _GateShift,
        {"name": "gsm-inception-v3", "num_segments": 3, **RGB},
        (1, 3, 3, 101, 101),
        arguments={"base": "InceptionV3_gsm", "num_segments": 3},
    ),
}


@contextlib.contextmanager
def importable(checkouts: Path) -> Iterator[None]:
    """Lets the references be imported."""
    declared = declare_torchvision_operators()
    sys.path[:0] = sorted({str(checkouts / case.source) for case in CASES.values()})
    yield
    del declared


def pair(name: str, seed: int) -> tuple[ClipModel, nn.Module, np.random.RandomState]:
    """Returns our network and the reference with the same weights, and the generator."""
    case = CASES[name]
    network, rng = drawn_network({**case.network, "num_classes": case.num_classes}, seed)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = case.reference(case.num_classes, **case.arguments)
    _give(network.state_dict(), reference)
    return network, reference.eval(), rng


def measure(name: str, checkouts: Path, seed: int) -> dict[str, Any]:
    """Returns the entry of one case."""
    case = CASES[name]
    _, reference, rng = pair(name, seed)
    clips = draw_clips(rng, case.shape)
    with torch.no_grad():
        logits = reference.double()(*(clip.double() for clip in clips))[0]
    return {
        "network": case.network,
        "num_classes": case.num_classes,
        "seed": seed,
        "shape": case.shape,
        "reference": _version(case.source, checkouts),
        "norm": logits.norm().item(),
        "first": logits[:NUM_FIRST].tolist(),
    }


def _give(state: dict[str, torch.Tensor], reference: nn.Module) -> None:
    """Gives the reference our tensors, in the order of both."""
    if hasattr(reference, "take"):
        reference.take(state)
        return
    theirs = reference.state_dict()
    given = {}
    for (name, value), (other, target) in zip(state.items(), theirs.items(), strict=True):
        if value.shape != target.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise SystemExit(f"{name} {tuple(value.shape)} is not {other} {tuple(target.shape)}")
        given[other] = value
    reference.load_state_dict(given)


def _version(source: str, checkouts: Path) -> str:
    if source in ("torchvision", "transformers"):
        return f"{source} {importlib.metadata.version(source).partition('+')[0]}"
    commit = subprocess.run(
        ["git", "-C", str(checkouts / source), "rev-parse", "--short=7", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return f"{source} at {commit}"


def main() -> None:
    """Writes the file, or the named entries of it."""
    if len(sys.argv) < 2:
        raise SystemExit("usage: scripts/reference_logits CHECKOUTS [NAME ...]")
    checkouts, names = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(CASES)
    if unknown := set(names) - set(CASES):
        raise SystemExit(f"no case is named {', '.join(sorted(unknown))}")
    entries = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    with importable(checkouts):
        for name in names:
            seed = CASES[name].seed or 20 + list(CASES).index(name)
            entries[name] = measure(name, checkouts, seed)
            print(f"{name}: norm {entries[name]['norm']:.6g}", flush=True)
            _write(entries)


def _write(entries: dict[str, Any]) -> None:
    lines = [
        f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in CASES if name in entries
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
