"""Flow to draw, stored or computed now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowprep.dataset.read import FlowDataset
from flowprep.errors import VideoError
from flowprep.look.sources import StoredFlow, compute_video, histogram_quantile
from tests.look.viewing import QUICK


def test_computed_flow_is_what_extraction_stores(dataset: FlowDataset, videos: Path) -> None:
    computed = compute_video(videos / "right.mp4", QUICK, start=2, length=3)
    assert (computed.num_flows, computed.first, computed.fps) == (3, 2, 10)
    for direction in ("forward", "backward"):
        stored = dataset.quantized("right", 2, 3, direction)  # type: ignore[arg-type]
        assert np.array_equal(computed.levels(0, 3, direction), stored)  # type: ignore[arg-type]
    assert np.array_equal(computed.frames([0, 3]), dataset.frames("right", [2, 5]))
    whole = compute_video(videos / "right.mp4", QUICK)
    assert whole.speeds("forward") == StoredFlow(dataset, "right").speeds("forward")
    computed.close()
    whole.close()


def test_a_range_past_the_end_of_a_video(videos: Path) -> None:
    with pytest.raises(VideoError, match=r"right.mp4: 1 frame from frame 7 on, .* needs 2"):
        compute_video(videos / "right.mp4", QUICK, start=7, length=5)


def test_quantile_of_a_histogram() -> None:
    assert histogram_quantile([98, 1, 1], 0.25, 0.98) == 0.25
    assert histogram_quantile([98, 1, 1], 0.25, 0.985) == 0.5
    assert histogram_quantile([98, 1, 1], 0.25, 1.0) == 0.75
    assert histogram_quantile([], 0.25, 0.99) == 0
