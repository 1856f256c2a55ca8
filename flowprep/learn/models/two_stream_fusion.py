"""Two towers that become one: Feichtenhofer, Pinz and Zisserman, "Convolutional Two-Stream Network
Fusion for Video Action Recognition" (CVPR 2016), with the authors' release
(feichtenhofer/twostreamfusion, cnn_ucf101_fusion.m).

Each of T frames goes through the spatial tower, and the ten fields around it through the temporal
tower. At a layer their maps become one (`layers.stream_fusion`), the maximum over the T frames is
taken, and the spatial tower's upper layers go on from there. The temporal tower may keep its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.layers.stream_fusion import StreamFusion
from flowprep.learn.models.base import ClipModel, Layer
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.resnet import resnet50
from flowprep.learn.models.vgg import VGG16
from flowprep.learn.network_options import BackboneName, FusionInit, StreamFusionKind

__all__ = ["TwoStreamFusion"]

_LAST_MAPS: dict[BackboneName, str] = {
    "cnn-m-2048": "relu5",
    "vgg16": "relu5_3",
    "resnet50": "layer4",
}
"""The last layer of each backbone with maps, where the paper fuses (table 2: relu5)."""
_DROPOUT = 0.85
"""Of both towers (cnn_ucf101_fusion.m). The ResNets of this project have none by default."""


class TwoStreamFusion(ClipModel):
    """Fuses a tower over frames (N, 3, T, H, W) with one over stacks of flow (N, 2 L, T, H, W).

    `fusion_layers` are layers of the backbone, by the names in its `layers`. The scores (fc8, fc)
    may be fused too. `spatial` and `temporal` are whole backbones, without the layers that are not
    used. With `concat`, the next layer sees twice as many channels, and begins as one over the
    mean of both. With `bilinear`, a linear layer `fc` stands above the products.

    Without `pool_over_time`, the features of the T frames are averaged above all layers, and so are
    their scores. With two `towers`, the network answers twice, by the fused tower and by the
    temporal one. Their losses are added, and their scores are averaged, before the softmax, as in
    the release (cnn_train_dag.m).
    """

    def __init__(
        self,
        inputs: Sequence[ClipInput],
        num_classes: int,
        *,
        width: float = 1.0,
        dropout: float | None = None,
        crop_px: int = 224,
        backbone: BackboneName = "vgg16",
        fusion: StreamFusionKind = "conv3d",
        fusion_layers: str | None = None,
        fusion_init: FusionInit = "weighted-sum",
        pool_over_time: bool = True,
        towers: int = 2,
    ) -> None:
        super().__init__(inputs)
        make = functools.partial(
            _make_tower, backbone, num_classes, width=width, dropout=dropout, crop_px=crop_px
        )
        frames, fields = (_of_one_moment(one) for one in self.inputs)
        self.whole_towers = {
            "spatial": functools.partial(make, frames),
            "temporal": functools.partial(make, fields),
        }
        self.spatial, self.temporal = (build() for build in self.whole_towers.values())
        self.pool_over_time = pool_over_time
        self.num_towers = towers
        names = [layer.name for layer in self.spatial.layers]
        fused = _chosen(fusion_layers or _LAST_MAPS[backbone], names, fusion, backbone)
        last = names[-1]
        self.fuses_scores = last in fused
        self.fusion = nn.ModuleDict(
            {
                name: StreamFusion(
                    fusion, _channels(self.spatial, name), fusion_init, is_scores=name == last
                )
                for name in fused
            }
        )
        self._top_of_spatial = names.index(fused[0]) if fusion == "bilinear" else len(names) - 1
        keeps = towers == 2 or self.fuses_scores
        self._top_of_temporal = len(names) - 1 if keeps else names.index(fused[-1])
        sizes = [_channels(self.spatial, names[-2])]
        if fusion == "bilinear":
            sizes = [_channels(self.spatial, fused[0]) ** 2]
            self.dropout = nn.Dropout(_DROPOUT if dropout is None else dropout)
            self.fc = nn.Linear(sizes[0], num_classes)
        if keeps:
            sizes.append(_channels(self.temporal, names[-2]))
        if fusion == "concat":
            for name in fused:
                following = names.index(name) + 1
                while not self.spatial.layers[following].entries:
                    following += 1
                _widen(self.spatial, self.spatial.layers[following].entries)
            if following == len(names) - 1:
                sizes[0] *= 2
        self._sizes = sizes
        _cut(self.spatial, self.spatial.layers[self._top_of_spatial + 1 :])
        _cut(self.temporal, self.temporal.layers[self._top_of_temporal + 1 :])
        self.stages = tuple(stage for stage in self._staged(fused) if stage)

    def _staged(self, fused: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yields the stages of both towers side by side, each with the fusions behind it."""
        known = {name for name, _ in self.named_modules()}
        stage_of: dict[str, int] = {}
        number = 0
        for layer in self.spatial.layers[:-1]:
            number = next(
                (n for n, one in enumerate(self.spatial.stages) if set(one) & set(layer.modules)),
                number,  # a pooling belongs to the stage before it
            )
            stage_of[layer.name] = number
        for number, stage in enumerate(self.spatial.stages):
            modules = [f"{tower}.{one}" for tower in ("spatial", "temporal") for one in stage]
            yield tuple(module for module in modules if module in known)
            for name in fused:
                if stage_of.get(name) == number and [*self.fusion[name].parameters()]:
                    yield (f"fusion.{name}",)

    def extract_features(self, frames: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        """Returns the fused tower's features, and the temporal tower's if it goes on, (N, F)."""
        num_clips = len(frames)
        # The frames of all clips lie in one batch, those of a clip side by side.
        left, right = (x.transpose(1, 2).flatten(0, 1) for x in (frames, fields))
        last = len(self.spatial.layers) - 1
        for place, (layer, other) in enumerate(
            zip(self.spatial.layers[:last], self.temporal.layers[:last], strict=True)
        ):
            if place <= self._top_of_spatial:
                left = layer.run(self.spatial, left)  # (N T, C, ...)
            if place <= self._top_of_temporal:
                right = other.run(self.temporal, right)  # (N T, C, ...)
            if layer.name in self.fusion:
                left, right = self._fuse(layer.name, left, right, num_clips)
        parts = [left, right] if self._top_of_temporal == last else [left]
        return torch.cat([x.reshape(num_clips, -1, x.shape[1]).mean(1) for x in parts], 1)

    def _fuse(
        self, name: str, left: torch.Tensor, right: torch.Tensor, num_clips: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the fused map, and the temporal one, both over the frames that are left."""
        maps = [_over_time(x, num_clips) for x in (left, right)]  # (N, C, T, H, W)
        fused = self.fusion[name](*maps)
        if self.pool_over_time:
            # With the tower's own pooling that follows, this is the maximum over 2 x 2 x T.
            right = maps[1].amax(2)
            fused = fused.amax(2, keepdim=True) if fused.dim() == 5 else fused
            right = right if left.dim() == 4 else right.flatten(1)
        if fused.dim() == 2:
            return fused, right
        fused = fused.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)
        return (fused if left.dim() == 4 else fused.flatten(1)), right

    def answer(self, features: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, num_classes) of the fused tower; with two towers (N, 2, num_classes),
        those of the fused tower and of the temporal one."""
        left, *rest = torch.split(features, self._sizes, 1)
        top = self.spatial.layers[-1]
        is_whole = self._top_of_spatial == len(self.spatial.layers) - 1
        scores = top.run(self.spatial, left) if is_whole else self.fc(self.dropout(left))
        if not rest:
            return scores
        others = self.temporal.layers[-1].run(self.temporal, rest[0])
        if self.fuses_scores:
            maps = (x[:, :, None, None, None] for x in (scores, others))
            scores = self.fusion[top.name](*maps).flatten(1)
        return scores if self.num_towers == 1 else torch.stack([scores, others], 1)

    def answer_weights(self, num_answers: int) -> torch.Tensor:
        """Returns a one for each answer: the release adds the losses of both towers."""
        return torch.ones(num_answers)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Returns (N, num_classes) logits, the mean of the towers' logits."""
        logits = self.answer(features)
        return self.join_answers(logits) if logits.dim() == 3 else logits

    def replace_classifier(self, num_classes: int) -> None:
        """Replaces the classifiers of both towers, and the fusion of their scores."""
        last = len(self.spatial.layers) - 1
        if self._top_of_spatial == last:
            self.spatial.replace_classifier(num_classes)
        else:
            self.fc = nn.Linear(self.fc.in_features, num_classes).to(self.fc.weight)
        if self._top_of_temporal == last:
            self.temporal.replace_classifier(num_classes)
        if self.fuses_scores:
            name = self.spatial.layers[-1].name
            old = self.fusion[name]
            assert isinstance(old, StreamFusion)
            self.fusion[name] = old.for_channels(num_classes)


def _of_one_moment(one: ClipInput) -> ClipInput:
    """Returns what a tower sees of one of the T frames: the frame, or the stack around it."""
    if one.form != "volume":
        raise ConfigError(f"two-stream-fusion takes volumes, got a {one.form} for {one.name}")
    return dataclasses.replace(
        one, form="stack", num_frames=one.stack_length, frame_stride=1, stack_length=1
    )


def _make_tower(
    backbone: BackboneName,
    num_classes: int,
    clip: ClipInput,
    *,
    width: float,
    dropout: float | None,
    crop_px: int,
) -> ClipModel:
    """Makes a whole backbone."""
    if backbone == "resnet50":
        return resnet50([clip], num_classes, width=width, dropout=dropout or 0.0)
    dropout = _DROPOUT if dropout is None else dropout
    if backbone == "vgg16":
        return VGG16([clip], num_classes, width=width, dropout=dropout)
    return CNNM([clip], num_classes, width=width, dropout=dropout, crop_px=crop_px)


def _chosen(
    wanted: str, names: Sequence[str], fusion: StreamFusionKind, backbone: BackboneName
) -> tuple[str, ...]:
    """Returns the layers to fuse, in their order. Raises ConfigError for those that cannot be."""
    chosen = wanted.split(",")
    # Products of all pairs are for maps. Scores side by side are none of any class.
    maps_end = names.index(_LAST_MAPS[backbone]) + 1
    known = {"bilinear": names[:maps_end], "concat": names[:-1]}.get(fusion, names)
    if (
        not set(chosen) <= set(known)
        or len(set(chosen)) < len(chosen)
        or (fusion == "bilinear" and len(chosen) > 1)
    ):
        number = "one" if fusion == "bilinear" else "one or several"
        raise ConfigError(
            f"fusion_layers must be {number} of {', '.join(known)} for fusion {fusion} of "
            f"{backbone}, got {wanted!r}"
        )
    return tuple(name for name in names if name in chosen)


def _channels(tower: ClipModel, name: str) -> int:
    """Returns the channels that a layer gives: those of the last convolution up to it."""
    channels = 0
    for layer in tower.layers:
        for module in layer.modules:
            for one in tower.get_submodule(module).modules():
                if isinstance(one, nn.Conv2d):
                    channels = one.out_channels
                elif isinstance(one, nn.Linear):
                    channels = one.out_features
        if layer.name == name:
            break
    return channels


def _widen(tower: nn.Module, entries: Sequence[str]) -> None:
    """Doubles the inputs of convolutions or linear layers, which begin as those of the mean."""
    known = {name for name, _ in tower.named_modules()}
    for name in known.intersection(entries):
        old = tower.get_submodule(name)
        new: nn.Conv2d | nn.Linear
        if isinstance(old, nn.Conv2d):
            new = nn.Conv2d(
                *(2 * old.in_channels, old.out_channels, old.kernel_size),  # type: ignore[arg-type]
                stride=old.stride,  # type: ignore[arg-type]
                padding=old.padding,  # type: ignore[arg-type]
                bias=old.bias is not None,
            )
        else:
            assert isinstance(old, nn.Linear)
            new = nn.Linear(2 * old.in_features, old.out_features)
        with torch.no_grad():
            new.weight.copy_(torch.cat([old.weight, old.weight], 1) / 2)
            if new.bias is not None and old.bias is not None:
                new.bias.copy_(old.bias)
        parent, _, child = name.rpartition(".")
        setattr(tower.get_submodule(parent), child, new)


def _cut(tower: nn.Module, layers: Sequence[Layer]) -> None:
    """Takes layers out of a network."""
    for layer in layers:
        for name in layer.modules:
            parent, _, child = name.rpartition(".")
            delattr(tower.get_submodule(parent), child)


def _over_time(x: torch.Tensor, num_clips: int) -> torch.Tensor:
    """Returns maps or vectors (N T, C, ...) as (N, C, T, H, W), H = W = 1 for vectors."""
    x = x.reshape(num_clips, -1, *x.shape[1:]).transpose(1, 2)
    return x if x.dim() == 5 else x[..., None, None]
