"""Moving pictures in a notebook."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flowprep
from flowprep.config import FlowSpec
from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, DatasetError
from tests.look.viewing import cells, scene


def decoded(animation: flowprep.look.show.Animation, folder: Path) -> Iterator[np.ndarray]:
    animation.save(folder / "a.webp")
    with Image.open(folder / "a.webp") as image:
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            yield np.array(image.convert("RGB"))


def test_a_notebook_shows_a_video_of_a_data_set(dataset: FlowDataset, tmp_path: Path) -> None:
    animation = flowprep.show(dataset, "right", length=3, panels=["flow"])
    html = animation._repr_html_()
    found = re.fullmatch(r'<img src="data:image/webp;base64,([^"]+)" alt="right" .*>', html)
    assert found is not None
    assert base64.b64decode(found[1]) == animation.data
    bundle = animation._repr_mimebundle_()
    assert bundle["text/html"] == html
    assert bundle["text/plain"] == repr(animation)
    assert "right" in repr(animation)
    pages = list(decoded(animation, tmp_path))
    assert len(pages) == 3
    assert pages[0].shape == (animation.height, animation.width, 3)
    (flow,) = cells(pages[0], 1)
    # To the right is red.
    assert flow[..., 0].mean() > flow[..., 1:].mean() + 60


def test_a_notebook_shows_frames(tmp_path: Path) -> None:
    frames = np.stack([scene((0, 2)).frame(t) for t in range(5)])
    spec = FlowSpec("dis")
    animation = flowprep.show(frames, panels=["rgb", "flow", "consistency"], flow=spec)
    assert animation.num_pages == 4
    _, flow, _ = cells(next(decoded(animation, tmp_path)), 3)
    # Down is yellow.
    assert flow[..., :2].mean() > flow[..., 2].mean() + 60


def test_a_notebook_takes_the_place_of_a_data_set(dataset: FlowDataset) -> None:
    assert flowprep.show(dataset.location, length=2).title == "down"
    with pytest.raises(DatasetError, match="no video has the key 'none'"):
        flowprep.show(dataset, "none")


def test_what_a_notebook_cannot_show(dataset: FlowDataset) -> None:
    with pytest.raises(ConfigError, match=r"frames must be \(N, H, W, 3\) uint8 RGB, got float64"):
        flowprep.show(np.zeros((2, 32, 32, 3)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="key is only for a data set"):
        flowprep.show(np.zeros((2, 32, 32, 3), np.uint8), "a")
    with pytest.raises(ConfigError, match="flow is only for frames"):
        flowprep.show(dataset, flow=FlowSpec())
    with pytest.raises(ConfigError, match="source must be a data set or"):
        flowprep.show("clip.mp4")
