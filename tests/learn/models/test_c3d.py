"""C3D: its last pooling, its sizes, and its features of fc6."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flowprep.config import RunOptions
from flowprep.dataset.read import open_dataset
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import restore_model, save_checkpoint
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.clip import load_clip
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec
from flowprep.learn.create import create_model
from flowprep.learn.features import FeatureSpec, extract_features, open_features
from flowprep.learn.models.c3d import C3D, C3DBatchNorm, Pool5
from flowprep.learn.network_options import Pool5Name
from flowprep.learn.probe import _vector
from tests.learn.inputs import volume
from tests.learn.small import make_checkpoint


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ("ceil", [[8, 10, 12, 13], [22, 24, 26, 27], [36, 38, 40, 41], [43, 45, 47, 48]]),
        ("padded", [[0, 2, 4, 6], [14, 16, 18, 20], [28, 30, 32, 34], [42, 44, 46, 48]]),
    ],
)
def test_both_readings_of_pool5(reading: Pool5Name, expected: list[list[int]]) -> None:
    places = torch.arange(49.0).reshape(1, 1, 1, 7, 7)
    for later in (places, torch.cat([places - 100, places], 2)):  # one frame, and two
        assert Pool5(reading)(later).tolist() == [[[expected]]]


@torch.no_grad()
def test_maps_of_the_published_clip() -> None:
    with torch.device("meta"):
        model = C3D(volume(3, 16), 487)
        clip = torch.empty(1, 3, 16, 112, 112)
    maps: dict[str, tuple[int, ...]] = {}
    for name in ("pool1", "pool2", "pool3", "pool4", "pool5", "fc6"):
        model.get_submodule(name).register_forward_hook(
            lambda _, __, result, name=name: maps.__setitem__(name, tuple(result.shape[1:]))
        )
    assert model(clip).shape == (1, 487)
    assert maps == {
        "pool1": (64, 16, 56, 56),
        "pool2": (128, 8, 28, 28),
        "pool3": (256, 4, 14, 14),
        "pool4": (512, 2, 7, 7),
        "pool5": (512, 1, 4, 4),
        "fc6": (4096,),
    }


@pytest.mark.parametrize("reading", ["ceil", "padded"])
@pytest.mark.parametrize(("crop_px", "num_frames"), [(112, 16), (32, 4), (45, 9), (64, 17)])
@pytest.mark.parametrize("kind", [C3D, C3DBatchNorm])
@torch.no_grad()
def test_fc6_follows_crop_and_frames(
    kind: type[C3D], crop_px: int, num_frames: int, reading: Pool5Name
) -> None:
    model = kind(volume(2, num_frames), 5, width=0.02, crop_px=crop_px, pool5=reading).eval()

    assert model(torch.randn(2, 2, num_frames, crop_px, crop_px)).shape == (2, 5)


def test_a_clip_of_another_size_is_refused() -> None:
    model = C3D(volume(3, 16), 5, width=0.02)
    with pytest.raises(ConfigError, match="the size that C3D is made for"):
        model(torch.zeros(1, 3, 32, 112, 112))


def test_pool1_of_batch_norms_halves_time() -> None:
    clip = torch.randn(1, 1, 16, 8, 8)
    plain, halved = (kind(volume(2, 16), 5, width=0.02) for kind in (C3D, C3DBatchNorm))
    assert plain.pool1(clip).shape == (1, 1, 16, 4, 4)
    assert torch.equal(halved.pool1(clip), nn.functional.max_pool3d(clip, 2))
    kinds = [type(one).__name__ for one in halved.modules()]
    assert (kinds.count("BatchNorm3d"), kinds.count("BatchNorm1d")) == (8, 2)
    assert all(n.endswith("fc8.bias") or ".1." in n for n in halved.state_dict() if "bias" in n)


def test_gradients_reach_every_parameter() -> None:
    model = C3DBatchNorm(volume(2, 8), 5, width=0.02, crop_px=64)

    model(torch.randn(4, 2, 8, 64, 64)).square().sum().backward()

    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_options_arrive() -> None:
    with torch.device("meta"):
        model = create_model("c3d", stream="rgb", num_classes=5, pool5="padded")
    assert model.get_submodule("pool5").reading == "padded"
    with pytest.raises(ConfigError, match="pool5 must be one of ceil, padded, got 'floor'"):
        create_model("c3d", stream="rgb", num_classes=5, pool5="floor")


def test_fc6_of_a_video_is_the_normalised_mean_of_its_clips(motion: Path, tmp_path: Path) -> None:
    dataset = open_dataset(motion)
    clip = ClipSpec("rgb", 4, normalization="c3d", crop_px=32)
    checkpoint = make_checkpoint(dataset, clip=clip, model="c3d")
    save_checkpoint(tmp_path / "c3d.pt", checkpoint)
    key = dataset.videos[0].key

    extract_features(
        motion,
        tmp_path / "features",
        FeatureSpec(layer="fc6"),
        checkpoint=tmp_path / "c3d.pt",
        num_loaders=0,
        executor="inline",
        options=RunOptions(progress=False),
    )
    found = next(one for one in open_features(tmp_path / "features") if one.key == key)

    model, video = restore_model(checkpoint), dataset.videos[key]
    one = ClipInput("rgb", "rgb", "volume", 4)
    (crop,) = view_crops(video.width, video.height, clip, 1)
    clips = [load_clip(dataset, video, range(t, t + 4), crop, clip, one) for t in (0, 4, 8)]
    values: list[torch.Tensor] = []
    model.get_submodule("fc6").register_forward_hook(lambda _, __, result: values.append(result))
    with torch.inference_mode():
        model(torch.from_numpy(np.stack(clips)))
    fc6 = values[0].numpy().astype(np.float64)
    assert fc6.min() == 0  # after the ReLU
    assert (fc6.max(0) > 0).any()
    np.testing.assert_allclose(found.features["rgb"], fc6, rtol=1e-4, atol=1e-4)
    mean = fc6.mean(0)
    vector = _vector(found, "rgb")
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    assert dataclasses.asdict(checkpoint.config.model.options) == {"pool5": "ceil"}
