"""The recipes of recent networks."""

from __future__ import annotations

import dataclasses

from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.config import ViewSpec
from flowprep.learn.recent_trainings import RECENT_TRAININGS
from flowprep.learn.recipe_entry import Recipe, StreamRecipe

__all__ = ["RECENT_RECIPES"]

_SPREAD = (
    "The release spreads the frames of a clip evenly from its first to its last moment, so that "
    "8 frames are 36 apart, of videos at 30 frames a second; here they are as far apart as its "
    "name says, at the rate of the video.",
    "The release tests the clip that begins with the video; here it is the one in the middle.",
)
_BLUE_FIRST = (
    "The release reads the frames of Something-Something as BGR, and turns them around for other "
    "networks only; so the network sees BGR here too.",
)


def _timesformer(
    name: RecipeName, title: str, source: str, remarks: tuple[str, ...] = ()
) -> Recipe:
    """Returns a recipe of TimeSformer: tests of 1 clip x 3 crops, as high as the frame."""
    clip = RECENT_TRAININGS[name]["rgb"].clip
    tested = dataclasses.replace(clip, resize_short_px=clip.crop_px)
    # Frames of a short side of 256, or lower ones as they are.
    stream = StreamRecipe("mmaction2", tested, "volume", ViewSpec(1, 3))
    return Recipe(title, source, ("timesformer",), {"rgb": stream}, remarks)


_RELEASE = "Bertasius et al., TimeSformer (ICML 2021); facebookresearch/TimeSformer"

RECENT_RECIPES: dict[RecipeName, Recipe] = {
    "timesformer": _timesformer("timesformer", "TimeSformer, Kinetics-400", _RELEASE, _SPREAD),
    "timesformer-hr": _timesformer(
        "timesformer-hr", "TimeSformer-HR, Kinetics-400", _RELEASE, _SPREAD
    ),
    "timesformer-long": _timesformer(
        "timesformer-long", "TimeSformer-L, Kinetics-400", _RELEASE, _SPREAD
    ),
    "timesformer-ssv2": _timesformer(
        "timesformer-ssv2", "TimeSformer, Something-Something V2", _RELEASE, _BLUE_FIRST
    ),
    "timesformer-ssv2-hr": _timesformer(
        "timesformer-ssv2-hr", "TimeSformer-HR, Something-Something V2", _RELEASE, _BLUE_FIRST
    ),
    "timesformer-ssv2-long": _timesformer(
        "timesformer-ssv2-long",
        "TimeSformer-L, 64 frames, Something-Something V2",
        _RELEASE,
        _BLUE_FIRST,
    ),
    "mmaction2-timesformer": _timesformer(
        "mmaction2-timesformer",
        "TimeSformer, Kinetics-400, in mmaction2",
        "open-mmlab/mmaction2, timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb",
    ),
}
"""The recipes by name."""
