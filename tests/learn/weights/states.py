"""State dicts of small networks, and what must be true once a file was loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from flowprep.errors import WeightsError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.i3d import I3D
from flowprep.learn.weights.load import LoadReport, load_weights_into
from tests.learn.inputs import volume

WIDTH = 1 / 16
RGB, FLOW = "RGB/inception_i3d/", "Flow/inception_i3d/"
State = dict[str, torch.Tensor]


def copy_state(model: nn.Module) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


def draw_state(model: nn.Module, seed: int = 0) -> State:
    """Returns a state dict as `model`'s, with other values."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.full_like(value, 5)
        for name, value in model.state_dict().items()
    }


def save(state: Mapping[str, torch.Tensor], path: Path) -> Path:
    safetensors.torch.save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def assert_same(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def assert_complete(report: LoadReport, model: nn.Module, names: set[str]) -> None:
    """Each tensor of the model is told of once, and each of the file is used or named."""
    told = Counter([*report.loaded, *report.converted, *report.missing])
    assert told == Counter(model.state_dict().keys())
    steps = {step for how in report.converted.values() for step in how.split(", ")}
    renamed = {step.removeprefix("from ") for step in steps if step.startswith("from ")}
    kept = {name for name, how in report.converted.items() if not how.startswith("from ")}
    used = {*report.loaded, *renamed, *(kept & names)}
    assert not used & set(report.unexpected)
    assert used | set(report.unexpected) == names


def assert_refused(model: ClipModel, path: Path, message: str) -> None:
    """Loading fails with a message that names the file, and has changed nothing."""
    before = copy_state(model)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights_into(model, path)
    assert str(path) in str(caught.value)
    assert_same(model.state_dict(), before)


@pytest.fixture
def small_i3d() -> I3D:
    return I3D(volume(2), 7, width=WIDTH)
