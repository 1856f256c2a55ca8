"""What a network takes from each clip. The loader, test, training loop and networks share this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flowprep.config import check_choice
from flowprep.errors import ConfigError

__all__ = [
    "ChannelOrder",
    "ClipForm",
    "ClipInput",
    "ConsensusName",
    "CropsName",
    "InputStream",
    "NormalizationName",
    "PickName",
    "RecipeName",
    "ShiftPlace",
    "StreamName",
    "TailName",
    "ViewName",
    "sees_flow",
    "sees_frames",
]

InputStream = Literal["flow", "rgb", "rgb-difference", "rgb-pair"]
"""What an input is made of. `rgb-difference`: the differences of neighboring RGB frames (TSN).
`rgb-pair`: both neighbors, as levels, for a network that computes their flow."""
StreamName = Literal["flow", "rgb", "rgb-difference", "both", "motion"]
"""What a user chooses. `both` is for networks that take flow and RGB together. `motion`: the flow
that the network computes from RGB frames by itself."""
ClipForm = Literal["stack", "volume"]
"""`stack`: a clip is (C * L, H, W), with time in the channels. `volume`: it is (C, L, H, W)."""
ChannelOrder = Literal["interleaved", "grouped"]
"""The channels of a stack of flow: x1, y1, x2, y2, ... or x1 to xL, then y1 to yL."""
ViewName = Literal["whole", "fovea", "context"]
"""What an input shows of the crop. `whole`: all of it. `fovea`: the center, half as wide and high,
at its own resolution. `context`: all of it, at half the resolution (Karpathy et al. 2014)."""
PickName = Literal["spread", "first"]
"""Which frames a slow input takes of those of a faster one (`ClipInput.rate_ratio`). `spread`: the
first, the last, and others evenly between them, rounded down, as in facebookresearch/SlowFast
(`pack_pathway_output`) and pytorchvideo. `first`: one of each group, its first, as in mmaction2."""
NormalizationName = Literal[
    "px",
    "unit",
    "tsn",
    "tsn-rgb",
    "tsn-pytorch",
    "tsn-resnet",
    "mmaction2",
    "pytorch-i3d",
    "mars",
    "vmz",
    "torchvision-video",
    "slowfast",
    "lrcn",
    "c3d",
    "mmaction2-c3d",
    "deepvideo",
    "timesformer-ssv2",
]
"""A published range of numbers; `flowprep.learn.normalizations` has each one's."""
RecipeName = Literal[
    "two-stream",
    "two-stream-fusion",
    "tsn",
    "i3d",
    "i3d-raft",
    "tsm",
    "mmaction2-tsn",
    "mmaction2-slow-4x16",
    "mmaction2-slow-8x8",
    "mmaction-tsn",
    "mmaction-i3d",
    "yjxiong-tsn",
    "tsn-pytorch",
    "yjxiong-two-stream",
    "vmz",
    "vmz-rgb",
    "ig65m",
    "mars",
    "torchvision-video",
    "slow-4x16",
    "slow-8x8",
    "i3d-lstm",
    "i3d-fused",
    "gru-rcn",
    "lrcn",
    "c3d",
    "mmaction2-c3d",
    "deepvideo",
    "timesformer",
    "timesformer-hr",
    "timesformer-long",
    "timesformer-ssv2",
    "timesformer-ssv2-hr",
    "timesformer-ssv2-long",
    "mmaction2-timesformer",
    "slowfast-4x16",
    "slowfast-8x8",
    "mmaction2-slowfast-4x16",
    "mmaction2-slowfast-8x8",
    "gsm",
    "gsm-inception-v3",
]
"""A published recipe; `flowprep.learn.recipes.RECIPES` has each one."""
ConsensusName = Literal["avg", "max", "weighted"]
"""How the scores of a video's segments become the scores of the video."""
ShiftPlace = Literal["blockres", "block"]
"""What sees TSM's shifted channels: a block's convolutions (blockres), or its shortcut as well."""
CropsName = Literal["center", "ten", "whole"]
"""What a network sees of each picture if it looks at windows of a whole video."""
TailName = Literal["drop", "last"]
"""What becomes of the frames after the last whole window."""

_CHANNELS: dict[InputStream, int] = {"flow": 2, "rgb": 3, "rgb-difference": 3, "rgb-pair": 6}
"""Flow has x and y. RGB and its differences have red, green and blue, a pair has them twice."""


def sees_flow(stream: StreamName) -> bool:
    """Whether this stream is made from a data set's flow, alone or beside its frames."""
    return stream in ("flow", "both")


def sees_frames(stream: StreamName) -> bool:
    """Whether this stream is made from a data set's RGB frames, alone or beside its flow."""
    return stream != "flow"


