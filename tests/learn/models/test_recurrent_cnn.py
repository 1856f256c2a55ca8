"""The network whose layers are all recurrent: its steps, its cells, and any length of clips."""

from __future__ import annotations

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.models.recurrent_cnn import RecurrentCNN
from flowprep.learn.network_options import CellName
from tests.learn.inputs import volume

CELLS: list[CellName] = ["plain", "gru", "lstm"]


def small(cell: CellName) -> RecurrentCNN:
    torch.manual_seed(0)
    return RecurrentCNN(volume(3), 5, width=0.125, cell=cell).eval()


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_no_step_depends_on_later_ones(cell: CellName) -> None:
    model = small(cell)
    clip = torch.randn(2, 3, 6, 32, 32)
    maps = model.forward_maps(clip)
    assert maps.shape == (2, 6, 32, 2, 2)

    later = clip.clone()
    later[:, :, 4:] = torch.randn(2, 3, 2, 32, 32)

    torch.testing.assert_close(model.forward_maps(later)[:, :4], maps[:, :4])
    assert not torch.allclose(model.forward_maps(later)[:, 4], maps[:, 4])
    for frames in (1, 4):  # a shorter clip ends at that step
        features = model.extract_features(clip[:, :, :frames])
        torch.testing.assert_close(features, maps[:, frames - 1].mean((2, 3)))


@torch.no_grad()
@pytest.mark.parametrize("cell", CELLS)
def test_the_order_of_frames_matters_and_of_one_frame_there_is_none(cell: CellName) -> None:
    model = small(cell)
    clip = torch.randn(2, 3, 4, 32, 32)

    assert model(clip).shape == (2, 5)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-6)
    assert torch.equal(model(clip[:, :, :1]), model(clip[:, :, :1].flip(2)))


@pytest.mark.parametrize("cell", CELLS)
def test_every_layer_remembers(cell: CellName) -> None:
    """A layer without memory would be blind to what was before the last frame."""
    model = small(cell)
    clip = torch.randn(2, 3, 3, 32, 32)
    model(clip).sum().backward()
    for layer in model.levels:
        memory = layer.before.weight.grad
        assert memory is not None
        assert all(gate.abs().sum() > 0 for gate in memory.chunk(layer.num_gates))


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="cell must be one of plain, gru, lstm"):
        create_model("recurrent-cnn", stream="flow", num_classes=2, cell="rnn")
