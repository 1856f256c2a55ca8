"""Attention of tokens to all others, or to those of a neighborhood in a clip.

Tokens are those of Dosovitskiy et al. (ICLR 2021) and of Bertasius et al. (ICML 2021): token 0 is
the class token, which has no place in the clip. Behind it are the patches of T frames of H x W
patches, frame by frame and row by row. Whatever the neighborhood, each patch also attends to the
class token, and the class token attends to all tokens (Bertasius et al., equation 5: the token
(0, 0) is among those that any patch is compared with).

    lines       the patches along one axis                             axial attention
    windows     all frames, H' x W' patches around the patch           local attention
    lattices    every s-th patch along each axis, the patch included   sparse global attention
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["Attention", "Neighborhood", "lattices", "lines", "windows"]

Grid = tuple[int, int, int]
"""The numbers of frames, rows and columns of patches."""


@dataclass(frozen=True)
class Neighborhood:
    """Which tokens each patch attends to. Patches with the same ones make a group."""

    groups: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Groups of one size together: the patches of G groups (G, Q), and the tokens that each group
    attends to (G, K), both as positions among the tokens."""
    places: torch.Tensor
    """(1 + T H W,) the place of each token behind the groups' order, with the class token first."""

    def to(self, device: torch.device) -> Neighborhood:
        """Returns the same on another device."""
        groups = tuple((queries.to(device), keys.to(device)) for queries, keys in self.groups)
        return Neighborhood(groups, self.places.to(device))


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves: (N, L, D) to (N, L, D).

    Named as in timm's ViT: `qkv` makes queries, keys and values, `proj` joins the heads.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor, neighborhood: Neighborhood | None = None) -> torch.Tensor:
        """Attends to all tokens, or to those of a neighborhood."""
        joint: torch.Tensor = self.qkv(x)  # (N, L, 3 D)
        parts = joint.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts  # (N, heads, L, D / heads) each
        if neighborhood is None:
            y = F.scaled_dot_product_attention(query, key, value)
        else:
            y = _attend(query, key, value, neighborhood)
        joined: torch.Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return joined


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, neighborhood: Neighborhood
) -> torch.Tensor:
    """Returns (N, heads, L, D / heads) of the same."""
    parts = [F.scaled_dot_product_attention(query[:, :, :1], key, value)]
    for queries, keys in neighborhood.groups:
        # Groups lie beside the heads: attention over four dimensions has fast kernels.
        part = F.scaled_dot_product_attention(
            query[:, :, queries].flatten(1, 2),
            key[:, :, keys].flatten(1, 2),
            value[:, :, keys].flatten(1, 2),
        )  # (N, heads G, Q, D / heads)
        parts.append(part.reshape(len(query), query.shape[1], -1, query.shape[3]))
    return torch.cat(parts, 2)[:, :, neighborhood.places]


def lines(grid: Grid, axis: int) -> Neighborhood:
    """Returns the patches along one axis: 0 for time, 1 for height, 2 for width."""
    along = _patches(grid).movedim(axis, 2).flatten(0, 1)  # (G, Q)
    return _join((line[None], line[None]) for line in along)


def windows(grid: Grid, size: tuple[int, int]) -> Neighborhood:
    """Returns the patches of all frames in H' x W' = `size` places around each patch.

    At the borders a window is moved inside, so that each has the same number of patches. A window
    of an even side has one patch more before its own patch than after it.
    """
    patches = _patches(grid)
    return _join(
        (patches[:, rows, columns].reshape(1, -1), patches[:, high, wide].reshape(1, -1))
        for (rows, high), (columns, wide) in itertools.product(
            _spans(grid[1], size[0]), _spans(grid[2], size[1])
        )
    )


def lattices(grid: Grid, strides: Grid) -> Neighborhood:
    """Returns every s-th patch along each axis, counted from the patch itself.

    So patches are in s_t x s_h x s_w lattices, and attend to those of their own.
    """
    patches = _patches(grid)
    parts = (
        patches[first::time, top::height, left::width].reshape(1, -1)
        for time, height, width in [strides]
        for first, top, left in itertools.product(range(time), range(height), range(width))
    )
    return _join((part, part) for part in parts if part.numel())


def _patches(grid: Grid) -> torch.Tensor:
    """Returns the position of each patch among the tokens, (T, H, W)."""
    frames, height, width = grid
    count = frames * height * width
    return torch.arange(1, count + 1, device="cpu").view(grid)


def _spans(length: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Yields the places along an axis that share a window, and this window."""
    starts = [min(max(place - size // 2, 0), length - size) for place in range(length)]
    for start, places in itertools.groupby(range(length), starts.__getitem__):
        own = list(places)
        yield slice(own[0], own[-1] + 1), slice(start, start + size)


def _join(groups: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Neighborhood:
    """Joins groups (1, Q) and (1, K) without the class token to a neighborhood with it."""
    by_size: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for queries, keys in groups:
        with_class = F.pad(keys, (1, 0))  # token 0
        by_size.setdefault((queries.numel(), keys.numel()), []).append((queries, with_class))
    joined = tuple(
        (_cat(queries for queries, _ in same), _cat(keys for _, keys in same))
        for same in by_size.values()
    )
    order = [torch.zeros(1, dtype=torch.int64, device="cpu")]
    order += [queries.flatten() for queries, _ in joined]
    return Neighborhood(joined, torch.cat(order).argsort())


def _cat(parts: Iterator[torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(parts))
