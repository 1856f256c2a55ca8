"""The options that only some networks have. Each entry in `networks` names one of these types."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ConsensusName, PickName, ShiftPlace

__all__ = [
    "AttentionName",
    "BackboneName",
    "C3DOptions",
    "CNNLSTMOptions",
    "CellName",
    "DeepVideoFusion",
    "DeepVideoOptions",
    "FlowLayerName",
    "FrameBackbone",
    "FramePoolingOptions",
    "FusionInit",
    "GRURCNOptions",
    "GSMOptions",
    "NetworkOptions",
    "NonLocalKind",
    "NonLocalOptions",
    "NonLocalOver",
    "NonLocalStyle",
    "Pool5Name",
    "PoolingName",
    "RecurrentCNNOptions",
    "RepresentationFlowOptions",
    "SlowFastOptions",
    "StepScores",
    "StreamFusionKind",
    "TSMOptions",
    "TSMResNetOptions",
    "TSNOptions",
    "TimeSformerOptions",
    "TimeSformerSize",
    "TwoStreamFusionOptions",
    "VMZResNetOptions",
    "VideoResNetOptions",
    "VideoResNetVariant",
]

NonLocalKind = Literal["embedded-gaussian", "gaussian", "dot-product", "concatenation"]
"""How a non-local block compares two positions (Wang et al., CVPR 2018, section 3.2)."""
NonLocalOver = Literal["both", "space", "time"]
"""Which positions a non-local block compares (Wang et al., CVPR 2018, table 2d)."""
NonLocalStyle = Literal["slowfast", "tsm", "mmaction2"]
"""Whose non-local blocks these are. Projects differ in the places and in two details."""
BackboneName = Literal["cnn-m-2048", "vgg16", "resnet50"]
"""The network of each tower of a fusion."""
StreamFusionKind = Literal["sum", "max", "concat", "conv", "bilinear", "conv3d"]
"""How two maps become one (Feichtenhofer et al., CVPR 2016, section 3.1)."""
FusionInit = Literal["weighted-sum", "sum", "spatial", "temporal", "random"]
"""With which weights a fusion by convolution starts."""
FrameBackbone = Literal["googlenet", "alexnet", "vgg16", "resnet18", "resnet50", "bn-inception"]
"""The 2D network that looks at each frame, below pooling or a recurrent network."""
PoolingName = Literal["conv", "late", "slow", "local", "time-conv", "mean", "concat"]
"""How the features of frames are joined (Ng et al., CVPR 2015, section 3.1)."""
StepScores = Literal["weighted", "last", "max", "sum"]
"""How the scores of all steps become those of a clip (Ng et al., CVPR 2015, section 3.2)."""
Pool5Name = Literal["ceil", "padded"]
"""Where the windows of C3D's last pooling begin on a map of 7: at 0, 2, 4, 6, or at -1, 1, 3, 5."""
DeepVideoFusion = Literal["single", "early", "late", "slow", "multiresolution"]
"""How the networks of Karpathy et al. (2014) see the frames of a clip."""
VideoResNetVariant = Literal["torchvision", "vmz"]
"""Whose details a residual network of Tran et al. (2018) has (`models.video_resnet`)."""
AttentionName = Literal["space", "joint", "divided", "local-global", "axial"]
"""What a patch is compared with in TimeSformer (Bertasius et al., ICML 2021, section 3)."""
TimeSformerSize = Literal["base", "hr", "long"]
"""The published clips of TimeSformer (Bertasius et al., ICML 2021, section 4.4)."""
CellName = Literal["plain", "gru", "lstm"]
"""What a recurrent layer does at a step (`layers.recurrent`)."""
FlowLayerName = Literal["release", "tvl1"]
"""Whose layer computes the flow of features: that of the release, or TV-L1 of each channel."""


@dataclass(frozen=True)
class NetworkOptions:
    """The options of one network, in addition to those that all networks have: none."""


@dataclass(frozen=True)
class TSNOptions(NetworkOptions):
    """The options of the networks over segments."""

    consensus: ConsensusName = "avg"
    """How the scores of a video's segments are joined."""
    partial_bn: bool = False
    """Freeze every batch norm except the first, as the tsn recipe does."""

    def __post_init__(self) -> None:
        check_choice("consensus", self.consensus, ConsensusName)


