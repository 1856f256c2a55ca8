"""The non-local block of Wang et al., "Non-local Neural Networks" (CVPR 2018), and its places.

A block adds to each position x_i what the position finds at all others (section 3.1):

    z_i = x_i + BN(W y_i),   y_i = 1/C sum_j f(x_i, x_j) g(x_j)

The kinds differ in f and C (section 3.2), with Q positions j:

    embedded-gaussian  f = exp(theta_i . phi_j)          C = sum_j f, so a softmax over j
    gaussian           f = exp(x_i . x_j)                C = sum_j f
    dot-product        f = theta_i . phi_j               C = Q
    concatenation      f = ReLU(w . [theta_i, phi_j])    C = Q

theta, phi and g have half the channels. The x_j are halved in H and W by max pooling (section 3.3).
In two details the authors' code differs from the code of others, and each has published weights:

    slowfast   pools, then projects; divides theta . phi by the root of its length, which the paper
               does not (video-nonlocal-net, nonlocal_helper.py; SlowFast, nonlocal_helper.py)
    tsm        projects, then pools; does not divide (TSM, ops/non_local.py; the I3D and TSM of
               mmaction2)
    mmaction2  projects, then pools; divides (mmaction2's SlowOnly)

Only `embedded-gaussian` is ever divided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.network_options import (
    NonLocalKind,
    NonLocalOptions,
    NonLocalOver,
    NonLocalStyle,
)

__all__ = ["NonLocal", "add_non_local", "non_local_places"]

NUM_BLOCKS = 5
"""The published number: every other block of ResNet-50's two middle stages (section 5.1)."""


