"""Weights of GSM (swathikirans/GSM), and of Inception-V3 in the names of its base.

A file holds `state_dict` with `base_model` and, outside it, the classifier `new_fc` (models.py). A
gate is called after the layer before it: `gsm_inception_3a_1x1`, `gsm_mixed_conv_Conv2D`.
Inception-V3 has names of TensorFlow, `mixed_1_tower_conv_Conv2D` and `mixed_1_tower_conv_batchnorm`
(model_zoo/bninception/inceptionv3.yaml, as in yjxiong/tensorflow-model-zoo.torch); its classifier
is `top_cls_fc`.

All see frames as OpenCV reads them: blue, green, red (main.py, Stack(roll=True)). As ours are red,
green, blue, the first kernel is turned around.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import (
    BGR_TO_RGB,
    IMAGE_KERNEL,
    SQUEEZED,
    VIDEO_KERNEL,
    ForeignFormat,
    Mark,
    Rule,
)
from flowprep.learn.weights.yjxiong import bn_inception_rules

__all__ = ["GSM"]

_PREFIX = r"(?:base_model\.)?"

_INCEPTION_V3 = (
    Rule(rf"{_PREFIX}gsm_(\w+)_Conv2D\.conv3D\.(\w+)", r"gates.\1.conv.\2"),
    Rule(rf"{_PREFIX}gsm_(\w+)_Conv2D\.bn\.(\w+)", r"gates.\1.bn.\2"),
    Rule(rf"{_PREFIX}conv_Conv2D\.weight", "conv.weight", (BGR_TO_RGB,)),
    Rule(rf"{_PREFIX}(\w+)_Conv2D\.(\w+)", r"\1.\2"),
    Rule(rf"{_PREFIX}(\w+)_batchnorm\.(\w+)", r"\1_bn.\2", (SQUEEZED,)),
    Rule(rf"(?:new_fc|{_PREFIX}top_cls_fc)\.(\w+)", r"fc.\1"),
)

_SOMETHING = "trained on Something-Something V1 or Diving48"

GSM = {
    "gsm-bn-inception": ForeignFormat(
        "swathikirans/GSM",
        f"gate-shift networks over BN-Inception (GSM), {_SOMETHING}",
        (
            Mark(r"base_model\.conv1_7x7_s2\.weight", IMAGE_KERNEL),
            Mark(r"base_model\.gsm_inception_3a_1x1\.conv3D\.weight", VIDEO_KERNEL),
        ),
        (
            Rule(r"base_model\.gsm_(\w+)\.conv3D\.(\w+)", r"gates.\1.conv.\2"),
            Rule(r"base_model\.gsm_(\w+)\.bn\.(\w+)", r"gates.\1.bn.\2"),
            *bn_inception_rules(r"base_model\.", r"new_fc|base_model\.fc"),
        ),
        ("gsm-bn-inception",),
        recipes=("gsm",),
        norm_eps=1e-5,
    ),
    "gsm-inception-v3": ForeignFormat(
        "swathikirans/GSM",
        f"gate-shift networks over Inception-V3 (GSM), {_SOMETHING}",
        (
            Mark(r"base_model\.conv_Conv2D\.weight", IMAGE_KERNEL),
            Mark(r"base_model\.gsm_mixed_conv_Conv2D\.conv3D\.weight", VIDEO_KERNEL),
        ),
        _INCEPTION_V3,
        ("gsm-inception-v3",),
        recipes=("gsm-inception-v3",),
        norm_eps=1e-5,
    ),
    "inception-v3": ForeignFormat(
        "yjxiong/tensorflow-model-zoo.torch, yjxiong/action-detection",
        "Inception-V3, trained on ImageNet or Kinetics-400, from which GSM starts",
        (
            Mark(rf"{_PREFIX}conv_Conv2D\.weight", IMAGE_KERNEL),
            Mark(rf"{_PREFIX}mixed_10_tower_2_conv_batchnorm\.weight"),
        ),
        _INCEPTION_V3,
        ("inception-v3", "gsm-inception-v3"),
        recipes=("gsm-inception-v3",),
        norm_eps=1e-5,
        absent=(Mark(rf"{_PREFIX}gsm_mixed_conv_Conv2D\.conv3D\.weight"),),
    ),
}
"""The formats by name."""
