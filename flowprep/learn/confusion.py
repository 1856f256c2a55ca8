"""Confusion counts as a table and as a picture."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["confusion_csv", "confusion_png"]

_MOST_PRINTED_SHARES = 20
"""With more classes, the shares would not fit into their cells."""


def confusion_csv(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Returns (K, K) counts as CSV: a row for each label, a column for each prediction."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("label", *names))
    for name, row in zip(names, counts, strict=True):
        writer.writerow((name, *row.tolist()))
    return text.getvalue()


def confusion_png(counts: NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """Returns a picture of (K, K) counts as PNG: each row is a label, and its shares sum to 1.

    Rows without a video are gray. With few classes, each cell shows its share in %. With many
    classes, the colors rise with the square root of the shares, so that rare confusions show.
    """
    # Imported late: only the picture needs it, and it takes a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize, PowerNorm
    from matplotlib.figure import Figure

    num_classes = len(names)
    totals = counts.sum(axis=1, keepdims=True)
    is_absent = np.repeat(totals == 0, num_classes, axis=1)
    shares = np.ma.masked_array(counts / np.maximum(totals, 1), is_absent)
    # Inches per cell. A cell fits a line of text in the font below (72 points per inch).
    few = num_classes <= _MOST_PRINTED_SHARES
    cell = 0.45 if few else 0.16 if num_classes <= 150 else 0.1
    font_points = 9.0 if few else 7.0 if num_classes <= 150 else 4.5
    side = max(3.0, cell * num_classes)
    figure = Figure(figsize=(side + 1.2, side + 1.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # One hue from white to dark: readable without color vision, and empty cells stay white.
    norm = Normalize(0, 1) if few else PowerNorm(0.5, 0, 1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    axes.set_facecolor("0.93")
    places = np.arange(num_classes)
    words: dict[str, Any] = {"fontsize": font_points, "parse_math": False}
    axes.set_xticks(places, names, rotation=90, **words)
    axes.set_yticks(places, names, **words)
    axes.tick_params(length=0)
    axes.set_xlabel("prediction", fontsize=font_points + 2)
    axes.set_ylabel("label, each row 100 %" if few else "label", fontsize=font_points + 2)
    axes.set_title(title, fontsize=font_points + 3, parse_math=False)
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if few:
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = float(shares[row, column])
            axes.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=font_points - 1,
                color="white" if share > 0.55 else "0.2",
            )
    else:
        bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, shrink=0.4)
        bar.set_label("share of the label's videos", fontsize=font_points + 1)
        bar.ax.tick_params(labelsize=font_points)
        bar.outline.set_visible(False)
    png = io.BytesIO()
    with warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes, which is good enough.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(png, format="png")
    return png.getvalue()
