"""Weights of SlowFast, of its slow path and of I3D on ResNet-50: facebookresearch/SlowFast,
facebookresearch/pytorchvideo and, of SlowFast alone, open-mmlab/mmaction2.

The first names by stage, pathway and block, `s2.pathway0_res0.branch2.a` (models/stem_helper.py,
resnet_helper.py); pathway 0 is slow, pathway 1 is fast. A file of PyTorch holds the weights as
`model_state`. Files of Caffe2 are pickles of blobs, in which the fast path begins with `t_`
(utils/c2_model_loading.py): `t_res2_0_branch2a_w`. pytorchvideo numbers its blocks,
`blocks.1.res_blocks.0.branch2.conv_a` (models/resnet.py, models/slowfast.py). mmaction2 has one
ResNet for each path (models/backbones/resnet3d_slowfast.py), and its classifier sees the fast
path's features first (models/heads/slowfast_head.py).
"""

from __future__ import annotations

import torch

from flowprep.learn.clip_inputs import RecipeName
from flowprep.learn.weights.foreign import (
    VIDEO_KERNEL,
    Conversion,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
)

__all__ = ["SLOWFAST"]

_PARTS = ("conv_theta", "conv_phi", "conv_g", "conv_out", "bn")
"""Of a non-local block. Ours lack `conv_`."""


def _block_rules(
    block: str, shift: int, names: dict[str, str], path: str, parts: dict[str, str] | None = None
) -> tuple[Rule, ...]:
    """Returns the rules for the four stages of a path.

    `block` is the regular expression of a block, with its number as the group and STAGE for the
    stage's, which is ours plus `shift`. `path` is our name of the path, with a point, or nothing.
    `parts` are how a tensor's name ends, in the file and here; by default the same in both.
    """
    return tuple(
        Rule(
            rf"{block.replace('STAGE', str(stage + shift))}{theirs}{end}",
            rf"{path}layer{stage}.\1.{ours}.{part}",
        )
        for stage in range(1, 5)
        for theirs, ours in names.items()
        for end, part in (parts or {r"\.(\w+)": r"\2"}).items()
    )


# ---- facebookresearch/SlowFast


def _facebook_path(number: int, path: str) -> tuple[Rule, ...]:
    """Returns the rules for one pathway, whose tensors begin here with `path`."""
    return (
        Rule(rf"s1\.pathway{number}_stem\.(conv|bn)\.(\w+)", rf"{path}\g<1>1.\2"),
        *_block_rules(
            rf"sSTAGE\.pathway{number}_res(\d+)\.",
            1,
            {
                "branch1": "downsample.0",
                "branch1_bn": "downsample.1",
                r"branch2\.a": "conv1",
                r"branch2\.a_bn": "bn1",
                r"branch2\.b": "conv2",
                r"branch2\.b_bn": "bn2",
                r"branch2\.c": "conv3",
                r"branch2\.c_bn": "bn3",
            },
            path,
        ),
        *_block_rules(
            rf"sSTAGE\.pathway{number}_nonlocal(\d+)\.",
            1,
            {part: f"non_local.{part.removeprefix('conv_')}" for part in _PARTS},
            path,
        ),
    )


_HEAD = Rule(r"head\.projection\.(\w+)", r"fc.\1")

_LATERALS = {1: "conv1", 2: "layer1", 3: "layer2", 4: "layer3"}
"""Facebook's stage before a lateral convolution -> ours."""

_FACEBOOK_LATERALS = tuple(
    Rule(rf"s{stage}_fuse\.{theirs}\.(\w+)", rf"laterals.{ours}.{part}.\1")
    for stage, ours in _LATERALS.items()
    for theirs, part in (("conv_f2s", "conv"), ("bn", "bn"))
)

# ---- its files of Caffe2

_WEIGHT = {"_w": "weight"}
_NORM = {"_s": "weight", "_b": "bias", "_rm": "running_mean", "_riv": "running_var"}
"""`riv` is the variance, despite its name: the project takes it as `running_var`."""


