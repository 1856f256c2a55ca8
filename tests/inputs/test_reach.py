"""What folders and lists may reach: URLs and links that are forbidden are left out and named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowprep.errors import InputError
from flowprep.inputs import path_finder, places
from flowprep.inputs.manifest import Manifest, collect_videos


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with links that stay in it and links that lead out, and a list beside it."""
    for name in ("in/walk/a.mp4", "in/frames/img_00001.jpg", "out/secret.mp4", "out/deep/b.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    inside = tmp_path / "in"
    (inside / "stolen").mkdir()
    (inside / "stolen" / "img_00001.jpg").touch()
    (inside / "stolen" / "img_00002.jpg").symlink_to(tmp_path / "out" / "secret.mp4")
    (inside / "walk" / "again.mp4").symlink_to("a.mp4")
    (inside / "walk" / "secret.mp4").symlink_to(tmp_path / "out" / "secret.mp4")
    (inside / "elsewhere").symlink_to("../out", target_is_directory=True)
    (inside / "dangling.mp4").symlink_to("/nowhere/c.mp4")
    return tmp_path


def keys(manifest: Manifest) -> list[str]:
    return sorted(video.key for video in manifest.videos)


def test_links_are_followed_by_default(tree: Path) -> None:
    assert keys(collect_videos(tree / "in")) == [
        *("dangling", "elsewhere/deep/b", "elsewhere/secret", "frames", "stolen"),
        *("walk/a", "walk/again", "walk/secret"),
    ]


def test_links_out_of_a_folder_are_left_out_and_named(tree: Path) -> None:
    inside = tree / "in"
    manifest = collect_videos(inside, follow_links=False)
    assert keys(manifest) == ["frames", "walk/a", "walk/again"]
    (note,) = [note for note in manifest.notes if "--no-follow-links" in note]
    assert note.startswith(f"left out 4 paths that lead out of {inside}, because of --no-follow-")
    assert f"{inside}/dangling.mp4, {inside}/elsewhere, " in note
    # The folder that the user names may be a link itself, and a pattern is no way round.
    link = tree / "link"
    link.symlink_to(inside, target_is_directory=True)
    assert keys(collect_videos(link, follow_links=False)) == keys(manifest)
    globbed = collect_videos(f"{inside}/**/*.mp4", follow_links=False)
    assert keys(globbed) == ["walk/a", "walk/again"]


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_lists_do_not_leave_their_folder(tree: Path, header: str) -> None:
    listed = tree / "in" / ("list.csv" if header else "list.txt")
    names = (
        *("walk/a.mp4", "walk/again.mp4", "walk/secret.mp4", "elsewhere/deep/b.mp4"),
        *("../out/secret.mp4", f"{tree}/out/deep/b.mp4", "frames", "stolen"),
    )
    listed.write_text(header + "".join(f"{name},1\n" for name in names))
    assert len(collect_videos(listed).videos) == 8
    manifest = collect_videos(listed, follow_links=False)
    assert keys(manifest) == ["frames", "walk/a", "walk/again"]
    (note,) = [note for note in manifest.notes if "--no-follow-links" in note]
    assert note.startswith("left out 5 paths")


def test_a_named_root_decides(tree: Path) -> None:
    listed = tree / "list.txt"
    listed.write_text("in/walk/secret.mp4 1\nout/secret.mp4 1\n")
    assert len(collect_videos(listed, follow_links=False).videos) == 2
    narrow = tree / "narrow.txt"
    narrow.write_text("walk/secret.mp4 1\nwalk/a.mp4 1\n")
    found = collect_videos(tree / "in", annotations=narrow, follow_links=False)
    assert keys(found) == ["walk/a"]


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_urls_in_lists_are_left_out_and_nobody_is_asked(
    tree: Path, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(folder: str) -> None:
        raise AssertionError(f"a store was asked for {folder}")

    monkeypatch.setattr(places, "storage_of", asked)
    monkeypatch.setattr(path_finder, "storage_of", asked)
    listed = tree / "in" / ("list.csv" if header else "list.txt")
    urls = (
        *("s3://bucket/c.mp4", "http://169.254.169.254/d.mp4", "zip://x.mp4"),
        "https://key:word@host/a.mp4?sign=1",
    )
    # The last one's name is that of a video here, which it does not mean.
    listed.write_text(header + "".join(f"{name},1\n" for name in ("walk/a.mp4", *urls)))
    manifest = collect_videos(listed, urls=False)
    assert keys(manifest) == ["walk/a"]
    (note,) = [note for note in manifest.notes if "--no-urls" in note]
    assert note.startswith("left out 4 URLs of the list, because of --no-urls: s3://bucket/c.mp4, ")
    assert "word" not in " ".join(manifest.notes)
    listed.write_text(header + "s3://bucket/c.mp4,1\n")
    with pytest.raises(InputError, match="names no video that may be used, and flowprep left out"):
        collect_videos(listed, urls=False)


def test_known_annotations_find_no_video_behind_a_link(tree: Path) -> None:
    listed = tree / "kinetics.csv"
    rows = "".join(f"walk,{name},0,10,train\n" for name in ("a", "secret"))
    listed.write_text(f"label,youtube_id,time_start,time_end,split\n{rows}")
    found = collect_videos(tree / "in", annotations=listed, follow_links=False)
    assert [os.path.basename(video.source) for video in found.videos] == ["a.mp4"]
    assert any("1 of 2 listed videos are not under" in note for note in found.notes)
