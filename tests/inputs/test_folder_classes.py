"""Folders: the classes and splits that a person would say, or none and a note why."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.errors import ConfigError, InputError
from flowprep.inputs.folder_classes import classes_of_folders, split_named
from flowprep.inputs.keys import unescape_key
from flowprep.inputs.manifest import Manifest, collect_videos

ACTIONS = ("jump", "walk")
Expected = dict[str, tuple[str | None, str | None]]


def grid(*levels: tuple[str, ...]) -> list[str]:
    """Returns a video in each folder that one name of each level makes."""
    return ["/".join((*folders, "v1.mp4")) for folders in itertools.product(*levels)]


def make(top: Path, names: list[str]) -> Path:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.touch()
    return top


def understood(manifest: Manifest) -> Expected:
    """Returns class and split of each video by its key."""
    return {
        video.key: (manifest.class_names[video.labels[0]] if video.labels else None, video.split)
        for video in manifest.videos
    }


def by_name(names: list[str], class_at: int | None, split_at: int | None) -> Expected:
    """Returns what `understood` gives where classes and splits are at these depths."""
    expected = {}
    for name in names:
        parts = name.split("/")
        told = "" if split_at is None else parts[split_at].casefold()
        split = next((split for split in ("train", "val", "test") if split in told), None)
        class_name = None if class_at is None else parts[class_at]
        expected[name.removesuffix(".mp4")] = (class_name, split)
    return expected


LAYOUTS = {
    "classes": (grid(ACTIONS), 0, None),
    "splits with classes": (grid(("train", "val", "test"), ACTIONS), 1, 0),
    "splits by other names": (grid(("Training", "VALIDATION", "Testing"), ACTIONS), 1, 0),
    "splits of mmaction2": (grid(("videos_train", "videos_val"), ACTIONS), 1, 0),
    "splits of SlowFast": (grid(("train_256", "val_256"), ACTIONS), 1, 0),
    "one split": (grid(("train",), ACTIONS), 1, 0),
    "splits without classes": (grid(("train", "valid")), None, 0),
    "splits in classes": (grid(ACTIONS, ("train", "test")), 0, 1),
    "folders around classes": (grid(("UCF-101",), ("videos",), ACTIONS), 2, None),
    "folders around splits": (grid(("data",), ("train", "val"), ACTIONS), 2, 1),
    "folders between": (grid(("train", "val"), ("videos",), ACTIONS), 2, 0),
    "split twice": (
        [*grid(("train",), ("train",), ACTIONS), *grid(("test",), ("test",), ACTIONS)],
        *(2, 0),
    ),
    "subjects in classes": (grid(ACTIONS, ("s01", "s02")), 0, None),
    "classes in subjects": (grid(("s01", "s02"), ACTIONS), 1, None),
    "subjects in classes in splits": (grid(("train", "val"), ACTIONS, ("s01", "s02")), 1, 0),
    "groups of each class": (["jump/g01/a.mp4", "jump/g02/b.mp4", "walk/h01/c.mp4"], 0, None),
    "some deeper": (["jump/a.mp4", "walk/b.mp4", "walk/more/c.mp4"], 0, None),
    "vehicles": (grid(("bus", "car", "train")), 0, None),
    "flat": (["a.mp4", "b.mp4"], None, None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    names, class_at, split_at = LAYOUTS[layout]
    manifest = collect_videos(make(tmp_path / "videos", names))
    assert understood(manifest) == by_name(names, class_at, split_at)
    said = [note for note in manifest.notes if note.startswith("understood")]
    is_plain = split_at is None and class_at in (0, None)
    assert len(said) == (not is_plain)
    if is_plain:
        return
    if split_at is not None:
        assert f"from the folders at level {split_at + 1}" in said[0]
    if class_at is not None:
        assert f"({', '.join(manifest.class_names)}) from the folders at level" in said[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_a_root_above(tmp_path: Path, layout: str) -> None:
    names, class_at, split_at = LAYOUTS[layout]
    manifest = collect_videos(make(tmp_path / "videos", names), root=tmp_path)
    below = [f"videos/{name}" for name in names]
    class_at = class_at if class_at is None else class_at + 1
    split_at = split_at if split_at is None else split_at + 1
    if layout == "flat":
        class_at = 0  # A single folder, as format version 1 had it, and a note.
        assert "every label is 'videos'" in manifest.notes[0]
    assert understood(manifest) == by_name(below, class_at, split_at)


AMBIGUOUS = {
    "names of persons": (grid(ACTIONS, ("alice", "bob")), "give --class-level 1 or 2"),
    "several sets": (
        grid(("ucf", "hmdb"), ("train", "test"), ACTIONS),
        "give --class-level 1 or 3",
    ),
    "beside splits": ([*grid(("train", "val"), ACTIONS), "old/x.mp4"], "beside them there is old"),
    "beside a split": ([*grid(("train",), ACTIONS), "old/x.mp4"], "beside it there is old"),
    "sets": (grid(("train_set", "validation_set"), ACTIONS), "may be splits or classes"),
    "in no folder": ([*grid(ACTIONS), "x.mp4"], "1 video of 3 not in a class folder"),
    "above classes": (["videos/x.mp4", "videos/walk/y.mp4"], "1 video of 2 not in a class folder"),
    "in a split": (
        [*grid(("train", "val"), ACTIONS), "val/x.mp4"],
        "in the folder of the split val",
    ),
}


@pytest.mark.parametrize("layout", AMBIGUOUS)
def test_no_label_is_a_guess(tmp_path: Path, layout: str) -> None:
    names, words = AMBIGUOUS[layout]
    manifest = collect_videos(make(tmp_path, names))
    assert manifest.class_names == ()
    assert not any(video.labels for video in manifest.videos)
    assert any(note.startswith("gave no labels") and words in note for note in manifest.notes)


def test_a_split_without_class_folders_has_no_labels(tmp_path: Path) -> None:
    manifest = collect_videos(make(tmp_path, [*grid(("train",), ACTIONS), "test/1.mp4"]))
    assert understood(manifest) == {
        "train/jump/v1": ("jump", "train"),
        "train/walk/v1": ("walk", "train"),
        "test/1": (None, "test"),
    }
    assert any(note.startswith("test has no class folders") for note in manifest.notes)


def test_splits_with_other_classes_are_named(tmp_path: Path) -> None:
    names = [*grid(("train",), (*ACTIONS, "run")), *grid(("val",), (*ACTIONS, "Run"))]
    notes = collect_videos(make(tmp_path, names)).notes
    assert (
        "the split train has no video of 1 of 4 classes (Run); add the videos, or check how the "
        "folders are spelled"
    ) in notes
    assert any(
        note.startswith("the split val has no video of 1 of 4 classes (run)") for note in notes
    )


def test_empty_class_folders_are_named(tmp_path: Path) -> None:
    names = [*grid(ACTIONS), "run/", "sit/deeper/", "__MACOSX/walk/._v1.mp4", "walk/._v1.mp4"]
    manifest = collect_videos(make(tmp_path, [*names, "walk/.DS_Store", "walk/@eaDir/v.mp4/a.jpg"]))
    assert understood(manifest) == by_name(grid(ACTIONS), 0, None)
    assert (
        "2 class folders have no video (run, sit): no class was made of them; add videos, or "
        "remove the folder"
    ) in manifest.notes
    assert manifest.num_ignored_files == 0
    notes = collect_videos(make(tmp_path / "b", [*grid(("train",), ACTIONS), "val/walk/"])).notes
    assert any(note.startswith("1 split folder has no video (val)") for note in notes)


def test_linked_folders_count_by_their_own_names(tmp_path: Path) -> None:
    make(tmp_path, ["disk/17/a.mp4", "disk/18/b.mp4", "videos/train/jump/c.mp4"])
    (tmp_path / "videos/train/walk").symlink_to(tmp_path / "disk/17")
    (tmp_path / "videos/val").mkdir()
    (tmp_path / "videos/val/walk").symlink_to(tmp_path / "disk/18")
    assert understood(collect_videos(tmp_path / "videos")) == {
        "train/jump/c": ("jump", "train"),
        "train/walk/a": ("walk", "train"),
        "val/walk/b": ("walk", "val"),
    }


def test_splits_named_one_by_one(tmp_path: Path) -> None:
    names = ["train/jump/a.mp4", "train/walk/b.mp4", "val/walk/c.mp4", "val/jump/d.mp4"]
    make(tmp_path, names)
    inputs = [tmp_path / "train", tmp_path / "val"]
    manifest = collect_videos(inputs)
    assert understood(manifest) == {
        "jump/a": ("jump", "train"),
        "walk/b": ("walk", "train"),
        "jump/d": ("jump", "val"),
        "walk/c": ("walk", "val"),
    }
    assert "from the names of VIDEOS" in manifest.notes[0]
    assert {split for _, split in understood(collect_videos(inputs, class_level=1)).values()} == {
        None
    }
    (note,) = (n for n in collect_videos(inputs[0]).notes if "own name 'train'" in n)
    assert "name the folder around it" in note


def test_class_folders_named_one_by_one(tmp_path: Path) -> None:
    make(tmp_path, ["jump/a.mp4", "walk/b.mp4"])
    inputs = [tmp_path / "jump", tmp_path / "walk"]
    manifest = collect_videos(inputs)
    assert understood(manifest) == {"a": (None, None), "b": (None, None)}
    assert manifest.notes == (
        f"gave no labels: VIDEOS names 2 folders, and keys begin below each; if they are the "
        f"classes, name {tmp_path} instead, or give it as --root",
    )
    assert understood(collect_videos(inputs, root=tmp_path)) == {
        "jump/a": ("jump", None),
        "walk/b": ("walk", None),
    }


def test_class_level(tmp_path: Path) -> None:
    names = grid(("train", "val"), ACTIONS, ("s1", "s2"))
    make(tmp_path, names)

    def at(level: int) -> Expected:
        return understood(collect_videos(tmp_path, class_level=level))

    assert at(0) == by_name(names, None, 0)
    assert at(1) == by_name(names, 0, None)
    assert at(2) == by_name(names, 1, 0)
    assert at(3) == by_name(names, 2, 0)
    with pytest.raises(InputError) as caught:
        at(4)
    assert str(caught.value) == (
        "class_level 4 asks for 4 folders around every video, but 8 videos of 8 have fewer (first: "
        "in 'train/jump/s1'); choose a smaller class_level, or 0 for no classes"
    )
    with pytest.raises(ConfigError, match="class_level must be >= 0, got -1"):
        at(-1)
    (tmp_path / "list.txt").write_text("val/walk/s1/v1.mp4 3\n")
    with pytest.raises(
        ConfigError, match="the format list names its own classes; leave class_level out"
    ):
        collect_videos(tmp_path / "list.txt", class_level=1)


FOLDERS = st.lists(
    st.lists(
        st.sampled_from(
            ["train", "Val", "test", "walk", "jump", "s01", "s02", "videos", "train_x"]
        ),
        max_size=4,
    ).map("/".join),
    min_size=1,
    max_size=8,
)


@given(FOLDERS)
@settings(deadline=None)
def test_level_1_is_what_version_1_understood(folders: list[str]) -> None:
    found = classes_of_folders(Counter(folders), class_level=1)
    if all(folders):
        assert found.classes == {folder: folder.partition("/")[0] for folder in folders}
    else:
        assert set(found.classes.values()) == {None}
    assert set(found.splits.values()) == {None}


@given(FOLDERS, st.lists(st.sampled_from(["walk", "val", "train/run", "a/b"])))
@settings(deadline=None)
def test_every_tree_is_understood_or_the_reason_is_said(
    folders: list[str], empty: list[str]
) -> None:
    found = classes_of_folders(Counter(folders), empty=empty)
    for folder in folders:
        name, split = found.classes[folder], found.splits[folder]
        assert name is None or name in folder.split("/")
        assert split is None or split in map(split_named, folder.replace("_x", "").split("/"))
    has_labels = {name is not None for name in found.classes.values()}
    if any(folders) and has_labels == {False}:
        assert any(n.startswith("gave no labels") or "no classes" in n for n in found.notes)
    if has_labels == {True, False}:
        assert any("has no class folders" in note for note in found.notes)
    levels = {f.split("/").index(name) for f, name in found.classes.items() if name is not None}
    if levels - {0} or any(found.splits.values()):
        assert found.notes[0].startswith("understood")


def test_class_names_are_those_of_the_folders(tmp_path: Path) -> None:
    names = ["train/tie (bow)/a.mp4", "train/50%/b.mp4", "val/50%/c.mp4"]
    manifest = collect_videos(make(tmp_path, names))
    assert manifest.class_names == ("50%", "tie (bow)")
    assert [unescape_key(video.key) for video in manifest.videos] == sorted(
        [name.removesuffix(".mp4") for name in names],
    )


DOCUMENTED = {  # docs/layouts.md, by the number of the row
    1: "classes",
    2: "splits with classes",
    3: "splits of mmaction2",
    4: "splits in classes",
    5: "splits without classes",
    6: "folders around classes",
    7: "subjects in classes",
    8: "classes in subjects",
    9: "flat",
}


def test_the_documented_layouts_are_those_that_are_tested() -> None:
    path = Path(__file__).parents[2] / "docs/layouts.md"
    rows = [line.split("|")[1:5] for line in path.read_text().splitlines() if line[2:3].isdigit()]
    assert [int(row[0]) for row in rows] == [*DOCUMENTED, 10]
    for number, _, classes, splits in rows[:9]:
        _, class_at, split_at = LAYOUTS[DOCUMENTED[int(number)]]
        if number.strip() != "6":
            assert classes.strip().startswith(
                "none" if class_at is None else f"level {class_at + 1}"
            )
        assert splits.strip().startswith("none" if split_at is None else f"level {split_at + 1}")


def test_frame_folders_are_videos_in_every_layout(tmp_path: Path) -> None:
    names = [f"{split}/{name}/v1" for split in ("train", "val") for name in ACTIONS]
    make(tmp_path, [f"{name}/img_{i:05d}.jpg" for name in names for i in (1, 2)])
    assert understood(collect_videos(tmp_path)) == by_name(names, 1, 0)


def test_a_list_gives_labels_to_a_flat_folder(tmp_path: Path) -> None:
    make(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\n")
    manifest = collect_videos(tmp_path, annotations=tmp_path / "list.txt")
    assert [(video.key, video.labels) for video in manifest.videos] == [("a", (0,)), ("b", (1,))]
