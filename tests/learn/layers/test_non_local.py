"""Non-local blocks: each kind by its formula, restricted attention by a mask, and their places."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.create import create_model
from flowprep.learn.layers.non_local import NonLocal, add_non_local, non_local_places
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.network_options import (
    NonLocalKind,
    NonLocalOptions,
    NonLocalOver,
    NonLocalStyle,
)
from flowprep.learn.networks import NETWORKS
from tests.learn.inputs import stack

KINDS = get_args(NonLocalKind)
STYLES = get_args(NonLocalStyle)


def drawn(*args: object) -> NonLocal:
    """A block that is not the identity."""
    torch.manual_seed(0)
    block = NonLocal(*args).double().eval()  # type: ignore[arg-type]
    nn.init.normal_(block.bn.weight)
    return block


def rows(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Returns (P, C) of (1, C, T, H, W) after a 1 x 1 x 1 convolution, as a matrix product."""
    return x[0].flatten(1).T @ layer.weight.flatten(1).T + layer.bias


def halved(x: torch.Tensor) -> torch.Tensor:
    """Max pooling of even H and W, without a library."""
    n, c, t, h, w = x.shape
    return x.reshape(n, c, t, h // 2, 2, w // 2, 2).amax((4, 6))


def by_formula(block: NonLocal, x: torch.Tensor, style: str) -> torch.Tensor:
    """z_i = x_i + BN(W sum_j f(x_i, x_j) g(x_j) / C), one pair of positions at a time."""

    def project(layer: nn.Module) -> torch.Tensor:
        if style == "slowfast":
            return rows(layer, halved(x))
        return halved(rows(layer, x).T.reshape(1, -1, *x.shape[2:]))[0].flatten(1).T

    g = project(block.g)  # (Q, C/2)
    if block.kind == "gaussian":
        ours, theirs = x[0].flatten(1).T, halved(x)[0].flatten(1).T
    else:
        ours, theirs = rows(block.theta, x), project(block.phi)
    out = []
    for one in ours:
        if block.kind == "concatenation":
            weight = block.pair.weight.flatten()
            f = torch.stack([F.relu(weight @ torch.cat([one, other])) for other in theirs])
        else:
            f = torch.stack([one @ other for other in theirs])
        if block.kind == "embedded-gaussian" and style != "tsm":
            f = f / one.numel() ** 0.5
        is_softmax = block.kind in ("embedded-gaussian", "gaussian")
        f = f.exp() / f.exp().sum() if is_softmax else f / len(theirs)
        out.append(f @ g)
    seen = torch.stack(out) @ block.out.weight.flatten(1).T + block.out.bias
    seen = seen * block.bn.weight / (1 + block.bn.eps) ** 0.5
    return x + seen.T.reshape(x.shape)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_each_kind_by_its_formula(kind: NonLocalKind, style: NonLocalStyle) -> None:
    block = drawn(6, kind, "both", style)
    x = torch.randn(1, 6, 3, 4, 2, dtype=torch.float64)

    torch.testing.assert_close(block(x), by_formula(block, x, style))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_space_is_each_frame_alone(kind: NonLocalKind) -> None:
    block = drawn(6, kind, "space")
    whole = copy.deepcopy(block)
    whole.over = "both"
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)

    frames = [whole(x[:, :, t : t + 1]) for t in range(3)]

    torch.testing.assert_close(block(x), torch.cat(frames, 2))
    assert not torch.allclose(block(x), whole(x))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_time_is_each_place_alone(kind: NonLocalKind) -> None:
    block = drawn(6, kind, "time")
    whole = copy.deepcopy(block)
    whole.over = "both"
    x = torch.randn(2, 6, 4, 2, 3, dtype=torch.float64)

    got = block(x)

    for y in range(2):
        for column in range(3):
            place = x[..., y : y + 1, column : column + 1]
            torch.testing.assert_close(got[..., y : y + 1, column : column + 1], whole(place))
    assert not torch.allclose(got, whole(x))


@pytest.mark.parametrize("over", ["space", "time"])
@torch.no_grad()
def test_space_and_time_are_masked_attention(over: NonLocalOver) -> None:
    """The same softmax over all positions, of which a mask leaves those of the frame or place."""
    block = drawn(6, "embedded-gaussian", over)
    x = torch.randn(1, 6, 3, 4, 2, dtype=torch.float64)
    seen = halved(x) if over == "space" else x
    theta, phi, g = rows(block.theta, x), rows(block.phi, seen), rows(block.g, seen)
    names = [torch.arange(one[0, 0].numel()).reshape(one.shape[2:]) for one in (x, seen)]
    axis = 8 if over == "space" else 1  # positions of a frame, in `x`
    ours = names[0].flatten() // axis if over == "space" else names[0].flatten() % 8
    theirs = names[1].flatten() // 2 if over == "space" else names[1].flatten() % 8
    scores = theta @ phi.T / theta.shape[1] ** 0.5
    scores = scores.masked_fill(ours[:, None] != theirs[None], -torch.inf)
    out = scores.softmax(1) @ g @ block.out.weight.flatten(1).T + block.out.bias
    out = out * block.bn.weight / (1 + block.bn.eps) ** 0.5

    torch.testing.assert_close(block(x), x + out.T.reshape(x.shape))


