"""Inception-V1 with batch norm, over single frames: the base of the older networks that Carreira
and Zisserman compare with I3D, "Quo Vadis, Action Recognition? A New Model and the Kinetics
Dataset" (CVPR 2017), section 2.

Its layers and their names are those of `I3D`, and all kernels are 1 along time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.recurrent import BatchNormLSTM
from flowprep.learn.models.base import ClipModel, init_classifier
from flowprep.learn.models.i3d import I3D, ConvLogits, InceptionTrunk, init_convs

__all__ = ["InceptionLSTM", "InceptionV1"]


class InceptionV1(I3D):
    """Inception-V1 over (N, C, H, W), an image or a stack of fields: both streams of section 2.3.

    The last map is averaged over windows of 7 x 7, or as a whole below 193 px. Dropout is I3D's:
    the paper states none. `width` multiplies the channels of every layer.
    """

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        ClipModel.__init__(self, inputs)
        (clip,) = self.inputs
        self.build_trunk(clip.num_channels, width, over_time=False)
        self.dropout = nn.Dropout(dropout)
        self.logits = ConvLogits(self.Mixed_5c.channels, num_classes)
        init_convs(self)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns averages over windows, (N, 1024 * width, 1, 1, 1) at 224 px."""
        return super().extract_features(x.unsqueeze(2))  # (N, C, 1, H, W)


class InceptionLSTM(InceptionTrunk, ClipModel):
    """ConvNet+LSTM of section 2.1, over (N, C, T, H, W): 25 frames of 224 x 224 in the paper.

    Inception-V1 sees each frame by itself. An LSTM with batch norm follows its averaged maps. There
    is a loss at every step, and the answer is that of the last. T may be any number. Batch norms of
    the LSTM have statistics for as many steps as `inputs` has frames. Dropout is I3D's: the paper
    states none. `width` multiplies the channels of every layer.
    """

    stages = (*InceptionTrunk.stages, ("lstm",))
    new_layers = ("lstm",)

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        ClipModel.__init__(self, inputs)
        (clip,) = self.inputs
        self.build_trunk(clip.num_channels, width, over_time=False)
        size = max(1, round(512 * width))
        self.lstm = BatchNormLSTM(self.Mixed_5c.channels, size, clip.num_frames)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(size, num_classes)
        init_convs(self)
        init_classifier(self.fc)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the LSTM's output at every step, (N, T, 512 * width)."""
        frames = self.forward_maps(x).mean((3, 4))  # (N, 1024, T)
        outputs: torch.Tensor = self.lstm(frames.transpose(1, 2))
        return outputs

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the logits of every step, (N, T, num_classes)."""
        logits: torch.Tensor = self.fc(self.dropout(features))
        return logits

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits of the last step."""
        return logits[:, -1]

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the (N, num_classes) logits of the last step."""
        return self.answer(features[:, -1])

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        init_classifier(self.fc)
