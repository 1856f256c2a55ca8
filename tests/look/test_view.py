"""Views of data sets, of videos and of frames: the pictures are those of the stored flow."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, InputError, VideoError
from flowprep.look.color import levels_to_color
from flowprep.look.panel_names import PANELS
from flowprep.look.render import MARGIN_PX
from flowprep.look.sources import StoredFlow
from flowprep.look.view import DrawingSpec, draw_pages, view
from tests.look.viewing import NUM_FRAMES, QUICK, cells

# ---- what is drawn


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_panels_show_what_is_stored(dataset: FlowDataset, direction: str) -> None:
    spec = DrawingSpec(("rgb", "flow", "x"), start=2, length=3, direction=direction)  # type: ignore[arg-type]
    drawing = draw_pages([StoredFlow(dataset, "right")], spec)
    pages = list(drawing.pages)
    assert len(pages) == drawing.num_pages == 3
    assert drawing.fps == 10
    levels = dataset.quantized("right", 2, 3, direction)  # type: ignore[arg-type]
    grid = 2 if direction == "forward" else 3
    frames = dataset.frames("right", range(grid, grid + 3))
    for number, page in enumerate(pages):
        rgb, flow, x = cells(page, 3)
        assert np.array_equal(rgb, frames[number])
        colors = levels_to_color(levels[number], QUICK.flow, drawing.max_flow_px)
        assert np.array_equal(flow, colors)
        assert np.array_equal(x, np.repeat(levels[number, ..., :1], 3, axis=-1))


def test_errors_of_true_flow_are_small_and_colours_say_so(dataset: FlowDataset) -> None:
    spec = DrawingSpec(("rgb", "consistency", "warp"), start=3, length=1)
    (page,) = draw_pages([StoredFlow(dataset, "right")], spec).pages
    _, consistency, warp = cells(page, 3)
    inner = slice(8, -8)
    assert np.median(consistency[inner, inner]) > 235
    assert np.median(warp[inner, inner]) > 225
    # Three columns go out of the frame.
    assert (warp[inner, -2:] < 225).all()


def test_the_scale_covers_the_stored_flow_and_is_one_for_all_videos(dataset: FlowDataset) -> None:
    sources = [StoredFlow(dataset, key) for key in ("down", "right", "tall")]
    own = [source.suggest_scale("forward") for source in sources]
    assert own[0] in (2, 3)
    assert own[1] in (3, 4)
    drawing = draw_pages(sources, DrawingSpec(("flow",)))
    assert drawing.max_flow_px == max(own)
    pages = list(drawing.pages)
    assert len(pages) == 3 * (NUM_FRAMES - 1)
    assert {page.shape for page in pages} == {pages[0].shape}
    assert draw_pages(sources, DrawingSpec(max_flow_px=7.5)).max_flow_px == 7.5


def test_a_range_ends_with_the_video(dataset: FlowDataset) -> None:
    source = StoredFlow(dataset, "down")
    assert draw_pages([source], DrawingSpec(start=5, length=100)).num_pages == NUM_FRAMES - 1 - 5
    with pytest.raises(ConfigError, match=r"start must be at most 6, the last field of down"):
        draw_pages([source], DrawingSpec(start=7))


def test_a_data_set_without_frames_shows_flow(bare: FlowDataset) -> None:
    source = StoredFlow(bare, "right")
    assert draw_pages([source], DrawingSpec()).size[0] < 300  # one panel
    for panel in ("rgb", "arrows", "warp"):
        with pytest.raises(ConfigError, match=f"panels {panel} needs RGB frames, and right was"):
            draw_pages([source], DrawingSpec((panel,)))
    with pytest.raises(ConfigError, match="consistency needs forward and backward flow, and right"):
        draw_pages([source], DrawingSpec(("consistency",)))
    with pytest.raises(ConfigError, match="right has no backward flow; it has forward"):
        draw_pages([source], DrawingSpec(direction="backward"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panels": ("flw",)}, "got 'flw'; did you mean flow?"),
        ({"panels": ()}, "panels must name one or more of rgb, flow"),
        ({"direction": "up"}, "direction must be one of forward, backward, got 'up'"),
        ({"start": -1}, "start must be >= 0, got -1"),
        ({"length": 0}, "length must be >= 1, got 0"),
        ({"max_flow_px": float("nan")}, "max_flow_px must be > 0 and at most 100000, got nan"),
        ({"play_fps": 0}, "play_fps must be > 0 and <= 1000, got 0"),
        ({"num_pictures": 0}, "num_pictures must be from 1 to 100, got 0"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        DrawingSpec(**options)  # type: ignore[arg-type]
    assert message in str(error.value)


# ---- files


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_films_of_all_panels(dataset: FlowDataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    report = view(dataset.location, path, ["right"], DrawingSpec(tuple(PANELS), length=4))
    assert (report.num_pages, report.names) == (4, ("right",))
    if suffix == ".mp4":
        with av.open(str(path)) as container:
            sizes = {(f.width, f.height) for f in container.decode(video=0)}
    else:
        with Image.open(path) as image:
            assert image.n_frames == 4  # type: ignore[attr-defined]
            sizes = {image.size}
    assert sizes == {(report.width, report.height)}
    assert f"4 pictures of {report.width}x{report.height} px, scale" in report.summary()


def test_a_film_that_would_fill_the_memory_is_refused(
    dataset: FlowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.look.view._MOST_HELD_BYTES", 2_000_000)
    with pytest.raises(ConfigError, match=r"at most 4 for a .webp of .* got 7; .* write an .mp4"):
        view(dataset.location, tmp_path / "a.webp", ["right"])
    assert view(dataset.location, tmp_path / "a.mp4", ["right"]).num_pages == 7


def test_a_sheet_has_moments_of_every_video(dataset: FlowDataset, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    report = view(dataset.location, path, ["right", "tall"], DrawingSpec(num_pictures=4))
    assert report.num_pages == 4
    with Image.open(path) as image:
        assert image.size == (report.width, report.height)


def test_of_many_videos_the_first_is_drawn_with_a_note(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    report = view(dataset.location, tmp_path / "a.png")
    assert report.names == ("down",)
    assert report.notes == ("drew down, the first of 3 videos; name a KEY to draw another one",)


def test_sources_that_are_none(dataset: FlowDataset, videos: Path, tmp_path: Path) -> None:
    to = tmp_path / "a.png"
    with pytest.raises(InputError, match="SOURCE does not exist: nowhere"):
        view("nowhere", to)
    with pytest.raises(InputError, match=r"no video of .* has the key 'rigth'; did you mean right"):
        view(dataset.location, to, ["rigth"])
    with pytest.raises(InputError, match="a KEY goes with a data set"):
        view(videos / "right.mp4", to, ["right"])
    with pytest.raises(ConfigError, match="is a data set of dis flow"):
        view(dataset.location, to, config=QUICK)
    with pytest.raises(ConfigError, match=r"to must end in .mp4, .webp, .gif or .png, got a.avi"):
        view(dataset.location, "a.avi")
    with pytest.raises(VideoError, match=r"videos: the folder holds no frame images"):
        view(videos, to)


# ---- videos and frames


def test_a_video_is_drawn_as_its_data_set_is(
    dataset: FlowDataset, videos: Path, tmp_path: Path
) -> None:
    spec = DrawingSpec(tuple(PANELS), start=1, length=3, num_pictures=2, max_flow_px=4)
    view(videos / "right.mp4", tmp_path / "a.png", spec=spec, config=QUICK)
    view(dataset.location, tmp_path / "b.png", ["right"], spec)
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        a, b = np.array(one), np.array(other)
    # The heading says right.mp4 in place of right; no more differs.
    below = MARGIN_PX + 24
    assert np.array_equal(a[below:], b[below:])


def test_of_a_long_video_the_first_fields_are_drawn(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowprep.look.view.DEFAULT_NUM_FIELDS", 3)
    report = view(videos / "right.mp4", tmp_path / "a.webp", config=QUICK)
    assert report.num_pages == 3
    assert report.notes == ("drew the first 3 fields; give --length for another number",)
