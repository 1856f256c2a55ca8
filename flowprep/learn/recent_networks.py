"""The entries of recent networks: those with attention."""

from __future__ import annotations

import dataclasses

from flowprep.learn import network_builders as builders
from flowprep.learn.network_entry import Network, volumes
from flowprep.learn.network_options import NetworkOptions, TimeSformerOptions, TimeSformerSize

__all__ = ["RECENT_NETWORKS"]

_TIMESFORMER_CLIPS: dict[TimeSformerSize, tuple[int, int, int]] = {
    "base": (8, 32, 224),
    "hr": (16, 16, 448),
    "long": (96, 4, 224),
}
"""Frames, stride and crop (Bertasius et al. 2021, section 4.4; facebookresearch/TimeSformer,
configs/Kinetics)."""


def _timesformer(network: Network, options: NetworkOptions) -> Network:
    """Returns TimeSformer's entry for a size."""
    assert isinstance(options, TimeSformerOptions)
    num_frames, stride, crop_px = _TIMESFORMER_CLIPS[options.size]
    return dataclasses.replace(network, inputs=volumes(num_frames, stride), crop_px=crop_px)


RECENT_NETWORKS: dict[str, Network] = {
    "timesformer": Network(
        builders.timesformer,
        volumes(8, 32),
        "Bertasius et al., Is Space-Time Attention All You Need? (ICML 2021)",
        "Twelve blocks of attention over patches of 16 x 16 px, without convolutions.",
        "Kinetics-400: RGB 77.9, size hr 79.6, size long 80.6; Something-Something V2: RGB 59.1, "
        "61.8 and 62.0 (facebookresearch/TimeSformer)",
        normalization="slowfast",
        recipe="timesformer",
        options=TimeSformerOptions,
        has_one_size=True,
        adapt=_timesformer,
    ),
}
"""The entries by name."""
