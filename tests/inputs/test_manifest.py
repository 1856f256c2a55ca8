"""Manifests: what is taken for a video, its key, label and split, and what the user reads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import fsspec
import pytest

from flowprep.errors import ConfigError, InputError
from flowprep.inputs.manifest import FORMATS, Manifest, ManifestFormat, collect_videos
from flowprep.inputs.tree import VIDEO_EXTENSIONS, is_frame_image

KNOWN = (
    f"Videos are files with the extensions {' '.join(sorted(VIDEO_EXTENSIONS))}, and folders of "
    f"numbered images"
)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def frames(folder: Path, count: int = 3) -> Path:
    return touch(folder, *(f"img_{i:05d}.jpg" for i in range(1, count + 1)))


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def keys(manifest: Manifest) -> list[str]:
    return [video.key for video in manifest.videos]


def labels(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    return {video.key: video.labels for video in manifest.videos}


def message(call: Callable[[], object], kind: type[Exception] = InputError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def test_formats_are_those_of_the_type() -> None:
    assert set(get_args(ManifestFormat)) == {"auto", *FORMATS}


class TestFolders:
    def test_class_folders_become_labels(self, tmp_path: Path) -> None:
        touch(tmp_path, "walk/b.avi", "walk/more/a.MP4", "run/c.mkv", "run/notes.txt", "README")
        manifest = collect_videos(tmp_path)
        assert keys(manifest) == ["run/c", "walk/b", "walk/more/a"]
        assert manifest.class_names == ("run", "walk")
        assert [video.labels for video in manifest.videos] == [(0,), (1,), (1,)]
        assert manifest.videos[2].source == str(tmp_path / "walk/more/a.MP4")
        assert manifest.num_ignored_files == 2
        assert manifest.notes == (
            "ignored 2 files without a video extension; name them one by one or in a .txt list if "
            "they are videos",
            "1 video in folders below the class folders (more): these folders give no label; if "
            "they are the classes, give --class-level 2",
        )

    def test_no_labels_where_videos_lie_in_the_folder_itself(self, tmp_path: Path) -> None:
        touch(tmp_path, "walk/a.avi", "b.avi")
        manifest = collect_videos(tmp_path)
        assert manifest.class_names == ()
        assert labels(manifest) == {"b": (), "walk/a": ()}
        assert manifest.notes == (
            "gave no labels: 1 video of 2 not in a class folder; move it into one, or give labels "
            "by a list",
        )

    def test_flat_folder_has_neither_labels_nor_notes(self, tmp_path: Path) -> None:
        manifest = collect_videos(str(touch(tmp_path, "2.avi", "1.avi", "10.avi")))
        assert keys(manifest) == ["1", "10", "2"]
        assert manifest.class_names == manifest.notes == ()

    def test_hidden_files_and_folders_do_not_count(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.avi", ".b.avi", ".cache/c.avi", ".DS_Store")
        manifest = collect_videos(tmp_path)
        assert keys(manifest) == ["a"]
        assert manifest.num_ignored_files == 0

    def test_odd_names_survive(self, tmp_path: Path) -> None:
        names = ["-dash.avi", "a.b.c.avi", "50% #1 (x)&;!.avi", "手.avi", os.fsdecode(b"\xff.avi")]
        manifest = collect_videos(touch(tmp_path, *names))
        assert sorted(Path(video.source).name for video in manifest.videos) == sorted(names)
        assert sorted(keys(manifest)) == [
            "%2Ddash",
            "%E6%89%8B",
            "%FF",
            "50%25%20%231%20%28x%29%26%3B%21",
            "a%2Eb%2Ec",
        ]

    def test_class_names_are_unescaped(self, tmp_path: Path) -> None:
        manifest = collect_videos(touch(tmp_path, "tie (bow)/a.avi", "jump/a.avi"))
        assert manifest.class_names == ("jump", "tie (bow)")
        assert labels(manifest) == {"jump/a": (0,), "tie%20%28bow%29/a": (1,)}

    def test_frame_folders_are_videos(self, tmp_path: Path) -> None:
        frames(tmp_path / "walk/v.1")
        frames(tmp_path / "run/v2")
        touch(tmp_path / "run/v2", "flow_x_00001.jpg", "x_00001.jpg", "n_frames.txt", ".done")
        touch(tmp_path / "run", "v3.avi")
        manifest = collect_videos(tmp_path)
        assert labels(manifest) == {"run/v2": (0,), "run/v3": (0,), "walk/v%2E1": (1,)}
        assert manifest.videos[0].source == str(tmp_path / "run/v2")
        assert manifest.num_ignored_files == 0

    def test_a_frame_folder_by_itself(self, tmp_path: Path) -> None:
        manifest = collect_videos(frames(tmp_path / "imgs"))
        assert [(v.key, v.source) for v in manifest.videos] == [("imgs", str(tmp_path / "imgs"))]

    def test_images_beside_videos_are_no_frame_folder(self, tmp_path: Path) -> None:
        frames(touch(tmp_path, "a.avi"))
        assert keys(collect_videos(tmp_path)) == ["a"]
        assert collect_videos(tmp_path).num_ignored_files == 3

    def test_real_tree(self, test_data: Path) -> None:
        manifest = collect_videos(test_data / "ucf101/videos")
        assert len(manifest.videos) == 24
        assert manifest.class_names[0] == "Biking"
        assert len(manifest.class_names) == 6
        odd = collect_videos(test_data / "odd")
        assert "%2Dvideo-with-dash-" in keys(odd)
        assert keys(collect_videos(test_data / "rawframes")) == ["imgs"]

    def test_links(self, tmp_path: Path) -> None:
        touch(tmp_path, "real/walk/a.avi", "videos/b.avi")
        videos = tmp_path / "videos"
        (videos / "linked").symlink_to(tmp_path / "real")
        (videos / "c.avi").symlink_to(tmp_path / "real/walk/a.avi")
        (videos / "broken.avi").symlink_to(tmp_path / "nowhere.avi")
        (videos / "itself").symlink_to("itself")
        (tmp_path / "real/loop").symlink_to(videos)
        manifest = collect_videos(videos)
        assert keys(manifest) == ["b", "broken", "c", "linked/walk/a"]
        assert (
            f"did not follow {videos}/linked/loop: the link leads back to a folder around it; "
            "remove the link" in manifest.notes
        )

    def test_a_fifo_is_not_a_video(self, tmp_path: Path) -> None:
        os.mkfifo(touch(tmp_path, "a.avi") / "b.avi")
        assert keys(collect_videos(tmp_path)) == ["a"]

    def test_nothing_found(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.flo", "b.flo", "c/flow_x_00001.jpg")
        assert message(lambda: collect_videos(tmp_path)) == (
            f"no videos in {tmp_path} or its subfolders (other files: 2 .flo, 1 .jpg). "
            f"{KNOWN}; name other files one by one or in a .txt list"
        )

    def test_a_folder_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "a.avi")

        def refuse(path: str) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "scandir", refuse)
        assert message(lambda: collect_videos(tmp_path)) == (
            f"cannot read the folder {tmp_path}: Permission denied; make it readable, or name the "
            f"folders beside it one by one"
        )


class TestInputs:
    def test_missing_with_suggestion(self, tmp_path: Path) -> None:
        touch(tmp_path, "videos/a.avi")
        assert message(lambda: collect_videos(tmp_path / "vidoes")) == (
            f"VIDEOS does not exist: {tmp_path}/vidoes; did you mean {tmp_path}/videos?"
        )
        assert message(lambda: collect_videos(tmp_path / "vidoes/x/a.avi")) == (
            f"VIDEOS does not exist: {tmp_path}/vidoes/x/a.avi; did you mean {tmp_path}/videos?"
        )
        assert message(lambda: collect_videos(tmp_path / "zzz")) == (
            f"VIDEOS does not exist: {tmp_path}/zzz; check the path"
        )

    def test_no_input_and_urls(self) -> None:
        empty = "VIDEOS is empty: name a folder, a video, a glob pattern or a list"
        assert message(lambda: collect_videos([])) == empty
        assert message(lambda: collect_videos("")) == empty
        assert message(lambda: collect_videos("memory://nowhere/videos")) == (
            "VIDEOS does not exist: memory://nowhere/videos; check the address"
        )

    def test_single_file_of_any_extension(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.b.avi", "odd.xyz")
        assert keys(collect_videos(tmp_path / "a.b.avi")) == ["a%2Eb"]
        assert keys(collect_videos(tmp_path / "odd.xyz")) == ["odd%2Exyz"]
        (tmp_path / "gone.avi").symlink_to("nowhere")
        assert keys(collect_videos(tmp_path / "gone.avi")) == ["gone"]

    def test_relative_sources_become_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        touch(tmp_path, "a.avi")
        monkeypatch.chdir(tmp_path)
        for inputs in ("a.avi", ".", "*.avi", "./*"):
            assert collect_videos(inputs).videos[0].source == str(tmp_path / "a.avi")

    def test_globs(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/walk/a.avi", "v/walk/b.mp4", "v/run/deep/c.avi", "v/.h/d.avi", "v/e.txt")
        frames(tmp_path / "v/run/imgs")

        def found(pattern: str) -> list[str]:
            return keys(collect_videos(f"{tmp_path}/{pattern}"))

        assert found("v/**/*.avi") == ["run/deep/c", "walk/a"]
        assert found("v/**") == ["run/deep/c", "run/imgs", "walk/a", "walk/b"]
        assert found("v/*/*") == ["run/deep/c", "run/imgs", "walk/a", "walk/b"]
        assert found("v/w*") == ["walk/a", "walk/b"]
        assert found("v/walk/[ab].*") == ["a", "b"]
        assert found("v/*/im?s") == ["run/imgs"]
        assert collect_videos(f"{tmp_path}/v/*/*.avi").class_names == ("walk",)
        assert message(lambda: found("v/*.avi")) == (
            f"no video matches {tmp_path}/v/*.avi (searched in {tmp_path}/v). {KNOWN}; check "
            f"the pattern"
        )

    def test_a_literal_path_comes_before_the_pattern(self, tmp_path: Path) -> None:
        touch(tmp_path, "[a]/x.avi", "a/y.avi", "what?.avi", "whats.avi")
        assert keys(collect_videos(tmp_path / "[a]")) == ["x"]
        assert keys(collect_videos(tmp_path / "what?.avi")) == ["what%3F"]

    def test_several_inputs(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/run/a.avi", "v/walk/b.avi", "v/top.avi")
        inputs = [tmp_path / "v/walk", tmp_path / "v/run/a.avi"]
        assert keys(collect_videos(inputs)) == ["b", "a"]
        manifest = collect_videos(inputs, root=tmp_path / "v")
        assert labels(manifest) == {"walk/b": (1,), "run/a": (0,)}
        assert message(lambda: collect_videos(inputs, root=tmp_path / "v/walk")) == (
            f"VIDEOS {tmp_path}/v/run/a.avi lies outside root {tmp_path}/v/walk: choose a root "
            f"that holds it"
        )

    def test_same_key_twice(self, tmp_path: Path) -> None:
        touch(tmp_path, "p/a.avi", "q/a.avi")
        roots = [tmp_path / "p/a.avi", tmp_path / "q"]
        assert message(lambda: collect_videos(roots)) == (
            f"two videos have the key 'a': {tmp_path}/p/a.avi and {tmp_path}/q/a.avi; name their "
            f"common folder {tmp_path} instead, or give it as root"
        )
        assert keys(collect_videos(roots, root=tmp_path)) == ["p/a", "q/a"]

    def test_same_video_twice(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/walk/a.avi")
        assert message(lambda: collect_videos([tmp_path / "v", tmp_path / "v/walk"])) == (
            f"VIDEOS names the same video twice: {tmp_path}/v/walk/a.avi; name it once"
        )

    def test_options_that_do_not_go_together(self, tmp_path: Path) -> None:
        video = touch(tmp_path, "a.avi") / "a.avi"
        text = write(tmp_path / "list.txt", "a.avi\n")

        def refused(inputs: object = tmp_path, **options: object) -> str:
            return message(lambda: collect_videos(inputs, **options), ConfigError)  # type: ignore[arg-type]

        assert refused(format="ucf") == (
            "format must be one of auto, folder, file, glob, list, labels, tsn, csv, ucf101, "
            "hmdb51, kinetics, charades, epic, ava, something, activitynet, got 'ucf'"
        )
        assert refused(format="ucf101") == (
            "format ucf101 needs annotations: the folder with classInd.txt"
        )
        assert refused(split=1) == (
            "split is only for the formats ucf101 and hmdb51, not for folder; leave it out"
        )
        assert refused(format="hmdb51", annotations=tmp_path, split=4) == (
            "split must be 1, 2 or 3, got 4"
        )
        assert refused(annotations=text, root=tmp_path) == (
            f"with annotations or lists VIDEOS is the folder of the videos: root {tmp_path} cannot "
            f"be given as well; leave it out"
        )
        assert refused(format="folder", annotations=text) == (
            f"format folder takes no annotations, got {text}"
        )
        assert refused([tmp_path, tmp_path], annotations=text) == (
            "annotations need one folder of videos, got 2"
        )
        assert refused([video, text]) == (
            "VIDEOS mixes the formats file, list: a list cannot be joined with other VIDEOS, "
            "because the labels would mix; give it with --list (lists=) and the folder of its "
            "videos as VIDEOS, or extract the inputs one by one"
        )

    def test_wrong_kinds_of_paths(self, tmp_path: Path) -> None:
        video = touch(tmp_path, "a.avi") / "a.avi"
        assert message(lambda: collect_videos(video, format="folder")) == (
            f"VIDEOS must be a folder, got the file {video}"
        )
        assert "take format folder for a folder" in message(
            lambda: collect_videos(tmp_path, format="file")
        )
        assert message(lambda: collect_videos(video, root=tmp_path / "gone")) == (
            f"root does not exist: {tmp_path}/gone; check the path"
        )
        assert message(lambda: collect_videos(tmp_path, annotations=tmp_path)) == (
            f"annotations {tmp_path} must be a list (.csv .json .list .lst .tsv .txt) or a folder "
            f"with UCF101's classInd.txt or HMDB51's *_test_split1.txt files; or name its format"
        )
        assert message(lambda: collect_videos(tmp_path, annotations=video, format="ucf101")) == (
            f"annotations must be a folder, got the file {video}"
        )
        assert message(lambda: collect_videos(tmp_path, format="list")) == (
            f"VIDEOS {tmp_path} is a folder, not a list: name the list as VIDEOS, or as "
            "annotations with the folder of its videos as VIDEOS"
        )


class TestOut:
    def test_out_inside_videos(self, tmp_path: Path) -> None:
        videos = touch(tmp_path, "videos/walk/a.avi") / "videos"
        assert message(lambda: collect_videos(videos, out=videos / "flow")) == (
            f"OUT {videos}/flow lies inside VIDEOS {videos}: its own files would be taken for "
            f"inputs; choose a folder outside"
        )
        assert message(lambda: collect_videos(videos, out=videos)) == (
            f"OUT {videos} is the same folder as VIDEOS {videos}: its own files would be taken "
            f"for inputs; choose a folder outside"
        )
        assert message(lambda: collect_videos(videos, out=tmp_path)) == (
            f"VIDEOS {videos} lies inside OUT {tmp_path}: inputs and data set would mix; choose a "
            f"folder outside"
        )
        for out in (tmp_path / "flow", tmp_path / "videos2", "s3://bucket/videos", None):
            assert len(collect_videos(videos, out=out).videos) == 1

    def test_through_links(self, tmp_path: Path) -> None:
        videos = touch(tmp_path, "videos/walk/a.avi", "flow/shards/x.tar") / "videos"
        (tmp_path / "link").symlink_to(videos)
        assert "lies inside" in message(lambda: collect_videos(videos, out=tmp_path / "link/flow"))
        assert "lies inside" in message(lambda: collect_videos(tmp_path / "link", out=videos / "x"))
        (videos / "back").symlink_to(tmp_path / "flow")
        assert "lies inside" in message(lambda: collect_videos(videos, out=tmp_path / "flow"))

    def test_beside_files_lists_and_patterns(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.avi", "walk/b.avi")
        write(tmp_path / "list.txt", "a.avi\n")
        for inputs in ("a.avi", "list.txt", "*.avi", "walk/*.avi"):
            assert len(collect_videos(tmp_path / inputs, out=tmp_path / "flow").videos) == 1
        assert "lies inside" in message(
            lambda: collect_videos(tmp_path / "**/*.avi", out=tmp_path / "flow")
        )

    def test_inside_a_listed_frame_folder(self, tmp_path: Path) -> None:
        frames(tmp_path / "imgs")
        text = write(tmp_path / "list.txt", "imgs 0\n")
        assert "lies inside" in message(lambda: collect_videos(text, out=tmp_path / "imgs/flow"))


class TestLists:
    def collect(self, tmp_path: Path, text: str | bytes, **options: Path) -> Manifest:
        return collect_videos(write(tmp_path / "list.txt", text), **options)  # type: ignore[arg-type]

    def test_labels_and_order(self, tmp_path: Path) -> None:
        touch(tmp_path, "b.avi", "a.avi", "walk/c.avi")
        manifest = self.collect(tmp_path, "# head\nb.avi 7\n\n  walk/c.avi\t2\n./a.avi\n")
        assert labels(manifest) == {"b": (7,), "walk/c": (2,), "a": ()}
        assert keys(manifest) == ["b", "walk/c", "a"]
        assert manifest.class_names == ()
        assert manifest.notes == (
            f"took 1 line of {tmp_path}/list.txt that begins with # for a comment, because no such "
            f"file exists; first: line 1, '# head'; check the name of the file if it is a video",
            f"1 listed video of 3 has no label; first: line 5 of {tmp_path}/list.txt, ./a.avi; add "
            f"one if it should be trained on",
        )

    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    def test_windows_line_ends_and_bom(self, tmp_path: Path, bom: bytes) -> None:
        touch(tmp_path, "a.avi", "b.avi")
        manifest = self.collect(tmp_path, bom + b"a.avi 0\r\n\r\nb.avi 1\r\n")
        assert labels(manifest) == {"a": (0,), "b": (1,)}
        assert manifest.notes == ()

    def test_paths_with_spaces(self, tmp_path: Path) -> None:
        names = ["my clip.avi", "take 2", "take 2 3", "q 1.avi", "手 é.avi", "#hash.avi"]
        touch(tmp_path, *names)
        text = 'my clip.avi 4\ntake 2\ntake 2 3 5\n"q 1.avi" 6\n手 é.avi 8\n"#hash.avi" 9\n'
        manifest = self.collect(tmp_path, text)
        assert [Path(video.source).name for video in manifest.videos] == names
        assert [v.labels for v in manifest.videos] == [(4,), (), (5,), (6,), (8,), (9,)]

    def test_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        name = os.fsdecode(b"caf\xe9.avi")
        touch(tmp_path, name)
        manifest = self.collect(tmp_path, b"caf\xe9.avi 1\n")
        assert manifest.videos[0].source == str(tmp_path / name)
        assert labels(manifest) == {"caf%E9": (1,)}

    def test_missing_videos_stay(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.avi")
        manifest = self.collect(tmp_path, "a.avi 0\ngone 1.avi 1\ngone_folder 30 2\n")
        assert labels(manifest) == {"a": (0,), "gone%201": (1,), "gone_folder": (2,)}
        assert manifest.notes == (
            f"2 of 3 listed videos not found; first: {tmp_path}/gone 1.avi, {tmp_path}/gone_folder"
            f"; check the paths, or give their folder as --root",
        )

    def test_relative_to_root(self, tmp_path: Path) -> None:
        videos = touch(tmp_path, "videos/walk/a.avi", "outside.avi") / "videos"
        manifest = self.collect(tmp_path, "walk/a.avi 3\n", root=videos)
        assert labels(manifest) == {"walk/a": (3,)}
        manifest = collect_videos(videos, annotations=tmp_path / "list.txt")
        assert manifest.videos[0].source == str(videos / "walk/a.avi")
        absolute = f"{videos}/walk/a.avi 3\n"
        assert keys(self.collect(tmp_path, absolute, root=videos)) == ["walk/a"]
        assert message(lambda: self.collect(tmp_path, "../outside.avi 1\n", root=videos)) == (
            f"line 1 of {tmp_path}/list.txt: {tmp_path}/outside.avi lies outside root {videos}; "
            f"choose a root that holds every listed video, or leave it out"
        )

    def test_outside_of_the_lists_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "videos/walk/a.avi", "videos/run/b.avi")
        text = f"{tmp_path}/videos/walk/a.avi 0\n../videos/run/b.avi 1\n"
        manifest = collect_videos(write(tmp_path / "lists/train.txt", text))
        assert labels(manifest) == {"walk/a": (0,), "run/b": (1,)}
        assert manifest.notes == (
            f"keys are relative to {tmp_path}/videos, the common folder of the listed videos; "
            "give --root for another folder",
        )

    def test_listed_twice(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.avi", "a.mp4")
        name = tmp_path / "list.txt"
        assert message(lambda: self.collect(tmp_path, "a.avi 0\n\n./a.avi 1\n")) == (
            f"line 1 of {name} and line 3 of {name} name the same video with other labels, 0 and "
            f"1: {tmp_path}/a.avi; keep one of the lines, or write all labels on one line "
            f"(--format labels)"
        )
        manifest = self.collect(tmp_path, "a.avi 0\n\n./a.avi 0\n")
        assert labels(manifest) == {"a": (0,)}
        assert manifest.notes == (
            f"left out 1 line that names a video again, with the same label; first: line 3 of "
            f"{name} repeats line 1 of {name}, {tmp_path}/a.avi; remove one of the two",
        )
        manifest = self.collect(tmp_path, "a.avi 0\na.mp4 1\n")
        assert labels(manifest) == {"a%2Eavi": (0,), "a%2Emp4": (1,)}

    @pytest.mark.parametrize(
        ("line", "named", "rest"),
        [
            ("a.avi -1", "a.avi", "-1"),
            ("gone.avi 1.0 2", "gone.avi", "1.0 2"),
            ("a.avi,1.5", "a.avi", "1.5"),
        ],
    )
    def test_bad_labels(self, tmp_path: Path, line: str, named: str, rest: str) -> None:
        frames(touch(tmp_path, "a.avi") / "imgs")
        assert message(lambda: self.collect(tmp_path, f"a.avi 0\n{line}\n")) == (
            f"line 2 of {tmp_path}/list.txt: labels must be integers >= 0 or names of classes, "
            f"got {rest!r} after {named!r}; leave the label out for a video without a label"
        )

    def test_unclosed_quote_empty_list_and_binary(self, tmp_path: Path) -> None:
        assert "got '\"a.avi 3'" in message(lambda: self.collect(tmp_path, '"a.avi 3\n'))
        assert message(lambda: self.collect(tmp_path, "# nothing\n")) == (
            f"the list {tmp_path}/list.txt names no video: write one path per line"
        )
        assert message(lambda: self.collect(tmp_path, "a.avi".encode("utf-16"))) == (
            f"{tmp_path}/list.txt is text in UTF-16, but a list must be text in UTF-8; save it as "
            f"UTF-8: iconv -f UTF-16 -t UTF-8 {tmp_path}/list.txt > NEW"
        )

    def test_rawframes(self, tmp_path: Path) -> None:
        for name in "abcdef":
            frames(tmp_path / name, 10)
        touch(tmp_path, "a/x_00001.jpg", "a/flow_y_00001.jpg", "a/n.txt")
        manifest = self.collect(tmp_path, "a 10 3\nb 9 4\nc 5\nd\ne 10 1 2\nf 0 10 6\n")
        expected = {"a": (3,), "b": (4,), "c": (5,), "d": (), "e": (1, 2), "f": (6,)}
        assert labels(manifest) == expected

    @pytest.mark.parametrize("integers", ["5 127", "2 5 127", "11 0", "0 5 1", "1 9 127"])
    def test_parts_of_frame_folders_are_refused(self, tmp_path: Path, integers: str) -> None:
        frames(tmp_path / "imgs", 10)
        assert message(lambda: self.collect(tmp_path, f"imgs {integers}\n")) == (
            f"line 1 of {tmp_path}/list.txt: 'imgs {integers}' asks for a part of {tmp_path}/imgs, "
            f"which has 10 frame images; folders are extracted whole: write 'imgs 10 LABEL' or "
            f"'imgs LABEL', or move the frames into a folder of their own"
        )

    @pytest.mark.parametrize("suffix", ["", "_multi_label", "_with_offset"])
    def test_real_rawframe_lists_ask_for_parts(self, test_data: Path, suffix: str) -> None:
        path = test_data / f"rawframes/rawframe_test_list{suffix}.txt"
        assert "which has 10 frame images" in message(lambda: collect_videos(path))

    def test_several_lists(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.avi", "b.avi")
        lists = [write(tmp_path / "1.txt", "a.avi 0\n"), write(tmp_path / "2.txt", "b.avi 1\n")]
        assert labels(collect_videos(lists)) == {"a": (0,), "b": (1,)}

    def test_a_long_list_takes_time_by_its_lines(self, tmp_path: Path) -> None:
        (tmp_path / "class").mkdir()

        def processor_seconds(num_lines: int) -> float:
            lines = [f"class/clip_{i:06d}.avi {i % 700}\n" for i in range(num_lines)]
            begin = time.process_time()
            manifest = self.collect(tmp_path, "".join(lines))
            assert len(manifest.videos) == num_lines
            return time.process_time() - begin

        # Ten times the lines take ten times the work; what looks at all lines for each of them
        # takes a hundred times.
        assert processor_seconds(50_000) < 40 * processor_seconds(5_000)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("img_00001.jpg", True),
        ("frame000001.JPG", True),
        ("00001.png", True),
        ("flow_x_00001.jpg", False),
        ("flow_x_p2_00000.jpg", False),
        ("flow_00001.jpg", False),
        ("x_00001.jpg", False),
        ("v_00001.png", False),
        ("VID-000001x.jpg", False),
        ("cover.jpg", False),
        ("00001.txt", False),
    ],
)
def test_frame_images(name: str, expected: bool) -> None:
    assert is_frame_image(name) is expected


class TestUCF101:
    @pytest.fixture
    def lists(self, tmp_path: Path) -> Path:
        folder = tmp_path / "ucfTrainTestlist"
        write(folder / "classInd.txt", "1 Walk\r\n2 Run\r\n")
        write(folder / "trainlist01.txt", "Walk/v_Walk_g02_c01.avi 1\r\nRun/v_Run_g02_c01.avi 2\n")
        write(folder / "testlist01.txt", "Walk/v_Walk_g01_c01.avi\r\n")
        write(folder / "trainlist02.txt", "Walk/v_Walk_g01_c01.avi 1\n")
        write(folder / "testlist02.txt", "Walk/v_Walk_g02_c01.avi\n")
        return folder

    FILES = ("Walk/v_Walk_g02_c01.avi", "Run/v_Run_g02_c01.avi", "Walk/v_Walk_g01_c01.avi")

    @pytest.mark.parametrize("flat", [False, True])
    def test_split_and_labels(self, tmp_path: Path, lists: Path, flat: bool) -> None:
        root = tmp_path / "videos"
        touch(root, *(Path(name).name if flat else name for name in self.FILES))
        manifest = collect_videos(root, annotations=lists)
        assert manifest.class_names == ("Walk", "Run")
        assert [(v.key, v.labels, v.split) for v in manifest.videos] == [
            ("Walk/v_Walk_g02_c01", (0,), "train"),
            ("Run/v_Run_g02_c01", (1,), "train"),
            ("Walk/v_Walk_g01_c01", (0,), "test"),
        ]
        assert manifest.notes == ()
        second = collect_videos(root, annotations=lists, split=2)
        assert [video.split for video in second.videos] == ["train", "test"]
        assert second.notes == (
            f"ignored 1 video under {root} that {lists} does not name; add lines for them if they "
            "should be used",
        )

    def test_absent(self, tmp_path: Path, lists: Path) -> None:
        root = touch(tmp_path / "videos", self.FILES[0])
        note = (
            f"2 of 3 listed videos are not under {root}; first: Run/v_Run_g02_c01.avi, "
            f"Walk/v_Walk_g01_c01.avi"
        )
        assert collect_videos(root, annotations=lists, allow_missing=True).notes == (
            f"{note}; check the folder if they should be there",
        )
        assert message(lambda: collect_videos(root, annotations=lists)) == (
            f"1 of 2 classes in {lists} has no video under {root}: Run (1 listed video, first: "
            f"Run/v_Run_g02_c01.avi); check the folder of the videos against {lists}, or give "
            f"--allow-missing (allow_missing=True) to go on without them"
        )
        assert message(lambda: collect_videos(root, annotations=lists, strict=True)) == (
            f"{note}; check the folder of the videos against {lists}"
        )
        empty = tmp_path / "empty"
        empty.mkdir()
        assert "3 of 3 listed videos are not under" in message(
            lambda: collect_videos(empty, annotations=lists)
        )

    def test_converted_and_frame_folders(self, tmp_path: Path, lists: Path) -> None:
        root = touch(tmp_path / "videos", "Walk/v_Walk_g02_c01.mp4")
        frames(root / "Run/v_Run_g02_c01")
        assert len(collect_videos(root, annotations=lists).videos) == 2
        touch(root, "Walk/v_Walk_g02_c01.mkv")
        assert message(lambda: collect_videos(root, annotations=lists, allow_missing=True)) == (
            f"two files could be the listed video v_Walk_g02_c01.avi: "
            f"{root}/Walk/v_Walk_g02_c01.mkv and {root}/Walk/v_Walk_g02_c01.mp4; keep one of them, "
            f"or write the path with its folder and extension"
        )
        touch(root, self.FILES[0])  # the very file that the list names
        manifest = collect_videos(root, annotations=lists, allow_missing=True)
        assert manifest.videos[0].source == str(root / self.FILES[0])

    def test_damaged_lists(self, tmp_path: Path, lists: Path) -> None:
        root = touch(tmp_path / "videos", *self.FILES)
        assert message(lambda: collect_videos(root, annotations=lists, split=3)) == (
            f"annotations {lists} has no file trainlist03.txt, which split 3 needs; the split "
            f"files there: testlist01.txt, testlist02.txt, trainlist01.txt, trainlist02.txt"
        )
        write(lists / "testlist01.txt", "Walk/v_Walk_g01_c01.avi 2\n")
        assert message(lambda: collect_videos(root, annotations=lists)) == (
            f"line 1 of {lists}/testlist01.txt: Walk is class 1 in {lists}/classInd.txt, got 2; "
            f"correct one of the two"
        )
        write(lists / "testlist01.txt", "Jump/v_Jump_g01_c01.avi\n")
        assert message(lambda: collect_videos(root, annotations=lists)) == (
            f"line 1 of {lists}/testlist01.txt: class 'Jump' is not in {lists}/classInd.txt; add "
            f"it there, or correct the line"
        )
        write(lists / "classInd.txt", "0 Walk\n")
        assert message(lambda: collect_videos(root, annotations=lists)) == (
            f"line 1 of {lists}/classInd.txt must be '1 CLASS', got '0 Walk'"
        )

    def test_real_annotations(self, test_data: Path) -> None:
        root, lists = test_data / "ucf101/videos", test_data / "ucf101/ucfTrainTestlist"
        assert "95 of 101 classes in" in message(lambda: collect_videos(root, annotations=lists))
        manifest = collect_videos(root, annotations=lists, allow_missing=True)
        index = (lists / "classInd.txt").read_text().split()
        assert list(manifest.class_names) == index[1::2]
        tested = (lists / "testlist01.txt").read_text().split()
        assert len(manifest.videos) == 24
        for video in manifest.videos:
            class_name, name = video.key.split("/")
            assert video.labels == (index.index(class_name) // 2,)
            assert video.split == ("test" if f"{class_name}/{name}.avi" in tested else "train")
            assert Path(video.source).is_file()
        assert manifest.notes[0].startswith("13,296 of 13,320 listed videos are not under")
        assert message(lambda: collect_videos(root, annotations=lists, split=2)) == (
            f"annotations {lists} has no file trainlist02.txt, which split 2 needs; the split "
            f"files there: testlist01.txt, trainlist01.txt"
        )


class TestHMDB51:
    @pytest.fixture
    def lists(self, tmp_path: Path) -> Path:
        folder = tmp_path / "splits"
        write(folder / "walk_test_split1.txt", "a#1(x)!&;.avi 1 \nb.avi 2 \nc.avi 0 \n")
        write(folder / "run_test_split1.txt", "d.avi 2 \r\ngone.avi 1 \r\n")
        write(folder / "run_test_split2.txt", "d.avi 1 \n")
        return folder

    def test_split_and_labels(self, tmp_path: Path, lists: Path) -> None:
        names = ("walk/a#1(x)!&;.avi", "walk/b.avi", "walk/c.avi", "run/d.avi", "run/new.avi")
        root = touch(tmp_path / "hmdb", *names)
        touch(root, "run/b.avi")  # the name of another class's video
        manifest = collect_videos(root, annotations=lists)
        assert manifest.class_names == ("run", "walk")
        assert [(v.key, v.labels, v.split) for v in manifest.videos] == [
            ("run/d", (0,), "test"),
            ("walk/a%231%28x%29%21%26%3B", (1,), "train"),
            ("walk/b", (1,), "test"),
        ]
        assert manifest.videos[2].source == str(root / "walk/b.avi")
        assert manifest.notes == (
            f"1 of 4 listed videos are not under {root}; first: run/gone.avi; check the folder if "
            f"they should be there",
            f"ignored 2 videos under {root} that {lists} does not name; add lines for them if they "
            "should be used",
            "left out 1 video that split 1 does not use; name the folder without annotations to "
            "extract every video",
        )

    def test_errors(self, tmp_path: Path, lists: Path) -> None:
        root = touch(tmp_path / "hmdb", "run/d.avi")
        assert message(lambda: collect_videos(root, annotations=lists, split=3)) == (
            f"annotations {lists} has no file run_test_split3.txt, which split 3 needs; the split "
            f"files there: 2 files of split 1, 1 file of split 2"
        )
        assert message(lambda: collect_videos(root, annotations=lists, split=2)) == (
            f"annotations {lists} has no file walk_test_split2.txt, which split 2 needs; the split "
            f"files there: 2 files of split 1, 1 file of split 2"
        )
        write(lists / "walk_test_split2.txt", "a.avi 1\n")
        write(lists / "run_test_split2.txt", "d.avi 3\n")
        assert message(lambda: collect_videos(root, annotations=lists, split=2)) == (
            f"line 1 of {lists}/run_test_split2.txt must be 'NAME.avi 0', 1 or 2, got 'd.avi 3'"
        )


class TestKinetics:
    HEADER = "label,youtube_id,time_start,time_end,split\n"

    def test_trimmed_in_every_layout(self, tmp_path: Path) -> None:
        root = touch(
            tmp_path / "k",
            "-abc_def-12_000010_000020.mp4",
            "tying knot (not on a tie)/abcdefghij1_000000_000010.mp4",
            "abseiling_down/abcdefghij2_000001_000011.mkv",
            "val/x, y/abcdefghij3_000002_000012.mp4",
        )
        text = self.HEADER + (
            "abseiling down,-abc_def-12,10,20,train\r\n"
            "tying knot (not on a tie),abcdefghij1,0,10,train\r\n"
            "abseiling down,abcdefghij2,1,11,test\r\n"
            '"x, y",abcdefghij3,2,12,validate\r\n'
        )
        manifest = collect_videos(root, annotations=write(tmp_path / "k.csv", "\ufeff" + text))
        assert manifest.class_names == ("abseiling down", "tying knot (not on a tie)", "x, y")
        assert [(v.key, v.labels, v.split) for v in manifest.videos] == [
            ("abseiling%20down/%2Dabc_def-12_000010_000020", (0,), "train"),
            ("tying%20knot%20%28not%20on%20a%20tie%29/abcdefghij1_000000_000010", (1,), "train"),
            ("abseiling%20down/abcdefghij2_000001_000011", (0,), "test"),
            ("x%2C%20y/abcdefghij3_000002_000012", (2,), "val"),
        ]
        assert all(video.start_seconds is None for video in manifest.videos)
        assert manifest.notes == ()

    def test_untrimmed_gives_ranges(self, tmp_path: Path) -> None:
        touch(tmp_path, "abcdefghij1.webm", "abcdefghij2.mp4", "abcdefghij2_000000_000010.mp4")
        rows = "a,abcdefghij1,0,10,train\nb,abcdefghij1,5,15,train\na,abcdefghij2,0,10,test\n"
        manifest = collect_videos(write(tmp_path / "k.csv", self.HEADER + rows))
        assert [(v.key, v.start_seconds, v.end_seconds) for v in manifest.videos] == [
            ("a/abcdefghij1_000000_000010", 0.0, 10.0),
            ("b/abcdefghij1_000005_000015", 5.0, 15.0),
            ("a/abcdefghij2_000000_000010", None, None),
        ]

    def test_without_labels_and_absent(self, tmp_path: Path) -> None:
        touch(tmp_path, "abcdefghij1_000000_000010.mp4")
        rows = "youtube_id,time_start,time_end,split\nabcdefghij1,0,10,test\ngone,1,11,test\n"
        path = write(tmp_path / "k.csv", rows)
        manifest = collect_videos(path, out=tmp_path / "flow")
        assert labels(manifest) == {"abcdefghij1_000000_000010": ()}
        assert manifest.class_names == ()
        note = f"1 of 2 listed videos are not under {tmp_path}; first: gone_000001_000011"
        assert f"{note}; check the folder if they should be there" in manifest.notes
        assert note in message(lambda: collect_videos(path, strict=True))

    def test_several_files_share_their_classes(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "aaaaaaaaaa1_000000_000010.mp4", "aaaaaaaaaa2_000000_000010.mp4")
        train = write(tmp_path / "train.csv", self.HEADER + "run,aaaaaaaaaa1,0,10,train\n")
        val = write(tmp_path / "val.csv", self.HEADER + "jump,aaaaaaaaaa2,0,10,validate\n")
        manifest = collect_videos([train, val], root=root)
        assert manifest.class_names == ("jump", "run")
        assert [video.labels for video in manifest.videos] == [(1,), (0,)]

    def test_damaged_files(self, tmp_path: Path) -> None:
        touch(tmp_path, "aaaaaaaaaa1_000000_000010.mp4")
        path = tmp_path / "k.csv"

        def refused(text: str) -> str:
            write(path, text)
            return message(lambda: collect_videos(path))

        assert refused("name,id\nx,1\n") == (
            f"no row of {path} names a video that exists: expected paths in the column id, found "
            f"'1' on line 2 of {path}; name the column of paths 'path', or give --root if the "
            f"paths start from another folder"
        )
        assert message(lambda: collect_videos(path, format="kinetics")) == (
            f"{path} is not a Kinetics CSV: its first line must name the columns "
            "label,youtube_id,time_start,time_end,split (label and split are optional), got "
            "'name,id'; give --format csv for a table with a column path"
        )
        assert refused(self.HEADER + "run,aaaaaaaaaa1,10,0,train\n") == (
            f"line 2 of {path} needs a youtube_id and times in seconds with 0 <= time_start < "
            f"time_end, got 'run,aaaaaaaaaa1,10,0,train'"
        )
        assert refused(self.HEADER + "run,aaaaaaaaaa1\n") == (
            f"line 2 of {path} has 2 columns, but the header has 5 "
            "(label,youtube_id,time_start,time_end,split), got 'run,aaaaaaaaaa1'; put text that "
            "holds ',' in double quotes"
        )
        path.write_bytes((self.HEADER + "run,aaaaaaaaaa1,0,10,tr\xe4in\n").encode("latin-1"))
        assert message(lambda: collect_videos(path)) == (
            f"the split on line 2 of {path} must be UTF-8, got 'tr\\udce4in'"
        )
        row = "run,aaaaaaaaaa1,0,10,train\n"
        manifest = collect_videos(write(path, self.HEADER + row + row))
        assert keys(manifest) == ["run/aaaaaaaaaa1_000000_000010"]
        assert manifest.notes[-1] == (
            f"left out 1 line that names a video again, with the same label; first: line 3 of "
            f"{path} repeats line 2 of {path}, {tmp_path}/aaaaaaaaaa1_000000_000010.mp4; remove "
            f"one of the two"
        )
        assert refused(self.HEADER) == (
            f"{path} names no video; check that it is the list of the videos"
        )


class TestStores:
    """The same inputs on an object store: fsspec's memory here, S3 in tests/run."""

    @pytest.fixture
    def store(self) -> Iterator[str]:
        files = fsspec.filesystem("memory")
        names = (
            *("walk/a.mp4", "walk/b.v2.avi", "run/c.MKV", "run/.hidden.mp4", "run/notes.txt"),
            *("run/frames/img_00001.jpg", "run/frames/img_00002.jpg"),
        )
        for name in names:
            files.pipe_file(f"/flowprep-in/videos/{name}", b"x")
        yield "memory://flowprep-in"
        files.rm("/flowprep-in", recursive=True)

    def test_a_folder_has_the_keys_and_labels_of_a_local_tree(
        self, store: str, tmp_path: Path
    ) -> None:
        touch(
            *(tmp_path, "videos/walk/a.mp4", "videos/walk/b.v2.avi", "videos/run/c.MKV"),
            *("videos/run/frames/img_00001.jpg", "videos/run/frames/img_00002.jpg"),
            *("videos/run/notes.txt", "videos/run/.hidden.mp4"),
        )
        there = collect_videos(f"{store}/videos/", out="s3://elsewhere/out")
        here = collect_videos(tmp_path / "videos")
        assert keys(there) == keys(here) == ["run/c", "run/frames", "walk/a", "walk/b%2Ev2"]
        assert [v.labels for v in there.videos] == [v.labels for v in here.videos]
        assert (there.class_names, there.num_ignored_files) == (("run", "walk"), 1)
        assert there.notes == here.notes
        assert [v.source for v in there.videos] == [
            v.source.replace(str(tmp_path), store) for v in here.videos
        ]

    def test_patterns_files_and_roots(self, store: str) -> None:
        assert keys(collect_videos(f"{store}/videos/*/*.mp4")) == ["walk/a"]
        assert keys(collect_videos(f"{store}/videos/**/?.[mM]*")) == ["run/c", "walk/a"]
        assert keys(collect_videos(f"{store}/videos/walk/a.mp4")) == ["a"]
        given = collect_videos(f"{store}/videos/walk/a.mp4", root=f"{store}/videos")
        assert keys(given) == ["walk/a"]
        with pytest.raises(InputError, match="VIDEOS does not exist: memory://flowprep-in/gone"):
            collect_videos(f"{store}/gone")

    def test_lists_name_urls_and_paths_below_a_root(self, store: str, tmp_path: Path) -> None:
        listed = tmp_path / "list.txt"
        listed.write_text("walk/a.mp4 1\nrun/frames 2 0\n./run/../run/c.MKV 0\ngone.mp4 5\n")
        given = collect_videos(listed, root=f"{store}/videos")
        assert keys(given) == ["walk/a", "run/frames", "run/c", "gone"]
        assert [v.labels for v in given.videos] == [(1,), (0,), (0,), (5,)]
        assert given.notes == (
            f"1 of 4 listed videos not found; first: {store}/videos/gone.mp4; check the paths, or "
            f"give their folder as --root",
        )
        listed.write_text(f"{store}/videos/walk/a.mp4 1\n{store}/videos/run/c.MKV 0\n")
        given = collect_videos(listed)
        assert keys(given) == ["walk/a", "run/c"]
        assert given.videos[0].source == f"{store}/videos/walk/a.mp4"

    def test_a_list_on_the_store_starts_from_its_own_folder(self, store: str) -> None:
        files = fsspec.filesystem("memory")
        files.pipe_file("/flowprep-in/videos/list.txt", b"walk/a.mp4 3\n")
        (video,) = collect_videos(f"{store}/videos/list.txt").videos
        assert (video.key, video.labels) == ("walk/a", (3,))
        assert video.source == f"{store}/videos/walk/a.mp4"

    def test_kinetics_and_ucf101(self, store: str, tmp_path: Path) -> None:
        table = tmp_path / "train.csv"
        table.write_text("label,youtube_id,time_start,time_end,split\nwalk,a,1,2,train\n")
        (video,) = collect_videos(f"{store}/videos", annotations=table).videos
        assert (video.key, video.source) == ("walk/a_000001_000002", f"{store}/videos/walk/a.mp4")
        files = fsspec.filesystem("memory")
        for name, text in (
            *(("classInd.txt", b"1 walk\n2 run\n"), ("trainlist01.txt", b"walk/a.avi 1\n")),
            ("testlist01.txt", b"run/c.avi\n"),
        ):
            files.pipe_file(f"/flowprep-in/lists/{name}", text)
        given = collect_videos(f"{store}/videos", annotations=f"{store}/lists")
        assert keys(given) == ["walk/a", "run/c"]
        assert [(v.labels, v.split) for v in given.videos] == [((0,), "train"), ((1,), "test")]

    def test_several_stores_have_no_common_keys(self, tmp_path: Path) -> None:
        listed = tmp_path / "list.txt"
        listed.write_text("https://one/a/v.mp4\nhttps://two/b/w.mp4\n")
        with pytest.raises(InputError, match="names videos of several stores or buckets"):
            collect_videos(listed)

    def test_signed_addresses_have_keys_and_notes_without_the_signature(
        self, tmp_path: Path
    ) -> None:
        listed = tmp_path / "list.txt"
        listed.write_text(
            "https://host/v/walk/a.mp4?X-Amz-Signature=5ec2e7&X=1 1\n"
            "https://host/v/run/b.mp4?X-Amz-Signature=5ec2e7 0\n"
        )
        given = collect_videos(listed)
        assert keys(given) == ["walk/a", "run/b"]
        assert [v.labels for v in given.videos] == [(1,), (0,)]
        assert given.videos[0].source.endswith("X-Amz-Signature=5ec2e7&X=1")
        listed.write_text("https://host/v/a.mp4?sig=5ec2e7\n" * 2)
        given = collect_videos(listed)
        assert len(given.videos) == 1
        assert "https://host/v/a.mp4?..." in given.notes[-1]
        assert "5ec2e7" not in given.notes[-1]
        listed.write_text("".join(f"https://host/v/a.mp4?sig=5ec2e7 {i}\n" for i in (1, 2)))
        with pytest.raises(InputError, match="the same video with other labels") as caught:
            collect_videos(listed)
        assert "5ec2e7" not in str(caught.value)
        assert "https://host/v/a.mp4?..." in str(caught.value)
