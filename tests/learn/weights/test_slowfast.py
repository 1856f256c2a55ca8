"""Weights of SlowFast by three projects' names, and in Caffe2: equal names, equal numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.describe import told_fit
from flowprep.learn.weights.fits import find_fits, make_bare
from flowprep.learn.weights.formats import FOREIGN
from flowprep.learn.weights.load import load_weights_into
from flowprep.learn.weights.reading import WeightsFile
from tests.learn.weights.pickle_files import python2_pickle
from tests.learn.weights.references import digest
from tests.learn.weights.states import assert_complete, draw_state

PATHS = {"slow": 0, "fast": 1}
PLACES = {"conv1": 1, "layer1": 2, "layer2": 3, "layer3": 4}
"""Before a lateral convolution -> Facebook's stage."""
NORM_PARTS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
LAST_BLOCK = {1: 2, 2: 3, 3: 5}


def parts_of(name: str) -> tuple[str, re.Match[str]]:
    """Says which kind of tensor of ours a name is, and its parts."""
    patterns = {
        "stem": r"(slow|fast)\.(conv|bn)1\.(\w+)",
        "conv": r"(slow|fast)\.layer(\d)\.(\d)\.(conv|bn)(\d)\.(\w+)",
        "shortcut": r"(slow|fast)\.layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)",
        "non_local": r"slow\.layer(\d)\.(\d)\.non_local\.(\w+)\.(\w+)",
        "lateral": r"laterals\.(\w+)\.(conv|bn)\.(\w+)",
        "fc": r"fc\.(\w+)",
    }
    for kind, pattern in patterns.items():
        if match := re.fullmatch(pattern, name):
            return kind, match
    raise AssertionError(name)


def facebook(name: str) -> str:
    """facebookresearch/SlowFast: models/stem_helper.py, resnet_helper.py, head_helper.py."""
    kind, m = parts_of(name)
    if kind == "stem":
        return f"s1.pathway{PATHS[m[1]]}_stem.{m[2]}.{m[3]}"
    if kind == "conv":
        letter = "abc"[int(m[5]) - 1] + ("_bn" if m[4] == "bn" else "")
        return f"s{int(m[2]) + 1}.pathway{PATHS[m[1]]}_res{m[3]}.branch2.{letter}.{m[6]}"
    if kind == "shortcut":
        layer = "branch1" + ("_bn" if m[4] == "1" else "")
        return f"s{int(m[2]) + 1}.pathway{PATHS[m[1]]}_res{m[3]}.{layer}.{m[5]}"
    if kind == "non_local":
        layer = m[3] if m[3] == "bn" else f"conv_{m[3]}"
        return f"s{int(m[1]) + 1}.pathway0_nonlocal{m[2]}.{layer}.{m[4]}"
    if kind == "lateral":
        return f"s{PLACES[m[1]]}_fuse.{'conv_f2s' if m[2] == 'conv' else 'bn'}.{m[3]}"
    return f"head.projection.{m[1]}"


def caffe2(name: str) -> str:
    """The blobs that utils/c2_model_loading.py takes to the names of `facebook`."""
    kind, m = parts_of(name)
    mark = "t_" if m[1] == "fast" else ""
    if kind == "stem":
        return f"{mark}conv1_w" if m[2] == "conv" else f"{mark}res_conv1_bn_{NORM_PARTS[m[3]]}"
    if kind == "conv":
        base = f"{mark}res{int(m[2]) + 1}_{m[3]}_branch2{'abc'[int(m[5]) - 1]}"
        return f"{base}_w" if m[4] == "conv" else f"{base}_bn_{NORM_PARTS[m[6]]}"
    if kind == "shortcut":
        base = f"{mark}res{int(m[2]) + 1}_{m[3]}_branch1"
        return f"{base}_w" if m[4] == "0" else f"{base}_bn_{NORM_PARTS[m[5]]}"
    if kind == "non_local":
        base = f"nonlocal_conv{int(m[1]) + 1}_{m[2]}_{m[3]}"
        return f"{base}_{NORM_PARTS[m[4]] if m[3] == 'bn' else m[4][0]}"
    if kind == "lateral":
        stage = PLACES[m[1]]
        base = "t_pool1" if stage == 1 else f"t_res{stage}_{LAST_BLOCK[stage - 1]}_branch2c_bn"
        return f"{base}_subsample_" + ("w" if m[2] == "conv" else f"bn_{NORM_PARTS[m[3]]}")
    return f"pred_{m[1][0]}"


