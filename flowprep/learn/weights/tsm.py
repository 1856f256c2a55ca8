"""Weights of TSM and TSN from mit-han-lab/temporal-shift-module.

A file holds `state_dict`, whose names begin with DataParallel's `module.`. The network is
`base_model` (ops/models.py: torchvision's ResNet, archs/mobilenet_v2.py or archs/bn_inception.py),
with the classifier outside it as `new_fc`; the files of MobileNetV2 call it `base_model.classifier`
(test_models.py, replace_dict). Wrappers add `net` (TemporalShift and TemporalPool in
ops/temporal_shift.py) and `block` and `nl` (NL3DWrapper in ops/non_local.py) to the names.
"""

from __future__ import annotations

from flowprep.learn.weights.foreign import ForeignFormat, Hint, Mark, Rule
from flowprep.learn.weights.mobilenet import tonylins_rules

__all__ = ["TSM"]

_CLASSIFIERS = (
    Rule(r"(?:new_fc|base_model\.fc)\.(\w+)", r"fc.\1"),
    Rule(r"base_model\.classifier\.(\w+)", r"classifier.1.\1"),
)

_NON_LOCAL = {
    r"g\.0": "g",
    r"phi\.0": "phi",
    "theta": "theta",
    r"W\.0": "out",
    r"W\.1": "bn",
}
"""The parts of a non-local block -> ours."""

_RESNET = (
    Rule(r"base_model\.((?:conv1|bn1)\.\w+)", r"\1"),
    *(
        Rule(
            rf"base_model\.(layer\d)\.(?:net\.)?(\d+)\.nl\.{theirs}\.(\w+)",
            rf"\1.\2.non_local.{ours}.\3",
        )
        for theirs, ours in _NON_LOCAL.items()
    ),
    Rule(
        r"base_model\.(layer\d)\.(?:net\.)?(\d+)\.(?:block\.)?(?:net\.)?"
        r"(conv\d|bn\d|downsample\.\d)\.(?:net\.)?(\w+)",
        r"\1.\2.\3.\4",
    ),
)

_HINTS = (
    Hint(
        Mark(r"base_model\.layer2\.net\..+"),
        "Its time axis is halved before layer2 (tpool): make the network with --temporal-pool.",
        {"temporal_pool": True},
    ),
    Hint(
        Mark(r"base_model\.layer1\.0\.net\.conv1\.weight"),
        "Its shift is before whole blocks, with their shortcuts: make the network with "
        "--shift-place block.",
        {"shift_place": "block"},
    ),
    Hint(
        Mark(r"base_model\.layer\d\.(?:net\.)?\d+\.nl\..+"),
        "It has non-local blocks: make the network with --non-local --non-local-style tsm.",
        {"non_local": True, "non_local_style": "tsm"},
    ),
)

_DESCRIPTION = "shift networks over segments of a video, trained on Kinetics-400 or Something"

TSM = {
    "tsm-resnet": ForeignFormat(
        "mit-han-lab/temporal-shift-module",
        f"{_DESCRIPTION}; the base is a ResNet",
        (Mark(r"base_model\.layer1\.0\.(?:conv1\.net|net\.conv1)\.weight"),),
        (*_RESNET, *_CLASSIFIERS),
        ("tsm-resnet50", "tsm-resnet18"),
        ("tsm",),
        hints=_HINTS,
    ),
    "tsm-mobilenet-v2": ForeignFormat(
        "mit-han-lab/temporal-shift-module",
        f"{_DESCRIPTION}; the base is MobileNetV2",
        (Mark(r"base_model\.features\.3\.conv\.0\.net\.weight"),),
        (
            *tonylins_rules(r"base_model\.", r"(?:net\.)?"),
            Rule(r"(?:new_fc|base_model\.classifier)\.(\w+)", r"classifier.1.\1"),
        ),
        ("tsm-mobilenet-v2",),
        ("tsm",),
    ),
    "tsn-resnet": ForeignFormat(
        "mit-han-lab/temporal-shift-module, yjxiong/tsn-pytorch",
        "segment networks without a shift; the base is a ResNet",
        (Mark(r"base_model\.layer1\.0\.conv1\.weight"),),
        (*_RESNET, *_CLASSIFIERS),
        ("tsn-resnet50", "tsn-resnet18", "tsn-resnet34", "resnet101", "resnet152"),
        ("tsn",),
    ),
    "tsn-mobilenet-v2": ForeignFormat(
        "mit-han-lab/temporal-shift-module",
        "segment networks without a shift; the base is MobileNetV2",
        (Mark(r"base_model\.features\.3\.conv\.0\.weight"),),
        (
            *tonylins_rules(r"base_model\."),
            Rule(r"(?:new_fc|base_model\.classifier)\.(\w+)", r"classifier.1.\1"),
        ),
        ("tsn-mobilenet-v2", "mobilenet-v2"),
    ),
}
"""The formats of one project, by name: with a temporal shift, and without one."""
