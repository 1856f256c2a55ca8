"""RandAugment changes all frames of a clip alike, and leaves flow beside them right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.learn.clips.rand_augment import (
    COLOR_OPERATIONS,
    OPERATIONS,
    FrameChange,
    draw_frame_change,
)
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.training_specs import AugmentSpec
from tests.learn.clips.samples import BOTH, CONFIG, RGB, taken

BENDING = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
POINTWISE = ("identity", "posterize", "solarize", "brightness", "color", "contrast", "equalize")


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    """Five frames (H, W) = (24, 33) of colors that move."""
    y, x = np.mgrid[:24, :33]
    shades = [
        np.stack([40 + 4 * x + 3 * t, 60 + 5 * y, 90 + 2 * x + 9 * (x * y % 5)], -1)
        for t in range(5)
    ]
    return np.stack(shades).astype(np.uint8)


def test_there_are_the_papers_14_operations() -> None:
    assert len(OPERATIONS) == 14
    assert set(OPERATIONS) - set(COLOR_OPERATIONS) == set(BENDING)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_0_changes_nothing_and_a_still_clip_stays_still(
    name: str, frames: NDArray[np.uint8]
) -> None:
    before = frames.copy()
    same = FrameChange(((name, 0.0),))(frames)
    if name not in ("auto-contrast", "equalize"):
        np.testing.assert_array_equal(same, frames)
    changed = FrameChange(((name, 0.6),))(np.repeat(frames[:1], 3, axis=0))
    assert changed.dtype == np.uint8
    assert changed.shape == (3, 24, 33, 3)
    assert (changed == changed[:1]).all()
    assert name == "identity" or (changed != frames[:1]).any()
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize("name", POINTWISE)
def test_equal_colors_of_a_clip_stay_equal_wherever_and_whenever_they_are(
    name: str, frames: NDArray[np.uint8]
) -> None:
    changed = FrameChange(((name, 0.5),))(frames)
    colors: dict[tuple[int, ...], tuple[int, ...]] = {}
    pairs = zip(frames.reshape(-1, 3).tolist(), changed.reshape(-1, 3).tolist(), strict=True)
    for before, after in pairs:
        assert colors.setdefault(tuple(before), tuple(after)) == tuple(after)


def test_pictures_move_as_far_as_the_magnitude_says() -> None:
    x = np.zeros((1, 24, 331, 3), np.uint8)
    x[:, :, 200] = 255
    # 150 px of 331 at the highest magnitude. Px from outside are gray.
    moved = FrameChange((("translate-x", 0.2),))(x)
    assert (moved[0, :, 170] == 255).all()
    assert (moved[0, :, -30:] == 128).all()
    back = FrameChange((("translate-x", -0.2),))(x)
    assert (back[0, :, 230] == 255).all()
    dark = FrameChange((("brightness", -1.0),))(np.full((1, 8, 8, 3), 200, np.uint8))
    assert (dark == 20).all()
    few = FrameChange((("posterize", 1.0),))(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3))
    assert len(np.unique(few)) == 12  # 4 bits of the levels below 192
    inverted = FrameChange((("solarize", 1.0),))(np.full((1, 8, 8, 3), 55, np.uint8))
    assert (inverted == 200).all()


def test_beside_flow_only_colors_are_drawn() -> None:
    augment = AugmentSpec(rand_augment=(3, 12))
    for beside_flow, known in ((True, COLOR_OPERATIONS), (False, OPERATIONS)):
        steps = []
        for seed in range(300):
            rng = np.random.default_rng(seed)
            change = draw_frame_change(augment, beside_flow=beside_flow, rng=rng)
            assert change is not None
            assert len(change.steps) == 3
            steps += change.steps
        assert {name for name, _ in steps} == set(known)
        assert {abs(strength) for _, strength in steps} == {0.4}
        assert {strength for name, strength in steps if name == "solarize"} == {0.4}
        assert {strength for name, strength in steps if name == "color"} == {0.4, -0.4}
    assert draw_frame_change(AugmentSpec(), beside_flow=False, rng=np.random.default_rng()) is None


def test_a_clip_has_its_own_draw_and_its_flow_and_crop_stay(dataset: FlowDataset) -> None:
    clip = dataclasses.replace(CONFIG.clip, stream="both")
    config = dataclasses.replace(CONFIG, clip=clip, model=ModelSpec("two-stream-fusion"))
    drawn = dataclasses.replace(config, augment=AugmentSpec(rand_augment=(2, 20)))
    plain, changed = (
        TrainingClips([dataset], one, BOTH).batch(range(8)) for one in (config, drawn)
    )
    assert torch.equal(plain["clips"]["flow"], changed["clips"]["flow"])
    differs = (plain["clips"]["rgb"] != changed["clips"]["rgb"]).flatten(1).any(1)
    assert differs.sum() > 5
    again = TrainingClips([dataset], drawn, BOTH).batch(range(4, 8))
    assert torch.equal(again["clips"]["rgb"], changed["clips"]["rgb"][4:])


def test_differences_are_those_of_changed_frames(dataset: FlowDataset) -> None:
    clip = ClipSpec("rgb-difference", 2, crop_px=32, normalization="tsn")
    config = dataclasses.replace(CONFIG, clip=clip)
    drawn = dataclasses.replace(config, augment=AugmentSpec(rand_augment=(2, 20)))
    one = (taken(clip),)
    plain, changed = (TrainingClips([dataset], c, one).batch(range(8)) for c in (config, drawn))
    name = "rgb-difference"
    assert (plain["clips"][name] != changed["clips"][name]).flatten(1).any(1).sum() > 5
    assert changed["clips"][name].abs().max() <= 255


def test_flow_alone_and_odd_numbers_are_refused() -> None:
    wanted = AugmentSpec(rand_augment=(2, 9))
    TrainConfig(clip=RGB, augment=wanted)
    with pytest.raises(ConfigError, match=r"rand_augment is for RGB frames, got .* stream flow"):
        TrainConfig(augment=wanted)
    for wrong in ((2,), (0, 9), (1.5, 9), (2, 31), (2, -1)):
        with pytest.raises(ConfigError, match="rand_augment must be two numbers"):
            AugmentSpec(rand_augment=wrong)
