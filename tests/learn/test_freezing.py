"""Frozen parts: what stays as it is, from when on it moves, and that no stop shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, ConfigMismatchError
from flowprep.learn.checkpoint import build_model
from flowprep.learn.config import ModelSpec
from flowprep.learn.create import create_model
from flowprep.learn.freezing import freeze_part
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.networks import NETWORKS
from flowprep.learn.train import train
from flowprep.learn.training_specs import OptimizationSpec
from flowprep.learn.weights.load import classifier_names
from tests.learn.test_train import QUIET, SMALL, assert_equal, change, stop_after, weights
from tests.learn.two_towers import INPUTS, TwoTowers
from tests.torch_devices import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_and_classifier_are_the_whole_network(name: str) -> None:
    stream = next(iter(NETWORKS[name].inputs))
    with torch.device("meta"):
        model = create_model(name, stream=stream, num_classes=4, width=0.05)
        names = classifier_names(model)
    part = freeze_part(model, OptimizationSpec(freeze="trunk"), 0, 1)
    assert part is not None
    learning = {name for name, one in model.named_parameters() if one.requires_grad}
    assert learning == names & {name for name, _ in model.named_parameters()}
    whole = freeze_part(model, OptimizationSpec(freeze=str(len(model.stages))), 0, 1)
    assert whole is not None
    assert whole.parameters == []
    # Stages come in the order of the parameters, so that a smaller number freezes less. Towers lie
    # one behind the other, and their stages side by side.
    first_tower = next(iter(model.whole_towers), "")
    order = [name for name, _ in model.named_parameters()]
    firsts = [
        min(order.index(name) for name in order if name.startswith(f"{stage[0]}."))
        for stage in model.stages
        if stage[0].startswith(first_tower)
    ]
    assert firsts == sorted(firsts)
    with pytest.raises(ConfigError, match=f"a number from 1 to {len(model.stages)} .* got 99"):
        freeze_part(model, OptimizationSpec(freeze="99"), 0, 1)


def test_a_network_without_stages_has_a_trunk() -> None:
    model = TwoTowers(INPUTS, 3)
    names = classifier_names(model)
    freeze_part(model, OptimizationSpec(freeze="trunk"), 0, 1)
    assert {n for n, one in model.named_parameters() if one.requires_grad} <= names
    with pytest.raises(ConfigError, match=r"freeze must be trunk for this network, got 1$"):
        freeze_part(model, OptimizationSpec(freeze="1"), 0, 1)


def test_released_parts_keep_what_partial_bn_froze() -> None:
    model = create_model(
        "tsn-resnet18", stream="flow", num_classes=4, width=0.1, partial_bn=True
    ).train()
    before = {name: one.requires_grad for name, one in model.named_parameters()}
    modes = {name: one.training for name, one in model.named_modules()}
    part = freeze_part(model, OptimizationSpec(freeze="2", unfreeze_at=0.5), 49, 100)
    assert part is not None
    model.eval()
    model.train()
    frozen = [name for name, one in model.named_modules() if "bn" in name and not one.training]
    assert "base.bn1" in frozen
    assert part.is_due(50, 100)
    assert not part.is_due(49, 100)
    part.release()
    assert {name: one.requires_grad for name, one in model.named_parameters()} == before
    assert {name: one.training for name, one in model.named_modules()} == modes
    assert freeze_part(model, OptimizationSpec(freeze="2", unfreeze_at=0.5), 50, 100) is None


@pytest.mark.parametrize(("model", "own"), [("resnet18", "fc."), ("tsn-resnet18", "base.fc.")])
def test_last_layer_alone_learns(
    dataset: FlowDataset, tmp_path: Path, model: str, own: str
) -> None:
    config = change(SMALL, model=model, freeze="trunk", num_steps=3)
    report = train([dataset], tmp_path, config, QUIET)
    torch.manual_seed(config.seed)
    first = build_model(config, [8]).state_dict()
    last = weights(tmp_path)
    for name, tensor in first.items():
        # The statistics and counts of batch norms too.
        assert torch.equal(last[name], tensor) != name.startswith(own), name
    assert any("--freeze trunk keeps the weights" in note for note in report.notes)


@pytest.mark.parametrize(
    "fields",
    [{}, {"optimizer": "adamw", "accumulate": 2}, {"freeze": "3", "class_weights": "inverse"}],
    ids=["sgd", "adamw", "stages"],
)
def test_what_was_frozen_learns_later_and_stops_do_not_show(
    dataset: FlowDataset, tmp_path: Path, fields: dict[str, Any]
) -> None:
    frozen = {"freeze": "trunk", "unfreeze_at": 0.5, "balance": True, **fields}
    config = change(SMALL, **frozen)
    train([dataset], tmp_path / "whole", config, QUIET)
    # A stop before, at and after the step that releases the part.
    for number in (2, 3, 4):
        run = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            train([dataset], run, config, QUIET, is_stop_asked=stop_after(number))
        first = weights(run)
        torch.manual_seed(config.seed)
        start = build_model(config, [8]).state_dict()
        is_kept = torch.equal(first["conv1.weight"], start["conv1.weight"])
        assert is_kept == (number <= 3)
        train([dataset], run, config, QUIET)
        assert_equal(weights(run), weights(tmp_path / "whole"))


def test_two_heads_learn_over_one_frozen_trunk(dataset: FlowDataset) -> None:
    config = change(SMALL, freeze="trunk")
    network = build_model(config, [8, 3])
    assert isinstance(network, MultiTask)
    freeze_part(network, config.optimization, 0, 6)
    learning = [name for name, one in network.named_parameters() if one.requires_grad]
    assert learning == ["model.fc.weight", "model.fc.bias"]


def test_other_class_weights_are_another_training(dataset: FlowDataset, tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    lines = [f"{name},{1 + n}" for n, name in enumerate(dataset.class_names)]
    path.write_text("\n".join(["class,weight", *lines]), encoding="utf-8")
    config = change(SMALL, class_weights=str(path), num_steps=4)
    with pytest.raises(KeyboardInterrupt):
        train([dataset], tmp_path / "run", config, QUIET, is_stop_asked=stop_after(2))
    path.write_text("\n".join(["class,weight", *lines]).replace(",3", ",30"), encoding="utf-8")
    with pytest.raises(ConfigMismatchError, match="class weights"):
        train([dataset], tmp_path / "run", config, QUIET)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"freeze": "head"}, r"freeze must be trunk or a number of stages from 1 on, got head"),
        ({"freeze": "0"}, "freeze must be trunk or a number of stages from 1 on, got 0"),
        ({"unfreeze_at": 0.5}, "unfreeze_at needs a frozen part, got 0.5 and none; add --freeze"),
        ({"freeze": "trunk", "unfreeze_at": 1.0}, "unfreeze_at must be > 0 and < 1, got 1"),
    ],
)
def test_impossible_freezing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimizationSpec(**values)


def test_trained_weights_are_no_reason_for_a_note() -> None:
    from flowprep.learn.freezing import freeze_note

    config = change(SMALL, freeze="2")
    assert freeze_note(config) is not None
    assert freeze_note(dataclasses.replace(config, model=ModelSpec(weights="i3d.pt"))) is None
    assert freeze_note(SMALL) is None
