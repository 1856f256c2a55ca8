"""What a training computes: frozen dataclasses that check themselves.

    TrainConfig = ModelSpec + ClipSpec + AugmentSpec + OptimizationSpec, in every checkpoint
    TrainOptions                        how a training is carried out; changes no number on purpose
    ViewSpec                            what a test looks at of each video

The whole TrainConfig is stored with every checkpoint, and going on with another one is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flowprep.config import build_spec, check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput, NormalizationName, StreamName
from flowprep.learn.networks import (
    NetworkOptions,
    clip_inputs,
    find_network,
    make_options,
)

__all__ = [
    "FUSION_METHODS",
    "AugmentSpec",
    "ClipSpec",
    "CropName",
    "FusionMethod",
    "ModelSpec",
    "OptimizationSpec",
    "StackName",
    "TrainConfig",
    "TrainOptions",
    "ViewSpec",
    "check_stack",
]

StackName = Literal["plain", "bidirectional", "trajectory"]
CropName = Literal["random", "center", "corners", "corners-13"]
SamplingName = Literal["segments", "dense"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["constant", "step", "cosine"]
PrecisionName = Literal["fp32", "bf16", "fp16"]
FusionMethod = Literal["mean", "weighted", "logits", "svm"]

FUSION_METHODS: dict[FusionMethod, str] = {
    "mean": "mean of softmax (Simonyan and Zisserman 2014)",
    "weighted": "weighted sum of the scores before softmax (TSN)",
    "logits": "sum of the scores before softmax (I3D)",
    "svm": "linear SVM on L2-normalised softmax (Simonyan and Zisserman 2014)",
}
"""What each method of fusion does, and whose it is."""


def _check_at_least(spec: object, least: float, *names: str) -> None:
    for name in names:
        value = getattr(spec, name)
        if value is not None and not value >= least:
            raise ConfigError(f"{name} must be >= {least:g}, got {value}")


@dataclass(frozen=True)
class ModelSpec:
    """Which network, and how it is built."""

    model: str = "resnet18"
    """The network."""
    width: float = 1.0
    """Multiplies the number of channels in every layer; small ones train on a laptop."""
    dropout: float | None = None
    """Share of the features that is dropped before the classifier. The default is the published
    share."""
    options: NetworkOptions = field(default_factory=NetworkOptions)
    """The network's own options, of the type that its entry names. The default is that type's
    defaults."""
    weights: str | None = None
    """Start from this file: .safetensors, .pth, or a checkpoint of flowprep or TensorFlow."""

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
    """Raises ConfigError for a kind of stack that so many fields, so far apart, cannot become."""
    if stack == "bidirectional" and num_frames % 2:
        raise ConfigError(f"num_frames must be even for stack bidirectional, got {num_frames}")
    if stack != "plain" and frame_stride != 1:
        raise ConfigError(f"frame_stride must be 1 for stack {stack}, got {frame_stride}")


@dataclass(frozen=True)
class ClipSpec:
    """What a network sees of a video.

    Inputs of several streams are of the same moment, in the same crop, and are mirrored together.
    What is said of flow alone counts for the inputs of flow, and not for those of RGB.
    """

    stream: StreamName = "flow"
    """What the network sees: the flow, the RGB frames, or both, for networks that take both."""
    num_frames: int = 10
    """Flow fields or RGB frames of a clip. The default is the network's published number. For a
    network with several inputs this is the first one, and the others follow in proportion."""
    frame_stride: int = 1
    """Distance between a clip's fields or frames: 2 takes every second one. The default is the
    network's published distance."""
    stack: StackName = "plain"
    """How fields become a stack (Simonyan and Zisserman 2014): `plain`, as they follow;
    `bidirectional`, half of them forward and half backward; `trajectory`, sampled along the
    motion."""
    num_segments: int = 1
    """Clips of a video that the network gets together, one from each of that many equal segments.
    The default is the network's published number."""
    sampling: SamplingName = "segments"
    """Where segments lie: over the whole video, or within a window of 64 frames (`dense`)."""
    subtract_mean_flow: bool = False
    """Subtract from each field its mean vector, which takes out most of the camera's motion; the
    two-stream recipe does."""
    normalization: NormalizationName = "unit"
    """Which numbers the network gets: `unit`, -1 to 1; `px`, flow as it is; or those of `tsn`,
    `tsn-resnet`, `mmaction2` or `pytorch-i3d`. Otherwise as published for the network."""
    resize_short_px: int | None = None
    """Resize what is stored to this short side before the crop; the recipes take 256. Left as it is
    where this is not given."""
    crop_px: int = 224
    """Side of the square that the network sees; it must fit into the frames."""
    scale_vectors: bool = False
    """Scale flow vectors along with the fields that are resized; the recipes do not."""

    def __post_init__(self) -> None:
        check_choice("stream", self.stream, StreamName)
        check_choice("stack", self.stack, StackName)
        check_choice("sampling", self.sampling, SamplingName)
        check_choice("normalization", self.normalization, NormalizationName)
        _check_at_least(self, 1, "num_frames", "frame_stride", "num_segments")
        _check_at_least(self, 8, "crop_px", "resize_short_px")
        if self.stream == "flow":
            # Of both, the flow's own numbers are those of the network's input (`check_clip`).
            check_stack(self.stack, self.num_frames, self.frame_stride)
        if self.stream == "rgb":
            for name, plain in (
                ("stack", "plain"),
                ("subtract_mean_flow", False),
                ("scale_vectors", False),
            ):
                if getattr(self, name) != plain:
                    raise ConfigError(
                        f"{name} is for stream flow; with stream rgb it must be {plain}, "
                        f"got {getattr(self, name)}"
                    )
        if self.stream != "flow" and self.normalization == "px":
            raise ConfigError(
                f"normalization px is for stream flow; with stream {self.stream} it must be "
                "another one"
            )
        if self.resize_short_px is not None and self.resize_short_px < self.crop_px:
            raise ConfigError(
                f"resize_short_px must be >= crop_px, got {self.resize_short_px} < {self.crop_px}"
            )


