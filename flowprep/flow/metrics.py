"""The distance between an estimate and the truth, in the measures of Middlebury and KITTI.

EPE      mean length of the difference, px                             Baker et al., IJCV 2011
AAE      mean angle between (u, v, 1) and the true one, degrees        Barron, Fleet, IJCV 1994
Fl-all   share of errors > 3 px and > 5 % of the true length           Menze, Geiger, CVPR 2015
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowprep.errors import InputError
from flowprep.flow.files import FLOW_FILE_SUFFIXES, read_flow

__all__ = [
    "FlowScore",
    "angular_error",
    "endpoint_error",
    "find_flow_pairs",
    "score_files",
    "score_flow",
    "total_score",
]

OUTLIER_PX = 3.0
OUTLIER_SHARE = 0.05


@dataclass(frozen=True)
class FlowScore:
    """The errors of one field, or the sums over many fields. Means are over pixels."""

    name: str
    num_pixels: int
    num_true: int
    """Number of pixels whose truth is known."""
    num_scored: int
    """Number of these pixels whose estimate is known too."""
    sum_epe_px: float
    sum_angle_degrees: float
    num_outliers: int

    @property
    def epe_px(self) -> float:
        """Mean endpoint error; NaN if nothing was scored."""
        return self.sum_epe_px / self.num_scored if self.num_scored else float("nan")

    @property
    def aae_degrees(self) -> float:
        """Mean angular error; NaN if nothing was scored."""
        return self.sum_angle_degrees / self.num_scored if self.num_scored else float("nan")

    @property
    def fl_all(self) -> float:
        """Share of outliers, from 0 to 1; NaN if nothing was scored."""
        return self.num_outliers / self.num_scored if self.num_scored else float("nan")

    @property
    def valid_share(self) -> float:
        """Share of all pixels that were scored: known in the truth and in the estimate."""
        return self.num_scored / self.num_pixels if self.num_pixels else float("nan")

    @property
    def density(self) -> float:
        """Share of the known truth that has an estimate; NaN if no truth is known."""
        return self.num_scored / self.num_true if self.num_true else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Returns the measures as JSON values; None if nothing was scored."""
        measures = {
            "epe_px": self.epe_px,
            "aae_degrees": self.aae_degrees,
            "fl_all": self.fl_all,
            "valid_share": self.valid_share,
            "density": self.density,
        }
        return {
            "name": self.name,
            **{name: None if np.isnan(value) else value for name, value in measures.items()},
            "num_pixels": self.num_pixels,
            "num_true": self.num_true,
            "num_scored": self.num_scored,
        }


