"""All networks: what each one takes, its options and its published clips. Needs no PyTorch.

A new network is a file in `flowprep.learn.models` and one entry here. Loader, test, training loop,
command line, checkpoints and `docs/networks.md` follow from the entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, NormalizationName, RecipeName, StreamName
from flowprep.learn.network_options import (
    NetworkOptions,
    NonLocalOptions,
    TSNOptions,
    VideoResNetOptions,
    VMZResNetOptions,
)

if TYPE_CHECKING:
    from flowprep.learn.models.base import ClipModel

__all__ = [
    "NETWORKS",
    "Network",
    "clip_inputs",
    "find_network",
    "make_options",
]

Builder = Callable[..., "ClipModel"]
"""Makes a network. It takes the inputs and the number of classes, and these by name:

width           always
dropout         when the user gives it; the default is the published one
num_segments    for a network that sees segments
crop_px         for a network that has one size
non_local       the options, for a network that can have non-local blocks
options         the network's other options, each by its name
"""


# ---- an entry


@dataclass(frozen=True)
class Network:
    """What flowprep knows about a network without PyTorch."""

    build: Callable[[], Builder]
    """Imports the network's file and returns its builder."""
    inputs: Mapping[StreamName, tuple[ClipInput, ...]]
    """The published inputs, for each stream that the network accepts."""
    paper: str
    """Where it was published."""
    description: str
    """A sentence or two for docs/networks.md."""
    sees: Literal["clip", "segments"] = "clip"
    """What `forward` takes: single clips, (N, C, ...), or S clips per video, (N, S, C, ...)."""
    num_segments: int = 1
    """Clips of a video that the network gets together in training, as published."""
    normalization: NormalizationName = "unit"
    """The published range of its input."""
    subtract_mean_flow: bool = False
    """Whether the paper subtracts the mean vector of each field."""
    recipe: RecipeName | None = None
    """A training without a named recipe varies its clips as this recipe does."""
    options: type[NetworkOptions] = NetworkOptions
    """The type of the network's own options."""
    has_one_size: bool = False
    """Whether the network is built for one crop size. Other networks accept any size."""

    def make(
        self,
        inputs: tuple[ClipInput, ...],
        num_classes: int,
        *,
        width: float,
        dropout: float | None,
        crop_px: int,
        num_segments: int | None,
        options: NetworkOptions,
    ) -> ClipModel:
        """Makes the network. None stands for the published value."""
        given: dict[str, Any] = {"width": width, **dataclasses.asdict(options)}
        if isinstance(options, NonLocalOptions):
            for item in fields(NonLocalOptions):
                del given[item.name]
            given["non_local"] = options
        if dropout is not None:
            given["dropout"] = dropout
        if self.has_one_size:
            given["crop_px"] = crop_px
        if self.sees == "segments":
            given["num_segments"] = num_segments or self.num_segments
        return self.build()(inputs, num_classes, **given)


def _stacks(num_fields: int = 10) -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of a network over stacks: so many fields, one frame, or five differences.

    Ten fields are Simonyan and Zisserman's (2014, section 3.1), five are TSN's (2016, 4.2). Five
    differences of six frames are TSN's (yjxiong/tsn-pytorch, models.py).
    """
    return {
        "flow": (ClipInput("flow", "flow", "stack", num_fields),),
        "rgb": (ClipInput("rgb", "rgb", "stack", 1),),
        "rgb-difference": (ClipInput("rgb-difference", "rgb-difference", "stack", 5),),
    }


def _volumes(num_frames: int, frame_stride: int = 1) -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of a network over volumes: so many fields or frames."""
    return {
        "flow": (ClipInput("flow", "flow", "volume", num_frames, frame_stride),),
        "rgb": (ClipInput("rgb", "rgb", "volume", num_frames, frame_stride),),
    }


# ---- what makes each network


def _cnn_m() -> Builder:
    from flowprep.learn.models.cnn_m import CNNM

    return CNNM


