"""VMZ's pickles and IG-65M's files fill our networks: equal names, equal logits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.video_resnet import R2D, R3D, R2Plus1D, R2Plus1D34
from flowprep.learn.weights.files import CHECKPOINT_FORMAT, read_file, save_weights
from flowprep.learn.weights.fits import find_fits, make_bare
from flowprep.learn.weights.formats import FOREIGN
from flowprep.learn.weights.load import load_weights_into, match_file
from flowprep.learn.weights.reading import WeightsFile
from tests.learn.inputs import volume
from tests.learn.weights.pickle_files import python2_pickle
from tests.learn.weights.states import assert_complete, assert_refused, assert_same

WIDTH = 1 / 16

Blobs = dict[str, NDArray[Any]]

NORM_PARTS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def caffe2_name(
    name: str, depths: tuple[int, ...], num_classes: int, *, is_split: bool = True
) -> str:
    """Returns VMZ's name of one of our tensors, as c2/lib/models/builder/video_model.py counts."""
    prefix, part = name.rsplit(".", 1)
    if prefix == "fc":
        return f"last_out_L{num_classes}_{part[0]}"
    if prefix.startswith("stem"):
        place = int(prefix.split(".")[1]) + (0 if is_split else 3)
        base = ["conv1_middle", "conv1_middle_spatbn_relu", "", "conv1", "conv1_spatbn_relu"][place]
    else:
        match = re.fullmatch(r"layer(\d)\.(\d)\.(conv(\d)|downsample)\.(.+)", prefix)
        assert match is not None
        number = sum(depths[: int(match[1]) - 1]) + int(match[2])
        if match[3] == "downsample":
            base = f"shortcut_projection_{number}" + ("_spatbn" if match[5] == "1" else "")
        else:
            kind = {"0": "conv", "0.0": "conv", "0.3": "conv", "0.1": "spatbn", "1": "spatbn"}
            base = f"comp_{number}_{kind[match[5]]}_{match[4]}"
            base += "_middle" if match[5] in ("0.0", "0.1") else ""
    return f"{base}_{NORM_PARTS[part]}" if "spatbn" in base else f"{base}_w"


def test_the_names_are_those_of_the_authors_conversion() -> None:
    # moabitcoin/ig65m-pytorch, ig65m/cli/convert.py
    expected = {
        "stem.0.weight": "conv1_middle_w",
        "stem.1.running_var": "conv1_middle_spatbn_relu_riv",
        "stem.3.weight": "conv1_w",
        "stem.4.weight": "conv1_spatbn_relu_s",
        "layer1.0.conv1.0.0.weight": "comp_0_conv_1_middle_w",
        "layer1.0.conv1.0.1.bias": "comp_0_spatbn_1_middle_b",
        "layer2.0.conv2.0.3.weight": "comp_3_conv_2_w",
        "layer2.0.conv2.1.running_mean": "comp_3_spatbn_2_rm",
        "layer2.0.downsample.0.weight": "shortcut_projection_3_w",
        "layer3.0.downsample.1.weight": "shortcut_projection_7_spatbn_s",
        "layer4.2.conv1.0.3.weight": "comp_15_conv_1_w",
        "fc.weight": "last_out_L400_w",
        "fc.bias": "last_out_L400_b",
    }
    assert {name: caffe2_name(name, (3, 4, 6, 3), 400) for name in expected} == expected