def endpoint_error(
    flow: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Returns the length of the difference of two fields: (..., 2) px each, (...) float64 px."""
    difference = np.subtract(flow, truth, dtype=np.float64)
    return np.asarray(np.hypot(difference[..., 0], difference[..., 1]))


def angular_error(
    flow: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Returns the angle between (u, v, 1) of two fields: (..., 2) px each, (...) float64 degrees.

    The third component, one frame of time, keeps the angle defined where nothing moves, and makes
    the angle depend on the speed too. Source: Barron, Fleet and Beauchemin (IJCV 1994).
    """
    one = np.concatenate([flow, np.ones_like(flow[..., :1])], axis=-1, dtype=np.float64)
    other = np.concatenate([truth, np.ones_like(truth[..., :1])], axis=-1, dtype=np.float64)
    # The arc cosine of the product would lose half of the digits where the fields agree.
    sine = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.asarray(np.degrees(np.arctan2(sine, (one * other).sum(axis=-1))))


def score_flow(
    flow: NDArray[np.floating[Any]],
    truth: NDArray[np.floating[Any]],
    *,
    known: NDArray[np.bool_] | None = None,
    truth_known: NDArray[np.bool_] | None = None,
    name: str = "",
) -> FlowScore:
    """Scores an estimate where both the estimate and the truth are known.

    `flow` and `truth` are (H, W, 2) px, (u right, v down). `known` and `truth_known` are (H, W)
    bool; None means that all pixels are known. Values of the estimate that are not finite count as
    unknown. An outlier has an error of more than 3 px and of more than 5 % of the true length.
    Raises InputError if the sizes differ.
    """
    if flow.shape != truth.shape:
        raise InputError(
            f"{name or 'the estimate'} must have the size of its truth, "
            f"{truth.shape[1]}x{truth.shape[0]}, got {flow.shape[1]}x{flow.shape[0]}"
        )
    true = np.ones(truth.shape[:2], np.bool_) if truth_known is None else truth_known
    scored = true & np.isfinite(flow).all(axis=-1)
    if known is not None:
        scored &= known
    flow, truth = flow[scored], truth[scored]
    error = endpoint_error(flow, truth)
    length = np.hypot(truth[..., 0].astype(np.float64), truth[..., 1].astype(np.float64))
    return FlowScore(
        name=name,
        num_pixels=scored.size,
        num_true=int(true.sum()),
        num_scored=int(scored.sum()),
        sum_epe_px=float(error.sum()),
        sum_angle_degrees=float(angular_error(flow, truth).sum()),
        num_outliers=int(((error > OUTLIER_PX) & (error > OUTLIER_SHARE * length)).sum()),
    )


def total_score(scores: Iterable[FlowScore], name: str = "all") -> FlowScore:
    """Returns the score of all pixels together, as KITTI's benchmark does."""
    parts = list(scores)
    return FlowScore(
        name=name,
        num_pixels=sum(one.num_pixels for one in parts),
        num_true=sum(one.num_true for one in parts),
        num_scored=sum(one.num_scored for one in parts),
        sum_epe_px=sum(one.sum_epe_px for one in parts),
        sum_angle_degrees=sum(one.sum_angle_degrees for one in parts),
        num_outliers=sum(one.num_outliers for one in parts),
    )


def find_flow_pairs(
    estimate: str | os.PathLike[str], truth: str | os.PathLike[str]
) -> list[tuple[str, Path, Path]]:
    """Pairs the flow files of two folders by name, or pairs two files.

    Returns (name, estimate, truth) for each pair. A name is the path below the folder without its
    ending, so a .flo may be scored against a PNG. If a folder holds .flo files, its PNGs are
    ignored. Raises InputError for a path that does not exist, for a truth without an estimate, and
    for a folder without flow files.
    """
    paths = Path(estimate), Path(truth)
    for what, path in zip(("ESTIMATE", "TRUTH"), paths, strict=True):
        if not path.exists():
            raise InputError(f"{what} does not exist: {path}; check the path")
    if paths[0].is_dir() != paths[1].is_dir():
        raise InputError(
            f"ESTIMATE and TRUTH must be two files or two folders, got "
            f"{' and '.join('a folder' if path.is_dir() else 'a file' for path in paths)}"
        )
    if paths[0].is_file():
        return [(paths[0].name, *paths)]
    estimates, truths = (_flow_files(path) for path in paths)
    if missing := sorted(set(truths) - set(estimates)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{paths[0]} must have an estimate for each truth in {paths[1]}, "
            f"it has none for {', '.join(missing[:3])}{more}"
        )
    return [(name, estimates[name], truths[name]) for name in sorted(truths)]


def score_files(
    estimate: str | os.PathLike[str], truth: str | os.PathLike[str], name: str | None = None
) -> FlowScore:
    """Scores a flow file against a file of the truth; raises InputError as `read_flow` does."""
    flow, known = read_flow(estimate)
    true_flow, truth_known = read_flow(truth)
    name = os.fspath(estimate) if name is None else name
    return score_flow(flow, true_flow, known=known, truth_known=truth_known, name=name)


def _flow_files(folder: Path) -> dict[str, Path]:
    paths = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(".")]
    # Next to .flo files, PNGs are pictures.
    for suffix in FLOW_FILE_SUFFIXES:
        files = {
            path.relative_to(folder).with_suffix("").as_posix(): path
            for path in paths
            if path.suffix.lower() == suffix
        }
        if files:
            return files
    raise InputError(
        f"{folder} holds no {' or '.join(FLOW_FILE_SUFFIXES)} file; name a folder with flow files"
    )
