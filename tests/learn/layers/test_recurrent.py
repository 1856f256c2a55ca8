"""Recurrent layers against PyTorch's cells, and what each step may see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.layers.recurrent import (
    BatchNormLSTM,
    ConvGRU,
    ConvLSTM,
    ConvRecurrent,
    ConvRNN,
)

CELLS = [(ConvRNN, nn.RNNCell), (ConvGRU, nn.GRUCell), (ConvLSTM, nn.LSTMCell)]


def filled(layer: ConvRecurrent, cell: nn.RNNCellBase) -> ConvRecurrent:
    """A layer with the weights of one of PyTorch's cells."""
    state = {
        f"{ours}.{kind}": getattr(cell, f"{kind}_{theirs}")[
            (..., None, None) if kind == "weight" else ...
        ]
        for ours, theirs in (("below", "ih"), ("before", "hh"))
        for kind in ("weight", "bias")
    }
    layer.load_state_dict(state)
    return layer


def run_cell(cell: nn.RNNCellBase, x: torch.Tensor) -> torch.Tensor:
    """The outputs of a cell at every step of (N, T, C)."""
    state = None
    outputs = []
    for step in x.unbind(1):
        state = cell(step, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs, 1)


@torch.no_grad()
@pytest.mark.parametrize(("layer", "cell"), CELLS)
def test_windows_of_one_place_are_pytorchs_cells(
    layer: type[ConvRecurrent], cell: type[nn.RNNCellBase]
) -> None:
    torch.manual_seed(0)
    theirs = cell(5, 3, True)
    ours = filled(layer(5, 3, 1, state_kernel=1), theirs)
    x = torch.randn(2, 4, 5, 3, 2)

    expected = run_cell(theirs, x.permute(0, 3, 4, 1, 2).flatten(0, 2))  # (N H W, T, C)

    maps = ours(x).permute(0, 3, 4, 1, 2).flatten(0, 2)
    torch.testing.assert_close(maps, expected)


@torch.no_grad()
def test_a_gate_before_the_product_is_one_behind_it_if_channels_do_not_mix() -> None:
    """U (r h) = r (U h) for a diagonal U; so this GRU too is PyTorch's then, and only then."""
    torch.manual_seed(0)
    theirs = nn.GRUCell(5, 3)
    theirs.bias_hh.zero_()
    theirs.weight_hh[6:] = torch.diag(torch.randn(3))
    ours = ConvGRU(5, 3, 1, state_kernel=1)
    ours.resets_state = True
    x = torch.randn(2, 4, 5, 1, 1)

    found = filled(ours, theirs)(x)[..., 0, 0]

    torch.testing.assert_close(found, run_cell(theirs, x[..., 0, 0]))
    theirs.weight_hh[6:] = torch.randn(3, 3)
    assert not torch.allclose(filled(ours, theirs)(x)[..., 0, 0], run_cell(theirs, x[..., 0, 0]))


@torch.no_grad()
@pytest.mark.parametrize("layer", [ConvRNN, ConvGRU, ConvLSTM])
def test_a_step_sees_its_neighborhood_and_nothing_later(layer: type[ConvRecurrent]) -> None:
    torch.manual_seed(0)
    ours = layer(2, 3, 3, stride=2)
    x = torch.randn(1, 4, 2, 8, 8)
    maps = ours(x)
    assert maps.shape == (1, 4, 3, 4, 4)

    changed = x.clone()
    changed[:, 2, :, 0, 0] += 1
    difference = (ours(changed) - maps).abs().amax((0, 2))  # (T, H, W)

    assert not difference[:2].any()
    assert difference[2, 0, 0] > 0
    assert not difference[2, 1:].any()
    # One step later it has gone one place further, through the window of 3 x 3.
    assert difference[3, 1, 1] > 0
    assert not difference[3, 2:].any()
    torch.testing.assert_close(ours(x[:, :1]), maps[:, :1])


def without_norms(layer: BatchNormLSTM) -> BatchNormLSTM:
    """The layer with norms that change nothing: their means are 0, their variances and scales 1."""
    for norm in (layer.norm_ih, layer.norm_hh, layer.norm_c):
        nn.init.ones_(norm.weight)
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)
    return layer.eval()


@torch.no_grad()
def test_an_lstm_without_its_norms_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours = without_norms(BatchNormLSTM(5, 3, num_steps=2))
    theirs = nn.LSTMCell(5, 3)
    nn.init.zeros_(theirs.bias_hh)
    for name in ("weight_ih", "weight_hh"):
        getattr(ours, name).copy_(getattr(theirs, name))
    ours.bias.copy_(theirs.bias_ih)
    x = torch.randn(4, 6, 5)

    torch.testing.assert_close(ours(x), run_cell(theirs, x))


def test_each_step_of_an_lstm_has_its_own_statistics_and_later_ones_the_last() -> None:
    torch.manual_seed(0)
    layer = BatchNormLSTM(5, 3, num_steps=3)
    assert layer.norm_ih.weight.unique().tolist() == pytest.approx([0.1])
    x = torch.randn(8, 3, 5) + torch.tensor([0.0, 5.0, -5.0])[:, None]
    with torch.no_grad():
        seen = torch.nn.functional.linear(x, layer.weight_ih)
        layer(x)
    assert layer.norm_ih.running_mean is not None
    torch.testing.assert_close(layer.norm_ih.running_mean, 0.1 * seen.mean(0))

    layer.eval()
    longer = torch.cat([x, x[:, -1:]], 1)
    with torch.no_grad():
        before = layer(longer)
        layer.norm_ih.running_mean[1] += 1
        second = layer(longer)
        layer.norm_ih.running_mean[1] -= 1
        layer.norm_ih.running_mean[2] += 1
        third = layer(longer)
    changed = [(one - before).abs().amax((0, 2)) > 1e-6 for one in (second, third)]
    assert [one.tolist() for one in changed] == [
        [False, True, True, True],
        [False, False, True, True],
    ]
    # The fourth step has the third one's statistics: its own input is shifted as well.
    torch.testing.assert_close(layer.norm_ih.at(3, seen[:, 2]), layer.norm_ih.at(2, seen[:, 2]))
