"""The numbers that published networks expect, by name. Needs neither PyTorch nor OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import NormalizationName

__all__ = ["NORMALIZATIONS", "Normalization", "find_normalization"]


@dataclass(frozen=True)
class Normalization:
    """The numbers that a network gets, as (value - mean) / std.

    A flow level is 127.5 + 127.5 px / bound, not rounded. This is the level of the quantizer
    `round`, whatever quantizer the data has. An RGB level is the stored value, 0 to 255.
    """

    flow_mean: tuple[float, float]
    """Of x and y, in `flow_unit`."""
    flow_std: tuple[float, float]
    """Of x and y, in `flow_unit`."""
    rgb_mean: tuple[float, float, float]
    """In the order of `rgb_order`, as levels."""
    rgb_std: tuple[float, float, float]
    """In the order of `rgb_order`, as levels."""
    rgb_order: Literal["RGB", "BGR"] = "RGB"
    """The order of the network's channels."""
    flow_unit: Literal["level", "px"] = "level"
    """What of the flow is normalized: levels, which the bound decides, or px."""

    def flow_line(self, bound_px: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Returns what x and y in px are multiplied by, and what is added then."""
        per_px, level_of_zero = 1.0, 0.0
        if self.flow_unit == "level":
            per_px, level_of_zero = 127.5 / bound_px, 127.5
        (mean_x, mean_y), (std_x, std_y) = self.flow_mean, self.flow_std
        scales = per_px / std_x, per_px / std_y
        return scales, ((level_of_zero - mean_x) / std_x, (level_of_zero - mean_y) / std_y)


_MIDDLE = (127.5, 127.5, 127.5)
_ONE = (1.0, 1.0, 1.0)


def _of_unit_range(*values: float) -> tuple[float, float, float]:
    """Returns the levels of three values from 0 to 1."""
    red, green, blue = (value * 255 for value in values)
    return red, green, blue


NORMALIZATIONS: dict[NormalizationName, Normalization | None] = {
    # Flow stays in px.
    "px": None,
    "unit": Normalization((127.5, 127.5), (127.5, 127.5), _MIDDLE, _MIDDLE),
    # yjxiong/temporal-segment-networks, the BN-Inception train_val files: mean_value 128 for flow,
    # 104, 117, 123 for BGR.
    "tsn": Normalization((128, 128), (1, 1), (104, 117, 123), _ONE, "BGR"),
    # The same numbers in the order RGB. The first convolution of such weights is turned to RGB when
    # they are loaded.
    "tsn-rgb": Normalization((128, 128), (1, 1), (123, 117, 104), _ONE),
    # yjxiong/tsn-pytorch, models.py, BNInception: 104, 117, 128 for BGR, here in the order RGB as
    # above, and 128 for flow.
    "tsn-pytorch": Normalization((128, 128), (1, 1), (128, 117, 104), _ONE),
    # yjxiong/tsn-pytorch, models.py, resnet; also mit-han-lab/temporal-shift-module, ops/models.py.
    # Flow: levels / 255, with .5 and the mean of RGB's standard deviations. RGB: ImageNet's mean
    # and standard deviation.
    "tsn-resnet": Normalization(
        (0.5 * 255, 0.5 * 255),
        (0.226 * 255, 0.226 * 255),
        _of_unit_range(0.485, 0.456, 0.406),
        _of_unit_range(0.229, 0.224, 0.225),
    ),
    # mmaction2's configurations of TSN and SlowOnly.
    "mmaction2": Normalization(
        (128, 128), (128, 128), (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
    # piergiaj/pytorch-i3d, charades_dataset.py: level / 255 * 2 - 1 for both.
    "pytorch-i3d": Normalization((127.5, 127.5), (127.5, 127.5), _MIDDLE, _MIDDLE),
    # craston/MARS, dataset/preprocess_data.py: level - 127.5 for flow, whose levels are truncated
    # (utils1/extract_frames_flows.py): 0 px is level 127 there, and so -0.5 for the network. RGB:
    # ActivityNet's mean.
    "mars": Normalization((128, 128), (1, 1), (114.7748, 107.7354, 99.475), _ONE),
    # facebookresearch/VMZ by pytorch/pytorch, caffe2/video/video_io.cc: flow in px, of a crop of
    # 112 px, without a bound.
    "vmz": Normalization(
        (0.0046635, 0.0046261),
        (0.972347, 0.755146),
        (110.201, 100.64, 95.9966),
        (58.1489, 56.4701, 55.3324),
        flow_unit="px",
    ),
    # torchvision, models/video/resnet.py: Kinetics' mean and standard deviation. Nothing is
    # published for flow, which is as in `unit`.
    "torchvision-video": Normalization(
        (127.5, 127.5),
        (127.5, 127.5),
        _of_unit_range(0.43216, 0.394666, 0.37645),
        _of_unit_range(0.22803, 0.22145, 0.216989),
    ),
    # LisaAnne/lisa-caffe-public, sequence_input_layer.py and create_flow_images_LRCN.m: 16 px + 128
    # minus 128 for flow, whose bound is 8 px. RGB: 103.939, 116.779, 128.68 for BGR, here in the
    # order RGB: the first convolution of such weights is turned when they are loaded.
    "lrcn": Normalization(
        (127.5, 127.5), (127.5 / 128, 127.5 / 128), (128.68, 116.779, 103.939), _ONE
    ),
    # facebookresearch/SlowFast, config/defaults.py: .45 and .225 for each channel. Nothing is
    # published for flow, which is as in `unit`.
    "slowfast": Normalization(
        (127.5, 127.5),
        (127.5, 127.5),
        _of_unit_range(0.45, 0.45, 0.45),
        _of_unit_range(0.225, 0.225, 0.225),
    ),
    # facebookresearch/TimeSformer, datasets/ssv2.py: the same of frames that OpenCV reads as BGR.
    # Its REVERSE_INPUT_CHANNEL turns them around in pack_pathway_output alone, which TimeSformer
    # does not go through.
    "timesformer-ssv2": Normalization(
        (127.5, 127.5),
        (127.5, 127.5),
        _of_unit_range(0.45, 0.45, 0.45),
        _of_unit_range(0.225, 0.225, 0.225),
        "BGR",
    ),
    # facebookarchive/C3D reads frames by OpenCV, so they are BGR, and subtracts a mean cube, which
    # `ClipSpec.mean_file` names. These are one number for each channel in its place, those of
    # jfzhang95/pytorch-video-recognition, dataloaders/dataset.py. Nothing is published for flow,
    # which is as in `unit`.
    "c3d": Normalization((127.5, 127.5), (127.5, 127.5), (90, 98, 102), _ONE, "BGR"),
    # mmaction2, configs/recognition/c3d: these numbers in the order RGB.
    "mmaction2-c3d": Normalization((127.5, 127.5), (127.5, 127.5), (104, 117, 128), _ONE),
    # Karpathy et al., Large-scale Video Classification (CVPR 2014), section 3.3: minus 117. Nothing
    # is published for flow, which is as in `unit`.
    "deepvideo": Normalization((127.5, 127.5), (127.5, 127.5), (117, 117, 117), _ONE),
}
"""The meaning of the names of `ClipSpec.normalization`. `px` leaves flow as it is."""


def find_normalization(name: NormalizationName) -> Normalization | None:
    """Returns the numbers of a normalization, None for px. Raises ConfigError for another name."""
    if name not in NORMALIZATIONS:
        raise ConfigError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {name!r}")
    return NORMALIZATIONS[name]
