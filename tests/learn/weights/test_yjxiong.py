"""Files of TSN's and two-stream VGG's authors fill our networks: equal logits, colors in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.bn_inception import BNInception
from flowprep.learn.models.vgg import VGG16
from flowprep.learn.weights.files import read_file, save_weights
from flowprep.learn.weights.fits import find_fits
from flowprep.learn.weights.load import LoadReport, load_weights_into
from tests.learn.inputs import stack
from tests.learn.weights.caffe_files import Blobs, Style, caffemodel
from tests.learn.weights.states import State, assert_complete, assert_refused, assert_same

NUM_CLASSES = 7

Layers = dict[tuple[str, str], Blobs]

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")

VGG_CONVS = [
    *("conv1_1", "", "conv1_2", "", "", "conv2_1", "", "conv2_2", "", ""),
    *("conv3_1", "", "conv3_2", "", "conv3_3", "", "", "conv4_1", "", "conv4_2", "", "conv4_3"),
    *("", "", "conv5_1", "", "conv5_2", "", "conv5_3"),
]
"""torchvision's features, one by one: a ReLU after each convolution, a pool after each block."""


def drawn_state(model: ClipModel) -> State:
    """Draws small values, and variances > 0."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in model.state_dict().items():
        state[name] = value.clone()
        if value.is_floating_point():
            state[name] = (torch.rand(value.shape, generator=generator) - 0.5) * 0.5
            if name.endswith("running_var"):
                state[name] = state[name].abs() + 0.5
    return state


def filled(model: ClipModel) -> ClipModel:
    model.load_state_dict(drawn_state(model))
    return model.eval()


def bn_inception(num_channels: int = 10) -> BNInception:
    return BNInception(stack(num_channels), NUM_CLASSES, width=1 / 16)


def vgg16(num_channels: int = 20) -> VGG16:
    return VGG16(stack(num_channels), NUM_CLASSES, width=1 / 32)


def bn_inception_layers(state: Mapping[str, torch.Tensor]) -> Layers:
    """As in models/ucf101/tsn_bn_inception_flow_deploy.prototxt."""
    layers: Layers = {}
    for name in dict.fromkeys(tensor.rsplit(".", 1)[0] for tensor in state):
        theirs = "fc-action" if name == "fc" else re.sub("^(conv.|inception_..)_", r"\1/", name)
        if name.endswith("_bn"):
            blobs = [state[f"{name}.{part}"].numpy()[None] for part in NORM_PARTS]
            layers[theirs, "BN"] = blobs
        else:
            kind = "InnerProduct" if name == "fc" else "Convolution"
            layers[theirs, kind] = [state[f"{name}.{part}"].numpy() for part in NORM_PARTS[:2]]
    return layers


def vgg16_layers(state: Mapping[str, torch.Tensor]) -> Layers:
    """As in models/action_recognition/cuhk_action_temporal_vgg_16_flow_deploy.prototxt."""
    names = {f"features.{place}": theirs for place, theirs in enumerate(VGG_CONVS) if theirs}
    names |= {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
    return {
        (theirs, "Convolution" if theirs < "d" else "InnerProduct"): [
            state[f"{ours}.{part}"].numpy() for part in NORM_PARTS[:2]
        ]
        for ours, theirs in names.items()
    }


def blob_names(layers: Layers) -> set[str]:
    return {f"{name}[{n}]" for (name, _), blobs in layers.items() for n in range(len(blobs))}


def write(path: Path, layers: Layers, style: Style = "packed") -> Path:
    path.write_bytes(caffemodel(layers, style))
    return path


def images(num_channels: int, side: int = 32) -> torch.Tensor:
    return torch.randn(2, num_channels, side, side, generator=torch.Generator().manual_seed(1))


def test_the_names_are_those_of_the_prototxt() -> None:
    names = {name for name, _ in bn_inception_layers(bn_inception().state_dict())}
    assert names >= {
        "conv1/7x7_s2",
        "conv1/7x7_s2_bn",
        "conv2/3x3_reduce",
        "inception_3a/1x1",
        "inception_3c/double_3x3_2_bn",
        "inception_5b/pool_proj_bn",
        "fc-action",
    }
    assert len(names) == 2 * 69 + 1
    names = {name for name, _ in vgg16_layers(vgg16().state_dict())}
    assert len(names) == 16
    assert {"conv1_1", "conv3_3", "conv5_3", "fc6", "fc8"} <= names


@pytest.mark.parametrize("style", ["packed", "double", "v1"])
@pytest.mark.parametrize(
    ("make", "layers_of"), [(bn_inception, bn_inception_layers), (vgg16, vgg16_layers)]
)
def test_a_caffemodel_of_flow_gives_equal_logits(
    tmp_path: Path,
    make: Callable[[], ClipModel],
    layers_of: Callable[[Mapping[str, torch.Tensor]], Layers],
    style: Style,
) -> None:
    theirs, ours = filled(make()), make().eval()
    layers = layers_of(theirs.state_dict())
    extra = {("extra", "Convolution"): [np.zeros((1, 1), np.float32)]}
    path = write(tmp_path / "x.caffemodel", layers | extra, style)
    report = load_weights_into(ours, path)
    x = images(theirs.inputs[0].num_channels)
    assert torch.equal(ours(x), theirs(x))
    assert_complete(report, ours, blob_names(layers) | {"extra[0]"})
    assert report.unexpected == ("extra[0]",)
    assert not any("BGR" in how for how in report.converted.values())
    assert "round up" in report.notes[0]
    if style == "v1":
        assert any("squeezed to a matrix" in how for how in report.converted.values())


@pytest.mark.parametrize(
    ("make", "layers_of", "first"),
    [
        (bn_inception, bn_inception_layers, "conv1_7x7_s2.weight"),
        (vgg16, vgg16_layers, "features.0.weight"),
    ],
)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_blue_green_red_becomes_red_green_blue(
    tmp_path: Path,
    make: Callable[[int], ClipModel],
    layers_of: Callable[[Mapping[str, torch.Tensor]], Layers],
    first: str,
    num_frames: int,
) -> None:
    theirs, ours = filled(make(3 * num_frames)), make(3 * num_frames).eval()
    path = write(tmp_path / "x.caffemodel", layers_of(theirs.state_dict()))
    report = load_weights_into(ours, path)
    rgb = images(3 * num_frames)
    bgr = rgb.reshape(2, num_frames, 3, *rgb.shape[2:]).flip(2).reshape(rgb.shape)
    assert torch.allclose(ours(rgb), theirs(bgr), rtol=1e-5, atol=1e-6)
    assert "BGR to RGB" in report.converted[first]
    told = [name for name, how in report.converted.items() if "BGR" in how]
    assert told == [first]


def tsn_pytorch(state: State) -> State:
    """As tsn-pytorch's main.py saves a network with dropout."""
    return {
        name.replace("fc.", "module.new_fc.")
        if name.startswith("fc.")
        else f"module.base_model.{name}": value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def as_rows(state: State) -> State:
    """As parse_caffe.py leaves batch norms."""
    return {name: v[None] if "_bn." in name and v.dim() == 1 else v for name, v in state.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar"])
def test_a_file_of_tsn_pytorch_gives_equal_logits(tmp_path: Path, suffix: str) -> None:
    theirs, ours = filled(bn_inception()), bn_inception().eval()
    state = tsn_pytorch(drawn_state(theirs))
    content = {"epoch": 340, "arch": "BNInception", "best_prec1": 87.0, "state_dict": state}
    torch.save(content, tmp_path / f"x{suffix}")
    report = load_weights_into(ours, tmp_path / f"x{suffix}")
    assert torch.equal(ours(images(10)), theirs(images(10)))
    names = {name.removeprefix("module.") for name in state}
    assert_complete(report, ours, names)
    assert report.unexpected == ()
    assert report.converted["fc.weight"] == "from new_fc.weight"


@pytest.mark.parametrize("classifier", ["fc", "fc_action", "last_linear"])
def test_the_image_network_that_tsn_starts_from(tmp_path: Path, classifier: str) -> None:
    theirs, ours = filled(bn_inception(3)), bn_inception(3).eval()
    state = {
        name.replace("fc.", f"{classifier}.") if name.startswith("fc.") else name: value
        for name, value in as_rows(drawn_state(theirs)).items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "bn_inception-9f5701afb96c8044.pth")
    report = load_weights_into(ours, tmp_path / "bn_inception-9f5701afb96c8044.pth")
    rgb = images(3)
    assert torch.allclose(ours(rgb), theirs(rgb.flip(1)), rtol=1e-5, atol=1e-6)
    assert report.converted["conv1_7x7_s2.weight"] == "BGR to RGB"
    assert report.converted["conv1_7x7_s2_bn.weight"] == "squeezed from (1, C) to (C)"


@pytest.mark.parametrize("network", ["tsn-bn-inception", "tsm-bn-inception"])
def test_a_network_over_segments_takes_the_weights_of_its_base(
    tmp_path: Path, network: str
) -> None:
    theirs = filled(bn_inception())
    path = write(tmp_path / "x.caffemodel", bn_inception_layers(theirs.state_dict()))
    ours = create_model(network, stream="flow", num_classes=NUM_CLASSES, width=1 / 16)
    report = load_weights_into(ours, path)
    taken = {name.removeprefix("base."): value for name, value in ours.state_dict().items()}
    for name, value in theirs.state_dict().items():
        if value.dim():
            assert torch.equal(taken[name], value), name
    assert report.unexpected == ()
    assert all(name.endswith("num_batches_tracked") for name in report.missing)


def test_our_own_files_of_the_same_names_stay_as_they_are(tmp_path: Path) -> None:
    theirs, ours = filled(bn_inception(3)), bn_inception(3)
    save_weights(theirs, tmp_path / "x.safetensors")
    report = load_weights_into(ours, tmp_path / "x.safetensors")
    assert_same(ours.state_dict(), theirs.state_dict())
    assert (report.format_name, report.converted, report.notes) == (None, {}, ())


def test_a_wrong_shape_and_a_missing_blob_are_named(tmp_path: Path) -> None:
    layers = bn_inception_layers(drawn_state(bn_inception()))
    path = tmp_path / "x.caffemodel"
    norm = ("inception_4a/3x3_bn", "BN")
    write(path, {**layers, norm: [np.ones((1, 5), np.float32)] * 4})
    source, shapes = r"inception_4a/3x3_bn\[\d\]", r"shape \(5,\) in the file, \(6,\) in the model"
    message = rf"inception_4a_3x3_bn\.\w+ \(from {source}, {shapes}"
    assert_refused(bn_inception(), path, message)
    write(path, {name: blobs for name, blobs in layers.items() if name != norm})
    assert_refused(bn_inception(), path, r"are missing: inception_4a_3x3_bn\.weight")
    # BatchNorm and Scale of BVLC's Caffe have other blobs.
    write(path, {**layers, norm: [np.ones(6, np.float32)] * 2})
    assert_refused(bn_inception(), path, r"are missing: inception_4a_3x3_bn\.running_mean")


def test_a_classifier_of_other_classes_begins_anew(tmp_path: Path) -> None:
    state = drawn_state(vgg16())
    path = write(tmp_path / "x.caffemodel", vgg16_layers(state))
    model = VGG16(stack(20), 3, width=1 / 32)
    report: LoadReport = load_weights_into(model, path)
    assert "a new classifier" in report.missing["classifier.6.weight"]
    assert set(report.unexpected) == {"fc8[0]", "fc8[1]"}


def test_a_file_says_which_network_it_is(tmp_path: Path) -> None:
    state = BNInception(stack(10), 101).state_dict()
    path = write(tmp_path / "ucf101_tsn_flow.caffemodel.v5", bn_inception_layers(state))
    file = read_file(path)
    assert file.container == "Caffe"
    fits = find_fits(file, ("bn-inception", "tsn-bn-inception"))
    assert [(fit.network, fit.stream, fit.num_classes) for fit in fits] == [
        ("bn-inception", "flow", 101),
        ("tsn-bn-inception", "flow", 101),
    ]
