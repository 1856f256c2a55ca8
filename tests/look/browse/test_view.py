"""The panels in a real browser show what the data set holds."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowprep
from flowprep.config import Direction, EncodeSpec, ExtractConfig, FlowSpec
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.flow.consistency import consistency_error
from flowprep.flow.homography import corner_motion_px, inverse, with_camera_motion
from flowprep.inputs.keys import escape_key
from flowprep.look.color import error_to_color, flow_to_color
from flowprep.look.panels import CONSISTENCY_PX
from flowprep.look.sources import StoredFlow
from flowprep.synthetic import camera_scene, write_video
from tests.look.browse.asking import KEY
from tests.look.browse.browsing import CLIPS, CONFIG, Clip, make_dataset
from tests.look.browse.opening import (
    ALL_PANELS,
    Opened,
    address,
    hover,
    numbers,
    pixels,
    settled,
    value,
)
from tests.look.chromium import until

ODD_SETS = {
    "no-rgb": dataclasses.replace(CONFIG, encode=EncodeSpec(keep_rgb=False)),
    "forward-alone": dataclasses.replace(CONFIG, encode=EncodeSpec(directions=("forward",))),
    "backward-alone": dataclasses.replace(CONFIG, encode=EncodeSpec(directions=("backward",))),
    "step-2": dataclasses.replace(
        CONFIG, flow=FlowSpec("farneback", step=2, bound_px=10, quantizer="centered")
    ),
    "floor": dataclasses.replace(CONFIG, flow=FlowSpec("farneback", quantizer="floor")),
}


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_panels_show_what_the_data_set_holds(
    opened: Opened, url: str, dataset: FlowDataset, direction: Direction
) -> None:
    page = opened(url)
    for clip in CLIPS:
        check_panels(page, url, dataset, clip, direction)


def check_panels(
    page: Any, url: str, dataset: FlowDataset, clip: Clip, direction: Direction
) -> None:
    key = escape_key(clip.name)
    frame = clip.num_frames // 2
    field = frame if direction == "forward" else frame - 1
    # The middle frame of two has no flow forward.
    frame, field = (0, 0) if field >= clip.num_frames - 1 else (frame, field)
    if direction == "backward" and clip.num_frames == 2:
        frame, field = 1, 0
    link = address(key, t=frame, panels=ALL_PANELS, direction=direction)
    page.goto(url + link)
    until(page, f"document.querySelector('.view h2')?.title === {key!r}")
    settled(page, frame)
    other: Direction = "backward" if direction == "forward" else "forward"
    levels = dataset.quantized(key, field, 1, direction)[0]
    flow = dataset.flow(key, field, 1, direction)[0]
    back = dataset.flow(key, field, 1, other)[0]
    scale = StoredFlow(dataset, key).suggest_scale(direction)
    assert float(page.input_value("#scale")) == scale
    wanted = {
        "frame": dataset.frames(key, [frame])[0],
        "x": np.repeat(levels[..., :1], 3, axis=-1),
        "y": np.repeat(levels[..., 1:], 3, axis=-1),
        "color": flow_to_color(flow, scale),
        "reverse": flow_to_color(back, scale),
    }
    # What decodes JPEGs may round another way; the colours themselves may not.
    most = {"frame": 3, "x": 1, "y": 1, "color": 2, "reverse": 2}
    for name, image in wanted.items():
        shown = pixels(page, name)
        assert shown.shape == image.shape, name
        assert np.abs(shown.astype(int) - image).max() <= most[name], name
    error = consistency_error(flow, back)
    shown, drawn = pixels(page, "error"), error_to_color(error, CONSISTENCY_PX)
    apart = np.abs(shown.astype(int) - drawn).max(axis=-1)
    # OpenCV looks up at 1/32 px.
    assert np.mean(apart > 8) < 0.01
    assert len(np.unique(pixels(page, "arrows").reshape(-1, 3), axis=0)) > 50

    for x, y in ((0, 0), (clip.width // 3, clip.height // 2), (clip.width - 1, clip.height - 1)):
        hover(page, "color", x, y, clip)
        u, v = flow[y, x].tolist()
        assert page.text_content("#point") == f"x {x}  y {y}"
        assert numbers(value(page, "color")) == pytest.approx([u, v, math.hypot(u, v)], abs=6e-4)
        assert numbers(value(page, "arrows")) == numbers(value(page, "color"))
        assert numbers(value(page, "x")) == pytest.approx([u, levels[y, x, 0]], abs=6e-4)
        assert numbers(value(page, "y")) == pytest.approx([v, levels[y, x, 1]], abs=6e-4)
        u, v = back[y, x].tolist()
        assert numbers(value(page, "reverse")) == pytest.approx([u, v, math.hypot(u, v)], abs=6e-4)
        if np.isnan(error[y, x]):
            assert value(page, "error") == "leaves the frame"
        else:
            assert numbers(value(page, "error")) == pytest.approx([error[y, x]], abs=0.03)
        rgb = dataset.frames(key, [frame])[0, y, x]
        assert numbers(value(page, "frame")) == pytest.approx(rgb, abs=3)


def test_where_fields_lie_and_where_there_is_none(opened: Opened, url: str) -> None:
    page = opened(url + address(KEY, t=11, panels="frame.color.reverse"))

    def said() -> list[str]:
        return list(
            page.eval_on_selector_all(
                ".panel",
                """all => all.map(one => [".where", ".note"].map(
                    name => one.querySelector(name).textContent).join("|"))""",
            )
        )

    settled(page, 11)
    none = "No flow leaves the last frame"
    assert said() == ["11|", f"|{none}", f"|{none}"]
    page.keyboard.press("ArrowLeft")
    settled(page, 10)
    assert said() == ["10|", "10 → 11|", "11 → 10|"]
    page.keyboard.press("d")
    page.wait_for_timeout(150)
    assert said() == ["10|", "10 → 9|", "9 → 10|"]
    page.keyboard.press("Home")
    settled(page, 0)
    none = "No flow leads back from the first frame"
    assert said() == ["0|", f"|{none}", f"|{none}"]


@pytest.mark.parametrize("name", ODD_SETS)
def test_other_data_sets(opened: Opened, tmp_path: Path, name: str) -> None:
    config = ODD_SETS[name]
    dataset = open_dataset(make_dataset(tmp_path, config, CLIPS[:1]))
    direction = config.encode.directions[0]
    with opened.serving(dataset) as url:
        page = opened(url + address(KEY, t=5, panels=ALL_PANELS))
        settled(page, 5)
        shown = page.eval_on_selector_all(".panel", "all => all.map(one => one.dataset.panel)")
        both = len(config.encode.directions) == 2
        expected = ["color", "x", "y", "arrows", *(["reverse", "error"] if both else [])]
        assert shown == (["frame", *expected] if config.encode.keep_rgb else expected)
        assert page.is_visible("#directions") == both
        field = 5 if direction == "forward" else 5 - config.flow.step
        flow = dataset.flow(KEY, field, 1, direction)[0]
        color = flow_to_color(flow, float(page.input_value("#scale")))
        assert np.abs(pixels(page, "color").astype(int) - color).max() <= 2
        hover(page, "x", 40, 30, CLIPS[0])
        assert numbers(value(page, "x"))[0] == pytest.approx(flow[30, 40, 0], abs=6e-4)
        other = 5 + config.flow.step * (1 if direction == "forward" else -1)
        assert page.text_content("[data-panel=color] .where") == f"5 → {other}"
    dataset.close()


def test_a_damaged_picture_stops_nothing(
    opened: Opened, dataset: FlowDataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(dataset.location, out)
    video = dataset.videos[KEY]
    sizes = dataset.offsets(KEY, "flow_x")
    with open(out / f"shards/{video.shard:06d}.tar", "r+b") as file:
        file.seek(video.members["flow_x"][0] + int(sizes[3]))
        file.write(b"\0" * 200)
    damaged = open_dataset(out)
    with opened.serving(damaged) as url:
        page = opened(url + address(KEY, t=3))
        settled(page, 3)
        assert page.text_content("[data-panel=x] .note") == "flow_x 3 is not a JPEG"
        assert page.text_content("[data-panel=frame] .note") == ""
        page.keyboard.press("ArrowRight")
        settled(page, 4)
        assert page.text_content("[data-panel=x] .note") == ""
        (out / f"shards/{video.shard:06d}.tar").write_bytes(b"")
        damaged.close()
        damaged._metadata.clear()
        page.keyboard.press("ArrowDown")
        until(page, "!document.querySelector('#notice').hidden")
        assert "cannot be read" in page.text_content("#notice")
    damaged.close()
    # That is what Chromium writes for a status of 500.
    assert all("500" in line for line in opened.said)
    opened.said.clear()


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_cameras_motion_that_was_taken_out(
    opened: Opened, tmp_path: Path, direction: Direction
) -> None:
    scenes = camera_scene("pan", seed=2), camera_scene("zoom", seed=3)
    write_video(tmp_path / "cut.mp4", (scenes[t > 1].frame(t) for t in range(4)))
    config = ExtractConfig(flow=FlowSpec("dis", camera_motion="homography"))
    flowprep.extract(tmp_path / "cut.mp4", tmp_path / "out", config, executor="inline")
    dataset = open_dataset(tmp_path / "out")
    homographies = dataset.metadata("cut").homographies
    assert homographies
    assert homographies[1] is None
    assert homographies[2] is not None
    frame = 2 if direction == "forward" else 3
    with opened.serving(dataset) as url:
        panels = "color.error"
        page = opened(url + address("cut", t=frame, panels=panels, direction=direction))
        settled(page, frame)
        where = page.text_content('.panel[data-panel="color"] .where')
        px = corner_motion_px(homographies[2], 320, 240)
        assert where.endswith(f" · camera {px:.1f} px")
        there, back = homographies[2], inverse(homographies[2])
        other: Direction = "backward" if direction == "forward" else "forward"
        if direction == "backward":
            there, back = back, there
        error = consistency_error(
            with_camera_motion(dataset.flow("cut", 2, 1, direction)[0], there),
            with_camera_motion(dataset.flow("cut", 2, 1, other)[0], back),
        )
        shown, drawn = pixels(page, "error"), error_to_color(error, CONSISTENCY_PX)
        assert np.nanmedian(error) < 0.3
        assert np.mean(np.abs(shown.astype(int) - drawn).max(axis=-1) > 12) < 0.02
        page = opened(url + address("cut", t=frame - 1, panels=panels, direction=direction))
        settled(page, frame - 1)
        where = page.text_content('.panel[data-panel="color"] .where')
        assert where.endswith(" · camera not found")
