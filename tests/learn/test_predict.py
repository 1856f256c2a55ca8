"""From a raw video: the numbers are those of a data set extracted from it for the training."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from flowprep.config import ExtractConfig, FlowSpec
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.learn.checkpoint import Checkpoint
from flowprep.learn.config import ClipSpec, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.fuse import fuse_scores
from flowprep.learn.predict import Prediction, Predictor, plan_extractions
from flowprep.learn.scores import Scores
from tests.learn.small import FLOW, RGB, extract_clips, make_checkpoint
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

VIEWS = ViewSpec(3, 3)
BIDIRECTIONAL = ClipSpec("flow", 4, stack="bidirectional", crop_px=32)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(scope="module")
def others(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    """The same videos, at 10 fps and 40 px, cut at 8 px, in JPEGs of quality 60."""
    base = open_dataset(motion).config
    config = ExtractConfig(
        dataclasses.replace(base.decode, fps=10.0, resize=type(base.decode.resize).parse("40x40")),
        dataclasses.replace(base.flow, bound_px=8.0),
        dataclasses.replace(base.encode, jpeg_quality=60, rgb_jpeg_quality=60),
    )
    return extract_clips(motion.parent, tmp_path_factory.mktemp("others") / "others", config)


def video_of(motion: Path, key: str) -> Path:
    return motion.parent / "videos" / f"{key}.mp4"


def predict_one(predictor: Predictor, video: Path) -> Prediction:
    (prediction,) = predictor.predict(video)
    return prediction


def evaluated(dataset: FlowDataset, checkpoint: Checkpoint) -> Scores:
    return evaluate(dataset, checkpoint, VIEWS, split="all", num_loaders=0, progress=False)[0]


def assert_same(prediction: Prediction, scores: Scores, key: str) -> None:
    assert prediction.error is None
    assert prediction.scores is not None
    place = scores.keys.index(key)
    np.testing.assert_allclose(
        prediction.scores.probabilities[0], scores.probabilities[place], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("clip", [FLOW, RGB, BIDIRECTIONAL])
def test_prediction_is_that_of_an_extracted_data_set(
    motion: Path, dataset: FlowDataset, others: FlowDataset, clip: ClipSpec
) -> None:
    for data in (dataset, others):
        checkpoint = make_checkpoint(data, clip=clip)
        scores = evaluated(data, checkpoint)
        assert np.ptp(scores.probabilities, axis=0).max() > 0.01
        predictor = Predictor([checkpoint], VIEWS)
        for key in (scores.keys[0], scores.keys[-1]):
            assert_same(predict_one(predictor, video_of(motion, key)), scores, key)
    assert predictor.notes == []


@pytest.mark.parametrize("method", ["mean", "weighted", "logits"])
def test_networks_are_fused(
    motion: Path, dataset: FlowDataset, others: FlowDataset, method: str
) -> None:
    checkpoints = [make_checkpoint(others, clip=RGB), make_checkpoint(dataset, seed=1)]
    expected = fuse_scores(
        [evaluated(others, checkpoints[0]), evaluated(dataset, checkpoints[1])],
        method,  # type: ignore[arg-type]
    )
    predictor = Predictor(checkpoints, VIEWS, method=method)  # type: ignore[arg-type]
    key = dataset.videos[5].key
    assert_same(predict_one(predictor, video_of(motion, key)), expected, key)


def test_top_classes(motion: Path, dataset: FlowDataset) -> None:
    checkpoint = make_checkpoint(dataset)
    prediction = predict_one(
        Predictor([checkpoint], VIEWS), video_of(motion, dataset.videos[0].key)
    )
    top = prediction.top(5)
    assert len(top) == 5
    assert [value for _, value in top] == sorted((value for _, value in top), reverse=True)
    assert {name for name, _ in prediction.top(99)} == set(dataset.class_names)
    assert sum(value for _, value in prediction.top(99)) == pytest.approx(1)


def test_bad_videos_stop_nothing(motion: Path, dataset: FlowDataset, tmp_path: Path) -> None:
    good = video_of(motion, dataset.videos[0].key)
    damaged, text = tmp_path / "damaged.mp4", tmp_path / "text.mp4"
    data = good.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    text.write_text("no video")
    predictor = Predictor([make_checkpoint(dataset)], VIEWS)
    found = [predict_one(predictor, path) for path in (damaged, tmp_path / "no.mp4", text, good)]
    errors = [prediction.error or "" for prediction in found]
    assert errors[0].startswith(("unreadable: ", "damaged: "))
    assert errors[1].startswith("does not exist")
    assert errors[2].startswith("unreadable: ")
    assert errors[3] == ""
    assert [prediction.top(1) for prediction in found[:3]] == [[], [], []]
    assert found[3].scores is not None


def test_folder_is_all_of_its_videos(motion: Path, dataset: FlowDataset, tmp_path: Path) -> None:
    for number in (0, 9):
        key = dataset.videos[number].key
        shutil.copy(video_of(motion, key), tmp_path / f"{number}.mp4")
    predictor = Predictor([make_checkpoint(dataset)], VIEWS)
    found = list(predictor.predict(tmp_path))
    assert [prediction.video for prediction in found] == [
        str(tmp_path / "0.mp4"),
        str(tmp_path / "9.mp4"),
    ]


def test_several_tasks(motion: Path, dataset: FlowDataset, other_motion: Path) -> None:
    checkpoint = make_checkpoint(dataset, open_dataset(other_motion))
    with pytest.raises(ConfigError, match="task must be named"):
        Predictor([checkpoint], VIEWS)
    key = dataset.videos[0].key
    views = {"split": "all", "num_loaders": 0, "progress": False}
    for task in ("motion", "other-motion"):
        scores, _ = evaluate(dataset, checkpoint, VIEWS, task=task, **views)  # type: ignore[arg-type]
        predictor = Predictor([checkpoint], VIEWS, task=task)
        assert_same(predict_one(predictor, video_of(motion, key)), scores, key)


def test_options_that_do_not_fit(dataset: FlowDataset) -> None:
    flow, rgb = make_checkpoint(dataset), make_checkpoint(dataset, clip=RGB)
    (task,) = rgb.tasks
    turned = dataclasses.replace(task, class_names=task.class_names[::-1])
    with pytest.raises(DatasetError, match=r"checkpoint 2 \(motion\) has other classes"):
        Predictor([flow, dataclasses.replace(rgb, tasks=(turned,))], VIEWS)
    with pytest.raises(ConfigError, match="svm needs scores of training videos"):
        Predictor([flow, rgb], VIEWS, method="svm")
    with pytest.raises(ConfigError, match="weights must be one for each of the 2 streams"):
        Predictor([flow, rgb], VIEWS, weights=[1])
    with pytest.raises(ConfigError, match="are for several checkpoints, got one"):
        Predictor([flow], VIEWS, method="logits")
    with pytest.raises(ConfigError, match="once or more"):
        Predictor([], VIEWS)


def test_extractions_are_shared_where_they_are_equal() -> None:
    base = ExtractConfig()
    encode = dataclasses.replace(base.encode, rgb_jpeg_quality=70)
    other_rgb = dataclasses.replace(base, encode=encode)
    other_bound = dataclasses.replace(base, flow=dataclasses.replace(base.flow, bound_px=9.0))
    other_fps = dataclasses.replace(base, decode=dataclasses.replace(base.decode, fps=9.0))

    (config,), places = plan_extractions([(base, "flow", "plain")])
    assert places == [0]
    assert (config.decode, config.flow) == (base.decode, base.flow)
    assert (config.encode.directions, config.encode.keep_rgb) == (("forward",), False)

    # RGB goes with the flow, at its own quality.
    (config,), places = plan_extractions([(other_rgb, "rgb", "plain"), (base, "flow", "plain")])
    assert places == [0, 0]
    assert config.flow == base.flow
    assert (config.encode.keep_rgb, config.encode.rgb_jpeg_quality) == (True, 70)

    # Alone it takes the fastest flow, and so do its differences.
    (config,), places = plan_extractions(
        [(base, "rgb", "plain"), (base, "rgb-difference", "plain")]
    )
    assert places == [0, 0]
    assert config.flow == FlowSpec("dis")
    assert (config.encode.directions, config.encode.keep_rgb) == (("forward",), True)

    (config,), places = plan_extractions([(base, "flow", "plain"), (base, "flow", "bidirectional")])
    assert places == [0, 0]
    assert config.encode.directions == ("forward", "backward")

    wanted = [(other_bound, "flow"), (base, "flow"), (other_fps, "rgb"), (base, "rgb")]
    configs, places = plan_extractions([(c, stream, "plain") for c, stream in wanted])  # type: ignore[misc]
    assert places == [0, 1, 2, 0]
    assert [c.flow.bound_px for c in configs[:2]] == [9.0, 20.0]
    assert configs[2].decode.fps == 9.0
    both = plan_extractions([(base, "rgb", "plain"), (other_rgb, "rgb", "plain")])
    assert both[1] == [0, 1]


def test_what_is_odd_about_a_video_is_noted(
    dataset: FlowDataset, motion: Path, tmp_path: Path
) -> None:
    key = dataset.videos[0].key
    whole = video_of(motion, key)
    # Two recordings, one after the other, as `cat` joins them.
    part = tmp_path / "part.ts"
    with av.open(str(whole)) as source, av.open(str(part), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(2 * part.read_bytes())
    predictor = Predictor([make_checkpoint(dataset)], VIEWS)
    assert predict_one(predictor, joined).error is None
    assert [note.partition(": ")[0] for note in predictor.notes] == [str(joined)]
    assert "time stamps go back" in predictor.notes[0]
