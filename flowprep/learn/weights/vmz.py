"""Weights of facebookresearch/VMZ, and of IG-65M: R(2+1)D, R3D, MC3, rMC3 and R2D.

VMZ publishes pickles of Caffe2's blobs (c2/tools/minidb_to_pickle.py), named by the number of the
block and of the convolution in it (c2/lib/models/builder/video_model.py). Of a batch norm, `s` is
the scale and `b` the bias, `rm` the running mean and `riv`, despite its name, the running variance
(moabitcoin/ig65m-pytorch, ig65m/cli/convert.py; VMZ, utilities/model_conversion). Its epsilon is
1e-3. moabitcoin/ig65m-pytorch publishes R(2+1)D-34 with torchvision's names.

Frames are red, green, blue; flow is x, y.
"""

from __future__ import annotations

from itertools import accumulate

from flowprep.learn.weights.foreign import VIDEO_KERNEL, ForeignFormat, Hint, Mark, Rule

__all__ = ["VMZ"]

_EPSILON = 1e-3

_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def _norms(theirs: str, ours: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"{theirs}_{part}", f"{ours}.{name}") for part, name in _NORM.items())


def _rules(depths: tuple[int, int, int, int], *, is_split: bool) -> tuple[Rule, ...]:
    """Returns the rules for so many blocks in each stage, with (2+1)D convolutions or others."""
    rules = [
        Rule(r"last_out_L\d+_w", "fc.weight"),
        Rule(r"last_out_L\d+_b", "fc.bias"),
    ]
    if is_split:
        rules += [Rule("conv1_middle_w", "stem.0.weight"), Rule("conv1_w", "stem.3.weight")]
        rules += _norms("conv1_middle_spatbn_relu", "stem.1")
        rules += _norms("conv1_spatbn_relu", "stem.4")
    else:
        rules += [Rule("conv1_w", "stem.0.weight"), *_norms("conv1_spatbn_relu", "stem.1")]
    starts = (0, *accumulate(depths))
    for number in range(sum(depths)):
        stage = max(place for place in range(4) if starts[place] <= number)
        block = f"layer{stage + 1}.{number - starts[stage]}"
        conv, norm = rf"comp_{number}_conv_([12])", rf"comp_{number}_spatbn_([12])"
        rules += _norms(norm, rf"{block}.conv\1.1")
        if is_split:
            rules += _norms(f"{norm}_middle", rf"{block}.conv\1.0.1")
            rules += [Rule(f"{conv}_middle_w", rf"{block}.conv\1.0.0.weight")]
        ours = "0.3.weight" if is_split else "0.weight"
        rules += [Rule(f"{conv}_w", rf"{block}.conv\1.{ours}")]
        rules += [Rule(f"shortcut_projection_{number}_w", f"{block}.downsample.0.weight")]
        rules += _norms(f"shortcut_projection_{number}_spatbn", f"{block}.downsample.1")
    return tuple(rules)


_VARIANT = {"variant": "vmz"}

_TOLD = "It is of VMZ's variant: make the network with --variant vmz."

_LAST_OF_34 = Mark("comp_15_conv_2_w")

VMZ = {
    "vmz-r2plus1d-34": ForeignFormat(
        "facebookresearch/VMZ",
        "R(2+1)D-34, trained on Kinetics-400 or Sports-1M, over frames or Farneback's flow",
        (Mark("conv1_middle_w", VIDEO_KERNEL), Mark("comp_15_conv_2_middle_w", VIDEO_KERNEL)),
        _rules((3, 4, 6, 3), is_split=True),
        ("r2plus1d-34",),
        recipes=("vmz", "vmz-rgb"),
        norm_eps=_EPSILON,
        hints=(Hint(_LAST_OF_34, _TOLD, _VARIANT),),
    ),
    "vmz-r2plus1d-18": ForeignFormat(
        "facebookresearch/VMZ",
        "R(2+1)D-18, trained on Kinetics-400",
        (Mark("conv1_middle_w", VIDEO_KERNEL), Mark("comp_7_conv_2_middle_w", VIDEO_KERNEL)),
        _rules((2, 2, 2, 2), is_split=True),
        ("r2plus1d-18",),
        recipes=("vmz-rgb",),
        norm_eps=_EPSILON,
        hints=(Hint(Mark("comp_7_conv_2_w"), _TOLD, _VARIANT),),
        absent=(Mark("comp_8_conv_1_w"),),
    ),
    "vmz-18": ForeignFormat(
        "facebookresearch/VMZ",
        "R3D-18, MC3-18, rMC3-18 and R2D-18, trained on Kinetics-400",
        (Mark("conv1_w", VIDEO_KERNEL), Mark("comp_7_conv_2_w", VIDEO_KERNEL)),
        _rules((2, 2, 2, 2), is_split=False),
        ("r3d-18", "mc3-18", "rmc3-18", "r2d-18"),
        recipes=("vmz-rgb",),
        norm_eps=_EPSILON,
        hints=(Hint(Mark("comp_7_conv_2_w"), _TOLD, _VARIANT),),
        absent=(Mark("comp_8_conv_1_w"), Mark("conv1_middle_w")),
    ),
    "ig65m": ForeignFormat(
        "moabitcoin/ig65m-pytorch, facebookresearch/VMZ",
        "R(2+1)D-34 over frames, trained on 65 million videos and on Kinetics-400",
        (
            Mark(r"stem\.0\.weight", (None, 3, None, None, None)),
            Mark(r"stem\.3\.weight", VIDEO_KERNEL),
            # torchvision's variant has 230 planes here.
            Mark(r"layer2\.0\.conv2\.0\.0\.weight", (288, None, None, None, None)),
            Mark(r"layer3\.5\.conv2\.0\.0\.weight", VIDEO_KERNEL),
        ),
        (Rule(r"(?:stem|layer\d|fc)\..+", r"\g<0>"),),
        ("r2plus1d-34",),
        recipes=("ig65m",),
        norm_eps=_EPSILON,
        hints=(Hint(Mark(r"layer3\.5\.conv2\.0\.0\.weight"), _TOLD, _VARIANT),),
    ),
}
"""The formats of one project, by name."""
