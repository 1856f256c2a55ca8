"""Lists of every kind: how they are recognized, how names are found, and what a user reads."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.dataset.layout import ManifestEntry, write_manifest
from flowprep.dataset.plan import stored_ranges
from flowprep.errors import ConfigError, FlowprepError, InputError
from flowprep.inputs.clips import names_of_clips
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.name_index import Names, fold, without_extensions
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from tests.inputs.test_manifest import frames, keys, labels, message, touch, write

NFC = "caf\u00e9 \u00fcber.mp4"
NFD = unicodedata.normalize("NFD", NFC)


def classes(manifest: Manifest) -> dict[str, str]:
    """Returns key -> name of the (one) class."""
    return {video.key: manifest.class_names[video.labels[0]] for video in manifest.videos}


def ranges(manifest: Manifest) -> dict[str, tuple[float | None, float | None]]:
    return {video.key: (video.start_seconds, video.end_seconds) for video in manifest.videos}


@pytest.fixture
def case(test_data: Path, tmp_path: Path) -> Any:
    """Returns what reads one of the lists of `cases`, beside files that the test names."""

    def read(name: str, *files: str, **options: Any) -> Manifest:
        shutil.copy(test_data / "cases/lists" / name, tmp_path / name)
        touch(tmp_path, *files)
        return collect_videos(tmp_path / name, **options)

    return read


class TestCases:
    """The lists of `cases`, with what its README says of each."""

    def test_a_name_that_begins_with_a_hash(self, case: Any, tmp_path: Path) -> None:
        manifest = case("hash.txt", "#20_clap_u_nm.mp4", "aa.mp4")
        assert labels(manifest) == {"%2320_clap_u_nm": (3,), "aa": (1,)}
        (tmp_path / "#20_clap_u_nm.mp4").unlink()
        assert labels(case("hash.txt", "aa.mp4")) == {"aa": (1,)}

    @pytest.mark.parametrize("folder", ["", "x/"])
    def test_names_without_extension(self, case: Any, folder: str) -> None:
        manifest = case("ids.csv", f"{folder}-3Babcdefg.webm", f"{folder}aa.MKV")
        assert labels(manifest) == {"%2D3Babcdefg": (0,), "aa": (1,)}

    def test_another_unicode_form(self, case: Any, tmp_path: Path) -> None:
        listed = "vids/caf\u00e9.mp4"
        name = unicodedata.normalize("NFD", listed)
        manifest = case("nfc.txt", name, "vids/aa.mp4")
        # The key is the list's, so it is the same where the disk has composed names.
        assert labels(manifest) == {"vids/caf%C3%A9": (0,), "vids/aa": (1,)}
        assert manifest.videos[0].source == str(tmp_path / name)
        assert manifest.notes == (
            f"found 1 listed video under a name in another Unicode form or encoding; first: "
            f"{listed} is {name}; rename it if it is another video",
        )

    @pytest.mark.parametrize("name", ["slow.csv", "comma.csv"])
    def test_paths_with_labels_in_a_csv(self, case: Any, name: str) -> None:
        manifest = case(name, "vids/aa.mp4", "vids/bb.mp4")
        assert labels(manifest) == {"vids/aa": (0,), "vids/bb": (1,)}
        assert manifest.notes == ()

    def test_folders_with_counts(self, case: Any, tmp_path: Path) -> None:
        frames(tmp_path / "78687", 39)
        frames(tmp_path / "42326", 37)
        assert labels(case("tsmss.txt", format="tsn")) == {"78687": (33,), "42326": (10,)}

    def test_charades(self, case: Any) -> None:
        manifest = case("ch.csv", "46GP8.mp4")
        assert classes(manifest) == {
            "c092/46GP8_000011_000021": "c092",
            "c147/46GP8_000000_000012": "c147",
        }
        assert list(ranges(manifest).values()) == [(11.9, 21.2), (0.0, 12.6)]
        assert [video.labels for video in manifest.videos] == [(92,), (147,)]
        manifest = case("ch.csv", "46GP8.mp4", charades="video")
        assert labels(manifest) == {"46GP8": (92, 147)}
        assert ranges(manifest) == {"46GP8": (None, None)}

    def test_epic(self, case: Any) -> None:
        manifest = case("ek.csv", "P01/videos/P01_01.MP4")
        assert labels(manifest) == {"P01_01_0": (3,)}
        assert ranges(manifest) == {"P01_01_0": (0.14, 3.37)}

    def test_ava(self, case: Any) -> None:
        manifest = case("ava.csv", "-5KQ66BBWC4.mkv")
        assert labels(manifest) == {"%2D5KQ66BBWC4_000900_000903": (80,)}
        assert list(ranges(manifest).values()) == [(900.5, 903.5)]

    def test_something(self, case: Any) -> None:
        manifest = case("ss.json", "20bn/74225.webm")
        assert classes(manifest) == {"74225": "Spinning [something]"}

    def test_kinetics_with_two_extensions(self, case: Any) -> None:
        manifest = case(
            *("k1.csv", "abseiling/0347ZoDXyP0_000095_000105.mp4.mkv"),
            *("035LtPeUFTE_000085_000095.mkv", "-3B32lodo2M.webm", "1vHV56EJyAA.webm.mp4"),
        )
        assert ranges(manifest) == {
            "abseiling/0347ZoDXyP0_000095_000105": (None, None),
            "abseiling/035LtPeUFTE_000085_000095": (None, None),
            "abseiling/%2D3B32lodo2M_000002_000007": (2.0, 7.0),
            "abseiling/1vHV56EJyAA_000001_000003": (1.0, 3.0),
        }
        assert any("2 listed videos under names with two extensions" in n for n in manifest.notes)

    def test_two_clips_of_the_same_seconds(self, case: Any) -> None:
        manifest = case("k10.csv", "BBBBBBBBBB1.mp4")
        assert ranges(manifest) == {
            "x/BBBBBBBBBB1_000000200_000004800": (0.2, 4.8),
            "x/BBBBBBBBBB1_000000600_000004900": (0.6, 4.9),
        }

    def test_one_trimmed_file_for_two_clips(self, case: Any, tmp_path: Path) -> None:
        name = "BBBBBBBBBB1_000000_000004.mp4"
        assert message(lambda: case("k10.csv", name)) == (
            f"line 2 of {tmp_path}/k10.csv: {tmp_path}/{name} could be several clips of "
            f"{tmp_path}/k10.csv, which begin and end within the same seconds; rename the file to "
            "BBBBBBBBBB1_000000200_000004800 (milliseconds) if it is this clip"
        )
        precise = [
            f"BBBBBBBBBB1_{times}.mp4" for times in ("000000200_000004800", "000000600_000004900")
        ]
        manifest = case("k10.csv", *precise)
        assert [Path(video.source).name for video in manifest.videos] == precise
        assert set(ranges(manifest).values()) == {(None, None)}

    def test_seconds_of_images(self, case: Any, tmp_path: Path) -> None:
        frames(tmp_path / "CCCCCCCCCC1", 50)
        assert message(lambda: case("r.csv")) == (
            f"line 2 of {tmp_path}/r.csv asks for 0.5 s to 1.5 s of {tmp_path}/CCCCCCCCCC1, a "
            "folder of images, which has no frame rate of its own; give the frame rate of the "
            "images, such as --image-fps 25 (image_fps=25)"
        )
        assert list(ranges(case("r.csv", image_fps=25)).values()) == [(0.5, 1.5), (2.0, 12.0)]


class TestNames:
    """A name is found by path, stem, or another spelling, in the same way by every list."""

    KINDS: ClassVar = {
        "list": ("list.txt", "{0} walk\n{1} walk\n"),
        "csv": ("list.csv", "video,class\n{0},walk\n{1},walk\n"),
        "kinetics": (
            "k.csv",
            "label,youtube_id,time_start,time_end\nwalk,{2},0,10\nwalk,{3},0,10\n",
        ),
        "something": ("s.json", '[{{"id": "{2}", "label": "x"}}, {{"id": "{3}", "label": "x"}}]'),
        "charades": ("c.csv", "id,actions\n{2},c001 0 10\n{3},c001 0 10\n"),
        "epic": (
            "e.csv",
            "video_id,start_timestamp,stop_timestamp\n{2},0:00:00,0:00:10\n{3},0:00:00,0:00:10\n",
        ),
        "ava": ("a.csv", "{2},5,0.1,0.2,0.3,0.4,1,0\n{3},5,0.1,0.2,0.3,0.4,1,0\n"),
    }

    def read(self, folder: Path, kind: str, *listed: str) -> Manifest:
        name, text = self.KINDS[kind]
        stems = [without_extensions(one) for one in listed]
        return collect_videos(write(folder / name, text.format(*listed, *stems)))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("listed", "there", "how"),
        [
            ("take one.mp4", "take one.mp4", ""),
            ("take_1.mp4", "take_1.MP4", ""),
            ("take_1.mp4", "Take_1.MP4", "other upper and lower case"),
            ("\u00c4RGER.mp4", "\u00e4rger.mp4", "other upper and lower case"),
            (NFC, NFD, "another Unicode form"),
            (NFD, NFC, "another Unicode form"),
            ("-abc.mp4", "-abc.mp4.mkv", "two extensions"),
            ("-abc.mp4", "-abc.f137.mp4.webm.mkv", None),
        ],
    )
    def test_spellings(
        self, tmp_path: Path, kind: str, listed: str, there: str, how: str | None
    ) -> None:
        touch(tmp_path, there, "other.avi")
        manifest = self.read(tmp_path, kind, listed, "other.avi")
        found = {
            Path(video.source).name for video in manifest.videos if os.path.exists(video.source)
        }
        assert found == ({"other.avi"} if how is None else {there, "other.avi"})
        notes = [note for note in manifest.notes if note.startswith("found 1 listed video")]
        assert len(notes) == (1 if how else 0)
        if how:
            assert how in notes[0]
            assert f" is {there}; " in notes[0]

    @pytest.mark.parametrize("kind", KINDS)
    def test_two_files_fit_equally(self, tmp_path: Path, kind: str) -> None:
        touch(tmp_path, "A.mp4", "a.mp4.mkv", "other.avi")
        with pytest.raises(InputError, match="two files could be the listed video") as caught:
            self.read(tmp_path, kind, "a.avi", "other.avi")
        assert f"{tmp_path}/A.mp4 and {tmp_path}/a.mp4.mkv" in str(caught.value)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_that_is_listed_itself_is_no_other_video(
        self, tmp_path: Path, kind: str
    ) -> None:
        touch(tmp_path, "a.mp4")
        manifest = self.read(tmp_path, kind, "A.mp4", "a.mp4")
        there = [video for video in manifest.videos if os.path.exists(video.source)]
        assert len(there) == 1
        assert any("1 of 2 listed videos" in note for note in manifest.notes)

    @pytest.mark.parametrize("kind", KINDS)
    def test_did_you_mean(self, tmp_path: Path, kind: str) -> None:
        touch(tmp_path, "walking_001.mp4", "other.avi")
        manifest = self.read(tmp_path, kind, "walkng_001.mp4", "other.avi")
        (note,) = (note for note in manifest.notes if "1 of 2 listed videos" in note)
        assert "walking_001.mp4?)" in note
        # The nearest name may be another listed video, which nobody means.
        manifest = self.read(tmp_path, kind, "othar.avi", "other.avi")
        (note,) = (note for note in manifest.notes if "1 of 2 listed videos" in note)
        assert "did you mean" not in note

    def test_folders_in_another_spelling(self, tmp_path: Path) -> None:
        touch(tmp_path, "Tai Chi/a.mp4", "caf\u0065\u0301/b.mp4")
        text = "tai chi/a.mp4 0\ncaf\u00e9/b.mp4 1\n"
        manifest = collect_videos(write(tmp_path / "list.txt", text))
        assert [Path(video.source).is_file() for video in manifest.videos] == [True, True]
        assert labels(manifest) == {"tai%20chi/a": (0,), "caf%C3%A9/b": (1,)}

    def test_other_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "v/walk/a.mp4", "v/run/b.mp4", "v/c.mp4")
        text = "a.mp4 0\n/elsewhere/run/b.mp4 1\ndeep/c.mp4 2\nwalk/b.mp4 3\n"
        manifest = collect_videos(tmp_path / "v", annotations=write(tmp_path / "list.txt", text))
        sources = [os.path.relpath(video.source, tmp_path / "v") for video in manifest.videos]
        assert sources == ["walk/a.mp4", "run/b.mp4", "c.mp4", "walk/b.mp4"]
        assert keys(manifest) == ["a", "run/b", "deep/c", "walk/b"]
        assert any("found 3 listed videos in other folders" in note for note in manifest.notes)
        assert any("1 of 4 listed videos not found" in note for note in manifest.notes)

    def test_paths_of_windows(self, tmp_path: Path) -> None:
        touch(tmp_path, "vids/a.mp4", "vids/b c.mp4", "odd\\name.mp4")
        text = "vids\\a.mp4 0\r\nD:\\data\\vids\\b c.mp4 1\r\nodd\\name.mp4 2\r\n"
        manifest = collect_videos(write(tmp_path / "list.txt", text))
        assert labels(manifest) == {"vids/a": (0,), "vids/b%20c": (1,), "odd%5Cname": (2,)}
        assert manifest.notes[-1] == (
            "found 1 listed video by reading \\ in the list as /; first: vids\\a.mp4 is vids/a.mp4"
            "; rename it if it is another video"
        )

    def test_a_list_in_latin_1(self, tmp_path: Path) -> None:
        touch(tmp_path, "caf\u00e9.mp4")
        (video,) = collect_videos(
            write(tmp_path / "l.txt", "caf\u00e9.mp4 0\n".encode("latin-1"))
        ).videos
        assert video.source == str(tmp_path / "caf\u00e9.mp4")

    def test_a_folder_without_images_is_no_video(self, tmp_path: Path) -> None:
        touch(tmp_path, "aa/notes.txt", "aa.mp4")
        frames(touch(tmp_path, "bb.mp4") / "bb")
        manifest = collect_videos(write(tmp_path / "list.txt", "aa 0\nbb 1\n"))
        assert [Path(video.source).name for video in manifest.videos] == ["aa.mp4", "bb"]

    @given(st.lists(st.text("aAbB\u00e9\u0301.", min_size=1, max_size=4), unique=True, max_size=6))
    def test_the_name_itself_counts_most(self, stems: list[str]) -> None:
        names = [f"{stem}.mp4" for stem in stems]
        index = Names((name, False, name) for name in names)
        for name in names:
            assert next(index.levels(name)) == [name]

    @given(st.text(max_size=8))
    def test_fold_is_blind_for_form_and_idempotent(self, text: str) -> None:
        forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")}
        assert len({fold(form) for form in forms}) == 1
        assert fold(fold(text)) == fold(text)


class TestUCF101:
    @pytest.mark.parametrize("folder", ["HandstandPushups", "HandStandPushups", "handstandpushups"])
    @pytest.mark.parametrize("index", ["HandstandPushups", "HandStandPushups"])
    @pytest.mark.parametrize("listed", ["HandstandPushups", "HandStandPushups"])
    def test_handstand_pushups(self, tmp_path: Path, folder: str, index: str, listed: str) -> None:
        touch(
            *(tmp_path / "videos", f"{folder}/v_HandStandPushups_g01_c01.avi"),
            *(f"{folder}/v_HandstandPushups_g02_c01.avi", "Walk/v_Walk_g01_c01.avi"),
        )
        lists = tmp_path / "lists"
        write(lists / "classInd.txt", f"1 {index}\n2 Walk\n")
        write(lists / "trainlist01.txt", f"{listed}/v_HandStandPushups_g01_c01.avi 1\n")
        write(
            lists / "testlist01.txt",
            f"{listed}/v_HandStandPushups_g02_c01.avi\nWalk/v_Walk_g01_c01.avi\n",
        )
        manifest = collect_videos(tmp_path / "videos", annotations=lists)
        assert classes(manifest) == {
            f"{index}/v_HandStandPushups_g01_c01": index,
            f"{index}/v_HandStandPushups_g02_c01": index,
            "Walk/v_Walk_g01_c01": "Walk",
        }
        took = (
            f"took the class {listed} of the lists to be {index} of {lists}/classInd.txt; correct "
            "the spelling if they are two classes"
        )
        assert (took in manifest.notes) is (listed != index)
        assert sum("other upper and lower case" in note for note in manifest.notes) == 1

    def test_names_of_classes_with_spaces(self, tmp_path: Path) -> None:
        touch(tmp_path / "videos", "tie shoes/my clip.avi", "walk/b.avi")
        lists = tmp_path / "lists"
        write(lists / "classInd.txt", "1 tie shoes\n2 walk\n")
        write(lists / "trainlist01.txt", "# mine\ntie shoes/my clip.avi 1\n")
        write(lists / "testlist01.txt", "walk/b.avi\n")
        manifest = collect_videos(tmp_path / "videos", annotations=lists)
        assert classes(manifest) == {"tie%20shoes/my%20clip": "tie shoes", "walk/b": "walk"}
        assert "took 1 line" in manifest.notes[0]


class TestMissingClasses:
    LISTS: ClassVar = {
        "list.txt": "a.mp4 walk\nb.mp4 run\nc.mp4 run\n",
        "list.csv": "path,label\na.mp4,walk\nb.mp4,run\nc.mp4,run\n",
        "k.csv": "label,youtube_id,time_start,time_end\nwalk,a,0,9\nrun,b,0,9\nrun,c,0,9\n",
        "s.json": json.dumps(
            [{"id": i, "template": t} for i, t in (("a", "walk"), ("b", "run"), ("c", "run"))]
        ),
        "e.csv": "video_id,start_timestamp,stop_timestamp,verb_class\n"
        "a,0:0:1,0:0:2,0\nb,0:0:1,0:0:2,5\nc,0:0:1,0:0:2,5\n",
    }

    @pytest.mark.parametrize("name", LISTS)
    def test_a_class_without_any_video(self, tmp_path: Path, name: str) -> None:
        root = touch(tmp_path / "v", "a.mp4")
        path = write(tmp_path / name, self.LISTS[name])
        text = message(lambda: collect_videos(root, annotations=path))
        label = "5" if name == "e.csv" else "run"
        assert text.startswith(
            f"1 of 2 classes in {path} has no video under {root}: {label} (2 listed videos, first: "
        )
        assert text.endswith("or give --allow-missing (allow_missing=True) to go on without them")
        manifest = collect_videos(root, annotations=path, allow_missing=True)
        assert any("2 of 3 listed videos" in note for note in manifest.notes)
        assert "2 of 3" in message(
            lambda: collect_videos(root, annotations=path, allow_missing=True, strict=True)
        )
        touch(root, "b.mp4")  # one video of two is a note
        manifest = collect_videos(root, annotations=path)
        assert any("1 of 3 listed videos" in note for note in manifest.notes)


class TestForms:
    """What a line may look like."""

    @pytest.fixture
    def read(self, tmp_path: Path) -> Any:
        touch(tmp_path, "vids/aa.mp4", "vids/b b.mp4", "vids/c,c.mp4")

        def read(text: str | bytes, name: str = "list.txt", **options: Any) -> Manifest:
            return collect_videos(write(tmp_path / name, text), **options)

        return read

    @pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";", "  "])
    @pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.lst"])
    def test_separators(self, read: Any, separator: str, name: str) -> None:
        paths = ["vids/aa.mp4", "vids/b b.mp4", "vids/c,c.mp4"]
        expected = {"vids/aa": 0, "vids/b%20b": 1, "vids/c%2Cc": 2}
        text = "".join(f"{path}{separator}{i}\n" for i, path in enumerate(paths))
        assert labels(read(text, name)) == {key: (i,) for key, i in expected.items()}
        text = text.replace(".mp4", "")
        assert labels(read(text, name)) == {key: (i,) for key, i in expected.items()}
        words = ["tie a knot", "walk", "jump"]
        text = "".join(f"{p}{separator}{word}\n" for p, word in zip(paths, words, strict=True))
        assert classes(read(text, name)) == dict(zip(expected, words, strict=True))
        text = "".join(f'"{p}"{separator}"{w}, x"\n' for p, w in zip(paths, words, strict=True))
        assert classes(read(text, name)) == {
            key: f"{word}, x" for key, word in zip(expected, words, strict=True)
        }

    def test_quotes_around_everything(self, read: Any) -> None:
        for text in (
            '"vids/aa.mp4","0"\n"vids/b b.mp4","1"\n',
            "'vids/aa.mp4' '0'\n'vids/b b.mp4' 1\n",
            '"vids/aa.mp4 0"\n"vids/b b.mp4 1"\n',
            '"path","label"\n"vids/aa.mp4","0"\n"vids/b b.mp4","1"\n',
        ):
            assert labels(read(text)) == {"vids/aa": (0,), "vids/b%20b": (1,)}

    def test_names_of_classes_are_numbered_and_said(self, read: Any) -> None:
        manifest = read("vids/aa.mp4 walk\nvids/b b.mp4 run/jog\n")
        assert manifest.class_names == ("run/jog", "walk")
        assert manifest.notes == (
            "labels are names of classes, and are numbered in sorted order: run/jog is 0, walk is "
            "1; write numbers for another order",
        )

    def test_numbers_and_names_do_not_mix(self, read: Any, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        assert message(lambda: read("vids/aa.mp4 0\nvids/b b.mp4 run\n")) == (
            f"labels must be all integers >= 0 or all names of classes: line 1 of {path} has the "
            f"number '0', and line 2 has the name 'run' after 'vids/b b.mp4'; write the same kind "
            f"on every line"
        )
        assert "all integers >= 0 or all names" in message(
            lambda: read("path,label\nvids/aa.mp4,0\nvids/b b.mp4,run\n")
        )

    @pytest.mark.parametrize("separator", [" ", ",", "\t"])
    @pytest.mark.parametrize("rest", [("120", "3"), ("3", "4", "5")])
    def test_two_numbers_after_a_video(
        self, read: Any, tmp_path: Path, separator: str, rest: tuple[str, ...]
    ) -> None:
        text = separator.join(("vids/aa.mp4", *rest)) + "\n"
        given = " ".join(rest)
        assert message(lambda: read(text)) == (
            f"line 1 of {tmp_path}/list.txt: it is not clear whether {given!r} after the video "
            f"'vids/aa.mp4' are a frame count and a label, or {len(rest)} labels; give --format "
            "tsn for PATH NUM_FRAMES LABEL, or --format labels for several labels"
        )
        numbers = tuple(map(int, rest))
        assert labels(read(text, format="labels")) == {"vids/aa": numbers}
        assert labels(read(text, format="tsn")) == {"vids/aa": numbers[1:]}

    def test_tsn_wants_a_count(self, read: Any, tmp_path: Path) -> None:
        assert message(lambda: read("vids/aa.mp4 3\n", format="tsn")) == (
            f"line 1 of {tmp_path}/list.txt: format tsn needs PATH NUM_FRAMES LABEL, got "
            "'vids/aa.mp4 3'; give --format labels if the number is a label"
        )
        frames(tmp_path / "imgs", 5)
        assert labels(read("imgs 5 2\n", format="tsn")) == {"imgs": (2,)}
        assert labels(read("imgs 5 2\n", format="labels")) == {"imgs": (5, 2)}
        assert classes(read("imgs 5 tie a knot\n", format="tsn")) == {"imgs": "tie a knot"}
        assert "asks for a part of" in message(lambda: read("imgs 3 2\n", format="tsn"))

    @pytest.mark.parametrize("rest", ["walk 3", "walk,train", "5 walk", "level 3"])
    def test_more_than_one_label(self, read: Any, tmp_path: Path, rest: str) -> None:
        assert message(lambda: read(f"vids/aa.mp4 {rest}\n")).startswith(
            f"line 1 of {tmp_path}/list.txt: one label must stand after the path, a number or the "
            f"name of a class, got {rest!r} after 'vids/aa.mp4'; put a name"
        )
        assert classes(read(f'vids/aa.mp4 "{rest}"\n')) == {"vids/aa": rest}

    @pytest.mark.parametrize("header", ["path label", "video_name class_id", "Filename\tLabel"])
    def test_a_header_is_said(self, read: Any, header: str) -> None:
        manifest = read(f"{header}\nvids/aa.mp4 0\nvids/b b.mp4 1\n", format="list")
        assert labels(manifest) == {"vids/aa": (0,), "vids/b%20b": (1,)}
        assert "for a header" in manifest.notes[0]

    def test_a_comment_is_said(self, read: Any, tmp_path: Path) -> None:
        touch(tmp_path, "vids/#20 clap.mp4")
        text = "# vids/aa.mp4 and more\n#vids/aa.mp4 1\nvids/#20 clap.mp4 0\n"
        manifest = read(text)
        assert keys(manifest) == ["vids/%2320%20clap"]
        assert manifest.notes[0] == (
            f"took 2 lines of {tmp_path}/list.txt that begin with # for comments, because no such "
            f"file exists; first: line 1, '# vids/aa.mp4 and more'; check the name of the file if "
            f"it is a video"
        )

    def test_labels_from_1(self, read: Any) -> None:
        note = "labels start at 1, and are kept as they are"
        manifest = read("vids/aa.mp4 1\nvids/b b.mp4 2\n")
        assert labels(manifest) == {"vids/aa": (1,), "vids/b%20b": (2,)}
        assert any(note in text for text in manifest.notes)
        assert not any(note in text for text in read("vids/aa.mp4 0\nvids/b b.mp4 1\n").notes)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_wide_encodings(self, read: Any, tmp_path: Path, encoding: str) -> None:
        for name in ("list.txt", "list.csv"):
            text = message(lambda name=name: read("vids/aa.mp4 0\n".encode(encoding), name))
            assert text.startswith(f"{tmp_path}/{name} is text in {encoding.upper()}, but a list")

    def test_line_ends(self, read: Any) -> None:
        for end in ("\n", "\r\n", "\r"):
            for mark in (b"", b"\xef\xbb\xbf"):
                text = mark + f"vids/aa.mp4 0{end}vids/b b.mp4 1,{end}{end}".encode()
                assert labels(read(text)) == {"vids/aa": (0,), "vids/b%20b": (1,)}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("list.txt", "once upon a time\nthere was no list\n"),
            ("list.csv", "a,b,c,d\n1,2,3,4\n"),
            ("list.csv", "abseiling,0347ZoDXyP0,95,105,train\n"),
            ("list.txt", "<html>\n<body>\n"),
        ],
    )
    def test_what_is_no_list(self, read: Any, tmp_path: Path, name: str, text: str) -> None:
        found = text.partition("\n")[0]
        refusal = message(lambda: read(text, name))
        assert refusal.startswith(
            f"{tmp_path}/{name} does not look like a list that flowprep reads: expected lines "
            "'PATH LABEL', a header such as path,label,split, or the annotation of a known data "
            f"set; found {found!r} on line 1"
        )
        for word in ("list", "labels", "tsn", "csv", "kinetics", "charades", "epic", "ava"):
            assert word in refusal.partition("--format")[2]

    def test_other_formats_than_the_list_has(self, read: Any, tmp_path: Path) -> None:
        for name, wanted in (
            ("csv", "must name one of path,"),
            ("kinetics", "label,youtube_id,time_start,time_end,split"),
            ("charades", "id and actions"),
            ("epic", "video_id,start_timestamp,stop_timestamp"),
            ("ava", "VIDEO_ID,SECOND,X1,Y1,X2,Y2,ACTION,PERSON"),
            ("something", "is not JSON"),
        ):
            text = message(lambda name=name: read("vids/aa.mp4 0\n", format=name))
            assert wanted in text
            assert f"{tmp_path}/list.txt" in text

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet=" \t,;\"'#ab.mp4/\\0123[]{}\n\r\u00e9", max_size=60))
    def test_any_text_is_a_list_or_refused(
        self, tmp_path_factory: pytest.TempPathFactory, text: str
    ) -> None:
        root = tmp_path_factory.mktemp("any")
        touch(root, "a.mp4", "b.mp4", "ab/a.mp4")
        for name in ("list.txt", "list.csv", "list.json"):
            try:
                manifest = collect_videos(write(root / name, text))
            except FlowprepError:
                continue
            assert len({video.key for video in manifest.videos}) == len(manifest.videos)


class TestTables:
    """The general CSV."""

    @pytest.fixture
    def read(self, tmp_path: Path) -> Any:
        touch(tmp_path, "v/a.mp4", "v/b, c.mp4")

        def read(text: str, **options: Any) -> Manifest:
            return collect_videos(write(tmp_path / "list.csv", text), **options)

        return read

    @pytest.mark.parametrize(
        "text",
        [
            'path,label,split\nv/a.mp4,walk,train\n"v/b, c.mp4","tie, knot",val\n',
            'split,PATH,Class Name\ntraining,v/a.mp4,walk\nvalidation,"v/b, c.mp4","tie, knot"\n',
            "video;subset;action\nv/a;train;walk\nv/b, c;valid;tie, knot\n",
            "Filename\tLabel\tSplit\tx\nv/a.mp4\twalk\ttrain\t\nv/b, c.mp4\ttie, knot\tval\t1\n",
            '\ufeffpath,label,split\r\nv/a.mp4,walk,train\r\n"v/b, c.mp4","tie, knot",val\r\n',
            'label,split,id\nwalk,train,a\n"tie, knot",val,"b, c"\n',
        ],
    )
    def test_columns(self, read: Any, text: str) -> None:
        manifest = read(text)
        assert list(classes(manifest).values()) == ["walk", "tie, knot"]
        assert [video.split for video in manifest.videos] == ["train", "val"]
        assert all(Path(video.source).is_file() for video in manifest.videos)

    def test_a_column_without_a_name(self, read: Any) -> None:
        manifest = read(',path\n0,v/a.mp4\n1,"v/b, c.mp4"\n')  # the index that pandas writes
        assert labels(manifest) == {"v/a": (), "v/b%2C%20c": ()}
        assert set(ranges(manifest).values()) == {(None, None)}
        assert [video.split for video in manifest.videos] == [None, None]
        assert "did not read the column ''" in manifest.notes[0]

    def test_what_was_not_read_is_said(self, read: Any, tmp_path: Path) -> None:
        manifest = read(
            "clip_name,clip_path,label,fps,x\nn,/train/v/a.mp4,3.0,25,y\n#n,gone,1,,\n,,2,,\n"
        )
        assert labels(manifest) == {"v/a": (3,)}
        path = tmp_path / "list.csv"
        assert manifest.notes == (
            f"{path}: read clip_path as path, label, fps; did not read the columns clip_name, x; "
            f"rename a column if it should be read",
            f"took 1 line of {path} that begins with # for a comment, because no such file exists; "
            f"first: line 3, '#n,gone,1,,'; check the name of the file if it is a video",
            "left out 1 row without a path; first: line 4, ',,2,,'; write the path into the column "
            "clip_path",
            f"read 1 label with a decimal point as integers; first: line 2 of {path}, 3.0; write "
            f"integers",
            f"{path}: ignored the column fps for 1 video with a clock of their own; first: "
            "/train/v/a.mp4; give --fps for another rate",
            "found 1 listed video in another folder than the list names; first: /train/v/a.mp4 is "
            "v/a.mp4; rename it if it is another video",
        )

    def test_ranges(self, read: Any) -> None:
        text = (
            "path,label,start,end\nv/a.mp4,0,1,2\nv/a.mp4,1,00:00:01.2,0:02.9\n"
            "v/a.mp4,0,5,\nv/a.mp4,0,,7.5\nv/a.mp4,0,,\n"
        )
        text = f"# mine\n{text}"
        assert "took 1 line" in read(text).notes[0]
        assert ranges(read(text)) == {
            "v/a_000001_000002": (1.0, 2.0),
            "v/a_000001200_000002900": (1.2, 2.9),
            "v/a_000005_end": (5.0, None),
            "v/a_000000_000007": (0.0, 7.5),
            "v/a": (None, None),
        }

    @pytest.mark.parametrize("times", ["2,1", "1,1", "-1,2", "x,2", "1,nan", "1,inf", "0:99:99x,1"])
    def test_ranges_that_are_none(self, read: Any, tmp_path: Path, times: str) -> None:
        start, end = times.split(",")
        assert message(lambda: read(f"path,start,end\nv/a.mp4,{times}\n")) == (
            f"line 2 of {tmp_path}/list.csv: start and end must be seconds (12.5) or times "
            f"(00:00:12.5) with 0 <= start < end, got start {start!r} and end {end!r}"
        )

    def test_frame_rates_of_folders(self, read: Any, tmp_path: Path) -> None:
        frames(tmp_path / "f", 9)
        frames(tmp_path / "g", 9)
        text = "path,start,end,fps\nf,0,0.2,30\n"
        assert "give --image-fps 30 (image_fps=30)" in message(lambda: read(text))
        assert ranges(read(text, image_fps=30)) == {"f_000000_000000": (0.0, 0.2)}
        assert "fps of the folder of images f is 30, but this run uses 25" in message(
            lambda: read(text, image_fps=25)
        )
        assert "is 25, but this run uses 30" in message(lambda: read("path,fps\nf,30\ng,25\n"))
        assert any("give --image-fps 30" in note for note in read("path,fps\nf,30\ng,30\n").notes)

    @pytest.mark.parametrize(
        ("text", "refusal"),
        [
            ("path,label,label\n", "line 1 of {path} names the column label twice; rename one"),
            ("path,label\nv/a.mp4\n", "line 2 of {path} has 1 columns, but the header has 2"),
            ("path,label\nv/b, c.mp4,1\n", "put text that holds ',' in double quotes"),
            ("path,label\nv/a.mp4,-1\n", "labels must be integers >= 0 or names of classes"),
            ("path,label\n", "{path} names no video"),
            ("path,label\nzzz,1\n", "no row of {path} names a video that exists"),
        ],
    )
    def test_refusals(self, read: Any, tmp_path: Path, text: str, refusal: str) -> None:
        assert refusal.format(path=tmp_path / "list.csv") in message(lambda: read(text))

    def test_the_same_video_twice(self, read: Any, tmp_path: Path) -> None:
        path = tmp_path / "list.csv"
        manifest = read("path,label\nv/a.mp4,3\nv/a,3\n")
        assert labels(manifest) == {"v/a": (3,)}
        assert any("left out 1 line that names a video again" in n for n in manifest.notes)
        assert message(lambda: read("path,split\nv/a.mp4,train\nv/a.mp4,test\n")) == (
            f"line 2 of {path} and line 3 of {path} name the same video with other splits, train "
            f"and test: {tmp_path}/v/a.mp4; keep the video in one of the splits"
        )


class TestClipKeys:
    def test_version_1_names(self) -> None:
        clips = [("x/A", 5.0, 15.0), ("x/A", 0.2, 4.8), ("y/A", 0.6, 4.9), ("x/B", 0.2, 4.8)]
        assert names_of_clips(clips, None) == [
            *("x/A_000005_000015", "x/A_000000_000004", "y/A_000000_000004", "x/B_000000_000004")
        ]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["a", "b"]),
                st.sampled_from([0.0, 0.2, 0.6, 1.0]),
                st.sampled_from([2.0, 2.5, 2.75, 3.0]),
            ),
            max_size=8,
        ),
        st.randoms(),
    )
    def test_one_name_for_one_clip_in_any_order(
        self, clips: list[tuple[str, float, float]], random: Any
    ) -> None:
        names = dict(zip(clips, names_of_clips(clips, None), strict=True))
        assert len(set(names.values())) == len(names)
        shuffled = list(clips)
        random.shuffle(shuffled)
        assert dict(zip(shuffled, names_of_clips(shuffled, None), strict=True)) == names

    @pytest.mark.parametrize("stored", [0.2, 0.6])
    def test_a_stored_key_stays_when_rows_are_added(self, tmp_path: Path, stored: float) -> None:
        out = str(tmp_path / "out")
        video = Video("x/A_000000_000004", "/v/A.mp4", (0,), None, stored, 4.5)
        write_manifest(Storage(out), [ManifestEntry(video, 0)])
        clips = [("x/A", 0.2, 4.5), ("x/A", 0.6, 4.5), ("x/A", 0.0, 4.0)]
        names = names_of_clips(clips, stored_ranges(out))
        assert names[[0.2, 0.6].index(stored)] == "x/A_000000_000004"
        assert len(set(names)) == 3


class TestDataSets:
    """Rows that the lists of `cases` do not have."""

    def test_kinetics_in_other_columns(self, tmp_path: Path) -> None:
        touch(tmp_path, "aaaaaaaaaa1.mp4")
        for header, row in (
            ("label,youtube_id,time_start,time_end,split,is_cc", "run,aaaaaaaaaa1,0,10,train,0"),
            ("label,youtube_id,time_start,time_end", "run,aaaaaaaaaa1,0,10"),
            ("Label,YouTube_ID,time_start,time_end,split", "run,aaaaaaaaaa1,0.0,10.0,train"),
            ("index,label,youtube_id,time_start,time_end,split", "7,run,aaaaaaaaaa1,0,10,train"),
        ):
            manifest = collect_videos(write(tmp_path / "k.csv", f"{header}\n{row}\n"))
            assert classes(manifest) == {"run/aaaaaaaaaa1_000000_000010": "run"}

    def test_kinetics_in_json(self, tmp_path: Path) -> None:
        touch(tmp_path, "aaaaaaaaaa1.mp4", "bbbbbbbbbb1_000001_000011.mp4")
        value = {
            "aaaaaaaaaa1": {
                "annotations": {"label": "run", "segment": [0.0, 10.0]},
                "duration": 10.0,
                "subset": "validate",
            },
            "bbbbbbbbbb1": {"annotations": {"segment": [1, 11]}, "subset": "test"},
        }
        manifest = collect_videos(write(tmp_path / "k.json", json.dumps(value)))
        assert ranges(manifest) == {
            "run/aaaaaaaaaa1_000000_000010": (0.0, 10.0),
            "bbbbbbbbbb1_000001_000011": (None, None),
        }
        assert [video.split for video in manifest.videos] == ["val", "test"]
        value["aaaaaaaaaa1"]["annotations"] = {"label": "run", "segment": [10.0, 0.0]}
        write(tmp_path / "k.json", json.dumps(value))
        assert "needs annotations with a segment [START, END]" in message(
            lambda: collect_videos(tmp_path / "k.json")
        )

    def test_charades_without_actions(self, tmp_path: Path) -> None:
        touch(tmp_path, "AAAAA.mp4", "BBBBB.mp4")
        path = write(tmp_path / "c.csv", "id,actions\nAAAAA,c001 1.0 2.0;c001 3 3\nBBBBB,\n")
        manifest = collect_videos(path)
        assert keys(manifest) == ["c001/AAAAA_000001_000002"]
        assert any("left out 1 video without an action; first: BBBBB" in n for n in manifest.notes)
        assert any("left out 1 action" in note for note in manifest.notes)
        assert labels(collect_videos(path, charades="video")) == {"AAAAA": (1,), "BBBBB": ()}
        write(path, "id,actions\nAAAAA,c157 1.0 2.0\n")
        assert "a class from c000 to c156" in message(lambda: collect_videos(path))

    def test_epic_by_other_files(self, tmp_path: Path) -> None:
        header = "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,verb_class\n"
        rows = "7,P01,P01_01,x,00:00:01.5,00:00:02.5,3\n8,P01,P01_01,y,00:00:01.7,00:00:02.6,4\n"
        touch(tmp_path, "P01_01.MP4", "P01_01_8.mp4")
        manifest = collect_videos(write(tmp_path / "e.csv", header + rows))
        assert ranges(manifest) == {"P01_01_7": (1.5, 2.5), "P01_01_8": (None, None)}

    def test_ava_with_several_people(self, tmp_path: Path) -> None:
        touch(tmp_path, "-x.mkv", "y.mp4")
        rows = "-x,0902,0.1,0.2,0.3,0.4,80,1\n-x,0902,0.1,0.2,0.3,0.4,9,0\ny,1,,,,,,\n"
        manifest = collect_videos(write(tmp_path / "a.csv", rows))
        assert labels(manifest) == {"%2Dx_000900_000903": (9, 80), "y_000000_000002": ()}

    def test_something_with_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "1.webm", "2.webm")
        items = [
            {"id": "1", "label": "x", "template": "Spinning [something]"},
            {"id": "2", "label": "y", "template": "Closing [something]"},
        ]
        path = write(tmp_path / "train.json", json.dumps(items))
        assert classes(collect_videos(path)) == {
            "1": "Spinning [something]",
            "2": "Closing [something]",
        }
        numbers = {"Spinning something": "0", "Closing something": "1", "Tearing something": "2"}
        beside = write(tmp_path / "labels.json", json.dumps(numbers))
        manifest = collect_videos(path)
        assert labels(manifest) == {"1": (0,), "2": (1,)}
        assert manifest.class_names == tuple(numbers)
        assert "lists the numbers of the classes, not videos" in message(
            lambda: collect_videos(beside)
        )
        write(beside, json.dumps({"Spinning something": "0"}))
        assert "class 'Closing something' is not in" in message(lambda: collect_videos(path))


class TestSeveralLists:
    def test_splits(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "v", "a.mp4", "b.mp4", "c.mp4")
        train = write(tmp_path / "train.txt", "a.mp4 walk\nb.mp4 run\n")
        val = write(tmp_path / "val.csv", "path,label\nc.mp4,walk\n")
        manifest = collect_videos(root, lists=[f"train={train}", f"val={val}"])
        assert manifest.class_names == ("run", "walk")
        assert [(v.key, v.labels, v.split) for v in manifest.videos] == [
            ("a", (1,), "train"),
            ("b", (0,), "train"),
            ("c", (1,), "val"),
        ]
        assert [v.split for v in collect_videos(root, lists=[train]).videos] == [None, None]

    def test_labels_must_mean_the_same(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "v", "a.mp4", "b.mp4")
        train = write(tmp_path / "train.txt", "a.mp4 walk\n")
        val = write(tmp_path / "val.txt", "b.mp4 0\n")
        assert message(lambda: collect_videos(root, lists=[f"train={train}", f"val={val}"])) == (
            f"labels must be all integers >= 0 or all names of classes: line 1 of {val} has the "
            f"number 0, and line 1 of {train} belongs to a list with names of classes, such as "
            f"'walk'; write the same kind on every line"
        )

    def test_a_video_in_two_splits(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "v", "a.mp4")
        lists = [write(tmp_path / f"{name}.txt", "a.mp4 0\n") for name in ("train", "val")]
        assert message(
            lambda: collect_videos(root, lists=[f"train={lists[0]}", f"val={lists[1]}"])
        ) == (
            f"line 1 of {lists[0]} and line 1 of {lists[1]} name the same video with other splits, "
            f"train and val: {root}/a.mp4; keep the video in one of the splits"
        )

    def test_the_option_counts_more_than_the_column(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "v", "a.mp4")
        path = write(tmp_path / "x.csv", "path,split\na.mp4,val\n")
        manifest = collect_videos(root, lists=[f"test={path}"])
        assert manifest.videos[0].split == "test"
        assert "took the split test of --list for 1 video" in manifest.notes[0]

    def test_options(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "v", "a.mp4")
        path = write(tmp_path / "l.txt", "a.mp4 0\n")
        for options, text in (
            ({"annotations": path}, "cannot be given together"),
            ({"format": "folder"}, "lists are files, but the format folder does not read files"),
            ({"root": root}, f"root {root} cannot be given as well; leave it out"),
            ({"lists": ["train="]}, "list must be FILE or SPLIT=FILE"),
        ):
            given = {"lists": [path]} | options
            assert text in message(lambda given=given: collect_videos(root, **given), ConfigError)
        assert message(lambda: collect_videos(root, lists=[tmp_path / "m.txt"])) == (
            f"list does not exist: {tmp_path}/m.txt; did you mean {tmp_path}/l.txt?"
        )
        assert message(lambda: collect_videos(root, lists=[root])) == (
            f"list must be a file, got the folder {root}; name a list in it"
        )
        assert message(lambda: collect_videos(root, image_fps=0), ConfigError) == (
            "image_fps must be > 0, got 0"
        )
        assert message(lambda: collect_videos(root, charades="x"), ConfigError) == (  # type: ignore[arg-type]
            "charades must be one of clips, video, got 'x'"
        )
