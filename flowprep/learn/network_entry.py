"""What flowprep knows about a network without PyTorch: the type of an entry, and usual inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from flowprep.learn.clip_inputs import ClipInput, NormalizationName, RecipeName, StreamName
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.network_options import NetworkOptions, NonLocalOptions

if TYPE_CHECKING:
    from flowprep.learn.models.base import ClipModel

__all__ = ["Builder", "Network", "frames_and_fields", "stacks", "volumes"]

Builder = Callable[..., "ClipModel"]
"""Makes a network. It takes the inputs and the number of classes, and these by name:

width           always
dropout         when the user gives it; the default is the published one
num_segments    for a network that sees segments
crop_px         for a network that has one size
non_local       the options, for a network that can have non-local blocks
options         the network's other options, each by its name
"""


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
    accuracy: str = ""
    """What was reached, for docs/networks.md: data set, stream, top-1 in percent, and who states
    it. Empty if nobody stated it for flow or frames of videos."""
    crop_px: int = 224
    """The published side of the crop."""
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
    adapt: Callable[[Network, NetworkOptions], Network] | None = None
    """Returns the entry as its options change it: other inputs, another crop. None for a network
    whose options change neither."""

    def with_options(self, options: NetworkOptions | None) -> Network:
        """Returns the entry for a network with these options; None stands for the defaults."""
        return self if self.adapt is None or options is None else self.adapt(self, options)

    @property
    def streams(self) -> dict[StreamName, tuple[ClipInput, ...]]:
        """The published inputs, and those of `motion`: pairs of frames in the place of fields."""
        flow = self.inputs.get("flow") or self.inputs.get("both")
        if flow is None:
            return dict(self.inputs)
        return {**self.inputs, "motion": tuple(map(_pairs_of, flow))}

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
        motion: MotionSpec | None = None,
        normalization: NormalizationName | None = None,
    ) -> ClipModel:
        """Makes the network. None stands for the published value, and for a motion layer of TVNet.

        A network over pairs of frames gets a motion layer, which computes the flow of the pairs.
        `normalization` is that of the flow which the layer gives.
        """
        if any(one.stream == "rgb-pair" for one in inputs):
            from flowprep.learn.models.motion import MotionNetwork

            base = self.make(
                tuple(map(_flow_of, inputs)),
                num_classes,
                width=width,
                dropout=dropout,
                crop_px=crop_px,
                num_segments=num_segments,
                options=options,
            )
            scale = normalization or self.normalization
            return MotionNetwork(inputs, base, motion or MotionSpec(), scale)
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


def _pairs_of(one: ClipInput) -> ClipInput:
    return dataclasses.replace(one, stream="rgb-pair") if one.stream == "flow" else one


def _flow_of(one: ClipInput) -> ClipInput:
    return dataclasses.replace(one, stream="flow") if one.stream == "rgb-pair" else one


def stacks(num_fields: int = 10) -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of a network over stacks: so many fields, one frame, or five differences.

    Ten fields are Simonyan and Zisserman's (2014, section 3.1), five are TSN's (2016, 4.2). Five
    differences of six frames are TSN's (yjxiong/tsn-pytorch, models.py).
    """
    return {
        "flow": (ClipInput("flow", "flow", "stack", num_fields),),
        "rgb": (ClipInput("rgb", "rgb", "stack", 1),),
        "rgb-difference": (ClipInput("rgb-difference", "rgb-difference", "stack", 5),),
    }


def frames_and_fields() -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of two towers: 5 frames, every 10th, and the 10 fields around each.

    Feichtenhofer et al. (CVPR 2016), and the fused streams of Carreira and Zisserman (CVPR 2017).
    """
    return {
        "both": (
            ClipInput("rgb", "rgb", "volume", 5, 10),
            ClipInput("flow", "flow", "volume", 5, 10, stack_length=10),
        )
    }


def volumes(
    num_frames: int, frame_stride: int = 1, *, has_magnitude: bool = False
) -> dict[StreamName, tuple[ClipInput, ...]]:
    """Returns the inputs of a network over volumes: so many fields or frames."""
    flow = ClipInput(
        "flow", "flow", "volume", num_frames, frame_stride, has_magnitude=has_magnitude
    )
    return {
        "flow": (flow,),
        "rgb": (ClipInput("rgb", "rgb", "volume", num_frames, frame_stride),),
    }
