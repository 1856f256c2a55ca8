"""Weights of GSM and of Inception-V3 by the names of their projects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.weights.fits import find_fits, make_bare
from flowprep.learn.weights.load import load_weights_into
from flowprep.learn.weights.reading import WeightsFile
from tests.learn.weights.states import assert_complete, draw_state

SEGMENTS = {"num_segments": 4}


def release(name: str) -> str:
    """swathikirans/GSM: models.py, gsm.py and model_zoo/bninception."""
    name = name.removeprefix("base.")
    is_v3 = "mixed" in name or re.match(r"(gates\.)?conv(_\d)?(_bn)?\.", name)
    if name.startswith("fc."):
        return f"new_{name}"
    unit, part = name.rsplit(".", 1)
    if gate := re.fullmatch(r"gates\.(\w+)\.(conv|bn)", unit):
        layer = f"gsm_{gate[1]}" + ("_Conv2D" if is_v3 else "")
        return f"base_model.{layer}.{'conv3D' if gate[2] == 'conv' else 'bn'}.{part}"
    if is_v3:
        unit = f"{unit[:-3]}_batchnorm" if unit.endswith("_bn") else f"{unit}_Conv2D"
    return f"base_model.{unit}.{part}"


@pytest.mark.parametrize("network", ["gsm-bn-inception", "gsm-inception-v3"])
def test_files_fill_the_network(network: str, tmp_path: Path) -> None:
    model = create_model(network, stream="rgb", num_classes=5, width=0.0625, **SEGMENTS)
    wanted = draw_state(model)
    theirs = {release(name): value.clone() for name, value in wanted.items()}
    first = next(name for name, value in theirs.items() if value.dim() == 4)
    theirs[first] = theirs[first].flip(1)  # the release sees blue, green, red
    path = tmp_path / "x.pth"
    state = {f"module.{name}": value for name, value in theirs.items()}
    torch.save({"epoch": 60, "arch": "BNInception", "state_dict": state}, path)

    report = load_weights_into(model, path)

    assert report.format_name == network
    assert_complete(report, model, set(theirs))
    assert (report.missing, report.unexpected) == ({}, ())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0)


@pytest.mark.parametrize("network", ["gsm-bn-inception", "gsm-inception-v3"])
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_file_says_which_network_it_is(network: str, stream: Any) -> None:
    bare = make_bare(network, stream, num_classes=174)
    names = {release(name): value for name, value in bare.state_dict().items()}
    (fit,) = find_fits(WeightsFile(Path("x"), "PyTorch", names), [network])
    assert (fit.stream, fit.num_classes, fit.match.format_name) == (stream, 174, network)


@pytest.mark.parametrize("prefix", ["", "base_model."])
def test_inception_v3_starts_gsm(prefix: str, tmp_path: Path) -> None:
    base = create_model("inception-v3", stream="rgb", num_classes=7, width=0.0625)
    model = create_model("gsm-inception-v3", stream="flow", num_classes=5, width=0.0625, **SEGMENTS)
    # Gated layers have channels in fours, as the published ones do.
    drawn = draw_state(model.base)  # type: ignore[arg-type]
    theirs = {
        release(name).replace("base_model.", prefix).replace("new_fc", f"{prefix}top_cls_fc"): value
        for name, value in drawn.items()
        if not name.startswith(("gates.", "fc.")) and not name.endswith("num_batches_tracked")
    }
    theirs[f"{prefix}conv_Conv2D.weight"] = torch.randn(2, 3, 3, 3)
    for name, value in theirs.items():
        if "_batchnorm." in name:
            theirs[name] = value[None]  # rows, as Caffe has them
    path = tmp_path / "x.pth"
    torch.save(theirs, path)

    report = load_weights_into(model, path)

    assert report.format_name == "inception-v3"
    reasons = {why for name, why in report.missing.items() if ".gates." in name}
    assert reasons == {"a gate of GSM, which begins closed"}
    assert "cross-modality" in report.converted["base.conv.weight"]
    torch.testing.assert_close(
        model.state_dict()["base.mixed_7_conv_bn.running_mean"],
        drawn["mixed_7_conv_bn.running_mean"],
    )
    assert not any(name.startswith("gates") for name in base.state_dict())


def test_the_published_inception_v3_is_known() -> None:
    bare = make_bare("inception-v3", "rgb", num_classes=1000)
    names = {
        release(name).replace("base_model.", "").replace("new_fc", "top_cls_fc"): value
        for name, value in bare.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert len(names) == 566
    fits = find_fits(WeightsFile(Path("x"), "PyTorch", names), ["inception-v3"])
    assert [fit.num_classes for fit in fits] == [1000]
