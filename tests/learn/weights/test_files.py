"""Files of weights are read whole or refused, and what is written is read again."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowprep.errors import StorageError, WeightsError
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.weights.files import read_weights, save_weights
from flowprep.learn.weights.load import load_weights_into
from tests.learn.inputs import stack
from tests.learn.weights.states import (
    WIDTH,
    State,
    assert_same,
    draw_state,
    save,
)


@pytest.fixture
def state() -> State:
    return {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num": torch.tensor(3)}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".bin"])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{name}": v for name, v in state.items()}},
        lambda state: {name: nn.Parameter(v, v.is_floating_point()) for name, v in state.items()},
        lambda state: {
            "format": "flowprep-checkpoint",
            "format_version": 1,
            "model": state,
            "training": {"optimizer": {"state": {}}},
        },
    ],
    ids=["plain", "ordered", "state_dict", "model", "module", "parameters", "flowprep"],
)
def test_what_torch_saves(
    tmp_path: Path, state: State, suffix: str, is_zip: bool, wrap: Callable[[State], Any]
) -> None:
    path = tmp_path / f"x{suffix}"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=is_zip)
    found = read_weights(path)
    assert_same(found, state)
    assert not any(value.requires_grad for value in found.values())


def test_safetensors(tmp_path: Path, state: State) -> None:
    assert_same(read_weights(save(state, tmp_path / "x.safetensors")), state)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kind", ["trap", "namespace", "module"])
def test_a_pickle_with_more_than_tensors_is_refused(
    tmp_path: Path, state: State, is_zip: bool, kind: str
) -> None:
    trap = tmp_path / "sprung"
    more = {
        "trap": Trap(trap),
        "namespace": argparse.Namespace(lr=0.1),
        "module": nn.Linear(2, 2),
    }[kind]
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state, "more": more}, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=r"can run any code.*safetensors") as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not trap.exists()


def test_a_damaged_file_of_torch_is_refused(tmp_path: Path, state: State) -> None:
    path = tmp_path / "x.pt"
    torch.save(state, path)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for position in rng.integers(0, len(good), 200):
        bad = bytearray(good)
        bad[position] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        try:
            found = read_weights(path)
        except WeightsError:
            num_refused += 1
        else:
            assert_same(found, state)  # padding, dates: what means nothing
    assert num_refused > 50
    for size in range(0, len(good), 37):
        path.write_bytes(good[:size])
        with pytest.raises(WeightsError, match="damaged"):
            read_weights(path)


def test_a_damaged_file_of_safetensors_is_refused(tmp_path: Path, state: State) -> None:
    path = save(state, tmp_path / "x.safetensors")
    good = path.read_bytes()
    for size in range(0, len(good), 7):
        path.write_bytes(good[:size])
        with pytest.raises(WeightsError, match="is damaged"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold a state dict.*got list"),
        (torch.zeros(2), "must hold a state dict.*got Tensor"),
        ({"epoch": 3}, "got no tensor but 'epoch'"),
        ({}, "got no tensor but nothing"),
        ({"a": torch.eye(2).to_sparse()}, "tensor a must be dense"),
        ({"a": torch.zeros(2, device="meta")}, "on meta"),
    ],
)
def test_files_of_torch_without_a_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "x.pt")


def test_paths_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "x.h5").touch()
    (tmp_path / "folder.pt").mkdir()
    for name, message in (
        ("x.h5", r"got '\.h5'; weights come as"),
        ("folder.pt", "is not a file"),
        ("none.pt", "does not exist"),
        ("none.index", "does not exist"),
        ("none", "does not exist"),
    ):
        with pytest.raises(WeightsError, match=message):
            read_weights(tmp_path / name)


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    model = resnet18(stack(2), 5, width=WIDTH)
    model.load_state_dict(draw_state(model))
    model.tied = model.fc.weight
    save_weights(model, tmp_path / "x.safetensors")
    assert_same(read_weights(tmp_path / "x.safetensors"), model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    again = resnet18(stack(2), 5, width=WIDTH)
    report = load_weights_into(again, tmp_path / "x.safetensors")
    assert report.unexpected == ("tied",)
    assert torch.equal(again.fc.weight, model.fc.weight)


def test_saving_where_it_cannot(tmp_path: Path) -> None:
    model = resnet18(stack(2), 5, width=WIDTH)
    with pytest.raises(WeightsError, match=r"written as \.safetensors, got 'x\.pt'"):
        save_weights(model, tmp_path / "x.pt")
    (tmp_path / "y.safetensors").mkdir()
    with pytest.raises(StorageError):
        save_weights(model, tmp_path / "y.safetensors")
