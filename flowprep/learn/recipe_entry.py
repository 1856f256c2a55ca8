"""What a published recipe is made of: the types of `flowprep.learn.recipes`, and usual tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowprep.config import ExtractConfig
from flowprep.learn.clip_inputs import ClipForm, StreamName
from flowprep.learn.config import ClipSpec, TrainConfig, ViewSpec
from flowprep.learn.normalizations import Normalization, find_normalization
from flowprep.presets import PRESETS

__all__ = ["VIEWS", "Recipe", "StreamRecipe"]

VIEWS: dict[str, ViewSpec] = {
    "center": ViewSpec(1, 1),
    # Feichtenhofer et al. 2019 (SlowFast), section 4: 10 clips x 3 crops.
    "30": ViewSpec(10, 3),
    # Simonyan and Zisserman 2014, section 4: 25 frames x 10 crops.
    "250": ViewSpec(25, 10),
}
"""Published tests by their number of views."""


@dataclass(frozen=True)
class StreamRecipe:
    """One stream of a recipe: from the video to the tensor that the network gets."""

    preset: str
    """The preset of `flowprep.presets` that makes its data: algorithm and parameters, rate, resize,
    crop before the flow, bound and quantizer."""
    clip: ClipSpec
    """What the network sees of the data in a test: frames and stride, segments, normalization,
    resize and crop."""
    form: ClipForm
    """Whether time is in the channels (`stack`) or an axis of its own (`volume`)."""
    test: ViewSpec
    """The published test. Its views are averaged."""
    training: TrainConfig | None = None
    """The published training. None if it is not known."""

    @property
    def extract(self) -> ExtractConfig:
        """How the data is made from a video."""
        return PRESETS[self.preset]

    @property
    def normalization(self) -> Normalization | None:
        """Mean, standard deviation and order of what the network gets. None for px."""
        return find_normalization(self.clip.normalization)


@dataclass(frozen=True)
class Recipe:
    """A published recipe, with what it says for each stream."""

    title: str
    """What was trained so, in a few words."""
    source: str
    """Where it was published: a paper, or a project on GitHub."""
    networks: tuple[str, ...]
    """The networks that it is for. The first is the one of a training without a named network."""
    streams: Mapping[StreamName, StreamRecipe]
    remarks: tuple[str, ...] = ()
    """Sentences for the user: what differs from what was published, and what nobody stated."""

    @property
    def first_stream(self) -> StreamName:
        """The stream of a user who names none: the flow, if the recipe has it."""
        return next(iter(self.streams))
