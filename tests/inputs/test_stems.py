"""Two files with one stem: both are extracted, under keys that keep their extension."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowprep.errors import InputError
from flowprep.inputs.entries import Entry
from flowprep.inputs.keys import escape_key
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.stems import keep_extensions, key_forms
from flowprep.inputs.tree import without_extension


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(manifest: Manifest, top: Path) -> dict[str, str]:
    """Returns the file of each key."""
    return {video.key: str(Path(video.source).relative_to(top)) for video in manifest.videos}


def test_two_files_with_one_stem(tmp_path: Path) -> None:
    touch(tmp_path, "trip/IMG_1.MOV", "trip/IMG_1.mp4", "trip/IMG_2.mp4", "home/IMG_1.mp4")
    manifest = collect_videos(tmp_path)
    assert found(manifest, tmp_path) == {
        "trip/IMG_1%2EMOV": "trip/IMG_1.MOV",
        "trip/IMG_1%2Emp4": "trip/IMG_1.mp4",
        "trip/IMG_2": "trip/IMG_2.mp4",
        "home/IMG_1": "home/IMG_1.mp4",
    }
    assert manifest.class_names == ("home", "trip")
    assert [note for note in manifest.notes if "would have the key of another" in note] == [
        "2 videos would have the key of another file with the same name, so their keys keep the "
        "extension (trip/IMG_1%2EMOV, trip/IMG_1%2Emp4), except keys that the data set holds "
        "already; rename the files for other keys"
    ]


def test_extensions_that_differ_in_case_are_two(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.MP4")
    assert set(found(collect_videos(tmp_path), tmp_path)) == {"a%2Emp4", "a%2EMP4"}


def test_a_video_beside_its_frames(tmp_path: Path) -> None:
    touch(tmp_path, "a/img_00001.jpg", "a/img_00002.jpg", "a.avi", "b.avi")
    assert found(collect_videos(tmp_path), tmp_path) == {
        "a%2Eframes": "a",
        "a%2Eavi": "a.avi",
        "b": "b.avi",
    }


def test_double_extensions(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mp4.mkv", "a.mp4.webm", "a.mkv", "b.mp4", "b.mp4.mkv")
    assert found(collect_videos(tmp_path), tmp_path) == {
        "a%2Emp4": "a.mp4",
        "a%2Emkv": "a.mkv",
        "a%2Emp4%2Emkv": "a.mp4.mkv",
        "a%2Emp4%2Ewebm": "a.mp4.webm",
        "b": "b.mp4",
        "b%2Emp4": "b.mp4.mkv",
    }
    touch(tmp_path / "c", "a.mp4", "a.mov", "a.mp4.avi")
    assert found(collect_videos(tmp_path / "c"), tmp_path / "c") == {
        "a%2Emp4": "a.mp4",
        "a%2Emov": "a.mov",
        "a%2Emp4%2Eavi": "a.mp4.avi",
    }


def test_globs_files_and_lists(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mov")
    (tmp_path / "list.txt").write_text("a.mov 1\na.mp4 0\n")
    expected = {"a%2Emp4": "a.mp4", "a%2Emov": "a.mov"}
    for inputs in ([f"{tmp_path}/*.m*"], [tmp_path / "a.mp4", tmp_path / "a.mov"]):
        assert found(collect_videos(inputs), tmp_path) == expected
    assert found(collect_videos(tmp_path / "list.txt"), tmp_path) == expected
    assert found(collect_videos(f"{tmp_path}/*.mp4"), tmp_path) == {"a": "a.mp4"}


def test_one_key_from_two_folders_stays_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.mp4", "q/a.mov", "q/a.mp4")
    for inputs in ([tmp_path / "p", tmp_path / "q/a.mov"], [tmp_path / "p", tmp_path / "q"]):
        with pytest.raises(InputError, match="two videos have the key 'a'"):
            collect_videos(inputs)


NAMES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b.c", "a.mp4", "-x", "é"]),
        st.sampled_from(["", ".mp4", ".MOV", ".avi"]),
    ).map("".join),
    unique=True,
    max_size=8,
)


@given(NAMES)
def test_keys_become_unique_and_the_others_stay(names: list[str]) -> None:
    names = [name for name in names if name.rpartition(".")[2] in ("mp4", "MOV", "avi")]
    entries = [Entry(f"/v/{name}", escape_key(without_extension(name))) for name in names]
    before = [entry.key for entry in entries]
    notes = keep_extensions(entries)
    after = [entry.key for entry in entries]
    assert len(set(after)) == len(names)
    for name, old, new in zip(names, before, after, strict=True):
        assert key_forms(new, f"/v/{name}") == (old, escape_key(name))
        assert new in (old, escape_key(name))
    if len(set(before)) == len(names):
        assert (after, notes) == (before, [])
    else:
        assert len(notes) == 1
