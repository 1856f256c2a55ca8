"""The options of an import. This module does not import NumPy, so that the help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flowprep.config import Direction, Quantizer, check_choice
from flowprep.errors import ConfigError
from flowprep.exchange.layouts import IMPORTABLE_LAYOUTS, LAYOUTS, FormatName

__all__ = ["IMPORTED", "ImportSpec", "Unit"]

IMPORTED = "imported"
"""The implementation that an imported data set names: no estimator is called so."""

Unit = Literal["px", "bound"]


@dataclass(frozen=True)
class ImportSpec:
    """What a tree holds. A field that is None is read from the tree's `flowprep.json`, if any."""

    layout: str = "mmaction2"
    """The project whose file layout the tree has."""
    bound_px: float | None = None
    """The flow that level 255 stands for, in px: 20 for TSN and mmaction2, denseflow's -b."""
    quantizer: Quantizer | None = None
    """How px became levels. denseflow, dense_flow and gpu_flow use `round`."""
    step: int | None = None
    """Flow goes from frame t to t + step. The default is 1."""
    directions: tuple[Direction, ...] | None = None
    """Directions to import. The default is forward. Only denseflow's file names mark backward
    flow."""
    algorithm: str | None = None
    """The algorithm that computed the flow, if the user knows it."""
    keep_rgb: bool | None = None
    """Import the RGB frames too. None imports them if the first video has them."""
    lists: tuple[str, ...] = ()
    """Frame lists with labels, `SPLIT=PATH` or `PATH`. Without lists, class folders give the
    labels."""
    videos_per_shard: int = 100
    """Videos per tar file."""
    format: FormatName | None = None
    """The format of the files. None takes the one that the tree holds."""
    export_lists: str | None = None
    """The folder that the export wrote its lists to. None looks beside the tree and inside it."""
    unit: Unit = "px"
    """What 1 means in arrays of floats: a pixel, or the bound."""

    def __post_init__(self) -> None:
        if self.layout not in IMPORTABLE_LAYOUTS:
            raise ConfigError(
                f"layout must be one of {', '.join(IMPORTABLE_LAYOUTS)}, got {self.layout!r}"
            )
        layout = LAYOUTS[self.layout]
        if self.directions not in (None, ("forward",)) and not layout.names_direction_and_step:
            raise ConfigError(
                f"directions must be forward for layout {self.layout}, because its file names "
                f"cannot mark backward flow; got {', '.join(self.directions or ())}"
            )
        if self.format is not None and self.format not in get_args(FormatName):
            raise ConfigError(
                f"format must be one of {', '.join(get_args(FormatName))}, got {self.format!r}"
            )
        check_choice("unit", self.unit, Unit)