class NonLocal(nn.Module):
    """Adds to each position of (N, C, T, H, W) what it finds at other positions.

    It begins as the identity: the scale of its batch norm is 0 (section 4.1).
    """

    def __init__(
        self,
        channels: int,
        kind: NonLocalKind = "embedded-gaussian",
        over: NonLocalOver = "both",
        style: NonLocalStyle = "slowfast",
    ) -> None:
        super().__init__()
        self.kind = kind
        self.over = over
        self.pools_first = style == "slowfast"
        self.divides = kind == "embedded-gaussian" and style != "tsm"
        inner = max(1, channels // 2)
        if kind != "gaussian":
            self.theta = nn.Conv3d(channels, inner, 1)
            self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        if kind == "concatenation":
            self.pair = nn.Conv2d(2 * inner, 1, 1, bias=False)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta, phi, g = self._project(x)
        weights = self._compare(self._fold(theta), self._fold(phi))  # (M, P, Q)
        seen = torch.bmm(self._fold(g), weights.transpose(1, 2))  # (M, C/2, P)
        seen = self._unfold(seen, x)  # (N, C/2, T, H, W)
        added: torch.Tensor = self.bn(self.out(seen))  # (N, C, T, H, W)
        return x + added

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns theta, (N, C/2, T, H, W), and phi and g, which are halved in H and W."""
        pooled = self._pool(x) if self.pools_first or self.kind == "gaussian" else x
        g = self.g(pooled if self.pools_first else x)
        g = g if self.pools_first else self._pool(g)
        if self.kind == "gaussian":
            return x, pooled, g
        phi = self.phi(pooled)
        return self.theta(x), phi if self.pools_first else self._pool(phi), g

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.over == "time":
            return x  # A halved map has no place for each place of the whole one.
        return F.max_pool3d(x, (1, min(2, x.shape[3]), min(2, x.shape[4])))

    def _compare(self, theta: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        """Returns f(x_i, x_j) / C, (M, P, Q), of (M, D, P) and (M, D, Q)."""
        if self.kind == "concatenation":
            # w . [theta, phi] is a sum of two, so no pair is stored with its channels.
            ours, theirs = self.pair.weight.flatten().chunk(2)
            sums = (ours @ theta).unsqueeze(2) + (theirs @ phi).unsqueeze(1)  # (M, P, Q)
            return F.relu(sums) / phi.shape[2]
        products = torch.bmm(theta.transpose(1, 2), phi)  # (M, P, Q)
        if self.kind == "dot-product":
            return products / phi.shape[2]
        if self.divides:
            products = products * theta.shape[1] ** -0.5
        weights: torch.Tensor = products.softmax(2)
        return weights

    def _fold(self, x: torch.Tensor) -> torch.Tensor:
        """Returns (M, C, P): the P positions of each of the M sets that are compared."""
        if self.over == "space":
            return x.transpose(1, 2).flatten(0, 1).flatten(2)  # (N T, C, H W)
        if self.over == "time":
            return x.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (N H W, C, T)
        return x.flatten(2)  # (N, C, T H W)

    def _unfold(self, folded: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        n, _, t, h, w = like.shape
        if self.over == "space":
            return folded.reshape(n, t, -1, h, w).transpose(1, 2)
        if self.over == "time":
            return folded.reshape(n, h, w, -1, t).permute(0, 3, 4, 1, 2)
        return folded.reshape(n, -1, t, h, w)


# ---- places in a network


def add_non_local(
    network: nn.Module,
    stages: Sequence[Sequence[str]],
    options: NonLocalOptions | None,
    *,
    style: NonLocalStyle = "slowfast",
    num_frames: Callable[[str], int] | None = None,
) -> None:
    """Puts a non-local block behind each place in the network that the options name.

    A place is a block of one of `stages`, as in `ClipModel.stages`. The non-local block belongs to
    that block, as in `layer2.1.non_local.theta.weight`, so no other tensor changes its name.
    `style` is that of the network's authors. `num_frames` is for a 2D network, which sees T frames
    of each clip as a batch of (N T, C, H, W): it returns T at a place.

    Raises ConfigError for a place that the network lacks, and for more blocks than it has places.
    """
    if options is None or not options.non_local:
        return
    style = options.non_local_style or style
    for place in non_local_places(network, stages, options.non_local_blocks, style):
        block = network.get_submodule(place)
        layer = NonLocal(
            _num_channels(block), options.non_local_kind, options.non_local_over, style
        )
        block.add_module("non_local", layer)
        block.register_forward_hook(_Behind(None if num_frames is None else num_frames(place)))


class _Behind:
    """Shows a block's result to the block's own non-local block."""

    def __init__(self, num_frames: int | None) -> None:
        self.num_frames = num_frames

    def __call__(self, block: nn.Module, args: object, result: torch.Tensor) -> torch.Tensor:
        layer = cast(Callable[[torch.Tensor], torch.Tensor], block.non_local)
        if self.num_frames is None:
            return layer(result)
        clips = result.reshape(-1, self.num_frames, *result.shape[1:])  # (N, T, C, H, W)
        seen = layer(clips.transpose(1, 2))  # (N, C, T, H, W)
        return seen.transpose(1, 2).flatten(0, 1)  # (N T, C, H, W)


def non_local_places(
    network: nn.Module, stages: Sequence[Sequence[str]], blocks: str | None, style: NonLocalStyle
) -> list[str]:
    """Returns the names of the blocks that a non-local block follows.

    `blocks` is their number, their names, or None for the default of `NonLocalOptions`. Two of five
    go to the third-last stage, the others to the second-last: 5 of ResNet-50 are 2 of layer2 and 3
    of layer3, and 10 are all of both (section 5.1). Within a stage they are equally far apart.
    SlowFast's stand behind the last block of each part, TSM's and mmaction2's behind the first. A
    single one stands before the last block (section 5.1).
    """
    if blocks is not None and not blocks.isdecimal():
        known = [place for stage in stages for place in _places(network, stage)]
        if missing := [name for name in blocks.split(",") if name not in known]:
            raise ConfigError(
                f"non_local_blocks must be layers of the network, which are {', '.join(known)}, "
                f"got {', '.join(missing)}"
            )
        return list(dict.fromkeys(blocks.split(",")))
    earlier, later = ([*_places(network, stage)] for stage in stages[-3:-1])
    most = len(earlier) + len(later)
    number = min(NUM_BLOCKS, max(1, most // 2)) if blocks is None else int(blocks)
    if number == 1:
        return later[-2:][:1]
    share = max(number - len(later), min(len(earlier), round(number * 2 / 5)))
    if share > len(earlier):
        raise ConfigError(
            f"non_local_blocks must be at most {most} for this network, or names of its layers, "
            f"got {number}"
        )
    return [*_spread(earlier, share, style), *_spread(later, number - share, style)]


def _spread(places: Sequence[str], number: int, style: NonLocalStyle) -> list[str]:
    if number == 0:
        return []
    part = len(places) // number
    first = part - 1 if style == "slowfast" else 0
    return list(places[first::part][:number])


def _places(network: nn.Module, stage: Sequence[str]) -> Iterator[str]:
    """Yields the names of a stage's blocks: the parts of a sequence of blocks, or the module."""
    for name in stage:
        module = network.get_submodule(name)
        parts = [part for part, child in module.named_children() if _is_block(child)]
        if isinstance(module, nn.Sequential) and parts:
            yield from (f"{name}.{part}" for part in parts)
        elif _is_block(module):
            yield name


def _is_block(module: nn.Module) -> bool:
    """Whether a module is made of layers, and so none itself, or says how many channels it has.

    A sequence is none: what is added to it would run as its last part, and once more behind it.
    """
    is_sequence = isinstance(module, nn.Sequential)
    return not is_sequence and (bool(module._modules) or hasattr(module, "channels"))


def _num_channels(block: nn.Module) -> int:
    """Returns the channels of a block's result: those of its last batch norm, unless it says."""
    own = getattr(block, "channels", None)
    if isinstance(own, int):
        return own
    norms = [one for one in block.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    return norms[-1].num_features
