"""`create_model`: names, streams and options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.errors import ConfigError
from flowprep.learn.create import create_model
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.cost import count_macs, count_parameters
from flowprep.learn.models.tsn import TSN
from flowprep.learn.networks import NETWORKS

STREAMS = [
    (name, stream)
    for name, entry in NETWORKS.items()
    for stream in entry.inputs
    if stream != "rgb-difference"
]


def create(name: str, **options: Any) -> ClipModel:
    """A small network of the first stream, which is flow where a network takes it alone."""
    stream, inputs = next(iter(NETWORKS.get(name, NETWORKS["i3d"]).inputs.items()))
    small = {"stream": stream, "num_classes": 5, "width": 0.05, "crop_px": 64}
    if inputs[0].form == "volume":
        # Representation flow computes flow of every fourth frame.
        small["num_frames"] = 16 if name == "representation-flow" else 8
    return create_model(name, **{**small, **options})


def clips(model: ClipModel) -> list[torch.Tensor]:
    segments = (model.num_segments,) if model.mixes_segments else ()
    return [torch.randn(2, *segments, *one.shape(64)) for one in model.inputs]


@pytest.mark.parametrize(("name", "stream"), STREAMS)
@torch.no_grad()
def test_every_network_scores_clips(name: str, stream: str) -> None:
    model = create(name, stream=stream).eval()

    x = clips(model)
    logits = model(*x)

    assert logits.shape == (2, 5)
    assert torch.equal(logits, model.classify(model.extract_features(*x)))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_network_runs_in_bfloat16(name: str) -> None:
    model = create(name).eval()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(*clips(model)).isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_classifier_can_be_replaced(name: str) -> None:
    model = create(name).eval()
    before = set(model.state_dict())

    model.replace_classifier(9)

    assert model(*clips(model)).shape == (2, 9)
    assert set(model.state_dict()) == before


@pytest.mark.parametrize(
    ("name", "stream", "num_frames", "channels"),
    [
        ("resnet18", "flow", None, 20),
        ("resnet18", "flow", 5, 10),
        ("resnet18", "rgb", None, 3),
        ("resnet18", "rgb", 4, 12),
        ("cnn-m-2048", "flow", None, 20),
        ("tsn-resnet18", "flow", None, 10),
        ("tsn-resnet18", "flow", 10, 20),
        ("tsn-resnet18", "rgb", None, 3),
        ("i3d", "flow", 64, 2),
        ("i3d", "rgb", None, 3),
        ("i3d-resnet50", "flow", None, 2),
    ],
)
def test_channels(name: str, stream: str, num_frames: int | None, channels: int) -> None:
    assert create(name, stream=stream, num_frames=num_frames).inputs[0].num_channels == channels


@pytest.mark.parametrize(
    ("name", "stream", "dropout"),
    [
        ("cnn-m-2048", "flow", 0.9),
        ("resnet50", "flow", 0.0),
        ("tsn-resnet50", "flow", 0.7),
        ("tsn-resnet50", "rgb", 0.8),
        ("i3d", "flow", 0.5),
        ("i3d-resnet50", "flow", 0.5),
        ("slow-8x8", "flow", 0.5),
        ("r2plus1d-34", "flow", 0.0),
        ("resnext101-3d", "flow", 0.0),
        ("recurrent-cnn", "flow", 0.5),
        ("i3d-lstm", "rgb", 0.5),
    ],
)
def test_dropout_is_the_papers_unless_given(name: str, stream: str, dropout: float) -> None:
    def rates(model: ClipModel) -> set[float]:
        return {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates(create(name, stream=stream)) == {dropout}
    assert rates(create(name, stream=stream, dropout=0.25)) == {0.25}


def test_only_the_spatial_cnn_m_normalises_twice() -> None:
    def norms(stream: str) -> int:
        model = create("cnn-m-2048", stream=stream)
        calls: list[int] = []
        model.norm.register_forward_hook(lambda *_: calls.append(1))
        model(*clips(model))
        return len(calls)

    assert norms("flow") == 1
    assert norms("rgb") == 2


def test_options_arrive() -> None:
    tsn = create("tsn-resnet18", num_segments=7, consensus="weighted", partial_bn=True)
    plain, with_blocks = (create("i3d-resnet50", non_local=on) for on in (False, True))

    assert isinstance(tsn, TSN)
    assert (tsn.num_segments, tsn.consensus, tsn.partial_bn) == (7, "weighted", True)
    assert count_parameters(with_blocks) > count_parameters(plain)


@pytest.mark.parametrize("name", NETWORKS)
def test_width_scales_the_cost(name: str) -> None:
    half, quarter = create(name, width=0.5), create(name, width=0.25)
    shapes = [tuple(one.shape) for one in clips(half)]

    assert 2.3 < count_macs(half, *shapes) / count_macs(quarter, *shapes) < 4.1
    assert create(name, width=0.001).eval()(*clips(half)).shape == (2, 5)


def test_weights_are_loaded_from_a_file(tmp_path: Path) -> None:
    saved = create("resnet18", stream="rgb")
    path = tmp_path / "resnet18.pth"
    torch.save(saved.state_dict(), path)

    loaded = create("resnet18", stream="rgb", weights=str(path)).state_dict()

    assert all(torch.equal(loaded[name], value) for name, value in saved.state_dict().items())


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"cnn-m-2048, resnet18.*'resnet-18'.*mean resnet18\?"):
        create("resnet-18")
    with pytest.raises(ConfigError, match=r"got 'zzz'$"):
        create("zzz")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("resnet18", "non_local", True),
        ("tsn-resnet18", "non_local", True),
        ("resnet18", "num_segments", 5),
        ("i3d", "consensus", "max"),
        ("cnn-m-2048", "partial_bn", True),
    ],
)
def test_an_option_of_another_network_is_refused(name: str, option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} does not apply to {name}, got {value!r}"):
        create(name, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stream", "depth"),
        ("num_classes", 0),
        ("num_frames", 0),
        ("width", 0.0),
        ("width", float("nan")),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("crop_px", 0),
    ],
)
def test_values_out_of_range_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be .* got"):
        create("resnet18", **{option: value})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in NETWORKS),
        *(("frame-pooling", {"backbone": one}) for one in ("alexnet", "vgg16", "resnet18")),
        *(("two-stream-fusion", {"backbone": one}) for one in ("cnn-m-2048", "resnet50")),
    ],
)
def test_a_crop_that_leaves_no_map_is_refused(name: str, options: dict[str, Any]) -> None:
    stream = next(iter(NETWORKS[name].inputs))

    def score(crop_px: int) -> None:
        network = create_model(
            name, stream=stream, num_classes=5, width=0.05, crop_px=crop_px, **options
        )
        segments = (network.num_segments or 2,) if network.joins_segments else ()
        clips = [torch.empty(1, *segments, *one.shape(crop_px)) for one in network.inputs]
        assert network.eval()(*clips).shape == (1, 5)

    with torch.device("meta"):
        for crop_px in (8, 14, 15, 21, 22, 31, 32, 40, 41, 48, 49, 62, 63):
            try:
                score(crop_px)
            except ConfigError as error:
                found = str(error)
            else:
                found = ""
            assert not found or (found.startswith("crop_px must be") and crop_px < 63)
