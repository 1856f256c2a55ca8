"""Exports are read back by those who read them in the field, or by readers after their code."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path
from typing import get_args

import cv2
import h5py
import numpy as np
import pytest
import webdataset

import flowprep
from flowprep.config import Direction
from flowprep.dataset.layout import FLOW_STREAMS, DatasetHeader
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.formats import FORMATS
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.exchange.layouts import LAYOUTS, FileKind, FormatName
from flowprep.exchange.tree_paths import video_paths
from flowprep.flow.files import read_flow
from tests.exchange import readers

LONG = "x" * 120
LONG_KEY = f"Dr%2E%20No/{LONG}"
LONG_PATH = f"Dr.%20No/{LONG}"
"""Where lists are split at blanks."""
KEYS = {"jump/a": "jump/a", "walk/b": "walk/b", LONG_KEY: LONG_PATH, "walk/d": "walk/d"}


@pytest.fixture(scope="module")
def dataset(made_once: Path) -> FlowDataset:
    return open_dataset(made_once)


def run(source: Path | FlowDataset, dest: Path, layout: str, **options: object) -> list[str]:
    report = export_dataset(source, dest, ExportSpec(layout, **options), num_workers=1)
    assert report.exit_code == 0
    return report.notes


def lists_of(dest: Path) -> Path:
    return dest.parent / f"{dest.name}-lists"


def files(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()}


def path_of(key: str, layout: str) -> str:
    """Names keep their blanks where no list is split at them."""
    return KEYS[key].replace("%20", " ") if LAYOUTS[layout].keeps_blanks else KEYS[key]


def levels_of(dataset: FlowDataset, key: str, direction: Direction = "forward") -> np.ndarray:
    return dataset.quantized(key, 0, dataset.videos[key].num_flows, direction)


def test_the_formats_that_are_offered_are_those_that_can_be_written() -> None:
    assert get_args(FormatName) == tuple(FORMATS)


# ---- loose JPEGs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_there_with_the_stored_bytes_and_no_other(
    dataset: FlowDataset, tmp_path: Path, layout: str
) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, layout)
    names = LAYOUTS[layout]
    paths = video_paths(dataset.videos, dataset.class_names, names)
    wanted = {}
    for video, path in zip(dataset.videos, paths, strict=True):
        streams = {"rgb": "rgb"} | ({"x": "flow_x", "y": "flow_y"} if names.has_flow else {})
        for stream, stored in streams.items():
            count = video.num_frames if stream == "rgb" else video.num_flows
            for index, jpeg in enumerate(dataset.jpegs(video.key, stored, 0, count)):
                if stream == "rgb":
                    wanted[names.frame_file(path, index)] = jpeg
                else:
                    wanted[names.flow_file(path, stream, index, FileKind(stream))] = jpeg
    found = {name for name in files(tree) if name.endswith(".jpg")}
    assert found == wanted.keys()
    for name, jpeg in wanted.items():
        assert (tree / name).read_bytes() == jpeg, name


NAMES = {
    "mmaction2": ["jump/a/x_00001.jpg", "jump/a/y_00005.jpg", "jump/a/img_00006.jpg"],
    "tsn": ["a/flow_x_00001.jpg", "a/flow_y_00005.jpg", "a/img_00001.jpg"],
    "tsm": ["jump/a/flow_x_00001.jpg", "jump/a/flow_y_00005.jpg", "jump/a/img_00006.jpg"],
    "gpu-flow": [
        "u/jump/a/frame000001.jpg",
        "v/jump/a/frame000005.jpg",
        "jpegs_256/jump/a/frame000006.jpg",
        "u/jump/a.bin",
    ],
    "gpu-flow-xy": [
        "x/jump/a/frame000001.jpg",
        "y/jump/a/frame000005.jpg",
        "rgb/jump/a/frame000006.jpg",
    ],
    "epic-kitchens": [
        "flow/jump/a/u/frame_0000000001.jpg",
        "flow/jump/a/v/frame_0000000005.jpg",
        "rgb/jump/a/frame_0000000006.jpg",
    ],
    "pytorch-i3d": ["flow/a/a-000001x.jpg", "flow/a/a-000005y.jpg", "rgb/a/a-000006.jpg"],
    "denseflow": [
        "jump/a/flow_x_00000.jpg",
        "jump/a/flow_y_00004.jpg",
        "jump/a/img_00005.jpg",
    ],
    "frames": ["jump/a/img_00001.jpg", "jump/a/img_00006.jpg"],
    "slowfast": ["a/a-000001.jpg", "a/a-000006.jpg"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_and_bases_are_the_projects(
    dataset: FlowDataset, tmp_path: Path, layout: str
) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, layout, keys=("jump/a",))
    found = files(tree)
    assert set(NAMES[layout]) <= found
    per_frame = [name for name in found if name.endswith(".jpg")]
    assert len(per_frame) == (2 * 5 + 6 if LAYOUTS[layout].has_flow else 6)


@pytest.mark.parametrize("layout", ["mmaction2", "tsm", "denseflow"])
def test_mmaction2_reads_every_line(dataset: FlowDataset, tmp_path: Path, layout: str) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, layout)
    base = LAYOUTS[layout].first_number
    # configs/recognition/tsn/tsn_imagenet-pretrained-r50_8xb32_5x1x3-110e_kinetics400-flow.py
    template = "{}_{:05d}.jpg" if layout == "mmaction2" else "flow_{}_{:05d}.jpg"
    found = []
    for name in ("flow_train.txt", "flow_test.txt", "flow.txt"):
        found += readers.mmaction2(lists_of(tree) / name, tree, template, start_index=base)
    by_path = {one.path: one for one in found}
    assert set(by_path) == {path_of(key, layout) for key in KEYS}
    for key in KEYS:
        path = path_of(key, layout)
        assert by_path[path].label == dataset.videos[key].labels
        np.testing.assert_array_equal(by_path[path].levels, levels_of(dataset, key))


def test_tsn_reads_every_line_as_it_stands(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsn")
    found = [*readers.tsn(lists_of(tree) / "flow_train.txt")]
    found += readers.tsn(lists_of(tree) / "flow_test.txt")
    assert [Path(one.path).name for one in found] == ["a", "d", "b"]
    for one, key in zip(found, ("jump/a", "walk/d", "walk/b"), strict=True):
        assert Path(one.path).parent == tree
        assert one.label == dataset.videos[key].labels
        np.testing.assert_array_equal(one.levels, levels_of(dataset, key))


def test_tsm_reads_every_line_below_its_root(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsm")
    (one,) = readers.tsn(lists_of(tree) / "flow_test.txt", root=str(tree))
    assert (one.path, one.label) == ("walk/b", (1,))
    np.testing.assert_array_equal(one.levels, levels_of(dataset, "walk/b"))


def test_gpu_flow_has_ranges_beside_its_images(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "gpu-flow")
    ranges = np.fromfile(tree / "u/walk/b.bin", "<f4").reshape(-1, 4)
    np.testing.assert_array_equal(ranges, [[-20, 20, -20, 20]] * 4)
    found = readers.pairs(
        [
            (
                str(tree / f"u/walk/b/frame{n:06d}.jpg"),
                str(tree / f"v/walk/b/frame{n:06d}.jpg"),
            )
            for n in range(1, 5)
        ]
    )
    np.testing.assert_array_equal(found, levels_of(dataset, "walk/b"))


def test_charades_reads_long_videos(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/one": 70, "swim/two": 66, "swim/short": 65})
    listed = tmp_path / "list.txt"
    listed.write_text("run/one 70 0\nswim/two 66 1\nswim/short 65 1\n")
    spec = ImportSpec("mmaction2", bound_px=20, lists=(f"train={listed}",))
    import_tree(tmp_path / "tree", tmp_path / "out", spec, num_workers=1)
    notes = run(tmp_path / "out", tmp_path / "i3d", "pytorch-i3d")
    assert any("1 videos have fewer than 66 flows" in note for note in notes)
    found = readers.charades(
        tmp_path / "i3d-lists/charades.json", "training", tmp_path / "i3d/flow", num_classes=157
    )
    assert [(one.path, one.label) for one in found] == [("one", (0,)), ("two", (1,))]
    dataset = open_dataset(tmp_path / "out")
    for one, key in zip(found, ("run/one", "swim/two"), strict=True):
        np.testing.assert_array_equal(one.levels, levels_of(dataset, key)[: len(one.levels)])


def test_lists_of_frames_count_frames(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "mmaction2")
    lists = lists_of(tree)
    assert (lists / "rgb_train.txt").read_text() == "jump/a 6 0\nwalk/d 4 1\n"
    assert (lists / "flow_train.txt").read_text() == "jump/a 5 0\nwalk/d 3 1\n"
    assert (lists / "flow.txt").read_text() == f"{LONG_PATH} 6 0 1\n"
    assert (lists / "classInd.txt").read_text() == "1 jump\n2 walk\n"


def test_the_root_of_the_lists_can_be_another(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsn", list_root="/data/tsn/", splits=("test",))
    assert (lists_of(tree) / "flow_test.txt").read_text() == "/data/tsn/b 4 1\n"


@pytest.mark.parametrize("layout", ["denseflow", "tsn"])
def test_backward_flow_and_steps_have_denseflows_names(
    dataset: FlowDataset, forward_only: Path, tmp_path: Path, layout: str
) -> None:
    notes = run(dataset, tmp_path / "back", layout, direction="backward", keys=("walk/b",))
    name = "flow_x_m1_00001.jpg" if layout == "denseflow" else "flow_x_00001.jpg"
    folder = tmp_path / "back" / ("walk/b" if layout == "denseflow" else "b")
    assert (folder / name).read_bytes() == dataset.jpegs("walk/b", "back_x", 0, 1)[0]
    assert any("backward" in note for note in notes) == (layout == "tsn")
    notes = run(forward_only, tmp_path / "two", layout, keys=("walk/b",))
    name = "flow_x_p2_00000.jpg" if layout == "denseflow" else "flow_x_00001.jpg"
    assert len(list((tmp_path / "two").rglob("flow_x*.jpg"))) == 5 - 2
    assert len(list((tmp_path / "two").rglob(name))) == 1
    assert any("frame t to t + 2" in note for note in notes) == (layout == "tsn")


# ---- other formats


def test_zip_files_are_dense_flows(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsn", format="zip")
    for stored, name in (("flow_x", "x_{:05d}.jpg"), ("flow_y", "y_{:05d}.jpg")):
        with zipfile.ZipFile(tree / f"b/{stored}.zip") as archive:
            assert archive.testzip() is None
            jpegs = dataset.jpegs("walk/b", stored, 0, 4)
            assert archive.namelist() == [name.format(n) for n in range(1, 5)]
            assert [archive.read(one) for one in archive.namelist()] == jpegs
    with zipfile.ZipFile(tree / "b/img.zip") as archive:
        assert archive.read("img_00005.jpg") == dataset.jpegs("walk/b", "rgb", 4, 1)[0]


def test_flo_files_are_read_by_opencv(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "denseflow", format="flo")
    wanted = dataset.flow("walk/b", 0, 4)
    for t in range(4):
        path = tree / f"walk/b/flow_{t:05d}.flo"
        np.testing.assert_array_equal(cv2.readOpticalFlow(str(path)), wanted[t])
        np.testing.assert_array_equal(read_flow(path)[0], wanted[t])


@pytest.mark.parametrize("values", ["px", "levels"])
@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5"])
def test_arrays_are_the_data_sets(
    forward_only: Path, tmp_path: Path, kind: str, values: str
) -> None:
    tree = tmp_path / "tree"
    dataset = open_dataset(forward_only)
    run(dataset, tree, "mmaction2", format=kind, values=values)
    for video in dataset.videos:
        path = tree / KEYS[video.key]
        read = dataset.flow if values == "px" else dataset.quantized
        wanted = read(video.key, 0, video.num_flows)
        if kind == "npy":
            found = np.load(f"{path}.npy", mmap_mode="r")
        elif kind == "npz":
            with np.load(f"{path}.npz") as archive:
                found = archive["flow"]
        else:
            with h5py.File(f"{path}.h5") as file:
                assert file["flow"].chunks == (1, *wanted.shape[1:])
                attributes = dict(file["flow"].attrs)
                found = file["flow"][:]
            assert (attributes["bound_px"], attributes["quantizer"]) == (8.0, "centered")
            assert (attributes["key"], attributes["center_level"]) == (video.key, 128.0)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    suffix = {"npy": ".npy", "npz": ".npz", "hdf5": ".h5"}[kind]
    assert (lists_of(tree) / "flow_test.txt").read_text() == f"walk/b{suffix} 3 1\n"


@pytest.mark.parametrize("layout", ["mmaction2", "denseflow", "frames"])
def test_webdataset_reads_one_jpeg_a_member(
    dataset: FlowDataset, tmp_path: Path, layout: str
) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, layout, format="webdataset", videos_per_shard=1)
    names = sorted(path.name for path in tree.glob("*.tar"))
    assert names == ["all-000000.tar", "test-000000.tar", "train-000000.tar", "train-000001.tar"]
    urls = [f"file:{tree / name}" for name in names]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in samples] == [LONG_KEY, "walk/b", "jump/a", "walk/d"]
    base = LAYOUTS[layout].first_number
    for sample in samples:
        video = dataset.videos[sample["__key__"]]
        assert sample["json"]["labels"] == list(video.labels)
        assert sample.get("cls") == video.label
        images = {name: image for name, image in sample.items() if name.endswith(".jpg")}
        frames = [
            np.asarray(images.pop(f"img_{n + base:05d}.jpg")) for n in range(video.num_frames)
        ]
        assert (
            np.abs(
                np.stack(frames).astype(int) - dataset.frames(video.key, range(video.num_frames))
            ).max()
            <= 3
        )
        if layout == "frames":
            assert not images
            continue
        levels = [
            [np.asarray(images.pop(f"flow_{a}_{n + base:05d}.jpg").convert("L")) for a in "xy"]
            for n in range(video.num_flows)
        ]
        assert not images
        found = np.moveaxis(np.array(levels), 1, -1)
        np.testing.assert_array_equal(found, levels_of(dataset, video.key))


# ---- what is chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "mmacton2"}, "layout must be one of mmaction2, tsn,"),
        (
            {"layout": "gpu-flow", "format": "npz"},
            "format of layout gpu-flow must be one of jpg, got 'npz'; npz goes with mmaction2,",
        ),
        (
            {"layout": "frames", "format": "flo"},
            "layout frames must be one of jpg, zip, webdataset",
        ),
        (
            {"format": "npz", "keep_rgb": True},
            "npz holds only flow; leave out --rgb, or choose jpg",
        ),
        (
            {"layout": "frames", "keep_rgb": False},
            "frames holds only RGB frames; leave out --no-rgb",
        ),
        ({"values": "levels"}, "values levels are for the formats npy, npz and hdf5, not for jpg"),
        ({"direction": "sideways"}, "direction must be one of forward, backward, got 'sideways'"),
        ({"videos_per_shard": 0}, "videos_per_shard must be >= 1, got 0"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportSpec(**options)
    assert message in str(error.value)


def test_what_the_data_set_lacks_is_refused(forward_only: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"layout": "frames"}, "holds no RGB frames; layout frames needs them"),
        ({"keep_rgb": True}, "holds no RGB frames; leave out --rgb"),
        ({"direction": "backward"}, r"direction must be one that .* holds \(forward\)"),
        ({"classes": ("jmup",)}, "classes must be of .*, got 'jmup'"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_dataset(forward_only, tmp_path / "x", ExportSpec(**options))
    with pytest.raises(InputError, match=r"no video of .* is left after the filters"):
        export_dataset(forward_only, tmp_path / "x", ExportSpec(keys=("nothing*",)))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"keys": ("walk/*",)}, {"walk/b", "walk/d"}),
        ({"splits": ("train",)}, {"jump/a", "walk/d"}),
        ({"classes": ("jump",)}, {"jump/a", LONG_PATH}),
        ({"classes": ("1",), "splits": ("test",)}, {"walk/b"}),
    ],
)
def test_filters(
    dataset: FlowDataset, tmp_path: Path, filters: dict[str, object], wanted: set[str]
) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "mmaction2", keep_rgb=False, **filters)
    assert {name.rpartition("/")[0] for name in files(tree) if name.endswith(".jpg")} == wanted


def test_another_bound_and_quantiser_are_told(forward_only: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    notes = " ".join(run(forward_only, tree, "tsm"))
    assert "levels stand for -8 to 8 px, but tsm expects 20 px" in notes
    assert "see flow that is 2.5 times as fast" in notes
    assert "quantizer centered stores 0 px as level 128, but tsm reads level 127.5 as 0 px" in notes
    told = json.loads((lists_of(tree) / "flowprep.json").read_text())
    assert (told["flow"]["bound_px"], told["flow"]["step"]) == (8.0, 2)


def test_the_usual_levels_need_no_words(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    assert run(dataset, tree, "mmaction2", splits=("train",)) == []
    assert run(dataset, tree / "flo", "mmaction2", format="flo", splits=("train",)) == []


# ---- again, and after a crash


def stamps(top: Path) -> dict[str, int]:
    return {name: (top / name).stat().st_mtime_ns for name in files(top)}


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        ("gpu-flow", "jpg"),
        ("tsn", "zip"),
        ("tsm", "npy"),
        ("denseflow", "flo"),
        ("tsn", "webdataset"),
    ],
)
def test_what_is_whole_stays(dataset: FlowDataset, tmp_path: Path, layout: str, kind: str) -> None:
    tree = tmp_path / "tree"
    spec = ExportSpec(layout, kind, videos_per_shard=1)
    first = export_dataset(dataset, tree, spec, num_workers=1)
    assert (first.num_exported, first.num_done_before) == (4, 0)
    before = stamps(tree)
    again = export_dataset(dataset, tree, spec, num_workers=1)
    assert (again.num_exported, again.num_done_before, again.num_bytes) == (0, 4, 0)
    assert stamps(tree) == before
    assert not (tree / ".flowprep-temporary").exists()


@pytest.mark.parametrize("damage", ["lost", "cut", "more"])
def test_what_is_not_whole_is_written_again(
    dataset: FlowDataset, tmp_path: Path, damage: str
) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsm")
    before = stamps(tree)
    path = tree / "walk/b/flow_y_00002.jpg"
    whole = path.read_bytes()
    if damage == "lost":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(whole[:-1])
    else:
        (path.parent / "flow_y_00099.jpg").write_bytes(whole)
    report = export_dataset(dataset, tree, ExportSpec("tsm"), num_workers=1)
    assert (report.num_exported, report.num_done_before) == (1, 3)
    assert path.read_bytes() == whole
    after = stamps(tree)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {name.rpartition("/")[0] for name in changed} == {"walk/b"}


def test_killed_at_any_time_no_half_video_looks_whole(
    made_once: Path, dataset: FlowDataset, tmp_path: Path
) -> None:
    num_unfinished = 0
    for attempt in range(4):
        dest = tmp_path / str(attempt)
        code = (
            "from flowprep.exchange.export import export_dataset\n"
            "from flowprep.exchange.export_spec import ExportSpec\n"
            f"export_dataset({str(made_once)!r}, {str(dest)!r}, ExportSpec('tsm'), num_workers=1)"
        )
        readers.kill_after(code, lists_of(dest) / "flowprep.json", 0.004 * attempt)
        num_unfinished += not (lists_of(dest) / "flowprep-videos.jsonl").exists()
        for video in dataset.videos:
            folder = dest / KEYS[video.key]
            if folder.exists():
                assert len(list(folder.iterdir())) == 2 * video.num_flows + video.num_frames
        run(dataset, dest, "tsm")
        assert len(readers.tsn(lists_of(dest) / "flow_train.txt", root=str(dest))) == 2
        assert not (dest / ".flowprep-temporary").exists()
    assert num_unfinished > 0


def test_processes_write_the_same(dataset: FlowDataset, tmp_path: Path) -> None:
    run(dataset, tmp_path / "one", "tsm")
    export_dataset(dataset, tmp_path / "two", ExportSpec("tsm"), num_workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_foreign_folder_is_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "photo.jpg").touch()
    with pytest.raises(
        DatasetError, match=r"is not empty and not an export .* \(it holds photo.jpg, and"
    ):
        export_dataset(dataset, tree, ExportSpec())
    assert [path.name for path in tree.iterdir()] == ["photo.jpg"]
    with pytest.raises(DatasetError, match="is a file; choose a new or empty folder"):
        export_dataset(dataset, tree / "photo.jpg", ExportSpec())


def test_another_export_is_refused(dataset: FlowDataset, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run(dataset, tree, "tsm", splits=("test",))
    with pytest.raises(DatasetError, match=r"(?s)holds another export:.*--layout: tsm there, tsn"):
        export_dataset(dataset, tree, ExportSpec("tsn", splits=("test",)))
    with pytest.raises(DatasetError, match=r"--split: test there, nothing in this run"):
        export_dataset(dataset, tree, ExportSpec("tsm"))


# ---- paths


def forged(dataset: FlowDataset, keys: list[str], class_names: tuple[str, ...]) -> list[object]:
    video = dataset.videos["walk/b"]
    return [dataclasses.replace(video, key=key, labels=(0,)) for key in keys]


def test_class_names_are_folders_where_keys_have_none(dataset: FlowDataset) -> None:
    layout = LAYOUTS["mmaction2"]
    videos = forged(dataset, ["one", "run/two", "train/three"], ())
    assert video_paths(videos, ("run",), layout) == ["run/one", "run/two", "run/train/three"]
    assert video_paths(videos, (), layout) == ["one", "run/two", "train/three"]
    # One path twice: keys as they are.
    videos = forged(dataset, ["one", "run/one"], ())
    assert video_paths(videos, ("run",), layout) == ["one", "run/one"]


def test_a_forged_class_name_stays_inside(dataset: FlowDataset) -> None:
    videos = forged(dataset, ["one"], ())
    for name in ("../../etc", "/abs", "lists", "flowprep.json", "..", "a\nb", "\ud800"):
        for version, own in ((1, ("lists", "flowprep.json")), (2, ("flowprep.json",))):
            layout = LAYOUTS["mmaction2"]
            (path,) = video_paths(videos, (name,), layout, version=version)
            folder, _, last = path.partition("/")
            assert last == "one"
            assert folder not in ("", ".", "..", *own)
            assert "\n" not in folder


def test_flat_layouts_take_whole_keys_where_names_repeat(dataset: FlowDataset) -> None:
    for names, wanted in (
        (["run/a", "walk/b"], ["a", "b"]),
        (["run/a", "walk/a"], ["run%2Fa", "walk%2Fa"]),
        (["run/a", "walk/A"], ["run%2Fa", "walk%2FA"]),
    ):
        videos = forged(dataset, names, ())
        assert video_paths(videos, ("run",), LAYOUTS["tsn"]) == wanted


def rekeyed(made_once: Path, out: Path, keys: dict[str, str]) -> Path:
    """A copy whose videos have other keys of the same length."""
    shutil.copytree(made_once, out)
    for path in [*out.rglob("*.json*"), *out.glob("shards/*.tar")]:
        data = path.read_bytes()
        for old, new in keys.items():
            assert len(old) == len(new)
            data = data.replace(old.encode(), new.encode())
        path.write_bytes(data)
    return out


def test_paths_that_meet_on_a_file_system_without_case_are_refused(
    made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = rekeyed(made_once, tmp_path / "out", {"walk/b": "walk/D"})
    spec = ExportSpec("mmaction2")
    export_dataset(out, tmp_path / "fine", spec, num_workers=1)
    assert {path.name for path in (tmp_path / "fine/walk").iterdir()} == {"D", "d"}
    monkeypatch.setattr("flowprep.exchange.export._ignores_case", lambda folder: True)
    with pytest.raises(DatasetError, match="walk/D and walk/d would share the path walk/d"):
        export_dataset(out, tmp_path / "x", spec, num_workers=1)


def test_a_video_inside_another_ones_folder_is_refused(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 2, "a/b": 2})
    spec = ImportSpec("mmaction2", bound_px=20)
    import_tree(tmp_path / "tree", tmp_path / "out", spec, num_workers=1)
    with pytest.raises(DatasetError, match="a/b would lie inside the folder of a; export them"):
        run(tmp_path / "out", tmp_path / "x", "mmaction2")
    run(tmp_path / "out", tmp_path / "flat", "tsn")
    assert {name.partition("/")[0] for name in files(tmp_path / "flat")} == {"a", "b"}


# ---- damaged data


def test_a_damaged_video_costs_itself(copied: Path, tmp_path: Path) -> None:
    dataset = open_dataset(copied)
    video = dataset.videos["walk/b"]
    offset, _ = video.members["flow_y"]
    path = copied / f"shards/{video.shard:06d}.tar"
    data = bytearray(path.read_bytes())
    data[offset : offset + 2] = b"no"
    path.write_bytes(data)
    for kind in ("jpg", "npz", "webdataset"):
        dest = tmp_path / kind
        report = export_dataset(copied, dest, ExportSpec("tsm", kind), num_workers=1)
        assert report.exit_code == 1
        assert list(report.failures) == ["walk/b"]
        assert "flow_y 0 is not a JPEG" in report.failures["walk/b"]
        assert report.summary().startswith("INCOMPLETE: 3 of 4 videos")
        assert not (dest / "walk/b").exists()
        assert not (dest / "walk/b.npz").exists()
        assert "walk/b" not in (lists_of(dest) / "flowprep-videos.jsonl").read_text()
        for listed in lists_of(dest).glob("flow*.txt"):
            assert "walk/b" not in listed.read_text()


def test_the_header_of_an_ordinary_data_set_says_nothing_of_origins(made_once: Path) -> None:
    values = json.loads((made_once / "dataset.json").read_text())
    assert "origin" not in values
    assert DatasetHeader.read(flowprep.open_dataset(made_once).storage).origin == {}


@pytest.mark.parametrize("stream", [name for names in FLOW_STREAMS.values() for name in names])
def test_stored_jpegs_are_given_as_they_are(dataset: FlowDataset, stream: str) -> None:
    jpegs = dataset.jpegs("walk/b", stream, 1, 2)
    axis = int(stream.endswith("_y"))
    direction: Direction = "forward" if stream.startswith("flow") else "backward"
    wanted = dataset.quantized("walk/b", 1, 2, direction)[..., axis]
    found = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED) for jpeg in jpegs]
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(DatasetError, match=f"walk/b has {stream} 0 to 3, got start 3 and length 2"):
        dataset.jpegs("walk/b", stream, 3, 2)
