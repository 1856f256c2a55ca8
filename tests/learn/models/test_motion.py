"""A network that computes its flow from frames sees what a network over stored flow would."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowprep.config import FlowSpec
from flowprep.errors import ConfigError
from flowprep.flow.tvl1 import TVL1
from flowprep.learn.checkpoint import build_model
from flowprep.learn.clip_inputs import ClipInput, NormalizationName
from flowprep.learn.clips.transforms import normalize_flow, with_magnitude
from flowprep.learn.config import ClipSpec, ModelSpec, TrainConfig
from flowprep.learn.create import create_model
from flowprep.learn.freezing import freeze_part
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.motion import MotionNetwork
from flowprep.learn.motion_spec import MotionSpec
from flowprep.learn.networks import NETWORKS, clip_inputs
from flowprep.learn.normalizations import find_normalization
from flowprep.learn.training_specs import OptimizationSpec
from flowprep.learn.weights.load import load_weights_into
from tests.flow.scenes import gray, moving
from tests.learn.weights.states import draw_state, save
from tests.torch_devices import one_thread

__all__ = ["one_thread"]

SPEC = MotionSpec(motion_iterations=10)


class Seen(ClipModel):
    """A base that keeps what it gets."""

    def __init__(self, *inputs: ClipInput) -> None:
        super().__init__(inputs)
        self.clips: tuple[torch.Tensor, ...] = ()

    def extract_features(self, *clips: torch.Tensor) -> torch.Tensor:
        self.clips = clips
        return torch.zeros(len(clips[0]), 1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return features

    def replace_classifier(self, num_classes: int) -> None:
        pass


def over(base: ClipModel, spec: MotionSpec, normalization: NormalizationName) -> MotionNetwork:
    pairs = [
        dataclasses.replace(one, stream="rgb-pair") if one.stream == "flow" else one
        for one in base.inputs
    ]
    return MotionNetwork(pairs, base, spec, normalization)


def small(name: str = "resnet18", **given: Any) -> ClipModel:
    return create_model(
        name, stream="motion", num_classes=5, width=1 / 16, motion=SPEC, **{"crop_px": 32, **given}
    )


@pytest.mark.parametrize(
    ("flow", "normalization"),
    [
        (ClipInput("flow", "flow", "stack", 3), "tsn"),
        (ClipInput("flow", "flow", "volume", 2), "px"),
        (ClipInput("flow", "flow", "volume", 2, stack_length=2), "vmz"),
        (ClipInput("flow", "flow", "volume", 3, has_magnitude=True), "lrcn"),
    ],
)
@torch.no_grad()
def test_the_base_gets_the_estimators_flow(
    flow: ClipInput, normalization: NormalizationName
) -> None:
    scene = moving(48, 40, (1.2, -0.5))
    count = flow.num_frames * flow.stack_length
    rgb = [scene.frame(t) for t in range(count + 1)]
    rng = np.random.default_rng(0)
    rgb = [np.clip(one + rng.integers(-9, 10, 3), 0, 255).astype(np.uint8) for one in rgb]
    # Far below the flow, so that the bound is seen too.
    spec = dataclasses.replace(SPEC, motion_bound_px=1.0)
    base = Seen(flow)
    network = over(base, spec, normalization)
    pairs = np.concatenate([np.stack(rgb[:-1]), np.stack(rgb[1:])], 3).transpose(0, 3, 1, 2)
    clip = torch.from_numpy(pairs.copy()).float()

    fields = [TVL1(spec.parameters)(gray(a), gray(b)) for a, b in itertools.pairwise(rgb)]
    px = np.stack(fields).transpose(0, 3, 1, 2).clip(-1, 1)
    if flow.has_magnitude:
        px = with_magnitude(px, 1.0)
    expected = torch.from_numpy(normalize_flow(px, normalization, FlowSpec("tvl1", bound_px=1.0)))
    if flow.form == "volume":  # (C, L, H, W), with C of each place
        clip, expected = (
            one.unflatten(0, (flow.num_frames, -1)).flatten(1, 2).transpose(0, 1)
            for one in (clip, expected)
        )
    else:
        clip, expected = clip.flatten(0, 1), expected.flatten(0, 1)

    assert clip.shape == (*network.inputs[0].shape(48)[:-2], 40, 48)
    network.extract_features(torch.stack([clip, clip.flip(-1)]))

    numbers = find_normalization(normalization)
    scale = 1.0 if numbers is None else max(numbers.flow_line(1.0)[0])
    assert base.clips[0].shape == (2, *expected.shape)
    error = (base.clips[0][0] - expected).abs() / scale
    assert error.mean() < 0.01
    assert error.max() < 0.05


@torch.no_grad()
def test_other_inputs_stay_as_they_are() -> None:
    rgb = ClipInput("rgb", "rgb", "stack", 1)
    base = Seen(rgb, ClipInput("flow", "flow", "stack", 1))
    frame, pair = torch.rand(2, 3, 24, 24), torch.rand(2, 6, 24, 24) * 255
    over(base, SPEC, "unit").extract_features(frame, pair)
    assert base.clips[0] is frame
    assert base.clips[1].shape == (2, 2, 24, 24)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("tsm-resnet18", {}),
        ("r2plus1d-18", {"num_frames": 4}),
        ("two-stream-fusion", {}),
        ("lrcn", {"num_frames": 2}),
    ],
)
def test_networks_of_every_kind_compute_their_flow(name: str, given: dict[str, Any]) -> None:
    """Segments, volumes, towers and recurrent ones; on torch's device meta, shapes alone."""
    crop_px = 224 if name == "lrcn" else 64
    with torch.device("meta"):
        network = small(name, crop_px=crop_px, **given).eval()
        lead = (2, network.num_segments or 3) if network.joins_segments else (2,)
        clips = [torch.empty(*lead, *one.shape(crop_px)) for one in network.inputs]
        assert network(*clips).shape == (2, 5)
        assert network.extract_features(*clips).shape[0] == 2


