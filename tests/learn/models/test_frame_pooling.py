"""Features of frames, pooled over time: what each pooling sees of their order, and windows."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError
from flowprep.learn.models.frame_pooling import FramePooling, num_windows
from flowprep.learn.models.resnet import resnet18
from flowprep.learn.network_options import FrameBackbone, PoolingName
from tests.learn.inputs import stack, volume

BLIND: tuple[PoolingName, ...] = ("conv", "late", "mean")
"""What these find does not depend on the order of the frames."""


def small(
    pooling: PoolingName, num_frames: int = 15, backbone: FrameBackbone = "resnet18"
) -> FramePooling:
    torch.manual_seed(0)
    model = FramePooling(volume(2, num_frames), 5, pooling=pooling, backbone=backbone, width=1 / 16)
    # The classifier's own deviation is too small to tell frames apart.
    torch.nn.init.normal_(model.fc.weight)
    return model.eval()


def clips(num_frames: int = 15, side: int = 64) -> torch.Tensor:
    return torch.randn(2, 2, num_frames, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("pooling", get_args(PoolingName))
@torch.no_grad()
def test_the_order_of_frames_matters_to_some_poolings_alone(pooling: PoolingName) -> None:
    model, x = small(pooling), clips()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))

    logits, shuffled = model(x), model(x[:, :, order])

    assert torch.allclose(logits, shuffled, rtol=1e-4, atol=1e-5) == (pooling in BLIND)


@pytest.mark.parametrize(
    ("pooling", "backbone"),
    [
        *(("conv", backbone) for backbone in get_args(FrameBackbone)),
        *((p, "alexnet") for p in BLIND[1:]),
    ],
)
@torch.no_grad()
def test_a_still_clip_is_one_frame(pooling: PoolingName, backbone: FrameBackbone) -> None:
    model = small(pooling, backbone=backbone)
    frame = clips(1)

    found, expected = model(frame.expand(-1, -1, 3, -1, -1)), model(frame)

    assert expected.std() > 0
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), atol=1e-4, rtol=0)


def test_windows_are_of_ten_frames_five_apart() -> None:
    assert [num_windows(frames) for frames in (1, 9, 10, 14, 15, 30, 120)] == [1, 1, 1, 1, 2, 5, 23]


@pytest.mark.parametrize(("num_frames", "windows"), [(4, 1), (14, 1), (30, 5)])
@torch.no_grad()
def test_each_window_sees_its_frames_alone(num_frames: int, windows: int) -> None:
    model, x = small("local", num_frames), clips(num_frames, 32)
    usual = model.extract_features(x).unflatten(1, (windows, -1))

    for frame in (0, num_frames - 1, num_frames // 2):
        changed = x.clone()
        changed[:, :, frame] = 100 * torch.randn(2, 2, 32, 32)
        found = model.extract_features(changed).unflatten(1, (windows, -1))
        differs = (found != usual).flatten(2).any(2).any(0)
        length = min(10, num_frames)
        sees = [5 * window <= frame < 5 * window + length for window in range(windows)]
        assert differs.tolist() == sees


@torch.no_grad()
def test_slow_pooling_is_what_the_paper_says() -> None:
    model, x = small("slow"), clips()
    maps = model.base.extract_maps(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 15))

    first = [F.relu(model.fc1(maps[:, at : at + 10].amax(1).mean((2, 3)))) for at in (0, 5)]
    expected = model.fc(F.relu(model.fc2(torch.maximum(*first))))

    torch.testing.assert_close(model(x), expected)


@torch.no_grad()
def test_a_convolution_over_time_that_picks_a_frame_is_conv_pooling_of_it() -> None:
    model, other = small("time-conv"), small("conv")
    model.time.weight.zero_()
    channels = model.time.in_channels  # as many as kernels, or more
    kernels = model.time.out_channels
    for channel in range(min(channels, kernels)):
        model.time.weight[channel, channel, 3, 1, 1] = 1
    maps = model.base.extract_maps(clips().transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 15))

    seen = F.relu(model.time(maps.transpose(1, 2))).amax(2)

    assert other.pooling == "conv"
    torch.testing.assert_close(seen[:, :channels], maps[:, [3, 8]].amax(1)[:, :kernels])


@torch.no_grad()
def test_the_mean_is_that_of_the_base() -> None:
    model, x = small("mean"), clips(4, 32)
    base = resnet18(stack(2), 5, width=1 / 16)
    head = {f"fc.{name}": value for name, value in model.fc.state_dict().items()}
    base.load_state_dict(model.base.state_dict() | head)

    each = base.eval()(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4))

    torch.testing.assert_close(model(x), each.mean(1))


@pytest.mark.parametrize("pooling", ["local", "concat"])
def test_a_network_of_so_many_frames_takes_no_others(pooling: PoolingName) -> None:
    with pytest.raises(ConfigError, match=f"pooling {pooling} is built for 15 frames, got 20"):
        small(pooling)(clips(20, 32))
