"""Weights of the Slow network from facebookresearch/SlowFast and facebookresearch/pytorchvideo.

The first names by stage, pathway and block, `s2.pathway0_res0.branch2.a` (models/stem_helper.py,
resnet_helper.py). The second numbers its blocks, `blocks.1.res_blocks.0.branch2.conv_a`
(models/resnet.py). A file holds the weights as `model_state`.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import VIDEO_KERNEL, ForeignFormat, Hint, Mark, Rule

__all__ = ["SLOWFAST"]


def _block_rules(block: str, shift: int, names: dict[str, str]) -> tuple[Rule, ...]:
    """Returns the rules for the four stages. `block` is the regular expression of a block, with
    its number as the group and STAGE for the stage's, which is ours plus `shift`."""
    return tuple(
        Rule(
            rf"{block.replace('STAGE', str(stage + shift))}{theirs}\.(\w+)",
            rf"layer{stage}.\1.{ours}.\2",
        )
        for stage in range(1, 5)
        for theirs, ours in names.items()
    )


_SLOWFAST = (
    Rule(r"s1\.pathway0_stem\.(conv|bn)\.(\w+)", r"\g<1>1.\2"),
    Rule(r"head\.projection\.(\w+)", r"fc.\1"),
    *_block_rules(
        r"sSTAGE\.pathway0_res(\d+)\.",
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
    ),
    *(
        Rule(
            rf"s{stage + 1}\.pathway0_nonlocal(\d+)\.{theirs}\.(\w+)",
            rf"layer{stage}.\1.non_local.{ours}.\2",
        )
        for stage in range(1, 5)
        for theirs, ours in {
            "conv_theta": "theta",
            "conv_phi": "phi",
            "conv_g": "g",
            "conv_out": "out",
            "bn": "bn",
        }.items()
    ),
)

_PYTORCHVIDEO = (
    Rule(r"blocks\.0\.conv\.(\w+)", r"conv1.\1"),
    Rule(r"blocks\.0\.norm\.(\w+)", r"bn1.\1"),
    Rule(r"blocks\.[56]\.proj\.(\w+)", r"fc.\1"),
    *_block_rules(
        r"blocks\.STAGE\.res_blocks\.(\d+)\.",
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
    ),
)

_NETWORKS = ("slow-8x8", "slow-4x16", "i3d-resnet50")

SLOWFAST = {
    "slowfast-slow": ForeignFormat(
        "facebookresearch/SlowFast",
        "Slow and I3D over a ResNet-50, trained on Kinetics-400",
        (Mark(r"s1\.pathway0_stem\.conv\.weight", VIDEO_KERNEL),),
        _SLOWFAST,
        _NETWORKS,
        ("slow-8x8", "slow-4x16"),
        hints=(
            Hint(
                Mark(r"s\d\.pathway0_nonlocal\d+\..+"),
                "It has non-local blocks: make the network with --non-local.",
                {"non_local": True, "non_local_style": "slowfast"},
            ),
        ),
        absent=(Mark(r"s1\.pathway1_stem\.conv\.weight"),),
    ),
    "pytorchvideo-slow": ForeignFormat(
        "facebookresearch/pytorchvideo",
        "Slow and I3D over a ResNet-50, trained on Kinetics-400",
        (
            Mark(r"blocks\.0\.conv\.weight", VIDEO_KERNEL),
            Mark(r"blocks\.1\.res_blocks\.0\.branch2\.conv_a\.weight", VIDEO_KERNEL),
        ),
        _PYTORCHVIDEO,
        _NETWORKS,
        ("slow-8x8", "slow-4x16"),
    ),
}
"""The formats of two projects, by name."""
