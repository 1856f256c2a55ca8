"""Multi-task learning over data sets (Simonyan and Zisserman, NIPS 2014, section 6): one trunk, a
head and a loss for each data set, the losses summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.models.base import ClipModel, Layout

__all__ = ["MultiTask"]


class MultiTask(nn.Module):
    """A network whose classifier is divided among data sets, which the paper calls tasks.

    The heads are blocks of rows of the model's own classifier, which gets sum(num_classes) rows:
    they share its dropout and whatever it averages, and every model can have them. A loss over
    one head's logits has a gradient of exactly zero in the rows of the others.
    """

    layout: Layout
    in_channels: int

    def __init__(self, model: ClipModel, num_classes: Sequence[int]) -> None:
        """Replaces the classifier of `model`; `num_classes` counts those of each data set."""
        super().__init__()
        if not num_classes or min(num_classes) < 1:
            raise ConfigError(f"num_classes must hold positive counts, got {list(num_classes)}")
        model.replace_classifier(sum(num_classes))
        self.model = model
        self.num_classes = tuple(num_classes)
        self.layout = model.layout
        self.in_channels = model.in_channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the logits of every task k for every row, (N, num_classes[k])."""
        logits: torch.Tensor = self.model(x)  # (N, sum(num_classes))
        return torch.split(logits, list(self.num_classes), 1)
