"""DeepVideo: what each fusion sees, and that all are one network where frames do not differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.deepvideo import DeepVideo
from flowprep.learn.network_options import DeepVideoOptions
from flowprep.learn.networks import clip_inputs
from flowprep.learn.recipes import default_config, training_config

FUSIONS = ("single", "early", "late", "slow", "multiresolution")


def small(fusion: str, **options: Any) -> ClipModel:
    given = {"stream": "rgb", "num_classes": 5, "width": 0.05, "crop_px": 64, "dropout": 0.0}
    return create_model("deepvideo", fusion=fusion, **{**given, **options}).eval()


def clips(model: ClipModel, crop_px: int = 64, num: int = 2) -> list[torch.Tensor]:
    return [torch.randn(num, *one.shape(crop_px)) for one in model.inputs]


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_learns_from_all_of_its_parts(fusion: str, stream: str) -> None:
    model = small(fusion, stream=stream)
    given = [one.requires_grad_() for one in clips(model)]

    model(*given).square().sum().backward()

    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in given)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_inputs_are_the_papers() -> None:
    published = {
        fusion: clip_inputs("deepvideo", "rgb", options=DeepVideoOptions(fusion))
        for fusion in FUSIONS
    }
    assert published == {
        "single": (ClipInput("rgb", "rgb", "stack", 1),),
        "early": (ClipInput("rgb", "rgb", "stack", 10),),
        "late": (ClipInput("rgb", "rgb", "volume", 2, 15),),
        "slow": (ClipInput("rgb", "rgb", "volume", 10),),
        "multiresolution": (
            ClipInput("rgb-fovea", "rgb", "stack", 1, view="fovea"),
            ClipInput("rgb-context", "rgb", "stack", 1, view="context"),
        ),
    }
    assert [one.shape(178) for one in published["multiresolution"]] == [(3, 89, 89)] * 2


@pytest.mark.parametrize(
    ("fusion", "num_frames", "stride", "crop_px"),
    [("single", 1, 1, 170), ("late", 2, 15, 170), ("slow", 10, 1, 170), ("early", 10, 1, 170),
     ("multiresolution", 1, 1, 178)],
)  # fmt: skip
def test_clips_follow_the_fusion(fusion: Any, num_frames: int, stride: int, crop_px: int) -> None:
    options = DeepVideoOptions(fusion)
    for config in (
        default_config("deepvideo", "rgb", options),
        training_config("deepvideo", "rgb", None, options),
    ):
        clip = config.clip
        assert (clip.num_frames, clip.frame_stride, clip.crop_px) == (num_frames, stride, crop_px)
        assert config.model.options == options
        assert config.inputs == clip_inputs("deepvideo", "rgb", options=options)


@torch.no_grad()
def test_early_fusion_of_one_frame_is_the_single_network() -> None:
    single, early = small("single"), small("early", num_frames=1)
    early.load_state_dict(single.state_dict())
    (frame,) = clips(single)
    assert torch.equal(early(frame), single(frame))


@torch.no_grad()
def test_slow_fusion_that_sees_first_frames_alone_is_the_single_network() -> None:
    single, slow = small("single"), small("slow")
    state = slow.state_dict()
    for name, value in single.state_dict().items():
        if state[name].dim() == 5:
            state[name].zero_()
            state[name][:, :, 0] = value
        else:
            state[name].copy_(value)
    (clip,) = clips(slow)
    torch.testing.assert_close(slow(clip), single(clip[:, :, 0]))
    changed = clip.clone()
    changed[:, :, 1:] = 0
    torch.testing.assert_close(slow(changed), slow(clip))


@torch.no_grad()
def test_late_fusion_shares_its_convolutions() -> None:
    late, single = small("late"), small("single")
    assert isinstance(late, DeepVideo)
    state = single.state_dict()
    state["fc6.weight"] = torch.cat(
        [state["fc6.weight"], torch.zeros(*state["fc6.weight"].shape)], 1
    )
    late.load_state_dict(state)
    (clip,) = clips(late)
    torch.testing.assert_close(late(clip), single(clip[:, :, 0]))
    # With the halves of fc6 exchanged, it sees the other frame.
    half = late.fc6.in_features // 2
    late.fc6.weight.copy_(late.fc6.weight.roll(half, 1))
    torch.testing.assert_close(late(clip), single(clip[:, :, 1]))


@torch.no_grad()
def test_streams_of_two_resolutions_have_convolutions_of_their_own() -> None:
    model = small("multiresolution", crop_px=178)
    assert isinstance(model, DeepVideo)
    fovea, context = clips(model, 178)
    before = model(fovea, context)
    # Exchanged in everything, it is the same.
    state = model.state_dict()
    half = model.fc6.in_features // 2
    other = {
        name.replace("fovea", "x").replace("context", "fovea").replace("x.", "context."): value
        for name, value in state.items()
        if name.startswith(("fovea", "context"))
    }
    other["fc6.weight"] = state["fc6.weight"].roll(half, 1)
    model.load_state_dict({**state, **{name: value.clone() for name, value in other.items()}})
    torch.testing.assert_close(model(context, fovea), before)
    assert not torch.allclose(model(fovea, context), before)


@torch.no_grad()
def test_normalisation_is_the_papers_formula() -> None:
    """b = a / (k + alpha sum a^2)^beta over 5 channels, k = 2, alpha = 1e-4, beta = .5."""
    norm = small("single").get_submodule("trunk.norm")
    values = [20.0 * number for number in range(1, 8)]

    got = norm(torch.tensor(values).reshape(1, 7, 1, 1)).flatten()

    for i, value in enumerate(values):
        total = sum(other**2 for other in values[max(0, i - 2) : i + 3])
        assert got[i].item() == pytest.approx(value / (2 + 1e-4 * total) ** 0.5, rel=1e-5)


def test_clips_of_which_nothing_is_left_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_frames must be at least 10 for fusion slow, got 9"):
        small("slow", num_frames=9)
    with pytest.raises(
        ConfigError, match="crop_px must be larger for deepvideo with fusion single"
    ):
        small("single", crop_px=8)
    with pytest.raises(ConfigError, match="fusion must be one of single, early"):
        small("both")
