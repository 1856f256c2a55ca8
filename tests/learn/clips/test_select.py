"""Which videos are read, and what is refused before any is."""

from __future__ import annotations

import dataclasses

import pytest

from flowprep.dataset.read import FlowDataset
from flowprep.dataset.video_list import VideoList
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.clips.testing import TestViews
from flowprep.learn.clips.training import TrainingClips
from flowprep.learn.recipes import VIEWS
from tests.learn.clips.samples import CONFIG, FLOW, RGB, taken, with_videos


@pytest.mark.parametrize("labels", [(), (0, 1)])
def test_videos_without_one_label_are_skipped_and_counted(
    dataset: FlowDataset, labels: tuple[int, ...]
) -> None:
    num_train = sum(video.split == "train" for video in dataset.videos[:3])
    spec = dataclasses.replace(CONFIG.optimization, loss="cross-entropy")
    config = dataclasses.replace(CONFIG, optimization=spec)
    samples = TrainingClips([with_videos(dataset, labels=labels)], config, [taken(FLOW, "stack")])
    assert (samples.num_videos, samples.num_skipped) == (16 - num_train, num_train)
    assert all(samples.find(n)[1].label is not None for n in range(samples.num_videos))


def test_videos_with_several_labels_are_trained_on_with_all_of_them(dataset: FlowDataset) -> None:
    clips = TrainingClips([with_videos(dataset, labels=(1, 4))], CONFIG, [taken(FLOW, "stack")])
    assert (clips.num_videos, clips.num_skipped, clips.targets.losses) == (16, 0, ("bce",))
    batch = clips.batch(range(16))
    (targets,) = batch["targets"]
    expected = [clips.find(position)[1].labels for position in range(16)]
    assert (1, 4) in expected
    assert [tuple(row.nonzero().flatten().tolist()) for row in targets] == expected
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    several = [len(labels) > 1 for labels in expected]
    assert [label < 0 for label in batch["label"].tolist()] == several


def test_a_split_that_is_not_there_is_refused(dataset: FlowDataset) -> None:
    with pytest.raises(DatasetError) as caught:
        TrainingClips([dataset], dataclasses.replace(CONFIG, train_split="dev"), [taken(FLOW)])
    assert str(caught.value) == (
        f"{dataset.location} holds no video of split dev, it holds 16 of train, 8 of test; "
        "choose another split, or `all`"
    )
    everything = dataclasses.replace(CONFIG, train_split="all")
    assert TrainingClips([dataset], everything, [taken(FLOW)]).num_videos == 24
    dataset.videos = VideoList([dataclasses.replace(v, labels=()) for v in dataset.videos])
    with pytest.raises(DatasetError, match=r"give them labels by `flowprep label`"):
        TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])
    with pytest.raises(DatasetError, match=r"none of the 16 videos of split train has exactly"):
        TrainingClips([dataset], CONFIG, [taken(FLOW, "stack")])

    dataset.videos = VideoList([dataclasses.replace(v, split=None) for v in dataset.videos])
    with pytest.raises(DatasetError, match=r"its videos have no splits; take split all, or give"):
        TestViews(dataset, FLOW, [taken(FLOW)], VIEWS["center"])
    dataset.videos = VideoList()
    with pytest.raises(DatasetError, match=r"holds no video yet; wait for its extraction"):
        TrainingClips([dataset], everything, [taken(FLOW)])


def test_what_clips_cannot_be_made_of_is_refused_before_they_are(dataset: FlowDataset) -> None:
    small = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, crop_px=64))
    with pytest.raises(ConfigError, match="crop_px must be <= the short side"):
        TrainingClips([dataset], small, [taken(FLOW)])
    with pytest.raises(ConfigError, match="crop_px must be <= the short side"):
        TestViews(dataset, small.clip, [taken(FLOW)], VIEWS["center"])
    encode = dataclasses.replace(dataset.config.encode, directions=("forward",), keep_rgb=False)
    dataset.config = dataclasses.replace(dataset.config, encode=encode)
    both = dataclasses.replace(CONFIG, clip=dataclasses.replace(FLOW, stack="bidirectional"))
    with pytest.raises(ConfigError, match="holds no backward flow, which stack bidirectional"):
        TrainingClips([dataset], both, [taken(FLOW)])
    with pytest.raises(ConfigError, match="holds no RGB frames"):
        TestViews(dataset, RGB, [taken(RGB)], VIEWS["center"])
