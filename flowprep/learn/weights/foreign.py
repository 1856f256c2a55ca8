"""What makes a format of foreign weights: how it is recognized, and how it becomes ours.

Each project is a file in this folder that makes one or more formats. `formats.FOREIGN` is the table
of all. A format never looks at a file's name: it is recognized by the names and the dimensions of
its tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.offers import Offer
from flowprep.learn.weights.reading import WeightsFile

__all__ = [
    "BGR_TO_RGB",
    "CONV3D_TO_LINEAR",
    "IMAGE_KERNEL",
    "LINEAR_TO_CONV3D",
    "SQUEEZED",
    "VIDEO_KERNEL",
    "Conversion",
    "ForeignFormat",
    "Hint",
    "Mark",
    "Rule",
    "Supplied",
    "rename",
]


@dataclass(frozen=True)
class Conversion:
    """A change of a tensor's value that a rule asks for."""

    told: str
    """What the report says where the value changed."""
    apply: Callable[[torch.Tensor], torch.Tensor | None]
    """Returns the new value, or None where there is nothing to change."""


def _squeeze(value: torch.Tensor) -> torch.Tensor | None:
    return value[0] if value.dim() == 2 and value.shape[0] == 1 else None


def _reverse_colors(value: torch.Tensor) -> torch.Tensor | None:
    """Reverses the input channels of a first convolution over one frame, or five differences."""
    num_images, rest = divmod(value.shape[1], 3) if value.dim() >= 4 else (0, 1)
    if rest or num_images not in (1, 5):
        return None
    out_channels, _, *window = value.shape
    return value.reshape(out_channels, num_images, 3, *window).flip(2).reshape(value.shape)


SQUEEZED = Conversion("squeezed from (1, C) to (C)", _squeeze)
"""For the batch norms of Caffe, whose values are rows."""

IMAGE_KERNEL = (None,) * 4
"""The shape of a convolution over images, for a mark."""

VIDEO_KERNEL = (None,) * 5
"""The shape of a convolution over volumes, for a mark."""

BGR_TO_RGB = Conversion("BGR to RGB", _reverse_colors)
"""For a first convolution that saw frames as blue, green, red. Convolutions of flow stay."""


LINEAR_TO_CONV3D = Conversion(
    "a linear layer as a convolution of 1x1x1",
    lambda value: value[..., None, None, None] if value.dim() == 2 else None,
)
CONV3D_TO_LINEAR = Conversion(
    "a convolution of 1x1x1 as a linear layer",
    lambda value: value.flatten(1) if value.dim() == 5 else None,
)


@dataclass(frozen=True)
class Rule:
    """Renames the tensors whose whole name a pattern matches."""

    pattern: str
    """A regular expression for the whole name in the file."""
    ours: str | None
    """Our name, with the pattern's groups as in `re.Match.expand`. None for a tensor that none of
    our networks has, such as the mean of the frames."""
    conversions: tuple[Conversion, ...] = ()
    """What is done to the value, in this order."""