def _resnet18() -> Builder:
    from flowprep.learn.models.resnet import resnet18

    return resnet18


def _resnet34() -> Builder:
    from flowprep.learn.models.resnet import resnet34

    return resnet34


def _resnet50() -> Builder:
    from flowprep.learn.models.resnet import resnet50

    return resnet50


def _tsn(base: Callable[[], Builder]) -> Callable[[], Builder]:
    def build() -> Builder:
        from flowprep.learn.models.tsn import tsn_over

        return tsn_over(base())

    return build


def _i3d() -> Builder:
    from flowprep.learn.models.i3d import I3D

    return I3D


def _i3d_resnet50() -> Builder:
    from flowprep.learn.models.i3d_resnet import I3DResNet

    return I3DResNet


def _r2plus1d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R2Plus1D

    return R2Plus1D


def _r2plus1d_34() -> Builder:
    from flowprep.learn.models.video_resnet import R2Plus1D34

    return R2Plus1D34


def _r3d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R3D

    return R3D


def _mc3_18() -> Builder:
    from flowprep.learn.models.video_resnet import MC3

    return MC3


def _rmc3_18() -> Builder:
    from flowprep.learn.models.video_resnet import RMC3

    return RMC3


def _r2d_18() -> Builder:
    from flowprep.learn.models.video_resnet import R2D

    return R2D


def _resnext3d() -> Builder:
    from flowprep.learn.models.resnext3d import ResNeXt3D

    return ResNeXt3D


def _slow() -> Builder:
    from flowprep.learn.models.slow import Slow

    return Slow


def _resnet(build: Callable[[], Builder], description: str) -> Network:
    """Returns the entry of a ResNet, whose clips are those of the two-stream recipe."""
    return Network(
        build,
        _stacks(),
        "He et al., Deep Residual Learning (CVPR 2016)",
        description,
        normalization="tsn-resnet",
        subtract_mean_flow=True,
        recipe="two-stream",
    )


def _segments(base: Callable[[], Builder], description: str) -> Network:
    """Returns the entry of a network over segments, each of which goes through another network."""
    return Network(
        _tsn(base),
        _stacks(5),
        "Wang et al., Temporal Segment Networks (ECCV 2016)",
        description,
        sees="segments",
        num_segments=3,
        normalization="tsn-resnet",
        recipe="tsn",
        options=TSNOptions,
    )


def _closer_look(
    build: Callable[[], Builder],
    description: str,
    num_frames: int = 16,
    options: type[VideoResNetOptions] = VideoResNetOptions,
    recipe: RecipeName = "torchvision-video",
) -> Network:
    """Returns the entry of a network of Tran et al. (2018)."""
    return Network(
        build,
        _volumes(num_frames),
        "Tran et al., A Closer Look at Spatiotemporal Convolutions (CVPR 2018)",
        description,
        normalization="torchvision-video",
        recipe=recipe,
        options=options,
    )


def _slow_at(num_frames: int, frame_stride: int, recipe: RecipeName, description: str) -> Network:
    """Returns the entry of the slow path of SlowFast, for so many frames at this stride."""
    return Network(
        _slow,
        _volumes(num_frames, frame_stride),
        "Feichtenhofer et al., SlowFast Networks (ICCV 2019)",
        description,
        normalization="mmaction2",
        recipe=recipe,
        options=NonLocalOptions,
    )


