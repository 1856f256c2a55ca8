"""Which of our networks a file of weights belongs to: its stream, frames, classes and options."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.models.base import ClipModel
from flowprep.learn.networks import NETWORKS, clip_inputs, find_network, make_options
from flowprep.learn.weights.formats import format_of
from flowprep.learn.weights.load import Match, classifier_names, input_conv_names, match_file
from flowprep.learn.weights.reading import WeightsFile

__all__ = ["Fit", "find_fits", "hinted_options", "make_bare", "make_for", "try_networks"]

_ANY_CLASSES = 2
"""The number of classes of a network before the file's own is known."""


@dataclass(frozen=True)
class Fit:
    """A network as it is made for a file's weights, and how they match."""

    network: str
    stream: StreamName
    num_frames: int | None
    """The frames or fields of a clip, if not the published number."""
    num_classes: int | None
    """The classes of the file's classifier. None if the file has none."""
    options: Mapping[str, Any]
    """The network's own options that the names ask for."""
    model: ClipModel = field(repr=False)
    """The network, on torch's device `meta`."""
    match: Match = field(repr=False)

    @property
    def is_exact(self) -> bool:
        """Whether the file has every tensor of the network in its shape."""
        return self.match.fits and self.num_same == len(self.match.filled)

    @property
    def num_same(self) -> int:
        """The number of tensors of the network that the file has in the same shape."""
        offers = self.match.offers
        return sum(v.value.shape == offers[n].value.shape for n, v in self.match.filled.items())

    def differing(self) -> list[str]:
        """Returns what keeps the weights from fitting exactly: names and reasons."""
        match = self.match
        converted = [
            f"{name} (shape {tuple(match.offers[name].value.shape)} in the file, "
            f"{tuple(offer.value.shape)} in the model)"
            for name, offer in match.filled.items()
            if offer.value.shape != match.offers[name].value.shape
        ]
        misfits = [f"{name} ({why})" for name, why in match.misfits.items()]
        return [*converted, *misfits, *(f"{name} (missing)" for name in match.absent)]


def try_networks(file: WeightsFile, names: Sequence[str] = ()) -> tuple[Fit, ...]:
    """Makes networks for a file's weights, in the order of `names`, without drawing a value.

    All networks are tried if no names are given.
    """
    shapes = dataclasses.replace(file, tensors=_Shapes(file.tensors))
    return tuple(make_for(shapes, name) for name in names or NETWORKS)


def find_fits(file: WeightsFile, names: Sequence[str] = ()) -> tuple[Fit, ...]:
    """Returns the networks of which a file has every tensor, in the order of `names`."""
    return tuple(fit for fit in try_networks(file, names) if fit.is_exact)


def make_for(file: WeightsFile, name: str, stream: StreamName | None = None) -> Fit:
    """Makes the network called `name` as a file's weights ask for, on torch's device `meta`.

    Without `stream`, it is the one of the file's first convolution. Raises ConfigError for a
    network, or a stream of it, that does not exist.
    """
    guess = _guess_stream(file, name) or (next(iter(find_network(name).inputs)), None)
    chosen = stream or guess[0]
    num_frames = guess[1] if chosen == guess[0] else None
    options = hinted_options(file, name)
    model = make_bare(name, chosen, num_frames=num_frames, options=options)
    match = match_file(file, model)
    if (told := _told_frames(match, model)) is not None:
        num_frames = told
        model = make_bare(name, chosen, num_frames=num_frames, options=options)
        match = match_file(file, model)
    num_classes = _num_classes(match, model)
    if num_classes is not None:
        model = make_bare(
            name, chosen, num_classes=num_classes, num_frames=num_frames, options=options
        )
        match = match_file(file, model)
    return Fit(name, chosen, num_frames, num_classes, options, model, match)


def make_bare(
    name: str,
    stream: StreamName,
    *,
    num_classes: int = _ANY_CLASSES,
    num_frames: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> ClipModel:
    """Makes a network without memory for its weights: names, shapes and types alone."""
    own = make_options(name, options or {})
    network = find_network(name).with_options(own)
    with torch.device("meta"), _NothingDrawn():
        return network.make(
            clip_inputs(name, stream, num_frames, options=own),
            num_classes,
            width=1.0,
            dropout=None,
            crop_px=network.crop_px,
            num_segments=None,
            options=own,
        )


def _guess_stream(file: WeightsFile, name: str) -> tuple[StreamName, int | None] | None:
    """Returns the stream, and the number of frames if not the published one, whose inputs have the
    channels of a file's first convolutions. None if no stream's have."""
    probe = make_bare(name, next(iter(find_network(name).inputs)))
    offers = match_file(file, probe).offers
    convs = [conv for conv in input_conv_names(probe) if conv in offers]
    if not convs or any(offers[conv].value.dim() not in (4, 5) for conv in convs):
        return None
    channels = sorted(offers[conv].value.shape[1] for conv in convs)
    others: list[tuple[StreamName, int | None]] = []
    for stream in find_network(name).inputs:
        first, *more = clip_inputs(name, stream)
        if channels == sorted(one.num_channels for one in (first, *more)):
            return stream, None
        if more or len(channels) > 1:
            continue
        num_channels = channels[0]
        num_frames, rest = divmod(num_channels, first.num_channels // first.num_frames or 1)
        if first.form == "stack" and not rest:
            others.append((stream, num_frames))
    return others[0] if others else None


def _told_frames(match: Match, model: ClipModel) -> int | None:
    """Returns the number of frames that a file tells, if it is not that of the model."""
    if model.frames_at is None or model.frames_at[0] not in match.offers:
        return None
    name, dim = model.frames_at
    value = match.offers[name].value
    is_other = value.dim() > dim and value.shape[dim] not in (0, model.inputs[0].num_frames)
    return value.shape[dim] if is_other else None


def hinted_options(file: WeightsFile, name: str) -> dict[str, Any]:
    """Returns the options of a network that the names of a file's tensors ask for."""
    form = format_of(file)
    hinted = {} if form is None else form[1].hinted_options(file.tensors)
    known = {item.name for item in dataclasses.fields(find_network(name).options)}
    return {option: value for option, value in hinted.items() if option in known}


class _NothingDrawn(TorchFunctionMode):
    """Leaves out the drawing of first values, which on `meta` takes most of a network's making."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return (*args, *given.values())[0]
        return func(*args, **given)


class _Shapes(Mapping[str, torch.Tensor]):
    """Tensors of the shapes and types of others, on the device `meta`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name].to("meta")

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _num_classes(match: Match, model: ClipModel) -> int | None:
    """Returns the number of classes of a file's classifier; None if it has none."""
    values = [match.offers[n].value for n in classifier_names(model) if n in match.offers]
    return max(values, key=lambda value: value.dim()).shape[0] if values else None
