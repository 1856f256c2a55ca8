"""What is said of a file of weights: ours, a known project's, or unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from flowprep.dataset.read import open_dataset
from flowprep.errors import WeightsError
from flowprep.learn.checkpoint import save_checkpoint
from flowprep.learn.create import create_model
from flowprep.learn.describe import describe_loading, describe_weights
from flowprep.learn.networks import NETWORKS
from flowprep.learn.weights.fits import make_bare
from flowprep.learn.weights.formats import FOREIGN
from tests.learn.conftest import motion
from tests.learn.small import make_checkpoint
from tests.learn.weights import references
from tests.learn.weights.references import Shapes, resnet_shapes

__all__ = ["motion"]

DOCS = Path(__file__).parents[2] / "docs" / "weights.md"


def empty(shapes: Shapes) -> references.Values:
    """Tensors of the published sizes, all of one value, which takes no space in memory."""
    return {
        name: torch.zeros((), dtype=torch.int64) if shape == () else torch.ones(1).expand(shape)
        for name, shape in shapes
    }


def save(values: references.Values, path: Path, prefix: str = "module.") -> Path:
    state = {f"{prefix}{name}": value for name, value in values.items()}
    torch.save({"state_dict": state, "arch": "resnet50", "optimizer": {"lr": [0.1]}}, path)
    return path


def test_a_file_of_tsm(tmp_path: Path) -> None:
    shapes = resnet_shapes(references.tsm_naming(shifts=True, pools_time=True), 10, 400, 64, None)
    path = save(empty(shapes), tmp_path / "i3d_of_charades.pth.tar")
    found = describe_weights(path)
    assert (found.format_name, found.container, found.num_tensors) == ("tsm-resnet", "PyTorch", 320)
    assert found.exit_code == 0
    assert [(fit.network, fit.stream, fit.num_classes) for fit in found.fits] == [
        ("tsm-resnet50", "flow", 400)
    ]
    assert found.fits[0].options == {"temporal_pool": True}
    assert found.recipes == ("tsm",)
    assert found.odd == ()
    assert found.details == {"arch": "resnet50"}
    assert found.summary().splitlines()[0] == f"{path}: PyTorch, 320 tensors"
    told = (
        "--model tsm-resnet50 --stream flow --temporal-pool: stacks of 5 fields from each segment; "
        "400 classes, as many as Kinetics-400"
    )
    assert told in found.summary()
    assert "the tensors are under state_dict, module." in found.notes
    assert json.loads(json.dumps(found.to_dict()))["fits"][0]["options"] == {"temporal_pool": True}


def test_frames_and_classes_follow_from_the_shapes(tmp_path: Path) -> None:
    shapes = resnet_shapes(references.mmaction2_naming(), 6, 101, 64, None)
    found = describe_weights(save(empty(shapes), tmp_path / "x.pth"))
    (fit,) = found.fits
    assert (fit.network, fit.stream, fit.num_frames) == ("tsn-resnet50", "flow", 3)
    assert "--frames 3: stacks of 3 fields from each segment; 101 classes" in found.summary()


def test_weights_without_a_classifier(tmp_path: Path) -> None:
    shapes = resnet_shapes(references.SLOWFAST, 3, 400, 64, references.SLOW_TIME)
    values = {name: v for name, v in empty(shapes).items() if not name.startswith("head.")}
    found = describe_weights(save(values, tmp_path / "x.pyth"))
    assert [(fit.network, fit.num_classes) for fit in found.fits] == [
        ("slow-8x8", None),
        ("slow-4x16", None),
    ]
    assert found.recipes == ("slow-8x8", "slow-4x16")
    assert "no classifier" in found.summary()


def test_what_is_odd_is_told(tmp_path: Path) -> None:
    values = empty(resnet_shapes(references.PYTORCHVIDEO, 3, 400, 64, references.SLOW_TIME))
    values["blocks.0.norm.bias"] = torch.full((64,), float("inf"))
    values["blocks.5.proj.bias"] = torch.zeros(400, dtype=torch.float16)
    values["blocks.9.extra"] = torch.zeros(1)
    found = describe_weights(save(values, tmp_path / "x.pth"))
    assert found.is_known
    assert found.odd == (
        "names of no rule of pytorchvideo-slow: blocks.9.extra",
        "slow-8x8 has no place for blocks.9.extra",
        "1 tensor of type float16",
        "values that are no finite numbers: blocks.0.norm.bias",
    )


def test_a_known_format_that_no_network_takes(tmp_path: Path) -> None:
    values = empty(resnet_shapes(references.mmaction2_naming(), 3, 400, 64, references.SLOW_TIME))
    name = "backbone.layer3.0.conv1.conv.weight"
    values[name] = torch.ones(1).expand(256, 512, 1, 1, 1)
    found = describe_weights(save(values, tmp_path / "x.pth"))
    assert (found.exit_code, found.fits, found.recipes) == (0, (), ())
    assert found.notes[0] == (
        "no network fits; the nearest is slow-4x16: 319 of its 320 tensors are there, but not "
        "layer3.0.conv1.weight (shape (256, 512, 1, 1, 1) in the file, (256, 512, 3, 1, 1) in the "
        "model); make the model with other options, or take other weights"
    )


def test_an_unknown_file_is_told_the_nearest(tmp_path: Path) -> None:
    values = empty(resnet_shapes(references.SLOWFAST, 3, 400, 64, references.SLOW_TIME))
    del values["s1.pathway0_stem.conv.weight"]
    values["encoder.weight"] = torch.zeros(3)
    found = describe_weights(save(values, tmp_path / "x.pth"))
    assert (found.exit_code, found.format_name, found.fits) == (1, None, ())
    assert found.kind.startswith("unknown")
    notes = "\n".join(found.notes)
    assert (
        "nearest format is slowfast-slow (facebookresearch/SlowFast): it knows 319 of 320" in notes
    )
    assert "but not encoder.weight" in notes
    assert "a file of slowfast-slow has besides: s1.pathway0_stem.conv.weight" in notes

    torch.save({"a": torch.zeros(3)}, tmp_path / "y.pth")
    found = describe_weights(tmp_path / "y.pth")
    assert (found.exit_code, found.notes) == (
        1,
        (
            "no format knows any of its names: a",
            f"none of {len(NETWORKS)} networks has a tensor of the same name and shape; check that "
            "the file holds weights of a network for clips",
        ),
    )


def test_weights_with_our_own_names(tmp_path: Path) -> None:
    model = create_model("tsn-resnet18", stream="rgb", num_classes=51)
    torch.save(model.state_dict(), tmp_path / "x.pt")
    found = describe_weights(tmp_path / "x.pt")
    assert found.exit_code == 0
    assert {"resnet18", "tsn-resnet18"} <= {fit.network for fit in found.fits}
    assert {fit.num_classes for fit in found.fits} == {51}
    assert found.kind == "weights with the names of flowprep's own networks"


def test_checkpoints_and_folders_of_trainings(tmp_path: Path, motion: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", make_checkpoint(open_dataset(motion)))
    for path in (tmp_path, tmp_path / "last.pt"):
        found = describe_weights(path)
        assert found.source == str(tmp_path / "last.pt")
        assert found.kind.startswith("a checkpoint of flowprep (weights alone)")
        assert found.details["network"] == "resnet18, stream flow"
        assert "flow dis at most" in found.details["data set motion"]
        assert found.exit_code == 0
    assert any("has no best.pt" in note for note in describe_weights(tmp_path).notes)


def test_loading_is_told_tensor_by_tensor(tmp_path: Path) -> None:
    shapes = resnet_shapes(references.tsm_naming(shifts=False), 3, 400, 64, None)
    path = save(empty(shapes), tmp_path / "x.pth")
    report = describe_loading(path, "tsn-resnet50")
    assert report.summary().splitlines()[:2] == [
        f"{path}: 0 tensors taken as they are, 320 renamed, 0 converted, 0 of the model left as "
        "they were, 0 of the file not used",
        "  format: tsn-resnet (mit-han-lab/temporal-shift-module, yjxiong/tsn-pytorch)",
    ]
    assert len(report.summary().splitlines()) == 2 + 6
    every = report.summary(every=True).splitlines()
    assert len(every) == 2 + 320
    assert "  renamed: base.fc.bias from new_fc.bias" in every
    # For another stream, the first convolution is told.
    flow = describe_loading(path, "tsn-resnet50", "flow")
    changed = {name: how for name, how in flow.converted.items() if "cross" in how}
    assert list(changed) == ["base.conv1.weight"]
    with pytest.raises(WeightsError, match="the model is I3D"):
        describe_loading(path, "i3d")


def test_a_bare_network_has_the_names_and_shapes_of_a_real_one() -> None:
    bare = make_bare("resnet18", "flow", num_classes=5).state_dict()
    real = create_model("resnet18", stream="flow", num_classes=5).state_dict()
    assert {name: (v.shape, v.dtype) for name, v in bare.items()} == {
        name: (v.shape, v.dtype) for name, v in real.items()
    }
    assert all(value.is_meta for value in bare.values())


def test_the_docs_have_every_format() -> None:
    rows = [
        f"| `{name}` | {form.project} | {form.description} | "
        f"{', '.join(f'`{network}`' for network in form.networks)} | "
        f"{', '.join(f'`{recipe}`' for recipe in form.recipes)} |"
        for name, form in FOREIGN.items()
    ]
    table = DOCS.read_text().partition("## Formats")[2].strip().splitlines()
    assert table[2:] == rows