def pytorchvideo(name: str) -> str:
    """facebookresearch/pytorchvideo: models/slowfast.py, net.py, resnet.py."""
    kind, m = parts_of(name)
    if kind == "stem":
        layer = "conv" if m[2] == "conv" else "norm"
        return f"blocks.0.multipathway_blocks.{PATHS[m[1]]}.{layer}.{m[3]}"
    if kind in ("conv", "shortcut"):
        block = f"blocks.{m[2]}.multipathway_blocks.{PATHS[m[1]]}.res_blocks.{m[3]}"
        if kind == "conv":
            layer = "conv" if m[4] == "conv" else "norm"
            return f"{block}.branch2.{layer}_{'abc'[int(m[5]) - 1]}.{m[6]}"
        return f"{block}.branch1_{'conv' if m[4] == '0' else 'norm'}.{m[5]}"
    if kind == "lateral":
        layer = "conv_fast_to_slow" if m[2] == "conv" else "norm"
        return f"blocks.{PLACES[m[1]] - 1}.multipathway_fusion.{layer}.{m[3]}"
    return f"blocks.6.proj.{m[1]}"


def mmaction2(name: str) -> str:
    """open-mmlab/mmaction2: models/backbones/resnet3d_slowfast.py, heads/slowfast_head.py."""
    kind, m = parts_of(name)
    if kind == "stem":
        return f"backbone.{m[1]}_path.conv1.{m[2]}.{m[3]}"
    if kind == "conv":
        return f"backbone.{m[1]}_path.layer{m[2]}.{m[3]}.conv{m[5]}.{m[4]}.{m[6]}"
    if kind == "shortcut":
        layer = "conv" if m[4] == "0" else "bn"
        return f"backbone.{m[1]}_path.layer{m[2]}.{m[3]}.downsample.{layer}.{m[5]}"
    if kind == "lateral":
        return f"backbone.slow_path.{m[1]}_lateral.{m[2]}.{m[3]}"
    return f"cls_head.fc_cls.{m[1]}"


NON_LOCAL = {"non_local": True}
PLAIN = {"slow_frames": "first", "lateral_norm": False}
CASES: list[tuple[str, Callable[[str], str], dict[str, Any], dict[str, Any]]] = [
    ("slowfast", facebook, {}, {}),
    ("slowfast", facebook, NON_LOCAL, {"non_local": True, "non_local_style": "slowfast"}),
    ("slowfast-caffe2", caffe2, {}, {}),
    ("slowfast-caffe2", caffe2, NON_LOCAL, {"non_local": True, "non_local_style": "slowfast"}),
    ("pytorchvideo-slowfast", pytorchvideo, {}, {}),
    ("mmaction2-slowfast", mmaction2, PLAIN, PLAIN),
    ("mmaction2-slowfast", mmaction2, {"slow_frames": "first"}, {"slow_frames": "first"}),
]


