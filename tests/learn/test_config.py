"""Configurations check themselves, survive JSON, and hold what was published."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from flowprep.config import VERSION_1_VALUES
from flowprep.errors import ConfigError
from flowprep.learn.checkpoint import build_model
from flowprep.learn.clip_inputs import InputStream
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig, TrainOptions, ViewSpec
from flowprep.learn.network_options import NonLocalOptions, TSNOptions
from flowprep.learn.networks import NETWORKS
from flowprep.learn.optimization import count_steps, learning_rate
from flowprep.learn.recipes import VIEWS, default_config
from flowprep.learn.training_specs import AugmentSpec, OptimizationSpec
from flowprep.learn.trainings import TRAININGS

CONFIGS = {
    "plain": TrainConfig(),
    **{
        f"{name}-{stream}": config
        for name, streams in TRAININGS.items()
        for stream, config in streams.items()
    },
}


@pytest.mark.parametrize("name", CONFIGS)
def test_json_keeps_everything(name: str) -> None:
    config = CONFIGS[name]
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_was_stored_before_there_were_later_options_is_read() -> None:
    values = TrainConfig().to_dict()
    for part, kind in (("augment", "AugmentSpec"), ("optimization", "OptimizationSpec")):
        for name in VERSION_1_VALUES[kind]:
            del values[part][name]
    assert TrainConfig.from_dict(values) == TrainConfig()


@pytest.mark.parametrize("place", [(), ("model",), ("clip",), ("augment",), ("optimization",)])
def test_a_stored_field_too_many_or_too_few_is_refused(place: tuple[str, ...]) -> None:
    def change(edit: Any) -> dict[str, Any]:
        values = TrainConfig().to_dict()
        inner = values
        for name in place:
            inner = inner[name]
        edit(inner)
        return values

    with pytest.raises(ConfigError, match="has no field colour"):
        TrainConfig.from_dict(change(lambda values: values.update(colour="red")))
    with pytest.raises(ConfigError, match="needs"):
        TrainConfig.from_dict(change(lambda values: values.pop(next(iter(values)))))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ModelSpec, {"model": "resnet19"}, "model must be one of cnn-m-2048, .*'resnet19'"),
        (ModelSpec, {"width": 0}, "width must be > 0"),
        (ModelSpec, {"dropout": 1.0}, "dropout must be >= 0 and < 1, got 1"),
        (
            ModelSpec,
            {"model": "resnet18", "options": TSNOptions(partial_bn=True)},
            "partial_bn does not apply to resnet18, got True; .* or choose tsn-resnet18 or",
        ),
        (TSNOptions, {"consensus": "vote"}, "consensus must be one of avg, max, weighted"),
        (ClipSpec, {"num_frames": 0}, "num_frames must be >= 1, got 0"),
        (ClipSpec, {"num_frames": 5, "stack": "bidirectional"}, "num_frames must be even"),
        (ClipSpec, {"frame_stride": 2, "stack": "trajectory"}, "frame_stride must be 1"),
        (ClipSpec, {"crop_px": 4}, "crop_px must be >= 8"),
        (ClipSpec, {"resize_short_px": 128}, "resize_short_px must be >= crop_px, got 128 < 224"),
        (ClipSpec, {"stream": "rgb", "subtract_mean_flow": True}, "is for stream flow"),
        (ClipSpec, {"stream": "rgb", "normalization": "px"}, "px is for stream flow"),
        (ClipSpec, {"channel_order": "mixed"}, "channel_order must be one of interleaved, grouped"),
        (
            ClipSpec,
            {"stream": "rgb", "channel_order": "grouped"},
            "channel_order is for stream flow; .* must be interleaved, got grouped",
        ),
        (
            TrainConfig,
            {"model": ModelSpec("i3d"), "clip": ClipSpec(channel_order="grouped")},
            "channel_order is for networks that take stacks of flow; with i3d it must be interl",
        ),
        (AugmentSpec, {"scales": ()}, "scales must be one or more"),
        (AugmentSpec, {"scales": (1.5,)}, r"scales .* in \(0, 1\]"),
        (AugmentSpec, {"scales": (0.5, 1.0)}, "from large to small"),
        (OptimizationSpec, {"batch_size": 10, "accumulate": 4}, "multiple of accumulate"),
        (OptimizationSpec, {"learning_rate": 0.0}, "learning_rate must be > 0"),
        (OptimizationSpec, {"num_steps": 0}, "num_steps must be >= 1"),
        (OptimizationSpec, {"warmup": 1.0}, "warmup must be >= 0 and < 1"),
        (OptimizationSpec, {"milestones": (0.5,)}, "milestones are for schedule step"),
        (OptimizationSpec, {"milestones": (2.0,), "schedule": "step"}, "between 0 and 1"),
        (OptimizationSpec, {"nesterov": True, "momentum": 0}, "nesterov needs a momentum"),
        (OptimizationSpec, {"clip_gradient_norm": 0.0}, "clip_gradient_norm must be > 0"),
        (TrainOptions, {"num_workers": 0}, "num_workers must be >= 1"),
        (TrainOptions, {"num_loaders": -1}, "num_loaders must be >= 0"),
        (TrainOptions, {"test_every_epochs": 0}, "test_every_epochs must be > 0"),
        (ViewSpec, {"num_crops": 4}, "num_crops must be .* 10, got 4"),
    ],
)
def test_a_broken_rule_names_the_field_and_the_value(
    kind: type[Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    ("model", "stream"),
    [(model, stream) for model in NETWORKS for stream in NETWORKS[model].inputs],
)
def test_every_model_has_a_default_that_can_be_built(model: str, stream: InputStream) -> None:
    config = default_config(model, stream)
    assert (config.model.model, config.clip.stream) == (model, stream)
    small = dataclasses.replace(config, model=dataclasses.replace(config.model, width=0.05))
    network = build_model(small, [5])
    for clip in network.inputs:
        per_frame = 2 + clip.has_magnitude if clip.stream == "flow" else 3
        frames = clip.stack_length if clip.form == "volume" else config.clip.num_frames
        assert clip.num_channels == per_frame * frames


@pytest.mark.parametrize(
    ("recipe", "stream", "rates"),
    [
        # Simonyan and Zisserman 2014, section 5.
        ("two-stream", "flow", {0: 1e-2, 49999: 1e-2, 50000: 1e-3, 70000: 1e-4, 79999: 1e-4}),
        # Wang et al. 2016, section 4.
        ("tsn", "flow", {0: 5e-3, 11999: 5e-3, 12000: 5e-4, 17999: 5e-4, 18000: 5e-5}),
        ("tsn", "rgb-difference", {0: 1e-3, 5900: 1e-3, 6000: 1e-4, 12000: 1e-5}),
        ("tsn", "rgb", {0: 1e-3, 1999: 1e-3, 2000: 1e-4, 4000: 1e-5, 4499: 1e-5}),
    ],
)
def test_recipes_have_the_published_learning_rates(
    recipe: Any, stream: InputStream, rates: dict[int, float]
) -> None:
    spec = TRAININGS[recipe][stream].optimization
    num_steps = count_steps(spec, 9537)
    assert {step: learning_rate(spec, step, num_steps) for step in rates} == pytest.approx(rates)


def test_views_count_what_their_names_say() -> None:
    counts = {name: views.num_clips * views.num_crops for name, views in VIEWS.items()}
    assert counts == {"center": 1, "30": 30, "250": 250}


@pytest.mark.parametrize(
    ("model", "stored", "options"),
    [
        ("i3d-resnet50", {"non_local": True}, NonLocalOptions(True)),
        ("i3d-resnet50", {"non_local": False}, NonLocalOptions()),
        ("i3d", {}, NonLocalOptions()),
    ],
)
def test_options_that_came_later_have_the_values_of_before(
    model: str, stored: dict[str, Any], options: NonLocalOptions
) -> None:
    values = TrainConfig(ModelSpec(model)).to_dict()
    values["model"]["options"] = stored

    config = TrainConfig.from_dict(json.loads(json.dumps(values)))

    assert config.model.options == options
    # What one of them means was five embedded Gaussians at SlowFast's places.
    assert (
        dataclasses.asdict(options).items()
        >= {
            "non_local_blocks": None,
            "non_local_kind": "embedded-gaussian",
            "non_local_over": "both",
            "non_local_style": None,
        }.items()
    )


def test_configurations_do_without_torch() -> None:
    code = (
        "import sys, flowprep, flowprep.cli, flowprep.learn.config, flowprep.learn.clips.indices, "
        "flowprep.learn.clips.transforms; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("field", ["decay", "label_smoothing", "clip_gradient_norm", "momentum"])
def test_a_stored_number_beyond_all_floats_is_refused(field: str) -> None:
    values = TrainConfig().to_dict()
    values["optimization"][field] = -(10**400)
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(values)
