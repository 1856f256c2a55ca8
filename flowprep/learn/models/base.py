"""The base of every network here: a trunk that computes features, and a classifier on top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ClipModel", "Layer", "batch_norms", "init_classifier"]


@dataclass(frozen=True)
class Layer:
    """A layer of a network over stacks: from one map to the next, or to the scores."""

    name: str
    """Its published name: `relu5_3`, `fc6`, ..."""
    run: Callable[[Any, torch.Tensor], torch.Tensor]
    """Takes the network and the layer's input; returns its output."""
    modules: tuple[str, ...] = ()
    """The names of the modules that hold its weights."""
    entries: tuple[str, ...] = ()
    """The convolutions or linear layers of the network, if it has them, that see its input."""


class ClipModel(nn.Module, ABC):
    """A network that turns a batch of clips into a score for each class.

    `forward` takes one tensor for each of the network's inputs, in their order.
    """

    inputs: tuple[ClipInput, ...]
    """What the network takes from each clip."""
    joins_segments: bool = False
    """Whether the network joins the scores of segments. If False, each tensor is (N, C, ...), N
    clips. If True, it is (N, S, C, ...), one clip from each of S segments of N videos."""
    num_segments: int | None = None
    """How many clips of a video the network joins. None means any number, as for an average.

    With None, `extract_features` treats each clip separately and returns (N, S, ...), and
    `classify` joins the clips. So a test of many clips need not hold them all in memory."""

    mixes_segments: bool = False
    """Whether a segment's features depend on the other segments, so that the network takes exactly
    `num_segments` clips of a video, also for features."""

    stages: tuple[tuple[str, ...], ...] = ()
    """The names of the modules of each stage, or of its own tensors, from the input to the
    classifier. `--freeze` counts them. Empty for a network that only knows its classifier."""
    new_layers: tuple[str, ...] = ()
    """The names of modules above the trunk that have no part in its own classification, such as an
    LSTM over a network for images. They begin anew if a file has the trunk alone."""
    min_side_px: int = 1
    """The smallest H and W from which a map of every layer is left."""
    begins_as: Mapping[str, str] = {}
    """Tensors that begin with the value of another tensor if a file lacks them, by their names."""
    frames_at: tuple[str, int] | None = None
    """The name of a tensor that has a row for each frame of a clip, and the dimension of the rows.
    So a file tells how many frames its network sees. None without such a tensor."""
    has_one_loss: bool = False
    """Whether a network that answers several times has one loss, that of the joined answers."""
    excludes_classes: bool = False
    """Whether joining answers takes for granted that a video has one class."""
    layers: tuple[Layer, ...] = ()
    """The layers from the input to the scores. All but the last make the features. Empty for a
    network that is no sequence of layers over stacks."""
    whole_towers: Mapping[str, Callable[[], ClipModel]] = {}
    """The networks that it is made of, by the names of their modules, in the order of the inputs.
    Each may start from a file of its own. The function makes a whole one, for names and shapes."""
    head: tuple[str, ...] = ()
    """The names of the modules behind the last maps. Empty without `extract_maps`."""
    map_layers: tuple[str, ...] = ()
    """The names of the modules whose outputs `flowprep explain` takes as the last maps, in place of
    those that it finds itself: for layers that have another order of axes, or keep a state."""
    frozen_norms: tuple[nn.Module, ...] = ()
    """Batch norms that keep their statistics: `train` leaves them in eval mode."""

    def __init__(self, inputs: Sequence[ClipInput]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)

    @abstractmethod
    def extract_features(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Returns the classifier's input, before dropout. Each network has its own shape.

        Takes the same arguments as `forward`.
        """

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last maps (N, C, h, w) of images (N, C, H, W), for a network over time.

        Raises ConfigError for a network that is no base of such networks.
        """
        raise ConfigError(
            f"maps are those of 2D networks, got {type(self).__name__}; choose a ResNet, VGG16, "
            "BNInception, AlexNet or GoogLeNet"
        )

    def arrange_maps(self, output: torch.Tensor) -> torch.Tensor:
        """Returns the output of one of `map_layers` as maps (B, C, h, w) or (B, C, T, h, w).

        B is the number of clips, or a multiple of it with time innermost. It is taken of gradients
        too, so it only selects and moves numbers, as from tokens to the grid of their places.
        """
        return output

    @abstractmethod
    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits from the result of `extract_features`."""

    @abstractmethod
    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the classifier with a new, freshly initialized one.

        It keeps the names, device and dtype of the old classifier.
        """

    def resize(self, name: str, value: torch.Tensor) -> torch.Tensor | None:
        """Returns a file's value for the tensor `name` in this network's size, for other clips.

        None for a tensor that has one size, or of which the file has another kind.
        """
        return None

    @property
    def block_stages(self) -> tuple[tuple[str, ...], ...]:
        """The modules of each stage behind which a non-local block may stand: blocks of layers, or
        sequences of such blocks."""
        return self.stages

    @property
    def input_channels(self) -> tuple[int, ...]:
        """The channels that the first convolution over each input sees."""
        return tuple(one.num_channels for one in self.inputs)

    def insert_shifts(self, *args: Any, **kwargs: Any) -> None:
        """Puts TSM's shifts in; see `flowprep.learn.models.tsm`.

        Takes the number of segments, a function that makes the shift for a number of segments, and
        options of the network. Raises ConfigError for a network without places for shifts.
        """
        raise ConfigError(
            f"TSM's base must have places for shifts, got {type(self).__name__}; choose a ResNet, "
            "MobileNetV2 or BNInception"
        )

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of everything except the frozen batch norms, which stay in eval mode."""
        super().train(mode)
        for norm in self.frozen_norms:
            norm.eval()
        return self

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns what the loss sees: logits (N, K), or (N, J, K) of J answers about each clip.

        A network answers several times if it has a loss at every step of time, or several
        classifiers. Its `classify` then joins the answers.
        """
        return self.classify(features)

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns what the loss of each answer is multiplied by, (J,). The sum is the loss.

        By default each answer counts alike, and the loss is their mean.
        """
        return torch.full((num_answers,), 1 / num_answers)

    def join_answers(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the logits (N, K) of several answers (N, J, K): by default their mean."""
        return logits.mean(1)

    def forward(self, *clips: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits. While it trains, returns the result of `answer`."""
        features = self.extract_features(*clips)
        if self.training and not self.has_one_loss:
            return self.answer(features)
        return self.classify(features)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Returns the batch norms in a module, in their order."""
    return [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]


def init_classifier(layer: nn.Linear) -> None:
    """Draws a classifier as Caffe's examples and torchvision do: deviation .01, and no bias."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
