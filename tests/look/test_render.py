"""Pages, scales and files of pictures."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flowprep.errors import ConfigError, StorageError
from flowprep.look.color import OUTSIDE, error_ramp, error_to_color, flow_to_color, round_scale
from flowprep.look.film import write_film, write_picture
from flowprep.look.render import Page, Panel, Ramp, arrow_factor, draw_arrows, fit, panel_size
from flowprep.look.sources import histogram_quantile

# ---- scales


@pytest.mark.parametrize(
    ("px", "scale"),
    [(0, 1), (0.3, 1), (1, 1), (1.01, 1.5), (2, 2), (6.5, 8), (9, 10), (11, 15), (28.3, 30)],
)
def test_scales_read_well(px: float, scale: float) -> None:
    assert round_scale(px) == pytest.approx(scale)


def test_quantile_of_a_histogram() -> None:
    assert histogram_quantile([98, 1, 1], 0.25, 0.98) == 0.25
    assert histogram_quantile([98, 1, 1], 0.25, 0.985) == 0.5
    assert histogram_quantile([98, 1, 1], 0.25, 1.0) == 0.75
    assert histogram_quantile([], 0.25, 0.99) == 0


@pytest.mark.parametrize(
    ("own", "wanted", "size"),
    [
        ((340, 256), None, (340, 256)),
        ((64, 48), None, (256, 192)),
        ((16, 16), None, (208, 208)),
        ((100, 400), None, (100, 400)),
        ((3840, 2160), None, (640, 360)),
        ((360, 1280), None, (180, 640)),
        ((340, 256), 170, (170, 128)),
    ],
)
def test_panels_are_whole_factors_or_shrunk(
    own: tuple[int, int], wanted: int | None, size: tuple[int, int]
) -> None:
    assert panel_size(*own, wanted) == size


def test_a_whole_factor_repeats_px_and_another_shape_is_fitted_inside() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    assert np.array_equal(fit(image, (48, 36)), image.repeat(3, axis=0).repeat(3, axis=1))
    assert fit(image, (16, 12)) is image
    assert fit(image, (8, 100)).shape == (6, 8, 3)
    assert fit(image, (100, 24)).shape == (24, 32, 3)


def test_errors_are_white_to_dark_and_gray_where_there_are_none() -> None:
    colors = error_to_color(np.array([[0, 1.5, 3, 9, np.nan]]), 3)
    assert colors[0, 0].tolist() == [255, 255, 255]
    assert colors[0, 2].tolist() == colors[0, 3].tolist() == error_ramp()[-1].tolist()
    assert colors[0, 4].tolist() == list(OUTSIDE)
    brightness = error_ramp().astype(int).sum(axis=1)
    assert (np.diff(brightness) <= 0).all()


# ---- arrows


@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (-1, 0), (0, -1)])
def test_arrows_point_where_the_flow_goes(direction: tuple[int, int]) -> None:
    frame = np.full((90, 90, 3), 128, np.uint8)
    flow = np.zeros((90, 90, 2), np.float32)
    flow[45, 45] = np.multiply(direction, 10)
    drawn = draw_arrows(frame, flow, scale=1, factor=2, spacing_px=90)
    yellow = (drawn[..., 0] > 200) & (drawn[..., 2] < 120)
    y, x = np.nonzero(yellow)
    u, v = direction
    along = (x - 45) * u + (y - 45) * v
    across = (x - 45) * v - (y - 45) * u
    assert 18 <= along.max() <= 22
    assert along.min() >= -2
    assert np.abs(across).max() <= 4


def test_arrows_grow_in_steps_that_can_be_named() -> None:
    assert arrow_factor(4, 1, 24) == 10
    assert arrow_factor(48, 1, 24) == 1
    assert arrow_factor(1000, 4, 24) == 0.1


# ---- pages


def test_a_page_has_even_sides_and_its_pictures_px_by_px() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (33, 201, 3), np.uint8) for _ in range(3)]
    panels = [Panel("frame"), Panel("flow", wheel="5 px"), Panel("e", Ramp(error_ramp(), "0", "3"))]
    page = Page(panels, (201, 33))
    drawn = page.draw([images], ["frame 0 to 1"], "a clip")
    assert (drawn.shape[1], drawn.shape[0]) == page.size
    assert page.size[0] % 2 == 0 == page.size[1] % 2
    for image in images:
        found = [
            (y, x)
            for y, x in zip(*np.nonzero((drawn == image[0, 0]).all(axis=-1)), strict=True)
            if np.array_equal(drawn[y : y + 33, x : x + 201], image)
        ]
        assert len(found) == 1


def test_a_long_name_does_not_run_into_the_label() -> None:
    page = Page([Panel("frame")], (200, 40))
    image = np.zeros((40, 200, 3), np.uint8)
    long = page.draw([[image]], ["frame 7 to 8"], "very/" * 40)
    short = page.draw([[image]], ["frame 7 to 8"], "v")
    assert np.array_equal(long[:, -80:], short[:, -80:])


def test_a_page_that_is_too_large_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"width must leave a page of at most 16384 px"):
        Page([Panel("frame")] * 3, (8000, 100))


# ---- films


def pages(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Four fields of colour, and a bar that moves on from page to page."""
    all_pages = []
    for number in range(count):
        flow = np.zeros((height, width, 2))
        flow[:32, :48], flow[32:, :48], flow[:32, 48:], flow[32:, 48:] = (
            (5, 0),
            (0, 5),
            (-5, 0),
            (0, -5),
        )
        page = flow_to_color(flow, 6)
        page[:, 8 * number : 8 * number + 4] = 0
        all_pages.append(page)
    return all_pages


def read(path: Path) -> list[np.ndarray]:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(number)
            found.append(np.array(image.convert("RGB")))
        return found


@pytest.mark.parametrize(("suffix", "most_levels"), [("mp4", 6), ("webp", 6), ("gif", 6)])
def test_films_have_all_pages_in_their_colours(
    tmp_path: Path, suffix: str, most_levels: int
) -> None:
    path = tmp_path / f"film.{suffix}"
    wanted = pages(9)
    assert write_film(path, iter(wanted), 12.5) == 9
    found = read(path)
    assert len(found) == 9
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        # Away from edges, where 4:2:0 mixes colours.
        for y, x in ((16, 90), (48, 90)):
            assert np.abs(one[y, x].astype(int) - other[y, x]).max() <= most_levels
        assert np.abs(one.astype(int) - other).mean() < 4
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_an_mp4_is_what_every_player_takes(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", iter(pages(5)), 29.97)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.average_rate or 0) == pytest.approx(29.97)
        assert (stream.codec_context.colorspace, stream.codec_context.color_range) == (6, 1)
    # The index stands first, so that a film plays while it loads.
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", ["mp4", "webp", "gif"])
def test_a_film_that_fails_leaves_what_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    path.write_bytes(b"the old one")

    def failing() -> object:
        yield from pages(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_film(path, failing(), 25)  # type: ignore[arg-type]
    assert path.read_bytes() == b"the old one"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in .mp4, .webp, .gif, got film.avi"):
        write_film("film.avi", [], 25)
    with pytest.raises(ConfigError, match="play_fps must be > 0"):
        write_film(tmp_path / "film.mp4", [], 0)
    with pytest.raises(StorageError, match=r"the folder of .*a.png does not exist"):
        write_picture(tmp_path / "none" / "a.png", pages(1)[0])
