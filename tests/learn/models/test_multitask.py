"""Multi-task learning: one trunk, a head for each data set, and whose gradient goes where."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.create import create_model
from flowprep.learn.losses import task_loss
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.resnet import resnet18
from tests.learn.inputs import stack


def loss_of(
    logits: tuple[torch.Tensor, ...], labels: torch.Tensor, tasks: torch.Tensor
) -> torch.Tensor:
    """The loss of a step whose whole batch these samples are."""
    counts = [int((tasks == task).sum()) for task in range(len(logits))]
    return task_loss(logits, labels, tasks, counts)


def small() -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(resnet18(stack(4), 1, width=0.1).eval(), (3, 5))


def test_logits_of_each_task() -> None:
    model = small()

    first, second = model(torch.randn(2, 4, 32, 32))

    assert first.shape == (2, 3)
    assert second.shape == (2, 5)
    assert (model.inputs, model.num_classes) == (stack(4), (3, 5))


@pytest.mark.parametrize(("task", "absent"), [(0, slice(3, 8)), (1, slice(0, 3))])
def test_no_gradient_reaches_the_absent_sets_head(task: int, absent: slice) -> None:
    model = small()
    labels = torch.tensor([0, 2])

    loss_of(model(torch.randn(2, 4, 32, 32)), labels, torch.full((2,), task)).backward()

    for parameter in (model.model.fc.weight, model.model.fc.bias):
        present = torch.ones(8, dtype=torch.bool)
        present[absent] = False
        assert (parameter.grad[absent] == 0).all()
        assert (parameter.grad[present] != 0).any()
    assert model.model.conv1.weight.grad.abs().sum() > 0


def test_loss_is_the_sum_of_each_sets_own() -> None:
    model = small()
    clips = torch.randn(5, 4, 32, 32)
    labels = torch.tensor([2, 4, 0, 1, 1])
    tasks = torch.tensor([0, 1, 0, 1, 0])

    loss = loss_of(model(clips), labels, tasks)

    first, second = model(clips)
    expected = F.cross_entropy(first[[0, 2, 4]], labels[[0, 2, 4]])
    expected = expected + F.cross_entropy(second[[1, 3]], labels[[1, 3]])
    torch.testing.assert_close(loss, expected)


def test_trunks_gradient_is_the_sum_over_sets() -> None:
    model = small()
    clips, labels = torch.randn(4, 4, 32, 32), torch.tensor([2, 1, 0, 4])
    tasks = torch.tensor([0, 1, 0, 1])
    kernel = model.model.conv1.weight

    def gradient(rows: torch.Tensor) -> torch.Tensor:
        loss = loss_of(model(clips[rows]), labels[rows], tasks[rows])
        return torch.autograd.grad(loss, kernel)[0]

    both = gradient(torch.arange(4))

    torch.testing.assert_close(
        both, gradient((tasks == 0).nonzero()[:, 0]) + gradient((tasks == 1).nonzero()[:, 0])
    )


def test_a_head_is_what_a_classifier_of_its_own_would_be() -> None:
    model = small()
    single = resnet18(stack(4), 5, width=0.1).eval()
    state = model.model.state_dict()
    single.load_state_dict(
        {**state, "fc.weight": state["fc.weight"][3:], "fc.bias": state["fc.bias"][3:]}
    )
    clips = torch.randn(2, 4, 32, 32)

    torch.testing.assert_close(model(clips)[1], single(clips))


@pytest.mark.parametrize("name", ["cnn-m-2048", "tsn-resnet18", "i3d", "i3d-resnet50"])
@torch.no_grad()
def test_every_kind_of_network_can_be_divided(name: str) -> None:
    trunk = create_model(name, stream="flow", num_classes=1, num_frames=8, width=0.05, crop_px=64)
    model = MultiTask(trunk, (3, 5)).eval()
    clips = torch.randn(2, *model.inputs[0].shape(64))

    assert [tuple(logits.shape) for logits in model(clips)] == [(2, 3), (2, 5)]


@pytest.mark.parametrize("num_classes", [(), (3, 0)])
def test_impossible_numbers_of_classes_are_refused(num_classes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="num_classes"):
        MultiTask(resnet18(stack(4), 1, width=0.1), num_classes)


def test_a_single_task_learns() -> None:
    model = MultiTask(resnet18(stack(4), 1, width=0.1), (2,))
    loss = loss_of(model(torch.randn(4, 4, 32, 32)), torch.tensor([0, 1, 0, 1]), torch.zeros(4))

    loss.backward()

    assert isinstance(model.model.fc, nn.Linear)
    assert loss.item() > 0


def test_answers_are_joined_task_by_task() -> None:
    model = small()
    answers = torch.randn(2, 4, 8)
    base = model.model
    base.answer = lambda features: answers  # type: ignore[method-assign]
    base.join_answers = lambda logits: logits.softmax(2).mean(1).log()  # type: ignore[method-assign]

    while_training = model.train()(torch.randn(2, 4, 32, 32))
    assert [one.shape for one in while_training] == [(2, 4, 3), (2, 4, 5)]

    first, second = model.eval()(torch.randn(2, 4, 32, 32))
    torch.testing.assert_close(first.exp(), answers[..., :3].softmax(2).mean(1))
    torch.testing.assert_close(second.exp(), answers[..., 3:].softmax(2).mean(1))
