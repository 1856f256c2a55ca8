"""I3D against pytorch-i3d: names, sizes and values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from flowprep.learn.models.i3d import I3D
from tests.learn.inputs import volume
from tests.learn.models.drawn import draw, fill

BRANCHES = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
MODULES = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@torch.no_grad()
def test_logits_are_pytorch_i3ds() -> None:
    """The numbers are InceptionI3d(400)'s in double precision, its logits averaged over time.

    From piergiaj/pytorch-i3d at 05783d1, in eval mode, filled with seed 0, then shown
    uniform(-1, 1) of shape (1, 3, 16, 224, 224) from the same generator.
    """
    model = I3D(volume(3), 400).eval()
    clip = draw(fill(model, 0), 1, 3, 16, 224, 224)

    logits = model(clip)

    assert logits.shape == (1, 400)
    assert logits.norm().item() == pytest.approx(71.17182308617858, rel=1e-5)
    expected = [
        3.8372670786751613,
        -3.843653984826797,
        2.474901079466801,
        -5.693936779349601,
        1.0560430461964287,
    ]
    assert logits[0, :5].tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_maps_of_odd_sizes_are_pytorch_i3ds() -> None:
    """As above, at Mixed_5c of a flow net (2 channels), seed 1, shape (1, 2, 11, 75, 90).

    Every layer pads unevenly somewhere; the pooling before the classifier of pytorch-i3d does not
    take maps of this size.
    """
    model = I3D(volume(2), 400).eval()
    clip = draw(fill(model, 1), 1, 2, 11, 75, 90)

    maps = model.forward_maps(clip)

    assert maps.shape == (1, 1024, 2, 3, 3)
    assert maps.norm().item() == pytest.approx(236.11839294433594, rel=1e-5)
    assert maps.sum().item() == pytest.approx(17557.912109375, rel=1e-5)
    by_time = [maps[:, :, t].norm().item() for t in range(2)]
    assert by_time == pytest.approx([166.98965454101562, 166.9320526123047], rel=1e-5)
    by_column = [maps[..., x].norm().item() for x in range(3)]
    columns = [131.3031768798828, 146.28500366210938, 130.8130340576172]
    assert by_column == pytest.approx(columns, rel=1e-5)


def test_names_are_pytorch_i3ds() -> None:
    units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    units += [f"Mixed_{module}.{branch}" for module in MODULES for branch in BRANCHES]
    expected = {f"{unit}.conv3d.weight" for unit in units}
    expected |= {f"{unit}.bn.{name}" for unit in units for name in BATCH_NORM}
    expected |= {"logits.conv3d.weight", "logits.conv3d.bias"}

    assert set(I3D(volume(2), 5, width=0.05).state_dict()) == expected


def test_batch_norm_and_dropout_are_the_papers() -> None:
    model = I3D(volume(2), 5)

    assert model.Conv3d_1a_7x7.bn.eps == 1e-3
    assert model.Conv3d_1a_7x7.bn.momentum == 0.01
    assert model.dropout.p == 0.5


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 17])
@pytest.mark.parametrize("px", [32, 57, 64])
@torch.no_grad()
def test_small_and_short_clips_get_scores(frames: int, px: int) -> None:
    model = I3D(volume(2), 5, width=0.05).eval()

    logits = model(torch.randn(2, 2, frames, px, px + 3))

    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


@torch.no_grad()
def test_features_are_windows_and_logits_their_average() -> None:
    model = I3D(volume(2), 5, width=0.05).eval()
    clip = torch.randn(1, 2, 32, 224, 224)

    features = model.extract_features(clip)  # (1, C, 4 - 1, 1, 1)
    one_by_one = [model.classify(features[:, :, t : t + 1]) for t in range(3)]

    assert features.shape[2:] == (3, 1, 1)
    torch.testing.assert_close(model.classify(features), torch.stack(one_by_one).mean(0))


@torch.no_grad()
def test_a_wider_picture_is_averaged_over_places() -> None:
    model = I3D(volume(2), 5, width=0.02).eval()

    assert model.extract_features(torch.randn(1, 2, 16, 288, 256)).shape[2:] == (1, 3, 2)
    assert model(torch.randn(1, 2, 16, 288, 256)).shape == (1, 5)


@torch.no_grad()
def test_a_still_video_scores_as_its_frame_with_replicate_padding_alone() -> None:
    model = I3D(volume(3), 5, width=0.1, time_padding="replicate").eval()
    zeros = I3D(volume(3), 5, width=0.1).eval()
    fill(model, 2)
    zeros.load_state_dict(model.state_dict())
    frame = torch.randn(1, 3, 1, 64, 64)
    still = frame.expand(-1, -1, 16, -1, -1)

    torch.testing.assert_close(model(still), model(frame), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(zeros(still), model(frame), rtol=1e-2)


@torch.no_grad()
def test_bfloat16_in_channels_last_is_near() -> None:
    model = I3D(volume(2), 5, width=0.25).eval()
    fill(model, 3)
    clip = torch.randn(1, 2, 8, 64, 64)

    expected = model(clip)
    model = model.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(clip.contiguous(memory_format=torch.channels_last_3d))

    assert F.cosine_similarity(got.float(), expected).item() > 0.999


def test_gradients_reach_every_parameter() -> None:
    model = I3D(volume(2), 5, width=0.05)

    model(torch.randn(2, 2, 16, 32, 32)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_replaced_classifier_is_new_and_of_the_same_dtype() -> None:
    model = I3D(volume(2), 5, width=0.05).double().eval()

    model.replace_classifier(7)

    assert model(torch.randn(1, 2, 8, 32, 32).double()).shape == (1, 7)
