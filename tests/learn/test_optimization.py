"""Schedules at their corners, parameters that decay, and losses that add up."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.create import create_model
from flowprep.learn.losses import task_loss
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.optimization import (
    count_steps,
    learning_rate,
    make_optimizer,
    rate_factors,
    set_learning_rate,
)
from flowprep.learn.training_specs import OptimizationSpec


def test_steps_follow_from_epochs_unless_they_are_given() -> None:
    assert count_steps(OptimizationSpec(32, num_epochs=3), 100) == math.ceil(300 / 32)
    assert count_steps(OptimizationSpec(32, num_epochs=0.01), 100) == 1
    assert count_steps(OptimizationSpec(32, num_epochs=3, num_steps=7), 100) == 7


def test_cosine_falls_from_the_whole_rate_over_the_half_towards_zero() -> None:
    spec = OptimizationSpec(learning_rate=2.0)
    rates = [learning_rate(spec, step, 100) for step in range(101)]
    assert (rates[0], rates[50], rates[100]) == pytest.approx((2.0, 1.0, 0.0))
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warmup_rises_from_a_tenth_in_a_straight_line(schedule: str) -> None:
    spec = OptimizationSpec(learning_rate=1.0, warmup=0.2, schedule=schedule)  # type: ignore[arg-type]
    rates = [learning_rate(spec, step, 100) for step in range(100)]
    assert rates[:21] == pytest.approx([0.1 + 0.9 * step / 20 for step in range(21)])
    assert max(rates) == rates[20] == 1.0


def test_step_multiplies_at_each_milestone() -> None:
    spec = OptimizationSpec(learning_rate=1.0, schedule="step", milestones=(0.25, 0.5), decay=0.1)
    rates = [learning_rate(spec, step, 8) for step in range(8)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_adamw_spares_biases_and_norms_and_nobody_moves_what_is_frozen() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))
    model[1].requires_grad_(False)
    adamw = make_optimizer(OptimizationSpec(optimizer="adamw", weight_decay=0.1), model)
    decays = {
        id(parameter): group["weight_decay"]
        for group in adamw.param_groups
        for parameter in group["params"]
    }
    assert decays == {
        id(model[0].weight): 0.1,
        id(model[0].bias): 0.0,
        id(model[3].weight): 0.1,
        id(model[3].bias): 0.0,
    }
    sgd = make_optimizer(OptimizationSpec(weight_decay=0.1), model)
    assert [len(group["params"]) for group in sgd.param_groups] == [4]
    assert sgd.param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rates_fall_from_stage_to_stage_and_the_classifier_has_its_own(optimizer: str) -> None:
    spec = OptimizationSpec(optimizer=optimizer, layer_decay=0.5, classifier_rate=10)  # type: ignore[arg-type]
    with torch.device("meta"):
        plain = create_model("resnet18", stream="flow", num_classes=3, width=0.0625)
        several = MultiTask(plain, [3, 2])
    for network, prefix in ((plain, ""), (several, "model.")):
        factors = rate_factors(spec, network)
        expected = {"conv1": 1 / 32, "bn1": 1 / 32, "layer1": 1 / 16, "layer2": 1 / 8}
        expected |= {"layer3": 1 / 4, "layer4": 1 / 2, "fc": 10}
        assert factors == {
            name: expected[name.removeprefix(prefix).split(".")[0]]
            for name, _ in network.named_parameters()
        }
    made = make_optimizer(spec, several)
    names = {id(parameter): name for name, parameter in several.named_parameters()}
    rate = set_learning_rate(made, spec, 3, 10)
    assert rate == learning_rate(spec, 3, 10)
    groups = [(names[id(one)], group) for group in made.param_groups for one in group["params"]]
    assert len(groups) == len(names)
    for name, group in groups:
        assert group["lr"] == pytest.approx(rate * factors[name])


def test_without_factors_the_groups_are_as_ever() -> None:
    with torch.device("meta"):
        model = create_model("resnet18", stream="flow", num_classes=3, width=0.0625)
        nameless = create_model("resnet18", stream="flow", num_classes=3, width=0.0625)
    assert set(rate_factors(OptimizationSpec(), model).values()) == {1.0}
    (group,) = make_optimizer(OptimizationSpec(), model).param_groups
    assert not {"rate_factor"} & group.keys()
    nameless.stages = (("conv1",), ("fc.bias",))
    found = rate_factors(OptimizationSpec(layer_decay=0.5, classifier_rate=3), nameless)
    assert {found[name] for name in ("fc.weight", "fc.bias")} == {3}
    nameless.stages = (("bn1.bias",), ("bn1",))
    found = rate_factors(OptimizationSpec(layer_decay=0.5), nameless)
    assert (found["bn1.bias"], found["bn1.weight"], found["conv1.weight"]) == (0.25, 0.5, 1)
    nameless.stages = ()
    with pytest.raises(ConfigError, match=r"layer_decay is for networks with stages, got 0\.5"):
        rate_factors(OptimizationSpec(layer_decay=0.5), nameless)
    assert rate_factors(OptimizationSpec(classifier_rate=2), nameless)["fc.weight"] == 2
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="layer_decay must be > 0 and <= 1"):
            OptimizationSpec(layer_decay=wrong)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_task_has_the_mean_cross_entropy(smoothing: float) -> None:
    logits, labels = torch.randn(6, 5), torch.randint(5, (6,))
    loss = task_loss([logits], labels, torch.zeros(6).long(), [6], label_smoothing=smoothing)
    assert loss == pytest.approx(F.cross_entropy(logits, labels, label_smoothing=smoothing).item())


def test_losses_of_parts_add_up_to_that_of_the_batch() -> None:
    torch.manual_seed(0)
    heads = [torch.randn(9, 5), torch.randn(9, 3)]
    labels, tasks = torch.randint(3, (9,)), torch.tensor([0, 1, 0, 0, 1, 0, 0, 0, 1])
    counts = torch.bincount(tasks).tolist()
    whole = task_loss(heads, labels, tasks, counts)
    own = [F.cross_entropy(head[tasks == k], labels[tasks == k]) for k, head in enumerate(heads)]
    assert whole == pytest.approx(float(sum(own)))
    # The first part has no sample of the second task.
    parts = [
        task_loss([head[rows] for head in heads], labels[rows], tasks[rows], counts)
        for rows in (slice(0, 1), slice(1, 4), slice(4, 9))
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)


def test_a_sample_does_not_reach_the_head_of_another_task() -> None:
    heads = [torch.randn(4, 5, requires_grad=True), torch.randn(4, 3, requires_grad=True)]
    tasks = torch.tensor([0, 1, 0, 1])
    task_loss(heads, torch.zeros(4).long(), tasks, [2, 2]).backward()  # type: ignore[no-untyped-call]
    for task, head in enumerate(heads):
        assert head.grad is not None
        assert (head.grad[tasks != task] == 0).all()
        assert (head.grad[tasks == task] != 0).all()