@dataclass(frozen=True)
class NonLocalOptions(NetworkOptions):
    """The options of networks that can have non-local blocks (Wang et al., CVPR 2018)."""

    non_local: bool = False
    """Put non-local blocks into the network (Wang et al. 2018). They begin as the identity."""
    non_local_blocks: str | None = None
    """How many non-local blocks, such as 5 or 10, or the names of the layers that they follow, such
    as layer2.1,layer3.1. A number is spread over the two stages before the last, as published. The
    default is 5, or one after every other layer of a network with fewer layers there."""
    non_local_kind: NonLocalKind = "embedded-gaussian"
    """How a non-local block compares two positions."""
    non_local_over: NonLocalOver = "both"
    """What a position is compared with. `both`: all positions of the clip. `space`: those of its
    own frame. `time`: its own place in all frames."""
    non_local_style: NonLocalStyle | None = None
    """Whose non-local blocks. `slowfast`: pooled before the projections, products divided by the
    root of their length. `tsm`: pooled after them, not divided. `mmaction2`: pooled after them,
    divided. The default is the style of the network's authors."""

    def __post_init__(self) -> None:
        check_choice("non_local_kind", self.non_local_kind, NonLocalKind)
        check_choice("non_local_over", self.non_local_over, NonLocalOver)
        if self.non_local_style is not None:
            check_choice("non_local_style", self.non_local_style, NonLocalStyle)
        if self.non_local_blocks is not None and not re.fullmatch(
            r"[1-9][0-9]{0,5}|[A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*", self.non_local_blocks
        ):
            raise ConfigError(
                "non_local_blocks must be a number from 1 on, or names of layers with commas "
                f"between them, got {self.non_local_blocks!r}"
            )
        if self.non_local:
            return
        for item in fields(NonLocalOptions):
            if getattr(self, item.name) != item.default:
                raise ConfigError(
                    f"{item.name} is for non-local blocks, got {getattr(self, item.name)} and no "
                    "blocks; add --non-local"
                )


@dataclass(frozen=True)
class TSMOptions(NonLocalOptions):
    """The options of the networks that shift channels between segments."""

    shift_div: int = 8
    """In each direction, one channel in so many comes from the neighboring segment."""
    uni_directional: bool = False
    """Shift from the past only, so that the network can follow a stream."""
    partial_bn: bool = False
    """Freeze every batch norm except the first, as the tsn recipe does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shift_div < 2:
            raise ConfigError(f"shift_div must be at least 2, got {self.shift_div}")


@dataclass(frozen=True)
class TSMResNetOptions(TSMOptions):
    """The options of a ResNet that shifts channels between segments."""

    shift_place: ShiftPlace = "blockres"
    """What sees the shifted channels: a block's convolutions, or its shortcut as well (block)."""
    temporal_pool: bool = False
    """Halve the number of segments before the second stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("shift_place", self.shift_place, ShiftPlace)


@dataclass(frozen=True)
class GSMOptions(NetworkOptions):
    """The options of the networks with gates between segments (Sudhakaran et al., CVPR 2020)."""

    partial_bn: bool = False
    """Freeze every batch norm except the first and those of the gates."""


@dataclass(frozen=True)
class SlowFastOptions(NonLocalOptions):
    """The options of SlowFast (Feichtenhofer et al., ICCV 2019)."""

    slow_frames: PickName = "spread"
    """Which frames of the fast path the slow one sees. `spread`: the first, the last, and others
    evenly between them, as in SlowFast and pytorchvideo. `first`: one of each group, its first, as
    in mmaction2."""
    lateral_norm: bool = True
    """Put a batch norm and a ReLU behind each convolution from the fast path to the slow one. Some
    of mmaction2's networks have none."""
    lateral_frames: int | None = None
    """Frames that such a convolution sees, an odd number. The default is the network's published
    number. SlowFast's own networks with non-local blocks see 5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("slow_frames", self.slow_frames, PickName)
        if self.lateral_frames is not None and (
            self.lateral_frames < 1 or self.lateral_frames % 2 == 0
        ):
            raise ConfigError(
                f"lateral_frames must be an odd number from 1 on, got {self.lateral_frames}"
            )


@dataclass(frozen=True)
class VideoResNetOptions(NonLocalOptions):
    """The options of the residual networks of Tran et al. (CVPR 2018)."""

    variant: VideoResNetVariant = "torchvision"
    """Whose weights fit: those of torchvision, or those of VMZ and IG-65M. They differ in the
    epsilon of batch norms, and R(2+1)D also in the channels inside some convolutions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("variant", self.variant, VideoResNetVariant)


@dataclass(frozen=True)
class VMZResNetOptions(VideoResNetOptions):
    """The same for the networks whose weights are VMZ's."""

    variant: VideoResNetVariant = "vmz"


@dataclass(frozen=True)
class RecurrentCNNOptions(NetworkOptions):
    """The options of the network whose layers are all recurrent."""

    cell: CellName = "plain"
    """What a recurrent layer does at a step. `plain`: tanh of the sum of what it sees. `gru` and
    `lstm` have gates."""

    def __post_init__(self) -> None:
        check_choice("cell", self.cell, CellName)


@dataclass(frozen=True)
class GRURCNOptions(NetworkOptions):
    """The options of GRU-RCN (Ballas et al. 2016)."""

    stacked: bool = False
    """Let the gates of each GRU see the state of the GRU below."""
    bidirectional: bool = False
    """Add GRUs that see the clip in reverse."""