NETWORKS: dict[str, Network] = {
    "cnn-m-2048": Network(
        _cnn_m,
        _stacks(),
        "Simonyan and Zisserman, Two-Stream Convolutional Networks (NIPS 2014)",
        "The network of both streams: five convolutions, three fully connected layers.",
        normalization="tsn",
        subtract_mean_flow=True,
        recipe="two-stream",
        has_one_size=True,
    ),
    "resnet18": _resnet(_resnet18, "A residual network of 18 layers over an image or a stack."),
    "resnet34": _resnet(_resnet34, "The same network with 34 layers."),
    "resnet50": _resnet(_resnet50, "The same network with 50 layers."),
    "tsn-resnet18": _segments(
        _resnet18, "`resnet18` over segments of a video. The scores of the segments are joined."
    ),
    "tsn-resnet34": _segments(_resnet34, "`resnet34` over segments."),
    "tsn-resnet50": _segments(_resnet50, "`resnet50` over segments."),
    "i3d": Network(
        _i3d,
        _volumes(64),
        "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017)",
        "Inception-V1. Its kernels are inflated over time.",
        recipe="i3d",
        options=NonLocalOptions,
    ),
    "i3d-resnet50": Network(
        _i3d_resnet50,
        _volumes(64),
        "Wang et al., Non-local Neural Networks (CVPR 2018)",
        "A residual network of 50 layers. Its kernels are inflated over time.",
        recipe="i3d",
        options=NonLocalOptions,
    ),
    "slow-4x16": _slow_at(
        4,
        16,
        "mmaction2-slow-4x16",
        "The slow path of SlowFast alone, 4 frames: a residual network of 50 layers. Its last two "
        "stages see several frames.",
    ),
    "slow-8x8": _slow_at(
        8, 8, "mmaction2-slow-8x8", "The same network with 8 frames, nearer to each other."
    ),
    "r2plus1d-18": _closer_look(
        _r2plus1d_18,
        "A residual network of 18 layers. Each convolution is one over the image, then one over "
        "time.",
    ),
    "r2plus1d-34": _closer_look(
        _r2plus1d_34,
        "The same network with 34 layers, in the form of VMZ and IG-65M.",
        32,
        VMZResNetOptions,
        recipe="vmz",
    ),
    "r3d-18": _closer_look(_r3d_18, "A residual network of 18 layers. Its kernels are 3 x 3 x 3."),
    "mc3-18": _closer_look(_mc3_18, "`r3d-18` with kernels over single frames from layer2 on."),
    "rmc3-18": _closer_look(
        _rmc3_18,
        "The reverse: `r3d-18` with kernels over single frames up to layer1.",
        options=VMZResNetOptions,
        recipe="vmz-rgb",
    ),
    "r2d-18": _closer_look(
        _r2d_18,
        "A residual network of 18 layers over images. Its first layer sees all frames of the clip "
        "at once, so `--frames` is part of the network.",
        options=VMZResNetOptions,
        recipe="vmz-rgb",
    ),
    "resnext101-3d": Network(
        _resnext3d,
        _volumes(16),
        "Crasto et al., MARS (CVPR 2019)",
        "ResNeXt of 101 layers and 32 groups. Its kernels are 3 x 3 x 3.",
        normalization="mars",
        recipe="mars",
        options=NonLocalOptions,
    ),
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
    name: str, stream: StreamName, num_frames: int | None = None, frame_stride: int | None = None
) -> tuple[ClipInput, ...]:
    """Returns the inputs of the network called `name`, for a clip of the given length and stride.

    `num_frames` and `frame_stride` apply to the first input. The default is the published input.
    Every other input keeps its published ratio to the first input. For example, a network has a
    slow input of 8 frames with stride 8 and a fast one of 32 frames with stride 2. With
    `num_frames=4` the slow input has 4 frames and the fast one 16. Results are rounded, to at least
    1. An input of a single frame beside a longer first input keeps its single frame. Raises
    ConfigError for a stream that the network does not accept.
    """
    network = find_network(name)
    if stream not in network.inputs:
        raise ConfigError(
            f"stream must be {' or '.join(network.inputs)} for {name}, got {stream!r}"
        )
    published = network.inputs[stream]
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
            others = f", or choose {' or '.join(owners)}" if owners else ""
            raise ConfigError(
                f"{option} does not apply to {name}, got {value!r}; leave it out{others}"
            )
    return kind(**{option: value for option, value in given.items() if option in own})
