"""A split by groups: what is a group, what is promised of the shares, and what is refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowprep.dataset.layout import ManifestEntry, write_manifest
from flowprep.dataset.plan import stored_splits
from flowprep.errors import ConfigError
from flowprep.inputs.keys import escape_key
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.inputs.split_share import SplitShare, divide, group_names
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from tests.inputs.test_manifest import message, touch, write


def video(path: str, *labels: int, start: float | None = None, source: str = "") -> Video:
    return Video(escape_key(path), source or f"/videos/{path}.mp4", labels, start_seconds=start)


def groups(
    *videos: Video, names: tuple[str, ...] = ("walk", "run"), by: str | None = None
) -> list[str]:
    return group_names(videos, names, by)[0]


def splits(manifest: Manifest) -> dict[str, str | None]:
    return {one.key: one.split for one in manifest.videos}


class TestGroups:
    def test_names_as_in_ucf101(self) -> None:
        found = groups(
            video("walk/v_Walk_g01_c01", 0),
            video("walk/v_Walk_g01_c02", 0),
            video("walk/v_Walk_g02_c01", 0),
            video("run/v_Run_g01_c01", 1),
        )
        assert found == ["v_Walk_g01", "v_Walk_g01", "v_Walk_g02", "v_Run_g01"]

    @pytest.mark.parametrize("path", ["{0}/{1}/a", "{1}/{0}/a"])
    def test_folders_inside_or_around_the_class(self, path: str) -> None:
        people = [
            video(path.format(person, name), number)
            for person in ("ann", "bob")
            for number, name in enumerate(("walk", "run"))
        ]
        assert groups(*people) == ["ann", "ann", "bob", "bob"]

    def test_class_folders_are_no_groups(self) -> None:
        paths = ("walk/a", "walk/b", "run/a")
        named = [video(path, path[0] == "r") for path in paths]
        assert groups(*named) == list(paths)
        # Numbers, as a list has them, do not tell which folder is the class.
        assert groups(*named, names=()) == list(paths)
        # Folders that share classes are no class folders.
        mixed = [video("x/a", 0), video("x/b", 1), video("y/a", 0)]
        assert groups(*mixed, names=()) == ["x", "x", "y"]

    def test_clips_of_one_file(self) -> None:
        cut = [
            video(f"c09{n}/46GP8_00000{n}_000009", n, start=n, source="/v/46GP8.mp4")
            for n in (0, 1)
        ]
        assert groups(*cut, names=("c090", "c091")) == ["46GP8.mp4", "46GP8.mp4"]
        trimmed = [video(f"walk/0347ZoDXyP0_0000{n}_0001{n}", 0) for n in (10, 20)]
        assert len(set(groups(*trimmed))) == 1

    def test_a_pattern(self) -> None:
        videos = [video("walk/ann 1", 0), video("run/ann 2", 1), video("run/bob-1", 1)]
        assert groups(*videos, by="ann|bob") == ["ann", "ann", "bob"]
        assert groups(*videos, by=r"/(\w+)[ -]\d") == ["ann", "ann", "bob"]
        names, _, notes = group_names(videos, ("walk", "run"), "ann")
        assert names == ["ann", "ann", "run/bob-1"]
        assert (
            "does not match 1 video, so the file of each is its group; first: run/bob-1" in notes[0]
        )
        assert "group_by must match the paths of videos, such as walk/ann 1" in message(
            lambda: groups(*videos, by="zoe"), ConfigError
        )


class TestShares:
    def test_equal_groups_give_the_share_in_each_class(self) -> None:
        videos = [
            video(f"{name}/v_{name}_g{g:02d}_c{c:02d}", number)
            for number, name in enumerate(("walk", "run", "jump"))
            for g in range(10)
            for c in range(3)
        ]
        found, notes = divide(videos, ("walk", "run", "jump"), SplitShare(0.2))
        counts = Counter(zip((v.labels for v in videos), found, strict=True))
        assert set(counts.values()) == {6, 24}
        assert notes == [
            "made a split for --test-share 0.2: train 72 and test 18 of 90 videos (20.0 % test), "
            "from 30 groups by the gNN of names as in UCF101, none of which is divided; give "
            "--group-by REGEX for other groups"
        ]

    def test_small_classes(self) -> None:
        """Four groups of each class: a quarter is nearer to a fifth than nothing is."""
        videos = [video(f"{n}/{g}", n) for n in range(5) for g in range(4)]
        found, _ = divide(videos, tuple("01234"), SplitShare(0.2))
        assert Counter(zip((v.labels[0] for v in videos), found, strict=True)) == {
            (n, split): number for n in range(5) for split, number in (("test", 1), ("train", 3))
        }

    def test_large_groups(self) -> None:
        """Of people with 6, 3 and 1 videos, the one with 3 comes nearest to a share of 0.3."""
        sizes = {"ann": 6, "bob": 3, "eve": 1}
        videos = [video(f"{name}/{n}") for name, size in sizes.items() for n in range(size)]
        for renamed in ("", "x", "y", "z"):  # other hashes
            own = [video(f"{renamed}{one.key}") for one in videos]
            found, _ = divide(own, (), SplitShare(0.3))
            assert {
                one.key.split("/")[0][-3:] for one, s in zip(own, found, strict=True) if s == "test"
            } == {"bob"}

    def test_a_class_of_one_group(self) -> None:
        videos = [video("run/a", 1), *(video(f"walk/{n}", 0) for n in range(9))]
        found, notes = divide(videos, ("walk", "run"), SplitShare(0.2))
        assert found.count("test") == 2
        assert any(note.startswith("1 label without a video in ") for note in notes)

    @pytest.mark.parametrize("share", [0.01, 0.99])
    def test_two_groups_are_one_in_each(self, share: float) -> None:
        found, _ = divide([video("a"), video("b")], (), SplitShare(share))
        assert sorted(found) == ["test", "train"]

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 7), st.sets(st.integers(0, 3), max_size=2)),
            min_size=2,
            max_size=40,
        ),
        st.floats(0.05, 0.95),
        st.randoms(use_true_random=False),
    )
    def test_promises(self, given, share, random) -> None:  # type: ignore[no-untyped-def]
        videos = [video(f"g{group}/v{n}", *sorted(own)) for n, (group, own) in enumerate(given)]
        asked = SplitShare(share, "^g[0-9]")
        of = [one.key[:2] for one in videos]
        if len(set(of)) < 2:
            assert "is never divided" in message(lambda: divide(videos, (), asked))
            return
        found, _ = divide(videos, (), asked)
        sides = defaultdict(set)
        for group, split in zip(of, found, strict=True):
            sides[group].add(split)
        assert all(len(side) == 1 for side in sides.values())
        assert set(found) == {"train", "test"}
        # Neither the order of the videos nor the machine counts.
        by_key = dict(zip((one.key for one in videos), found, strict=True))
        shuffled = random.sample(videos, len(videos))
        again, _ = divide(shuffled, (), asked)
        assert again == [by_key[one.key] for one in shuffled]
        # Videos that come later move none, even if they are of a known group.
        later = [video(f"g{n}/later", n % 4) for n in range(9)]
        more, _ = divide([*later, *videos], (), asked, by_key)
        assert more[len(later) :] == found
        for one, split in zip(later, more, strict=False):
            assert {split} == sides.get(one.key[:2], {split})


class TestCollect:
    def test_added_videos_move_no_others(self, tmp_path: Path) -> None:
        root, out = tmp_path / "in", tmp_path / "out"
        touch(root, *(f"{name}/{n}.mp4" for name in ("walk", "run") for n in range(6)))

        def collect() -> Manifest:
            return collect_videos(root, test_share=0.3, out=out, stored_splits=stored_splits(out))

        first = collect()
        assert Counter(splits(first).values()) == {"train": 8, "test": 4}
        out.mkdir()
        write_manifest(Storage(out), [ManifestEntry(one, 0) for one in first.videos])
        touch(root, *(f"{name}/{n}.mp4" for name in ("walk", "run") for n in range(6, 20)))
        second = collect()
        assert splits(first).items() <= splits(second).items()
        assert Counter(splits(second).values()) == {"train": 28, "test": 12}
        assert "12 of them stay as the data set has them" in second.notes[-1]

    def test_a_file_of_another_extension_comes(self, tmp_path: Path) -> None:
        root, out = tmp_path / "in", tmp_path / "out"
        touch(root, *(f"{n}.mp4" for n in range(9)))
        first = collect_videos(root, test_share=0.3)
        out.mkdir()
        write_manifest(Storage(out), [ManifestEntry(one, 0) for one in first.videos])
        touch(root, "3.MOV")  # The key is now 3%2Emp4; a run finds the stored key again.
        second = collect_videos(root, test_share=0.3, stored_splits=stored_splits(out))
        assert splits(second)["3%2Emp4"] == splits(first)["3"]

    def test_a_split_that_exists(self, tmp_path: Path) -> None:
        root = touch(tmp_path, "train/walk/a.mp4", "test/walk/b.mp4")
        assert message(lambda: collect_videos(root, test_share=0.2)) == (
            "test_share makes a split, but 2 of 2 videos have one already (test 1, train 1); leave "
            "--test-share 0.2 out"
        )

    def test_a_data_set_without_split(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "in", "a.mp4", "b.mp4")

        def refusal(split: str | None) -> str:
            stored = {"a": split}
            return message(
                lambda: collect_videos(root, test_share=0.2, stored_splits=lambda: stored)
            )

        assert refusal(None) == (
            "test_share cannot give the data set a split, because it was extracted without one: a; "
            "run `flowprep label OUT --name NAME --test-share 0.2` for a split under a name"
        )
        assert "with the split val: a; run" in refusal("val")

    def test_other_groups_than_before(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "in", "ann1.mp4", "ann2.mp4", "bob1.mp4")
        stored = {"ann1": "test", "ann2": "train", "bob1": "train"}
        assert "it holds videos of the group 'ann' in train and in test; give the same" in message(
            lambda: collect_videos(
                root, test_share=0.2, group_by="[a-z]+", stored_splits=lambda: stored
            )
        )

    def test_clips_of_a_list(self, tmp_path: Path) -> None:
        touch(tmp_path, "AAAAA.mp4", "BBBBB.mp4")
        rows = "AAAAA,c001 0 5;c002 1 6\nBBBBB,c001 0 5;c002 3 7\n"
        manifest = collect_videos(write(tmp_path / "c.csv", f"id,actions\n{rows}"), test_share=0.5)
        sides = defaultdict(set)
        for one in manifest.videos:
            sides[one.source].add(one.split)
        assert sorted(map(sorted, sides.values())) == [["test"], ["train"]]

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"test_share": 0}, "test_share must be > 0 and < 1, got 0"),
            ({"test_share": 1.0}, "test_share must be > 0 and < 1, got 1"),
            (
                {"test_share": 0.2, "group_by": "("},
                "group_by must be a regular expression, got '('",
            ),
            ({"group_by": "x"}, "group_by needs --test-share (test_share), got 'x' alone"),
        ],
    )
    def test_options(self, tmp_path: Path, options: dict[str, object], text: str) -> None:
        touch(tmp_path, "a.mp4", "b.mp4")
        assert text in message(lambda: collect_videos(tmp_path, **options), ConfigError)  # type: ignore[arg-type]
