"""What features are: windows, layer, crops and the files. Needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowprep.config import check_choice
from flowprep.errors import ConfigError
from flowprep.learn.clip_inputs import CropsName, TailName
from flowprep.learn.training_specs import PrecisionName

__all__ = [
    "CLIP_OPTIONS",
    "DECODE_OPTIONS",
    "POOL",
    "AxesName",
    "FeatureFormat",
    "FeatureSpec",
]

FeatureFormat = Literal["npy", "h5", "webdataset"]
AxesName = Literal["tc", "ct"]

CLIP_OPTIONS = (
    *("frame_stride", "normalization", "subtract_mean_flow", "resize_short_px", "crop_px"),
    "mean_file",
)
"""Fields of ClipSpec that a user may set for foreign weights."""
DECODE_OPTIONS = ("decoder", "on_damage", "on_gaps", "video_stream", "image_fps")
"""Fields of DecodeSpec that may differ from the extraction that a network was trained on."""

POOL = "pool"
"""The layer that every network has: what its classifier sees."""


@dataclass(frozen=True)
class FeatureSpec:
    """Which features of each video, and how they are stored."""

    window: int | None = None
    """Frames in each window. The default is the length of the network's clips. Only networks over
    volumes, such as i3d, take another length."""
    stride: int | None = None
    """Frames from the start of one window to the start of the next. The default is the window."""
    tail: TailName = "drop"
    """What happens to the frames after the last whole window. `drop`: they are in no window.
    `last`: one more window, which ends with the video."""
    layer: str = POOL
    """Which numbers. `pool`: what the classifier sees, such as I3D's 1024. Any other name is a
    module of the network, such as Mixed_4f or fc6, and its output is taken before an activation
    that follows."""
    maps: bool = False
    """Store the maps over time and space as they are. Otherwise they are averaged."""
    crops: CropsName = "center"
    """What the network sees of each picture. `center`: the center. `ten`: corners and center, also
    mirrored, and the average of their features. `whole`: the whole picture, resized to the
    network's square."""
    format: FeatureFormat = "npy"
    """`npy`: files for each video, such as KEY_flow.npy. `h5`: one file, features.h5, with a group
    for each video. `webdataset`: tar files of many videos."""
    axes: AxesName = "tc"
    """`tc`: (windows, channels), as video_features and ActionFormer have it. `ct`: (channels,
    windows), as MS-TCN has it."""
    joined: bool = False
    """Store all streams of a video in one array, RGB first: KEY.npy."""
    precision: PrecisionName = "fp32"
    """Arithmetic of the network. bf16 and fp16 save time and memory."""

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        check_choice("tail", self.tail, TailName)
        check_choice("crops", self.crops, CropsName)
        check_choice("format", self.format, FeatureFormat)
        check_choice("axes", self.axes, AxesName)
        check_choice("precision", self.precision, PrecisionName)
        if not self.layer:
            raise ConfigError("layer must be pool or the name of a module, got an empty name")
        if self.joined and self.maps:
            raise ConfigError(
                f"joined must be False with maps, because maps of several networks have several "
                f"sizes, got {self.joined}; leave --joined or --maps out"
            )
