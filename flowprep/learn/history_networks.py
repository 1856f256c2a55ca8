"""The entries of DeepVideo, C3D and two-stream fusion."""

from __future__ import annotations

import dataclasses

from flowprep.learn import network_builders as builders
from flowprep.learn.clip_inputs import ClipInput, InputStream
from flowprep.learn.network_entry import Network, frames_and_fields, volumes
from flowprep.learn.network_options import (
    C3DOptions,
    DeepVideoOptions,
    NetworkOptions,
    TwoStreamFusionOptions,
)

__all__ = ["HISTORY_NETWORKS"]


def _deepvideo(network: Network, options: NetworkOptions) -> Network:
    """Returns DeepVideo's entry for a fusion of frames (Karpathy et al. 2014, sections 3.1, 3.2).

    Fovea and context are 89 px each, the center and the whole of 178 px.
    """
    assert isinstance(options, DeepVideoOptions)

    def inputs(stream: InputStream) -> tuple[ClipInput, ...]:
        if options.fusion == "multiresolution":
            return (
                ClipInput(f"{stream}-fovea", stream, "stack", 1, view="fovea"),
                ClipInput(f"{stream}-context", stream, "stack", 1, view="context"),
            )
        one = {
            "single": ClipInput(stream, stream, "stack", 1),
            "early": ClipInput(stream, stream, "stack", 10),
            "late": ClipInput(stream, stream, "volume", 2, 15),
            "slow": ClipInput(stream, stream, "volume", 10),
        }
        return (one[options.fusion],)

    return dataclasses.replace(
        network,
        inputs={"rgb": inputs("rgb"), "flow": inputs("flow")},
        crop_px=178 if options.fusion == "multiresolution" else 170,
    )


HISTORY_NETWORKS: dict[str, Network] = {
    "deepvideo": Network(
        builders.deepvideo,
        {
            "rgb": (ClipInput("rgb", "rgb", "stack", 1),),
            "flow": (ClipInput("flow", "flow", "stack", 1),),
        },
        "Karpathy et al., Large-scale Video Classification (CVPR 2014)",
        "Five convolutions and three fully connected layers. `--fusion` joins frames.",
        "Sports-1M: RGB 59.3, slow fusion 60.9, average of the fusions 63.9; UCF101: slow fusion "
        "65.4 (the paper)",
        crop_px=170,
        normalization="deepvideo",
        recipe="deepvideo",
        options=DeepVideoOptions,
        has_one_size=True,
        adapt=_deepvideo,
    ),
    "c3d": Network(
        builders.c3d,
        volumes(16),
        "Tran et al., Learning Spatiotemporal Features (ICCV 2015)",
        "Eight convolutions of 3 x 3 x 3 and three fully connected layers.",
        "UCF101: RGB 82.3 by a linear SVM on fc6 (the paper), 83.1 (open-mmlab/mmaction2)",
        crop_px=112,
        normalization="c3d",
        recipe="c3d",
        options=C3DOptions,
        has_one_size=True,
    ),
    "c3d-bn": Network(
        builders.c3d_bn,
        volumes(16),
        "Carreira and Zisserman, Quo Vadis, Action Recognition? (CVPR 2017)",
        "`c3d` with batch norms. Its first pooling halves time.",
        "Kinetics-400: RGB 56.1; UCF101: RGB 51.6; HMDB51: RGB 24.3 (the paper)",
        crop_px=112,
        normalization="c3d",
        recipe="c3d",
        options=C3DOptions,
        has_one_size=True,
    ),
    "two-stream-fusion": Network(
        builders.two_stream_fusion,
        # Five frames, and the ten fields around each (cnn_ucf101_fusion.m). 10 is the middle of the
        # strides that a training draws there, 5 to 15.
        frames_and_fields(),
        "Feichtenhofer et al., Convolutional Two-Stream Network Fusion (CVPR 2016)",
        "A tower over frames and one over the flow around them. Their maps become one at a layer.",
        "UCF101: 92.5, HMDB51: 65.4 (the paper)",
        normalization="tsn-rgb",
        recipe="two-stream-fusion",
        options=TwoStreamFusionOptions,
        has_one_size=True,
    ),
}
"""The entries by name."""
