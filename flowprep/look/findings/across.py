"""Checks that compare a video with the other videos of its data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowprep.look.findings.kinds import Finding

__all__ = ["find_upside_down", "find_wrong_labels"]


def find_upside_down(pictures: Mapping[str, NDArray[np.float32]]) -> list[Finding]:
    """Finds videos that, turned by 180 degrees, look like several other videos that agree.

    `pictures` are mean frames by key, PICTURE_SHAPE each. A video is reported if at least two
    other videos have a correlation over 0.8 with the turned picture and over 0.7 with each other,
    and no other video has a correlation of 0.6 with the unturned picture. So the check needs
    scenes that occur several times, as with a fixed camera or in the groups of UCF101.
    """
    keys = list(pictures)
    if len(keys) < 3:
        return []
    stack = np.stack([pictures[key] for key in keys])
    upright = _normalized(stack)
    likeness = upright @ upright.T
    turned = _normalized(stack[:, ::-1, ::-1]) @ upright.T
    np.fill_diagonal(likeness, -1)
    np.fill_diagonal(turned, -1)
    found = []
    for number, key in enumerate(keys):
        twins = np.flatnonzero(turned[number] > 0.8)
        if twins.size < 2 or likeness[number].max() >= 0.6:
            continue
        among = likeness[np.ix_(twins, twins)][~np.eye(twins.size, dtype=bool)]
        if among.mean() > 0.7:
            best = int(twins[np.argmax(turned[number, twins])])
            detail = f"turned, it looks like {twins.size} others, most like {keys[best]}"
            found.append(Finding("upside-down", key, detail, 0))
    return found


def find_wrong_labels(
    motions: Mapping[str, NDArray[np.float32]],
    labels: Mapping[str, int],
    class_names: Sequence[str] = (),
) -> list[Finding]:
    """Finds videos that move like another class, if motion tells the classes apart.

    `motions` are mean fields by key, MOTION_SHAPE each. Each video is compared with the mean of
    each class. For its own class, the mean leaves out the video itself. Nothing is reported unless
    four of five videos are nearest to their own class. A video is then reported if it is twice as
    far from its own class as from another class, and as near to the other class as the videos of
    that class are. Needs five videos of a class.
    """
    keys = [key for key in motions if key in labels]
    if not keys:
        return []
    names, places, counts = np.unique(
        [labels[key] for key in keys], return_inverse=True, return_counts=True
    )
    use = counts[places] >= 8
    if len(names[counts >= 8]) < 2:
        return []
    kept = np.flatnonzero(counts >= 8)
    keys = [key for key, wanted in zip(keys, use, strict=True) if wanted]
    places = np.searchsorted(kept, places[use])
    counts = counts[kept]
    points = np.stack([motions[key].reshape(-1) for key in keys]).astype(np.float64)
    sums = np.zeros((len(kept), points.shape[1]))
    np.add.at(sums, places, points)
    means = sums / counts[:, None]
    rows = np.arange(len(keys))
    apart = np.sqrt(((points[:, None] - means) ** 2).sum(-1))
    own_mean = (sums[places] - points) / (counts[places] - 1)[:, None]
    own = np.sqrt(((points - own_mean) ** 2).sum(-1))
    apart[rows, places] = np.inf
    nearest = apart.argmin(axis=1)
    other = apart[rows, nearest]
    if (own < other).mean() < 0.9:
        return []
    spread = np.array([np.median(own[places == place]) for place in range(len(kept))])
    told = (own > 2 * other) & (other < 1.5 * spread[nearest]) & (own > 2 * spread[places])
    found = []
    for row in np.flatnonzero(told).tolist():
        label = int(names[kept[nearest[row]]])
        name = class_names[label] if label < len(class_names) else f"class {label}"
        detail = f"{own[row] / other[row]:.1f} times as far from its own class as from {name}"
        found.append(Finding("wrong-label", keys[row], detail))
    return found


def _normalized(pictures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns pictures (N, ...) as (N, D) vectors of mean 0 and length 1. Blank pictures give 0."""
    flat = pictures.reshape(len(pictures), -1, 3).astype(np.float64)
    flat = (flat - flat.mean(axis=1, keepdims=True)).reshape(len(pictures), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # A picture with a variation under 4 levels is noise.
    return np.where(length > 4 * np.sqrt(flat.shape[1]), flat / np.maximum(length, 1e-9), 0)
