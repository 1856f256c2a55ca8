"""The networks, by name: `create_model("i3d", stream="flow", num_classes=101)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import partial
from typing import Literal

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel, Layout
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.i3d_resnet import I3DResNet
from flowprep.learn.models.resnet import ResNet, resnet18, resnet34, resnet50
from flowprep.learn.models.tsn import TSN, Consensus

__all__ = ["MODELS", "ClipModel", "Layout", "ModelOptions", "Stream", "create_model"]

Stream = Literal["flow", "rgb"]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What a network is built from; `create_model` says which option is whose."""

    stream: Stream
    num_classes: int
    num_frames: int | None = None
    """Frames or fields in a clip; None is the network's own number."""
    width: float = 1.0
    """Multiplies the channels of every layer, for quick trials and tests."""
    dropout: float | None = None
    """The probability, before the classifier, of a feature to be dropped; None is the paper's."""
    crop_px: int = 224
    """The side of the clips, to which cnn-m-2048 is fixed; the others take any."""
    num_segments: int = 3
    """TSN: snippets of a video in training."""
    consensus: Consensus = "avg"
    """TSN: how the snippets' scores become the video's."""
    partial_bn: bool = False
    """TSN: whether every batch norm but the first is frozen."""
    non_local: bool = False
    """I3D ResNet-50: whether it has the five non-local blocks."""

    def __post_init__(self) -> None:
        if self.stream not in ("flow", "rgb"):
            raise ConfigError(f"stream must be flow or rgb, got {self.stream!r}")
        for name in ("num_classes", "crop_px", "num_segments"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_frames is not None and self.num_frames < 1:
            raise ConfigError(f"num_frames must be at least 1, got {self.num_frames}")
        if not self.width > 0:
            raise ConfigError(f"width must be above 0, got {self.width}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}")

    def stack_channels(self, *, flow_frames: int = 10) -> int:
        """Returns the channels of a stack: 2 for each of 10 fields (or so many), 3 for each image.

        Ten fields are Simonyan and Zisserman's (2014, section 3.1), five are TSN's (2016, 4.2).
        """
        if self.stream == "flow":
            return 2 * (self.num_frames or flow_frames)
        return 3 * (self.num_frames or 1)

    def volume_channels(self) -> int:
        """Returns the channels of a volume: x and y, or red, green and blue."""
        return 2 if self.stream == "flow" else 3

    def dropout_or(self, default: float) -> float:
        """Returns the dropout that was asked for, or else `default`."""
        return default if self.dropout is None else self.dropout


def _cnn_m(options: ModelOptions) -> CNNM:
    return CNNM(
        options.stack_channels(),
        options.num_classes,
        second_norm=options.stream == "rgb",
        dropout=options.dropout_or(0.9),
        width=options.width,
        crop_px=options.crop_px,
    )


def _resnet(build: Callable[..., ResNet], options: ModelOptions) -> ResNet:
    return build(
        options.stack_channels(),
        options.num_classes,
        dropout=options.dropout_or(0.0),
        width=options.width,
    )


def _tsn(build: Callable[..., ResNet], options: ModelOptions) -> TSN:
    base = build(
        options.stack_channels(flow_frames=5),
        options.num_classes,
        dropout=options.dropout_or(0.7 if options.stream == "flow" else 0.8),
        width=options.width,
    )
    return TSN(
        base,
        num_segments=options.num_segments,
        consensus=options.consensus,
        partial_bn=options.partial_bn,
    )


def _i3d(options: ModelOptions) -> I3D:
    return I3D(
        options.volume_channels(),
        options.num_classes,
        dropout=options.dropout_or(0.5),
        width=options.width,
    )


def _i3d_resnet50(options: ModelOptions) -> I3DResNet:
    return I3DResNet(
        options.volume_channels(),
        options.num_classes,
        dropout=options.dropout_or(0.5),
        width=options.width,
        non_local=options.non_local,
    )


MODELS: dict[str, Callable[[ModelOptions], ClipModel]] = {
    "cnn-m-2048": _cnn_m,
    "resnet18": partial(_resnet, resnet18),
    "resnet34": partial(_resnet, resnet34),
    "resnet50": partial(_resnet, resnet50),
    "tsn-resnet18": partial(_tsn, resnet18),
    "tsn-resnet34": partial(_tsn, resnet34),
    "tsn-resnet50": partial(_tsn, resnet50),
    "i3d": _i3d,
    "i3d-resnet50": _i3d_resnet50,
}
"""What builds each network."""

_TSN_NAMES = ("tsn-resnet18", "tsn-resnet34", "tsn-resnet50")

_OWNERS: dict[str, tuple[str, ...]] = {
    "num_segments": _TSN_NAMES,
    "consensus": _TSN_NAMES,
    "partial_bn": _TSN_NAMES,
    "non_local": ("i3d-resnet50",),
}
"""The networks that have an option, for options that not all have."""


def create_model(
    name: str,
    *,
    stream: Stream,
    num_classes: int,
    weights: str | None = None,
    num_frames: int | None = None,
    width: float = 1.0,
    dropout: float | None = None,
    num_segments: int = 3,
    consensus: Consensus = "avg",
    partial_bn: bool = False,
    non_local: bool = False,
    crop_px: int = 224,
) -> ClipModel:
    """Creates the network called `name`, freshly initialised or with `weights` from a file.

    A 2D network takes 2 channels for each of `num_frames` flow fields (10; TSN 5) or 3 for each
    image (1); a 3D network takes 2 or 3 channels and any number of frames. The options are those of
    `ModelOptions`. Raises ConfigError for an unknown name, for a value that breaks a rule, and for
    an option that the network does not have, unless it is left at its default.
    """
    if name not in MODELS:
        close = get_close_matches(name, MODELS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(f"model must be one of {', '.join(MODELS)}, got {name!r}{hint}")
    options = ModelOptions(
        stream=stream,
        num_classes=num_classes,
        num_frames=num_frames,
        width=width,
        dropout=dropout,
        crop_px=crop_px,
        num_segments=num_segments,
        consensus=consensus,
        partial_bn=partial_bn,
        non_local=non_local,
    )
    for field in fields(options):
        owners = _OWNERS.get(field.name, (name,))
        value = getattr(options, field.name)
        if name not in owners and value != field.default:
            raise ConfigError(
                f"{field.name} does not apply to {name}, got {value!r}; "
                f"leave it out, or choose {' or '.join(owners)}"
            )
    model = MODELS[name](options)
    if weights is not None:
        from flowprep.learn.weights.load import (
            load_weights_into,  # it imports this package's modules
        )

        load_weights_into(model, weights)
    return model
