"""What a user reads after a mistake: the thing, the rule, the value and the remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flowprep import open_dataset
from tests.cli.conftest import Command

USAGE = """Usage: flowprep extract [OPTIONS] VIDEOS... OUT
Try 'flowprep extract --help' for help.

"""
QUICK = ("--algorithm", "dis", "--executor", "inline")


@pytest.fixture(autouse=True)
def _folder(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in a folder that holds the clips as `videos`."""
    shutil.copytree(clips, tmp_path / "videos")
    monkeypatch.chdir(tmp_path)


# fmt: off
WRONG_OPTIONS = [
    ("--bound -3", "--bound must be > 0, got -3"),
    ("--bound 0", "--bound must be > 0, got 0"),
    ("--bound nan", "--bound must be > 0, got nan"),
    ("--step 0", "--step must be an integer >= 1, got 0"),
    ("--fps 0", "--fps must be > 0 and <= 1000, got 0.0"),
    ("--jpeg-quality 101", "--jpeg-quality must be from 1 to 100, got 101"),
    ("--shard-size 0", "--shard-size must be >= 1, got 0"),
    ("--workers 0", "--workers must be >= 1, got 0"),
    ("--device gpu",
     "--device must be auto, cpu, cuda, cuda:N, cuda!, cuda:N!, mps or torch-cpu, got 'gpu'"),
    ("--device cpu+cpu", "--device must name a GPU before +cpu, got 'cpu+cpu'"),
    ("--algorithm dis --device cuda",
     "--device of dis must be cpu, got 'cuda'; tvl1, farneback, brox and raft have a version for "
     "GPUs"),
    ("--workers-per-gpu 0", "--workers-per-gpu must be >= 1, got 0"),
    ("--max-attempts 0", "--max-attempts must be >= 1, got 0"),
    ("--stall-timeout 0", "--stall-timeout must be > 0, got 0"),
    ("--lambda 0", "--lambda must be > 0, got 0.0"),
    ("--algorithm farneback --poly-n 6", "--poly-n must be 5 or 7, got 6"),
    ("--resize 256",
     "--resize must be none, short:PX, height:PX or WIDTHxHEIGHT (such as short:256 or 340x256), "
     "got '256'"),
    ("--algorithm dis --tau 0.2",
     "--tau is a parameter of tvl1, but the algorithm is dis; "
     "add --algorithm tvl1 or leave --tau out"),
    ("--preset i3d --patch-size 8",
     "--patch-size is a parameter of dis, but the algorithm is tvl1; "
     "add --algorithm dis or leave --patch-size out"),
    ("--split 2",
     "--split is only for the formats ucf101 and hmdb51, not for folder; leave it out"),
    ("--annotations nowhere", "--annotations does not exist: nowhere; check the path"),
    ("--root nowhere", "--root does not exist: {here}/nowhere; check the path"),
    ("--annotations videos",
     "--annotations videos must be a list (.csv .json .list .lst .tsv .txt) or a folder with "
     "UCF101's classInd.txt or HMDB51's *_test_split1.txt files; or name its format"),
]

WRONG_WORDS = [
    ("--algorithm diss",
     "Invalid value for '--algorithm': 'diss' is not one of tvl1, tvl1-opencv, farneback, "
     "farneback-opencv, brox, dis, raft; "
     "did you mean dis?"),
    ("--algorithm flownet",
     "Invalid value for '--algorithm': 'flownet' is not one of tvl1, tvl1-opencv, farneback, "
     "farneback-opencv, brox, dis, raft."),
    ("--preset i3",
     "Invalid value for '--preset': 'i3' is not one of tsn, mmaction2, i3d, two-stream-2014, "
     "lrcn, i3d-readme, i3d-raft, feichtenhofer, "
     "mmaction2-320p, mars, vmz, vmz-rgb, torchvision-video, deepvideo; did you mean i3d?"),
    ("--fps many", "Invalid value for '--fps': 'many' is neither a number nor 'source'."),
    ("--config nowhere.toml",
     "Invalid value for '--config': File 'nowhere.toml' does not exist."),
    ("--boud 2", "No such option '--boud'. Did you mean '--bound'?"),
]
# fmt: on


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS)
def test_option_that_breaks_a_rule(
    flowprep: Command, tmp_path: Path, options: str, message: str
) -> None:
    result = flowprep("extract", "videos", "out", *options.split())
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {message.replace('{here}', str(tmp_path))}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "message"), WRONG_WORDS)
def test_option_or_word_that_does_not_exist(
    flowprep: Command, tmp_path: Path, options: str, message: str
) -> None:
    result = flowprep("extract", "videos", "out", *options.split())
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == f"{USAGE}Error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_out_is_forgotten(flowprep: Command) -> None:
    result = flowprep("extract", "videos")
    assert result.code == 2
    assert result.stderr == f"{USAGE}Error: Give VIDEOS and OUT; got one name only, 'videos'.\n"


def test_everything_is_forgotten(flowprep: Command) -> None:
    result = flowprep("extract")
    assert (result.code, result.stderr) == (2, f"{USAGE}Error: Missing argument 'OUT'.\n")


def test_command_that_does_not_exist(flowprep: Command) -> None:
    result = flowprep("verfy", "out")
    assert result.code == 2
    assert result.error == "Error: No such command 'verfy'. Did you mean 'verify'?\n"


