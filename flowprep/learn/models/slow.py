"""The slow path of Feichtenhofer et al., "SlowFast Networks for Video Recognition" (ICCV 2019),
as a network of its own: "Slow" there, "SlowOnly" in mmaction2.

It equals SlowFast's SLOW_4x16_R50 and SLOW_8x8_R50 (models/video_model_builder.py, `slow`),
pytorchvideo's slow_r50 and mmaction2's ResNet3dSlowOnly. Nothing strides over time, and only the
last two stages see more than one frame. Parameters are named as in `i3d_resnet`.
"""

from __future__ import annotations

from typing import ClassVar

from flowprep.learn.models.i3d_resnet import I3DResNet

__all__ = ["Slow"]


class Slow(I3DResNet):
    """A ResNet-50 over (N, C, T, H, W), published for 4 frames at stride 16 and 8 at stride 8."""

    time_kernels: ClassVar = {
        "conv1": (1,),
        "layer1": (1,) * 3,
        "layer2": (1,) * 4,
        "layer3": (3,) * 6,
        "layer4": (3,) * 3,
    }
    halves_time = False
