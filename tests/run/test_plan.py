"""Plans: a data set is gone on with, and no stored label or key changes in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.config import ExtractConfig, FlowSpec
from flowprep.dataset.storage import Storage
from flowprep.errors import InputError
from flowprep.run.plan import Plan, make_plan, write_plan
from flowprep.video.manifest import Manifest, collect_videos

CONFIG = ExtractConfig(flow=FlowSpec("farneback"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def planned(manifest: Manifest, out: Path) -> Plan:
    storage = Storage(out)
    storage.make_folder()
    plan = make_plan(storage, manifest, CONFIG)
    write_plan(storage, plan)
    return plan


class TestFoldersReadOtherwise:
    """Data sets that flowprep 1.0 began took the first folder for the class, as level 1 does."""

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (
                ["train/walk/a.mp4", "val/walk/b.mp4", "val/jump/c.mp4"],
                "labels of train/walk/a is (0,) in the data set and (3,) in this run; its folders "
                "gave the class 'train' and no split when the data set began, and are understood "
                "as the class 'walk' and the split 'train' now",
            ),
            (
                ["UCF/walk/a.mp4", "UCF/jump/b.mp4"],
                "gave the class 'UCF' and no split when the data set began, and are understood as "
                "the class 'jump' and no split now",
            ),
            (
                ["train/a.mp4", "val/b.mp4"],
                "gave the class 'train' and no split when the data set began, and are understood "
                "as no class and the split 'train' now",
            ),
            (
                ["walk/train/a.mp4", "walk/val/b.mp4", "jump/train/c.mp4", "jump/val/d.mp4"],
                "split of jump/train/c is None in the data set and train in this run",
            ),
            (["walk/al/a.mp4", "walk/bo/b.mp4", "jump/al/c.mp4", "jump/bo/d.mp4"], "no class"),
        ],
    )
    def test_the_error_names_the_way_to_go_on(
        self, tmp_path: Path, names: list[str], words: str
    ) -> None:
        videos, out = touch(tmp_path / "videos", *names), tmp_path / "out"
        began = planned(collect_videos(videos, class_level=1), out)
        with pytest.raises(InputError) as caught:
            planned(collect_videos(videos), out)
        assert words in str(caught.value)
        assert "Give --class-level 1 to go on as before" in str(caught.value)
        again = planned(collect_videos(videos, class_level=1), out)
        assert again.entries == began.entries
        touch(videos, names[0].replace("a.mp4", "new.mp4"))
        more = planned(collect_videos(videos, class_level=1), out)
        assert more.entries[: len(names)] == began.entries
        assert len(more.entries) == len(names) + 1

    def test_a_folder_that_makes_classes_of_subjects(self, tmp_path: Path) -> None:
        names = ["s1/walk/a.mp4", "s2/jump/b.mp4", "s1/jump/c.mp4", "s2/walk/d.mp4"]
        videos, out = touch(tmp_path / "videos", *names), tmp_path / "out"
        began = planned(collect_videos(videos), out)
        assert began.header.class_names == ("jump", "walk")
        with pytest.raises(InputError, match="Give --class-level 2 to go on"):
            planned(collect_videos(videos, class_level=1), out)

    def test_splits_named_one_by_one(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/walk/a.mp4", "val/jump/b.mp4", "train/walk/c.mp4")
        inputs, out = [tmp_path / "train", tmp_path / "val"], tmp_path / "out"
        planned(collect_videos(inputs, class_level=1), out)
        with pytest.raises(InputError, match="Give --class-level 1 to go on as before"):
            planned(collect_videos(inputs), out)

    def test_other_changes_have_the_plain_words(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.mp4", "b.mp4")
        listed, out = tmp_path / "list.txt", tmp_path / "out"
        listed.write_text("a.mp4 0\nb.mp4 1\n")
        planned(collect_videos(listed), out)
        listed.write_text("a.mp4 0\nb.mp4 0\n")
        with pytest.raises(InputError) as caught:
            planned(collect_videos(listed), out)
        assert str(caught.value) == (
            "labels of b is (1,) in the data set and (0,) in this run; give it the same, or choose "
            "another output folder"
        )
