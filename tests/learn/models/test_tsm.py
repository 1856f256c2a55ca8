"""TSM: where it shifts, what it joins, and streams."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from flowprep.errors import ConfigError
from flowprep.learn import create_model
from flowprep.learn.features_network import FeatureNetwork
from flowprep.learn.layers.temporal_shift import TemporalShift
from flowprep.learn.models.cnn_m import CNNM
from flowprep.learn.models.resnet import resnet50, resnet101
from flowprep.learn.models.tsm import TSM, TSMStream
from tests.learn.inputs import stack


def small(name: str = "tsm-resnet18", *, segments: int = 4, **options: Any) -> TSM:
    torch.manual_seed(0)
    model = create_model(
        name, stream="flow", num_classes=5, width=0.25, num_segments=segments, **options
    )
    assert isinstance(model, TSM)
    for module in model.modules():  # else all segments look the same to an untrained network
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, segments, 10, 32, 32))
    return model.eval()


def places(model: nn.Module) -> list[str]:
    return [name for name, one in model.named_modules() if isinstance(one, TemporalShift)]


def test_five_fields_are_ten_channels() -> None:
    (clip,) = small().inputs

    assert (clip.num_frames, clip.num_channels) == (5, 10)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet-v2", "bn-inception"])
def test_tensors_are_those_of_tsn(name: str) -> None:
    with torch.device("meta"):
        tsm, tsn = (
            create_model(f"{kind}-{name}", stream="rgb", num_classes=5).state_dict()
            for kind in ("tsm", "tsn")
        )

    assert {key: value.shape for key, value in tsm.items()} == {
        key: value.shape for key, value in tsn.items()
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tsm-resnet18", [f"layer{stage}.{block}" for stage in range(1, 5) for block in (0, 1)]),
        ("tsm-mobilenet-v2", [f"features.{n}" for n in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]),
        (
            "tsm-bn-inception",
            ["conv2", "3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"],
        ),
    ],
)
def test_shifts_are_where_the_release_has_them(name: str, expected: list[str]) -> None:
    with torch.device("meta"):
        model = create_model(name, stream="flow", num_classes=5)

    found = [re.sub(r"^base\.(shifts\.)?|\.shift$", "", place) for place in places(model)]

    assert found == expected


@pytest.mark.parametrize(
    ("build", "place", "counts"),
    [
        (resnet50, "blockres", [3, 4, 6, 3]),
        (resnet101, "blockres", [2, 2, 12, 2]),  # every second block
        (resnet101, "block", [3, 4, 23, 3]),
    ],
)
def test_large_networks_shift_in_every_second_block(
    build: Any, place: str, counts: list[int]
) -> None:
    with torch.device("meta"):
        model = TSM(build(stack(10), 5), shift_place=place)

    found = places(model)

    assert [sum(f".layer{n}." in name for name in found) for n in range(1, 5)] == counts


@torch.no_grad()
def test_segments_see_their_neighbors_and_no_more_in_one_block() -> None:
    """One block looks a segment far: features of the others stay as they are."""
    model = small(segments=7)
    blocks = [model.base.layer1[0], model.base.layer1[1]]
    video = torch.randn(1, 7, 10, 32, 32)
    other = video.clone()
    other[:, 3] += 1
    for block in blocks[1:] + [b for n in (2, 3, 4) for b in getattr(model.base, f"layer{n}")]:
        block.shift = None

    changed = (model.extract_features(video) != model.extract_features(other)).any(2)

    assert changed[0].nonzero().flatten().tolist() == [2, 3, 4]


@pytest.mark.parametrize("name", ["tsm-resnet18", "tsm-mobilenet-v2", "tsm-bn-inception"])
@torch.no_grad()
def test_a_stream_is_followed_as_the_whole_video_is_seen(name: str) -> None:
    model = small(name, segments=6, uni_directional=True)
    video = torch.randn(2, 6, 10, 32, 32)
    stream = TSMStream(model)

    online = torch.stack([stream(segment) for segment in video.unbind(1)], 1)

    segments = model.base.classify(model.extract_features(video).flatten(0, 1))
    torch.testing.assert_close(online, segments.view(2, 6, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(online.mean(1), model(video), rtol=1e-4, atol=1e-5)
    without_past = TSMStream(model)(video[:, 5])
    assert not torch.allclose(without_past, online[:, 5], rtol=1e-2)


@torch.no_grad()
def test_a_stream_leaves_the_network_as_it_is() -> None:
    model = small(uni_directional=True)
    video = torch.randn(1, 4, 10, 32, 32)
    before = model(video)
    streams = TSMStream(model), TSMStream(model)

    first = streams[0](video[:, 0])
    with pytest.raises(RuntimeError):
        streams[1](torch.randn(1, 7, 32, 32))

    assert torch.equal(model(video), before)
    assert torch.equal(TSMStream(model)(video[:, 0]), first)


def test_a_stream_needs_a_network_that_looks_back_only() -> None:
    with pytest.raises(ConfigError, match="needs a network with uni_directional"):
        TSMStream(small())
    with pytest.raises(ConfigError, match="needs a network without temporal_pool"):
        TSMStream(small(uni_directional=True, temporal_pool=True))


def test_temporal_pooling_halves_the_segments() -> None:
    model = small(temporal_pool=True)

    assert model.extract_features(torch.randn(2, 4, 10, 32, 32)).shape == (2, 2, 128)
    assert model(torch.randn(2, 4, 10, 32, 32)).shape == (2, 5)
    shifts = [one for one in model.modules() if isinstance(one, TemporalShift)]
    assert [one.num_segments for one in shifts] == [4, 4, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("name", ["tsm-resnet18", "tsm-mobilenet-v2", "tsm-bn-inception"])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = small(name).train()

    model(torch.randn(2, 4, 10, 32, 32)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_it_takes_its_number_of_segments_and_no_other() -> None:
    model = small(segments=16)

    assert model.num_segments == 16
    assert model(torch.randn(1, 16, 10, 32, 32)).shape == (1, 5)
    with pytest.raises(ConfigError, match="takes 16 segments of a video together, got 8"):
        model(torch.randn(1, 8, 10, 32, 32))
    with pytest.raises(ConfigError, match="looks at 16 clips of a video together"):
        FeatureNetwork(model, "cpu")


def test_what_it_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(ConfigError, match="an even num_segments, got 3"):
        small(segments=3, temporal_pool=True)
    with pytest.raises(ConfigError, match="must have places for shifts, got CNNM; choose"):
        TSM(CNNM(stack(10), 5, width=0.1))
    with pytest.raises(ConfigError, match="shift_div must be at least 2, got 1"):
        small(shift_div=1)
    with pytest.raises(ConfigError, match="shift_place must be one of blockres, block, got 'all'"):
        small(shift_place="all")
    with pytest.raises(ConfigError, match="shift_place does not apply to tsm-mobilenet-v2"):
        small("tsm-mobilenet-v2", shift_place="block")
