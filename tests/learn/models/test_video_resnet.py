"""The networks of "A closer look": planes between halves, variants, and frames seen alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.models.video_resnet import (
    MC3,
    R2D,
    R3D,
    RMC3,
    R2Plus1D,
    R2Plus1D34,
    VideoResNet,
    middle_channels,
)
from flowprep.learn.network_options import VideoResNetVariant
from tests.learn.inputs import volume
from tests.learn.models.drawn import fill

KINDS = (R3D, MC3, RMC3, R2D, R2Plus1D, R2Plus1D34)


def build(
    kind: type[VideoResNet],
    num_channels: int = 2,
    num_frames: int = 16,
    width: float = 0.125,
    variant: VideoResNetVariant = "vmz",
) -> VideoResNet:
    return kind(volume(num_channels, num_frames), 5, width=width, variant=variant)


def test_planes_between_halves_are_the_table() -> None:
    """Of (2+1)D convolutions with the parameters of 3x3x3 ones (Tran et al. 2018)."""
    table = {
        (64, 64): 144,
        (64, 128): 230,
        (128, 128): 288,
        (128, 256): 460,
        (256, 256): 576,
        (256, 512): 921,
        (512, 512): 1152,
    }
    assert {pair: middle_channels(*pair) for pair in table} == table
    for (first, second), middle in table.items():
        whole = 27 * first * second
        assert whole - 9 * first - 3 * second < middle * (9 * first + 3 * second) <= whole


@pytest.mark.parametrize("kind", [R2Plus1D, R2Plus1D34])
def test_variants_differ_in_planes_and_epsilon(kind: type[VideoResNet]) -> None:
    def planes(variant: VideoResNetVariant) -> dict[str, int]:
        with torch.device("meta"):
            model = build(kind, width=1, variant=variant)
        eps = {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm3d)}
        assert eps == {1e-3 if variant == "vmz" else 1e-5}
        return {
            name: layer.out_channels
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv3d) and layer.kernel_size == (1, 3, 3)
        }

    of_blocks, of_convolutions = planes("torchvision"), planes("vmz")
    assert {
        name: (middle, of_convolutions[name])
        for name, middle in of_blocks.items()
        if middle != of_convolutions[name]
    } == {
        "layer2.0.conv2.0.0": (230, 288),
        "layer3.0.conv2.0.0": (460, 576),
        "layer4.0.conv2.0.0": (921, 1152),
    }
    assert {of_convolutions[f"layer{n}.1.conv1.0.0"] for n in (1, 2, 3, 4)} == {144, 288, 576, 1152}


def test_the_first_kernels_are_the_published() -> None:
    with torch.device("meta"):
        kernels = {kind: tuple(build(kind, width=1).stem[0].weight.shape) for kind in KINDS}

    assert kernels == {
        R3D: (64, 2, 3, 7, 7),
        MC3: (64, 2, 3, 7, 7),
        RMC3: (64, 2, 1, 7, 7),
        R2D: (64, 2, 16, 7, 7),
        R2Plus1D: (45, 2, 1, 7, 7),
        R2Plus1D34: (45, 2, 1, 7, 7),  # VMZ's weights for flow
    }


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        # Three stages keep every second frame; a stage of frames keeps them all.
        (R3D, (0, 8)),
        (R2Plus1D, (0, 8)),
        (R2Plus1D34, (0, 8)),
        (RMC3, (0, 8)),
        (MC3, range(16)),
    ],
)
@torch.no_grad()
def test_with_the_middle_tap_alone_frames_are_seen_alone(
    kind: type[VideoResNet], frames: tuple[int, ...]
) -> None:
    """Kernels over time that only pass the middle frame on make the network one of images."""
    model = build(kind).eval()
    clip = torch.from_numpy(fill(model, 1).standard_normal((1, 2, 16, 24, 32))).float()
    for layer in model.modules():
        if isinstance(layer, nn.Conv3d):
            middle = layer.kernel_size[0] // 2
            layer.weight[:, :, :middle] = 0
            layer.weight[:, :, middle + 1 :] = 0

    images = clip[0].transpose(0, 1)[list(frames)]  # (frames, 2, H, W)
    maps = image_maps(model.state_dict(), image_stem(model.state_dict(), images))

    torch.testing.assert_close(model.extract_features(clip)[0], maps.mean((0, 2, 3)))


@torch.no_grad()
def test_r2d_sees_the_clip_as_channels_of_one_image() -> None:
    model = build(R2D).eval()
    clip = torch.from_numpy(fill(model, 2).standard_normal((1, 2, 18, 24, 32))).float()
    state = model.state_dict()

    def of_window(start: int) -> torch.Tensor:
        image = clip[:, :, start : start + 16].flatten(1, 2)  # (1, 2 x 16, H, W)
        x = F.conv2d(image, state["stem.0.weight"].flatten(1, 2), stride=2, padding=3)
        return image_maps(state, norm(state, "stem.1", x).relu()).mean((2, 3))

    features = model.extract_features
    torch.testing.assert_close(features(clip[:, :, :16]), of_window(0))
    # A longer clip is seen in windows.
    torch.testing.assert_close(features(clip), sum(map(of_window, range(3))) / 3)


@pytest.mark.parametrize("kind", [R2D, R2Plus1D])
def test_gradients_reach_every_parameter(kind: type[VideoResNet]) -> None:
    model = build(kind, num_frames=8, width=0.05)

    logits = model(torch.randn(2, 2, 8, 16, 24))
    logits.square().sum().backward()

    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", [R3D, R2Plus1D])
@torch.no_grad()
def test_a_clip_of_any_length_and_size(kind: type[VideoResNet]) -> None:
    model = build(kind, 3, width=0.05).eval()

    for shape in ((1, 16, 16), (3, 17, 30), (9, 8, 8)):
        assert model(torch.randn(1, 3, *shape)).shape == (1, 5)


# ---- an independent forward over images, by the names of tensors


def norm(state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"].reshape(1, -1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def image_conv(
    state: Mapping[str, torch.Tensor], name: str, x: torch.Tensor, stride: int
) -> torch.Tensor:
    """A convolution by the middle of its kernel; of (2+1)D, both halves."""
    if f"{name}.weight" not in state:
        x = image_conv(state, f"{name}.0", x, stride)
        return image_conv(state, f"{name}.3", norm(state, f"{name}.1", x).relu(), 1)
    kernel = state[f"{name}.weight"]
    kernel = kernel[:, :, kernel.shape[2] // 2]
    return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)


def image_stem(state: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    x = norm(state, "stem.1", image_conv(state, "stem.0", x, 2)).relu()
    if "stem.3.weight" in state:
        x = norm(state, "stem.4", image_conv(state, "stem.3", x, 1)).relu()
    return x


def image_maps(state: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The last maps of an image, from those of the stem."""
    for block in blocks(state):
        stride = 2 if block.endswith(".0") and block != "layer1.0" else 1
        y = norm(state, f"{block}.conv1.1", image_conv(state, f"{block}.conv1.0", x, stride))
        y = norm(state, f"{block}.conv2.1", image_conv(state, f"{block}.conv2.0", y.relu(), 1))
        if f"{block}.downsample.0.weight" in state:
            x = image_conv(state, f"{block}.downsample.0", x, stride)
            x = norm(state, f"{block}.downsample.1", x)
        x = (x + y).relu()
    return x


def blocks(state: Mapping[str, torch.Tensor]) -> Iterator[str]:
    for stage in range(1, 5):
        number = 0
        while f"layer{stage}.{number}.conv1.1.weight" in state:
            yield f"layer{stage}.{number}"
            number += 1