def test_every_network_over_flow_has_the_stream() -> None:
    for name, entry in NETWORKS.items():
        flow = entry.inputs.get("flow") or entry.inputs.get("both")
        assert ("motion" in entry.streams) == (flow is not None)
        if flow is not None:
            assert [one.num_frames for one in clip_inputs(name, "motion")] == [
                one.num_frames for one in flow
            ]


def test_learning_reaches_the_layer() -> None:
    spec = dataclasses.replace(SPEC, motion_learns="shared")
    network = create_model(
        "resnet18", stream="motion", num_classes=3, num_frames=2, width=1 / 16, motion=spec
    )
    assert isinstance(network, MotionNetwork)
    network(torch.rand(2, 12, 32, 32) * 255).square().sum().backward()
    for part in (network.motion, network.base):
        assert all(one.grad is not None for one in part.parameters())
    assert small(num_frames=2).get_parameter("motion.log_tau").requires_grad is False


@pytest.mark.parametrize("name", ["resnet18", "tsn-resnet18"])
def test_weights_for_stored_flow_fit(name: str, tmp_path: Path) -> None:
    flow = create_model(name, stream="flow", num_classes=5, width=1 / 16)
    state = draw_state(flow)
    network = small(name)
    report = load_weights_into(network, save(state, tmp_path / "flow.safetensors"))
    assert isinstance(network, MotionNetwork)
    for tensor, value in network.base.state_dict().items():
        assert torch.equal(value, state[tensor]), tensor
    left = {tensor for tensor in network.state_dict() if tensor.startswith("motion.")}
    assert set(report.missing) == left
    assert set(report.missing.values()) == {"the motion layer, which begins as TV-L1"}

    own = draw_state(network, 1)
    load_weights_into(network, save(own, tmp_path / "own.safetensors"))
    assert torch.equal(network.motion.image_taps, own["motion.image_taps"])


def test_the_layer_is_a_part_of_the_first_stage() -> None:
    network = small()
    freeze_part(network, OptimizationSpec(freeze="1"), 0, 10)
    frozen = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"motion", "base"}
    assert network.get_parameter("base.layer1.0.conv1.weight").requires_grad
    assert not network.get_parameter("base.conv1.weight").requires_grad


# ---- configurations


def test_a_configuration_keeps_the_layer() -> None:
    spec = dataclasses.replace(SPEC, motion_learns="each", motion_warps=2)
    config = TrainConfig(ModelSpec("resnet18", width=1 / 16, motion=spec), ClipSpec("motion", 2))
    again = TrainConfig.from_dict(config.to_dict())
    assert again == config
    network = build_model(again, [4])
    assert isinstance(network, MotionNetwork)
    assert len(network.motion.slope_taps) == 20
    assert network.bound_px == 20


def test_configurations_of_other_streams_are_stored_as_before() -> None:
    config = TrainConfig()
    assert "motion" not in config.to_dict()["model"]
    assert TrainConfig.from_dict(config.to_dict()) == config
    for name, value in (("motion_warps", 2), ("motion_learns", "shared")):
        spec = MotionSpec(**{name: value})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"{name} is for stream motion; with stream rgb"):
            TrainConfig(ModelSpec(motion=spec), ClipSpec("rgb", 1))