@dataclass(frozen=True)
class TwoStreamFusionOptions(NetworkOptions):
    """The options of a network that fuses two towers (Feichtenhofer et al., CVPR 2016)."""

    backbone: BackboneName = "vgg16"
    """The network of each tower."""
    fusion: StreamFusionKind = "conv3d"
    """How the maps of the two towers become one. `conv`: a convolution over single places.
    `conv3d`: one over 3 x 3 places in 3 frames. `bilinear`: the products of all pairs of channels,
    without the layers above."""
    fusion_layers: str | None = None
    """After which layers, such as relu5_3 of vgg16, relu5 of cnn-m-2048 or layer4 of resnet50, or
    several with commas between them, such as relu5,fc8. The default is the last layer with maps."""
    fusion_init: FusionInit = "weighted-sum"
    """How fusions conv and conv3d start. `weighted-sum`: a quarter of the frames' map and three
    quarters of the flow's. `sum`: all of both. `spatial`, `temporal`: one of them. `random`."""
    pool_over_time: bool = True
    """Take the maximum over the frames after the first fusion (3D pooling). Without it, the scores
    of the frames are averaged."""
    towers: int = 2
    """2: the flow's tower also keeps its own layers above the fusion and its own loss, and the
    scores of both are averaged. 1: only the fused tower goes on."""

    def __post_init__(self) -> None:
        check_choice("backbone", self.backbone, BackboneName)
        check_choice("fusion", self.fusion, StreamFusionKind)
        check_choice("fusion_init", self.fusion_init, FusionInit)
        if self.towers not in (1, 2):
            raise ConfigError(f"towers must be 1 or 2, got {self.towers}")


@dataclass(frozen=True)
class FramePoolingOptions(NetworkOptions):
    """The options of pooling over frames (Ng et al., CVPR 2015)."""

    pooling: PoolingName = "conv"
    """How the features of frames are joined. `conv`: maximum of their maps. `late`: of what fully
    connected layers make of each. `slow`: in windows of 10 frames, then over windows. `local`: in
    windows alone. `time-conv`: after a convolution over time. `mean` and `concat`: of vectors."""
    backbone: FrameBackbone = "googlenet"
    """The 2D network that looks at each frame."""

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, PoolingName)
        check_choice("backbone", self.backbone, FrameBackbone)


@dataclass(frozen=True)
class CNNLSTMOptions(NetworkOptions):
    """The options of an LSTM over frames (Ng et al., CVPR 2015)."""

    step_scores: StepScores = "weighted"
    """How the scores of all steps are joined. `weighted`: their mean, later steps count more.
    `last`: the last step alone. `max`: the maximum of each class. `sum`: their mean."""
    backbone: FrameBackbone = "googlenet"
    """The 2D network that looks at each frame."""

    def __post_init__(self) -> None:
        check_choice("step_scores", self.step_scores, StepScores)
        check_choice("backbone", self.backbone, FrameBackbone)


@dataclass(frozen=True)
class C3DOptions(NetworkOptions):
    """The options of C3D (Tran et al., ICCV 2015)."""

    pool5: Pool5Name = "ceil"
    """How the last pooling reads its map. `ceil`: rounded up at the end, as in Caffe. `padded`:
    padded in front, as in mmaction2 and other projects. Weights fit both, and their scores
    differ."""

    def __post_init__(self) -> None:
        check_choice("pool5", self.pool5, Pool5Name)


@dataclass(frozen=True)
class DeepVideoOptions(NetworkOptions):
    """The options of DeepVideo (Karpathy et al., CVPR 2014)."""

    fusion: DeepVideoFusion = "single"
    """How frames are joined. `single`: one frame. `early`: 10 frames in the first convolution.
    `late`: two frames, 15 apart, in the first fully connected layer. `slow`: 10 frames, in three
    convolutions over time. `multiresolution`: one frame twice, its center and the whole at half the
    resolution."""

    def __post_init__(self) -> None:
        check_choice("fusion", self.fusion, DeepVideoFusion)


@dataclass(frozen=True)
class RepresentationFlowOptions(NetworkOptions):
    """The options of representation flow (Piergiovanni and Ryoo, CVPR 2019)."""

    flow_layer: FlowLayerName = "release"
    """How the flow of features is computed. `release`: as in the authors' code, whose weights need
    it. `tvl1`: TV-L1 of each channel by itself, as of a gray frame."""
    flow_of_flow: bool = False
    """Compute the flow of features, and then the flow of this flow."""
    flow_iterations: int = 10
    """Iterations of the flow of features."""

    def __post_init__(self) -> None:
        check_choice("flow_layer", self.flow_layer, FlowLayerName)
        if self.flow_iterations < 1:
            raise ConfigError(f"flow_iterations must be at least 1, got {self.flow_iterations}")


@dataclass(frozen=True)
class TimeSformerOptions(NetworkOptions):
    """The options of TimeSformer (Bertasius et al., ICML 2021)."""

    attention: AttentionName = "divided"
    """What each patch of a frame is compared with. `space`: patches of its own frame. `joint`: all
    patches of the clip. `divided`: its own place in all frames, then its own frame.
    `local-global`: a neighborhood of half the width and height in all frames, then every second
    patch. `axial`: patches along time, then along its row, then along its column."""
    size: TimeSformerSize = "base"
    """The published clip. `base`: 8 frames, 32 apart, of 224 px. `hr`: 16 frames, 16 apart, of
    448 px. `long`: 96 frames, 4 apart, of 224 px."""

    def __post_init__(self) -> None:
        check_choice("attention", self.attention, AttentionName)
        check_choice("size", self.size, TimeSformerSize)
