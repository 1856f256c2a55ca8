"""Samples of two videos, and samples with a hole: the same px and shares everywhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.clips.mixing import (
    Box,
    Mix,
    draw_erasing,
    draw_mix,
    erase_box,
    mix_clips,
)
from flowprep.learn.clips.streaming import StreamedClips
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.clips.video_clips import VideoClips
from flowprep.learn.training_specs import AugmentSpec
from tests.learn.clips.samples import BOTH, CONFIG, batches

VIEWS = (
    ClipInput("fovea", "rgb", "stack", 1, view="fovea"),
    ClipInput("context", "rgb", "stack", 1, view="context"),
)


def drawn_clips(seed: int) -> dict[str, NDArray[np.float32]]:
    """Random clips of two segments, as a network of flow and RGB takes them."""
    rng = np.random.default_rng(seed)
    return {
        one.name: rng.normal(size=(2, *one.shape(32))).astype(np.float32) for one in (*BOTH, *VIEWS)
    }


def copied(clips: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    return {name: array.copy() for name, array in clips.items()}


def augmented(**fields: Any) -> Any:
    return dataclasses.replace(CONFIG, augment=AugmentSpec(**fields))


@pytest.mark.parametrize("mix", [Mix(1.0), Mix(1.0, Box(4, 9, 4, 20))])
def test_a_whole_share_changes_nothing(mix: Mix) -> None:
    own = drawn_clips(0)
    mixed = copied(own)
    mix_clips(mixed, drawn_clips(1), mix, (*BOTH, *VIEWS), 32)
    for name, array in own.items():
        np.testing.assert_array_equal(mixed[name], array)


def test_mixup_mixes_all_numbers_by_one_share() -> None:
    own, other = drawn_clips(0), drawn_clips(1)
    mixed = copied(own)
    mix_clips(mixed, other, Mix(0.3), BOTH, 32)
    for one in BOTH:
        expected = 0.3 * own[one.name].astype(float) + 0.7 * other[one.name]
        np.testing.assert_allclose(mixed[one.name], expected, atol=1e-6)


def test_cutmix_takes_one_box_in_all_frames_of_all_inputs() -> None:
    own, other = drawn_clips(0), drawn_clips(1)
    mixed = copied(own)
    box = Box(4, 9, 20, 31)
    mix_clips(mixed, other, Mix(1 - box.share(32), box), BOTH, 32)
    for one in BOTH:
        is_partner = mixed[one.name] == other[one.name]
        expected = np.zeros((32, 32), bool)
        expected[9:31, 4:20] = True
        np.testing.assert_array_equal(is_partner, np.broadcast_to(expected, is_partner.shape))
        np.testing.assert_array_equal(mixed[one.name][~is_partner], own[one.name][~is_partner])
        assert is_partner.mean() == box.share(32)


def test_views_of_a_part_get_the_box_where_they_show_it() -> None:
    own, other = drawn_clips(0), drawn_clips(1)
    fovea, context = VIEWS
    mix_clips(own, other, Mix(0.5, Box(4, 10, 20, 32)), VIEWS, 32)
    # The fovea is columns and rows 8 to 24; the context has half of the resolution.
    for one, (rows, columns) in (
        (fovea, (slice(2, 16), slice(0, 12))),
        (context, (slice(5, 16), slice(2, 10))),
    ):
        expected = np.zeros((16, 16), bool)
        expected[rows, columns] = True
        is_partner = own[one.name] == other[one.name]
        np.testing.assert_array_equal(is_partner, np.broadcast_to(expected, is_partner.shape))


def test_shares_are_those_of_the_areas_and_of_the_beta_distribution() -> None:
    rng = np.random.default_rng(0)
    both = [draw_mix(AugmentSpec(mixup=0.8, cutmix=1.0), 32, rng) for _ in range(2000)]
    cut = [(mix, mix.box) for mix in both if mix.box is not None]
    assert len(cut) == pytest.approx(1000, abs=5 * 23)  # 23: the deviation of 2000 coins
    for mix, box in cut:
        assert 0 <= box.left <= box.right <= 32
        assert 0 <= box.top <= box.bottom <= 32
        assert mix.share == 1 - (box.right - box.left) * (box.bottom - box.top) / 1024
    # A box that is cut off at an edge is smaller than the share that was drawn.
    assert 0.5 < np.mean([mix.share for mix, _ in cut]) < 0.75
    shares = [mix.share for mix in both if mix.box is None]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert np.var(shares) == pytest.approx(1 / (4 * 2.6), rel=0.15)
    assert {draw_mix(AugmentSpec(mixup=1.0), 32, rng).box for _ in range(50)} == {None}
    assert None not in {draw_mix(AugmentSpec(cutmix=1.0), 32, rng).box for _ in range(50)}


def test_erasing_draws_boxes_of_the_published_sizes_for_its_share_of_the_clips() -> None:
    rng = np.random.default_rng(0)
    boxes = [draw_erasing(AugmentSpec(random_erasing=0.25), 112, rng) for _ in range(2000)]
    found = [box for box in boxes if box is not None]
    assert len(found) == pytest.approx(500, abs=5 * 19.4)
    for box in found:
        assert 0 <= box.left < box.right <= 112
        assert 0 <= box.top < box.bottom <= 112
        assert 0.015 < box.share(112) < 0.34
    own = drawn_clips(0)
    erased = copied(own)
    erase_box(erased, Box(3, 0, 10, 8), BOTH, 32)
    for one in BOTH:
        assert not erased[one.name][..., 0:8, 3:10].any()
        is_same = erased[one.name] == own[one.name]
        assert (~is_same).mean() == 7 * 8 / 1024


def test_a_sample_is_mixed_with_its_neighbor_in_the_stream(dataset: FlowDataset) -> None:
    plain = TrainingClips([dataset], CONFIG, BOTH)
    mixed = TrainingClips([dataset], augmented(mixup=0.8, cutmix=1.0), BOTH)
    rows = plain.batch(range(16))
    found = mixed.batch(range(16))
    partners = [position ^ 1 for position in range(16)]
    assert torch.equal(found["label"], rows["label"])
    assert torch.equal(found["partner"]["label"], rows["label"][partners])
    assert len(set(found["share"].tolist())) > 14
    for one in BOTH:
        own, other = rows["clips"][one.name], rows["clips"][one.name][partners]
        shares = found["share"].view(-1, *(1,) * (own.dim() - 1))
        whole = shares * own + (1 - shares) * other
        x = found["clips"][one.name]
        is_mean = ((x - whole).abs() < 1e-4).flatten(1).all(1)
        is_one_of_both = ((x == own) | (x == other)).flatten(1).all(1)
        assert bool((is_mean | is_one_of_both).all())
        assert is_mean.any()
        assert is_one_of_both.any()
        # The labels' share is that of the px. A partner may show the same there, so at least.
        same = (x == own).flatten(1).float().mean(1)[is_one_of_both & ~is_mean]
        assert bool((same >= found["share"][is_one_of_both & ~is_mean] - 1e-6).all())


def test_a_stream_of_changed_samples_is_the_same_however_it_is_divided(
    dataset: FlowDataset,
) -> None:
    config = augmented(mixup=0.8, cutmix=1.0, random_erasing=0.5)
    samples = TrainingClips([dataset], config, BOTH)
    whole = samples.batch(range(24, 36))
    for size in (3, 4):
        # Parts of 3 begin and end within a pair.
        parts = [samples.batch(range(n, n + size)) for n in range(24, 36, size)]
        for one in BOTH:
            joined = torch.cat([part["clips"][one.name] for part in parts])
            assert torch.equal(joined, whole["clips"][one.name])
        assert torch.equal(torch.cat([part["share"] for part in parts]), whole["share"])
        labels = torch.cat([part["partner"]["label"] for part in parts])
        assert torch.equal(labels, whole["partner"]["label"])
    one = samples[27]
    assert torch.equal(one["clips"]["flow"], whole["clips"]["flow"][3])
    assert one["partner"]["label"] == whole["partner"]["label"][3]
    assert one["share"] == whole["share"][3]
    read = batches(samples, first_step=6, num_steps=9, batch_size=4, num_loaders=1)
    assert torch.equal(torch.cat([batch["clips"]["rgb"] for batch in read]), whole["clips"]["rgb"])  # type: ignore[index]
    assert torch.equal(torch.cat([batch["share"] for batch in read]), whole["share"])


def test_samples_of_one_label_are_not_mixed(dataset: FlowDataset) -> None:
    with pytest.raises(ConfigError, match=r"mixup must be 0 here, got 0\.8"):
        VideoClips(dataset, augmented(mixup=0.8))
    with pytest.raises(ConfigError, match="cutmix must be 0 here, got 1"):
        StreamedClips(dataset, augmented(cutmix=1.0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixup": -1.0}, "mixup must be a number >= 0, got -1"),
        ({"cutmix": float("inf")}, "cutmix must be a number >= 0, got inf"),
        ({"random_erasing": 1.5}, "random_erasing must be from 0 to 1, got 1.5"),
    ],
)
def test_impossible_numbers_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AugmentSpec(**fields)  # type: ignore[arg-type]
