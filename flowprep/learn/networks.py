"""All networks: what each one takes, its options and its published clips. Needs no PyTorch.

A new network is a file in `flowprep.learn.models` and one entry here. Loader, test, training loop,
command line, checkpoints and `docs/networks.md` follow from the entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from flowprep.errors import ConfigError
from flowprep.learn import network_builders as builders
from flowprep.learn.clip_inputs import (
    ClipInput,
    NormalizationName,
    RecipeName,
    StreamName,
)
from flowprep.learn.history_networks import HISTORY_NETWORKS
from flowprep.learn.network_entry import Builder, Network, stacks, volumes
from flowprep.learn.network_options import (
    NetworkOptions,
    NonLocalOptions,
    RepresentationFlowOptions,
    TSMOptions,
    TSMResNetOptions,
    TSNOptions,
    VideoResNetOptions,
    VMZResNetOptions,
)
from flowprep.learn.recent_networks import RECENT_NETWORKS
from flowprep.learn.recurrent_networks import RECURRENT_NETWORKS

__all__ = [
    "NETWORKS",
    "clip_inputs",
    "find_network",
    "make_options",
]


def _resnet(build: Callable[[], Builder], description: str, accuracy: str = "") -> Network:
    """Returns the entry of a ResNet, whose clips are those of the two-stream recipe."""
    return Network(
        build,
        stacks(),
        "He et al., Deep Residual Learning (CVPR 2016)",
        description,
        accuracy,
        normalization="tsn-resnet",
        subtract_mean_flow=True,
        recipe="two-stream",
    )


def _segments(
    base: Callable[[], Builder],
    description: str,
    accuracy: str = "",
    normalization: NormalizationName = "tsn-resnet",
    recipe: RecipeName = "tsn",
) -> Network:
    """Returns the entry of a network over segments, each of which goes through another network."""
    return Network(
        builders.tsn(base),
        stacks(5),
        "Wang et al., Temporal Segment Networks (ECCV 2016)",
        description,
        accuracy,
        sees="segments",
        num_segments=3,
        normalization=normalization,
        recipe=recipe,
        options=TSNOptions,
    )


def _shifts(
    base: Callable[[], Builder],
    description: str,
    accuracy: str = "",
    options: type[TSMOptions] = TSMOptions,
    normalization: NormalizationName = "tsn-resnet",
    recipe: RecipeName = "tsm",
) -> Network:
    """Returns the entry of a network over segments that shifts channels between them.

    Five fields a segment are those of TSM's weights for flow (mit-han-lab/temporal-shift-module).
    """
    return Network(
        builders.tsm(base),
        stacks(5),
        "Lin et al., TSM: Temporal Shift Module (ICCV 2019)",
        description,
        accuracy,
        sees="segments",
        num_segments=8,
        normalization=normalization,
        recipe=recipe,
        options=options,
    )


def _closer_look(
    build: Callable[[], Builder],
    description: str,
    accuracy: str,
    num_frames: int = 16,
    options: type[VideoResNetOptions] = VideoResNetOptions,
    recipe: RecipeName = "torchvision-video",
) -> Network:
    """Returns the entry of a network of Tran et al. (2018)."""
    return Network(
        build,
        volumes(num_frames),
        "Tran et al., A Closer Look at Spatiotemporal Convolutions (CVPR 2018)",
        description,
        accuracy,
        crop_px=112,
        normalization="torchvision-video",
        recipe=recipe,
        options=options,
    )


def _slow_at(
    num_frames: int, frame_stride: int, recipe: RecipeName, description: str, accuracy: str
) -> Network:
    """Returns the entry of the slow path of SlowFast, for so many frames at this stride."""
    return Network(
        builders.slow,
        volumes(num_frames, frame_stride),
        "Feichtenhofer et al., SlowFast Networks (ICCV 2019)",
        description,
        accuracy,
        normalization="mmaction2",
        recipe=recipe,
        options=NonLocalOptions,
    )


NETWORKS: dict[str, Network] = {
    "cnn-m-2048": Network(
        builders.cnn_m,
        stacks(),
        "Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014)",
        "The network of both streams: five convolutions, three fully connected layers.",
        "UCF101: flow 83.7, RGB 73.0, both 88.0 (the paper)",
        normalization="tsn",
        subtract_mean_flow=True,
        recipe="two-stream",
        has_one_size=True,
    ),
    "resnet18": _resnet(
        builders.resnet18, "A residual network of 18 layers over an image or a stack."
    ),
    "resnet34": _resnet(builders.resnet34, "The same network with 34 layers."),
    "resnet50": _resnet(builders.resnet50, "The same network with 50 layers."),
    "resnet101": _resnet(
        builders.resnet101,
        "The same network with 101 layers.",
        "UCF101 split 1: flow 79.4, RGB 82.1 (jeffreyyihuang/two-stream-action-recognition)",
    ),
    "resnet152": _resnet(
        builders.resnet152,
        "The same network with 152 layers.",
        "UCF101 split 1: flow 85.7, RGB 85.6 (bryanyzhu/two-stream-pytorch)",
    ),
    "vgg16": Network(
        builders.vgg16,
        stacks(),
        "Wang et al., Very Deep Two-Stream ConvNets (2015)",
        "Thirteen convolutions and three fully connected layers, for both streams.",
        "UCF101 split 1: flow 80.4, RGB 78.5 (bryanyzhu/two-stream-pytorch)",
        normalization="tsn-rgb",
        recipe="yjxiong-two-stream",
    ),
    "alexnet": Network(
        builders.alexnet,
        stacks(),
        "Krizhevsky et al., ImageNet Classification (NIPS 2012)",
        "Five convolutions and three fully connected layers, in torchvision's form of one column.",
        normalization="tsn-resnet",
        subtract_mean_flow=True,
        recipe="two-stream",
    ),
    "googlenet": Network(
        builders.googlenet,
        stacks(),
        "Szegedy et al., Going Deeper with Convolutions (CVPR 2015)",
        "Nine inception blocks, in torchvision's form with batch norm.",
        subtract_mean_flow=True,
        recipe="two-stream",
    ),
    "bn-inception": Network(
        builders.bn_inception,
        stacks(5),
        "Ioffe and Szegedy, Batch Normalization (ICML 2015)",
        "Ten inception blocks with batch norm over an image or a stack.",
        normalization="tsn-pytorch",
        recipe="tsn-pytorch",
    ),
    "mobilenet-v2": Network(
        builders.mobilenet_v2,
        stacks(),
        "Sandler et al., MobileNetV2 (CVPR 2018)",
        "A small network for CPUs: 17 inverted residual blocks over an image or a stack.",
        normalization="tsn-resnet",
        subtract_mean_flow=True,
        recipe="two-stream",
    ),
    "tsn-resnet18": _segments(
        builders.resnet18,
        "`resnet18` over segments of a video. The scores of the segments are joined.",
    ),
    "tsn-resnet34": _segments(builders.resnet34, "`resnet34` over segments."),
    "tsn-resnet50": _segments(
        builders.resnet50,
        "`resnet50` over segments.",
        "Kinetics-400: flow 57.8, both 74.6 (open-mmlab/mmaction2, 8 segments)",
    ),
    "tsn-bn-inception": _segments(
        builders.bn_inception,
        "`bn-inception` over segments, the paper's own network.",
        "UCF101 split 1: flow 87.2, RGB 84.5, both 92.0 (the paper); UCF101: flow 87.7, RGB 86.4 "
        "(open-mmlab/mmaction)",
        "tsn-pytorch",
        "tsn-pytorch",
    ),
    "tsn-mobilenet-v2": _segments(builders.mobilenet_v2, "`mobilenet-v2` over segments."),
    "tsm-resnet18": _shifts(
        builders.resnet18,
        "`resnet18` over segments. Some channels come from the segments before and after.",
        options=TSMResNetOptions,
    ),
    "tsm-resnet50": _shifts(
        builders.resnet50,
        "`resnet50` over segments, with shifted channels.",
        "Kinetics-400: flow 55.7, RGB 74.1, with non-local blocks 75.6; Something-Something V1: "
        "RGB 47.2 (mit-han-lab/temporal-shift-module)",
        TSMResNetOptions,
    ),
    "tsm-mobilenet-v2": _shifts(
        builders.mobilenet_v2,
        "`mobilenet-v2` over segments, with shifted channels.",
        "Kinetics-400: RGB 69.5 (mit-han-lab/temporal-shift-module)",
    ),
    "tsm-bn-inception": _shifts(
        builders.bn_inception,
        "`bn-inception` over segments, with shifted channels.",
        normalization="tsn-pytorch",
        recipe="tsn-pytorch",
    ),
    "i3d": Network(
        builders.i3d,
        volumes(64),
        "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017)",
        "Inception-V1. Its kernels are inflated over time.",
        "Kinetics-400: flow 63.4, RGB 71.1, both 74.2; UCF101: 96.7, 95.6, 98.0 (the paper)",
        recipe="i3d",
        options=NonLocalOptions,
    ),
    "i3d-resnet50": Network(
        builders.i3d_resnet50,
        volumes(64),
        "Wang et al., Non-local Neural Networks (CVPR 2018)",
        "A residual network of 50 layers. Its kernels are inflated over time.",
        "Kinetics-400: RGB 73.5, with non-local blocks 74.0 (facebookresearch/SlowFast, 8 frames)",
        recipe="i3d",
        options=NonLocalOptions,
    ),
    "slow-4x16": _slow_at(
        4,
        16,
        "mmaction2-slow-4x16",
        "The slow path of SlowFast alone, 4 frames: a residual network of 50 layers. Its last two "
        "stages see several frames.",
        "Kinetics-400: flow 61.8 (open-mmlab/mmaction2), RGB 72.7 (facebookresearch/SlowFast)",
    ),
    "slow-8x8": _slow_at(
        8,
        8,
        "mmaction2-slow-8x8",
        "The same network with 8 frames, nearer to each other.",
        "Kinetics-400: flow 65.8 (open-mmlab/mmaction2), RGB 74.8 (facebookresearch/SlowFast)",
    ),
    "r2plus1d-18": _closer_look(
        builders.r2plus1d_18,
        "A residual network of 18 layers. Each convolution is one over the image, then one over "
        "time.",
        "Kinetics-400: RGB 67.5 (pytorch/vision), 68.5 (facebookresearch/VMZ)",
    ),
    "r2plus1d-34": _closer_look(
        builders.r2plus1d_34,
        "The same network with 34 layers, in the form of VMZ and IG-65M.",
        "Kinetics-400: flow 68.2, RGB 74.2, from Sports-1M (facebookresearch/VMZ)",
        32,
        VMZResNetOptions,
        recipe="vmz",
    ),
    "r3d-18": _closer_look(
        builders.r3d_18,
        "A residual network of 18 layers. Its kernels are 3 x 3 x 3.",
        "Kinetics-400: RGB 63.2 (pytorch/vision), 64.7 (facebookresearch/VMZ)",
    ),
    "mc3-18": _closer_look(
        builders.mc3_18,
        "`r3d-18` with kernels over single frames from layer2 on.",
        "Kinetics-400: RGB 64.0 (pytorch/vision), 65.2 (facebookresearch/VMZ)",
    ),
    "rmc3-18": _closer_look(
        builders.rmc3_18,
        "The reverse: `r3d-18` with kernels over single frames up to layer1.",
        "Kinetics-400: RGB 65.5 (facebookresearch/VMZ)",
        options=VMZResNetOptions,
        recipe="vmz-rgb",
    ),
    "r2d-18": _closer_look(
        builders.r2d_18,
        "A residual network of 18 layers over images. Its first layer sees all frames of the clip "
        "at once, so `--frames` is part of the network.",
        "Kinetics-400: RGB 59.4 (facebookresearch/VMZ)",
        options=VMZResNetOptions,
        recipe="vmz-rgb",
    ),
    "resnext101-3d": Network(
        builders.resnext3d,
        volumes(16),
        "Crasto et al., MARS (CVPR 2019)",
        "ResNeXt of 101 layers and 32 groups. Its kernels are 3 x 3 x 3.",
        "Kinetics-400: RGB 72.7, trained to follow the flow (craston/MARS)",
        crop_px=112,
        normalization="mars",
        recipe="mars",
        options=NonLocalOptions,
    ),
    "representation-flow": Network(
        builders.representation_flow,
        {
            "rgb": (ClipInput("rgb", "rgb", "volume", 16, 2),),
            "flow": (ClipInput("flow", "flow", "volume", 16, 2),),
        },
        "Piergiovanni and Ryoo, Representation Flow (CVPR 2019)",
        "A (2+1)D residual network of 50 layers that computes the flow of its own features, by "
        "TV-L1 iterations that learn.",
        "Kinetics-400: RGB 75.5, with the flow of flow 77.1; HMDB51: RGB 77.1, 81.1 "
        "(piergiaj/representation-flow-cvpr19)",
        crop_px=112,
        recipe="i3d",
        options=RepresentationFlowOptions,
    ),
    **HISTORY_NETWORKS,
    **RECURRENT_NETWORKS,
    **RECENT_NETWORKS,
}
"""The networks by name."""


def find_network(name: str) -> Network:
    """Returns the entry of a network. The error for an unknown name suggests the nearest name."""
    if name not in NETWORKS:
        close = get_close_matches(name, NETWORKS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"model must be one of {', '.join(NETWORKS)}, got {name!r}{hint}")
    return NETWORKS[name]


def clip_inputs(
    name: str,
    stream: StreamName,
    num_frames: int | None = None,
    frame_stride: int | None = None,
    options: NetworkOptions | None = None,
) -> tuple[ClipInput, ...]:
    """Returns the inputs of the network called `name`, for a clip of the given length and stride.

    `options` are the network's own; None stands for its defaults.

    `num_frames` and `frame_stride` apply to the first input. The default is the published input.
    Every other input keeps its published ratio to the first input. For example, a network has a
    slow input of 8 frames with stride 8 and a fast one of 32 frames with stride 2. With
    `num_frames=4` the slow input has 4 frames and the fast one 16. Results are rounded, to at least
    1. An input of a single frame beside a longer first input keeps its single frame. Raises
    ConfigError for a stream that the network does not accept.
    """
    streams = find_network(name).with_options(options).streams
    if stream not in streams:
        raise ConfigError(f"stream must be {' or '.join(streams)} for {name}, got {stream!r}")
    published = streams[stream]
    first = published[0]
    frames = 1.0 if num_frames is None else num_frames / first.num_frames
    stride = 1.0 if frame_stride is None else frame_stride / first.frame_stride

    def scaled(one: ClipInput) -> ClipInput:
        is_image = one.num_frames == 1 and first.num_frames > 1
        return dataclasses.replace(
            one,
            num_frames=1 if is_image else max(1, round(one.num_frames * frames)),
            frame_stride=max(1, round(one.frame_stride * stride)),
        )

    return tuple(map(scaled, published))


def make_options(name: str, given: Mapping[str, Any]) -> NetworkOptions:
    """Returns the options of the network called `name`: the given values, else the defaults.

    Raises ConfigError for an option that the network does not have. An option of another network
    may be given if its value is the default there.
    """
    kind = find_network(name).options
    own = {item.name for item in fields(kind)}
    for option, value in given.items():
        if option in own:
            continue
        owners = {
            other: item.default
            for other, entry in NETWORKS.items()
            for item in fields(entry.options)
            if item.name == option
        }
        if value not in owners.values():
            # Where many have it, the first few will do.
            few = list(owners)[:4]
            such = ", for example" if len(owners) > len(few) else ""
            others = f", or choose {' or '.join(few)}{such}" if owners else ""
            raise ConfigError(
                f"{option} does not apply to {name}, got {value!r}; leave it out{others}"
            )
    return kind(**{option: value for option, value in given.items() if option in own})
