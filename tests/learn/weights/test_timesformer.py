"""Weights of TimeSformer and of ViT: names, sizes and what attention over time begins with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from flowprep.learn.create import create_model
from flowprep.learn.foreign import foreign_network
from flowprep.learn.models.base import ClipModel
from flowprep.learn.weights.files import read_file
from flowprep.learn.weights.fits import find_fits, make_bare
from flowprep.learn.weights.formats import find_format, format_of
from flowprep.learn.weights.load import load_weights_into
from tests.learn.weights.references import digest
from tests.learn.weights.states import State, assert_complete, assert_same, draw_state

SMALL = {"stream": "rgb", "num_classes": 7, "width": 1 / 24, "crop_px": 48, "num_frames": 4}


def small(attention: str, **options: Any) -> ClipModel:
    """Returns a network of 32 channels over 4 frames of 3 x 3 patches."""
    return create_model("timesformer", attention=attention, **{**SMALL, **options})


# ---- names, written from the projects' sources


def facebook_name(name: str, attention: str) -> str:
    """facebookresearch/TimeSformer, models/vit.py."""
    return f"model.{re.sub(r'^fc', 'head', name)}"


def timm_name(name: str, attention: str) -> str:
    return re.sub(r"^fc", "head", name)


def hugging_face_name(name: str, attention: str) -> str:
    """huggingface/transformers, models/timesformer/modeling_timesformer.py."""
    for pattern, theirs in {
        r"^cls_token": "embeddings.cls_token",
        r"^pos_embed": "embeddings.position_embeddings",
        r"^time_embed": "embeddings.time_embeddings",
        r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
        r"^norm": "layernorm",
        r"^blocks": "encoder.layer",
        r"temporal_attn\.qkv": "temporal_attention.attention.qkv",
        r"temporal_attn\.proj": "temporal_attention.output.dense",
        "temporal_norm1": "temporal_layernorm",
        "temporal_fc": "temporal_dense",
        r"\.attn\.qkv": ".attention.attention.qkv",
        r"\.attn\.proj": ".attention.output.dense",
        r"\.norm1": ".layernorm_before",
        r"\.norm2": ".layernorm_after",
        r"mlp\.fc1": "intermediate.dense",
        r"mlp\.fc2": "output.dense",
    }.items():
        name = re.sub(pattern, theirs, name)
    return re.sub(r"^fc", "classifier", name) if name[:2] == "fc" else f"timesformer.{name}"


def mmaction2_name(name: str, attention: str) -> str:
    """open-mmlab/mmaction2, models/backbones/timesformer.py, over mmcv's BaseTransformerLayer."""
    if name.startswith("fc"):
        return f"cls_head.fc_cls{name[2:]}"
    is_divided = attention == "divided"
    space = "attentions.1" if is_divided else "attentions.0"
    for pattern, theirs in {
        r"^patch_embed\.proj": "patch_embed.projection",
        r"^blocks": "transformer_layers.layers",
        r"temporal_attn\.qkv\.": "attentions.0.attn.in_proj_",
        r"temporal_attn\.proj": "attentions.0.attn.out_proj",
        "temporal_norm1": "attentions.0.norm",
        "temporal_fc": "attentions.0.temporal_fc",
        r"\.attn\.qkv\.": f".{space}.attn.in_proj_",
        r"\.attn\.proj": f".{space}.attn.out_proj",
        r"\.norm1": f".{space}.norm" if is_divided else ".norms.0",
        r"\.norm2": ".ffns.0.norm" if is_divided else ".norms.1",
        r"mlp\.fc1": "ffns.0.layers.0.0",
        r"mlp\.fc2": "ffns.0.layers.1",
    }.items():
        name = re.sub(pattern, theirs, name)
    return f"backbone.{name}"


Namer = Callable[[str, str], str]
PROJECTS: dict[str, tuple[Namer, str]] = {
    "facebook-timesformer": (facebook_name, "model_state"),
    "huggingface-timesformer": (hugging_face_name, ""),
    "mmaction2-timesformer": (mmaction2_name, "state_dict"),
}
SUFFIXES = {"divided": "", "joint": "-joint", "space": "-space"}


def write(state: Mapping[str, torch.Tensor], path: Path, key: str = "") -> Path:
    torch.save({key: dict(state)} if key else dict(state), path)
    return path


