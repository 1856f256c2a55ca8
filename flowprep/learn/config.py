"""What a training computes: frozen dataclasses that check themselves.

    TrainConfig = ModelSpec + ClipSpec + AugmentSpec + OptimizationSpec, in every checkpoint
    TrainOptions                        how a training is carried out; changes no number on purpose
    ViewSpec                            which views of each video a test averages

The whole TrainConfig is stored with every checkpoint. A training cannot go on with another one.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from flowprep.config import build_spec, check_at_least, check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import (
    ChannelOrder,
    ClipInput,
    NormalizationName,
    StreamName,
    sees_flow,
    sees_frames,
)
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.network_options import NetworkOptions
from flowprep.learn.networks import clip_inputs, find_network, make_options
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec

__all__ = [
    "FUSION_METHODS",
    "ClipSpec",
    "FusionMethod",
    "ModelSpec",
    "StackName",
    "TrainConfig",
    "TrainOptions",
    "ViewSpec",
    "check_stack",
]

StackName = Literal["plain", "bidirectional", "trajectory"]
SamplingName = Literal["segments", "dense", "spread"]
FusionMethod = Literal["mean", "weighted", "logits", "svm"]

FUSION_METHODS: dict[FusionMethod, str] = {
    "mean": "mean of softmax (Simonyan and Zisserman 2014)",
    "weighted": "weighted sum of the scores before softmax (TSN)",
    "logits": "sum of the scores before softmax (I3D)",
    "svm": "linear SVM on L2-normalized softmax (Simonyan and Zisserman 2014)",
}
"""What each method of fusion does, and where it was published."""


@dataclass(frozen=True)
class ModelSpec:
    """Which network, and how it is built."""

    model: str = "resnet18"
    """The network."""
    width: float = 1.0
    """Multiply the number of channels in every layer. Small networks train on a laptop."""
    dropout: float | None = None
    """Share of the features that is dropped before the classifier. The default is the published
    share."""
    options: NetworkOptions = field(default_factory=NetworkOptions)
    """The network's own options, of the type that its entry names. The default is that type's
    defaults."""
    weights: str | None = None
    """Start from the weights in this file: .safetensors, .pth, .caffemodel, a .pkl of Caffe2, or a
    checkpoint of flowprep or TensorFlow. For two towers, one file or two, FRAMES,FLOW."""
    motion: MotionSpec = field(default_factory=MotionSpec)
    """The layer that computes the flow of stream motion."""

    def __post_init__(self) -> None:
        kind = find_network(self.model).options
        if type(self.options) is not kind:
            # Options of another network are accepted only at their defaults.
            own = make_options(self.model, dataclasses.asdict(self.options))
            object.__setattr__(self, "options", own)
        if not 0 < self.width <= 8:
            raise ConfigError(f"width must be > 0 and <= 8, got {self.width:g}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be >= 0 and < 1, got {self.dropout:g}")


def check_stack(stack: StackName, num_frames: int, frame_stride: int) -> None:
    """Raises ConfigError for a stack that cannot have this number of fields or this stride."""
    if stack == "bidirectional" and num_frames % 2:
        raise ConfigError(f"num_frames must be even for stack bidirectional, got {num_frames}")
    if stack != "plain" and frame_stride != 1:
        raise ConfigError(f"frame_stride must be 1 for stack {stack}, got {frame_stride}")


@dataclass(frozen=True)
class ClipSpec:
    """What a network sees of a video.

    Inputs of several streams show the same moment, in the same crop, and are mirrored together.
    Options for flow change only the flow inputs, not the RGB inputs.
    """

    stream: StreamName = "flow"
    """What the network sees: the flow, the RGB frames, the differences of consecutive RGB frames,
    or flow and RGB frames. Only some networks take differences or both. `motion`: flow that the
    network computes from the RGB frames by itself."""
    num_frames: int = 10
    """Number of flow fields, RGB frames or differences in a clip. The default is the network's
    published number. If a network has several inputs, this is the number for the first input, and
    the numbers for the others change in proportion."""
    frame_stride: int = 1
    """Distance between neighboring fields or frames of a clip. 2 takes every second one. The
    default is the network's published distance."""
    stack: StackName = "plain"
    """How fields become a stack (Simonyan and Zisserman 2014). `plain`: in their order.
    `bidirectional`: half of the fields are forward, half backward. `trajectory`: the flow is
    sampled along the motion."""
    channel_order: ChannelOrder = "interleaved"
    """Order of the channels of a stack of flow. `interleaved`: x1, y1, x2, y2 and so on, as in
    published weights. `grouped`: x1 to xL, then y1 to yL."""
    num_segments: int = 1
    """Number of equal segments in a video. Each segment gives one clip, and the network sees all
    clips together. The default is the network's published number."""
    sampling: SamplingName = "segments"
    """Where the segments lie. `segments`: over the whole video. `dense`: in a window of 64 frames.
    `spread`: there is one segment, and each frame or field of a clip is of its own equal part of
    the video, whatever the frame stride."""
    subtract_mean_flow: bool = False
    """Subtract the mean vector from each field. This removes most of the camera's motion. The
    two-stream recipe does it."""
    normalization: NormalizationName = "unit"
    """Scale of the network's input. `unit`: -1 to 1. `px`: flow in pixels. Other names: as in that
    project. The default is the network's published scale."""
    mean_file: str | None = None
    """A file of the mean of all frames, in place of the scale's own mean: Caffe's .binaryproto, or
    a .npy file of (3, H, W), or of (3, L, H, W) for clips of L frames, in the scale's order of
    colors. It is subtracted at the place of the crop, as for C3D."""
    resize_short_px: int | None = None
    """Resize the stored pictures to this short side before the crop. The recipes take 256. By
    default they keep their size."""
    crop_px: int = 224
    """Side of the square crop that the network sees. It must fit into the frames."""
    scale_vectors: bool = False
    """When fields are resized, scale their vectors too. The recipes do not."""

    def __post_init__(self) -> None:
        check_choice("stream", self.stream, StreamName)
        check_choice("stack", self.stack, StackName)
        check_choice("channel_order", self.channel_order, ChannelOrder)
        check_choice("sampling", self.sampling, SamplingName)
        check_choice("normalization", self.normalization, NormalizationName)
        check_at_least(self, 1, "num_frames", "frame_stride", "num_segments")
        check_at_least(self, 8, "crop_px", "resize_short_px")
        if self.sampling == "spread" and (self.num_segments, self.stack) != (1, "plain"):
            raise ConfigError(
                "sampling spread is for one segment and stack plain, got num_segments "
                f"{self.num_segments} and stack {self.stack}; choose another sampling"
            )
        if self.stream == "flow":
            # For stream `both`, `check_clip` checks the numbers of the network's flow input.
            check_stack(self.stack, self.num_frames, self.frame_stride)
        if not sees_flow(self.stream):
            for name, plain in (
                ("stack", "plain"),
                ("channel_order", "interleaved"),
                ("subtract_mean_flow", False),
                ("scale_vectors", False),
            ):
                if getattr(self, name) != plain:
                    raise ConfigError(
                        f"{name} is for stream flow; with stream {self.stream} it must be {plain}, "
                        f"got {getattr(self, name)}"
                    )
        if self.stream not in ("flow", "motion") and self.normalization == "px":
            raise ConfigError(
                f"normalization px is for stream flow or motion; with stream {self.stream} it must "
                "be another one"
            )
        if self.mean_file is not None and self.stream not in ("rgb", "both"):
            raise ConfigError(
                f"mean_file is for stream rgb; with stream {self.stream} it must be None, got "
                f"{self.mean_file}"
            )
        if self.resize_short_px is not None and self.resize_short_px < self.crop_px:
            raise ConfigError(
                f"resize_short_px must be >= crop_px, got {self.resize_short_px} < {self.crop_px}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, except for the data."""

    model: ModelSpec = field(default_factory=ModelSpec)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    optimization: OptimizationSpec = field(default_factory=OptimizationSpec)
    seed: int = 0
    """Seed of the first weights, the order of the videos, the clips, the crops and dropout."""
    train_split: str = "train"
    """The videos to train on: a split of the data sets, or `all`."""
    test_split: str = "test"
    """The split to test on during the training, with one view per video. `none` tests nothing."""
    balance: bool = False
    """Show each class equally often, however many videos it has. An epoch stays as long."""

    def __post_init__(self) -> None:
        inputs = clip_inputs(self.model.model, self.clip.stream, options=self.model.options)
        if self.augment.random_strides and self.clip.stack != "plain":
            raise ConfigError(
                f"random_strides are for stack plain, got {self.augment.random_strides} and stack "
                f"{self.clip.stack}; leave one of them out"
            )
        if self.clip.stream != "motion":
            for item in dataclasses.fields(MotionSpec):
                if (given := getattr(self.model.motion, item.name)) != item.default:
                    raise ConfigError(
                        f"{item.name} is for stream motion; with stream {self.clip.stream} it must "
                        f"be {item.default}, got {given}"
                    )
        if self.augment.random_strides and self.clip.sampling == "spread":
            raise ConfigError(
                f"random_strides do not apply to sampling spread, got {self.augment.random_strides}"
                "; leave one of them out"
            )
        if self.augment.rand_augment and not sees_frames(self.clip.stream):
            raise ConfigError(
                f"rand_augment is for RGB frames, got {self.augment.rand_augment} and stream "
                f"{self.clip.stream}; leave it out, or choose a stream with frames"
            )
        order = self.clip.channel_order
        if order != "interleaved" and not any(one.has_stacks for one in inputs):
            raise ConfigError(
                f"channel_order is for networks that take stacks of flow; with "
                f"{self.model.model} it must be interleaved, got {order}"
            )

    @property
    def inputs(self) -> tuple[ClipInput, ...]:
        """The network's inputs for this clip."""
        clip, model = self.clip, self.model
        return clip_inputs(
            model.model, clip.stream, clip.num_frames, clip.frame_stride, model.options
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON values; `from_dict` is its inverse."""
        values = dataclasses.asdict(self)
        if self.clip.stream != "motion":
            # Version 1 has none.
            del values["model"]["motion"]
        for name in ("scales", "random_strides", "rand_augment"):
            values["augment"][name] = list(values["augment"][name])
        values["optimization"]["milestones"] = list(self.optimization.milestones)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Rebuilds a stored configuration.

        Raises ConfigError for a field too many or too few, and for a value of another type.
        """
        kinds = {
            "model": ModelSpec,
            "clip": ClipSpec,
            "augment": AugmentSpec,
            "optimization": OptimizationSpec,
        }
        if "model" in values:
            values = {**values, "model": _with_options(values["model"])}
        built = {
            name: build_spec(kind, values[name]) for name, kind in kinds.items() if name in values
        }
        rest = {name: value for name, value in values.items() if name not in kinds}
        config: TrainConfig = build_spec(cls, {**rest, **built})
        _check_types(config)
        return config


def _check_types(spec: Any) -> None:
    """Raises ConfigError where a value is not of its field's type: a file may hold anything."""
    for name, hint in typing.get_type_hints(type(spec)).items():
        value = getattr(spec, name)
        if dataclasses.is_dataclass(value):
            _check_types(value)
            continue
        try:
            msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name} of {type(spec).__name__}: {error}") from error


_FLAT_OPTIONS = ("consensus", "partial_bn", "non_local")
"""Version 0.1 stored these options for every network. A network without such an option stored its
default."""

_LATER_OPTIONS = {
    "non_local": False,
    "non_local_blocks": None,
    "non_local_kind": "embedded-gaussian",
    "non_local_over": "both",
    "non_local_style": None,
}
"""What the options did that were not stored at first, for networks that have them now."""


def _with_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the stored values of a ModelSpec, with the options as the network's own type."""
    values = dict(values)
    flat = {name: values.pop(name) for name in _FLAT_OPTIONS if name in values}
    if "model" not in values:
        return values
    if "options" in values:
        kind = find_network(values["model"]).options
        own = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values["options"].items()
        }
        names = {item.name for item in dataclasses.fields(kind)}
        later = {name: value for name, value in _LATER_OPTIONS.items() if name in names}
        values["options"] = build_spec(kind, {**later, **own})
    elif flat:
        values["options"] = make_options(values["model"], flat)
    values["motion"] = (
        build_spec(MotionSpec, values["motion"]) if "motion" in values else MotionSpec()
    )
    return values


