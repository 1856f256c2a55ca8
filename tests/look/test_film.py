"""Films and pictures have all pages, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from flowprep.errors import ConfigError, StorageError
from flowprep.look.color import flow_to_color
from flowprep.look.film import write_film, write_picture


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
