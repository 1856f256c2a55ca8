"""Exported trees hold what their readers expect and no more; what flowprep knows lies beside."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray

from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError, InputError, StorageError
from flowprep.exchange.export import ExportReport, export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.export_state import find_export
from flowprep.exchange.formats import clip_starts
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.exchange.layouts import LAYOUTS, layout_of
from flowprep.exchange.tree_paths import video_paths
from tests.exchange import readers

UCF = {
    "HandstandPushups/v_HandStandPushups_g01_c01": (14, "train"),
    "Apply Eye/v_ApplyEyeMakeup_g02_c01": (12, "train"),
    "Apply Eye/v_ApplyEyeMakeup_g01_c01": (12, "test"),
}
"""Path -> number of flows and split, as in UCF101; a class with a blank."""


def export(source: Path | FlowDataset, dest: Path, layout: str, **options: object) -> ExportReport:
    report = export_dataset(source, dest, ExportSpec(layout, **options), num_workers=1)
    assert report.exit_code == 0
    return report


@pytest.fixture(scope="module")
def dataset(made_once: Path) -> FlowDataset:
    return open_dataset(made_once)


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> FlowDataset:
    """A data set with UCF101's names."""
    top = tmp_path_factory.mktemp("ucf")
    readers.write_tree(top / "tree", {path: flows for path, (flows, _) in UCF.items()}, rgb=True)
    lists = []
    for split in ("train", "test"):
        lines = [
            f"{path} {flows} {sorted({p.split('/')[0] for p in UCF}).index(path.split('/')[0])}\n"
            for path, (flows, of) in UCF.items()
            if of == split
        ]
        (top / f"{split}.txt").write_text("".join(lines))
        lists.append(f"{split}={top / f'{split}.txt'}")
    spec = ImportSpec("tsm", bound_px=20, lists=tuple(lists))
    assert import_tree(top / "tree", top / "out", spec, num_workers=1).exit_code == 0
    return open_dataset(top / "out")


def levels_of(dataset: FlowDataset, key: str) -> NDArray[np.uint8]:
    return dataset.quantized(key, 0, dataset.videos[key].num_flows)


# ---- what is in DEST, and what is beside it


@pytest.mark.parametrize("layout", ["mmaction2", "tsm", "denseflow", "frames"])
def test_dest_holds_class_folders_alone(ucf: FlowDataset, tmp_path: Path, layout: str) -> None:
    export(ucf, tmp_path / "tree", layout)
    assert len(os.listdir(tmp_path / "tree")) == 2
    classes, found = readers.image_folder(tmp_path / "tree")
    assert [name.replace("%20", " ") for name in classes] == list(ucf.class_names)
    per_flow = 2 if LAYOUTS[layout].has_flow else 0
    wanted = sum(per_flow * video.num_flows + video.num_frames for video in ucf.videos)
    assert sum(map(len, found.values())) == wanted
    beside = set(os.listdir(tmp_path / "tree-lists"))
    own = {"flowprep.json", "flowprep-videos.jsonl", ".lock", "classInd.txt"}
    assert own <= beside
    assert (".done" in beside) == (layout == "denseflow")
    if layout == "denseflow":
        marks = [path for path in (tmp_path / "tree-lists/.done").rglob("*") if path.is_file()]
        assert len(marks) == len(UCF)


@pytest.mark.parametrize(
    ("layout", "roots"),
    [
        ("gpu-flow", {"u", "v", "jpegs_256"}),
        ("gpu-flow-xy", {"x", "y", "rgb"}),
        ("epic-kitchens", {"flow", "rgb"}),
        ("pytorch-i3d", {"flow", "rgb"}),
    ],
)
def test_layouts_with_roots_hold_these_alone(
    ucf: FlowDataset, tmp_path: Path, layout: str, roots: set[str]
) -> None:
    export(ucf, tmp_path / "tree", layout)
    assert set(os.listdir(tmp_path / "tree")) == roots


