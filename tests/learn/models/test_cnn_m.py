"""CNN-M-2048: the paper's sizes, and the normalisation that its two nets do not share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.cost import count_macs, count_parameters
from tests.learn.inputs import stack


@pytest.mark.parametrize(("in_channels", "parameters"), [(3, 90_627_813), (20, 90_707_781)])
def test_size(in_channels: int, parameters: int) -> None:
    with torch.device("meta"):
        model = CNNM(stack(in_channels), 101)

    assert count_parameters(model) == parameters


def test_cost_is_the_sum_over_its_layers() -> None:
    """Kernel x channels x positions at 109, 26, 13, 13, 13 px, and the three products."""
    with torch.device("meta"):
        model = CNNM(stack(20), 101)
    convolutions = 49 * 20 * 96 * 109**2 + 25 * 96 * 256 * 26**2
    convolutions += 9 * 512 * (256 + 512 + 512) * 13**2
    products = 512 * 36 * 4096 + 4096 * 2048 + 2048 * 101

    assert count_macs(model, (1, 20, 224, 224)) == convolutions + products


@pytest.mark.parametrize("crop_px", [41, 48, 64, 65, 66, 67, 96, 112, 224])
@torch.no_grad()
def test_fc6_follows_the_crop(crop_px: int) -> None:
    model = CNNM(stack(4), 5, width=0.05, crop_px=crop_px).eval()

    assert model(torch.randn(2, 4, crop_px, crop_px)).shape == (2, 5)


@pytest.mark.parametrize("crop_px", [1, 7, 8, 16, 40])
def test_a_crop_of_which_nothing_is_left_is_refused(crop_px: int) -> None:
    with pytest.raises(ConfigError, match=rf"crop_px must be at least 41 .* got {crop_px}"):
        CNNM(stack(4), 5, width=0.05, crop_px=crop_px)


@torch.no_grad()
def test_second_norm_is_conv2s_alone() -> None:
    rgb = [ClipInput("rgb", "rgb", "stack", 2)]
    with_norm = CNNM(rgb, 5, width=0.1, crop_px=64).eval()
    without = CNNM(stack(6), 5, width=0.1, crop_px=64).eval()
    without.load_state_dict(with_norm.state_dict())
    clip = torch.randn(2, 6, 64, 64) * 30

    assert not torch.allclose(with_norm(clip), without(clip))
    with_norm.norm2 = nn.Identity()
    assert torch.equal(with_norm(clip), without(clip))


@torch.no_grad()
def test_normalisation_is_alexnets_formula() -> None:
    """b = a / (k + alpha sum a^2)^beta over 5 channels, k = 2, alpha = 1e-4, beta = .75."""
    norm = CNNM(stack(4), 5, width=0.05, crop_px=64).norm
    a = torch.arange(1.0, 8.0).reshape(1, 7, 1, 1) * 20

    got = norm(a).flatten()

    values = a.flatten().tolist()
    for i, value in enumerate(values):
        total = sum(other**2 for other in values[max(0, i - 2) : i + 3])
        assert got[i].item() == pytest.approx(value / (2 + 1e-4 * total) ** 0.75, rel=1e-5)


def test_dropout_is_on_both_fully_connected_layers() -> None:
    model = CNNM(stack(4), 5, width=0.05, crop_px=64)
    calls: list[int] = []
    model.dropout.register_forward_hook(lambda _, args, __: calls.append(args[0].shape[1]))

    model(torch.randn(1, 4, 64, 64))

    assert model.dropout.p == 0.9
    assert calls == [model.fc6.out_features, model.fc7.out_features]


def test_replaced_classifier_has_the_new_classes() -> None:
    model = CNNM(stack(4), 5, width=0.05, crop_px=64)

    model.replace_classifier(7)

    assert model(torch.randn(2, 4, 64, 64)).shape == (2, 7)