@dataclass(frozen=True)
class TrainOptions:
    """How a training is carried out."""

    num_workers: int | None = None
    """Training processes, started on Ray. By default there is one process, or those that torchrun
    started."""
    address: str | None = None
    """An existing Ray cluster. By default Ray starts on this machine."""
    num_loaders: int | None = None
    """Processes that read and prepare clips, for each training process. The default is all cores
    except one. 0 reads in the training process."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ... `auto` uses a GPU if there is one, otherwise the CPU."""
    channels_last: bool = True
    """Store images with the channels last in memory. Most convolutions are faster this way."""
    compile: bool = False
    """Compile the network with torch.compile. This takes minutes at the start; then steps are
    faster."""
    log_every: int = 10
    """Steps between two lines of metrics.csv."""
    test_every_epochs: float = 1.0
    """Epochs between two tests on the test split. A checkpoint follows each test."""
    checkpoint_seconds: float = 600.0
    """Longest time between two checkpoints."""
    tensorboard: bool = True
    """Write TensorBoard's event files too."""
    progress: bool | None = None
    """Draw a progress bar on stderr. By default only on a terminal."""
    force: bool = False
    """Go on even if the data was extracted with other options than before, or has other videos."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_workers", "log_every")
        check_at_least(self, 0, "num_loaders", "checkpoint_seconds")
        if not self.test_every_epochs > 0:
            raise ConfigError(f"test_every_epochs must be > 0, got {self.test_every_epochs:g}")


@dataclass(frozen=True)
class ViewSpec:
    """Which views of a video a test averages: clips along time, crops of each, mirrored or not."""

    num_clips: int = 25
    """Clips with equally spaced starts; 1 is the middle of the video."""
    num_crops: Literal[1, 3, 5, 10] = 10
    """Crops of each clip. 1: center. 3: left, center and right (or top, center and bottom). 5: four
    corners and center. 10: the same five, and the same mirrored."""

    def __post_init__(self) -> None:
        check_at_least(self, 1, "num_clips")
        if self.num_crops not in (1, 3, 5, 10):
            raise ConfigError(f"num_crops must be 1, 3, 5 or 10, got {self.num_crops}")
