"""Weights of others: their names, their numbers in our networks, and what is told of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.errors import WeightsError
from flowprep.learn.clip_inputs import StreamName
from flowprep.learn.create import create_model
from flowprep.learn.networks import NETWORKS
from flowprep.learn.weights.foreign import BGR_TO_RGB, SQUEEZED
from flowprep.learn.weights.formats import FOREIGN, find_format
from flowprep.learn.weights.load import load_weights_into
from tests.learn.weights import inceptions, references
from tests.learn.weights.references import Values, digest, draw_values, resnet_shapes
from tests.learn.weights.states import assert_complete, assert_refused

WIDTH = 8
"""Channels of the first layer. The published networks have 64."""
NUM_CLASSES = 5

SEGMENTS = 4


@dataclass(frozen=True)
class Case:
    """A file in another project's format, and the network of ours that it is for."""

    format_name: str
    network: str
    stream: StreamName
    shapes: Callable[[], references.Shapes]
    logits: Callable[[Values, torch.Tensor], torch.Tensor]
    """Of a clip as our network takes it."""
    clip: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    width: float = WIDTH / 64


def _over_segments(
    logits: Callable[[Values, torch.Tensor], torch.Tensor],
) -> Callable[[Values, torch.Tensor], torch.Tensor]:
    """Computes the logits of (N, S, C, H, W): those of each image, averaged."""

    def joined(values: Values, x: torch.Tensor) -> torch.Tensor:
        each = logits(values, x.flatten(0, 1))
        return each.unflatten(0, (len(x), -1)).mean(1)

    return joined


def _resnet_2d(
    format_name: str, network: str, naming: references.Naming, in_channels: int, **how: Any
) -> Case:
    stream: StreamName = "rgb" if in_channels == 3 else "flow"
    options: dict[str, Any] = {"temporal_pool": True} if how.get("pools_time") else {}
    if "shift_over" in how:
        options["num_segments"] = SEGMENTS
    return Case(
        format_name,
        network,
        stream,
        lambda: resnet_shapes(naming, in_channels, NUM_CLASSES, WIDTH, None),
        _over_segments(lambda values, x: references.resnet_logits(values, naming, x, **how)),
        (2, SEGMENTS, in_channels, 64, 64),
        options,
    )


def _slow(format_name: str, naming: references.Naming, in_channels: int) -> Case:
    return Case(
        format_name,
        "slow-4x16",
        "rgb" if in_channels == 3 else "flow",
        lambda: resnet_shapes(naming, in_channels, NUM_CLASSES, WIDTH, references.SLOW_TIME),
        lambda values, x: references.resnet_logits(values, naming, x),
        (2, in_channels, 4, 64, 64),
    )


def _mobilenet_logits(
    before: str, shift_over: int | None
) -> Callable[[Values, torch.Tensor], torch.Tensor]:
    def logits(values: Values, x: torch.Tensor) -> torch.Tensor:
        features = references.mobilenet_features(values, x, before, shift_over)
        classifier = "new_fc" if before else "classifier"
        weight, bias = (values[f"{classifier}.{part}"] for part in ("weight", "bias"))
        return torch.nn.functional.linear(features, weight, bias)

    return logits


CASES = {
    "tsm": _resnet_2d(
        "tsm-resnet",
        "tsm-resnet50",
        references.tsm_naming(shifts=True),
        10,
        shift_over=SEGMENTS,
    ),
    "tsm-tpool": _resnet_2d(
        "tsm-resnet",
        "tsm-resnet50",
        references.tsm_naming(shifts=True, pools_time=True),
        3,
        shift_over=SEGMENTS,
        pools_time=True,
    ),
    "tsm-mobilenet": Case(
        "tsm-mobilenet-v2",
        "tsm-mobilenet-v2",
        "rgb",
        lambda: references.mobilenet_shapes(3, NUM_CLASSES, "base_model.", shifts=True),
        _over_segments(_mobilenet_logits("base_model.", SEGMENTS)),
        (1, SEGMENTS, 3, 64, 64),
        {"num_segments": SEGMENTS},
        1.0,
    ),
    "tsn": _resnet_2d("tsn-resnet", "tsn-resnet50", references.tsm_naming(shifts=False), 10),
    "mobilenet": Case(
        "mobilenet-v2-flat",
        "mobilenet-v2",
        "rgb",
        lambda: references.mobilenet_shapes(3, NUM_CLASSES),
        _mobilenet_logits("", None),
        (2, 3, 64, 64),
        {},
        1.0,
    ),
    "mmaction2-tsn": _resnet_2d("mmaction2-tsn", "tsn-resnet50", references.mmaction2_naming(), 10),
    "mmaction2-tsm": _resnet_2d(
        "mmaction2-tsm",
        "tsm-resnet50",
        references.mmaction2_naming(shifts=True),
        3,
        shift_over=SEGMENTS,
    ),
    "mmaction2-slow": _slow("mmaction2-3d", references.mmaction2_naming(), 2),
    "mmaction1-tsn": _resnet_2d("mmaction1-resnet", "tsn-resnet50", references.MMACTION1, 3),
    "mmaction1-slow": _slow("mmaction1-slow", references.MMACTION1, 3),
    "mmaction1-i3d": Case(
        "mmaction1-i3d",
        "i3d",
        "flow",
        lambda: inceptions.i3d_shapes(2, NUM_CLASSES, 8),
        inceptions.i3d_logits,
        (1, 2, 16, 64, 64),
        {},
        1 / 8,
    ),
    "mmaction1-bn-inception": Case(
        "mmaction1-bn-inception",
        "tsn-bn-inception",
        "flow",
        lambda: inceptions.bn_inception_shapes(10, NUM_CLASSES, 8, row=True),
        _over_segments(inceptions.bn_inception_logits),
        (2, SEGMENTS, 10, 64, 64),
        {},
        1 / 8,
    ),
    "slowfast": _slow("slowfast-slow", references.SLOWFAST, 3),
    "pytorchvideo": _slow("pytorchvideo-slow", references.PYTORCHVIDEO, 3),
}


def write(case: Case, path: Path, **changes: torch.Tensor | None) -> Values:
    """Writes a file as its project does: a state dict among other things. Returns its values."""
    values = draw_values(case.shapes(), seed=3)
    for name, value in changes.items():
        values.pop(name)
        if value is not None:
            values[name] = value
    state = {f"module.{name}": value for name, value in values.items()}
    torch.save({"state_dict": state, "epoch": 50, "arch": "x"}, path)
    return values


def make(case: Case) -> Any:
    return create_model(
        case.network,
        stream=case.stream,
        num_classes=NUM_CLASSES,
        width=case.width,
        dropout=0,
        **case.options,
    )


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_other_project(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    values = write(case, tmp_path / "weights.pth")
    model = make(case)
    report = load_weights_into(model, tmp_path / "weights.pth")
    assert report.format_name == case.format_name
    assert_complete(report, model, set(values))
    assert (report.missing, report.unexpected) == ({}, ())
    clip = torch.randn(case.clip, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        wanted = case.logits(values, clip)
        found = model.eval()(clip)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