@pytest.mark.parametrize(("format_name", "rename", "options", "hinted"), CASES)
def test_files_fill_the_network(
    format_name: str,
    rename: Callable[[str], str],
    options: dict[str, Any],
    hinted: dict[str, Any],
    tmp_path: Path,
) -> None:
    model = create_model(
        "slowfast-8x8", stream="rgb", num_classes=5, num_frames=2, width=0.125, **options
    )
    wanted = draw_state(model)
    is_caffe2 = format_name == "slowfast-caffe2"
    theirs = {
        rename(name): value
        for name, value in wanted.items()
        if not (is_caffe2 and name.endswith("num_batches_tracked"))
    }
    path = tmp_path / "x.pth"
    if is_caffe2:
        blobs = {name: value.numpy() for name, value in theirs.items()}
        path = tmp_path / "x.pkl"
        momentum = {f"{name}_momentum": value for name, value in blobs.items()}
        path.write_bytes(python2_pickle(blobs | momentum))
    else:
        if format_name == "mmaction2-slowfast":
            # SlowFastHead joins the fast path's 32 features and the slow path's 256.
            weight = theirs["cls_head.fc_cls.weight"]
            theirs["cls_head.fc_cls.weight"] = torch.cat([weight[:, 256:], weight[:, :256]], 1)
        torch.save({"model_state": theirs, "state_dict": theirs}, path)

    report = load_weights_into(model, path)

    assert report.format_name == format_name
    if path.suffix == ".pth":
        assert_complete(report, model, set(theirs))
        assert (report.missing, report.unexpected) == ({}, ())
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)

    form = FOREIGN[format_name]
    file = WeightsFile(path, "PyTorch", _names(rename, "rgb", options))
    fits = find_fits(file, form.networks)
    assert {**hinted, "stream": "rgb"} == {**fits[0].options, "stream": fits[0].stream}
    assert "slowfast-8x8" in [fit.network for fit in fits]
    assert ("--no-lateral-norm" in told_fit(fits[0])) == ("lateral_norm" in hinted)


def _names(
    rename: Callable[[str], str], stream: Any, options: dict[str, Any], num_classes: int = 400
) -> dict[str, torch.Tensor]:
    bare = make_bare("slowfast-8x8", stream, num_classes=num_classes, options=options)
    is_caffe2 = rename is caffe2
    return {
        rename(name): value
        for name, value in bare.state_dict().items()
        if not (is_caffe2 and name.endswith("num_batches_tracked"))
    }


def test_a_file_says_its_stream_and_the_lateral_frames() -> None:
    five = {"lateral_frames": 5}
    file = WeightsFile(Path("x"), "PyTorch", _names(pytorchvideo, "flow", five))
    fits = find_fits(file, FOREIGN["pytorchvideo-slowfast"].networks)
    assert [(fit.network, fit.stream, fit.num_classes) for fit in fits] == [
        ("slowfast-8x8", "flow", 400),
        ("slowfast-4x16", "flow", 400),
    ]
    assert all(fit.options == five for fit in fits)


IN_SOURCE = {
    # pytorchvideo's slowfast_r50()
    pytorchvideo: "e24c86c5e23ba60cafa1db6f7847f6bb08a03a5fc602c65437331919f5268e5b",
    # mmaction2's ResNet3dSlowFast, without a head
    mmaction2: "0d56d2e968d414d00d7ef3830e87c6c4b3c1f7650617f11b37967986d90853f8",
}
"""The SHA-256 of the names and shapes that the projects' own code made (29 November 2026)."""


@pytest.mark.parametrize("rename", IN_SOURCE)
def test_names_and_shapes_are_those_of_the_source(rename: Callable[[str], str]) -> None:
    options = {"lateral_norm": rename is pytorchvideo}
    names = _names(rename, "rgb", options)
    assert (
        digest(
            (name, tuple(value.shape))
            for name, value in names.items()
            if rename is pytorchvideo or name.startswith("backbone.")
        )
        == IN_SOURCE[rename]
    )


def test_blobs_are_those_of_the_release() -> None:
    # What get_name_convert_func of utils/c2_model_loading.py makes of them.
    expected = {
        "conv1_w": "s1.pathway0_stem.conv.weight",
        "t_res_conv1_bn_riv": "s1.pathway1_stem.bn.running_var",
        "res4_5_branch2c_bn_s": "s4.pathway0_res5.branch2.c_bn.weight",
        "t_res2_0_branch1_bn_rm": "s2.pathway1_res0.branch1_bn.running_mean",
        "t_pool1_subsample_w": "s1_fuse.conv_f2s.weight",
        "t_res3_3_branch2c_bn_subsample_bn_b": "s3_fuse.bn.bias",
        "nonlocal_conv3_1_theta_w": "s3.pathway0_nonlocal1.conv_theta.weight",
        "nonlocal_conv4_5_bn_s": "s4.pathway0_nonlocal5.bn.weight",
        "pred_b": "head.projection.bias",
    }
    bare = make_bare("slowfast-8x8", "rgb", options=NON_LOCAL)
    found = {caffe2(name): facebook(name) for name in bare.state_dict() if "num_b" not in name}
    assert expected.items() <= found.items()
