"""Inception-V1 over frames, with an LSTM above it, and beside another one over flow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.models.i3d import I3D
from flowprep.learn.models.i3d_fused import FusedInception
from flowprep.learn.models.inception_v1 import InceptionLSTM, InceptionV1
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.weights.load import load_weights_into
from flowprep.learn.weights.towers import start_from
from tests.learn.inputs import stack, volume
from tests.learn.models.drawn import fill
from tests.learn.weights.states import assert_same, draw_state, save

WIDTH = 1 / 16

BOTH = (
    ClipInput("rgb", "rgb", "volume", 3, 10),
    ClipInput("flow", "flow", "volume", 3, 10, stack_length=10),
)


@torch.no_grad()
def test_a_still_video_is_its_frame_to_i3d() -> None:
    """I3D with Inception-V1's kernels, inflated, sees a video of one frame as that frame."""
    image = InceptionV1(stack(3), 5, width=WIDTH).eval()
    fill(image, 0)
    video = I3D(volume(3), 5, width=WIDTH, time_padding="replicate").eval()
    for name, value in video.state_dict().items():
        own = image.state_dict()[name]
        value.copy_(own.expand_as(value) / value.shape[2] if value.dim() == 5 else own)
    frame = torch.randn(2, 3, 64, 64)

    torch.testing.assert_close(
        video(frame.unsqueeze(2).expand(-1, -1, 8, -1, -1)), image(frame), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_frames_do_not_see_each_other_below_the_lstm() -> None:
    model = InceptionLSTM(volume(3, 4), 5, width=WIDTH).eval()
    clip = torch.randn(2, 3, 4, 64, 64)
    maps = model.forward_maps(clip)
    assert maps.shape[2:] == (4, 2, 2)
    for step in range(4):
        alone = model.forward_maps(clip[:, :, step : step + 1])
        torch.testing.assert_close(maps[:, :, step : step + 1], alone)


@torch.no_grad()
def test_every_step_answers_from_what_was_and_the_last_one_counts() -> None:
    torch.manual_seed(0)
    model = InceptionLSTM(volume(3, 4), 5, width=WIDTH).eval()
    clip = torch.randn(2, 3, 6, 64, 64)
    answers = model.answer(model.extract_features(clip))
    assert answers.shape == (2, 6, 5)

    torch.testing.assert_close(model(clip), answers[:, -1])
    for num_frames in (1, 4):  # any length; a shorter clip ends earlier
        torch.testing.assert_close(model(clip[:, :, :num_frames]), answers[:, num_frames - 1])


def test_every_step_has_a_loss() -> None:
    torch.manual_seed(0)
    model = MultiTask(InceptionLSTM(volume(3, 4), 1, width=WIDTH, dropout=0.0), (5, 2))
    first, second = model.train()(torch.randn(3, 3, 4, 64, 64))
    assert (first.shape, second.shape) == ((3, 4, 5), (3, 4, 2))
    assert model.answer_weights(4).tolist() == [0.25] * 4
    assert [one.shape for one in model.eval()(torch.randn(3, 3, 4, 64, 64))] == [(3, 5), (3, 2)]


@torch.no_grad()
def test_fused_maps_are_those_of_both_towers() -> None:
    torch.manual_seed(0)
    model = FusedInception(BOTH, 5, width=WIDTH).eval()
    rgb, flow = (torch.randn(2, *one.shape(64)) for one in BOTH)
    assert (rgb.shape[1], flow.shape[1]) == (3, 20)
    features = model.extract_features(rgb, flow)
    assert features.shape == (2, 32, 2, 1, 1)
    assert model(rgb[:, :, :1], flow[:, :, :1]).shape == (2, 5)  # one moment

    towers = torch.cat([model.rgb.forward_maps(rgb), model.flow.forward_maps(flow)], 1)
    norm = model.fusion.bn
    maps = F.conv3d(towers, model.fusion.conv3d.weight, padding=1)
    maps = F.batch_norm(
        maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
    padded = F.pad(maps.relu(), (0, 1, 0, 1, 1, 1))  # 3 x 2 x 2 in windows 2 apart
    torch.testing.assert_close(features, F.max_pool3d(padded, 3, stride=2))

    assert not torch.allclose(model(rgb, torch.randn_like(flow)), model(rgb, flow))
    assert not torch.allclose(model(torch.randn_like(rgb), flow), model(rgb, flow))


def test_inception_starts_the_lstm(tmp_path: Path) -> None:
    state = draw_state(InceptionV1(stack(3), 7, width=WIDTH))
    trunk = {name: value for name, value in state.items() if not name.startswith("logits.")}
    model = InceptionLSTM(volume(3, 4), 5, width=WIDTH)

    report = load_weights_into(model, save(state, tmp_path / "inception.safetensors"))

    assert set(report.loaded) == set(trunk)
    assert {name.split(".")[0] for name in report.missing} == {"lstm", "fc"}
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in trunk.items())
    own = draw_state(model, 1)
    assert not load_weights_into(model, save(own, tmp_path / "own.safetensors")).missing
    assert_same(model.state_dict(), own)


@pytest.mark.parametrize("num_files", [1, 2])
def test_inceptions_start_the_towers(tmp_path: Path, num_files: int) -> None:
    """A file for each, or one of RGB for both, whose first kernels become their mean over flow."""
    states = [
        draw_state(InceptionV1(stack(channels), 7, width=WIDTH), channels) for channels in (3, 20)
    ]
    files = [save(state, tmp_path / f"{number}.safetensors") for number, state in enumerate(states)]
    model = FusedInception(BOTH, 5, width=WIDTH)

    report = start_from(model, ",".join(map(str, files[:num_files])))

    assert {name.split(".")[0] for name in report.missing} == {"fusion", "logits"}
    found = model.state_dict()
    for tower, state in zip(("rgb", "flow"), [states[0], states[num_files - 1]], strict=True):
        for name, value in state.items():
            if name.startswith("logits."):
                continue
            if (tower, name, num_files) == ("flow", "Conv3d_1a_7x7.conv3d.weight", 1):
                value = value.mean(1, keepdim=True).expand(-1, 20, -1, -1, -1)
            torch.testing.assert_close(found[f"{tower}.{name}"], value)
