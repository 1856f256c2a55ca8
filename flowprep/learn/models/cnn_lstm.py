"""An LSTM over the features of single frames: Ng et al., "Beyond Short Snippets: Deep Networks for
Video Classification" (CVPR 2015), section 3.2.

A 2D network, the base, makes a vector of each of T frames or fields. Five layers of 512 cells see
these one after the other, and a classifier scores every step t = 1 to T. Each step has a loss, with
the linear gain g = t / T: the longer the network has looked, the more its answer counts. A clip's
scores are made of the steps' in one of four ways.

Here the gains are divided by their sum, (T + 1) / 2, so that the loss has the size of a single one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.per_frame import base_stages, by_clip, each_frame, vector_base
from flowprep.learn.network_options import FrameBackbone, StepScores

__all__ = ["CNNLSTM", "StepModel", "linear_gain"]


class StepModel(ClipModel):
    """A network that answers at every step of a clip: an LSTM over the vectors of its frames."""

    excludes_classes = True
    new_layers = ("lstm",)
    lstm: nn.LSTM
    dropout: nn.Dropout
    step_scores: StepScores

    @abstractmethod
    def frame_vectors(self, frames: torch.Tensor) -> torch.Tensor:
        """Returns the vectors (M, F) of frames (M, C, H, W)."""

    @property
    @abstractmethod
    def classifier(self) -> nn.Linear:
        """What scores each step."""

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the LSTM's output at each of T steps, (N, H, T), from clips (N, C, T, H, W)."""
        vectors = by_clip(self.frame_vectors(each_frame(x)), len(x))  # (N, T, F)
        steps: torch.Tensor = self.lstm(vectors)[0]  # (N, T, H)
        return steps.transpose(1, 2)

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the logits of each step, (N, T, num_classes)."""
        logits: torch.Tensor = self.classifier(self.dropout(features.transpose(1, 2)))
        return logits

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, which `step_scores` makes of those of the steps."""
        return self.join_answers(self.answer(features))

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns the shares of the steps in the loss, (T,): equal ones."""
        return torch.full((num_answers,), 1 / num_answers)

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns (N, K) logits from those of the steps, (N, T, K).

        Their softmax is the joined softmax of the steps; that of `max` is scaled to a sum of 1.
        """
        if self.step_scores == "last":
            return logits[:, -1]
        scores = logits.float().log_softmax(2)
        if self.step_scores == "max":
            return scores.amax(1)
        num_steps = logits.shape[1]
        shares = torch.full((num_steps,), 1 / num_steps, device=scores.device)
        if self.step_scores == "weighted":
            shares = linear_gain(num_steps).to(scores.device)
        return (scores + shares.log()[:, None]).logsumexp(1)


class CNNLSTM(StepModel):
    """Five layers of LSTM over the vectors of a 2D network, for (N, C, T, H, W) with any T.

    `width` multiplies the channels of every layer, also the 512 cells. `dropout` is before the
    classifier. The paper states none.
    """

    num_layers = 5

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        step_scores: StepScores = "weighted",
        backbone: FrameBackbone = "googlenet",
        dropout: float = 0.0,
        width: float = 1.0,
    ) -> None:
        super().__init__(inputs)
        (clip,) = self.inputs
        self.step_scores = step_scores
        self.excludes_classes = step_scores != "last"
        self.base, length, _ = vector_base(backbone, clip, width)
        self.stages = (*base_stages(self.base), ("lstm",))
        cells = max(1, round(512 * width))
        self.lstm = nn.LSTM(length, cells, self.num_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(cells, num_classes)

    @property
    def classifier(self) -> nn.Linear:
        """fc."""
        return self.fc

    def frame_vectors(self, frames: torch.Tensor) -> torch.Tensor:
        """Returns the base's features (M, F) of frames (M, C, H, W)."""
        return self.base.extract_features(frames)

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns the linear gains of the steps, (T,), divided by their sum."""
        return linear_gain(num_answers)

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces fc."""
        self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)


def linear_gain(num_steps: int) -> torch.Tensor:
    """Returns g = t / T for t = 1 to T, divided by the sum (T + 1) / 2: (T,)."""
    gain = torch.arange(1, num_steps + 1) / num_steps
    return gain / gain.sum()
