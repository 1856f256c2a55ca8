"""Weights of pytorch/vision, whose names are ours: a file is told apart, and nothing is renamed."""

from __future__ import annotations

from flowprep.learn.weights.foreign import (
    IMAGE_KERNEL,
    VIDEO_KERNEL,
    ForeignFormat,
    Hint,
    Mark,
    Rule,
)

__all__ = ["TORCHVISION"]

_PROJECT = "pytorch/vision"

_VIDEO_CONV = r"layer\d\.\d+\.(?:conv\d\.[01](?:\.[013])?|downsample\.[01])\.\w+"

TORCHVISION = {
    "torchvision-resnet": ForeignFormat(
        _PROJECT,
        "ResNets over frames, trained on ImageNet",
        (Mark(r"conv1\.weight", IMAGE_KERNEL), Mark(r"layer1\.0\.conv1\.weight", IMAGE_KERNEL)),
        (
            Rule(
                r"(?:conv1|bn1|fc|layer\d\.\d+\.(?:conv\d|bn\d|downsample\.[01]))\.\w+",
                r"\g<0>",
            ),
        ),
        ("resnet50", "resnet18", "resnet34", "resnet101", "resnet152"),
    ),
    "torchvision-mobilenet": ForeignFormat(
        _PROJECT,
        "MobileNetV2 over frames, trained on ImageNet",
        (Mark(r"features\.2\.conv\.1\.0\.weight", IMAGE_KERNEL),),
        (
            Rule(r"features\.\d+\.(?:conv\.)?\d(?:\.\d)?\.\w+", r"\g<0>"),
            Rule(r"classifier\.1\.\w+", r"\g<0>"),
        ),
        ("mobilenet-v2",),
    ),
    "torchvision-vgg": ForeignFormat(
        _PROJECT,
        "VGG-16 over frames, trained on ImageNet",
        (
            Mark(r"features\.28\.weight", IMAGE_KERNEL),
            Mark(r"classifier\.3\.weight", (None, None)),
        ),
        (Rule(r"(?:features|classifier)\.\d+\.\w+", r"\g<0>"),),
        ("vgg16", "gru-rcn"),
        # Our GRU-RCN has VGG-16's names.
        absent=(Mark(r"(?:.+\.)?grus\..+"),),
    ),
    "torchvision-alexnet": ForeignFormat(
        _PROJECT,
        "AlexNet over frames, trained on ImageNet",
        (
            Mark(r"features\.10\.weight", (256, 256, 3, 3)),
            Mark(r"classifier\.4\.weight", (None, None)),
        ),
        (Rule(r"(?:features|classifier)\.\d+\.\w+", r"\g<0>"),),
        ("alexnet",),
    ),
    "torchvision-googlenet": ForeignFormat(
        _PROJECT,
        "GoogLeNet over frames, trained on ImageNet",
        (Mark(r"inception4e\.branch3\.1\.conv\.weight", IMAGE_KERNEL),),
        (
            Rule(r"(?:conv\d|inception\d\w\.branch\d(?:\.[01])?)\.\w+\.\w+", r"\g<0>"),
            Rule(r"fc\.\w+", r"\g<0>"),
            Rule(r"aux[12]\.[\w.]+", None),
        ),
        ("googlenet",),
        norm_eps=1e-3,
        hints=(
            Hint(
                Mark(r"inception4e\.branch3\.1\.conv\.weight"),
                "It was trained on frames from -1 to 1, which is --normalization unit.",
            ),
        ),
    ),
    "torchvision-video": ForeignFormat(
        _PROJECT,
        "R(2+1)D-18, R3D-18 and MC3-18, trained on Kinetics-400",
        (
            Mark(r"stem\.0\.weight", (None, 3, None, None, None)),
            Mark(r"layer1\.0\.conv1\.0(?:\.0)?\.weight", VIDEO_KERNEL),
        ),
        (Rule(rf"(?:stem\.\d|fc)\.\w+|{_VIDEO_CONV}", r"\g<0>"),),
        ("r2plus1d-18", "r3d-18", "mc3-18"),
        ("torchvision-video",),
        # A layer1 over single frames (rMC3, R2D) and 288 planes (R(2+1)D) are VMZ's alone.
        absent=(
            Mark(r"layer1\.0\.conv1\.0\.weight", (None, None, 1, 3, 3)),
            Mark(r"layer2\.0\.conv2\.0\.0\.weight", (288, None, None, None, None)),
        ),
        norm_eps=1e-5,
    ),
}
"""The formats of one project, by name."""
