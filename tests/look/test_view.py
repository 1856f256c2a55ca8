"""Views of data sets, of videos and of frames: the pictures are those of the stored flow."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.read import FlowDataset
from flowprep.errors import ConfigError, DatasetError, InputError, VideoError
from flowprep.look.color import levels_to_color
from flowprep.look.panels import PANELS
from flowprep.look.render import MARGIN_PX
from flowprep.look.sources import StoredFlow, compute_video
from flowprep.look.view import ViewSpec, draw_pages, view
from flowprep.synthetic import Layer, Motion, Scene, write_video

NUM_FRAMES = 8
QUICK = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))


def scene(velocity_px: tuple[float, float], width: int = 64, height: int = 48) -> Scene:
    return Scene(width, height, (Layer(3, (Motion(velocity_px=velocity_px),)),))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "videos"
    folder.mkdir()
    for name, velocity_px in {"right": (3, 0), "down": (0, 2)}.items():
        frames = (scene(velocity_px).frame(t) for t in range(NUM_FRAMES))
        write_video(folder / f"{name}.mp4", frames, 10)
    tall = scene((1, 0), 40, 70)
    write_video(folder / "tall.mp4", (tall.frame(t) for t in range(NUM_FRAMES)), 10)
    return folder


@pytest.fixture(scope="module")
def dataset(videos: Path) -> FlowDataset:
    out = videos.parent / "out"
    assert flowprep.extract(videos, out, QUICK, executor="inline").is_complete
    return flowprep.open_dataset(out)


@pytest.fixture(scope="module")
def bare(videos: Path) -> FlowDataset:
    """Forward flow of step 2, and nothing else."""
    encode = EncodeSpec(directions=("forward",), keep_rgb=False)
    config = ExtractConfig(QUICK.decode, FlowSpec("dis", step=2), encode)
    flowprep.extract(videos, videos.parent / "bare", config, executor="inline")
    return flowprep.open_dataset(videos.parent / "bare")


def cells(page: np.ndarray, count: int, width: int = 256, height: int = 192) -> list[np.ndarray]:
    """The pictures of the first row of a film's page, of 64x48 px enlarged four times."""
    top, pitch = MARGIN_PX + 24, width + 12
    return [
        page[top : top + height, MARGIN_PX + n * pitch : MARGIN_PX + n * pitch + width][::4, ::4]
        for n in range(count)
    ]


# ---- what is drawn


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_panels_show_what_is_stored(dataset: FlowDataset, direction: str) -> None:
    spec = ViewSpec(("rgb", "flow", "x"), start=2, length=3, direction=direction)  # type: ignore[arg-type]
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
    spec = ViewSpec(("rgb", "consistency", "warp"), start=3, length=1)
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
    drawing = draw_pages(sources, ViewSpec(("flow",)))
    assert drawing.max_flow_px == max(own)
    pages = list(drawing.pages)
    assert len(pages) == 3 * (NUM_FRAMES - 1)
    assert {page.shape for page in pages} == {pages[0].shape}
    assert draw_pages(sources, ViewSpec(max_flow_px=7.5)).max_flow_px == 7.5


def test_a_range_ends_with_the_video(dataset: FlowDataset) -> None:
    source = StoredFlow(dataset, "down")
    assert draw_pages([source], ViewSpec(start=5, length=100)).num_pages == NUM_FRAMES - 1 - 5
    with pytest.raises(ConfigError, match=r"start must be at most 6, the last field of down"):
        draw_pages([source], ViewSpec(start=7))


def test_a_data_set_without_frames_shows_flow(bare: FlowDataset) -> None:
    source = StoredFlow(bare, "right")
    assert draw_pages([source], ViewSpec()).size[0] < 300  # one panel
    for panel in ("rgb", "arrows", "warp"):
        with pytest.raises(ConfigError, match=f"panels {panel} needs RGB frames, and right was"):
            draw_pages([source], ViewSpec((panel,)))
    with pytest.raises(ConfigError, match="consistency needs forward and backward flow, and right"):
        draw_pages([source], ViewSpec(("consistency",)))
    with pytest.raises(ConfigError, match="right has no backward flow; it has forward"):
        draw_pages([source], ViewSpec(direction="backward"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"panels": ("flw",)}, "got 'flw'; did you mean flow?"),
        ({"panels": ()}, "panels must name one or more of rgb, flow"),
        ({"direction": "up"}, "direction must be forward or backward, got 'up'"),
        ({"start": -1}, "start must be >= 0, got -1"),
        ({"length": 0}, "length must be >= 1, got 0"),
        ({"max_flow_px": float("nan")}, "max_flow_px must be > 0 and at most 100000, got nan"),
        ({"play_fps": 0}, "play_fps must be > 0 and <= 1000, got 0"),
        ({"num_pictures": 0}, "num_pictures must be from 1 to 100, got 0"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ViewSpec(**options)  # type: ignore[arg-type]
    assert message in str(error.value)


# ---- files


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_films_of_all_panels(dataset: FlowDataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    report = view(dataset.location, path, ["right"], ViewSpec(tuple(PANELS), length=4))
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
    report = view(dataset.location, path, ["right", "tall"], ViewSpec(num_pictures=4))
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


def test_a_video_is_drawn_as_its_data_set_is(
    dataset: FlowDataset, videos: Path, tmp_path: Path
) -> None:
    spec = ViewSpec(tuple(PANELS), start=1, length=3, num_pictures=2, max_flow_px=4)
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


def test_a_range_past_the_end_of_a_video(videos: Path) -> None:
    with pytest.raises(VideoError, match=r"right.mp4: 1 frame from frame 7 on, .* needs 2"):
        compute_video(videos / "right.mp4", QUICK, start=7, length=5)


# ---- notebooks


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
    with pytest.raises(ConfigError, match="key goes with a data set"):
        flowprep.show(np.zeros((2, 32, 32, 3), np.uint8), "a")
    with pytest.raises(ConfigError, match="flow goes with frames"):
        flowprep.show(dataset, flow=FlowSpec())
    with pytest.raises(ConfigError, match="source must be a data set or"):
        flowprep.show("clip.mp4")
