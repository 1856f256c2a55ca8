"""Entries, the files of networks, the options of the command line and the page say the same."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn import create_model, models
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions
from flowprep.learn.network_options import NonLocalOptions, TSNOptions
from flowprep.learn.networks import NETWORKS, clip_inputs, make_options
from flowprep.learn.recipes import RECIPES, default_config
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from tests.learn.networks_table import tables, written_tables
from tests.learn.two_towers import two_towers

__all__ = ["two_towers"]

NO_NETWORKS = {"__init__", "base", "cost", "motion", "multitask", "per_frame"}
"""Files of `flowprep.learn.models` that hold no network."""


def test_each_network_has_a_file_and_each_file_an_entry() -> None:
    built = {Path(inspect.getfile(entry.build())).stem for entry in NETWORKS.values()}
    (folder,) = models.__path__
    assert built == {path.stem for path in Path(folder).glob("*.py")} - NO_NETWORKS


def test_the_page_has_every_network() -> None:
    assert written_tables() == tables(), "run: python -m tests.learn.networks_table"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_what_its_entry_says(name: str) -> None:
    entry = NETWORKS[name]
    for stream, published in entry.inputs.items():
        with torch.device("meta"):
            model = create_model(name, stream=stream, num_classes=3)
        assert model.inputs == clip_inputs(name, stream) == published
        assert model.joins_segments == (entry.sees == "segments")
        assert len({one.name for one in published}) == len(published)
    assert entry.sees == "segments" or entry.num_segments == 1
    assert entry.recipe is None or entry.recipe in RECIPES


def test_options_have_names_of_their_own() -> None:
    """An option of a network must not be one of all networks, which the command line has too."""
    shared = {
        item.name
        for kind in (TrainConfig, ModelSpec, ClipSpec, AugmentSpec, OptimizationSpec, TrainOptions)
        for item in dataclasses.fields(kind)
    }
    for entry in NETWORKS.values():
        assert not shared & {item.name for item in dataclasses.fields(entry.options)}


def test_options_are_those_of_the_network() -> None:
    assert make_options("tsn-resnet18", {"consensus": "max"}) == TSNOptions("max")
    assert make_options("i3d-resnet50", {}) == NonLocalOptions()
    # Another network's default says nothing, as in what was stored when options stood together.
    assert make_options("i3d-resnet50", {"consensus": "avg"}) == NonLocalOptions()
    with pytest.raises(
        ConfigError, match=r"consensus does not apply to i3d, got 'max'; .* choose tsn-"
    ):
        make_options("i3d", {"consensus": "max"})
    with pytest.raises(
        ConfigError, match=r"colour does not apply to i3d, got 'red'; leave it out$"
    ):
        make_options("i3d", {"colour": "red"})


def test_options_follow_the_model() -> None:
    assert ModelSpec("tsn-resnet18").options == TSNOptions()
    spec = ModelSpec("tsn-resnet18", options=TSNOptions("max"))
    assert dataclasses.replace(spec, model="tsn-resnet50").options == TSNOptions("max")
    with pytest.raises(ConfigError, match="consensus does not apply to i3d, got 'max'"):
        dataclasses.replace(spec, model="i3d")


def test_frames_and_stride_are_the_first_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_fast = (
        ClipInput("slow", "rgb", "volume", 8, 8),
        ClipInput("fast", "rgb", "volume", 32, 2),
        ClipInput("one", "rgb", "stack", 1),
    )
    entry = dataclasses.replace(NETWORKS["i3d"], inputs={"rgb": slow_fast})
    monkeypatch.setitem(NETWORKS, "slow-fast", entry)

    assert clip_inputs("slow-fast", "rgb") == slow_fast
    slow, fast, one = clip_inputs("slow-fast", "rgb", num_frames=4, frame_stride=16)
    assert (slow.num_frames, slow.frame_stride) == (4, 16)
    assert (fast.num_frames, fast.frame_stride) == (16, 4)
    assert (one.num_frames, one.frame_stride) == (1, 2)
    (i3d,) = TrainConfig(ModelSpec("i3d"), ClipSpec("rgb", 16, 2)).inputs
    assert i3d == ClipInput("rgb", "rgb", "volume", 16, 2)


def test_a_stream_is_one_that_the_network_takes(two_towers: str) -> None:
    assert [one.stream for one in default_config(two_towers, "both").inputs] == ["flow", "rgb"]
    with pytest.raises(
        ConfigError, match="stream must be flow or rgb or motion for i3d, got 'both'"
    ):
        TrainConfig(ModelSpec("i3d"), ClipSpec("both"))
    for stream in ("flow", "rgb"):
        with pytest.raises(
            ConfigError, match=f"stream must be both or motion for two-towers, got '{stream}'"
        ):
            TrainConfig(ModelSpec(two_towers), ClipSpec(stream, 1))
