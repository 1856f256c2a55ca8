"""The recipes of the networks before two-stream ones: C3D and DeepVideo."""

from __future__ import annotations

from flowprep.learn.clip_inputs import NormalizationName, RecipeName
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.recipe_entry import Recipe, StreamRecipe

__all__ = ["HISTORY_RECIPES"]


def _c3d(normalization: NormalizationName) -> StreamRecipe:
    """Returns C3D's stream: clips of 16 frames of 171x128."""
    clip = ClipSpec("rgb", 16, normalization=normalization, crop_px=112)
    return StreamRecipe("vmz-rgb", clip, "volume", ViewSpec(10, 1))


HISTORY_RECIPES: dict[RecipeName, Recipe] = {
    "c3d": Recipe(
        "C3D, Sports-1M and UCF101",
        "Tran et al., Learning Spatiotemporal Features with 3D Convolutional Networks (ICCV 2015); "
        "facebookarchive/C3D",
        ("c3d", "c3d-bn"),
        {"rgb": _c3d("c3d")},
        (
            "C3D subtracts the mean of each place in a clip, a cube of 16 frames: give its file "
            "with --mean-file. Without it, one number for each channel is subtracted.",
            "Features are those of fc6, in windows of 16 frames: give --layer fc6.",
        ),
    ),
    "mmaction2-c3d": Recipe(
        "C3D, UCF101, in mmaction2",
        "open-mmlab/mmaction2, c3d_sports1m_16x1x1_45e_ucf101_rgb",
        ("c3d",),
        {"rgb": _c3d("mmaction2-c3d")},
        (
            "mmaction2 keeps the shape of frames and fits them into 171x128. Those of UCF101 "
            "become 171x128, others do not.",
        ),
    ),
    "deepvideo": Recipe(
        "DeepVideo, Sports-1M",
        "Karpathy et al., Large-scale Video Classification with Convolutional Neural Networks "
        "(CVPR 2014)",
        ("deepvideo",),
        {
            "rgb": StreamRecipe(
                "deepvideo",
                ClipSpec("rgb", 1, normalization="deepvideo", crop_px=170),
                "stack",
                ViewSpec(20, 10),
            )
        },
        (
            "The paper averages 4 crops of 20 clips, and does not say which crops; here the test "
            "has 10.",
            "The paper lowers the learning rate when the validation error stops falling; here it "
            "falls at fixed shares of the training.",
        ),
    ),
}
"""The recipes by name."""
