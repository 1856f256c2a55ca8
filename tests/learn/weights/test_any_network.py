"""RGB weights of every network begin its flow network, and 2D weights every 3D one of such names.

Names and shapes alone, on torch's device `meta`, of the published sizes; values are in the tests of
`fit_kernel` and below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.clip_inputs import ClipInput, StreamName
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.networks import NETWORKS
from flowprep.learn.weights.load import Match, load_weights_into, match_file
from flowprep.learn.weights.reading import WeightsFile
from tests.learn.weights.states import assert_complete, assert_refused, draw_state, save


def bare(name: str, stream: StreamName, num_classes: int = 5, **options: Any) -> ClipModel:
    with torch.device("meta"):
        return create_model(name, stream=stream, num_classes=num_classes, **options)


def match(state: Mapping[str, torch.Tensor], model: ClipModel) -> Match:
    return match_file(WeightsFile(Path("x.pth"), "PyTorch", state), model)


def conversions(found: Match, kind: str) -> list[str]:
    return [name for name, offer in found.filled.items() if any(kind in how for how in offer.how)]


def image_state(model: ClipModel) -> dict[str, torch.Tensor]:
    """Returns the weights of a 3D network as those of the 2D network with the same names."""
    return {
        name: value[:, :, 0] if value.dim() == 5 else value
        for name, value in model.state_dict().items()
    }


@pytest.mark.parametrize(
    "name", [name for name, entry in NETWORKS.items() if "rgb" in entry.inputs]
)
def test_rgb_weights_begin_the_flow_network(name: str) -> None:
    flow = bare(name, "flow")
    fresh = flow.state_dict()

    found = match(bare(name, "rgb", 7).state_dict(), flow)

    assert found.fits
    if flow.inputs[0].has_magnitude:  # three channels, as frames have
        assert not conversions(found, "cross-modality")
        return
    assert not found.missing.keys() & set(conversions(found, "cross-modality"))
    firsts = conversions(found, "cross-modality")
    assert len(firsts) == len(flow.inputs)
    assert firsts[0] == next(tensor for tensor, value in fresh.items() if value.dim() >= 4)
    for first in firsts:
        assert found.filled[first].value.shape == fresh[first].shape
    # The classifier is new, as it has other classes. All else is as it was.
    assert found.filled.keys() | found.missing.keys() == fresh.keys()
    assert all(why.startswith("a new classifier") for why in found.missing.values())
    assert [tensor for tensor, offer in found.filled.items() if offer.how] == firsts


@pytest.mark.parametrize(
    ("image", "network"),
    [
        *(("resnet18", name) for name in ("tsn-resnet18", "tsm-resnet18")),
        *(("resnet50", name) for name in ("tsn-resnet50", "tsm-resnet50")),
        *(("mobilenet-v2", name) for name in ("tsn-mobilenet-v2", "tsm-mobilenet-v2")),
        *(("bn-inception", name) for name in ("tsn-bn-inception", "tsm-bn-inception")),
        ("tsn-resnet50", "tsm-resnet50"),
        ("tsm-mobilenet-v2", "mobilenet-v2"),
    ],
)
def test_rgb_weights_of_the_base_begin_a_network_over_segments(image: str, network: str) -> None:
    found = match(bare(image, "rgb", 1000).state_dict(), bare(network, "flow"))

    assert found.fits
    (first,) = conversions(found, "cross-modality")
    assert found.filled[first].value.shape[1] == (20 if network == "mobilenet-v2" else 10)
    assert first.startswith("base.") == (network != "mobilenet-v2")


@pytest.mark.parametrize("stream", ["flow", "rgb"])
@pytest.mark.parametrize("network", ["i3d-resnet50", "slow-4x16", "slow-8x8"])
@pytest.mark.parametrize("non_local", [False, True])
def test_an_image_network_begins_a_3d_one(
    network: str, stream: StreamName, non_local: bool
) -> None:
    model = bare(network, stream, non_local=non_local)

    found = match(bare("resnet50", "rgb", 1000).state_dict(), model)

    assert found.fits
    kernels = [name for name, value in model.state_dict().items() if value.dim() == 5]
    inflated = [name for name in kernels if ".non_local." not in name]
    assert conversions(found, "inflated") == inflated
    assert len(conversions(found, "cross-modality")) == (stream == "flow")


@pytest.mark.parametrize("stream", ["flow", "rgb"])
def test_an_image_resnext_begins_the_3d_one(stream: StreamName) -> None:
    """torchvision's and timm's resnext101_32x4d has the names and the grouped kernels."""
    model = bare("resnext101-3d", stream)
    state = image_state(bare("resnext101-3d", "rgb", 1000))
    assert state["layer1.0.conv2.weight"].shape == (128, 4, 3, 3)

    found = match(state, model)

    assert found.fits
    assert found.filled["layer1.0.conv2.weight"].how == ("inflated over 3 frames",)
    assert len(conversions(found, "cross-modality")) == (stream == "flow")


@pytest.mark.parametrize(
    ("name", "stream", "variant"),
    [
        ("r2d-18", "rgb", "vmz"),
        ("rmc3-18", "rgb", "vmz"),
        ("r2plus1d-18", "rgb", "vmz"),
        ("r3d-18", "flow", "vmz"),
        ("r3d-18", "rgb", "torchvision"),
    ],
)
def test_our_own_video_networks_keep_their_variances(
    name: str, stream: StreamName, variant: str
) -> None:
    """Their names are torchvision's, whose batch norms have another epsilon than VMZ's."""
    model = bare(name, stream, variant=variant)

    found = match(model.state_dict(), model)

    assert found.fits
    assert not any(offer.how for offer in found.filled.values())


def test_kernels_over_single_frames_begin_those_over_three() -> None:
    found = match(bare("mc3-18", "rgb").state_dict(), bare("r3d-18", "flow"))

    assert found.fits
    assert {re.sub(r"\..*", "", name) for name in conversions(found, "inflated")} == {
        "layer2",
        "layer3",
        "layer4",
    }


@pytest.mark.parametrize("network", ["r3d-18", "mc3-18"])
@pytest.mark.parametrize("is_image", [False, True])
def test_split_kernels_are_not_inflated(tmp_path: Path, network: str, is_image: bool) -> None:
    """Each half of a (2+1)D convolution has other filters than any 2D or 3D convolution."""
    options: dict[str, Any] = {"num_classes": 5, "width": 0.25}
    source = create_model(network, stream="rgb", **options)
    state = image_state(source) if is_image else source.state_dict()
    path = save({name: value.clone() for name, value in state.items()}, tmp_path / "x.safetensors")

    model = create_model("r2plus1d-18", stream="rgb", **options)

    assert_refused(
        model, path, r"of the model's 224 tensors are others in the file: stem\.0\.weight"
    )


def test_rgb_values_of_a_mobilenet_arrive_in_tsm(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_classes": 5, "width": 0.1}
    state = draw_state(create_model("mobilenet-v2", stream="rgb", **options))
    model = create_model("tsm-mobilenet-v2", stream="flow", **options)

    report = load_weights_into(model, save(state, tmp_path / "x.safetensors"))

    assert_complete(report, model, set(state))
    found = model.state_dict()
    first = state["features.0.0.weight"].mean(1, keepdim=True).expand(-1, 10, -1, -1)
    assert torch.equal(found["base.features.0.0.weight"], first)
    depthwise = "features.1.conv.0.0.weight"
    assert found[f"base.{depthwise}"].shape[1] == 1
    assert torch.equal(found[f"base.{depthwise}"], state[depthwise])


def test_flow_of_three_channels_takes_rgb_as_it_is(tmp_path: Path) -> None:
    """As LRCN starts its flow images of x, y and magnitude (lisa-caffe-public)."""
    (image,) = (ClipInput("flow", "flow", "stack", 1, has_magnitude=True),)
    stack = ClipInput("flow", "flow", "stack", 4, has_magnitude=True)
    state = draw_state(resnet18([ClipInput("rgb", "rgb", "stack", 1)], 5, width=0.1))
    path = save(state, tmp_path / "x.safetensors")

    three, twelve = resnet18([image], 5, width=0.1), resnet18([stack], 5, width=0.1)
    report = load_weights_into(three, path)
    load_weights_into(twelve, path)

    assert not report.converted
    assert torch.equal(three.conv1.weight, state["conv1.weight"])
    mean = state["conv1.weight"].mean(1, keepdim=True).expand(-1, 12, -1, -1)
    assert torch.equal(twelve.conv1.weight, mean)


@pytest.mark.parametrize("pooling", ["conv", "late", "time-conv", "mean", "concat"])
def test_image_weights_begin_pooling_over_frames(pooling: str) -> None:
    state = bare("resnet18", "rgb", 1000).state_dict()
    model = bare("frame-pooling", "flow", backbone="resnet18", pooling=pooling)

    found = match(state, model)

    assert found.fits
    base = {name for name in model.state_dict() if name.startswith("base.")}
    assert found.filled.keys() == base
    assert conversions(found, "cross-modality") == ["base.conv1.weight"]


def test_image_weights_begin_an_lstm_over_frames() -> None:
    model = bare("cnn-lstm", "flow", backbone="vgg16")

    found = match(bare("vgg16", "rgb", 1000).state_dict(), model)

    assert found.fits
    assert {name.split(".")[0] for name in found.missing} == {"lstm", "fc"}
    assert "base.classifier.3.weight" in found.filled
