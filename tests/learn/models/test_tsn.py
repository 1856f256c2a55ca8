"""TSN: consensus, partial batch norm, and any number of snippets."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ConsensusName
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.models.tsn import TSN
from tests.learn.inputs import stack, volume


def small(consensus: ConsensusName = "avg", *, partial_bn: bool = False) -> TSN:
    torch.manual_seed(0)
    return TSN(resnet18(stack(4), 3, width=0.1), consensus=consensus, partial_bn=partial_bn)


SNIPPETS = torch.tensor([[[1.0, 8.0], [4.0, 2.0], [1.0, 2.0]]])  # (1, S = 3, K = 2)


@pytest.mark.parametrize(
    ("consensus", "expected"),
    [("avg", [2.0, 4.0]), ("max", [4.0, 8.0]), ("weighted", [2.0, 4.0])],
)
@torch.no_grad()
def test_consensus_by_hand(consensus: ConsensusName, expected: list[float]) -> None:
    torch.testing.assert_close(small(consensus).agree(SNIPPETS), torch.tensor([expected]))


@torch.no_grad()
def test_weighted_consensus_by_hand() -> None:
    model = small("weighted")
    model.segment_weight.copy_(torch.tensor([0.25, 0.5, 0.25]).log())

    torch.testing.assert_close(model.agree(SNIPPETS), torch.tensor([[2.5, 3.5]]))


@torch.no_grad()
def test_weighted_consensus_of_other_numbers_is_the_average() -> None:
    model = small("weighted")
    model.segment_weight.copy_(torch.tensor([3.0, 0.0, -1.0]))
    snippets = torch.randn(2, 25, 3)

    torch.testing.assert_close(model.agree(snippets), snippets.mean(1))


@pytest.mark.parametrize(
    ("consensus", "expected"),
    [
        ("avg", [[1 / 3, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 1 / 3]]),
        ("max", [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
        ("weighted", [[1 / 3, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 1 / 3]]),
    ],
)
def test_gradients_of_the_consensus(consensus: ConsensusName, expected: list[list[float]]) -> None:
    snippets = SNIPPETS.clone().requires_grad_()

    small(consensus).agree(snippets).sum().backward()

    torch.testing.assert_close(snippets.grad, torch.tensor([expected]))


def test_gradient_of_the_weights_by_hand() -> None:
    """d/dw_k sum_j softmax(w)_j s_j = softmax(w)_k (s_k - mean), s of the first class."""
    model = small("weighted")

    model.agree(SNIPPETS)[0, 0].backward()

    torch.testing.assert_close(model.segment_weight.grad, torch.tensor([-1.0, 2.0, -1.0]) / 3)


@pytest.mark.parametrize("segments", [1, 3, 7])
@torch.no_grad()
def test_forward_is_the_consensus_of_each_snippets_logits(segments: int) -> None:
    model = small().eval()
    video = torch.randn(2, segments, 4, 32, 32)

    snippets = torch.stack([model.base(video[:, s]) for s in range(segments)], 1)

    torch.testing.assert_close(model(video), snippets.mean(1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_stack_is_one_snippet() -> None:
    model = small().eval()
    stack = torch.randn(2, 4, 32, 32)

    assert torch.equal(model(stack), model(stack.unsqueeze(1)))


def test_base_is_under_its_own_name() -> None:
    names = set(small("weighted").state_dict())

    assert names - {"segment_weight"} == {f"base.{n}" for n in resnet18(stack(4), 3).state_dict()}


def test_partial_bn_leaves_all_but_the_first_as_they_are() -> None:
    model = small(partial_bn=True).train()
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    before = {name: copy.deepcopy(norm.state_dict()) for name, norm in norms}
    kernel = model.base.layer4[1].conv2.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
        optimizer.step()

    (_, first), *others = norms
    assert first.training
    for part in ("weight", "bias", "running_mean", "running_var"):
        assert not torch.equal(first.state_dict()[part], before["base.bn1"][part])
    for name, norm in others:
        assert not norm.training
        for part, value in norm.state_dict().items():
            assert torch.equal(value, before[name][part]), (name, part)
    assert not torch.equal(model.base.layer4[1].conv2.weight, kernel)


def test_partial_bn_lasts_through_eval_and_train_again() -> None:
    model = small(partial_bn=True)

    model.eval()
    assert not any(module.training for module in model.modules())
    model.train()
    modes = [m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)]

    assert modes[0]
    assert not any(modes[1:])


def test_without_partial_bn_all_learn() -> None:
    model = small().eval().train()

    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_replaced_classifier_is_the_bases() -> None:
    model = small()

    model.replace_classifier(7)

    assert model(torch.randn(2, 3, 4, 32, 32)).shape == (2, 7)
    assert model.base.fc.out_features == 7


def test_what_it_cannot_be_made_of_is_refused() -> None:
    base = resnet18(stack(4), 3, width=0.1)
    with pytest.raises(ConfigError, match="takes volumes"):
        TSN(I3D(volume(2), 3, width=0.05))
    with pytest.raises(ConfigError, match="got 0"):
        TSN(base, num_segments=0)
    with pytest.raises(ConfigError, match="avg, max, weighted, got 'mean'"):
        TSN(base, consensus="mean")  # type: ignore[arg-type]