NAMES_IN_SOURCE = {
    (
        "facebook-timesformer",
        "divided",
    ): "8db7eeee4dd339bf0231960a7842b6c3e94b263cd592a3dc97b0de97312249ba",
    (
        "facebook-timesformer",
        "joint",
    ): "f8dc1cb5abc17d83f1ad7a68572648f29b67440e7fbe1b3ef89129c9d0298a67",
    (
        "facebook-timesformer",
        "space",
    ): "b32031145c7ea1acae06aa67be325f7ff5c051bba63823b3ebbd83642188e32d",
    (
        "huggingface-timesformer",
        "divided",
    ): "5e816823e4915bca9425f3f60794f87926d8855e7ec403b5f44ecad8b7c2343d",
    (
        "huggingface-timesformer",
        "joint",
    ): "c9bec57d12e3c5a0ec94cee00ab66c56f5abd824aa0e1b0c91393a7b3974ea94",
    (
        "huggingface-timesformer",
        "space",
    ): "b119c082903ddd048cafc94be9c5a841d85aea7182b09af2cdf63caf5d68726c",
}
"""SHA-256 of the names and shapes of the state dict that the project's own code made, for 400
classes (29 November 2026, newest versions)."""


@pytest.mark.parametrize(("project", "attention"), NAMES_IN_SOURCE)
def test_names_and_shapes_are_those_of_the_source(project: str, attention: str) -> None:
    state = make_bare("timesformer", "rgb", num_classes=400, options={"attention": attention})
    shapes = {
        PROJECTS[project][0](name, attention): tuple(value.shape)
        for name, value in state.state_dict().items()
    }
    assert digest(sorted(shapes.items())) == NAMES_IN_SOURCE[project, attention]


@pytest.mark.parametrize("attention", SUFFIXES)
@pytest.mark.parametrize("project", PROJECTS)
def test_every_tensor_arrives(tmp_path: Path, project: str, attention: str) -> None:
    rename, key = PROJECTS[project]
    model = small(attention)
    wanted = draw_state(model, 1)
    theirs = {rename(name, attention): value for name, value in wanted.items()}
    path = write(theirs | {"odd": torch.zeros(2)}, tmp_path / "x.pth", key)

    report = load_weights_into(model, path)

    assert report.format_name == project + SUFFIXES[attention]
    assert_same(model.state_dict(), wanted)
    names = set(read_file(path).tensors)
    assert_complete(report, model, names)
    assert report.unexpected == ("odd",)
    assert not report.missing


# ---- published files, by their shapes


def published(project: str, **options: Any) -> State:
    """Returns a file of published sizes on torch's device meta, with other numbers of frames."""
    frames = options.pop("num_frames", None)
    model = make_bare("timesformer", "rgb", num_classes=400, num_frames=frames, options=options)
    attention = options.get("attention", "divided")
    rename = PROJECTS[project][0] if project in PROJECTS else timm_name
    return {rename(name, attention): value for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("project", "options", "num_frames", "recipe"),
    [
        ("facebook-timesformer", {}, None, "timesformer"),
        ("facebook-timesformer", {"size": "hr"}, None, "timesformer-hr"),
        ("huggingface-timesformer", {"size": "long"}, None, "timesformer-long"),
        ("facebook-timesformer", {"attention": "joint"}, None, "timesformer"),
        ("huggingface-timesformer", {"attention": "space"}, None, "timesformer"),
        ("facebook-timesformer", {"num_frames": 64}, 64, "timesformer"),
        ("mmaction2-timesformer", {"attention": "joint"}, None, "mmaction2-timesformer"),
    ],
)
def test_a_file_tells_its_attention_size_frames_and_recipe(
    tmp_path: Path, project: str, options: dict[str, Any], num_frames: int | None, recipe: str
) -> None:
    state = published(project, **options)
    # Values that take no space: a file of one number for each tensor.
    path = write({n: torch.zeros(()).expand(v.shape) for n, v in state.items()}, tmp_path / "x.pth")
    own = {name: value for name, value in options.items() if name != "num_frames"}

    found = foreign_network(path, "timesformer")

    assert (dict(found.fit.options), found.fit.num_frames) == (own, num_frames)
    assert (found.fit.num_classes, found.recipe) == (400, recipe)
    frames, stride, crop = {"hr": (16, 16, 448), "long": (96, 4, 224)}.get(
        own.get("size"), (8, 32, 224)
    )
    clip = found.clip
    assert (clip.num_frames, clip.crop_px) == (num_frames or frames, crop)
    assert (clip.frame_stride, clip.resize_short_px) == (stride, crop)


# ---- what a network begins with


