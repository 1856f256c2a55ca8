"""Published recipes of networks that see frames and flow together. `recipes` has all recipes."""

from __future__ import annotations

from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.recipe_entry import Recipe, StreamRecipe

__all__ = ["FUSION_RECIPES"]

FUSION_RECIPES: dict[RecipeName, Recipe] = {
    "two-stream-fusion": Recipe(
        "two-stream fusion, UCF101 and HMDB51",
        "Feichtenhofer et al., Convolutional Two-Stream Network Fusion (CVPR 2016); "
        "feichtenhofer/twostreamfusion",
        ("two-stream-fusion",),
        {
            "both": StreamRecipe(
                "feichtenhofer",
                # cnn_train_dag.m, temporalStrideRandom: a test takes the largest stride.
                ClipSpec("both", 5, 15, normalization="tsn-rgb", resize_short_px=256),
                "volume",
                ViewSpec(10, 10),
            )
        },
        (
            "Give the trained weights of both towers: --weights FRAMES,FLOW. The layers below the "
            "fusion keep them.",
            "The release tests whole frames and their mirror images, 10 clips of each video. Here "
            "the test is 10 clips in 10 crops.",
            "The release learns biases at twice the rate and without decay, and draws crops of any "
            "size from three quarters to five quarters of 224. Here these are five sizes.",
            "The paper draws strides from 1 to 10, the release from 5 to 15.",
        ),
    ),
}
