"""VGG-16 of Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition" (ICLR 2015), configuration D, as both streams of Wang et al., "Towards Good Practices
for Very Deep Two-Stream ConvNets" (arXiv 1507.02159).

Names, shapes and initial values are torchvision's (torchvision/models/vgg.py), so that
torchvision's files load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.base import ClipModel, Layer, init_classifier

__all__ = ["VGG16"]

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of the convolutions before each max pooling."""

MAP_PX = 7
"""The side of the last map at 224 px. Maps of other sizes are averaged to it, as in torchvision."""


def _through(*modules: str) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """Returns what passes a map through modules of a network, one after the other."""

    def run(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        for module in modules:
            x = network.get_submodule(module)(x)
        return x

    return run


def _layers() -> Iterator[Layer]:
    """Yields relu1_1 to relu5_3 and fc6 to fc8. A pooling belongs to the layer that it leads to."""
    pool: tuple[str, ...] = ()
    index = 0
    for block, (_, depth) in enumerate(BLOCKS, start=1):
        for number in range(1, depth + 1):
            conv, relu = f"features.{index}", f"features.{index + 1}"
            yield Layer(f"relu{block}_{number}", _through(*pool, conv, relu), (conv,), (conv,))
            pool, index = (), index + 2
        pool, index = (f"features.{index}",), index + 1
    flat, fc6 = _through(*pool, "avgpool"), _through("classifier.0", "classifier.1")
    yield Layer(
        "fc6",
        lambda network, x: fc6(network, flat(network, x).flatten(1)),
        ("classifier.0",),
        ("classifier.0",),
    )
    for number, last in ((3, 4), (6, 6)):
        linear = f"classifier.{number}"
        run = _through(*(f"classifier.{place}" for place in range(number - 1, last + 1)))
        yield Layer(f"fc{6 + number // 3}", run, (linear,), (linear,))


class VGG16(ClipModel):
    """VGG-16 over (N, C, H, W), with H and W of any size from 32.

    `width` multiplies the channels of every layer, also the 4096 of the fully connected ones.
    """

    layers = tuple(_layers())
    head = ("classifier",)
    min_side_px = 32

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        dropout: float | None = None,
        width: float = 1.0,
    ) -> None:
        """`dropout` applies to fc6 and fc7, which are classifier.0 and classifier.3.

        The default is .9 and .8 for flow, and .9 and .9 for frames (Wang et al., section 3).
        """
        super().__init__(inputs)
        (clip,) = self.inputs
        first = 0.9 if dropout is None else dropout
        second = (0.8 if clip.stream == "flow" else 0.9) if dropout is None else dropout
        layers: list[nn.Module] = []
        before = clip.num_channels
        stages: list[tuple[str, ...]] = []
        for published, depth in BLOCKS:
            start = len(layers)
            for _ in range(depth):
                channels = max(1, round(published * width))
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
                before = channels
            layers.append(nn.MaxPool2d(2))
            stages.append(tuple(f"features.{index}" for index in range(start, len(layers))))
        self.stages = (*stages, ("classifier.0",), ("classifier.3",))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(MAP_PX)
        wide = max(1, round(4096 * width))
        self.classifier = nn.Sequential(
            nn.Linear(before * MAP_PX**2, wide),
            nn.ReLU(inplace=True),
            nn.Dropout(first),
            nn.Linear(wide, wide),
            nn.ReLU(inplace=True),
            nn.Dropout(second),
            nn.Linear(wide, num_classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Linear):
                init_classifier(layer)

    def extract_features(self, x: torch.Tensor) -> torch.Tensor:
        """Returns fc7 after its ReLU, (N, 4096 * width)."""
        x = self.avgpool(self.extract_maps(x)).flatten(1)  # (N, 512 * 7 * 7)
        for index in range(5):  # to fc7's ReLU
            x = self.classifier[index](x)
        return x  # (N, 4096)

    def extract_maps(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the last map, (N, 512 * width, H / 32, W / 32)."""
        maps: torch.Tensor = self.features(x)
        return maps

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits."""
        logits: torch.Tensor = self.classifier[6](self.classifier[5](features))  # (N, K)
        return logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces classifier.6."""
        old = self.classifier[6]
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, num_classes).to(old.weight)
        init_classifier(new)
        self.classifier[6] = new
