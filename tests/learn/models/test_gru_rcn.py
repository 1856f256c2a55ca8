"""GRU-RCN: VGG-16 below, five GRUs and five classifiers above, one loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import Task
from flowprep.learn.config import ModelSpec, TrainConfig
from flowprep.learn.models.gru_rcn import GRURCN
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.vgg import VGG16
from flowprep.learn.train_setup import check_losses
from flowprep.learn.weights.load import load_weights_into
from tests.learn.inputs import stack, volume
from tests.learn.weights.states import assert_same, copy_state, draw_state, save

WIDTH = 1 / 32


def small(**options: Any) -> GRURCN:
    torch.manual_seed(0)
    model = GRURCN(volume(3), 4, width=WIDTH, **options).eval()
    for head in model.heads:
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight)
    return model


def clips(num_frames: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, num_frames, 64, 64)


@torch.no_grad()
def test_percepts_are_vgg_16s_at_every_step() -> None:
    model = small()
    vgg = VGG16(stack(3), 4, width=WIDTH).eval()
    vgg.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name in vgg.state_dict()},
        strict=False,
    )
    clip = clips()

    *maps, fc7 = model.percepts(clip)

    assert [one.shape[2:] for one in maps] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)]
    for step in range(3):
        frame = clip[:, :, step]
        torch.testing.assert_close(fc7[:, step, :, 0, 0], vgg.extract_features(frame))
        torch.testing.assert_close(maps[-1][:, step], vgg.features(frame))


@torch.no_grad()
@pytest.mark.parametrize("stacked", [False, True])
def test_two_directions_are_two_runs(stacked: bool) -> None:
    both = small(stacked=stacked, bidirectional=True)
    clip = clips()
    features = both.extract_features(clip)
    assert features.shape == (2, 2 * sum(both.units))

    halves: list[list[torch.Tensor]] = [[], []]
    for part in features.split([2 * units for units in both.units], 1):
        for half, side in zip(halves, part.chunk(2, 1), strict=True):
            half.append(side)
    for direction, seen in enumerate((clip, clip.flip(2))):
        one = small(stacked=stacked)
        one.features, one.classifier = both.features, both.classifier
        one.grus[0] = both.grus[direction]
        if stacked:
            one.bottom_up[0] = both.bottom_up[direction]
        torch.testing.assert_close(one.extract_features(seen), torch.cat(halves[direction], 1))


@torch.no_grad()
@pytest.mark.parametrize("stacked", [False, True])
def test_states_depend_on_nothing_later(stacked: bool) -> None:
    model = small(stacked=stacked)
    clip = clips(4)
    states = model.forward_states(model.percepts(clip))
    later = clip.clone()
    later[:, :, 2:] = torch.randn(2, 3, 2, 64, 64)
    for before, after in zip(states, model.forward_states(model.percepts(later)), strict=True):
        torch.testing.assert_close(after[:, :2], before[:, :2])
        assert not torch.allclose(after[:, 2], before[:, 2])
    # One frame is the first step of any clip.
    last = torch.cat([state[:, 0].mean((2, 3)) for state in states], 1)
    torch.testing.assert_close(model.extract_features(clip[:, :, :1]), last)


@torch.no_grad()
def test_stacked_gates_see_the_state_below_pooled_and_candidates_do_not() -> None:
    model = small(stacked=True)
    percepts = model.percepts(clips(1))
    plain = small()
    plain.load_state_dict(model.state_dict(), strict=False)
    for level, (state, alone) in enumerate(
        zip(model.forward_states(percepts), plain.forward_states(percepts), strict=True)
    ):
        # After one step h = (1 - z) n. The candidate n is the same, so only z differs, if at all.
        ratio = state / alone
        assert torch.equal(state, alone) if level == 0 else not torch.allclose(state, alone)
        assert (ratio > 0).all()
    below = model.forward_states(percepts)[0][:, 0]
    pooled = nn.functional.max_pool2d(below, 2)
    up = model.bottom_up[0][0](pooled)  # type: ignore[index]
    gru = model.grus[0][1]  # type: ignore[index]
    seen = gru.see(percepts[1])[:, 0]
    (expected,) = gru.step(
        torch.cat([seen[:, : up.shape[1]] + up, seen[:, up.shape[1] :]], 1),
        (torch.zeros_like(seen[:, : gru.channels]),),
    )
    torch.testing.assert_close(model.forward_states(percepts)[1][:, 0], expected)


@torch.no_grad()
def test_the_answer_is_the_mean_of_the_probabilities_also_for_the_loss() -> None:
    model = small()
    clip = clips()
    features = model.extract_features(clip)
    heads = model.answer(features)
    assert heads.shape == (2, 5, 4)

    expected = heads.softmax(2).mean(1)

    torch.testing.assert_close(model(clip).softmax(1), expected)
    torch.testing.assert_close(model(clip).exp(), expected)
    model.dropout.p = 0.0
    for layer in model.classifier:
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    torch.testing.assert_close(model.train()(clip).exp(), expected)


def test_each_task_has_probabilities_of_its_own_and_one_loss() -> None:
    model = MultiTask(small(), (3, 2))
    for mode in (True, False):
        logits = model.train(mode)(clips())
        assert [one.shape for one in logits] == [(2, 3), (2, 2)]
        for one in logits:
            torch.testing.assert_close(one.exp().sum(1), torch.ones(2))


def test_several_labels_are_refused() -> None:
    config = TrainConfig(ModelSpec("gru-rcn"))
    task = Task("several", ("a", "b"), {}, "opencv-5", loss="bce")
    with pytest.raises(ConfigError, match="model gru-rcn averages probabilities of classes"):
        check_losses(config, [task], small())
    check_losses(config, [task], VGG16(stack(3), 2, width=WIDTH))


def test_vgg_16s_weights_start_it_and_its_own_continue_it(tmp_path: Path) -> None:
    vgg = draw_state(VGG16(stack(3), 9, width=WIDTH))
    model = small(stacked=True)
    before = copy_state(model)

    report = load_weights_into(model, save(vgg, tmp_path / "vgg.safetensors"))

    assert set(report.unexpected) == {"classifier.6.weight", "classifier.6.bias"}
    assert len(report.loaded) == len(vgg) - 2
    for name, value in model.state_dict().items():
        wanted = vgg[name] if name in vgg else before[name]
        assert torch.equal(value, wanted), name
    reasons = {why for name, why in report.missing.items() if not name.startswith("heads.")}
    assert reasons == {"a layer above the trunk, which begins anew: the file has none"}

    again = small(stacked=True)
    own = draw_state(model)
    assert not load_weights_into(again, save(own, tmp_path / "own.safetensors")).missing
    assert_same(again.state_dict(), own)
