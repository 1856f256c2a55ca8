"""`flowprep view`: from words to a picture, and what a mistake reads like."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from PIL import Image

from tests.cli.conftest import NUM_FRAMES, Command

KEY = "move_left/a"


def test_a_film_of_a_data_set(flowprep: Command, extract: Command, tmp_path: Path) -> None:
    assert extract().code == 0
    film = tmp_path / "film.mp4"
    result = flowprep("view", tmp_path / "out", KEY, "--to", film, "--max-flow-px", 4)
    assert (result.code, result.stderr) == (0, "")
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == NUM_FRAMES - 1
    size = f"{frames[0].width}x{frames[0].height}"
    assert result.stdout.startswith(f"{film}: {NUM_FRAMES - 1} pictures of {size} px, scale 4 px,")


def test_a_sheet_of_all_panels(flowprep: Command, extract: Command, tmp_path: Path) -> None:
    assert extract().code == 0
    sheet = tmp_path / "sheet.png"
    options = ("--panels", "all", "--frames", "1:4", "--direction", "backward", "--pictures", 2)
    result = flowprep("view", tmp_path / "out", "--to", sheet, *options, "--width", 128)
    assert result.code == 0
    assert (
        result.stderr
        == f"note: drew {KEY}, the first of 2 videos; name a KEY to draw another one\n"
    )
    with Image.open(sheet) as image:
        assert image.width == 2 * 14 + 7 * 200 + 6 * 12


def test_a_video(flowprep: Command, clips: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.webp"
    options = ("--algorithm", "dis", "--start", 1, "--length", 2, "--step", 2, "--play-fps", 5)
    result = flowprep("view", clips / "zoom_in/a.mp4", "--to", film, *options)
    assert (result.code, result.stderr) == (0, "")
    with Image.open(film) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
        image.load()
        assert image.info["duration"] == 200


# fmt: off
MISTAKES = [
    ("OUT nothing --to a.png", 2,
     "no video of {out} has the key 'nothing'; `flowprep info {out} --videos` lists them"),
    ("nowhere --to a.png", 2, "SOURCE does not exist: nowhere; name a data set or a video"),
    ("OUT --to a.avi", 2, "--to must end in .mp4, .webp, .gif or .png, got a.avi"),
    ("OUT --to none/a.png", 1, "the folder of none/a.png does not exist; make it first"),
    ("OUT --to a.png --panels flow,arow", 2,
     "--panels must be of rgb, flow, x, y, arrows, consistency, warp, camera, got 'arow'; "
     "did you mean arrows?"),
    ("OUT --to a.png --start 99", 2,
     "--start must be at most 4, the last field of move_left/a, got 99"),
    ("OUT --to a.png --length 0", 2, "--length must be >= 1, got 0"),
    ("OUT --to a.png --pictures 0", 2, "--pictures must be from 1 to 100, got 0"),
    ("OUT --to a.png --max-flow-px -1", 2,
     "--max-flow-px must be > 0 and at most 100000, got -1"),
    ("OUT --to a.png --width 4", 2, "--width must be from 16 to 8192 px, got 4"),
    ("OUT --to a.mp4 --play-fps 0", 2, "--play-fps must be > 0 and <= 1000, got 0"),
    ("OUT --to a.png --algorithm tvl1", 2,
     "--algorithm and the other options of flow are only for a video file, but {out} is a data "
     "set of dis flow; leave them out"),
    ("OUT --to a.png --crop 32", 2,
     "--algorithm and the other options of flow are only for a video file, but {out} is a data "
     "set of dis flow; leave them out"),
    ("OUT --to a.png --square-pixels", 2,
     "--algorithm and the other options of flow are only for a video file, but {out} is a data "
     "set of dis flow; leave them out"),
    ("OUT --to a.png --frames 4:4", 2,
     "Invalid value for '--frames': '4:4' is not a range such as 10:60, which ends "
     "before frame 60."),
    ("OUT --to a.png --frames 1:4 --start 1", 2,
     "--frames cannot be given with --start or --length; leave out one or the other."),
    ("OUT", 2, "Missing option '--to'."),
]
# fmt: on


@pytest.fixture(scope="module")
def out(flowprep: Command, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "out"
    quick = ("--algorithm", "dis", "--executor", "inline")
    assert flowprep("extract", clips, folder, *quick).code == 0
    return folder


@pytest.mark.parametrize(("words", "code", "message"), MISTAKES)
def test_mistakes(
    flowprep: Command,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = flowprep("view", *(out if word == "OUT" else word for word in words.split()))
    assert result.code == code
    assert result.error == f"Error: {message.format(out=out)}\n"
    assert list(tmp_path.iterdir()) == []
