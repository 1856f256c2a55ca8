"""Where a network looks, and which moments count, in clips where this is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flowprep.config import RunOptions
from flowprep.errors import ConfigError
from flowprep.inputs.manifest import collect_videos
from flowprep.learn.checkpoint import Checkpoint
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.seeing.explain import Explainer
from flowprep.learn.seeing.specs import ExplainSpec
from flowprep.run.driver import run_extract
from flowprep.synthetic import Layer, Motion, Scene, Shape, write_video
from tests.learn.seeing.trained import EXTRACT, learned
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

SIDE = 128
RADIUS_PX = 22
NUM_FRAMES = 16
SPEC = ExplainSpec(num_clips=4, num_crops=1, num_moments=4, steps=4)


def disc(sign: int, seed: int, start: tuple[float, float] | None = None) -> Scene:
    """A disc that moves over a still background; its direction is all that tells the classes."""
    rng = np.random.default_rng(seed)
    place = tuple(rng.uniform(24, SIDE - 24, 2)) if start is None else start
    motion = Motion(offset_px=place, velocity_px=(3.0 * sign, 0.0))
    layers = (Layer(7 + seed), Layer(99 + seed, (motion,), Shape(0, 0, RADIUS_PX), 1.2))
    return Scene(SIDE, SIDE, layers)


@pytest.fixture(scope="module")
def network() -> Checkpoint:
    config = TrainConfig(ModelSpec("resnet18", width=0.125), ClipSpec("flow", 4, crop_px=SIDE))
    scenes = [[disc(sign, seed) for seed in range(12)] for sign in (-1, 1)]
    return learned(config, ("left", "right"), scenes, 20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`moving.mp4`: a disc that moves to the left; `half.mp4`: for the first half of the time."""
    root = tmp_path_factory.mktemp("discs")
    (root / "videos").mkdir()
    moving = disc(-1, 40, (88.0, 40.0))
    write_video(root / "videos/moving.mp4", (moving.frame(t) for t in range(NUM_FRAMES)))
    frames = (moving.frame(min(t, NUM_FRAMES // 2)) for t in range(NUM_FRAMES))
    write_video(root / "videos/half.mp4", frames)
    manifest = collect_videos(root / "videos")
    report = run_extract(manifest, str(root / "flow"), EXTRACT, RunOptions(executor="inline"))
    assert report.is_complete
    return root


def test_heat_lies_on_the_object(network: Checkpoint, root: Path) -> None:
    explainer = Explainer([network], SPEC, class_name="left", device="cpu")
    with explainer.explained(root / "flow", "moving") as found:
        (one,) = found.networks
        (heat,) = one.heats
    assert heat.streams == ("flow",)
    grid = 96  # the longer side of a heat
    assert heat.values.shape == (NUM_FRAMES, grid, grid)
    assert np.nanmax(heat.values) == 1
    shares, areas = [], []
    for frame in range(2, NUM_FRAMES - 2):
        left, top, right, bottom = (
            round(edge * grid / SIDE)
            for edge in (
                88 - 3 * frame - RADIUS_PX,
                40 - RADIUS_PX,
                88 - 3 * frame + RADIUS_PX,
                40 + RADIUS_PX,
            )
        )
        inside = heat.values[frame, top:bottom, left:right]
        shares.append(inside.sum() / heat.values[frame].sum())
        areas.append(inside.size / grid**2)
    assert np.mean(shares) > 2 * np.mean(areas)


def test_the_half_that_moves_has_the_weight(network: Checkpoint, root: Path) -> None:
    explainer = Explainer([network], SPEC, device="cpu")
    with explainer.explained(root / "flow", "half") as found:
        (one,) = found.networks
    assert (found.class_name, found.is_predicted) == ("left", True)
    assert [moment.first_frame for moment in one.moments] == [0, 4, 8, 12]
    assert one.moments[-1].stop_frame == NUM_FRAMES
    assert sum(moment.share for moment in one.moments) == pytest.approx(1)
    assert sum(moment.share for moment in one.moments[:2]) > 0.75
    assert len(one.weights["flow"]) == NUM_FRAMES


def test_a_file_is_seen_as_the_data_set(network: Checkpoint, root: Path) -> None:
    explainer = Explainer([network], SPEC, class_name="right", device="cpu")
    with explainer.explained(root / "flow", "moving") as found:
        stored = found.networks[0]
    with explainer.explained(root / "videos/moving.mp4") as found:
        computed = found.networks[0]
        assert computed.dataset.config.encode.keep_rgb
        assert not found.is_predicted
    assert computed.probability == pytest.approx(stored.probability, abs=1e-5)
    np.testing.assert_allclose(computed.weights["flow"], stored.weights["flow"], atol=1e-5)


def test_mistakes(network: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="class must be one of left, right, got 'up'"):
        Explainer([network], SPEC, class_name="up", device="cpu")
    with pytest.raises(ConfigError, match="num_crops must be 1 or 3, got 5"):
        dataclasses.replace(SPEC, num_crops=5)
