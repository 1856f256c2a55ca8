"""DeepMind's TensorFlow checkpoints arrive in I3D."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.weights.files import read_weights
from flowprep.learn.weights.kinetics_i3d import tensorflow_i3d_names
from flowprep.learn.weights.load import load_weights_into
from tests.learn.inputs import stack, volume
from tests.learn.weights.states import (
    FLOW,
    RGB,
    WIDTH,
    assert_complete,
    assert_refused,
    assert_same,
    copy_state,
    small_i3d,
)
from tests.learn.weights.test_tensorflow import write_bundle

__all__ = ["small_i3d"]


def tensorflow_i3d(model: I3D, scope: str, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Returns random variables in the shapes that kinetics-i3d's would have for `model`."""
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    variables: dict[str, NDArray[Any]] = {}
    for theirs, ours in tensorflow_i3d_names(scope).items():
        shape = shapes[ours]
        if len(shape) == 5:
            num_outputs, num_inputs, *window = shape
            shape = (*window, num_inputs, num_outputs)
        variables[theirs] = rng.standard_normal(shape, np.float32)
    return variables


def test_the_names_of_kinetics_i3d() -> None:
    names = tensorflow_i3d_names(FLOW)
    assert len(names) == len(set(names.values())) == 230
    assert Counter(name.rsplit("/", 1)[1] for name in names) == {
        "w": 58,
        "beta": 57,
        "moving_mean": 57,
        "moving_variance": 57,
        "b": 1,
    }
    # Names that DeepMind's checkpoints have; the second is the quirk of i3d.py's Mixed_5b.
    assert {
        f"{FLOW}Conv3d_1a_7x7/conv_3d/w": "Conv3d_1a_7x7.conv3d.weight",
        f"{FLOW}Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w": "Mixed_5b.b2b.conv3d.weight",
        f"{FLOW}Mixed_5c/Branch_2/Conv3d_0b_3x3/conv_3d/w": "Mixed_5c.b2b.conv3d.weight",
        f"{FLOW}Mixed_3b/Branch_3/Conv3d_0b_1x1/batch_norm/beta": "Mixed_3b.b3b.bn.bias",
        f"{FLOW}Mixed_4f/Branch_0/Conv3d_0a_1x1/batch_norm/moving_variance": (
            "Mixed_4f.b0.bn.running_var"
        ),
        f"{FLOW}Logits/Conv3d_0c_1x1/conv_3d/b": "logits.conv3d.bias",
    }.items() <= names.items()
    assert f"{FLOW}Mixed_5b/Branch_2/Conv3d_0b_3x3/conv_3d/w" not in names
    assert tensorflow_i3d_names().keys() == {name.removeprefix(FLOW) for name in names}


def test_every_name_is_one_of_the_model() -> None:
    state = I3D(volume(2), 400, width=WIDTH).state_dict()
    rest = state.keys() - set(tensorflow_i3d_names().values())
    assert Counter(name.rsplit(".", 2)[1:][1] for name in rest) == {
        "weight": 57,
        "num_batches_tracked": 57,
    }


@pytest.mark.parametrize(
    ("scope", "in_channels", "num_elements"), [(FLOW, 2, 12_682_592), (RGB, 3, 12_704_544)]
)
def test_a_checkpoint_of_deepmind_s_size(
    tmp_path: Path, scope: str, in_channels: int, num_elements: int
) -> None:
    model = I3D(volume(in_channels), 400)
    variables = tensorflow_i3d(model, scope)
    assert sum(value.size for value in variables.values()) == num_elements
    write_bundle(tmp_path / "model.ckpt", variables, block_bytes=2048)
    report = load_weights_into(model, tmp_path / "model.ckpt")
    assert_complete(report, model, set(variables))
    assert not report.unexpected
    assert {name.rsplit(".", 1)[1] for name in report.missing} == {"num_batches_tracked"}
    state = model.state_dict()
    for theirs, ours in tensorflow_i3d_names(scope).items():
        wanted = variables[theirs]
        if wanted.ndim == 5:
            wanted = np.einsum("thwio->oithw", wanted)
        np.testing.assert_array_equal(state[ours].numpy(), wanted)
    for name, value in state.items():
        if name.endswith(".bn.weight"):
            assert torch.equal(value, torch.ones_like(value))
            assert report.converted[name] == "1: the file's batch norms have no scale"


@pytest.mark.parametrize("given", ["model.ckpt", "model.ckpt.index", "model.ckpt.meta"])
def test_a_checkpoint_by_any_of_its_files(tmp_path: Path, small_i3d: I3D, given: str) -> None:
    write_bundle(tmp_path / "model.ckpt", tensorflow_i3d(small_i3d, FLOW))
    (tmp_path / "model.ckpt.meta").touch()
    assert len(load_weights_into(small_i3d, tmp_path / given).converted) == 287
    assert len(read_weights(tmp_path / given)) == 230


