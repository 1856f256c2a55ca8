"""TimeSformer: what each attention sees, and where two of them, or ViT, are one."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.create import create_model
from flowprep.learn.layers import neighborhood_attention as layer
from flowprep.learn.layers.drop_path import DropPath
from flowprep.learn.layers.neighborhood_attention import Neighborhood
from flowprep.learn.models.cost import count_parameters
from flowprep.learn.models.timesformer import TimeSformer
from flowprep.learn.network_options import AttentionName, TimeSformerOptions, TimeSformerSize
from flowprep.learn.networks import clip_inputs
from flowprep.learn.recipes import default_config, training_config
from tests.learn.models.drawn import fill

ATTENTIONS: tuple[AttentionName, ...] = ("space", "joint", "divided", "local-global", "axial")
BLIND = "space"
Place = tuple[int, int, int]
WIDTH = 1 / 12
"""64 channels, one head."""


def small(attention: str, *, drawn: bool = True, **options: Any) -> TimeSformer:
    """Returns a network in eval mode; with `drawn`, nothing of it is zero."""
    given = {"stream": "rgb", "num_classes": 5, "width": WIDTH, "crop_px": 48, "num_frames": 4}
    model = create_model("timesformer", attention=attention, **{**given, **options})
    assert isinstance(model, TimeSformer)
    if drawn:
        fill(model, 1)
    return model.eval()


def clip(model: TimeSformer, num: int = 2) -> torch.Tensor:
    return torch.randn(num, model.inputs[0].num_channels, model.grid[0], 48, 48)


def share(model: TimeSformer, other: TimeSformer) -> None:
    """Gives a network all tensors of another that it has."""
    own = model.state_dict()
    model.load_state_dict({n: v for n, v in other.state_dict().items() if n in own}, strict=False)


# ---- what depends on what


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_every_part_learns(attention: str, stream: str) -> None:
    model = small(attention, stream=stream).train()
    x = clip(model).requires_grad_()

    model(x).square().sum().backward()

    assert x.grad is not None
    assert (x.grad.abs().sum((0, 1, 3, 4)) > 0).all(), "every frame"
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("attention", ATTENTIONS)
@torch.no_grad()
def test_order_of_frames_is_seen_by_the_embeddings_of_time_alone(attention: str) -> None:
    model = small(attention)
    x = clip(model)
    order = [2, 0, 3, 1]
    sees = not torch.allclose(model(x[:, :, order]), model(x), atol=1e-4)
    assert sees == (attention != BLIND)
    if sees:
        model.time_embed.zero_()
        # Lattices of every second frame are another set in another order; these keep them.
        order = [2, 1, 0, 3] if attention == "local-global" else order
        torch.testing.assert_close(model(x[:, :, order]), model(x))


def seen(near: Neighborhood | None, patch: Place) -> set[Place]:
    """Returns what a patch of a clip of 4 frames of 3 x 3 patches attends to."""
    assert near is not None
    position = 1 + (patch[0] * 3 + patch[1]) * 3 + patch[2]
    (keys,) = (
        one.tolist()
        for queries, tokens in near.groups
        for own, one in zip(queries, tokens, strict=True)
        if position in own
    )
    assert keys[0] == 0
    return {((key - 1) // 9, (key - 1) // 3 % 3, (key - 1) % 3) for key in keys[1:]}


def test_neighborhoods_are_the_papers() -> None:
    """Section 3: T+W+H; F x H/2 x W/2 patches around one, then every second in time and space."""
    over_time, along_row, along_column = small("axial")._neighborhoods(torch.device("cpu"))
    assert seen(over_time, (1, 0, 1)) == {(frame, 0, 1) for frame in range(4)}
    assert seen(along_row, (1, 0, 1)) == {(1, 0, column) for column in range(3)}
    assert seen(along_column, (1, 0, 1)) == {(1, row, 1) for row in range(3)}

    around, apart = small("local-global")._neighborhoods(torch.device("cpu"))
    for patch, rows, columns in (((1, 0, 1), (0, 1), (0, 1)), ((3, 2, 2), (1, 2), (1, 2))):
        assert seen(around, patch) == set(itertools.product(range(4), rows, columns))
    assert seen(apart, (1, 0, 1)) == set(itertools.product((1, 3), (0, 2), (1,)))
    assert seen(apart, (2, 1, 2)) == set(itertools.product((0, 2), (1,), (0, 2)))
    for attention in ("space", "joint", "divided"):
        assert small(attention)._neighborhoods(torch.device("cpu")) == (None,)


# ---- where two are one


@torch.no_grad()
def test_joint_attention_over_one_frame_is_attention_over_space() -> None:
    joint, space = small("joint", num_frames=1), small("space", num_frames=1)
    share(space, joint)
    joint.time_embed.zero_()
    x = clip(joint)
    torch.testing.assert_close(joint(x), space(x))


@torch.no_grad()
def test_divided_attention_without_its_first_is_vit_with_the_mean_class_token() -> None:
    """With temporal_fc at zero, a block is ViT's for each frame, with averaged class tokens."""
    divided, space = small("divided"), small("space")
    share(space, divided)
    for block in divided.blocks:
        for part in ("weight", "bias"):
            block.get_parameter(f"temporal_fc.{part}").zero_()
    x = torch.randn(2, 1 + 4 * 9, 64)
    patches = x[:, 1:].unflatten(1, (4, 9))
    frames = torch.cat([x[:, :1].unsqueeze(1).expand(-1, 4, -1, -1), patches], 2).flatten(0, 1)
    one, other = divided.blocks[3], space.blocks[3]
    attended = other.attend(frames, 4, (None,)).unflatten(0, (2, 4))
    wanted = torch.cat(
        [attended[:, :, 0].mean(1, keepdim=True), attended[:, :, 1:].flatten(1, 2)], 1
    )
    wanted = wanted + other.mlp(other.norm2(wanted))
    torch.testing.assert_close(one(x, 4, (None,)), wanted)


