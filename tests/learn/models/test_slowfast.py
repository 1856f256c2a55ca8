"""SlowFast: two paths over one clip, and what goes from the fast one to the slow one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn import create_model
from flowprep.learn.clip_inputs import ClipInput, PickName
from flowprep.learn.models.slow import Slow
from flowprep.learn.models.slowfast import Fast, SlowFast, slowfast_with
from flowprep.learn.networks import clip_inputs
from tests.learn.inputs import volume
from tests.learn.models.drawn import draw, fill

ALPHA = 4
INPUTS = (
    ClipInput("slow", "flow", "volume", 2, 8, rate_ratio=ALPHA),
    ClipInput("fast", "flow", "volume", 8, 2),
)


def small(width: float = 0.125, **options: object) -> SlowFast:
    return slowfast_with(5)(INPUTS, 5, width=width, **options)


# ---- frames


@pytest.mark.parametrize("name", ["slowfast-4x16", "slowfast-8x8"])
def test_the_slow_path_sees_frames_as_in_the_release(name: str) -> None:
    slow, fast = clip_inputs(name, "rgb")
    places = torch.linspace(0, 31, 32 // slow.rate_ratio).long()  # pack_pathway_output
    assert fast.steps == tuple(range(0, 64, 2))
    assert [fast.steps[place] for place in places] == list(slow.steps)
    assert slow.span == fast.span


@pytest.mark.parametrize("pick", ["spread", "first"])
def test_the_slow_path_sees_frames_of_the_fast_one(pick: PickName) -> None:
    for num_frames in (1, 2, 3, 5, 16):
        for stride in (1, 2, 8, 24):
            options = {"slow_frames": pick}
            model = create_model(
                "slowfast-8x8",
                stream="flow",
                num_classes=2,
                num_frames=num_frames,
                frame_stride=stride,
                width=0.02,
                **options,
            )
            slow, fast = model.inputs
            assert fast.num_frames == 4 * slow.num_frames == 4 * num_frames
            assert set(slow.steps) <= set(fast.steps)
            assert slow.steps[0] == 0
            assert slow.span == fast.span
            if pick == "spread" and num_frames > 1:
                assert slow.steps[-1] == fast.steps[-1]
            if pick == "first":  # ResNet3dSlowFast.forward of mmaction2
                numbers = torch.arange(float(fast.num_frames)).view(1, 1, -1, 1, 1)
                nearest = F.interpolate(numbers, scale_factor=(1 / 4, 1.0, 1.0), mode="nearest")
                assert [fast.steps[int(n)] for n in nearest.flatten()] == list(slow.steps)


def test_other_frames_are_told() -> None:
    slow, fast = INPUTS
    with pytest.raises(ConfigError, match=r"4 times the slow one's frames, got 6 and 2"):
        SlowFast((slow, ClipInput("fast", "flow", "volume", 6, 2)), 5, width=0.125)
    with pytest.raises(ConfigError, match="odd number from 1 on, got 4"):
        create_model("slowfast-8x8", stream="rgb", num_classes=2, lateral_frames=4)
    with pytest.raises(ConfigError, match="rate_ratio is for form volume"):
        ClipInput("slow", "flow", "stack", 2, 8, rate_ratio=2)
    del fast


# ---- paths


@torch.no_grad()
def test_without_laterals_the_halves_are_slow_and_fast() -> None:
    model = small().eval()
    rng = fill(model, 3)
    for lateral in model.laterals.values():
        nn.init.zeros_(lateral.bn.weight)
        nn.init.zeros_(lateral.bn.bias)
    clip = draw(rng, 2, 2, 8, 35, 43)
    picked = clip[:, :, [0, 7]]
    state = model.state_dict()
    parts = {}
    for part, network in (("slow", Slow), ("fast", Fast)):
        alone = network(volume(2), 5, width=0.125).eval()
        own = {}
        for name, value in alone.state_dict().items():
            given = state.get(f"{part}.{name}", value)
            # The slow path's first blocks see the lateral channels last.
            own[name] = given[:, : value.shape[1]] if value.dim() == 5 else given
        alone.load_state_dict(own)
        parts[part] = alone.extract_features(picked if part == "slow" else clip)

    features = model.extract_features(picked, clip)

    wanted = torch.cat([parts["slow"], parts["fast"]], 1)
    torch.testing.assert_close(features, wanted, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_the_fast_path_reaches_the_slow_one_at_its_frames() -> None:
    model = small().eval()
    fill(model, 4)
    lateral = model.laterals["conv1"]
    x = torch.randn(1, 1, 8, 3, 3)
    reach = lateral(x)
    assert reach.shape == (1, 2, 2, 3, 3)  # twice the channels, a frame of ALPHA
    changed = x.clone()
    changed[:, :, 7] += 1  # five frames around 0 and 4: frame 7 is in none
    assert torch.equal(lateral(changed), reach)
    changed[:, :, 6] += 1
    assert torch.equal(lateral(changed)[:, :, 0], reach[:, :, 0])
    assert not torch.equal(lateral(changed)[:, :, 1], reach[:, :, 1])


@torch.no_grad()
def test_blocks_begin_as_their_shortcuts() -> None:
    model = small().eval()
    for path in (model.slow, model.fast):
        for name in ("layer1", "layer2", "layer3", "layer4"):
            for block in path.get_submodule(name):
                x = torch.randn(1, block.conv1.in_channels, 2, 6, 6)
                shortcut = x if block.downsample is None else block.downsample(x)
                assert torch.equal(block(x), shortcut.relu())


def test_non_local_blocks_stand_in_the_slow_path() -> None:
    with torch.device("meta"):
        model = create_model("slowfast-8x8", stream="rgb", num_classes=2, non_local=True)
    places = {name for name, _ in model.named_modules() if name.endswith(".non_local")}
    # configs/Kinetics/SLOWFAST_NLN_8x8_R50.yaml: [1, 3] of res3 and [1, 3, 5] of res4.
    assert places == {
        f"slow.{name}.non_local"
        for name in ("layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5")
    }


@pytest.mark.parametrize("lateral_norm", [True, False])
def test_gradients_reach_every_parameter(lateral_norm: bool) -> None:
    model = small(lateral_norm=lateral_norm)
    for layer in model.modules():  # else nothing passes the zeros that blocks begin with
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.ones_(layer.weight)

    clip = torch.randn(2, 2, 8, 33, 40)
    model(clip[:, :, [0, 7]], clip).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
