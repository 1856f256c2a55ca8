"""Plans: a data set is gone on with, and no stored label or key changes in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowprep.config import ExtractConfig, FlowSpec
from flowprep.dataset.plan import Plan, write_plan
from flowprep.errors import InputError
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.run.plan import make_plan
from flowprep.storage import Storage

CONFIG = ExtractConfig(flow=FlowSpec("farneback"))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture(autouse=True)
def _some_video_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set without a stored video begins anew; these plans stand for sets that hold some."""
    monkeypatch.setattr("flowprep.run.plan.is_unfilled", lambda storage: False)


def planned(manifest: Manifest, out: Path) -> Plan:
    storage = Storage(out)
    storage.make_folder()
    plan = make_plan(storage, manifest, CONFIG)
    write_plan(storage, plan)
    return plan


class TestFoldersReadOtherwise:
    """Data sets of format version 1 took the first folder for the class, as level 1 does."""

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (
                ["train/walk/a.mp4", "val/walk/b.mp4", "val/jump/c.mp4"],
                "labels of train/walk/a must be (0,), as in the data set, got (3,); its folders "
                "gave the class 'train' and no split when the data set began, and now give "
                "the class 'walk' and the split 'train'. Give",
            ),
            (
                ["UCF/walk/a.mp4", "UCF/jump/b.mp4"],
                "gave the class 'UCF' and no split when the data set began, and now give "
                "the class 'jump' and no split. Give",
            ),
            (
                ["train/a.mp4", "val/b.mp4"],
                "gave the class 'train' and no split when the data set began, and now give "
                "no class and the split 'train'. Give",
            ),
            (
                ["walk/train/a.mp4", "walk/val/b.mp4", "jump/train/c.mp4", "jump/val/d.mp4"],
                "split of jump/train/c must be None, as in the data set, got train",
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
            "labels of b must be (1,), as in the data set, got (0,); give the video the same as "
            "before, or choose another output folder; run `flowprep label` for others in "
            "the same data set"
        )


class TestStoredKeys:
    """A key that is stored never changes, whatever comes or goes beside its file."""

    def sources(self, plan: Plan, top: Path) -> dict[str, str]:
        return {e.video.key: str(Path(e.video.source).relative_to(top)) for e in plan.entries}

    def test_a_second_file_comes(self, tmp_path: Path) -> None:
        videos, out = touch(tmp_path / "v", "trip/IMG_1.mp4"), tmp_path / "out"
        planned(collect_videos(videos), out)
        touch(videos, "trip/IMG_1.MOV", "trip/IMG_1/001.jpg")
        plan = planned(collect_videos(videos), out)
        assert self.sources(plan, videos) == {
            "trip/IMG_1": "trip/IMG_1.mp4",
            "trip/IMG_1%2EMOV": "trip/IMG_1.MOV",
            "trip/IMG_1%2Eframes": "trip/IMG_1",
        }
        assert planned(collect_videos(videos), out).entries == plan.entries

    def test_it_comes_alone(self, tmp_path: Path) -> None:
        videos, out = touch(tmp_path / "v", "IMG_1.mp4"), tmp_path / "out"
        planned(collect_videos(videos / "IMG_1.mp4"), out)
        touch(videos, "IMG_1.MOV")
        plan = planned(collect_videos(videos / "IMG_1.MOV"), out)
        assert self.sources(plan, videos) == {"IMG_1": "IMG_1.mp4", "IMG_1%2EMOV": "IMG_1.MOV"}
        assert plan.notes == (
            "1 new video beside a stored one of the same name: the new keys keep the extension "
            "(IMG_1%2EMOV); remove the stored file if the new one takes its place",
        )

    def test_one_of_two_goes(self, tmp_path: Path) -> None:
        videos, out = touch(tmp_path / "v", "a/1.mp4", "a/1.mov", "b/2.mp4"), tmp_path / "out"
        began = planned(collect_videos(videos), out)
        (videos / "a/1.mov").unlink()
        assert planned(collect_videos(videos), out).entries == began.entries

    def test_the_collection_moves(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        planned(collect_videos(touch(tmp_path / "old", "a/1.mp4", "b/2.mp4")), out)
        (tmp_path / "old").rename(tmp_path / "new")
        touch(tmp_path / "new", "a/1.MOV")
        plan = planned(collect_videos(tmp_path / "new"), out)
        assert self.sources(plan, tmp_path / "new") == {
            "a/1": "a/1.mp4",
            "b/2": "b/2.mp4",
            "a/1%2EMOV": "a/1.MOV",
        }

    def test_a_converted_collection_keeps_its_keys(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        planned(collect_videos(touch(tmp_path / "avi", "a/1.avi", "b/2.avi")), out)
        converted = touch(tmp_path / "mp4", "a/1.mp4", "b/2.mp4")
        plan = planned(collect_videos(converted), out)
        assert self.sources(plan, converted) == {"a/1": "a/1.mp4", "b/2": "b/2.mp4"}

    def test_double_extensions(self, tmp_path: Path) -> None:
        videos, out = touch(tmp_path / "v", "a.mp4.avi"), tmp_path / "out"
        planned(collect_videos(videos), out)
        touch(videos, "a.mp4", "a.mov")
        with pytest.raises(InputError, match="two videos have the key 'a%2Emp4', which the data"):
            planned(collect_videos(videos), out)