@dataclass(frozen=True)
class AugmentSpec:
    """How training clips are varied; all fields and frames of a clip alike."""

    crop: CropName = "random"
    """Where crops lie: anywhere (`random`), in the centre, in the four corners and the centre, or
    at TSN's 13 places. Anywhere, unless the recipe is tsn."""
    scales: tuple[float, ...] = (1.0,)
    """Crop sides as shares of the short side, such as 1,.875,.75 (tsn): one is drawn for the width
    and one for the height, at most one step apart, and the crop is resized. 1 alone cuts crops of
    the network's size."""
    flip: bool = True
    """Mirror half of the clips, and negate their horizontal flow."""

    def __post_init__(self) -> None:
        check_choice("crop", self.crop, CropName)
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ConfigError(f"scales must be one or more numbers in (0, 1], got {self.scales}")
        if list(self.scales) != sorted(set(self.scales), reverse=True):
            raise ConfigError(f"scales must fall from large to small, got {self.scales}")


@dataclass(frozen=True)
class OptimizationSpec:
    """How the weights are changed."""

    batch_size: int = 32
    """Videos a step, over all processes together."""
    accumulate: int = 1
    """Parts that a step's batch is split into, one after the other, to save memory."""
    num_epochs: float = 40.0
    """How often every training video is looked at; the schedule is spread over them."""
    num_steps: int | None = None
    """Steps in all; counts more than the epochs."""
    optimizer: OptimizerName = "sgd"
    """SGD with momentum, or AdamW."""
    learning_rate: float = 0.01
    """The highest one: after the warm-up, before the schedule lowers it."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov's momentum in SGD."""
    weight_decay: float = 5e-4
    """Pull of the weights towards 0: as L2 with SGD, decoupled with AdamW, which spares biases and
    norms."""
    schedule: ScheduleName = "cosine"
    """How the learning rate falls: not at all, by steps at milestones, or as half a cosine."""
    milestones: tuple[float, ...] = ()
    """Shares of the training, such as .5,.8, at which schedule step multiplies the learning rate by
    decay."""
    decay: float = 0.1
    """Factor at each milestone."""
    warmup: float = 0.0
    """Share of the training in which the learning rate rises to its full height, from a tenth."""
    clip_gradient_norm: float | None = None
    """Longest gradient, as a norm over all weights. By default gradients are not clipped."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes, from 0 to 1."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the network: bf16 and fp16 (GPUs only) save time and memory."""

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_choice("schedule", self.schedule, ScheduleName)
        check_choice("precision", self.precision, PrecisionName)
        _check_at_least(self, 1, "batch_size", "accumulate", "num_steps")
        _check_at_least(self, 0, "momentum", "weight_decay")
        if self.batch_size % self.accumulate:
            raise ConfigError(
                f"batch_size must be a multiple of accumulate, got {self.batch_size} "
                f"and {self.accumulate}"
            )
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0, got 0")
        for name in ("num_epochs", "learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name):g}")
        if self.clip_gradient_norm is not None and not self.clip_gradient_norm > 0:
            raise ConfigError(f"clip_gradient_norm must be > 0, got {self.clip_gradient_norm:g}")
        for name in ("label_smoothing", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be >= 0 and < 1, got {getattr(self, name):g}")
        object.__setattr__(self, "milestones", tuple(float(share) for share in self.milestones))
        if not all(0 < share < 1 for share in self.milestones):
            raise ConfigError(f"milestones must lie between 0 and 1, got {self.milestones}")
        if self.milestones and self.schedule != "step":
            raise ConfigError(
                f"milestones are for schedule step, and it is {self.schedule}; add --schedule step"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the weights, but for the data."""

    model: ModelSpec = field(default_factory=ModelSpec)
    clip: ClipSpec = field(default_factory=ClipSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    optimization: OptimizationSpec = field(default_factory=OptimizationSpec)
    seed: int = 0
    """Of the first weights, the order of the videos, clips, crops and dropout."""
    train_split: str = "train"
    """The videos to train on: a split of the data sets, or `all`."""
    test_split: str = "test"
    """The videos to measure on while training, one view of each; `none` measures on none."""

    def __post_init__(self) -> None:
        clip_inputs(self.model.model, self.clip.stream)

    @property
    def inputs(self) -> tuple[ClipInput, ...]:
        """The network's inputs for this clip."""
        clip = self.clip
        return clip_inputs(self.model.model, clip.stream, clip.num_frames, clip.frame_stride)

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as JSON values; `from_dict` is its inverse."""
        values = dataclasses.asdict(self)
        values["augment"]["scales"] = list(self.augment.scales)
        values["optimization"]["milestones"] = list(self.optimization.milestones)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Rebuilds a stored configuration; raises ConfigError for a field too many or too few."""
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
        return build_spec(cls, {**rest, **built})  # type: ignore[no-any-return]


_FLAT_OPTIONS = ("consensus", "partial_bn", "non_local")
"""Version 0.1 stored these options for every network. A network without such an option stored its
default."""


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
        values["options"] = build_spec(kind, own)
    elif flat:
        values["options"] = make_options(values["model"], flat)
    return values


@dataclass(frozen=True)
class TrainOptions:
    """How a training is carried out."""

    num_workers: int | None = None
    """Training processes, on Ray; without this there is one, or those that torchrun started."""
    address: str | None = None
    """An existing Ray cluster. By default Ray starts on this machine."""
    num_loaders: int | None = None
    """Processes that read and prepare clips, for each training process; all cores but one where it
    is not given, 0 reads in the training process."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU where there is one."""
    channels_last: bool = True
    """Keep channels innermost in memory, where most convolutions are faster."""
    compile: bool = False
    """Compile the network with torch.compile: minutes at the start, faster steps afterwards."""
    log_every: int = 10
    """Steps between two lines of metrics.csv."""
    test_every_epochs: float = 1.0
    """Epochs between two measurements on the test split, each followed by a checkpoint."""
    checkpoint_seconds: float = 600.0
    """Longest time between two checkpoints."""
    tensorboard: bool = True
    """Write TensorBoard's event files too."""
    progress: bool | None = None
    """Draw a progress bar on stderr. By default only on a terminal."""
    force: bool = False
    """Go on with data that was extracted otherwise than the run's, or has other videos."""

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "num_workers", "log_every")
        _check_at_least(self, 0, "num_loaders", "checkpoint_seconds")
        if not self.test_every_epochs > 0:
            raise ConfigError(f"test_every_epochs must be > 0, got {self.test_every_epochs:g}")


@dataclass(frozen=True)
class ViewSpec:
    """Which views of a video a test averages: clips along time, crops of each, mirrored or not."""

    num_clips: int = 25
    """Clips with equally spaced starts; 1 is the middle of the video."""
    num_crops: Literal[1, 3, 5, 10] = 10
    """Of each clip: the centre; left, centre and right (or top and bottom); four corners and
    centre; or those, and the same mirrored."""

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "num_clips")
        if self.num_crops not in (1, 3, 5, 10):
            raise ConfigError(f"num_crops must be 1, 3, 5 or 10, got {self.num_crops}")
