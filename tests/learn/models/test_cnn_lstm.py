"""An LSTM over frames: its gains, its four ways to score, and the order of frames."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.forward import answer_weights, forward_clips, join_answers
from flowprep.learn.losses import target_loss
from flowprep.learn.models.cnn_lstm import CNNLSTM, linear_gain
from flowprep.learn.models.cost import count_parameters
from flowprep.learn.models.lrcn import LRCN
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.network_options import StepScores
from tests.learn.inputs import volume


def small(step_scores: StepScores = "weighted") -> CNNLSTM:
    torch.manual_seed(0)
    inputs = volume(2, 6)
    model = CNNLSTM(inputs, 4, step_scores=step_scores, backbone="resnet18", width=1 / 16)
    for weight in model.lstm.parameters():  # five layers would let the signal die away
        torch.nn.init.normal_(weight, std=0.5)
    torch.nn.init.normal_(model.fc.weight)
    return model.eval()


def clips(num_frames: int = 6) -> torch.Tensor:
    shape = (3, 2, num_frames, 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_steps", [1, 2, 30, 120])
def test_gains_rise_linearly_and_sum_to_one(num_steps: int) -> None:
    gain = linear_gain(num_steps)
    assert gain.shape == (num_steps,)
    torch.testing.assert_close(gain.sum(), torch.tensor(1.0))
    # g = t / T, whose sum is (T + 1) / 2.
    steps = torch.arange(1, num_steps + 1)
    torch.testing.assert_close(gain * (num_steps + 1) / 2, steps / num_steps)


@pytest.mark.parametrize("step_scores", get_args(StepScores))
@torch.no_grad()
def test_scores_of_a_clip_are_those_of_its_steps(step_scores: StepScores) -> None:
    model = small(step_scores)
    steps = model.answer(model.extract_features(clips())).softmax(2)  # (3, 6, 4)
    assert steps.shape == (3, 6, 4)

    found = model(clips()).softmax(1)

    largest = steps.amax(1)
    expected = {
        "last": steps[:, -1],
        "max": largest / largest.sum(1, keepdim=True),
        "sum": steps.sum(1) / 6,
        "weighted": sum(t * steps[:, t - 1] for t in range(1, 7)) / 21,
    }
    torch.testing.assert_close(found, expected[step_scores])
    others = [value for name, value in expected.items() if name != step_scores]
    assert not any(torch.allclose(found, other, atol=1e-4) for other in others)
    assert model.excludes_classes == (step_scores != "last")


@torch.no_grad()
def test_a_step_sees_the_frames_up_to_it() -> None:
    model, x = small(), clips()
    steps = model.answer(model.extract_features(x))
    changed = x.clone()
    changed[:, :, 3:] = torch.randn(3, 2, 3, 32, 32)
    found = model.answer(model.extract_features(changed))
    torch.testing.assert_close(found[:, :3], steps[:, :3])
    assert not torch.allclose(found[:, 3:], steps[:, 3:], atol=1e-3)
    # The order of the frames matters, and any number of them is taken.
    assert not torch.allclose(model(x.flip(2)), model(x), atol=1e-3)
    assert model(clips(9)).shape == (3, 4)


def test_the_loss_of_each_step_has_its_gain() -> None:
    model, x = small().train(), clips().unsqueeze(1)  # (3, 1, 2, 6, 32, 32)
    labels = torch.tensor([0, 3, 1])
    logits = forward_clips(model, model, [x])
    loss = target_loss(logits, [labels], [3], answer_weights=answer_weights(model, logits))

    assert [one.shape for one in logits] == [(3, 6, 4)]
    each = torch.stack([F.cross_entropy(logits[0][:, t], labels) for t in range(6)])
    torch.testing.assert_close(loss, (each * torch.arange(1, 7)).sum() / 21)
    (joined,) = join_answers(model, logits)
    torch.testing.assert_close(joined, model.join_answers(logits[0]))
    loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())

    heads = MultiTask(model, (2, 5))
    assert [one.shape for one in forward_clips(heads, heads, [x])] == [(3, 6, 2), (3, 6, 5)]
    assert [one.shape for one in forward_clips(heads.eval(), heads, [x])] == [(3, 2), (3, 5)]


def test_the_lstm_has_the_published_size() -> None:
    with torch.device("meta"):
        sizes = [
            count_parameters(CNNLSTM(volume(3), 5, backbone=backbone).lstm)
            for backbone in ("googlenet", "alexnet")
        ]
    assert sizes == [11_554_816, 17_846_272]


@torch.no_grad()
def test_lrcn_scores_are_the_mean_of_its_steps() -> None:
    torch.manual_seed(0)
    model = LRCN(volume(3, 4), 5, width=1 / 16, crop_px=64).eval()
    torch.nn.init.normal_(model.fc8.weight)
    x = torch.randn(2, 3, 4, 64, 64)
    steps = model.answer(model.extract_features(x)).softmax(2)
    torch.testing.assert_close(model(x).softmax(1), steps.mean(1))
    torch.testing.assert_close(model.answer_weights(4), torch.full((4,), 0.25))
