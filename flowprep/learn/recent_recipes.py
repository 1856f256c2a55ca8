"""The recipes of recent networks: SlowFast, GSM, TimeSformer."""

from __future__ import annotations

import dataclasses

from flowprep.learn.clip_inputs import NormalizationName, RecipeName, StreamName
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.recent_trainings import RECENT_TRAININGS
from flowprep.learn.recipe_entry import VIEWS, Recipe, StreamRecipe

__all__ = ["RECENT_RECIPES"]


def _slowfast(
    preset: str, num_frames: int, frame_stride: int, normalization: NormalizationName
) -> dict[StreamName, StreamRecipe]:
    """Returns the stream of SlowFast: tests of 10 clips x 3 crops of 256."""
    clip = ClipSpec(
        "rgb",
        num_frames,
        frame_stride,
        normalization=normalization,
        resize_short_px=256,
        crop_px=256,
    )
    return {"rgb": StreamRecipe(preset, clip, "volume", VIEWS["30"])}


def _gsm(resize_short_px: int, crop_px: int) -> dict[StreamName, StreamRecipe]:
    """Returns GSM's stream: one frame in the middle of each of 8 segments, the center crop."""
    clip = ClipSpec(
        "rgb",
        1,
        num_segments=8,
        normalization="tsn-pytorch",
        resize_short_px=resize_short_px,
        crop_px=crop_px,
    )
    return {"rgb": StreamRecipe("tsn", clip, "stack", ViewSpec(8, 1))}


_SOMETHING = (
    "It was trained on BGR. The first convolution of its weights is turned to RGB when they are "
    "loaded, so the network sees RGB.",
    "The release mirrors clips and exchanges the classes that name left and right. Here clips are "
    "not mirrored.",
    "Weights of 12, 16 and 24 segments need --segments 12, 16 or 24. The published test of two "
    "clips averages twice as many frames.",
)

_TWO_RATES = "The numbers of frames and their stride are those of the slow path."
_ONE_WINDOW = (
    "The release classifies four windows of each map of its test's crops and averages their "
    "softmax. Here the whole map is averaged."
)
_FIRST = "Its slow path sees the first frame of each group: --slow-frames first."


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
    "slowfast-4x16": Recipe(
        "SlowFast 4x16, Kinetics-400",
        "facebookresearch/SlowFast",
        ("slowfast-4x16",),
        _slowfast("mmaction2", 4, 16, "slowfast"),
        (_TWO_RATES, _ONE_WINDOW),
    ),
    "slowfast-8x8": Recipe(
        "SlowFast 8x8, Kinetics-400",
        "facebookresearch/SlowFast, facebookresearch/pytorchvideo",
        ("slowfast-8x8",),
        _slowfast("mmaction2", 8, 8, "slowfast"),
        (_TWO_RATES, _ONE_WINDOW),
    ),
    "mmaction2-slowfast-4x16": Recipe(
        "SlowFast 4x16, Kinetics-400, in mmaction2",
        "open-mmlab/mmaction2, slowfast_r50_8xb8-4x16x1-256e_kinetics400-rgb",
        ("slowfast-4x16",),
        _slowfast("mmaction2-320p", 4, 16, "mmaction2"),
        (_TWO_RATES, _FIRST),
    ),
    "mmaction2-slowfast-8x8": Recipe(
        "SlowFast 8x8, Kinetics-400, in mmaction2",
        "open-mmlab/mmaction2, slowfast_r50_8xb8-8x8x1-256e_kinetics400-rgb",
        ("slowfast-8x8",),
        _slowfast("mmaction2-320p", 8, 8, "mmaction2"),
        (_TWO_RATES, _FIRST),
    ),
    "gsm": Recipe(
        "GSM with BN-Inception, Something-Something V1",
        "swathikirans/GSM",
        ("gsm-bn-inception",),
        _gsm(256, 224),
        _SOMETHING,
    ),
    "gsm-inception-v3": Recipe(
        "GSM with Inception-V3, Something-Something V1 and Diving48",
        "swathikirans/GSM",
        ("gsm-inception-v3", "inception-v3"),
        _gsm(261, 229),
        _SOMETHING,
    ),
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