def test_lists_go_where_they_are_wanted_and_several_exports_share_the_place(
    ucf: FlowDataset, tmp_path: Path
) -> None:
    """As mmaction2's shipped configurations of flow have them."""
    top = tmp_path / "data/kinetics400"
    for split in ("train", "test"):
        options = {
            "splits": (split,),
            "lists": str(top),
            "list_names": "kinetics400_{split}_list_{stream}.txt",
        }
        export(ucf, top / f"rawframes_{split}", "mmaction2", **options)
        again = export(ucf, top / f"rawframes_{split}", "mmaction2", **options)
        assert again.num_exported == 0
        (*found,) = readers.mmaction2(
            top / f"kinetics400_{split}_list_flow.txt",
            top / f"rawframes_{split}",
            "{}_{:05d}.jpg",
            start_index=1,
        )
        assert len(found) == sum(of == split for _, of in UCF.values())
        for one in found:
            (key,) = (k for k in UCF if k.endswith(one.path.rpartition("/")[2]))
            video = next(v for v in ucf.videos if v.key.endswith(key.rpartition("/")[2]))
            np.testing.assert_array_equal(one.levels, levels_of(ucf, video.key))
        state = find_export(str(top / f"rawframes_{split}"))
        assert state is not None
        told = json.loads(state.file("flowprep.json").read_text())
        assert told["splits"] == [split]
    assert (top / "kinetics400_train_list_rgb.txt").is_file()


@pytest.mark.parametrize("place", [".", "lists", "a/b"])
def test_lists_inside_dest_are_refused(ucf: FlowDataset, tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="lists must lie outside DEST, where a folder counts"):
        export(ucf, tmp_path / "tree", "tsm", lists=str(tmp_path / "tree" / place))
    assert not (tmp_path / "tree").exists()


def test_where_dest_has_no_parent_lists_are_required(
    ucf: FlowDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="lists must be given, because no folder can lie beside"):
        export(ucf, Path("/"), "tsm")
    blocked = tmp_path / "disk-lists"
    blocked.touch()
    with pytest.raises(StorageError, match=r"lists cannot be made: .*; give another .* --lists"):
        export(ucf, tmp_path / "disk", "tsm")
    with pytest.raises(ConfigError, match=r"lists must be a folder, but .* is a file"):
        export(ucf, tmp_path / "other", "tsm", lists=str(blocked))
    with pytest.raises(ConfigError, match="lists must be a folder on this machine"):
        export(ucf, tmp_path / "disk", "tsm", lists="s3://bucket/lists")


def test_lists_of_others_are_not_replaced(ucf: FlowDataset, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "flow_train.txt").write_text("mine 3 0\n")
    with pytest.raises(DatasetError, match=r"flow_train.txt exists and belongs .*--lists, or oth"):
        export(ucf, tmp_path / "tree", "tsm", lists=str(lists))
    assert (lists / "flow_train.txt").read_text() == "mine 3 0\n"
    assert not (tmp_path / "tree").exists()
    export(ucf, tmp_path / "tree", "tsm", lists=str(lists), list_names="{split}_{stream}.txt")
    assert (lists / "flow_train.txt").read_text() == "mine 3 0\n"


