"""A network of flow and RGB together: trained, gone on with, tested and asked about a video."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigMismatchError
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.learn.config import ModelSpec, OptimizationSpec, TrainOptions, ViewSpec
from flowprep.learn.evaluate import evaluate
from flowprep.learn.predict import Predictor
from flowprep.learn.recipes import default_config
from flowprep.learn.train import train
from tests.learn.late_fusion import LateFusion, late_fusion
from tests.torch_devices import one_thread

__all__ = ["late_fusion", "one_thread"]

QUIET = TrainOptions(num_loaders=0, device="cpu", log_every=1, tensorboard=False)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


def test_a_network_of_both_streams_from_end_to_end(
    dataset: FlowDataset, motion: Path, tmp_path: Path, late_fusion: str
) -> None:
    config = default_config(late_fusion, "both")
    config = dataclasses.replace(
        config,
        model=ModelSpec(late_fusion, width=0.0625, dropout=0.0),
        clip=dataclasses.replace(config.clip, num_frames=6, crop_px=32),
        optimization=OptimizationSpec(8, num_steps=4, learning_rate=0.05),
    )
    assert [one.shape(32) for one in config.inputs] == [(12, 32, 32), (3, 32, 32)]

    report = train([dataset], tmp_path, config, QUIET)

    assert (report.num_new_steps, report.num_videos) == (4, 16)
    last = load_checkpoint(tmp_path / "last.pt")
    assert last.config == config
    # What is learnt of each stream moved.
    torch.manual_seed(config.seed)
    fresh = LateFusion(config.inputs, 8, width=0.0625).state_dict()
    for stream in (0, 1):
        name = f"streams.{stream}.layer4.1.conv2.weight"
        assert not torch.equal(last.model[name], fresh[name])
    assert train([dataset], tmp_path, config, QUIET).num_new_steps == 0
    other = dataclasses.replace(config, clip=dataclasses.replace(config.clip, num_frames=4))
    with pytest.raises(ConfigMismatchError, match="num_frames"):
        train([dataset], tmp_path, other, QUIET)

    scores, _ = evaluate(dataset, last, ViewSpec(3, 5), device="cpu", num_loaders=0)
    assert scores.stream == "both"
    assert scores.logits.shape == (8, 8)
    predictor = Predictor([last], ViewSpec(3, 5), device="cpu")
    video = next(one for one in dataset.videos if one.key == scores.keys[0])
    (path,) = (motion.parent / "videos").rglob(f"{Path(video.key).name}.*")
    (prediction,) = predictor.predict(path)
    assert prediction.scores is not None
    # The same clips of the same video, extracted anew.
    assert prediction.scores.logits[0] == pytest.approx(scores.logits[0], rel=1e-4, abs=1e-5)


def test_both_streams_are_extracted_once(late_fusion: str) -> None:
    from flowprep.learn.predict import plan_extractions

    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    wanted = [(config, stream, "plain") for stream in ("flow", "rgb", "both")]
    (joined,), places = plan_extractions(wanted)  # type: ignore[arg-type]
    assert places == [0, 0, 0]
    assert joined.encode.keep_rgb