def test_the_layout_of_the_600_classes_checkpoint(tmp_path: Path, small_i3d: I3D) -> None:
    # No scope, norms of (1, 1, 1, 1, C), and a slot of the optimizer for each trained variable.
    variables = tensorflow_i3d(I3D(volume(2), 9, width=WIDTH), "")
    for name in list(variables):
        if "batch_norm" in name:
            variables[name] = variables[name].reshape(1, 1, 1, 1, -1)
        if name.endswith(("/w", "/b", "/beta")):
            variables[f"{name}/Momentum"] = np.zeros_like(variables[name])
    write_bundle(tmp_path / "x", variables)
    fresh = copy_state(small_i3d)
    report = load_weights_into(small_i3d, tmp_path / "x")
    assert_complete(report, small_i3d, set(variables))
    assert sum(name.endswith("/Momentum") for name in report.unexpected) == 116
    assert "shape (9,) in the file, (7,) in the model" in report.missing["logits.conv3d.bias"]
    state = small_i3d.state_dict()
    assert torch.equal(state["logits.conv3d.weight"], fresh["logits.conv3d.weight"])
    np.testing.assert_array_equal(
        state["Mixed_4c.b2a.bn.running_var"].numpy(),
        variables["Mixed_4c/Branch_2/Conv3d_0a_1x1/batch_norm/moving_variance"].ravel(),
    )


def test_tensorflow_s_rgb_into_flow(tmp_path: Path, small_i3d: I3D) -> None:
    variables = tensorflow_i3d(I3D(volume(3), 7, width=WIDTH), RGB)
    write_bundle(tmp_path / "x", variables)
    report = load_weights_into(small_i3d, tmp_path / "x")
    first = "Conv3d_1a_7x7.conv3d.weight"
    assert "cross-modality" in report.converted[first]
    mean = np.einsum("thwio->othw", variables[f"{RGB}Conv3d_1a_7x7/conv_3d/w"]) / 3
    for channel in range(2):
        np.testing.assert_allclose(
            small_i3d.state_dict()[first][:, channel].numpy(), mean, atol=1e-6
        )


def test_of_two_networks_the_one_with_the_model_s_channels(tmp_path: Path, small_i3d: I3D) -> None:
    flow = tensorflow_i3d(small_i3d, FLOW, seed=1)
    rgb = tensorflow_i3d(I3D(volume(3), 7, width=WIDTH), RGB, seed=2)
    write_bundle(tmp_path / "x", flow | rgb)
    report = load_weights_into(small_i3d, tmp_path / "x")
    assert set(report.unexpected) == set(rgb)
    bias = small_i3d.state_dict()["logits.conv3d.bias"].numpy()
    np.testing.assert_array_equal(bias, flow[f"{FLOW}Logits/Conv3d_0c_1x1/conv_3d/b"])
    write_bundle(tmp_path / "y", rgb | tensorflow_i3d(I3D(volume(3), 7, width=WIDTH), "B/"))
    assert_refused(small_i3d, tmp_path / "y", "0 of its networks")


def test_a_scale_that_the_file_has_is_taken(tmp_path: Path, small_i3d: I3D) -> None:
    variables = tensorflow_i3d(small_i3d, FLOW)
    gamma = f"{FLOW}Conv3d_2b_1x1/batch_norm/gamma"
    variables[gamma] = np.arange(4, dtype=np.float32)
    write_bundle(tmp_path / "x", variables)
    report = load_weights_into(small_i3d, tmp_path / "x")
    assert small_i3d.state_dict()["Conv3d_2b_1x1.bn.weight"].tolist() == [0, 1, 2, 3]
    assert_complete(report, small_i3d, set(variables))


def test_a_variable_that_lacks_or_is_another(tmp_path: Path, small_i3d: I3D) -> None:
    variables = tensorflow_i3d(small_i3d, FLOW)
    name = f"{FLOW}Mixed_3c/Branch_1/Conv3d_0b_3x3/conv_3d/w"
    write_bundle(tmp_path / "x", {n: v for n, v in variables.items() if n != name})
    assert_refused(small_i3d, tmp_path / "x", r"1 of .* missing: Mixed_3c\.b1b\.conv3d\.weight")
    write_bundle(tmp_path / "x", variables | {name: variables[name][:2]})
    assert_refused(small_i3d, tmp_path / "x", r"Mixed_3c\.b1b\.conv3d\.weight \(from .*, shape")


def test_damaged_values_never_arrive(tmp_path: Path, small_i3d: I3D) -> None:
    variables = tensorflow_i3d(small_i3d, FLOW)
    write_bundle(tmp_path / "x", variables, block_bytes=2048)
    rng = np.random.default_rng(3)
    before = copy_state(small_i3d)
    for suffix in (".index", ".data-00000-of-00001"):
        path = tmp_path / f"x{suffix}"
        good = path.read_bytes()
        for position in rng.integers(0, len(good), 60):
            bad = bytearray(good)
            bad[position] ^= int(rng.integers(1, 256))
            path.write_bytes(bad)
            with pytest.raises(WeightsError):
                load_weights_into(small_i3d, tmp_path / "x")
        path.write_bytes(good)
    assert_same(small_i3d.state_dict(), before)


def test_checkpoints_of_other_networks(tmp_path: Path, small_i3d: I3D) -> None:
    write_bundle(tmp_path / "x", {"conv1/weights": np.zeros(3, np.float32)})
    assert_refused(small_i3d, tmp_path / "x", r"has besides: conv1/weights")
    write_bundle(tmp_path / "y", tensorflow_i3d(small_i3d, FLOW))
    assert_refused(
        resnet18(stack(3), 5, width=WIDTH), tmp_path / "y", "for i3d: the model is ResNet"
    )