def _caffe2_path(mark: str, path: str) -> tuple[Rule, ...]:
    """Returns the rules for the blobs that begin with `mark`."""
    convs = {"branch1": "downsample.0"}
    convs |= {f"branch2{letter}": f"conv{number}" for number, letter in enumerate("abc", 1)}
    norms = {"branch1_bn": "downsample.1"}
    norms |= {f"branch2{letter}_bn": f"bn{number}" for number, letter in enumerate("abc", 1)}
    block = rf"{mark}resSTAGE_(\d+)_"
    return (
        Rule(f"{mark}conv1_w", f"{path}conv1.weight"),
        *(Rule(f"{mark}res_conv1_bn{end}", f"{path}bn1.{part}") for end, part in _NORM.items()),
        *_block_rules(block, 1, convs, path, _WEIGHT),
        *_block_rules(block, 1, norms, path, _NORM),
    )


def _caffe2_non_local(path: str) -> tuple[Rule, ...]:
    block = r"nonlocal_convSTAGE_(\d+)_"
    layers = {name: f"non_local.{name}" for name in ("theta", "phi", "g", "out")}
    return (
        *_block_rules(block, 1, layers, path, {**_WEIGHT, "_b": "bias"}),
        *_block_rules(block, 1, {"bn": "non_local.bn"}, path, _NORM),
    )


def _caffe2_laterals() -> tuple[Rule, ...]:
    places = {"t_pool1": "conv1"}
    places |= {rf"t_res{stage}_\d+_branch2c_bn": f"layer{stage - 1}" for stage in (2, 3, 4)}
    return tuple(
        Rule(f"{theirs}_subsample{end}", f"laterals.{ours}.{part}")
        for theirs, ours in places.items()
        for end, part in (
            ("_w", "conv.weight"),
            *((f"_bn{end}", f"bn.{part}") for end, part in _NORM.items()),
        )
    )


_CAFFE2_REST = (
    Rule("pred_w", "fc.weight"),
    Rule("pred_b", "fc.bias"),
    Rule(r".+_momentum|lr|model_iter", None),
)

# ---- facebookresearch/pytorchvideo


def _pytorchvideo_path(stem: str, block: str, path: str) -> tuple[Rule, ...]:
    """Returns the rules for a path whose stem and whose blocks have these regular expressions."""
    return (
        Rule(rf"{stem}conv\.(\w+)", rf"{path}conv1.\1"),
        Rule(rf"{stem}norm\.(\w+)", rf"{path}bn1.\1"),
        *_block_rules(
            block,
            0,
            {
                "branch1_conv": "downsample.0",
                "branch1_norm": "downsample.1",
                r"branch2\.conv_a": "conv1",
                r"branch2\.norm_a": "bn1",
                r"branch2\.conv_b": "conv2",
                r"branch2\.norm_b": "bn2",
                r"branch2\.conv_c": "conv3",
                r"branch2\.norm_c": "bn3",
            },
            path,
        ),
    )


def _pytorchvideo_pathway(number: int, path: str) -> tuple[Rule, ...]:
    pathway = rf"multipathway_blocks\.{number}\."
    return _pytorchvideo_path(
        rf"blocks\.0\.{pathway}", rf"blocks\.STAGE\.{pathway}res_blocks\.(\d+)\.", path
    )


_PYTORCHVIDEO_HEAD = Rule(r"blocks\.[56]\.proj\.(\w+)", r"fc.\1")

_PYTORCHVIDEO_LATERALS = tuple(
    Rule(
        rf"blocks\.{stage - 1}\.multipathway_fusion\.{theirs}\.(\w+)", rf"laterals.{ours}.{part}.\1"
    )
    for stage, ours in _LATERALS.items()
    for theirs, part in (("conv_fast_to_slow", "conv"), ("norm", "bn"))
)

# ---- open-mmlab/mmaction2

_FAST_SHARE = 9
"""One feature in so many is of the fast path: 256 of 2304."""

