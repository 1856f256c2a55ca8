"""Annotations, lists and CSVs meet the videos of a data set, of which no file is there any more."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flowprep
from flowprep import open_dataset
from flowprep.dataset.lease import locked_dataset
from flowprep.dataset.relabel import LabelReport, label_dataset
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.inputs.keys import escape_key
from flowprep.inputs.manifest import collect_videos
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from tests.dataset.made_index import make_index

NAMES = ["walk/a", "walk/b", "run/a", "run/c d", "hop/#1.5"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Five videos of three classes, two of a name; all in one split."""
    classes = ("walk", "run", "hop")
    make_index(
        tmp_path / "out",
        [
            Video(
                escape_key(name),
                f"/gone/videos/{name}.avi",
                (classes.index(name.partition("/")[0]),),
                "train",
            )
            for name in NAMES
        ],
        classes,
    )
    return tmp_path / "out"


def found(out: Path, name: str = "x") -> dict[str, tuple[tuple[int, ...], str | None]]:
    dataset = open_dataset(out, labels=name)
    return {
        video.key: (video.labels, video.split)
        for video in dataset.videos
        if video.labels or video.split
    }


def written(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def notes(report: LabelReport) -> str:
    return "\n".join(report.notes)


# ---- the annotations of known data sets say the same as beside the videos


def test_three_splits_of_ucf101(tmp_path: Path) -> None:
    """As `collect_videos` reads them from a folder of the videos, which then goes away."""
    videos, annotations = tmp_path / "videos", tmp_path / "annotations"
    classes = ("ApplyEyeMakeup", "Biking", "HandstandPushups")
    names = [f"{c}/v_{c}_g{g:02d}_c01.avi" for c in classes for g in range(1, 7)]
    for name in names:
        written(videos, "", name)
    written(annotations, "".join(f"{n} {c}\n" for n, c in enumerate(classes, 1)), "classInd.txt")
    for split in (1, 2, 3):
        test = {name for n, name in enumerate(names) if n % 3 == split - 1}
        lines = [
            f"{name} {classes.index(name.partition('/')[0]) + 1}\n"
            for name in names
            if name not in test
        ]
        written(annotations, "".join(lines), f"trainlist0{split}.txt")
        written(annotations, "".join(f"{n}\n" for n in sorted(test)), f"testlist0{split}.txt")
    wanted = {n: collect_videos(videos, annotations=annotations, split=n) for n in (1, 2, 3)}
    for layout in ("annotated", "folder"):
        out = tmp_path / layout
        manifest = wanted[1] if layout == "annotated" else collect_videos(videos)
        make_index(out, manifest.videos, manifest.class_names)
        for split in (1, 2, 3):
            report = label_dataset(out, f"split{split}", annotations=annotations, split=split)
            assert (report.num_labelled, report.num_absent, report.notes) == (18, 0, [])
            assert found(out, f"split{split}") == {
                video.key: (video.labels, video.split) for video in wanted[split].videos
            }
            assert open_dataset(out, labels=f"split{split}").class_names == classes


def test_the_real_lists_of_ucf101(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "ucf101"
    annotations = folder / "ucfTrainTestlist"
    wanted = collect_videos(folder / "videos", annotations=annotations, split=1, allow_missing=True)
    manifest = collect_videos(folder / "videos")
    make_index(tmp_path, manifest.videos, manifest.class_names)
    with pytest.raises(InputError, match=r"95 of 101 classes .* have no video .* --allow-missing"):
        label_dataset(tmp_path, "x", annotations=annotations, split=1)
    with pytest.raises(InputError, match=r"no file trainlist02\.txt"):
        label_dataset(tmp_path, "x", annotations=annotations, split=2)
    report = label_dataset(tmp_path, "x", annotations=annotations, split=1, allow_missing=True)
    assert report.num_absent == 13320 - len(wanted.videos)
    assert "95 of 101 classes" in notes(report)
    assert found(tmp_path) == {v.key: (v.labels, v.split) for v in wanted.videos}
    assert open_dataset(tmp_path, labels="x").class_names == wanted.class_names


def test_hmdb51_has_videos_that_a_split_does_not_use(tmp_path: Path) -> None:
    for split, flags in ((1, "012"), (2, "120"), (3, "201")):
        for label in ("clap", "hug"):
            lines = [f"#20_{label}_{n}.avi {flag} \n" for n, flag in enumerate(flags)]
            written(tmp_path / "lists", "".join(lines), f"{label}_test_split{split}.txt")
    names = [f"{label}/#20_{label}_{n}" for label in ("clap", "hug") for n in range(3)]
    out = tmp_path / "out"
    make_index(out, [Video(escape_key(name), f"/gone/{name}.avi") for name in names])
    report = label_dataset(out, "x", annotations=tmp_path / "lists", split=2)
    assert (report.num_labelled, report.splits) == (6, {"train": 2, "test": 2, None: 2})
    parts = ("train", "test", None)
    assert found(out) == {
        escape_key(name): ((0 if "clap" in name else 1,), parts[n % 3])
        for n, name in enumerate(names)
    }


def test_kinetics_by_trimmed_name_by_range_and_by_class(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_index(
        out,
        [
            Video("eat_cake/aaaaaaaaaaa_000005_000015", "/v/aaaaaaaaaaa_000005_000015.mp4"),
            Video("ski/bbb", "/v/ski/bbb.mp4", (), None, 3.0, 13.0),
            Video("ski/bbb2", "/v/ski/bbb.mp4", (), None, 20.0, 30.0),
            Video("ski/ccc_000000_000010", "/v/ccc.mp4"),
            # One clip of two classes.
            Video("ski/ddd_000000_000010", "/v/ski/ddd_000000_000010.mp4"),
            Video("eat_cake/ddd_000000_000010", "/v/eat_cake/ddd_000000_000010.mp4"),
        ],
    )
    text = (
        "label,youtube_id,time_start,time_end,split\n"
        "eat cake,aaaaaaaaaaa,5,15,train\nski,bbb,20,30,validate\nski,ccc,0,10,test\n"
        "eat cake,ddd,0,10,train\nski,gone,0,10,train\n"
    )
    report = label_dataset(out, "x", annotations=written(tmp_path, text, "k.csv"))
    assert found(out) == {
        "eat_cake/aaaaaaaaaaa_000005_000015": ((0,), "train"),
        "ski/bbb2": ((1,), "val"),
        "ski/ccc_000000_000010": ((1,), "test"),
        "eat_cake/ddd_000000_000010": ((0,), "train"),
    }
    assert report.num_absent == 1
    assert "1 of 5 videos" in notes(report)
    assert "first: gone_000000_000010" in notes(report)


# ---- a general CSV


def test_a_csv_by_path_and_by_key(out: Path, tmp_path: Path) -> None:
    text = 'path,label,split\nwalk/a.avi,go,train\nrun/a.mp4,go,test\n"run/c d.avi",go,\n'
    report = label_dataset(out, "x", annotations=written(tmp_path, text, "a.csv"))
    assert found(out) == {
        "walk/a": ((0,), "train"),
        "run/a": ((0,), "test"),
        "run/c%20d": ((0,), None),
    }
    assert (report.class_names, report.num_unlabelled) == (("go",), 2)
    assert "2 videos of" in notes(report)
    assert "first: walk/b, hop/%231%2E5" in notes(report)
    text = "key\tlabel\thour\nhop/%231%2E5\t1 4\t3\nwalk/b\t\t4\n"
    report = label_dataset(out, "y", annotations=written(tmp_path, text, "b.tsv"))
    # No column split, so splits stay.
    assert found(out, "y") == {"hop/%231%2E5": ((1, 4), "train"), "walk/b": ((), "train")}
    assert "did not read the column 'hour'" in notes(report)
    assert "splits stay as they were" in notes(report)
    assert "without a label; add one" in notes(report)


def test_a_csv_may_hold_comments_times_of_a_clock_and_the_line_ends_of_old_macs(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    videos = [Video(f"v{n}", "/v/film.mp4", (), None, n * 10.0, n * 10 + 5.0) for n in range(2)]
    make_index(out, [*videos, Video("%231", "/v/#1.mp4")])
    lines = ["# mine", "Path,Label,Start,End", "film.mp4,a,00:00:10,15", "#1.mp4,b,,", "# c, d"]
    report = label_dataset(out, "x", annotations=written(tmp_path, "\r".join(lines), "a.csv"))
    assert found(out) == {"v1": ((0,), None), "%231": ((1,), None)}
    assert "took 2 lines of" in notes(report)
    assert "first: line 1, '# mine'" in notes(report)


def test_a_csv_of_splits_keeps_the_labels(out: Path, tmp_path: Path) -> None:
    text = "split;path\nval;walk/a\n;run/a\n"
    report = label_dataset(out, "x", annotations=written(tmp_path, text, "a.csv"))
    assert found(out) == {"walk/a": ((0,), "val"), "run/a": ((1,), None)}
    assert report.class_names == ("walk", "run", "hop")
    # And may give the classes other names.
    names = ["go", "go", "jump"]
    path = written(tmp_path, text, "a.csv")
    report = label_dataset(out, "y", annotations=path, class_names=names)
    assert found(out, "y") == {"walk/a": ((0,), "val"), "run/a": ((0,), None)}
    assert report.class_names == ("go", "jump")


def test_a_range_of_a_csv_means_that_clip(tmp_path: Path) -> None:
    videos = [Video(f"v{n}", "/v/film.mp4", (), None, n * 10.0, n * 10 + 5.0) for n in range(3)]
    make_index(tmp_path / "out", [*videos, Video("whole", "/v/whole.mp4")])
    text = "path,label,start,end\nfilm.mp4,a,10,15\nfilm.mp4,b,20.0002,25\nwhole.mp4,b,0,9\n"
    label_dataset(tmp_path / "out", "x", annotations=written(tmp_path, text, "a.csv"))
    assert found(tmp_path / "out") == {
        "v1": ((0,), None),
        "v2": ((1,), None),
        "whole": ((1,), None),
    }
    # Without a range it means all of them.
    text = "path,label\nfilm.mp4,a\n"
    label_dataset(tmp_path / "out", "y", annotations=written(tmp_path, text, "b.csv"))
    assert found(tmp_path / "out", "y") == {f"v{n}": ((0,), None) for n in range(3)}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,label\nwalk/a,b,c\n", "line 2 .* has 3 columns, but the header has 2"),
        ("path,label\n,b\n", "line 2 .* must name a video"),
        ("path,split\nwalk/a,train\nwalk/a.avi,test\n", "line 2 .* and line 3 .* same video"),
        ("path,label,start\nwalk/a,b,soon\n", "line 2 .* start must be seconds"),
        ("path,label,class\nwalk/a,b,c\n", "two columns mean label"),
        ("path,label\nnone,b\n", "1 of 1 video .* None of them is there"),
        ("path,label\nwalk/a,b\nnone,c\n", "1 of 2 classes .* have no video .*: c; .*--allow"),
        ("path,label\n", "names no video"),
        ("path,label\na.avi,b\n", "two videos of the data set could be 'a.avi': walk/a and run/a"),
    ],
)
def test_what_a_csv_has_wrong_is_named(out: Path, tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        label_dataset(out, "x", annotations=written(tmp_path, text, "a.csv"))
    assert not (out / "labels").exists()


# ---- lists


def test_lists_of_splits_with_numbers_and_names(out: Path, tmp_path: Path) -> None:
    train = written(tmp_path, "# a comment\nwalk/a.avi 1\nrun/c d.avi, 0\n'run/a' 2\n", "t.txt")
    val = written(tmp_path, "/elsewhere/videos/hop/#1.5.avi 0\n", "v=1.txt")
    lists = [f"train={train}", f"val={val}"]
    report = label_dataset(out, "x", lists=lists, class_names=["a", "b", "c"])
    assert found(out) == {
        "walk/a": ((1,), "train"),
        "run/c%20d": ((0,), "train"),
        "run/a": ((2,), "train"),
        "hop/%231%2E5": ((0,), "val"),
    }
    assert report.class_names == ("a", "b", "c")
    assert f"took 1 line of {train}" in notes(report)
    named = written(tmp_path, "walk/a.avi slow walk\nrun/c d trot\nhop/#1.5 hop\n", "n.txt")
    report = label_dataset(out, "y", annotations=named)
    assert report.class_names == ("hop", "slow walk", "trot")
    assert found(out, "y")["run/c%20d"] == ((2,), "train")


def test_two_numbers_need_a_format(out: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "walk/a 30 1\nrun/a 0 25 0\n")
    with pytest.raises(InputError, match=r"line 1 .* --format tsn .* --format labels"):
        label_dataset(out, "x", lists=[str(path)])
    label_dataset(out, "x", lists=[str(path)], format="tsn")
    assert found(out) == {"walk/a": ((1,), "train"), "run/a": ((0,), "train")}
    label_dataset(out, "y", lists=[str(path)], format="labels")
    assert found(out, "y") == {"walk/a": ((30, 1), "train"), "run/a": ((0, 25), "train")}
    with pytest.raises(InputError, match="must be 'NAME FRAMES LABEL'"):
        label_dataset(out, "z", lists=[str(written(tmp_path, "walk/a 1\n"))], format="tsn")


def test_numbers_from_1_and_without_names_are_said(out: Path, tmp_path: Path) -> None:
    report = label_dataset(out, "x", lists=[str(written(tmp_path, "walk/a.avi 1\nrun/a.avi 2\n"))])
    assert "no video has label 0" in notes(report)
    assert "numbers without names" in notes(report)
    path = written(tmp_path, "walk/a.avi 0\nrun/a.avi 3\n")
    with pytest.raises(InputError, match=r"line 2 .* label must be below 2"):
        label_dataset(out, "y", lists=[str(path)], class_names=["a", "b"])


def test_names_of_known_classes_keep_their_numbers(out: Path, tmp_path: Path) -> None:
    report = label_dataset(out, "x", lists=[str(written(tmp_path, "walk/a.avi walk\n"))])
    assert report.class_names == ("walk", "run", "hop")
    assert found(out) == {"walk/a": ((0,), "train")}
    assert "keep the numbers" in notes(report)


def test_names_that_only_nearly_fit_are_found_and_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = ["Stand/v_HandStand_1", "caf\u00e9", "clip%2Emp4", "flat", "b/twin"]
    make_index(
        out,
        [Video(n if "%" in n else escape_key(n), f"/v/{n.replace('%2E', '.')}.mkv") for n in names],
    )
    text = "Stand/v_handstand_1.avi 0\ncafe\u0301.mp4 1\nclip.webm 2\nclass/flat.mp4 3\na/twin 4\n"
    path = written(tmp_path, text)
    report = label_dataset(out, "x", lists=[str(path)], allow_missing=True)
    assert {key: labels for key, (labels, _) in found(out).items()} == {
        "Stand/v_HandStand_1": (0,),
        "caf%C3%A9": (1,),
        "clip%2Emp4": (2,),
        "flat": (3,),
    }
    assert "found 3 videos only by file name, letter case" in notes(report)
    assert "first: 'Stand/v_handstand_1.avi' is Stand/v_HandStand_1" in notes(report)
    # A twin in another folder is another video.
    assert "1 of 5 videos" in notes(report)
    assert "first: a/twin (did you mean b/twin?)" in notes(report)


def test_a_guess_takes_no_video_that_is_named_itself(out: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "WALK/A.avi 2\nwalk/a.avi 0\nRUN/A.avi 1\n")
    report = label_dataset(out, "x", lists=[str(path)], allow_missing=True)
    assert found(out) == {"walk/a": ((0,), "train"), "run/a": ((1,), "train")}
    assert report.num_absent == 1
    assert "found 1 video only by file name" in notes(report)
    assert "first: 'RUN/A.avi' is run/a" in notes(report)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["list", "csv", "key"]))
def test_whatever_is_listed_is_labelled(seed: int, form: str) -> None:
    """Names, labels and splits by chance; each video is listed as a path or by a part of it."""
    rng = random.Random(seed)
    folders = ["", "a/", "a/b/", "b/", "c d/"]
    stems = ["x", "y", "x.1", "\u00e4", "7", "x 3", "#9", "z,z"]
    paths = rng.sample([folder + stem for folder in folders for stem in stems], 12)
    labels = {path: rng.randrange(3) for path in paths}
    splits = {path: rng.choice(["train", "val"]) for path in paths}
    listed = sorted(rng.sample(paths, rng.randint(1, 12)), key=lambda _: rng.random())
    with tempfile.TemporaryDirectory() as name:
        out, folder = Path(name) / "out", Path(name)
        extension = rng.choice([".mp4", ".avi", ""])
        make_index(out, [Video(escape_key(path), f"/videos/{path}.mp4") for path in paths])
        before = "/videos/" if rng.random() < 0.3 else ""
        if form == "list":
            for split in ("train", "val"):
                lines = [
                    f"{before}{p}{extension} {labels[p]}\n" for p in listed if splits[p] == split
                ]
                written(folder, "".join(lines), f"{split}.txt")
            lists = [f"{s}={folder / s}.txt" for s in {splits[path] for path in listed}]
            label_dataset(out, "x", lists=lists)
        else:
            rows = [
                f'"{escape_key(path) if form == "key" else before + path + extension}",'
                f"{labels[path]},{splits[path]}\n"
                for path in listed
            ]
            text = f"{'key' if form == 'key' else 'path'},label,split\n{''.join(rows)}"
            label_dataset(out, "x", annotations=written(folder, text, "l.csv"))
        assert found(out) == {escape_key(p): ((labels[p],), splits[p]) for p in listed}


# ---- class names


def test_labelling_takes_no_lock(out: Path) -> None:
    """A run is writing to the data set, and another process is labelling it at the same time."""
    with locked_dataset(Storage(out)):
        assert label_dataset(out, "x", rename={"walk": "go"}).outcome == "written"
    assert open_dataset(out, labels="x").class_names == ("go", "run", "hop")


def test_classes_get_other_names_and_become_one(out: Path, tmp_path: Path) -> None:
    label_dataset(out, "x", rename={"walk": "move", "run": "move"})
    dataset = open_dataset(out, labels="x")
    assert dataset.class_names == ("move", "hop")
    assert [video.labels for video in dataset.videos] == [(0,), (0,), (0,), (0,), (1,)]
    assert {video.split for video in dataset.videos} == {"train"}
    report = label_dataset(out, "y", labels="x", class_names=written(tmp_path, "1 go\n2 jump\n"))
    assert report.class_names == ("go", "jump")
    assert report.num_unlabelled == 0
    with pytest.raises(ConfigError, match="got 'wlak'; did you mean 'walk'"):
        label_dataset(out, "z", rename={"wlak": "x"})
    with pytest.raises(ConfigError, match=r"class_names must be 3, .* got 2"):
        label_dataset(out, "z", class_names=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({}, "must be given, got none"),
        ({"annotations": "x", "lists": ["y"]}, "cannot be given together"),
        ({"lists": ["y"], "split": 1}, "split is only for the folders"),
        ({"annotations": "x", "format": "csw"}, "format must be one of"),
        ({"annotations": "/nowhere/x"}, "annotations does not exist"),
        ({"lists": ["val=/nowhere/x"]}, "list does not exist"),
        ({"class_names": "/nowhere/x"}, "class_names does not exist"),
        ({"labels": "other", "rename": {"walk": "x"}}, "has no labels other, it has none"),
    ],
)
def test_options_that_cannot_be(out: Path, arguments: dict[str, object], what: str) -> None:
    with pytest.raises((ConfigError, InputError, DatasetError), match=what):
        flowprep.label(out, "x", **arguments)  # type: ignore[arg-type]


def test_formats_and_places_must_fit(out: Path, tmp_path: Path) -> None:
    path = written(tmp_path, "walk/a 0\n")
    with pytest.raises(ConfigError, match="format ucf101 needs a folder"):
        label_dataset(out, "x", annotations=path, format="ucf101")
    with pytest.raises(InputError, match="folder with neither"):
        label_dataset(out, "x", annotations=out)
    with pytest.raises(ConfigError, match="split is only for the folders"):
        label_dataset(out, "x", annotations=path, split=2)
    with pytest.raises(DatasetError, match="not a flowprep data set"):
        label_dataset(tmp_path / "none", "x", annotations=path)