def test_the_other_options_are_named_where_they_do_not_go_together() -> None:
    for options, message in (
        ({"layout": "tsn", "flat": True}, "layout tsn has no class folders; leave out --flat"),
        ({"layout": "epic-kitchens", "flat": True}, "no class folders; leave out --flat"),
        ({"clip_length": 8}, "clip_length is for the format webdataset, not for jpg"),
        ({"format": "webdataset", "clip_length": 0}, "clip_length must be >= 1, got 0"),
        ({"list_names": "train.txt"}, "list_names must be a file name with {split} and {stream}"),
        ({"list_names": "../{split}{stream}"}, "list_names must be a file name"),
        ({"list_names": "{split}{stream}{x}"}, "list_names must be a file name"),
        (
            {"layout": "pytorch-i3d", "list_names": "{split}_{stream}.txt"},
            "list_names must be left out: layout pytorch-i3d has no lists of such names",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            ExportSpec(**options)
        assert message in str(error.value)


def test_another_export_is_told_by_the_options(ucf: FlowDataset, tmp_path: Path) -> None:
    export(ucf, tmp_path / "tree", "tsm", keep_rgb=False)
    with pytest.raises(DatasetError) as error:
        export(ucf, tmp_path / "tree", "tsm", flat=True, splits=("train",))
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  --flat: nothing there, True in this run",
        "  RGB frames: --no-rgb there, --rgb in this run",
        "  --split: nothing there, train in this run",
    ]


# ---- exports that flowprep 0.1.0 began


def as_version_1(dataset: FlowDataset, dest: Path, layout: str, kind: str = "jpg") -> None:
    """Makes an export and puts everything where flowprep 0.1.0 had it, by the names that it had."""
    spec = ExportSpec(layout, kind, videos_per_shard=1)
    export_dataset(dataset, dest, spec, num_workers=1)
    lists = dest.parent / f"{dest.name}-lists"
    new = video_paths(dataset.videos, dataset.class_names, LAYOUTS[layout])
    old = video_paths(dataset.videos, dataset.class_names, LAYOUTS[layout], version=1)
    told = json.loads((lists / "flowprep.json").read_text()) | {"format_version": 1}
    for name in ("flat", "clip_length"):
        del told[name]
    (dest / "flowprep.json").write_text(json.dumps(told, indent=2) + "\n")
    (dest / "flowprep-videos.jsonl").write_bytes((lists / "flowprep-videos.jsonl").read_bytes())
    (dest / ".lock").touch()
    (dest / "lists").mkdir()
    for path in lists.glob("*.txt"):
        path.rename(dest / "lists" / path.name)
    if (lists / ".done").exists():
        (lists / ".done").rename(dest / ".done")
    for path in lists.glob("*-000*.json"):
        path.rename(dest / path.name)
    shutil.rmtree(lists)
    if kind == "jpg":
        for one, other in zip(new, old, strict=True):
            if one != other:
                (dest / other).parent.mkdir(parents=True, exist_ok=True)
                (dest / one).rename(dest / other)
        if layout == "mmaction2":
            for path in [*dest.rglob("[xy]_*.jpg")]:
                path.rename(path.with_name(f"flow_{path.name}"))


@pytest.mark.parametrize("layout", ["mmaction2", "denseflow", "tsm"])
def test_an_export_that_flowprep_0_1_0_began_is_completed(
    dataset: FlowDataset, tmp_path: Path, layout: str
) -> None:
    tree = tmp_path / "tree"
    as_version_1(dataset, tree, layout)
    kept = {path: path.stat().st_mtime_ns for path in tree.rglob("*.jpg")}
    lost = tree / "walk/b"
    shutil.rmtree(lost)
    (tree / "flowprep-videos.jsonl").unlink()
    report = export(dataset, tree, layout)
    assert (report.num_exported, report.num_done_before) == (1, 3)
    assert any(f"in {tree}-lists from now on" in note for note in report.notes)
    # The names of 0.1.0 stay, and nothing but class folders is left.
    again = {path: path.stat().st_mtime_ns for path in tree.rglob("*.jpg")}
    assert again.keys() == kept.keys()
    assert {p: t for p, t in again.items() if lost not in p.parents} == {
        p: t for p, t in kept.items() if lost not in p.parents
    }
    assert all(path.is_dir() and not path.name.startswith(".") for path in tree.iterdir())
    assert "lists" not in os.listdir(tree)
    template = "flow_{}_{:05d}.jpg"
    base = layout_of(layout, 1).first_number
    lists = tmp_path / "tree-lists"
    (one,) = readers.mmaction2(lists / "flow_test.txt", tree, template, start_index=base)
    np.testing.assert_array_equal(one.levels, levels_of(dataset, "walk/b"))
    # Once more: nothing to do, nothing to say.
    report = export(dataset, tree, layout)
    assert (report.num_exported, report.num_done_before) == (0, 4)
    assert not any("0.1.0" in note for note in report.notes)
    spec = ImportSpec(layout)
    assert import_tree(tree, tmp_path / "out", spec, num_workers=1).exit_code == 0
    np.testing.assert_array_equal(
        levels_of(open_dataset(tmp_path / "out"), "walk/b"), levels_of(dataset, "walk/b")
    )


def test_tars_that_flowprep_0_1_0_began_are_completed(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tars"
    as_version_1(dataset, tree, "tsm", "webdataset")
    assert (tree / "train-000000.json").is_file()
    (tree / "train-000001.tar").unlink()
    spec = ExportSpec("tsm", "webdataset", videos_per_shard=1)
    report = export_dataset(dataset, tree, spec, num_workers=1)
    assert (report.num_exported, report.num_done_before) == (1, 3)
    assert {path.suffix for path in tree.iterdir() if path.name != "train-000001.json"} == {".tar"}
    assert export_dataset(dataset, tree, spec, num_workers=1).num_exported == 0


def test_a_newer_export_is_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "tree", "tsm")
    path = tmp_path / "tree-lists/flowprep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 3}))
    with pytest.raises(DatasetError, match="has the format version 3, and this flowprep knows 1 t"):
        export(dataset, tmp_path / "tree", "tsm")


# ---- the layouts that other readers want


def test_jeffreyyihuang_reads_a_flat_gpu_flow(ucf: FlowDataset, tmp_path: Path) -> None:
    report = export(ucf, tmp_path / "tree", "gpu-flow", flat=True)
    assert report.notes == []
    lists = tmp_path / "tree-lists"
    found = readers.two_stream(lists, f"{tmp_path}/tree/")
    assert {part: sorted(one.path for one in some) for part, some in found.items()} == {
        "trainlist01": ["ApplyEyeMakeup_g02_c01", "HandstandPushups_g01_c01"],
        "testlist01": ["ApplyEyeMakeup_g01_c01"],
    }
    for one in found["trainlist01"] + found["testlist01"]:
        (video,) = (v for v in ucf.videos if v.key.lower().endswith(one.path.lower()))
        assert one.label == video.labels
        levels = levels_of(ucf, video.key)
        np.testing.assert_array_equal(one.levels, np.concatenate([levels[:10], levels[-10:]]))
    # And it comes back under the keys that it had.
    spec = ImportSpec("gpu-flow")
    assert import_tree(tmp_path / "tree", tmp_path / "back", spec, num_workers=1).exit_code == 0
    back = open_dataset(tmp_path / "back")
    assert [video.key for video in back.videos] == [video.key for video in ucf.videos]
    for video in ucf.videos:
        np.testing.assert_array_equal(levels_of(back, video.key), levels_of(ucf, video.key))


def test_names_that_jeffreyyihuang_cannot_read_are_noted(
    dataset: FlowDataset, tmp_path: Path
) -> None:
    notes = export(dataset, tmp_path / "tree", "gpu-flow", flat=True).notes
    assert any("names that two-stream-action-recognition cannot read" in note for note in notes)


@pytest.mark.parametrize("layout", ["mmaction2", "tsm", "denseflow", "frames"])
def test_flat_trees_have_no_class_folders(ucf: FlowDataset, tmp_path: Path, layout: str) -> None:
    export(ucf, tmp_path / "tree", layout, flat=True)
    assert set(os.listdir(tmp_path / "tree")) == {path.rpartition("/")[2] for path in UCF}


@pytest.mark.parametrize(
    ("layout", "x", "y"),
    [
        ("gpu-flow-xy", "x/{}/frame{:06d}.jpg", "y/{}/frame{:06d}.jpg"),
        ("epic-kitchens", "flow/{}/u/frame_{:010d}.jpg", "flow/{}/v/frame_{:010d}.jpg"),
    ],
)
def test_flow_is_read_by_number(
    ucf: FlowDataset, tmp_path: Path, layout: str, x: str, y: str
) -> None:
    export(ucf, tmp_path / "tree", layout)
    for path, (num_flows, _) in UCF.items():
        top = tmp_path / "tree"
        names = [
            (str(top / x.format(path, n)), str(top / y.format(path, n)))
            for n in range(1, num_flows + 1)
        ]
        (key,) = (v.key for v in ucf.videos if v.key.endswith(path.rpartition("/")[2]))
        np.testing.assert_array_equal(readers.pairs(names), levels_of(ucf, key))


def test_slowfast_reads_every_frame(ucf: FlowDataset, tmp_path: Path) -> None:
    export(ucf, tmp_path / "tree", "slowfast")
    lists = tmp_path / "tree-lists"
    # charades.py reads train.csv and val.csv, so the split test is val.csv.
    assert {path.name for path in lists.glob("*.csv")} == {"train.csv", "val.csv"}
    found = readers.slowfast(lists / "train.csv", tmp_path / "tree")
    found += readers.slowfast(lists / "val.csv", tmp_path / "tree")
    assert len(found) == len(UCF)
    for name, paths, labels in found:
        (video,) = (v for v in ucf.videos if v.key.endswith(name))
        assert labels == [list(video.labels)] * video.num_frames
        wanted = ucf.jpegs(video.key, "rgb", 0, video.num_frames)
        assert [Path(path).read_bytes() for path in paths] == wanted


def test_train_i3d_validates_on_val(tmp_path: Path) -> None:
    flows = {"run/a": 67, "run/b": 66, "run/c": 66}
    readers.write_tree(tmp_path / "tree", flows)
    lists = []
    for path, split in zip(flows, ("train", "val", "test"), strict=True):
        (tmp_path / f"{split}.txt").write_text(f"{path} {flows[path]} 0\n")
        lists.append(f"{split}={tmp_path}/{split}.txt")
    spec = ImportSpec("mmaction2", bound_px=20, lists=tuple(lists))
    import_tree(tmp_path / "tree", tmp_path / "out", spec, num_workers=1)
    notes = export(tmp_path / "out", tmp_path / "i3d", "pytorch-i3d").notes
    assert any("give it charades_test.json to test on the split test" in note for note in notes)

    def read(name: str, subset: str) -> list[str]:
        path = tmp_path / "i3d-lists" / name
        return [one.path for one in readers.charades(path, subset, tmp_path / "i3d/flow", 157)]

    for name, testing in (("charades.json", "b"), ("charades_test.json", "c")):
        assert (read(name, "training"), read(name, "testing")) == (["a"], [testing])
    # Without a split test there is one file.
    export(tmp_path / "out", tmp_path / "two", "pytorch-i3d", keys=("run/a", "run/b"))
    assert read("../two-lists/charades.json", "testing") == ["b"]
    assert not (tmp_path / "two-lists/charades_test.json").exists()


# ---- names


NAMED = {"#20_Rhythm/#20 clap & wave": 3, "-0Bh7j/it's $5; (x)": 3}


@pytest.mark.parametrize("layout", [name for name, one in LAYOUTS.items() if one.has_flow])
def test_original_names_are_kept(tmp_path: Path, layout: str) -> None:
    readers.write_tree(tmp_path / "tree", NAMED)
    spec = ImportSpec("mmaction2", bound_px=20)
    import_tree(tmp_path / "tree", tmp_path / "out", spec, num_workers=1)
    report = export(tmp_path / "out", tmp_path / "again", layout)
    kept = LAYOUTS[layout].keeps_blanks
    found = {
        path.parent.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.jpg")
    }
    flat = LAYOUTS[layout].is_flat
    for path in NAMED:
        name = path.rpartition("/")[2] if flat else path
        name = name if kept else name.replace(" ", "%20")
        assert any(name in str(folder) for folder in found), (name, found)
    told = any("2 names with blanks got %20" in note for note in report.notes)
    assert told == (not kept)
    again = import_tree(tmp_path / "again", tmp_path / "back", ImportSpec(layout), num_workers=1)
    assert again.exit_code == 0
    before, after = open_dataset(tmp_path / "out"), open_dataset(tmp_path / "back")
    assert [video.key for video in after.videos] == [video.key for video in before.videos]
    for video in before.videos:
        np.testing.assert_array_equal(levels_of(after, video.key), levels_of(before, video.key))


# ---- webdataset of clips


@pytest.mark.parametrize(
    ("num_flows", "length", "starts"),
    [(3, 4, []), (4, 4, [0]), (5, 4, [0, 1]), (8, 4, [0, 4]), (9, 4, [0, 4, 5]), (3, 1, [0, 1, 2])],
)
def test_clips_cover_every_flow(num_flows: int, length: int, starts: list[int]) -> None:
    assert clip_starts(num_flows, length) == starts
    covered = {start + n for start in starts for n in range(length)}
    assert covered == (set(range(num_flows)) if starts else set())


def test_samples_of_clips_have_the_same_members(ucf: FlowDataset, tmp_path: Path) -> None:
    report = export(
        ucf, tmp_path / "tars", "mmaction2", format="webdataset", clip_length=5, videos_per_shard=2
    )
    assert report.num_videos == 3
    tars = sorted((tmp_path / "tars").iterdir())
    assert [path.name for path in tars] == ["test-000000.tar", "train-000000.tar"]
    samples = []
    for path in tars:
        with tarfile.open(path) as tar:
            names = [name.split(".", 1) for name in tar.getnames()]
        kinds: dict[str, list[str]] = {}
        for key, kind in names:
            kinds.setdefault(key, []).append(kind)
        samples += list(kinds.values())
        assert all(some == samples[0] for some in samples)
    assert samples[0][:3] == ["json", "cls", "flow_x_00001.jpg"]
    urls = [f"file:{path}" for path in tars]
    seen: dict[str, set[int]] = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False).decode():
        described = sample["json"]
        assert None not in described.values()
        video = ucf.videos[described["key"]]
        assert sample["__key__"] == f"{video.key}_{described['start']:06d}"
        assert (sample["cls"], described["label"]) == (video.label, video.label)
        levels = levels_of(ucf, video.key)[described["start"] :][:5]
        raw = {
            name: bytes_of(path, f"{sample['__key__']}.{name}")
            for name, path in members(sample, tars)
        }
        for n in range(5):
            for axis in "xy":
                image = cv2.imdecode(
                    np.frombuffer(raw[f"flow_{axis}_{n + 1:05d}.jpg"], np.uint8),
                    cv2.IMREAD_GRAYSCALE,
                )
                np.testing.assert_array_equal(image, levels[n, ..., "xy".index(axis)])
            (wanted,) = ucf.jpegs(video.key, "rgb", described["start"] + n, 1)
            assert raw[f"img_{n + 1:05d}.jpg"] == wanted
        seen.setdefault(video.key, set()).update(range(described["start"], described["start"] + 5))
    assert {key: len(flows) for key, flows in seen.items()} == {
        video.key: video.num_flows for video in ucf.videos
    }


def members(sample: dict[str, object], tars: list[Path]) -> list[tuple[str, Path]]:
    path = Path(str(sample["__url__"]).removeprefix("file:"))
    assert path in tars
    return [(name, path) for name in sample if name.endswith(".jpg")]


def bytes_of(path: Path, name: str) -> bytes:
    with tarfile.open(path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_videos_without_a_clip_are_left_out_and_noted(dataset: FlowDataset, tmp_path: Path) -> None:
    # walk/d has 3 flows, and one video has two labels.
    report = export(dataset, tmp_path / "tars", "tsm", format="webdataset", clip_length=4)
    assert (report.num_videos, report.num_exported) == (3, 3)
    notes = " ".join(report.notes)
    assert "1 videos have fewer than 4 flows and are left out" in notes
    assert "without exactly one label: samples have no .cls" in notes
    for path in (tmp_path / "tars").iterdir():
        with tarfile.open(path) as tar:
            assert not [name for name in tar.getnames() if name.endswith(".cls")]
    with pytest.raises(InputError, match="has 99 flows; give a smaller --clip-length"):
        export(dataset, tmp_path / "none", "tsm", format="webdataset", clip_length=99)
    assert not (tmp_path / "none").exists()