def everything(model: TimeSformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the neighborhoods of a network so large that they hold everything."""
    file = "flowprep.learn.models.timesformer"
    monkeypatch.setattr(f"{file}.windows", lambda grid, _: layer.windows(grid, grid[1:]))
    monkeypatch.setattr(f"{file}.lattices", lambda grid, _: layer.lattices(grid, (1, 1, 1)))


@torch.no_grad()
def test_local_global_attention_to_everything_is_joint(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse, joint = small("local-global"), small("joint")
    share(joint, sparse)
    everything(sparse, monkeypatch)
    x = clip(joint)
    # Both steps are joint attention then, so that the first alone is it as well, ...
    tokens = torch.randn(2, 1 + 4 * 9, 64)
    local, _ = sparse._neighborhoods(x.device)
    block = sparse.blocks[0]
    norm, attention = (block.get_submodule(f"local_{part}") for part in ("norm1", "attn"))
    torch.testing.assert_close(attention(norm(tokens), local), attention(norm(tokens)))
    # ... and without it, the network is the joint one.
    for one in sparse.blocks:
        for part in ("weight", "bias"):
            one.get_parameter(f"local_fc.{part}").zero_()
    torch.testing.assert_close(sparse(x), joint(x))


@pytest.mark.parametrize(
    ("step", "frames", "crop_px"),
    [("attn", 1, 16), ("temporal", 6, 16)],
)
@torch.no_grad()
def test_axial_attention_where_an_axis_is_everything_is_joint(
    step: str, frames: int, crop_px: int
) -> None:
    """Of one patch for each frame, attention over time sees all; of one frame, the last does."""
    axial = small("axial", num_frames=frames, crop_px=crop_px)
    joint = small("joint", num_frames=frames, crop_px=crop_px)
    share(joint, axial)
    tokens = torch.randn(2, 1 + frames, 64)
    near = axial._neighborhoods(tokens.device)
    block = axial.blocks[0]
    if step == "attn":
        for name in ("temporal", "width"):
            for part in ("weight", "bias"):
                for one in axial.blocks:
                    one.get_parameter(f"{name}_fc.{part}").zero_()
        x = torch.randn(2, 3, frames, crop_px, crop_px)
        torch.testing.assert_close(axial(x), joint(x))
        return
    norm, attention = (block.get_submodule(f"{step}_{part}") for part in ("norm1", "attn"))
    torch.testing.assert_close(attention(norm(tokens), near[0]), attention(norm(tokens)))


# ---- first weights


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_first_weights_are_the_releases(attention: str) -> None:
    model = small(attention, drawn=False)
    for name, value in model.state_dict().items():
        if name.endswith(("_fc.weight", "time_embed", "bias")):
            if not name.startswith("patch_embed"):
                assert not value.any(), name
        elif "norm" in name:
            assert (value == 1).all(), name
        elif not name.startswith("patch_embed"):
            assert value.std().item() == pytest.approx(0.02, rel=0.5), name
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 12).tolist())


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_drop_path_drops_branches_in_training_alone(attention: str) -> None:
    model = small(attention)
    x = clip(model)
    assert torch.equal(model(x), model(x))
    model.train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate *= 5
    assert not torch.equal(model(x), model(x))


def test_stages_hold_everything_but_the_classifier() -> None:
    for attention in ATTENTIONS:
        model = small(attention)
        assert len(model.stages) == 13
        named = [name for stage in model.stages for name in stage]
        left = [
            name
            for name, _ in model.named_parameters()
            if not any(name == one or name.startswith(f"{one}.") for one in named)
        ]
        assert left == ["fc.weight", "fc.bias"]


# ---- clips


def test_clips_follow_the_size() -> None:
    wanted: dict[TimeSformerSize, tuple[int, int, int]] = {
        "base": (8, 32, 224),
        "hr": (16, 16, 448),
        "long": (96, 4, 224),
    }
    for size, (num_frames, stride, crop_px) in wanted.items():
        options = TimeSformerOptions(size=size)
        for stream in ("rgb", "flow"):
            (one,) = clip_inputs("timesformer", stream, options=options)
            assert one == ClipInput(stream, stream, "volume", num_frames, stride)
        for config in (
            default_config("timesformer", "flow", options),
            training_config("timesformer", "rgb", None, options),
        ):
            clip = config.clip
            assert (clip.num_frames, clip.frame_stride) == (num_frames, stride)
            assert clip.crop_px == crop_px
            assert config.model.options == options


def test_a_crop_without_a_patch_is_refused() -> None:
    with pytest.raises(ConfigError, match="crop_px must be at least 16 for timesformer, got 15"):
        small("joint", crop_px=15)
    with pytest.raises(ConfigError, match="attention must be one of space, joint"):
        small("both")


@torch.no_grad()
def test_a_crop_that_is_no_multiple_of_a_patch_loses_its_rest() -> None:
    model = small("divided", crop_px=56)
    assert model.grid == (4, 3, 3)
    x = torch.randn(1, 3, 4, 56, 56)
    changed = x.clone()
    changed[..., 48:] = 0
    assert torch.equal(model(changed), model(x))


def test_width_keeps_heads_of_64_channels() -> None:
    for width, channels, heads in ((1, 768, 12), (0.5, 384, 6), (1 / 6, 128, 2), (0.05, 38, 1)):
        model = small("joint", width=width) if width < 0.5 else bare(width)
        attention = model.blocks[0].attn
        assert isinstance(attention, nn.Module)
        assert (model.norm.normalized_shape[0], attention.num_heads) == (channels, heads)


def bare(width: float) -> TimeSformer:
    with torch.device("meta"):
        model = create_model("timesformer", stream="rgb", num_classes=2, width=width)
    assert isinstance(model, TimeSformer)
    assert count_parameters(model) > 1e7
    return model