def test_videos_do_not_exist(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("extract", "vidoes", "out", *QUICK)
    assert (result.code, result.stderr) == (
        2,
        f"Error: VIDEOS does not exist: vidoes; did you mean {tmp_path}/videos?\n",
    )


def test_folder_without_videos(flowprep: Command, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.doc").touch()
    result = flowprep("extract", "texts", "out", *QUICK)
    assert result.code == 2
    assert result.stderr.startswith(
        f"Error: no videos in {tmp_path}/texts or its subfolders (other files: 1 .doc). Videos are "
        "files with the extensions .3g2 .3gp "
    )
    assert result.stderr.endswith(
        " and folders of numbered images; name other files one by one or in a .txt list\n"
    )


def test_out_inside_videos(flowprep: Command, tmp_path: Path) -> None:
    result = flowprep("extract", "videos", "videos/out", *QUICK)
    assert (result.code, result.stderr) == (
        2,
        f"Error: OUT {tmp_path}/videos/out lies inside VIDEOS {tmp_path}/videos: its own files "
        "would be taken for inputs; choose a folder outside\n",
    )
    assert not (tmp_path / "videos/out").exists()


def test_two_videos_with_one_key(flowprep: Command, tmp_path: Path) -> None:
    shutil.copy("videos/zoom_in/a.mp4", "videos/move_left/a.avi")
    folder = tmp_path / "videos"
    result = flowprep("extract", "videos/zoom_in", "videos/move_left/a.avi", "out", *QUICK)
    assert (result.code, result.stderr) == (
        2,
        f"Error: two videos have the key 'a': {folder}/zoom_in/a.mp4 and "
        f"{folder}/move_left/a.avi; name their common folder {folder} instead, or give it as "
        "root\n",
    )


def test_two_videos_with_one_stem(flowprep: Command) -> None:
    shutil.copy("videos/zoom_in/a.mp4", "videos/zoom_in/a.avi")
    result = flowprep("extract", "videos", "out", *QUICK)
    assert result.code == 0
    assert result.stderr == (
        "note: 2 videos would have the key of another file with the same name, so their keys "
        "keep the extension (zoom_in/a%2Eavi, zoom_in/a%2Emp4), except keys that the data set "
        "holds already; rename the files for other keys\n"
    )
    assert [video.key for video in open_dataset("out").videos] == [
        "move_left/a",
        "zoom_in/a%2Eavi",
        "zoom_in/a%2Emp4",
    ]


def test_split_4(flowprep: Command, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classInd.txt").write_text("1 move_left\n2 zoom_in\n")
    options = ("--annotations", "lists", "--split", 4)
    result = flowprep("extract", "videos", "out", *options, *QUICK)
    assert (result.code, result.stderr) == (2, "Error: --split must be 1, 2 or 3, got 4\n")


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_another_configuration(flowprep: Command, dry_run: tuple[str, ...]) -> None:
    assert flowprep("extract", "videos", "out", *QUICK).code == 0
    options = ("--bound", 10, "--no-rgb", *dry_run)
    result = flowprep("extract", "videos", "out", *options, *QUICK)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: out was made with another configuration:\n"
        "  encode.keep_rgb: True in the data set, False in this run\n"
        "  flow.bound_px: 20.0 in the data set, 10.0 in this run\n"
        "Run with the data set's values, or choose another output folder.\n"
    )


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_out_is_a_foreign_folder(
    flowprep: Command, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").touch()
    result = flowprep("extract", "videos", "thesis", *QUICK, *dry_run)
    assert (result.code, result.stderr) == (
        1,
        "Error: thesis is not empty and not a flowprep data set (it holds chapter1.tex); choose an "
        "empty or new folder\n",
    )
    assert not (tmp_path / "thesis/dataset.json").exists()


def test_out_cannot_be_written(flowprep: Command) -> None:
    # Below a file nobody may create a folder, not even root.
    result = flowprep("extract", "videos", "/dev/null/out", *QUICK)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: cannot create /dev/null/out: ")


def test_unknown_kind_of_storage(flowprep: Command) -> None:
    result = flowprep("extract", "videos", "nowhere://bucket/out", *QUICK)
    assert (result.code, result.stderr) == (
        1,
        "Error: cannot open nowhere://bucket/out: Protocol not known: nowhere; check the address\n",
    )


@pytest.mark.parametrize("arguments", [("verify",), ("info",), ("info", "--videos")])
def test_data_set_that_is_none(flowprep: Command, arguments: tuple[str, ...]) -> None:
    result = flowprep(*arguments, "videos")
    assert (result.code, result.stdout, result.stderr) == (
        1,
        "",
        "Error: videos is not a flowprep data set: no dataset.json; name the folder that extract "
        "wrote\n",
    )
    result = flowprep(*arguments, "nowhere")
    assert (result.code, result.stdout, result.stderr) == (
        1,
        "",
        "Error: OUT does not exist: nowhere; name the folder that extract wrote\n",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--frames 1", "--frames must be >= 2 for a motion to show, got 1"),
        (
            "--videos-per-class 1",
            "--videos-per-class must be >= 2, one to train and one to test, got 1",
        ),
        ("--fps 0", "--fps must be > 0 and <= 1000, got 0"),
        (
            "--looks red,pink",
            "--looks must be some of red, blue, green, yellow, each once, got red, pink",
        ),
    ],
)
def test_synthetic_with_a_wrong_number(flowprep: Command, options: str, message: str) -> None:
    result = flowprep("synthetic", "demo", *options.split())
    assert (result.code, result.stderr) == (2, f"Error: {message}\n")


def test_synthetic_with_an_odd_size(flowprep: Command) -> None:
    result = flowprep("synthetic", "demo", "--width", 33)
    assert result.code == 2
    assert result.error == "Error: --width and --height must be even, got 33x96.\n"


def test_synthetic_where_nothing_can_be_written(flowprep: Command) -> None:
    result = flowprep("synthetic", "/dev/null/demo")
    assert result.code == 1
    assert result.stderr.startswith("Error: cannot write /dev/null/demo/videos/")
