"""Published recipes of recurrent networks and of the I3D paper's other networks.

`recipes` has all recipes.
"""

from __future__ import annotations

from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.config import ViewSpec
from flowprep.learn.recipe_entry import Recipe, StreamRecipe
from flowprep.learn.recurrent_trainings import RECURRENT_TRAININGS

__all__ = ["RECURRENT_RECIPES"]

_QUO_VADIS = "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017)"

_KINETICS = (
    "The paper lowers the learning rate when the validation loss stops falling; here it falls at "
    "fixed shares of the training. The paper does not state batch and rate; they are those of "
    "recipe i3d.",
    "The paper starts from Inception-V1 of ImageNet: give its weights with --weights.",
)


def _stream(preset: str, recipe: RecipeName, stream: StreamName, num_clips: int) -> StreamRecipe:
    """Returns a stream that is tested on the clips that it is trained on, in center crops."""
    clip = RECURRENT_TRAININGS[recipe][stream].clip
    return StreamRecipe(preset, clip, "volume", ViewSpec(num_clips, 1))


RECURRENT_RECIPES: dict[RecipeName, Recipe] = {
    "i3d-lstm": Recipe(
        "Inception-V1 and an LSTM, Kinetics-400",
        _QUO_VADIS,
        ("i3d-lstm",),
        {"rgb": _stream("i3d", "i3d-lstm", "rgb", 2)},
        (*_KINETICS, "The paper tests clips of 50 frames; here the test is 2 clips of 25."),
    ),
    "i3d-fused": Recipe(
        "two streams of Inception-V1, fused, Kinetics-400",
        _QUO_VADIS,
        ("i3d-fused",),
        # Five clips are the 25 frames and 250 fields of table 1.
        {"both": _stream("i3d", "i3d-fused", "both", 5)},
        _KINETICS,
    ),
    "gru-rcn": Recipe(
        "GRU-RCN, UCF101",
        "Ballas et al., Delving Deeper into Convolutional Networks for Learning Video "
        "Representations (ICLR 2016)",
        ("gru-rcn",),
        {
            "flow": _stream("tsn", "gru-rcn", "flow", 25),
            "rgb": _stream("tsn", "gru-rcn", "rgb", 25),
        },
        (
            "VGG-16 is trained on the frames, or on stacks of ten fields, beforehand and keeps its "
            "weights: give them with --weights.",
            "The optimizer is Adam: AdamW without decay. Its rate and the number of epochs are "
            "ours, and so are the center crops of the test.",
        ),
    ),
}
"""The recipes by name."""
