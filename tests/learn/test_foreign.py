"""Weights of others: which recipe they belong to, and what they see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowprep.config import ExtractConfig
from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.checkpoint import Checkpoint, Task, save_checkpoint
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.create import create_model
from flowprep.learn.foreign import find_recipe, foreign_checkpoint, foreign_network
from flowprep.learn.weights.files import save_weights


def test_the_names_in_a_file_tell_its_recipe(tmp_path: Path) -> None:
    for name, stream, recipe, others in (
        ("i3d", "flow", "i3d", " (not i3d-raft)"),
        ("mc3-18", "rgb", "torchvision-video", ""),
    ):
        path = tmp_path / f"{name}.pth"
        model = create_model(name, stream=stream, num_classes=2, width=0.1)  # type: ignore[arg-type]
        torch.save(model.state_dict(), path)
        assert find_recipe(path, name, stream) == (  # type: ignore[arg-type]
            recipe,
            [
                f"{path} is taken for weights of recipe {recipe}{others}; name another one with "
                "--recipe"
            ],
        )
    # What flowprep wrote has names of others, and no recipe of theirs.
    save_weights(model, tmp_path / "own.safetensors")
    assert find_recipe(tmp_path / "own.safetensors", "mc3-18", "rgb")[0] is None
    # torchvision's networks saw no flow.
    found, (note,) = find_recipe(path, "mc3-18", "flow")
    assert found is None
    assert "so nothing is compared with how the weights were trained; name one with" in note


def test_a_foreign_checkpoint_is_that_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "others.pth"
    model = create_model("mc3-18", stream="rgb", num_classes=3)
    torch.save(model.state_dict(), path)
    network = foreign_network(path, "mc3-18", num_frames=8)
    assert (network.recipe, network.stream) == ("torchvision-video", "rgb")
    assert network.clip == ClipSpec("rgb", 8, normalization="torchvision-video", crop_px=112)
    assert network.views is not None
    assert network.views.num_clips == 5
    made = foreign_checkpoint(network, ("a", "b", "c"))
    assert made.tasks[0].class_names == ("a", "b", "c")
    assert made.tasks[0].recipe == "torchvision-video"
    assert made.tasks[0].config.decode.fps == 15
    for name, value in model.state_dict().items():
        assert made.model[name].equal(value), name
    with pytest.raises(ConfigError, match=r"classes must be 3, as .* has them, got 2"):
        foreign_checkpoint(network, ("a", "b"))
    # Stored and read, the task is the same; one that flowprep trained has no such field.
    task = made.tasks[0]
    assert Task.from_dict(task.to_dict()) == task
    assert "recipe" not in Task("x", ("a",), {}, "").to_dict()


def test_a_checkpoint_of_flowprep_is_no_foreign_file(tmp_path: Path) -> None:
    config = TrainConfig(ModelSpec("tsn-resnet18", width=0.05), ClipSpec("flow", 5))
    model = create_model("tsn-resnet18", stream="flow", num_classes=2, width=0.05)
    task = Task("x", ("a", "b"), ExtractConfig().to_dict(), "opencv-5")
    save_checkpoint(tmp_path / "own.pt", Checkpoint(config, (task,), 3, dict(model.state_dict())))
    with pytest.raises(WeightsError, match="is a checkpoint of flowprep, which knows its network"):
        foreign_network(tmp_path / "own.pt", "tsn-resnet18")
