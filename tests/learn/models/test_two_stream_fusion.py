"""Two-stream fusion: what its towers are alone, what fusions do to them, two answers, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from flowprep.errors import ConfigError, WeightsError
from flowprep.learn.clip_inputs import ClipInput
from flowprep.learn.create import create_model
from flowprep.learn.losses import target_loss
from flowprep.learn.models.base import ClipModel
from flowprep.learn.models.multitask import MultiTask
from flowprep.learn.models.two_stream_fusion import TwoStreamFusion
from flowprep.learn.weights.load import classifier_names
from flowprep.learn.weights.towers import start_from
from tests.learn.weights.states import draw_state, save

BACKBONES = {"vgg16": "relu5_3", "cnn-m-2048": "relu5", "resnet50": "layer4"}
FUSIONS = ("sum", "max", "concat", "conv", "bilinear", "conv3d")
SIDE_PX = 48
WIDTH = 1 / 32


def inputs(num_frames: int = 3) -> tuple[ClipInput, ClipInput]:
    return (
        ClipInput("rgb", "rgb", "volume", num_frames, 4),
        ClipInput("flow", "flow", "volume", num_frames, 4, stack_length=2),
    )


def small(num_frames: int = 3, **options: Any) -> TwoStreamFusion:
    """A small network whose activations neither fade nor grow."""
    torch.manual_seed(0)
    options = {"width": WIDTH, "crop_px": SIDE_PX, "dropout": 0.0, **options}
    model = TwoStreamFusion(inputs(num_frames), 5, **options)
    for layer in [*model.spatial.modules(), *model.temporal.modules()]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return model.eval()


def clips(num_frames: int = 3, num_clips: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    size = (num_frames, SIDE_PX, SIDE_PX)
    return torch.randn(num_clips, 3, *size), torch.randn(num_clips, 4, *size)


def up_to(tower: ClipModel, name: str, x: torch.Tensor) -> torch.Tensor:
    for layer in tower.layers:
        x = layer.run(tower, x)
        if layer.name == name:
            return x
    raise AssertionError(name)


def above(tower: ClipModel, name: str, x: torch.Tensor) -> torch.Tensor:
    names = [layer.name for layer in tower.layers]
    for layer in tower.layers[names.index(name) + 1 :]:
        x = layer.run(tower, x)
    return x


@torch.no_grad()
@pytest.mark.parametrize("network", BACKBONES)
def test_the_layers_of_a_backbone_are_the_backbone(network: str) -> None:
    options: dict[str, Any] = {"num_classes": 5, "width": WIDTH, "crop_px": SIDE_PX}
    model = create_model(network, stream="flow", **options).eval()
    clip = torch.randn(2, 20, SIDE_PX, SIDE_PX)

    assert torch.equal(up_to(model, model.layers[-1].name, clip), model(clip))
    assert torch.equal(up_to(model, model.layers[-2].name, clip), model.extract_features(clip))
    # Each weight belongs to one layer.
    prefixes = [f"{name}." for layer in model.layers for name in layer.modules]
    for name, _ in model.named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1


@torch.no_grad()
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_kept_tower_gives_the_logits_that_it_gives_alone(backbone: str, fusion: str) -> None:
    model = small(1, backbone=backbone, fusion=fusion)
    frames, fields = clips(1)

    answers = model.answer(model.extract_features(frames, fields))

    assert answers.shape == (2, 2, 5)
    torch.testing.assert_close(answers[:, 1], model.temporal(fields[:, :, 0]))
    torch.testing.assert_close(model(frames, fields), answers.mean(1))
    # And the other one sees both.
    changed = model.answer(model.extract_features(frames, fields.flip(0)))
    assert not torch.allclose(changed[:, 0], answers[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fusion", ["sum", "conv3d"])
def test_the_fused_answer_layer_by_layer(backbone: str, fusion: str) -> None:
    """Towers, fusion, the maximum over 2 x 2 x T or what the backbone has, the layers above."""
    model = small(backbone=backbone, fusion=fusion)
    frames, fields = clips()
    name = BACKBONES[backbone]

    maps = []
    for tower, x in ((model.spatial, frames), (model.temporal, fields)):
        each = [up_to(tower, name, x[:, :, t]) for t in range(3)]
        maps.append(torch.stack(each, 2))  # (N, C, T, H, W)
    fused = maps[0] + maps[1] if fusion == "sum" else model.fusion[name](*maps)
    wanted = torch.stack(
        [
            above(model.spatial, name, fused.amax(2)),
            above(model.temporal, name, maps[1].amax(2)),
        ],
        1,
    )

    torch.testing.assert_close(model.answer(model.extract_features(frames, fields)), wanted)
    if backbone == "vgg16":
        pooled = F.max_pool3d(fused, (3, 2, 2))[:, :, 0]
        pool5 = model.spatial.get_submodule("features.30")
        torch.testing.assert_close(pool5(fused.amax(2)), pooled)


@torch.no_grad()
@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        *(("resnet50", "layer1"), ("resnet50", "layer4"), ("vgg16", "relu3_1")),
        *(("vgg16", "fc6"), ("vgg16", "fc7"), ("cnn-m-2048", "relu4")),
    ],
)
def test_concat_begins_as_the_mean_of_both_maps(backbone: Any, name: str) -> None:
    """Where no maximum lies between: that of a mean is not the mean of two."""
    models = []
    for fusion in ("sum", "concat"):
        torch.manual_seed(0)
        options: dict[str, Any] = {"fusion": fusion, "fusion_layers": name, "towers": 1}
        models.append(
            TwoStreamFusion(
                inputs(1), 5, backbone=backbone, width=WIDTH, crop_px=SIDE_PX, **options
            ).eval()
        )
    plain, wide = models
    frames, fields = clips(1)

    maps = up_to(plain.spatial, name, frames[:, :, 0]), up_to(plain.temporal, name, fields[:, :, 0])

    wanted = above(plain.spatial, name, (maps[0] + maps[1]) / 2)
    torch.testing.assert_close(wide(frames, fields), wanted)


@torch.no_grad()
def test_without_pooling_over_time_frames_are_averaged_above() -> None:
    model = small(fusion="max", pool_over_time=False)
    frames, fields = clips()

    alone = [model(frames[:, :, t : t + 1], fields[:, :, t : t + 1]) for t in range(3)]

    torch.testing.assert_close(model(frames, fields), torch.stack(alone).mean(0))


@torch.no_grad()
def test_several_layers_and_scores_are_fused() -> None:
    model = small(1, backbone="cnn-m-2048", fusion="conv", fusion_layers="fc8,relu5")
    assert list(model.fusion) == ["relu5", "fc8"]
    frames, fields = clips(1)
    left, right = model.spatial, model.temporal

    maps = [up_to(left, "relu5", frames[:, :, 0]), up_to(right, "relu5", fields[:, :, 0])]
    fused = 0.25 * maps[0] + 0.75 * maps[1]
    scores = [above(left, "relu5", fused), above(right, "relu5", maps[1])]
    wanted = 0.25 * scores[0] + 0.75 * scores[1]

    torch.testing.assert_close(
        model.answer(model.extract_features(frames, fields)), torch.stack([wanted, scores[1]], 1)
    )
    alone = small(1, backbone="cnn-m-2048", fusion="conv", fusion_layers="relu5,fc8", towers=1)
    alone.load_state_dict(model.state_dict())
    torch.testing.assert_close(alone(frames, fields), wanted)


@pytest.mark.parametrize("towers", [1, 2])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_learns_from_the_sum_of_the_losses(
    backbone: str, fusion: str, towers: int
) -> None:
    model = small(fusion=fusion, backbone=backbone, towers=towers).train()
    labels = torch.tensor([0, 3])

    logits = model(*clips())
    weights = model.answer_weights(2) if towers == 2 else None
    loss = target_loss([logits], [labels], [2], answer_weights=weights)
    loss.backward()

    each = logits.unbind(1) if towers == 2 else [logits]
    wanted = sum(F.cross_entropy(one, labels) for one in each)
    torch.testing.assert_close(loss, torch.as_tensor(wanted))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"fusion": "bilinear"}, {"fusion_layers": "fc8"}])
def test_a_new_classifier_is_that_of_both_towers(options: dict[str, Any]) -> None:
    options = {"fusion": "conv", **options}
    model = small(**options).double()
    network = MultiTask(model, [3, 4])
    features = network.extract_features(*(clip.double() for clip in clips()))

    assert [one.shape for one in network.classify(features)] == [(2, 3), (2, 4)]
    assert [one.shape for one in network.train()(*(clip.double() for clip in clips()))] == [
        (2, 2, 3),
        (2, 2, 4),
    ]
    assert {"spatial", "temporal", "fc", "fusion"} > {
        name.partition(".")[0] for name in classifier_names(model)
    }


def test_stages_are_all_but_the_classifier() -> None:
    for backbone in BACKBONES:
        for fusion in ("concat", "conv3d"):
            model = small(backbone=backbone, fusion=fusion)
            staged = tuple(f"{name}." for stage in model.stages for name in stage)
            rest = {name for name in model.state_dict() if not name.startswith(staged)}
            assert rest == classifier_names(model)
            if fusion == "conv3d":
                assert model.stages[5] == (f"fusion.{BACKBONES[backbone]}",)


def test_what_cannot_be_fused_is_refused() -> None:
    for options, message in (
        ({"fusion_layers": "relu6"}, r"fusion_layers must be one or several of relu1_1, .*'relu6'"),
        ({"fusion": "bilinear", "fusion_layers": "fc6"}, r"must be one of relu1_1, .* relu5_3 for"),
        ({"fusion": "bilinear", "fusion_layers": "relu5_2,relu5_3"}, "must be one of"),
        ({"fusion": "concat", "fusion_layers": "fc8"}, "fc7 for fusion concat"),
        ({"fusion_layers": "relu5_3,relu5_3"}, "must be one or several"),
        ({"towers": 3}, "towers must be 1 or 2, got 3"),
        ({"backbone": "resnet18"}, "backbone"),
        ({"fusion": "early"}, "fusion"),
    ):
        with torch.device("meta"), pytest.raises(ConfigError, match=message):
            create_model("two-stream-fusion", stream="both", num_classes=5, **options)


# ---- weights of towers


def tower_states(backbone: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    options: dict[str, Any] = {"num_classes": 5, "width": WIDTH, "crop_px": SIDE_PX}
    frames = create_model(backbone, stream="rgb", **options)
    fields = create_model(backbone, stream="flow", num_frames=2, **options)
    return draw_state(frames), draw_state(fields)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_files_start_the_towers(tmp_path: Path, backbone: str) -> None:
    frames, fields = tower_states(backbone)
    paths = [save(frames, tmp_path / "a.safetensors"), save(fields, tmp_path / "b.safetensors")]
    model = small(backbone=backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    report = start_from(model, f"{paths[0]},{paths[1]}")

    state = model.state_dict()
    for tower, own in (("spatial", frames), ("temporal", fields)):
        for name, value in own.items():
            assert torch.equal(state[f"{tower}.{name}"], value), name
    fusion = [name for name in state if name.startswith("fusion.")]
    assert all(torch.equal(state[name], before[name]) for name in fusion)
    assert sorted(report.missing) == sorted(fusion)
    assert len(report.loaded) == len(frames) + len(fields)
    assert not report.converted
    assert not report.unexpected


@pytest.mark.parametrize("fusion", ["concat", "bilinear"])
def test_one_file_starts_both_towers_as_far_as_they_go(tmp_path: Path, fusion: str) -> None:
    frames, _ = tower_states("vgg16")
    model = small(fusion=fusion, towers=1)

    report = start_from(model, save(frames, tmp_path / "a.safetensors"))

    state = model.state_dict()
    first = frames["features.0.weight"]
    assert torch.equal(state["spatial.features.0.weight"], first)
    mean = first.mean(1, keepdim=True).expand(-1, 4, -1, -1)
    assert torch.equal(state["temporal.features.0.weight"], mean)
    assert "cross-modality" in report.converted["temporal.features.0.weight"]
    assert "classifier.6.weight" in report.unexpected
    if fusion == "concat":
        wide = state["spatial.classifier.0.weight"]
        assert torch.equal(wide, torch.cat([frames["classifier.0.weight"]] * 2, 1) / 2)
        assert "mean of two maps" in report.converted["spatial.classifier.0.weight"]


def test_weights_of_the_whole_network_load_as_ever(tmp_path: Path) -> None:
    model = small()
    state = draw_state(small())

    report = start_from(model, save(state, tmp_path / "a.safetensors"))

    assert len(report.loaded) == len(state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    frames, fields = tower_states("vgg16")
    paths = [save(frames, tmp_path / "a.safetensors"), save(fields, tmp_path / "b.safetensors")]
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    with pytest.raises(WeightsError, match=r"features\.0\.weight"):
        start_from(model, f"{paths[1]},{paths[0]}")
    with pytest.raises(WeightsError, match=r"one file, or 2 with commas .* spatial and temporal"):
        start_from(model, ",".join(map(str, [*paths, paths[0]])))

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
