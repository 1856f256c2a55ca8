"""Weights of C3D: Caffe's own blobs, and the names of other projects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.features_sources import weights_sources
from flowprep.learn.foreign import foreign_network
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.fits import find_fits
from flowprep.learn.weights.formats import format_of
from flowprep.learn.weights.load import load_weights_into
from tests.learn.weights.caffe_files import c3d_caffemodel
from tests.learn.weights.states import State, assert_complete, assert_same, draw_state

NAMES = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")


def small() -> ClipModel:
    return create_model("c3d", stream="rgb", num_classes=7, width=1 / 32)


def write_caffe(state: State, folder: Path) -> Path:
    """facebookarchive/C3D, c3d_sport1m_feature_extractor_frm.prototxt."""
    names = (*NAMES, "fc6", "fc7", "fc8")
    layers = {
        name: [state[f"{name}.{one}"].numpy() for one in ("weight", "bias")] for name in names
    }
    layers["fc8-1"] = layers.pop("fc8")  # as a training from these weights calls it
    path = folder / "conv3d_deepnetA_sport1m_iter_1900000.caffemodel"
    path.write_bytes(c3d_caffemodel(layers))
    return path


def write_pytorch(state: State, folder: Path) -> Path:
    """DavideA/c3d-pytorch, C3D_model.py."""
    path = folder / "c3d.pth"
    renamed = {"conv1a": "conv1", "conv2a": "conv2"}
    torch.save(
        {
            f"{renamed.get(name.partition('.')[0], name.partition('.')[0])}.{name.split('.')[1]}": v
            for name, v in state.items()
        },
        path,
    )
    return path


def write_mmaction2(state: State, folder: Path) -> Path:
    """open-mmlab/mmaction2, mmaction/models/backbones/c3d.py and its I3DHead."""

    def theirs(name: str) -> str:
        layer, part = name.split(".")
        if layer == "fc8":
            return f"cls_head.fc_cls.{part}"
        return f"backbone.{layer}.conv.{part}" if layer in NAMES else f"backbone.{layer}.{part}"

    path = folder / "c3d_sports1m_16x1x1_45e_ucf101_rgb.pth"
    torch.save({"meta": {}, "state_dict": {theirs(name): v for name, v in state.items()}}, path)
    return path


def write_backbone(state: State, folder: Path) -> Path:
    """mmaction2's c3d_sports1m_pretrain, a backbone alone."""
    path = folder / "c3d_sports1m_pretrain.pth"
    named = {
        f"{name.split('.')[0]}.conv.{name.split('.')[1]}" if name.startswith("conv") else name: v
        for name, v in state.items()
        if not name.startswith("fc8")
    }
    torch.save(named, path)
    return path


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (write_caffe, "c3d-caffe"),
        (write_pytorch, "c3d-pytorch"),
        (write_mmaction2, "mmaction2-c3d"),
        (write_backbone, "mmaction2-c3d"),
    ],
)
def test_every_tensor_arrives(
    write: Callable[[State, Path], Path], form: str, tmp_path: Path
) -> None:
    model = small()
    state = draw_state(model)
    path = write(state, tmp_path)
    file = read_file(path)

    assert (format_of(file) or ("", None))[0] == form
    report = load_weights_into(model, path)

    assert_complete(report, model, set(file.tensors))
    found = model.state_dict()
    if write is write_backbone:
        assert set(report.missing) == {"fc8.weight", "fc8.bias"}
        for values in (state, found):
            del values["fc8.weight"], values["fc8.bias"]
    assert_same(found, state)
    assert not report.unexpected


@pytest.mark.parametrize(
    ("write", "recipe", "pool5"),
    [(write_pytorch, "c3d", "ceil"), (write_mmaction2, "mmaction2-c3d", "padded")],
)
def test_files_choose_recipe_and_pool5(
    write: Callable[[State, Path], Path], recipe: str, pool5: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        whole = create_model("c3d", stream="rgb", num_classes=101)
    # Without memory for 78 M values: each tensor is one value, repeated.
    state = {
        name: torch.zeros(()).expand(value.shape) for name, value in whole.state_dict().items()
    }
    path = write(state, tmp_path)
    network = foreign_network(path, "c3d")
    assert (network.recipe, network.fit.num_classes) == (recipe, 101)
    assert network.fit.model.get_submodule("pool5").reading == pool5
    assert [fit.network for fit in find_fits(read_file(path))] == ["c3d"]
    (source,), _ = weights_sources("c3d", [path], "rgb", {})
    assert source.load()[0].get_submodule("pool5").reading == pool5
