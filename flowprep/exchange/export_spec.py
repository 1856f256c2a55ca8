"""The options of an export. This module does not import NumPy, so that the help is fast."""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowprep.config import Direction, check_choice
from flowprep.errors import ConfigError
from flowprep.exchange.layouts import LAYOUTS, RGB_FORMATS, Values

__all__ = ["ExportSpec"]


@dataclass(frozen=True)
class ExportSpec:
    """What is exported, and in which form."""

    layout: str = "mmaction2"
    """The project whose file names, first frame numbers and frame lists to follow."""
    format: str = "jpg"
    """`jpg`, `zip` and `webdataset` hold the stored bytes; the other formats decode them."""
    direction: Direction = "forward"
    """The flow from frame t to t + step (forward) or from t + step to t (backward)."""
    keep_rgb: bool | None = None
    """Export the RGB frames too. None exports them if the data set has them and the format has a
    place for them."""
    values: Values = "px"
    """The values in .npy, .npz and HDF5: float32 px, or the stored uint8 levels."""
    keys: tuple[str, ...] = ()
    """Only videos whose key matches one of these patterns, such as `walk/*`."""
    splits: tuple[str, ...] = ()
    """Only videos of these splits."""
    classes: tuple[str, ...] = ()
    """Only videos of these classes, by name or number."""
    flat: bool = False
    """Leave out the class folders, as the layouts tsn and pytorch-i3d always do. With gpu-flow, the
    lists that jeffreyyihuang's two-stream-action-recognition reads are written too."""
    lists: str | None = None
    """The folder for the frame lists and flowprep.json. The default is DEST-lists, beside DEST."""
    list_names: str | None = None
    """The names of the frame lists, with {split} and {stream} (flow or rgb), such as
    `kinetics400_{split}_list_{stream}.txt`. The default is `{stream}_{split}.txt`."""
    list_root: str | None = None
    """The path to put before the paths in the frame lists: the place of DEST on the machine that
    reads them."""
    videos_per_shard: int = 100
    """Videos per tar file of WebDataset."""
    clip_length: int | None = None
    """The flows of a sample of WebDataset, so that all samples have the same members. None makes
    each video one sample."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        formats = LAYOUTS[self.layout].formats
        if self.format not in formats:
            others = [name for name, layout in LAYOUTS.items() if self.format in layout.formats]
            elsewhere = f"; {self.format} goes with {', '.join(others)}" if others else ""
            raise ConfigError(
                f"format of layout {self.layout} must be one of {', '.join(formats)}, "
                f"got {self.format!r}{elsewhere}"
            )
        check_choice("direction", self.direction, Direction)
        check_choice("values", self.values, Values)
        if self.keep_rgb and not self.holds_rgb:
            able = [name for name in formats if ExportSpec(self.layout, name).holds_rgb]
            raise ConfigError(
                f"format {self.format} holds only flow; leave out --rgb, or choose "
                f"{' or '.join(able)}"
            )
        if self.keep_rgb is False and not LAYOUTS[self.layout].has_flow:
            raise ConfigError(f"layout {self.layout} holds only RGB frames; leave out --no-rgb")
        if self.values != "px" and self.format not in ("npy", "npz", "hdf5"):
            raise ConfigError(
                f"values {self.values} are for the formats npy, npz and hdf5, not for {self.format}"
            )
        if self.videos_per_shard < 1:
            raise ConfigError(f"videos_per_shard must be >= 1, got {self.videos_per_shard}")
        layout = LAYOUTS[self.layout]
        if self.flat and (layout.is_flat or not layout.has_class_folders):
            raise ConfigError(f"layout {self.layout} has no class folders; leave out --flat")
        if self.clip_length is not None and self.format != "webdataset":
            raise ConfigError(
                f"clip_length is for the format webdataset, not for {self.format}; leave it out"
            )
        if self.clip_length is not None and self.clip_length < 1:
            raise ConfigError(f"clip_length must be >= 1, got {self.clip_length}")
        self._check_list_names()

    def _check_list_names(self) -> None:
        names = self.list_names
        if names is None:
            return
        if LAYOUTS[self.layout].list_kind != "lines" or self.format == "webdataset":
            kind = "format webdataset" if self.format == "webdataset" else f"layout {self.layout}"
            raise ConfigError(f"list_names must be left out: {kind} has no lists of such names")
        rest = names.replace("{split}", "").replace("{stream}", "")
        if (
            not {"{split}", "{stream}"} <= set(re.findall(r"\{[a-z]+\}", names))
            or re.search(r"[{}/\\\x00-\x1f]", rest)
            or names.startswith((".", "-"))
        ):
            raise ConfigError(
                "list_names must be a file name with {split} and {stream}, such as "
                f"ucf101_{{split}}_{{stream}}.txt, got {names!r}"
            )

    @property
    def holds_rgb(self) -> bool:
        """Whether the format has a place for RGB frames."""
        return self.format in RGB_FORMATS
