"""GRU-RCN of Ballas, Yao, Pal and Courville, "Delving Deeper into Convolutional Networks for
Learning Video Representations" (ICLR 2016), sections 3 and 5.1.

VGG-16 sees each frame. Its maps after pool2 to pool5 and its fc7 each go through a GRU of their
own, which is convolutional but for fc7's. Tensors of VGG-16 have the names of `VGG16`, so its
weights load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.recurrent import ConvGRU
from flowprep.learn.models.base import init_classifier
from flowprep.learn.models.vgg import VGG16

__all__ = ["GRURCN"]

UNITS = (64, 128, 256, 256, 512)
"""Channels of the GRUs over pool2, pool3, pool4, pool5 and fc7 (section 5.1.1)."""


class GRURCN(VGG16):
    """GRUs over five layers of VGG-16, for (N, C, T, H, W): 10 frames of 224 x 224 in the paper.

    Any T and H and W of any size from 32 are allowed. Each GRU's state after the last step is
    averaged over space and classified, with a dropout of .7. The answer is the mean of the
    probabilities of the five classifiers, and the loss is that of the mean.

    With `stacked`, the gates of each GRU also see the state of the GRU below at the same step,
    pooled to their size (section 3.2). With `bidirectional`, there are five more GRUs that see the
    steps in reverse, and a classifier sees the last states of both directions side by side.

    `width` multiplies the channels of every layer.
    """

    new_layers = ("grus", "bottom_up")
    has_one_loss = True
    excludes_classes = True

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float = 0.7,
        width: float = 1.0,
        stacked: bool = False,
        bidirectional: bool = False,
    ) -> None:
        """`dropout` applies to the classifiers. VGG-16's own is .5, as in torchvision."""
        super().__init__(inputs, num_classes, dropout=0.5, width=width)
        self.stages = (*self.stages, ("grus", "bottom_up"))
        # fc7's ReLU is the last; what is behind it classifies images.
        self.classifier = nn.Sequential(*list(self.classifier)[:5])
        convs = [layer for layer in self.features if isinstance(layer, nn.Conv2d)]
        fc7 = self.classifier[3]
        assert isinstance(fc7, nn.Linear)
        # The last convolutions before pool2, pool3, pool4 and pool5.
        percepts = [convs[place].out_channels for place in (3, 6, 9, 12)] + [fc7.out_features]
        self.units = [max(1, round(units * width)) for units in UNITS]
        self.num_directions = 1 + bidirectional
        self.grus = nn.ModuleList(
            nn.ModuleList(
                _GRU(below, units, kernel)
                for below, units, kernel in zip(percepts, self.units, (3, 3, 3, 3, 1), strict=True)
            )
            for _ in range(self.num_directions)
        )
        self.bottom_up = nn.ModuleList(
            nn.ModuleList(
                _bottom_up(below, units, kernel)
                for below, units, kernel in zip(
                    self.units[:-1], self.units[1:], (3, 3, 3, 1), strict=True
                )
            )
            for _ in range(self.num_directions if stacked else 0)
        )
        self.dropout = nn.Dropout(dropout)
        self.heads = self._make_heads(num_classes)
        # What the GRUs see, without pool1.
        self.map_layers = tuple(
            f"features.{number}"
            for number, layer in enumerate(self.features)
            if isinstance(layer, nn.MaxPool2d)
        )[1:]

    def percepts(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the maps of pool2 to pool5 and fc7 at every step, each (N, T, C, H, W)."""
        steps = x.transpose(1, 2)  # (N, T, C, H, W)
        size = steps.shape[:2]
        seen = steps.flatten(0, 1)
        maps = []
        for layer in self.features:
            seen = layer(seen)
            if isinstance(layer, nn.MaxPool2d):
                maps.append(seen)
        fc7 = self.classifier(self.avgpool(seen).flatten(1))[..., None, None]  # (N T, 4096, 1, 1)
        return [one.unflatten(0, size) for one in (*maps[1:], fc7)]

    def forward_states(self, percepts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Returns the states of each GRU at every step, each (N, T, units, H, W).

        The second direction begins at the last step, and its states come in the order in which it
        sees the steps.
        """
        states = []
        for direction in range(self.num_directions):
            below: torch.Tensor | None = None
            for level, seen in enumerate(percepts):
                gru = self.grus[direction][level]  # type: ignore[index]
                gates = gru.see(seen if direction == 0 else seen.flip(1))
                if len(self.bottom_up) and below is not None:
                    up = self.bottom_up[direction][level - 1]  # type: ignore[index]
                    gates = _add_gates(gates, up, below)
                below = gru.run(gates)
                states.append(below)
        return states

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last states, averaged over space, (N, 1216 * width).

        With two directions these are (N, 2432 * width), side by side for each of the five layers.
        """
        states = self.forward_states(self.percepts(x))
        last = [one[:, -1].mean((2, 3)) for one in states]  # of one direction, then of the other
        levels = len(self.units)
        return torch.cat([one for level in range(levels) for one in last[level::levels]], 1)

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the logits of the five classifiers, (N, 5, num_classes)."""
        parts = torch.split(features, [units * self.num_directions for units in self.units], 1)
        logits = [head(self.dropout(part)) for head, part in zip(self.heads, parts, strict=True)]
        return torch.stack(logits, 1)

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logarithms of the means of the classifiers' probabilities, (N, K)."""
        return logits.float().log_softmax(2).logsumexp(1) - math.log(logits.shape[1])

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, whose softmax is the mean of the classifiers'."""
        return self.join_answers(self.answer(features))

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the five heads."""
        old = self.heads[0]
        assert isinstance(old, nn.Linear)
        self.heads = self._make_heads(num_classes).to(old.weight)

    def _make_heads(self, num_classes: int) -> nn.ModuleList:
        heads = nn.ModuleList()
        for units in self.units:
            head = nn.Linear(units * self.num_directions, num_classes)
            init_classifier(head)
            heads.append(head)
        return heads


class _GRU(ConvGRU):
    """The paper's: r is applied before the convolution, and there are no biases.

    The paper's z is the complement of ours, which changes nothing: both are sigmoids.
    """

    resets_state = True

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__(in_channels, channels, kernel, state_kernel=kernel, bias=False)


def _bottom_up(below: int, units: int, kernel: int) -> nn.Conv2d:
    """Returns the convolution by which the gates r and z see the state of the GRU below."""
    layer = nn.Conv2d(below, 2 * units, kernel, padding=kernel // 2, bias=False)
    for gate in layer.weight.chunk(2):
        nn.init.xavier_uniform_(gate)
    return layer


def _add_gates(gates: torch.Tensor, up: nn.Module, below: torch.Tensor) -> torch.Tensor:
    """Adds what r and z see of the states below, (N, T, units, H, W), to a GRU's `gates`."""
    size = (gates.shape[3], gates.shape[4])
    # Between two of VGG-16's poolings this is a max pooling of 2 x 2.
    pooled = F.adaptive_max_pool2d(below.flatten(0, 1), size)
    seen: torch.Tensor = up(pooled).unflatten(0, gates.shape[:2])
    split = seen.shape[2]
    return torch.cat([gates[:, :, :split] + seen, gates[:, :, split:]], 2)