def vit(tmp_path: Path, **options: Any) -> tuple[Path, State]:
    """Writes a ViT of 14 x 14 patches and 1000 classes, with timm's names."""
    model = small("space", num_classes=1000, **options)
    state = draw_state(model, 2)
    return write({timm_name(n, ""): v for n, v in state.items()}, tmp_path / "vit.pth"), state


@pytest.mark.parametrize("attention", ["space", "joint", "divided", "local-global", "axial"])
@torch.no_grad()
def test_vit_begins_every_attention(tmp_path: Path, attention: str) -> None:
    path, state = vit(tmp_path)
    model = small(attention)

    report = load_weights_into(model, path)

    assert report.format_name == "timm-vit"
    own = model.state_dict()
    for name, value in own.items():
        step = re.search(r"\.(temporal|local|width)_(\w+)", name)
        if name.startswith("fc."):
            assert report.missing[name].startswith("a new classifier")
        elif name == "time_embed" or (step and step[2] == "fc"):
            assert not value.any()
            assert "begin" in report.missing[name]
        else:
            other = name.replace(f"{step[1]}_", "") if step else name
            assert torch.equal(value, state[other]), name
            if step:
                assert report.converted[name].endswith("copied")
    assert not {"head.weight", "head.bias"} ^ set(report.unexpected)


@torch.no_grad()
def test_a_still_clip_with_weights_of_vit_is_the_image(tmp_path: Path) -> None:
    """Attention over time adds nothing at first, and each frame is looked at alone."""
    path, _ = vit(tmp_path)
    image, video = small("space", num_frames=1), small("divided")
    for model in (image, video):
        load_weights_into(model, path)
        model.eval()
    frame = torch.randn(2, 3, 1, 48, 48)
    wanted = image.extract_features(frame)
    found = video.extract_features(frame.expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_divided_weights_begin_axial_attention_over_time(tmp_path: Path) -> None:
    divided = small("divided")
    state = draw_state(divided, 3)
    path = write({facebook_name(n, ""): v for n, v in state.items()}, tmp_path / "x.pyth")
    axial = small("axial")
    load_weights_into(axial, path)
    own = axial.state_dict()
    for name in own:
        if ".temporal_" in name:
            assert torch.equal(own[name], state[name])
        elif ".width_fc" in name:
            assert not own[name].any()
        elif ".width_" in name:
            assert torch.equal(own[name], state[name.replace("width_", "")])


@torch.no_grad()
def test_embeddings_are_resized_to_the_nearest(tmp_path: Path) -> None:
    model = small("divided", num_frames=2)
    state = draw_state(model, 4)
    path = write({facebook_name(n, ""): v for n, v in state.items()}, tmp_path / "x.pyth")
    larger = small("divided", crop_px=96, num_frames=6)

    report = load_weights_into(larger, path)

    own = larger.state_dict()
    assert torch.equal(own["time_embed"], state["time_embed"].repeat_interleave(3, 1))
    places = state["pos_embed"][0, 1:].unflatten(0, (3, 3))
    wanted = places.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten(0, 1)
    assert torch.equal(own["pos_embed"][0, 1:], wanted)
    assert torch.equal(own["pos_embed"][:, :1], state["pos_embed"][:, :1])
    assert "resized from 1x10x32 to 1x37x32" in report.converted["pos_embed"]
    # And back to fewer.
    again = small("divided", num_frames=2)
    load_weights_into(again, write(own, tmp_path / "y.pth"))
    assert torch.equal(again.state_dict()["pos_embed"], state["pos_embed"])
    assert torch.equal(again.state_dict()["time_embed"], state["time_embed"])


@torch.no_grad()
def test_frames_begin_flow(tmp_path: Path) -> None:
    path, state = vit(tmp_path)
    model = small("divided", stream="flow")
    report = load_weights_into(model, path)
    kernel = model.state_dict()["patch_embed.proj.weight"]
    mean = state["patch_embed.proj.weight"].mean(1, keepdim=True)
    torch.testing.assert_close(kernel, mean.expand(-1, 2, -1, -1))
    assert "cross-modality" in report.converted["patch_embed.proj.weight"]


def test_a_vit_is_told_from_a_network_of_videos(tmp_path: Path) -> None:
    path, _ = vit(tmp_path)
    form = format_of(read_file(path))
    assert form is not None
    assert form[0] == "timm-vit"
    assert find_format(published("facebook-timesformer", attention="space"))[0] == (
        "facebook-timesformer-space"
    )
    (fit,) = find_fits(read_file(path), ("timesformer",)) or (None,)
    assert fit is None, "of another width than the published network"
