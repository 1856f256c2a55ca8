"""Annotations in the forms in which their data sets publish them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowprep.inputs.manifest import Manifest, collect_videos
from tests.inputs.test_manifest import keys, labels, message, touch, write

EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def epic_row(
    number: int, verb: object, noun: object, times: str = "00:00:00.14,00:00:03.37"
) -> str:
    return (
        f"P01_01_{number},P01,P01_01,00:00:01.089,{times},8,202,open door,open,{verb},door,{noun},"
        f"\"['door', 'tap']\",\"[{noun}, 0]\"\n"
    )


def named(manifest: Manifest, name: str) -> dict[str, tuple[int, ...]]:
    """Returns key -> labels in a label set."""
    return {v.key: v.named_labels[name] for v in manifest.videos if v.named_labels is not None}


class TestEpic:
    VERBS = (
        "id,key,instances,category\n1,open,\"['open', 'unlock']\",access\n0,take,\"['take']\",get\n"
    )
    NOUNS = "noun_id,class_key,nouns\n0,tap,['tap']\n1,board:chopping,['board']\n"

    def test_verb_and_noun(self, tmp_path: Path) -> None:
        touch(tmp_path, "P01/P01_01.MP4")
        rows = epic_row(0, 1, 1) + epic_row(1, 0, 0) + epic_row(2, 1, "")
        path = write(tmp_path / "EPIC_100_train.csv", EPIC_HEADER + rows)
        manifest = collect_videos(path)
        assert [(one.name, one.class_names) for one in manifest.label_sets] == [
            ("verb", ()),
            ("noun", ()),
        ]
        assert any(
            note == "the classes of noun have numbers without names; put EPIC_100_noun_classes.csv "
            f"beside {path} for their names"
            for note in manifest.notes
        )
        write(tmp_path / "EPIC_100_verb_classes.csv", self.VERBS)
        write(tmp_path / "EPIC_noun_classes.csv", self.NOUNS)
        manifest = collect_videos(path)
        assert [one.class_names for one in manifest.label_sets] == [
            ("take", "open"),
            ("tap", "board:chopping"),
        ]
        assert labels(manifest) == {"P01_01_0": (1,), "P01_01_1": (0,), "P01_01_2": (1,)}
        assert named(manifest, "verb") == labels(manifest)
        assert named(manifest, "noun") == {"P01_01_0": (1,), "P01_01_1": (0,), "P01_01_2": ()}
        assert manifest.class_names == ("take", "open")
        assert any("give --labels verb,noun to train on them" in note for note in manifest.notes)

    def test_lists_of_two_splits(self, tmp_path: Path) -> None:
        touch(tmp_path, "P01_01.MP4")
        train = write(tmp_path / "EPIC_100_train.csv", EPIC_HEADER + epic_row(0, 3, 5))
        val = write(tmp_path / "EPIC_100_validation.csv", EPIC_HEADER + epic_row(1, 2, 6))
        lists = [f"train={train}", f"val={val}"]
        manifest = collect_videos(tmp_path, lists=lists)
        assert named(manifest, "noun") == {"P01_01_0": (5,), "P01_01_1": (6,)}
        assert [one.name for one in manifest.label_sets] == ["verb", "noun"]
        # Two lines on a narration that differ only in the noun contradict each other.
        write(val, EPIC_HEADER + epic_row(0, 3, 6))
        assert "with other labels, verb 3, noun 5 and verb 3, noun 6" in message(
            lambda: collect_videos(tmp_path, lists=[train, val])
        )

    def test_a_test_list_has_no_labels(self, tmp_path: Path) -> None:
        touch(tmp_path, "P01_101.MP4")
        header = ",".join(EPIC_HEADER.split(",")[:8])
        row = "P01_101_0,P01,P01_101,00:00:02.851,00:00:02.86,00:00:03.87,143,193\n"
        manifest = collect_videos(write(tmp_path / "t.csv", f"{header}\n{row}"))
        assert labels(manifest) == {"P01_101_0": ()}
        assert manifest.label_sets == ()

    def test_what_cannot_be(self, tmp_path: Path) -> None:
        touch(tmp_path, "P01_01.MP4")
        path = tmp_path / "e.csv"

        def refused(rows: str) -> str:
            write(path, EPIC_HEADER + rows)
            return message(lambda: collect_videos(path))

        assert "needs one integer >= 0 as noun_class, got 'door'" in refused(epic_row(0, 1, "door"))
        assert "needs a video_id, and a start_timestamp" in refused(epic_row(0, 1, 1, "x,y"))
        write(tmp_path / "EPIC_100_verb_classes.csv", self.VERBS)
        assert "verb_class must be from 0 to 1" in refused(epic_row(0, 2, 1))
        write(tmp_path / "EPIC_100_verb_classes.csv", "id,key\n0,take\n2,open\n")
        assert "must number its classes from 0 to 1 without gaps" in refused(epic_row(0, 1, 1))
        write(tmp_path / "EPIC_100_verb_classes.csv", "number,name\n0,take\n")
        assert "must have the columns id and key" in refused(epic_row(0, 1, 1))

    def test_a_segment_that_does_not_end_after_it_begins(self, tmp_path: Path) -> None:
        touch(tmp_path, "P01_01.MP4")
        rows = epic_row(0, 1, 1, "00:00:05.00,00:00:05.00") + epic_row(1, 1, 1)
        manifest = collect_videos(write(tmp_path / "e.csv", EPIC_HEADER + rows))
        assert keys(manifest) == ["P01_01_1"]
        assert any(
            "left out 1 narration that do not end after they begin; first: P01_01_0 from 5 to 5 s"
            in note
            for note in manifest.notes
        )


class TestCharades:
    def test_two_actions_in_the_same_seconds(self, tmp_path: Path) -> None:
        touch(tmp_path, "46GP8.mp4", "N11GT_000000_000031.mp4")
        actions = "c092 0.00 31.00;c147 0.00 31.00;c092 0.00 31.00"
        path = write(tmp_path / "c.csv", f"id,actions\n46GP8,{actions}\nN11GT,{actions}\n")
        manifest = collect_videos(path)
        assert labels(manifest) == {
            "c092/46GP8_000000_000031": (92,),
            "c147/46GP8_000000_000031": (147,),
            "c092/N11GT_000000_000031": (92,),
            "c147/N11GT_000000_000031": (147,),
        }
        assert any("left out 2 lines that name a video again" in note for note in manifest.notes)


class TestActivityNet:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        def video(subset: str, *segments: tuple[str, float, float]) -> dict[str, Any]:
            return {
                "duration": 82.73,
                "subset": subset,
                "resolution": "426x240",
                "url": "https://www.youtube.com/watch?v=x",
                "annotations": [{"label": s[0], "segment": [s[1], s[2]]} for s in segments],
            }

        value = {
            "version": "VERSION 1.3",
            "taxonomy": [{"parentName": "Root", "nodeName": "Zumba", "nodeId": 1, "parentId": 0}],
            "database": {
                "--1DO2V4K74": video("training", ("Zumba", 0.01, 64.46), ("Zumba", 70, 82.5)),
                "-01K1HxqPB8": video("validation", ("Archery", 0, 5.5), ("Zumba", 9.25, 9.25)),
                "-_withheld_": video("testing"),
                "gonegonegon": video("validation", ("Archery", 1, 2)),
            },
        }
        return write(tmp_path / "activity_net.v1-3.min.json", json.dumps(value))

    def test_segments(self, tmp_path: Path, path: Path) -> None:
        touch(tmp_path, "train/v_--1DO2V4K74.mp4", "val/-01K1HxqPB8.mkv", "test/v_-_withheld_.mp4")
        manifest = collect_videos(path)
        found = [
            (v.key, manifest.class_names[v.labels[0]], v.split, v.start_seconds, v.end_seconds)
            for v in manifest.videos
        ]
        assert found == [
            ("Zumba/%2D-1DO2V4K74_000000_000064", "Zumba", "train", 0.01, 64.46),
            ("Zumba/%2D-1DO2V4K74_000070_000082", "Zumba", "train", 70.0, 82.5),
            ("Archery/%2D01K1HxqPB8_000000_000005", "Archery", "val", 0.0, 5.5),
        ]
        assert manifest.class_names == ("Archery", "Zumba")
        assert manifest.videos[0].source == str(tmp_path / "train/v_--1DO2V4K74.mp4")
        notes = "\n".join(manifest.notes)
        for text in (
            "left out 1 video without a segment; first: -_withheld_",
            "left out 1 segment that do not end after they begin; first: Zumba of -01K1HxqPB8",
            f"{path} gives the 2 classes no numbers, so they are numbered in sorted order: "
            "Archery is 0, Zumba is 1",
            "1 of 4 listed videos are not under",
            "gonegonegon_000001_000002",
        ):
            assert text in notes

    def test_files_that_are_trimmed(self, tmp_path: Path, path: Path) -> None:
        touch(tmp_path, "Zumba/--1DO2V4K74_000000_000064.mp4", "Archery/-01K1HxqPB8.mp4")
        manifest = collect_videos(path)
        assert [(v.start_seconds, v.end_seconds) for v in manifest.videos] == [
            (None, None),
            (0.0, 5.5),
        ]

    @pytest.mark.parametrize(
        ("video", "text"),
        [
            (3, "needs a label"),
            ({"annotations": {}}, "annotations (a list of objects with label and segment)"),
            ({"annotations": [{"label": "x", "segment": [1]}]}, "a segment [START, END]"),
            ({"annotations": [{"label": "x", "segment": ["a", 2]}]}, "a segment [START, END]"),
            ({"annotations": [{"segment": [1, 2]}]}, "needs a label"),
            ({"annotations": [{"label": "x", "segment": [-1, 2]}]}, "in seconds >= 0"),
        ],
    )
    def test_what_cannot_be(self, tmp_path: Path, video: Any, text: str) -> None:
        touch(tmp_path, "a.mp4")
        value = {"database": {"a": video if isinstance(video, dict) else {"annotations": [video]}}}
        path = write(tmp_path / "a.json", json.dumps(value))
        refusal = message(lambda: collect_videos(path))
        assert refusal.startswith(f"a in {path} needs")
        assert text in refusal

    def test_another_json(self, tmp_path: Path) -> None:
        path = write(tmp_path / "k.json", '{"a": {"annotations": {}}}')
        assert "is not a JSON of ActivityNet: it must be an object with a database" in message(
            lambda: collect_videos(path, format="activitynet")
        )


class TestAva:
    ROW = "{0},{1},0.077,0.151,0.283,0.811,{2},1\n"

    def test_excluded_seconds(self, tmp_path: Path) -> None:
        touch(tmp_path, "-5KQ66BBWC4.mkv")
        rows = "".join(self.ROW.format("-5KQ66BBWC4", *one) for one in (("0902", 80), ("0903", 9)))
        rows += "-5KQ66BBWC4,0904,,,,,,\n-5KQ66BBWC4,0905,,,,,,\n"
        path = write(tmp_path / "ava_train_v2.2.csv", rows)
        found = [f"%2D5KQ66BBWC4_000{n}_000{n + 3}" for n in (900, 901, 902, 903)]
        manifest = collect_videos(path)
        assert labels(manifest) == dict(zip(found, [(80,), (9,), (), ()], strict=True))
        assert any("2 listed videos of 4 have no label" in note for note in manifest.notes)
        # Of the files beside it, only that of its own part and version counts.
        write(tmp_path / "ava_val_excluded_timestamps_v2.2.csv", "-5KQ66BBWC4,0902\n")
        excluded = tmp_path / "ava_train_excluded_timestamps_v2.2.csv"
        write(excluded, "-5KQ66BBWC4,0904\n-5KQ66BBWC4,1234\nother,0902\n")
        manifest = collect_videos(path)
        assert keys(manifest) == [found[0], found[1], found[3]]
        said = f"left out 1 second that {excluded} excludes; move it away to use them"
        assert said in manifest.notes

    def test_with_a_header(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.mkv")
        header = "video_id,middle_frame_timestamp,x1,y1,x2,y2,action_id,person_id\n"
        path = write(tmp_path / "a.csv", header + self.ROW.format("x", "0902", 80))
        assert labels(collect_videos(path)) == {"x_000900_000903": (80,)}

    def test_what_cannot_be(self, tmp_path: Path) -> None:
        touch(tmp_path, "x.mkv")
        path = write(tmp_path / "a.csv", self.ROW.format("x", "0902", "run"))
        assert "the number of an action in the seventh column, or nothing, got 'run'" in message(
            lambda: collect_videos(path, format="ava")
        )


class TestSomething:
    ITEMS = (
        {
            "id": "78687",
            "label": "holding potato next to vicks vaporub bottle",
            "template": "Holding [something] next to [something]",
            "placeholders": ["potato", "vicks vaporub bottle"],
        },
        {"id": "42326", "label": "spinning cube", "template": "Spinning [something]"},
    )

    def test_classes_without_numbers(self, tmp_path: Path) -> None:
        touch(tmp_path, "78687.webm", "42326.webm")
        path = write(tmp_path / "something-something-v2-train.json", json.dumps(self.ITEMS))
        manifest = collect_videos(path)
        assert manifest.class_names == (
            "Holding [something] next to [something]",
            "Spinning [something]",
        )
        assert manifest.notes[1:] == (
            f"{path} gives the 2 classes no numbers, so they are numbered in sorted order: Holding "
            "[something] next to [something] is 0, Spinning [something] is 1; give labels.json "
            "beside the list for another order",
        )

    def test_numbers_in_a_store(self, memory: str) -> None:
        import fsspec

        files = fsspec.filesystem("memory")
        for name in ("78687.webm", "42326.webm"):
            files.pipe(f"/flowprep-test/in/{name}", b"x")
        numbers = {"Spinning something": "0", "Holding something next to something": "1"}
        files.pipe("/flowprep-test/in/labels.json", json.dumps(numbers).encode())
        files.pipe("/flowprep-test/in/train.json", json.dumps(self.ITEMS).encode())
        manifest = collect_videos("memory://flowprep-test/in/train.json")
        assert manifest.class_names == tuple(numbers)
        assert labels(manifest) == {"78687": (1,), "42326": (0,)}

    def test_a_file_of_numbers_in_another_form(self, tmp_path: Path) -> None:
        touch(tmp_path, "78687.webm")
        path = write(tmp_path / "train.json", json.dumps(self.ITEMS[:1]))
        write(tmp_path / "labels.json", '["Spinning something"]')
        assert "must give the numbers of the classes, as in" in message(
            lambda: collect_videos(path)
        )
        write(tmp_path / "labels.json", '{"Holding something next to something": "1"}')
        assert "must number its classes from 0 to 0 without gaps" in message(
            lambda: collect_videos(path)
        )

    def test_a_test_list(self, tmp_path: Path) -> None:
        touch(tmp_path, "1420.webm")
        path = write(tmp_path / "something-something-v2-test.json", '[{"id": "1420"}]')
        assert labels(collect_videos(path)) == {"1420": ()}
