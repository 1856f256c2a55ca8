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
from flowprep.learn.weights.formats import find_format
from flowprep.learn.weights.load import Match, classifier_names, input_conv_names, match_file
from flowprep.learn.weights.reading import WeightsFile

__all__ = [
    "Fit",
    "Miss",
    "classes_of",
    "file_options",
    "find_fits",
    "guess_stream",
    "make_bare",
    "nearest_network",
]

_ANY_CLASSES = 2
"""The number of classes of a network before the file's own is known."""


@dataclass(frozen=True)
class Fit:
    """A network whose every tensor a file has in the same shape."""

    network: str
    stream: StreamName
    num_frames: int | None
    """The frames or fields of a clip, if not the published number."""
    num_classes: int | None
    """The classes of the file's classifier. None if the file has none."""
    options: Mapping[str, Any]
    """The network's own options that the names ask for."""
    match: Match = field(repr=False)


@dataclass(frozen=True)
class Miss:
    """A network that a file comes nearest to, and what keeps it from fitting."""

    network: str
    num_shared: int
    """Tensors that the file has in the network's shape."""
    num_tensors: int
    """Tensors of the network."""
    match: Match = field(repr=False)


def find_fits(file: WeightsFile, names: Sequence[str] = ()) -> tuple[Fit, ...]:
    """Returns the networks that a file's weights fit, tensor by tensor, in the order of `names`.

    All networks are tried if no names are given. Nothing is drawn and nothing is changed.
    """
    shapes = _without_values(file)
    found = (_find_fit(shapes, name) for name in _known(names))
    return tuple(fit for fit in found if fit is not None)


def nearest_network(file: WeightsFile, names: Sequence[str] = ()) -> Miss | None:
    """Returns the network that shares the most tensors with a file; None if none shares any."""
    best: Miss | None = None
    shapes = _without_values(file)
    for name in _known(names):
        model = make_bare(name, next(iter(find_network(name).inputs)))
        match = match_file(shapes, model)
        miss = Miss(name, len(_same(match)), len(model.state_dict()), match)
        if best is None or miss.num_shared > best.num_shared:
            best = miss
    return best if best is not None and best.num_shared else None


def make_bare(
    name: str,
    stream: StreamName,
    *,
    num_classes: int = _ANY_CLASSES,
    num_frames: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> ClipModel:
    """Makes a network without memory for its weights: names, shapes and types alone."""
    with torch.device("meta"), _NothingDrawn():
        return find_network(name).make(
            clip_inputs(name, stream, num_frames),
            num_classes,
            width=1.0,
            dropout=None,
            crop_px=224,
            num_segments=None,
            options=make_options(name, options or {}),
        )


def guess_stream(file: WeightsFile, name: str) -> tuple[StreamName, int | None] | None:
    """Returns the stream, and the number of frames if not the published one, whose input has the
    channels of a file's first convolution. None if no stream's has."""
    probe = make_bare(name, next(iter(find_network(name).inputs)))
    offers = match_file(file, probe).offers
    convs = [conv for conv in input_conv_names(probe) if conv in offers]
    if len(convs) != 1 or offers[convs[0]].value.dim() not in (4, 5):
        return None
    num_channels = offers[convs[0]].value.shape[1]
    others: list[tuple[StreamName, int | None]] = []
    for stream in find_network(name).inputs:
        first = clip_inputs(name, stream)[0]
        if num_channels == first.num_channels:
            return stream, None
        num_frames, rest = divmod(num_channels, first.num_channels // first.num_frames or 1)
        if first.form == "stack" and not rest:
            others.append((stream, num_frames))
    return others[0] if others else None


def file_options(file: WeightsFile, name: str) -> dict[str, Any]:
    """Returns the options of a network that the names of a file's tensors ask for."""
    form = find_format(file.tensors)
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


def _without_values(file: WeightsFile) -> WeightsFile:
    return dataclasses.replace(file, tensors=_Shapes(file.tensors))


def _known(names: Sequence[str]) -> list[str]:
    return [name for name in names or NETWORKS if name in NETWORKS]


def _find_fit(file: WeightsFile, name: str) -> Fit | None:
    guess = guess_stream(file, name)
    if guess is None:
        return None
    stream, num_frames = guess
    options = file_options(file, name)

    def make(num_classes: int = _ANY_CLASSES) -> ClipModel:
        return make_bare(
            name, stream, num_classes=num_classes, num_frames=num_frames, options=options
        )

    model = make()
    match = match_file(file, model)
    num_classes = classes_of(match, model)
    if match.fits and num_classes is not None:
        match = match_file(file, make(num_classes))
    if not match.fits or len(_same(match)) < len(match.filled):
        return None
    return Fit(name, stream, num_frames, num_classes, options, match)


def classes_of(match: Match, model: ClipModel) -> int | None:
    """Returns the number of classes of a file's classifier; None if it has none."""
    values = [match.offers[n].value for n in classifier_names(model) if n in match.offers]
    return max(values, key=lambda value: value.dim()).shape[0] if values else None


def _same(match: Match) -> list[str]:
    """Returns the tensors of a model for which a file has one of the same shape."""
    return [
        name
        for name, offer in match.filled.items()
        if offer.value.shape == match.offers[name].value.shape
    ]
