"""Attention in neighborhoods is attention to all tokens with a mask."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.layers.neighborhood_attention import (
    Attention,
    Grid,
    Neighborhood,
    lattices,
    lines,
    windows,
)

CHANNELS, HEADS = 12, 3
Place = tuple[int, int, int]


def on_a_line(axis: int) -> Callable[[Place, Place, Grid], bool]:
    return lambda one, other, _: all(
        one[other_axis] == other[other_axis] for other_axis in range(3) if other_axis != axis
    )


def on_a_lattice(one: Place, other: Place, _: Grid) -> bool:
    return all((a - b) % stride == 0 for a, b, stride in zip(one, other, (2, 2, 3), strict=True))


def in_a_window(one: Place, other: Place, grid: Grid) -> bool:
    """2 x 3 places: one above, then one on either side, all moved inside."""
    top = min(max(one[1] - 1, 0), grid[1] - 2)
    left = min(max(one[2] - 1, 0), grid[2] - 3)
    return top <= other[1] < top + 2 and left <= other[2] < left + 3


CASES: dict[str, tuple[Callable[[Grid], Neighborhood], Callable[[Place, Place, Grid], bool]]] = {
    "time": (lambda grid: lines(grid, 0), on_a_line(0)),
    "height": (lambda grid: lines(grid, 1), on_a_line(1)),
    "width": (lambda grid: lines(grid, 2), on_a_line(2)),
    "windows": (lambda grid: windows(grid, (2, 3)), in_a_window),
    "lattices": (lambda grid: lattices(grid, (2, 2, 3)), on_a_lattice),
}


def mask(sees: Callable[[Place, Place, Grid], bool], grid: Grid) -> torch.Tensor:
    """What each token attends to, token by token: the class token and what it sees."""
    places: list[Place] = [
        (t, h, w) for t, h, w in itertools.product(*(range(length) for length in grid))
    ]
    wanted = torch.ones(1 + len(places), 1 + len(places), dtype=torch.bool)
    for i, one in enumerate(places):
        for j, other in enumerate(places):
            wanted[1 + i, 1 + j] = sees(one, other, grid)
    return wanted


@pytest.mark.parametrize("grid", [(2, 4, 5), (3, 2, 3), (1, 5, 4)])
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_neighborhood_is_a_mask(name: str, grid: Grid) -> None:
    torch.manual_seed(3)
    make, sees = CASES[name]
    layer = Attention(CHANNELS, HEADS)
    x = torch.randn(2, 1 + grid[0] * grid[1] * grid[2], CHANNELS)

    found = layer(x, make(grid))

    query, key, value = (
        one.unflatten(2, (HEADS, -1)).transpose(1, 2) for one in layer.qkv(x).chunk(3, 2)
    )
    y = F.scaled_dot_product_attention(query, key, value, mask(sees, grid))
    torch.testing.assert_close(found, layer.proj(y.transpose(1, 2).flatten(2)))


@torch.no_grad()
def test_a_neighborhood_of_everything_is_attention_to_all_tokens() -> None:
    torch.manual_seed(4)
    layer = Attention(CHANNELS, HEADS)
    for grid, near in (
        ((3, 2, 4), windows((3, 2, 4), (2, 4))),
        ((3, 2, 4), lattices((3, 2, 4), (1, 1, 1))),
        ((6, 1, 1), lines((6, 1, 1), 0)),
        ((1, 1, 5), lines((1, 1, 5), 2)),
        ((1, 4, 1), lines((1, 4, 1), 1)),
    ):
        x = torch.randn(2, 1 + grid[0] * grid[1] * grid[2], CHANNELS)
        torch.testing.assert_close(layer(x, near), layer(x))


def test_every_patch_has_a_neighborhood_of_one_size() -> None:
    """L+G of 224 px: 8 x 7 x 7 patches around each, then 4 x 7 x 7 of the clip."""
    grid = (8, 14, 14)
    for near, size in ((windows(grid, (7, 7)), 8 * 7 * 7), (lattices(grid, (2, 2, 2)), 4 * 7 * 7)):
        patches = torch.cat([queries.flatten() for queries, _ in near.groups])
        assert patches.sort().values.tolist() == list(range(1, 1 + 8 * 14 * 14))
        for queries, keys in near.groups:
            assert keys.shape[1] == 1 + size
            assert (keys[:, 0] == 0).all(), "the class token"
            for own, seen in zip(queries, keys, strict=True):
                assert set(own.tolist()) <= set(seen.tolist())
                assert len(set(seen.tolist())) == 1 + size


def test_gradients_reach_all_tokens_in_half_precision() -> None:
    layer = Attention(CHANNELS, HEADS)
    x = torch.randn(2, 1 + 24, CHANNELS, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, windows((2, 3, 4), (2, 2)))
    out.float().square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(2) > 0).all()
