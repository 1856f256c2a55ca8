"""Published recipes as one table, and what data has otherwise than they say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any, get_args

import pytest

from flowprep import DecodeSpec, FlowSpec
from flowprep.config import CenterCrop, ExtractConfig, Resize
from flowprep.errors import ConfigError, ConfigMismatchError
from flowprep.flow.parameters import OpenCVTVL1Parameters, TVL1Parameters
from flowprep.learn.clip_inputs import RecipeName, StreamName
from flowprep.learn.networks import NETWORKS, clip_inputs
from flowprep.learn.recipe_check import check_extraction, data_differences
from flowprep.learn.recipes import RECIPES, recipe_clip, stream_recipe, training_config
from flowprep.learn.trainings import TRAININGS
from flowprep.learn.weights.formats import FOREIGN
from flowprep.presets import PRESETS
from tests.learn.recipes_table import table, written_table

STREAMS = [(name, stream) for name in RECIPES for stream in RECIPES[name].streams]


def test_the_page_has_every_recipe() -> None:
    assert written_table() == table(), "run: python -m tests.learn.recipes_table"


def test_every_name_has_a_recipe_for_networks_that_exist() -> None:
    assert set(RECIPES) == set(get_args(RecipeName))
    for recipe in RECIPES.values():
        assert recipe.networks
        assert set(recipe.networks) <= set(NETWORKS)


def test_weights_of_others_name_recipes_for_their_networks() -> None:
    for name, form in FOREIGN.items():
        for recipe in form.recipes:
            assert recipe in RECIPES, name
            assert set(form.networks) & set(RECIPES[recipe].networks), name  # type: ignore[index]


@pytest.mark.parametrize(("name", "stream"), STREAMS)
def test_a_recipe_fits_its_networks(name: RecipeName, stream: StreamName) -> None:
    recipe = RECIPES[name].streams[stream]
    assert recipe.clip.stream == stream
    assert recipe.preset in PRESETS
    assert recipe.training == TRAININGS.get(name, {}).get(stream)
    for model in RECIPES[name].networks:
        clip = recipe_clip(name, stream, model)
        first, *_ = clip_inputs(model, stream, clip.num_frames, clip.frame_stride)
        assert first.form == recipe.form
        assert (clip.num_segments == 1) == (NETWORKS[model].sees == "clip")
    config = training_config(name, stream)
    assert config.model.model in RECIPES[name].networks
    if recipe.training is None:
        assert config.clip == recipe_clip(name, stream, config.model.model)
    else:
        assert config == recipe.training


def test_a_stream_that_a_recipe_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="stream must be flow for recipe vmz, got 'rgb'"):
        stream_recipe("vmz", "rgb")
    with pytest.raises(ConfigError, match="stream must be rgb for recipe torchvision-video, got"):
        training_config("torchvision-video", "flow")


def test_recipes_load_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, flowprep.learn.recipes; "
        "sys.exit(bool({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- differences


@pytest.mark.parametrize(("name", "stream"), STREAMS)
def test_data_of_the_own_preset_is_as_the_recipe_says(name: RecipeName, stream: StreamName) -> None:
    assert data_differences(name, stream, RECIPES[name].streams[stream].extract) == {}


TSN = PRESETS["tsn"]

CHANGES: list[tuple[str, dict[str, Any], dict[str, tuple[Any, Any]]]] = [
    ("decode", {"fps": 10.0}, {"decode.fps": (10.0, None)}),
    ("decode", {"resize": Resize.parse("short:256")}, {"decode.resize": ("short:256", "340x256")}),
    ("decode", {"crop": CenterCrop(224, 224)}, {"decode.crop": ("224", None)}),
    ("decode", {"square_pixels": True}, {"decode.square_pixels": (True, False)}),
    ("decode", {"interpolation": "area"}, {"decode.interpolation": ("area", "bilinear")}),
    ("decode", {"decoder": "decord", "on_damage": "cut", "allow_upscale": False}, {}),
    ("flow", {"bound_px": 15.0}, {"flow.bound_px": (15.0, 20.0)}),
    ("flow", {"step": 2}, {"flow.step": (2, 1)}),
    ("flow", {"quantizer": "floor"}, {"flow.quantizer": ("floor", "round")}),
    (
        "flow",
        {"parameters": TVL1Parameters(warps=3, median_filtering=1)},
        {"flow.parameters.warps": (3, 5)},
    ),
    # How the stop rule is followed, and whose code it is, changes no number on purpose.
    ("flow", {"parameters": TVL1Parameters(median_filtering=1, stop="exact")}, {}),
    (
        "flow",
        {"algorithm": "tvl1-opencv", "parameters": OpenCVTVL1Parameters(median_filtering=1)},
        {},
    ),
    (
        "flow",
        {"algorithm": "tvl1-opencv", "parameters": OpenCVTVL1Parameters()},
        {"flow.parameters.median_filtering": (5, 1)},
    ),
    ("encode", {"jpeg_quality": 80, "keep_rgb": False, "videos_per_shard": 3}, {}),
]


@pytest.mark.parametrize(("room", "values", "expected"), CHANGES)
def test_each_difference_is_found_with_both_values(
    room: str, values: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    changed = dataclasses.replace(TSN, **{room: dataclasses.replace(getattr(TSN, room), **values)})
    assert data_differences("tsn", "flow", changed) == expected
    # Networks over frames do not see the flow.
    seen = {} if room == "flow" else expected
    assert data_differences("tsn", "rgb", changed) == seen


def test_another_algorithm_is_one_line() -> None:
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis", bound_px=10))
    with pytest.raises(ConfigMismatchError) as caught:
        check_extraction("vmz", config, "OUT", stream="flow")
    assert str(caught.value).splitlines() == [
        "OUT is not like the data of recipe vmz, by which the weights were trained:",
        "  decode.resize: none here, 171x128 in the recipe",
        "  decode.crop: nothing here, 112 in the recipe",
        "  decode.interpolation: area here, bilinear in the recipe",
        "  flow.algorithm: dis here, farneback in the recipe (and with it 8 parameters)",
        "  flow.bound_px: 10 here, 20.0 in the recipe",
        "Extract the videos with --preset vmz, name another recipe with --recipe, or add --force "
        "to go on all the same.",
    ]
    notes = check_extraction("vmz", config, "OUT", stream="flow", force=True)
    assert len(notes) == 5
    assert notes[1] == "not as in recipe vmz: decode.crop: nothing here, 112 in the recipe"
    assert check_extraction("vmz", PRESETS["vmz"], "OUT", stream="flow") == []


def test_what_nobody_knows_of_imported_data_does_not_count() -> None:
    config = ExtractConfig(
        DecodeSpec(resize=Resize.parse("none")), FlowSpec("tvl1", quantizer="floor")
    )
    unknown = ("flow.algorithm", "flow.parameters", "decode")
    assert data_differences("tsn", "flow", config, unknown) == {
        "flow.quantizer": ("floor", "round")
    }
