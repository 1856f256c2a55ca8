"""Multi-task learning over data sets (Simonyan and Zisserman, NIPS 2014, section 6): one trunk, a
head and a loss for each data set, and the sum of the losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel

__all__ = ["MultiTask"]


class MultiTask(nn.Module):
    """A network whose classifier is divided among data sets, which the paper calls tasks.

    The heads are blocks of rows of the model's own classifier, which gets sum(num_classes) rows. So
    the heads share its dropout and averaging, and every model can have several heads. A loss over
    one head's logits has a gradient of exactly zero in the rows of the other heads.
    """

    inputs: tuple[ClipInput, ...]
    joins_segments: bool
    num_segments: int | None
    mixes_segments: bool

    def __init__(self, model: ClipModel, num_classes: Sequence[int]) -> None:
        """Replaces the classifier of `model`; `num_classes` has one number for each data set."""
        super().__init__()
        if not num_classes or min(num_classes) < 1:
            raise ConfigError(f"num_classes must hold positive counts, got {list(num_classes)}")
        model.replace_classifier(sum(num_classes))
        self.model = model
        self.num_classes = tuple(num_classes)
        self.inputs = model.inputs
        self.joins_segments = model.joins_segments
        self.num_segments = model.num_segments
        self.mixes_segments = model.mixes_segments

    def forward(self, *clips: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the logits of every task k for every row, (N, num_classes[k]).

        While it trains, a model that answers several times gives (N, J, num_classes[k]).
        """
        features = self.extract_features(*clips)
        if self.training and not self.model.has_one_loss:
            return self._split(self.model.answer(features))
        return self.classify(features)

    def extract_features(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns the features of the network below the heads."""
        return self.model.extract_features(*clips)

    def classify(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the logits of every task, (N, num_classes[k]), from `extract_features`' result.

        The answers are joined task by task, because joining may compare the classes of a task.
        """
        parts = self._split(self.model.answer(features))
        return tuple(self.join_answers(part) if part.dim() == 3 else part for part in parts)

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns what the loss of each answer is multiplied by, as the model says."""
        return self.model.answer_weights(num_answers)

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits (N, K) of several answers (N, J, K), as the model says."""
        return self.model.join_answers(logits)

    def _split(self, logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(logits, list(self.num_classes), -1)
