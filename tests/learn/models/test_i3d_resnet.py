"""I3D ResNet-50: sizes, costs, names and its non-local blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowprep.learn.layers.non_local import NonLocal
from flowprep.learn.models.i3d_resnet import I3DResNet
from flowprep.learn.models.resnet import resnet50
from flowprep.learn.network_options import NonLocalOptions
from tests.learn.inputs import stack, volume
from tests.learn.models.drawn import draw, fill


@torch.no_grad()
def test_logits_are_pytorchvideos() -> None:
    """The numbers are i3d_r50's in double precision, 400 classes, its head pooling the whole map.

    From facebookresearch/pytorchvideo at f3142bb, in eval mode, given the weights of ours as filled
    with seed 4, then shown (1, 3, 8, 64, 64) drawn from the same generator.
    """
    model = I3DResNet(volume(3), 400).eval()
    clip = draw(fill(model, 4), 1, 3, 8, 64, 64)

    logits = model(clip)

    norm = 5435.591138784297
    expected = [14.08467635765092, 398.0844942102832, -68.47980710906876, -47.18578273366487]
    assert logits.norm().item() == pytest.approx(norm, rel=1e-5)
    assert logits[0, :4].tolist() == pytest.approx(expected, abs=1e-6 * norm)


def test_names_are_those_of_the_image_network() -> None:
    ours = I3DResNet(volume(3), 5, width=0.1).state_dict()

    assert list(ours) == list(resnet50(stack(3), 5, width=0.1).state_dict())


def test_non_local_blocks_follow_every_other_block() -> None:
    model = I3DResNet(volume(3), 5, width=0.1, non_local=NonLocalOptions(True))

    places = [name for name, layer in model.named_modules() if isinstance(layer, NonLocal)]

    assert places == [
        f"layer{stage}.{block}.non_local"
        for stage, block in ((2, 1), (2, 3), (3, 1), (3, 3), (3, 5))
    ]


@torch.no_grad()
def test_non_local_blocks_begin_as_the_identity() -> None:
    plain = I3DResNet(volume(3), 5, width=0.1).eval()
    with_blocks = I3DResNet(volume(3), 5, width=0.1, non_local=NonLocalOptions(True)).eval()
    for layer in plain.modules():  # else the residual blocks are identities as well
        if isinstance(layer, nn.BatchNorm3d):
            layer.weight.uniform_(0.5, 1.5)
    missing = with_blocks.load_state_dict(plain.state_dict(), strict=False).missing_keys
    clip = torch.randn(2, 3, 8, 64, 64)

    assert all(".non_local." in name for name in missing)
    assert torch.equal(with_blocks(clip), plain(clip))


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("non_local", [False, True])
@torch.no_grad()
def test_small_and_short_clips_get_scores(frames: int, non_local: bool) -> None:
    model = I3DResNet(volume(2), 5, width=0.1, non_local=NonLocalOptions(non_local)).eval()

    assert model(torch.randn(2, 2, frames, 32, 40)).shape == (2, 5)


@torch.no_grad()
def test_bfloat16_in_channels_last() -> None:
    model = I3DResNet(volume(2), 5, width=0.25, non_local=NonLocalOptions(True)).eval()
    clip = torch.randn(1, 2, 8, 64, 64)

    expected = model(clip)
    model = model.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(clip.contiguous(memory_format=torch.channels_last_3d))

    torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.01)


def test_gradients_reach_every_parameter() -> None:
    model = I3DResNet(volume(2), 5, width=0.1, non_local=NonLocalOptions(True))

    model(torch.randn(2, 2, 4, 64, 64)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_replaced_classifier_has_the_new_classes() -> None:
    model = I3DResNet(volume(2), 5, width=0.1)

    model.replace_classifier(7)

    assert model(torch.randn(2, 2, 2, 32, 32)).shape == (2, 7)
