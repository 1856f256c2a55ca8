"""What only shows beside other videos."""

from __future__ import annotations

import numpy as np

from flowprep.look.findings.across import find_upside_down, find_wrong_labels
from flowprep.synthetic import textured_image


def test_upside_down_needs_others_that_agree() -> None:
    rooms = [textured_image(24, 32, seed).astype(np.float32) for seed in range(6)]
    pictures = {f"room{n}": room for n, room in enumerate(rooms)}
    assert find_upside_down(pictures) == []
    rng = np.random.default_rng(1)
    pictures |= {f"again{n}": rooms[0] + rng.normal(0, 5, rooms[0].shape) for n in range(3)}
    assert find_upside_down(pictures) == []
    pictures["turned"] = rooms[0][::-1, ::-1]
    (finding,) = find_upside_down(pictures)
    assert finding.key == "turned"


def test_wrong_label_needs_classes_that_differ() -> None:
    rng = np.random.default_rng(2)
    motions, labels = {}, {}
    for label, direction in enumerate(((1, 0), (0, 1), (-1, 0))):
        for n in range(10):
            noise = rng.normal(0, 0.1, (4, 4, 2))
            motions[f"{label}/{n}"] = (np.array(direction) + noise).astype(np.float32)
            labels[f"{label}/{n}"] = label
    assert find_wrong_labels(motions, labels) == []
    labels["0/3"] = 1
    (finding,) = find_wrong_labels(motions, labels, ["right", "down", "left"])
    assert (finding.key, "right" in finding.detail) == ("0/3", True)
    mixed = {key: rng.normal(0, 1, (4, 4, 2)).astype(np.float32) for key in motions}
    assert find_wrong_labels(mixed, labels) == []