_FAST_LAST = Conversion(
    "the fast path's features put behind the slow path's",
    lambda value: (
        torch.roll(value, -(value.shape[1] // _FAST_SHARE), 1) if value.dim() == 2 else None
    ),
)

_MMACTION2_BLOCK = r"backbone\.(slow|fast)_path\.(layer\d)\.(\d+)\."

_MMACTION2 = (
    Rule(r"backbone\.(slow|fast)_path\.conv1\.conv\.(\w+)", r"\1.conv1.\2"),
    Rule(r"backbone\.(slow|fast)_path\.conv1\.bn\.(\w+)", r"\1.bn1.\2"),
    Rule(rf"{_MMACTION2_BLOCK}conv(\d)\.conv\.(\w+)", r"\1.\2.\3.conv\4.\5"),
    Rule(rf"{_MMACTION2_BLOCK}conv(\d)\.bn\.(\w+)", r"\1.\2.\3.bn\4.\5"),
    Rule(rf"{_MMACTION2_BLOCK}downsample\.conv\.(\w+)", r"\1.\2.\3.downsample.0.\4"),
    Rule(rf"{_MMACTION2_BLOCK}downsample\.bn\.(\w+)", r"\1.\2.\3.downsample.1.\4"),
    Rule(r"backbone\.slow_path\.(\w+)_lateral\.(conv|bn)\.(\w+)", r"laterals.\1.\2.\3"),
    Rule(r"cls_head\.fc_cls\.weight", "fc.weight", (_FAST_LAST,)),
    Rule(r"cls_head\.fc_cls\.bias", "fc.bias"),
    Rule(r"data_preprocessor\..+", None),
)

# ---- the formats

_SLOW = ("slow-8x8", "slow-4x16", "i3d-resnet50")
_BOTH = ("slowfast-8x8", "slowfast-4x16")
_BOTH_RECIPES: tuple[RecipeName, ...] = ("slowfast-8x8", "slowfast-4x16")
_TRAINED = "trained on Kinetics-400"
_OF_SLOW = f"Slow and I3D over a ResNet-50, {_TRAINED}"
_OF_BOTH = f"SlowFast over a ResNet-50, {_TRAINED}"


def _non_local(mark: str) -> Hint:
    return Hint(
        Mark(mark),
        "It has non-local blocks: make the network with --non-local.",
        {"non_local": True, "non_local_style": "slowfast"},
    )


def _five_frames(kernel: str) -> Hint:
    return Hint(
        Mark(kernel, (None, None, 5, None, None)),
        "Its convolutions from the fast path to the slow one see 5 frames, as slowfast-4x16's do; "
        "make slowfast-8x8 with --lateral-frames 5.",
        {"lateral_frames": 5},
    )


_CAFFE2_STEM = Mark("res_conv1_bn_riv")

SLOWFAST = {
    "slowfast-slow": ForeignFormat(
        "facebookresearch/SlowFast",
        _OF_SLOW,
        (Mark(r"s1\.pathway0_stem\.conv\.weight", VIDEO_KERNEL),),
        (*_facebook_path(0, ""), _HEAD),
        _SLOW,
        ("slow-8x8", "slow-4x16"),
        hints=(_non_local(r"s\d\.pathway0_nonlocal\d+\..+"),),
        absent=(Mark(r"s1\.pathway1_stem\.conv\.weight"),),
    ),
    "slowfast": ForeignFormat(
        "facebookresearch/SlowFast",
        _OF_BOTH,
        (
            Mark(r"s1\.pathway0_stem\.conv\.weight", VIDEO_KERNEL),
            Mark(r"s1\.pathway1_stem\.conv\.weight", VIDEO_KERNEL),
            Mark(r"s1_fuse\.conv_f2s\.weight", VIDEO_KERNEL),
        ),
        (*_facebook_path(0, "slow."), *_facebook_path(1, "fast."), *_FACEBOOK_LATERALS, _HEAD),
        _BOTH,
        _BOTH_RECIPES,
        hints=(
            _non_local(r"s\d\.pathway0_nonlocal\d+\..+"),
            _five_frames(r"s1_fuse\.conv_f2s\.weight"),
        ),
    ),
    "slowfast-slow-caffe2": ForeignFormat(
        "facebookresearch/SlowFast",
        f"{_OF_SLOW}, in Caffe2",
        (Mark("conv1_w", VIDEO_KERNEL), _CAFFE2_STEM),
        (*_caffe2_path("", ""), *_caffe2_non_local(""), *_CAFFE2_REST),
        _SLOW,
        ("slow-8x8", "slow-4x16"),
        hints=(_non_local(r"nonlocal_conv\d_\d+_.+"),),
        absent=(Mark("t_conv1_w"),),
    ),
    "slowfast-caffe2": ForeignFormat(
        "facebookresearch/SlowFast",
        f"{_OF_BOTH}, in Caffe2",
        (Mark("conv1_w", VIDEO_KERNEL), Mark("t_conv1_w", VIDEO_KERNEL), _CAFFE2_STEM),
        (
            *_caffe2_laterals(),
            *_caffe2_path("", "slow."),
            *_caffe2_path("t_", "fast."),
            *_caffe2_non_local("slow."),
            *_CAFFE2_REST,
        ),
        _BOTH,
        _BOTH_RECIPES,
        hints=(_non_local(r"nonlocal_conv\d_\d+_.+"), _five_frames("t_pool1_subsample_w")),
    ),
    "pytorchvideo-slow": ForeignFormat(
        "facebookresearch/pytorchvideo",
        _OF_SLOW,
        (
            Mark(r"blocks\.0\.conv\.weight", VIDEO_KERNEL),
            Mark(r"blocks\.1\.res_blocks\.0\.branch2\.conv_a\.weight", VIDEO_KERNEL),
        ),
        (
            *_pytorchvideo_path(r"blocks\.0\.", r"blocks\.STAGE\.res_blocks\.(\d+)\.", ""),
            _PYTORCHVIDEO_HEAD,
        ),
        _SLOW,
        ("slow-8x8", "slow-4x16"),
    ),
    "pytorchvideo-slowfast": ForeignFormat(
        "facebookresearch/pytorchvideo",
        _OF_BOTH,
        (
            Mark(r"blocks\.0\.multipathway_blocks\.[01]\.conv\.weight", VIDEO_KERNEL),
            Mark(r"blocks\.0\.multipathway_fusion\.conv_fast_to_slow\.weight", VIDEO_KERNEL),
        ),
        (
            *_pytorchvideo_pathway(0, "slow."),
            *_pytorchvideo_pathway(1, "fast."),
            *_PYTORCHVIDEO_LATERALS,
            _PYTORCHVIDEO_HEAD,
        ),
        _BOTH,
        _BOTH_RECIPES,
        hints=(_five_frames(r"blocks\.0\.multipathway_fusion\.conv_fast_to_slow\.weight"),),
    ),
    "mmaction2-slowfast": ForeignFormat(
        "open-mmlab/mmaction2",
        f"{_OF_BOTH}, of versions 0 and 1",
        (
            Mark(r"backbone\.slow_path\.conv1\.conv\.weight", VIDEO_KERNEL),
            Mark(r"backbone\.fast_path\.conv1\.conv\.weight", VIDEO_KERNEL),
        ),
        _MMACTION2,
        _BOTH,
        ("mmaction2-slowfast-8x8", "mmaction2-slowfast-4x16"),
        hints=(
            Hint(
                Mark(r"backbone\.slow_path\.conv1\.conv\.weight"),
                "Its slow path sees the first frame of each group: make the network with "
                "--slow-frames first.",
                {"slow_frames": "first"},
            ),
            Hint(
                Mark(r"backbone\.slow_path\.conv1_lateral\.conv\.weight"),
                "Nothing follows its convolutions from the fast path to the slow one: make the "
                "network with --no-lateral-norm.",
                {"lateral_norm": False},
                absent=Mark(r"backbone\.slow_path\.conv1_lateral\.bn\.weight"),
            ),
            _five_frames(r"backbone\.slow_path\.conv1_lateral\.conv\.weight"),
        ),
    ),
}
"""The formats by name."""