@dataclass(frozen=True)
class ClipInput:
    """One tensor that a network takes from each clip."""

    name: str
    """Its key in a batch, unique within the network: `flow`, `rgb`, `slow`, ..."""
    stream: InputStream
    form: ClipForm
    num_frames: int
    """L, the number of flow fields, RGB frames or differences."""
    frame_stride: int = 1
    """Distance between neighbors, in stored fields or frames. A difference or a pair is always that
    of two consecutive frames."""
    stack_length: int = 1
    """Of a volume: how many consecutive fields, frames or differences lie in the channels at each
    of the L places (Feichtenhofer et al. 2016: ten fields around each of five frames). The stride
    is that of the places."""
    has_magnitude: bool = False
    """Whether a field has its magnitude, at most the bound, as a third channel (LRCN)."""
    view: ViewName = "whole"
    """Which part of the crop this input shows, and at which resolution."""
    rate_ratio: int = 1
    """How many times as many frames a faster input of the same clip has, at a stride so many times
    smaller: alpha of SlowFast. This input then takes some of that one's frames, and spans what that
    one spans."""
    pick: PickName = "spread"
    """With a `rate_ratio`: which of the faster input's frames."""

    def __post_init__(self) -> None:
        check_choice("stream", self.stream, InputStream)
        check_choice("form", self.form, ClipForm)
        check_choice("view", self.view, ViewName)
        check_choice("pick", self.pick, PickName)
        if self.has_magnitude and self.stream not in ("flow", "rgb-pair"):
            raise ConfigError(
                f"has_magnitude is for stream flow; with stream {self.stream} it must be False"
            )
        for name in ("num_frames", "frame_stride", "stack_length", "rate_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.stack_length > 1 and self.form == "stack":
            raise ConfigError(
                f"stack_length is for form volume, got {self.stack_length} for a stack; "
                "num_frames is the length of a stack"
            )
        if self.rate_ratio > 1 and (self.form, self.stack_length) != ("volume", 1):
            raise ConfigError(
                f"rate_ratio is for form volume without stacks, got {self.rate_ratio}, form "
                f"{self.form} and stack_length {self.stack_length}"
            )

    @property
    def num_channels(self) -> int:
        """C, the channels of the tensor, and so the `in_channels` of the first convolution.

        Flow has 2 channels, or 3 with its magnitude; RGB and its differences have 3. A stack has as
        many for each of its fields, frames or differences.
        """
        channels = _CHANNELS[self.stream] + (self.has_magnitude and self.stream == "flow")
        return channels * (self.num_frames if self.form == "stack" else self.stack_length)

    @property
    def has_stacks(self) -> bool:
        """Whether the channels hold flow fields one after the other, in an order of their own."""
        is_flow = self.stream in ("flow", "rgb-pair")
        return is_flow and (self.form == "stack" or self.stack_length > 1)

    @property
    def span(self) -> int:
        """The distance from the first field, frame or difference to the last, both included.

        With a `rate_ratio`, those of the faster input.
        """
        if self.rate_ratio > 1:
            return (self.num_frames * self.rate_ratio - 1) * self._fast_stride + 1
        return (self.num_frames - 1) * self.frame_stride + self.stack_length

    @property
    def extent(self) -> int:
        """The number of fields or frames that it stands for: up to the place after its last."""
        return max(self.span, self.num_frames * self.frame_stride)

    @property
    def steps(self) -> tuple[int, ...]:
        """The distance of each field, frame or difference from the first, in the order of time.

        With a `rate_ratio`, from the first of the faster input.
        """
        if self.rate_ratio > 1:
            return tuple(place * self._fast_stride for place in self._picked)
        return tuple(
            place * self.frame_stride + step
            for place in range(self.num_frames)
            for step in range(self.stack_length)
        )

    @property
    def _fast_stride(self) -> int:
        return max(1, round(self.frame_stride / self.rate_ratio))

    @property
    def _picked(self) -> tuple[int, ...]:
        """The places of the frames among those of the faster input."""
        if self.pick == "first":
            return tuple(range(0, self.num_frames * self.rate_ratio, self.rate_ratio))
        last = self.num_frames * self.rate_ratio - 1
        return tuple(
            number * last // max(1, self.num_frames - 1) for number in range(self.num_frames)
        )

    def side_px(self, crop_px: int) -> int:
        """Returns H and W of the tensor: those of the crop, or half of them, rounded down."""
        return crop_px if self.view == "whole" else crop_px // 2

    def shape(self, crop_px: int) -> tuple[int, ...]:
        """Returns the tensor's shape for one clip: (C, H, W) or (C, L, H, W)."""
        time = () if self.form == "stack" else (self.num_frames,)
        side = self.side_px(crop_px)
        return (self.num_channels, *time, side, side)


assert set(_CHANNELS) == set(get_args(InputStream))