@pytest.mark.parametrize("over", get_args(NonLocalOver))
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_begins_as_the_identity_and_learns(kind: NonLocalKind, over: NonLocalOver) -> None:
    block = NonLocal(8, kind, over)
    x = torch.randn(2, 8, 3, 5, 1)

    assert torch.equal(block.eval()(x), x)

    nn.init.ones_(block.bn.weight)
    block.train()(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_parameters_of_each_kind() -> None:
    """Wang et al., section 3.2: the Gaussian has no embedding, concatenation has a vector w_f."""
    c, inner = 16, 8
    outer = inner * c + c + 2 * c  # W and its batch norm
    projection = c * inner + inner

    assert {kind: count_parameters(NonLocal(c, kind)) for kind in KINDS} == {
        "embedded-gaussian": 3 * projection + outer,
        "gaussian": projection + outer,
        "dot-product": 3 * projection + outer,
        "concatenation": 3 * projection + outer + 2 * inner,
    }


def test_restricted_attention_costs_less() -> None:
    positions, pooled = 4 * 8 * 8, 4 * 4 * 4

    def macs(over: NonLocalOver) -> int:
        return count_macs(NonLocal(8, over=over), (1, 8, 4, 8, 8))

    projections = (2 * positions + 2 * pooled) * 8 * 4
    assert macs("both") == projections + 2 * positions * pooled * 4
    assert macs("space") == projections + 2 * positions * (pooled // 4) * 4
    assert macs("time") == 4 * positions * 8 * 4 + 2 * positions * 4 * 4


# ---- places


def places(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, NonLocal)]


STAGES = [(f"layer{stage}",) for stage in (1, 2, 3, 4)]


def chosen(
    blocks: str | None,
    style: NonLocalStyle = "slowfast",
    depths: tuple[int, int, int, int] = (3, 4, 6, 3),
) -> list[str]:
    """The places in a network of these depths. The default is ResNet-50's."""
    network = nn.Module()
    for (name,), depth in zip(STAGES, depths, strict=True):
        network.add_module(
            name, nn.Sequential(*(nn.ModuleList([nn.Identity()]) for _ in range(depth)))
        )
    return non_local_places(network, STAGES, blocks, style)


def test_the_published_places() -> None:
    every = [f"layer2.{block}" for block in range(4)] + [f"layer3.{block}" for block in range(6)]

    # SlowFast, configs/Kinetics/I3D_NLN_8x8_R50.yaml: NONLOCAL.LOCATION.
    five = ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]
    assert chosen(None) == chosen("5") == five
    # TSM, ops/non_local.py: make_non_local. mmaction2's SlowOnly and TSM: the config `non_local`.
    tsm = ["layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4"]
    assert chosen(None, "tsm") == chosen(None, "mmaction2") == tsm
    # Wang et al., section 5.1: every block of res3 and res4; one before the last block of res4.
    assert chosen("10") == chosen("10", "tsm") == every
    assert chosen("1") == ["layer3.4"]
    assert chosen("layer1.2,layer4.0") == ["layer1.2", "layer4.0"]


def test_a_network_of_101_layers_has_the_authors_places() -> None:
    """video-nonlocal-net, resnet_video.py: `layer_mod` is 2 for res3 and 7 for res4."""
    found = chosen("5", depths=(3, 4, 23, 3))

    assert found == ["layer2.1", "layer2.3", "layer3.6", "layer3.13", "layer3.20"]


def test_any_number_up_to_all() -> None:
    for number in range(2, 11):
        for style in STYLES:
            found = chosen(str(number), style)
            assert len(found) == len(set(found)) == number


def test_a_smaller_network_has_fewer() -> None:
    assert chosen(None, depths=(2, 2, 2, 2)) == ["layer2.1", "layer3.1"]
    assert len(chosen("4", depths=(2, 2, 2, 2))) == 4
    with pytest.raises(
        ConfigError, match=r"non_local_blocks must be at most 4 for this network, .* got 5"
    ):
        chosen("5", depths=(2, 2, 2, 2))
    with pytest.raises(ConfigError, match=r"layer1\.0, layer1\.1, .*, got layer9\.1$"):
        chosen("layer1.0,layer9.1")


WITH_BLOCKS = [
    name for name, entry in NETWORKS.items() if issubclass(entry.options, NonLocalOptions)
]


