"""Losses of samples with several labels and several heads, however a batch is divided."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.losses import BatchTargets, count_right, target_loss


def test_several_labels_have_a_binary_cross_entropy_for_each_class() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 5), (torch.rand(6, 5) < 0.4).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(target_loss([logits], [targets], [6]), expected)
    smooth = F.binary_cross_entropy_with_logits(logits, 0.8 * targets + 0.1)
    found = target_loss([logits], [targets], [6], label_smoothing=0.2)
    torch.testing.assert_close(found, smooth)


def test_the_losses_of_parts_add_up_and_other_tasks_get_no_gradient() -> None:
    torch.manual_seed(1)
    heads = [torch.randn(6, 3, requires_grad=True), torch.randn(6, 4, requires_grad=True)]
    # The first four samples have both heads, the last two only the second, which has many classes.
    targets = [torch.tensor([0, 2, 1, 1, -1, -1]), (torch.rand(6, 4) < 0.5).float()]
    whole = target_loss(heads, targets, [4, 6])
    parts = [
        target_loss([head[rows] for head in heads], [one[rows] for one in targets], [4, 6])
        for rows in (slice(0, 1), slice(1, 5), slice(5, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)
    expected = F.cross_entropy(heads[0][:4], targets[0][:4])
    expected = expected + F.binary_cross_entropy_with_logits(heads[1], targets[1])
    torch.testing.assert_close(whole, expected)
    whole.backward()  # type: ignore[no-untyped-call]
    assert heads[0].grad is not None
    assert not heads[0].grad[4:].any()


def test_a_sample_is_right_if_all_its_heads_of_one_class_are() -> None:
    verb, noun = torch.eye(3)[[0, 1, 2, 0]], torch.eye(2)[[0, 1, 0, 1]]
    wanted = [torch.tensor([0, 1, 1, -1]), torch.tensor([0, 0, 0, 1])]
    right, known = count_right([verb, noun], wanted)
    assert (int(right), int(known)) == (2, 4)
    several = torch.ones(4, 3)
    assert [int(n) for n in count_right([verb, noun], [wanted[0], several[:, :2]])] == [2, 3]
    assert [int(n) for n in count_right([verb], [several])] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_fp32(dtype: torch.dtype) -> None:
    logits, targets = torch.full((300, 2), 5.0, dtype=dtype), torch.ones(300, 2)
    assert target_loss([logits], [targets], [300]).item() == pytest.approx(0.006715, rel=1e-3)


def test_the_losses_of_several_answers_are_weighted() -> None:
    torch.manual_seed(2)
    answers = [torch.randn(4, 3, 5), torch.randn(4, 3, 2)]
    targets = [torch.tensor([0, 4, -1, 2]), torch.tensor([1, 0, 1, 0])]
    shares = torch.tensor([0.5, 0.0, 2.0])

    found = target_loss(answers, targets, [3, 4], answer_weights=shares)

    first, last = (target_loss([one[:, n] for one in answers], targets, [3, 4]) for n in (0, 2))
    torch.testing.assert_close(found, 0.5 * first + 2 * last)
    # One answer of weight 1 is the loss without answers, to the bit.
    single = target_loss(
        [one[:, :1] for one in answers], targets, [3, 4], answer_weights=shares[2:] / 2
    )
    assert torch.equal(single, first)


def test_a_mixed_sample_has_the_loss_of_its_mixed_target() -> None:
    torch.manual_seed(2)
    shares = torch.rand(6)
    own, other = torch.randint(4, (6,)), torch.randint(4, (6,))
    logits, weights = torch.randn(6, 4), torch.rand(4) + 0.5
    targets = BatchTargets([own], [other], shares)
    mixed = shares[:, None] * F.one_hot(own, 4) + (1 - shares)[:, None] * F.one_hot(other, 4)
    torch.testing.assert_close(mixed.sum(1), torch.ones(6))
    torch.testing.assert_close(targets.loss([logits], [6]), F.cross_entropy(logits, mixed))
    found = targets.loss([logits], [6], label_smoothing=0.1)
    torch.testing.assert_close(found, F.cross_entropy(logits, mixed, label_smoothing=0.1))
    each = F.cross_entropy(logits, mixed, weight=weights, reduction="sum") / 6
    torch.testing.assert_close(targets.loss([logits], [6], weights=[weights]), each)
    # A whole share is the sample alone.
    alone = BatchTargets([own], [other], torch.ones(6)).loss([logits], [6])
    torch.testing.assert_close(alone, target_loss([logits], [own], [6]))
    # The larger share is what a sample is right by.
    largest = torch.where(shares >= 0.5, own, other)
    assert torch.equal(targets.largest[0], largest)


def test_mixed_samples_of_several_labels_answers_and_heads() -> None:
    torch.manual_seed(3)
    shares = torch.rand(6)
    one, two = (torch.rand(2, 6, 3) < 0.5).float()
    logits = torch.randn(6, 2, 3)
    answers = torch.tensor([0.25, 0.75])
    mixed = shares[:, None] * one + (1 - shares)[:, None] * two
    targets = BatchTargets([one], [two], shares)
    found = targets.loss([logits], [6], answer_weights=answers, label_smoothing=0.2)
    expected = sum(
        weight * F.binary_cross_entropy_with_logits(logits[:, n], 0.8 * mixed + 0.1)
        for n, weight in enumerate(answers)
    )
    torch.testing.assert_close(found, expected)
    # Of two data sets: a sample of the first is mixed with one of the second, and counts for both.
    first, second = torch.randn(2, 3), torch.randn(2, 5)
    apart = BatchTargets(
        [torch.tensor([1, -1]), torch.tensor([-1, 4])],
        [torch.tensor([-1, 1]), torch.tensor([4, -1])],
        torch.tensor([0.9, 0.2]),
    )
    expected = 0.9 * F.cross_entropy(first[:1], torch.tensor([1]))
    expected = expected + 0.8 * F.cross_entropy(first[1:], torch.tensor([1]))
    expected = expected + 0.1 * F.cross_entropy(second[:1], torch.tensor([4]))
    expected = expected + 0.2 * F.cross_entropy(second[1:], torch.tensor([4]))
    torch.testing.assert_close(apart.loss([first, second], [1, 1]), expected)