def drawn_network(model: ClipModel) -> ClipModel:
    """Draws all values, with variances that no epsilon drowns."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) - 0.5)
            if name.endswith("running_var"):
                value.abs_()
    return model.eval()


def blobs_of(model: ClipModel, depths: tuple[int, ...]) -> Blobs:
    return {
        caffe2_name(name, depths, 7, is_split=isinstance(model, R2Plus1D)): value.numpy()
        for name, value in model.state_dict().items()
        if value.dim()
    }


def logits(model: ClipModel) -> torch.Tensor:
    (clip,) = model.inputs
    x = torch.randn(2, clip.num_channels, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(x)
    return found


@pytest.mark.parametrize(
    ("build", "depths", "num_channels", "protocol"),
    [(R2Plus1D34, (3, 4, 6, 3), 2, 2), (R2Plus1D, (2, 2, 2, 2), 3, 0), (R3D, (2, 2, 2, 2), 2, 2)],
)
def test_a_pickle_gives_equal_logits(
    tmp_path: Path, build: Any, depths: tuple[int, ...], num_channels: int, protocol: int
) -> None:
    theirs = drawn_network(build(volume(num_channels), 7, width=WIDTH, variant="vmz"))
    ours = build(volume(num_channels), 7, width=WIDTH, variant="vmz")
    blobs = blobs_of(theirs, depths)
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(blobs | {"extra_w": np.zeros(3, np.float32)}, protocol))
    report = load_weights_into(ours, path)
    assert torch.equal(logits(ours), logits(theirs))
    assert_complete(report, ours, {*blobs, "extra_w"})
    assert report.unexpected == ("extra_w",)
    assert all(name.endswith("num_batches_tracked") for name in report.missing)
    assert report.converted["fc.weight"] == "from last_out_L7_w"
    assert "--variant vmz" in report.notes[0]


def test_their_epsilon_goes_with_the_weights(tmp_path: Path) -> None:
    theirs = drawn_network(R3D(volume(2), 7, width=WIDTH, variant="vmz"))
    ours = R3D(volume(2), 7, width=WIDTH, variant="torchvision")
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(blobs_of(theirs, (2, 2, 2, 2))))
    report = load_weights_into(ours, path)
    assert torch.allclose(logits(ours), logits(theirs), rtol=1e-4, atol=1e-5)
    assert "epsilon 0.001 to 1e-05" in report.converted["stem.1.running_var"]
    ours.load_state_dict(theirs.state_dict())
    assert not torch.allclose(logits(ours), logits(theirs), rtol=1e-4, atol=1e-5)


def test_other_planes_a_wrong_shape_and_a_missing_blob_are_named(tmp_path: Path) -> None:
    theirs = R2Plus1D(volume(2), 7, width=WIDTH, variant="vmz")
    ours = R2Plus1D(volume(2), 7, width=WIDTH, variant="torchvision")
    blobs = blobs_of(theirs, (2, 2, 2, 2))
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle(blobs))
    source, shapes = "comp_2_conv_2_middle_w", r"shape \(18, 8, 1, 3, 3\) in the file, \(14,"
    message = rf"layer2\.0\.conv2\.0\.0\.weight \(from {source}, {shapes}"
    assert_refused(ours, path, message)
    ours = R2Plus1D(volume(2), 7, width=WIDTH, variant="vmz")
    path.write_bytes(python2_pickle(blobs | {"comp_2_spatbn_1_riv": np.ones(9, np.float32)}))
    assert_refused(ours, path, r"running_var \(from comp_2_spatbn_1_riv, shape \(9,\) in the file")
    del blobs["comp_2_spatbn_1_riv"]
    path.write_bytes(python2_pickle(blobs))
    assert_refused(ours, path, r"are missing: layer2\.0\.conv1\.1\.running_var")


def test_a_pickle_for_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    blobs = blobs_of(R3D(volume(2), 7, width=WIDTH, variant="vmz"), (2, 2, 2, 2))
    path.write_bytes(python2_pickle(blobs))
    with pytest.raises(WeightsError, match=r"of the model's 122 tensors"):
        load_weights_into(R2D(volume(2), 7, width=WIDTH, variant="vmz"), path)


@pytest.mark.parametrize(
    ("format_name", "stream"),
    [("vmz-r2plus1d-34", "flow"), ("vmz-r2plus1d-34", "rgb"), ("ig65m", "rgb")],
)
def test_a_file_says_which_network_it_is(format_name: str, stream: StreamName) -> None:
    bare = make_bare("r2plus1d-34", stream, num_classes=400)
    state = bare.state_dict()
    assert len(state) == 416
    if format_name != "ig65m":
        state = {
            caffe2_name(name, (3, 4, 6, 3), 400): value
            for name, value in state.items()
            if value.dim()
        }
    file = WeightsFile(Path("x"), "PyTorch", state)
    match = match_file(file, bare)
    assert (match.format_name, match.fits) == (format_name, True)
    # The epsilon of this network is VMZ's own.
    assert not any(offer.how for offer in match.filled.values())
    (fit,) = find_fits(file, FOREIGN[format_name].networks)
    assert (fit.network, fit.stream, fit.num_classes) == ("r2plus1d-34", stream, 400)
    assert fit.options == {"variant": "vmz"}


@pytest.mark.parametrize("num_channels", [2, 3])
def test_our_own_files_stay_as_they_are(tmp_path: Path, num_channels: int) -> None:
    # R3D-18 has torchvision's names, and here VMZ's epsilon.
    theirs = drawn_network(R3D(volume(num_channels), 7, width=WIDTH, variant="vmz"))
    ours = R3D(volume(num_channels), 7, width=WIDTH, variant="vmz")
    save_weights(theirs, tmp_path / "x.safetensors")
    report = load_weights_into(ours, tmp_path / "x.safetensors")
    assert_same(ours.state_dict(), theirs.state_dict())
    assert (report.format_name, report.converted) == (None, {})
    checkpoint = {"format": CHECKPOINT_FORMAT, "model": theirs.state_dict()}
    torch.save(checkpoint, tmp_path / "x.pt")
    report = load_weights_into(ours, tmp_path / "x.pt")
    assert_same(ours.state_dict(), theirs.state_dict())
    assert (report.format_name, report.converted) == (None, {})


def test_a_pickle_is_told_by_its_container(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(python2_pickle({"a": np.ones(2, np.float32)}))
    assert read_file(path).container == "pickle of arrays"