WITHOUT_BLOCKS = {
    *("c3d", "c3d-bn", "two-stream-fusion", "representation-flow", "timesformer"),
    *("recurrent-cnn", "gru-rcn", "i3d-lstm", "i3d-fused", "frame-pooling", "cnn-lstm", "lrcn"),
}
"""Networks over volumes whose papers have nothing of the kind."""


def test_every_3d_and_tsm_network_has_the_option() -> None:
    assert (
        set(WITH_BLOCKS)
        == {
            name
            for name, entry in NETWORKS.items()
            if name.startswith("tsm-") or next(iter(entry.inputs.values()))[0].form == "volume"
        }
        - WITHOUT_BLOCKS
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("slow-8x8", "conv1"),
        ("resnext101-3d", "bn1"),
        ("r2plus1d-18", "stem"),
        ("r2plus1d-18", "stem.3"),
        ("tsm-mobilenet-v2", "features.0"),
    ],
)
def test_a_layer_or_a_sequence_of_layers_is_no_place(name: str, place: str) -> None:
    options = {"non_local": True, "non_local_blocks": place}
    with torch.device("meta"), pytest.raises(ConfigError, match=rf"layer.*, got {place}$"):
        create_model(name, stream="flow", num_classes=5, **options)


@pytest.mark.parametrize("name", WITH_BLOCKS)
@torch.no_grad()
def test_a_network_with_blocks_begins_as_without(name: str) -> None:
    def make(**options: object) -> ClipModel:
        torch.manual_seed(0)
        shared = {"num_classes": 3, "width": 0.05, "num_frames": 3, "crop_px": 32}
        return create_model(name, stream="flow", **shared, **options).eval()  # type: ignore

    plain, model = make(), make(non_local=True)
    for layer in plain.modules():  # else blocks that begin as their shortcuts hide the others
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    segments = (model.num_segments,) if model.joins_segments else ()
    clips = [torch.randn(2, *segments, *one.shape(32)) for one in model.inputs]

    assert len(places(model)) >= 2
    assert all(".non_local." in tensor for tensor in missing)
    assert torch.equal(model(*clips), plain(*clips))

    for block in model.modules():
        if isinstance(block, NonLocal):
            nn.init.ones_(block.bn.weight)
    assert not torch.allclose(model(*clips), plain(*clips))


@torch.no_grad()
def test_tsm_has_its_release_s_places_and_half_the_frames_after_its_pooling() -> None:
    options = {"stream": "flow", "num_classes": 3, "width": 0.05, "non_local": True}
    model = create_model("tsm-resnet50", temporal_pool=True, partial_bn=True, **options).eval()

    assert places(model) == [
        f"base.{place}.non_local"
        for place in ("layer2.0", "layer2.2", "layer3.0", "layer3.2", "layer3.4")
    ]
    seen: list[tuple[int, ...]] = []
    for block in model.modules():
        if isinstance(block, NonLocal):
            block.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[:3:2]))
            assert block.bn not in model.frozen_norms  # else a block stays the identity for ever
    model(torch.randn(2, 8, *model.inputs[0].shape(32)))
    assert seen == [(2, 4)] * 5


@torch.no_grad()
def test_an_image_network_sees_the_frames_of_each_clip() -> None:
    torch.manual_seed(0)
    model = resnet18(stack(4), 3, width=0.2).eval()
    block = copy.deepcopy(model.layer2[1])
    add_non_local(model, model.stages, NonLocalOptions(True), num_frames=lambda _: 3)
    layer = model.layer2[1].non_local
    nn.init.ones_(layer.bn.weight)
    x = torch.randn(2 * 3, layer.bn.num_features, 6, 6)

    got = model.layer2[1](x)  # frames of two clips

    clips = block(x).unflatten(0, (2, 3)).transpose(1, 2)
    torch.testing.assert_close(got, layer(clips).transpose(1, 2).flatten(0, 1))
    # A copy has its own blocks, and sees them.
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin.layer2[1].non_local.bn.weight)
    assert torch.equal(twin.layer2[1](x), block(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"non_local_kind": "gaussian"}, r"non_local_kind is for non-local .* add --non-local$"),
        ({"non_local_blocks": "5"}, r"non_local_blocks is for non-local blocks, got 5 and no"),
        ({"non_local": True, "non_local_blocks": "0"}, "must be a number from 1 on, or names"),
        ({"non_local": True, "non_local_blocks": "a,,b"}, "must be a number from 1 on, or names"),
        ({"non_local": True, "non_local_kind": "cosine"}, "non_local_kind must be one of embedded"),
        ({"non_local": True, "non_local_over": "all"}, "non_local_over must be one of both, space"),
        ({"non_local": True, "non_local_style": "me"}, "non_local_style must be one of slowfast"),
    ],
)
def test_options_that_say_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NonLocalOptions(**options)  # type: ignore[arg-type]