@dataclass(frozen=True)
class Mark:
    """A tensor that a format must have."""

    pattern: str
    """A regular expression for the whole name in the file."""
    shape: tuple[int | None, ...] | None = None
    """The tensor's shape. None stands for any, as a whole or for one of its numbers."""

    def is_in(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether one of the tensors is as the mark says. Reads only those of such a name."""
        return any(self._fits(tensors[name]) for name in tensors if self._matches(name))

    def _matches(self, name: str) -> bool:
        return re.fullmatch(self.pattern, name) is not None

    def _fits(self, value: torch.Tensor) -> bool:
        return self.shape is None or (
            len(self.shape) == value.dim()
            and all(n in (None, m) for n, m in zip(self.shape, value.shape, strict=True))
        )


@dataclass(frozen=True)
class Hint:
    """What a tensor tells about the network that it belongs to."""

    mark: Mark
    told: str
    """A sentence for the user."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The network's own options that follow, by their names in `create_model`."""
    absent: Mark | None = None
    """A tensor beside which the hint does not apply."""

    def is_given_by(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether tensors give this hint."""
        return self.mark.is_in(tensors) and not (self.absent and self.absent.is_in(tensors))


@dataclass(frozen=True)
class Supplied:
    """A tensor of ours that follows from another one, where a file does not have it."""

    beside: str
    """A regular expression for our name of the other tensor."""
    ours: str
    """Our name, with the pattern's groups."""
    value: float
    """What it is filled with. It has the length of the other tensor's first dimension."""
    told: str
    """The reason, for the report."""


Converter = Callable[[WeightsFile, ClipModel], tuple[dict[str, Offer], tuple[str, ...]]]
"""Returns what a file offers for a network by our names, and the names that it does not use."""


@dataclass(frozen=True)
class ForeignFormat:
    """Weights as one project stores them."""

    project: str
    """The project's name as on GitHub: `mit-han-lab/temporal-shift-module`."""
    description: str
    """A sentence: which networks, trained on what."""
    marks: tuple[Mark, ...]
    """A file is of this format if it has a tensor for each of these."""
    rules: tuple[Rule, ...]
    """The first rule that matches a name applies to it."""
    networks: tuple[str, ...]
    """The names of our networks that the weights may belong to."""
    recipes: tuple[RecipeName, ...] = ()
    """The names of the published recipes of these weights."""
    hints: tuple[Hint, ...] = ()
    absent: tuple[Mark, ...] = ()
    """A file that has a tensor for one of these is of another format."""
    supplied: tuple[Supplied, ...] = ()
    """Tensors of ours that no file of this format has."""
    norm_eps: float | None = None
    """The epsilon of the project's batch norms, where it may differ from our network's. The
    difference is added to the stored variances, so that a test computes the same numbers."""
    convert: Converter | None = None
    """For a format that needs more than rules: it is called in their place."""

    def is_format_of(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether tensors are of this format: all marks are there, and none that must be absent."""
        return all(mark.is_in(tensors) for mark in self.marks) and not any(
            mark.is_in(tensors) for mark in self.absent
        )

    def told_of(self, tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
        """Returns the sentences of the hints that tensors give."""
        return tuple(hint.told for hint in self.hints if hint.is_given_by(tensors))

    def hinted_options(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, object]:
        """Returns the options of the network that the hints ask for."""
        options: dict[str, object] = {}
        for hint in self.hints:
            if hint.is_given_by(tensors):
                options |= hint.options
        return options

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], Rule], ...]:
        return tuple((re.compile(rule.pattern), rule) for rule in self.rules)

    def find_rule(self, name: str) -> tuple[Rule, re.Match[str]] | None:
        """Returns the rule for a name and how it matches; None for a name of another format."""
        for pattern, rule in self._compiled:
            if match := pattern.fullmatch(name):
                return rule, match
        return None


def rename(
    form: ForeignFormat, tensors: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Offer], tuple[str, ...]]:
    """Applies a format's rules: our names -> what the file offers, and the names without a place.

    Of two tensors for one of ours, the first is taken.
    """
    offers: dict[str, Offer] = {}
    left: list[str] = []
    for name in tensors:
        found = form.find_rule(name)
        ours = None if found is None or found[0].ours is None else found[1].expand(found[0].ours)
        if found is None or ours is None or ours in offers:
            left.append(name)
            continue
        value, told = tensors[name], []
        for conversion in found[0].conversions:
            changed = conversion.apply(value)
            if changed is not None:
                value = changed
                told.append(conversion.told)
        offers[ours] = Offer((name,), value, tuple(told))
    for item in form.supplied:
        for name in list(offers):
            match = re.fullmatch(item.beside, name)
            ours = None if match is None else match.expand(item.ours)
            if ours is not None and ours not in offers:
                other = offers[name].value
                filled = torch.full(other.shape[:1], item.value, dtype=other.dtype)
                offers[ours] = Offer((), filled, (item.told,))
    return offers, tuple(left)
