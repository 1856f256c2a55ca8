"""Weights of craston/MARS: ResNeXt-101 over volumes of frames or flow.

A file holds `arch`, `epoch`, the optimizer's state, and `state_dict`, whose names begin with
DataParallel's `module.` (train.py). The names of models/resnext.py, which come from
kenshohara/3D-ResNets-PyTorch, are ours.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import VIDEO_KERNEL, ForeignFormat, Mark, Rule

__all__ = ["MARS"]

MARS = {
    "mars": ForeignFormat(
        "craston/MARS, kenshohara/3D-ResNets-PyTorch",
        "ResNeXt-101 in 3D, trained on Kinetics-400, UCF101, HMDB51 or Something",
        (
            Mark(r"conv1\.weight", (None, None, 7, 7, 7)),
            Mark(r"layer1\.0\.conv2\.weight", (None, None, 3, 3, 3)),
            Mark(r"layer1\.0\.conv3\.weight", VIDEO_KERNEL),
        ),
        (
            Rule(
                r"(?:conv1|bn1|fc|layer\d\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+",
                r"\g<0>",
            ),
        ),
        ("resnext101-3d",),
        ("mars",),
    ),
}
"""The format of one project, by name."""
