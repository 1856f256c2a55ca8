"""Trees become data sets: the same bytes, every pair checked, honest about what nobody knows."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

import flowprep
from flowprep.config import EncodeSpec, ExtractConfig, FlowSpec
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.layout import FLOW_STREAMS, LEASE_FILE, RGB_STREAM, read_failures
from flowprep.dataset.metadata import FlowSummary
from flowprep.dataset.quantize import FieldQuantizer, dequantize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, ConfigMismatchError, DatasetError, InputError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.import_levels import LevelStatistics
from flowprep.exchange.import_tree import ImportReport, ImportSpec, import_tree
from flowprep.exchange.layouts import IMPORTABLE_LAYOUTS
from flowprep.inputs.manifest import Manifest
from flowprep.storage import Storage
from tests.exchange import readers

LAYOUTS = list(IMPORTABLE_LAYOUTS)


def run(tree: Path, out: Path, layout: str = "mmaction2", **options: object) -> ImportReport:
    spec = ImportSpec(layout, **({"bound_px": 20.0} | options))
    return import_tree(tree, out, spec, num_workers=1)


def failures(out: Path) -> dict[str, tuple[str, str]]:
    stored = read_failures(Storage(out)).values()
    return {failure.key: (failure.reason, failure.message) for failure in stored}


def assert_whole(out: Path) -> None:
    report = verify_dataset(out, deep=True)
    assert report.problems == []


# ---- there and back


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_comes_back_with_the_same_bytes_keys_and_labels(
    made_once: Path, tmp_path: Path, layout: str
) -> None:
    export_dataset(made_once, tmp_path / "tree", ExportSpec(layout), num_workers=1)
    report = run(tmp_path / "tree", tmp_path / "out", layout, bound_px=None)
    assert (report.exit_code, report.num_complete, report.notes) == (0, 4, [])
    assert_whole(tmp_path / "out")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    assert {video.key for video in after.videos} == {video.key for video in before.videos}
    assert after.class_names == before.class_names
    assert after.config.flow == before.config.flow
    assert after.config.encode.directions == ("forward",)
    for video in before.videos:
        found = after.videos[video.key]
        for name in ("labels", "split", "num_frames", "num_flows", "width", "height", "fps"):
            assert getattr(found, name) == getattr(video, name)
        for stream in (*FLOW_STREAMS["forward"], RGB_STREAM):
            count = video.num_frames if stream == RGB_STREAM else video.num_flows
            assert after.jpegs(video.key, stream, 0, count) == before.jpegs(
                video.key, stream, 0, count
            )
        np.testing.assert_array_equal(
            after.quantized(video.key, 0, video.num_flows),
            before.quantized(video.key, 0, video.num_flows),
        )


def test_backward_flow_of_denseflow_comes_back(made_once: Path, tmp_path: Path) -> None:
    spec = ExportSpec("denseflow", direction="backward")
    export_dataset(made_once, tmp_path / "tree", spec, num_workers=1)
    run(tmp_path / "tree", tmp_path / "out", "denseflow")
    assert_whole(tmp_path / "out")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(
        after.quantized("walk/b", 0, 4, "backward"), before.quantized("walk/b", 0, 4, "backward")
    )


def test_both_directions_of_denseflow_without_our_files(made_once: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number, direction in enumerate(("forward", "backward")):
        part = tmp_path / str(number)
        spec = ExportSpec("denseflow", direction=direction, keep_rgb=number == 0)
        export_dataset(made_once, part, spec, num_workers=1)
        shutil.copytree(part, tree, dirs_exist_ok=True)
    run(tree, tmp_path / "out", "denseflow", directions=("forward", "backward"))
    assert_whole(tmp_path / "out")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    for direction in ("forward", "backward"):
        np.testing.assert_array_equal(
            after.quantized("walk/b", 0, 4, direction), before.quantized("walk/b", 0, 4, direction)
        )


def test_a_step_and_a_bound_come_back(forward_only: Path, tmp_path: Path) -> None:
    for layout in ("denseflow", "tsn"):
        tree, out = tmp_path / layout, tmp_path / f"{layout}-out"
        export_dataset(forward_only, tree, ExportSpec(layout), num_workers=1)
        run(tree, out, layout, bound_px=None)
        assert_whole(out)
        before, after = open_dataset(forward_only), open_dataset(out)
        assert (after.config.flow.step, after.config.flow.bound_px) == (2, 8.0)
        np.testing.assert_array_equal(after.flow("walk/b", 0, 3), before.flow("walk/b", 0, 3))
        with pytest.raises(ConfigError, match=r"bound_px must be 8.0, as .* says, got 20.0"):
            run(tree, tmp_path / "x", layout)


# ---- foreign trees


@pytest.mark.parametrize(
    ("layout", "tmpl", "base"),
    [
        ("mmaction2", "flow_{}_{:05d}.jpg", 1),
        ("mmaction2", "flow_{}_{:05d}.jpg", 0),
        ("mmaction2", "{}_{:05d}.jpg", 1),
        ("tsn", "flow_{}_{:05d}.jpg", 1),
        ("tsm", "flow_{}_{:05d}.jpg", 1),
        ("denseflow", "flow_{}_{:05d}.jpg", 0),
    ],
)
def test_a_tree_becomes_a_data_set(tmp_path: Path, layout: str, tmpl: str, base: int) -> None:
    tree = tmp_path / "tree"
    readers.write_tree(tree, {"run/a b": 3, "run/v.1": 2, "swim/c": 40}, base=base, tmpl=tmpl)
    (tree / "lists").mkdir()
    (tree / "lists" / "notes.txt").touch()
    report = run(tree, tmp_path / "out", layout, algorithm="farneback", quantizer="floor")
    assert report.exit_code == 0
    assert_whole(tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert [video.key for video in dataset.videos] == ["run/a%20b", "run/v%2E1", "swim/c"]
    assert [video.labels for video in dataset.videos] == [(0,), (0,), (1,)]
    assert dataset.class_names == ("run", "swim")
    assert dataset.config.flow == FlowSpec("farneback", quantizer="floor")
    assert dataset.config.encode.keep_rgb is False
    for t in (0, 39):
        for axis, name in enumerate("xy"):
            path = tree / "swim/c" / tmpl.format(name, t + base)
            (stored,) = dataset.jpegs("swim/c", f"flow_{name}", t, 1)
            assert stored == path.read_bytes()
            image = dataset.quantized("swim/c", t, 1)[0, ..., axis]
            np.testing.assert_array_equal(image, readers.gray(path))


def test_the_origin_says_what_nobody_knows(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3})
    run(tmp_path / "tree", tmp_path / "out")
    header = open_dataset(tmp_path / "out").header
    assert header.implementation == "imported"
    assert header.origin["layout"] == "mmaction2"
    assert {"flow.algorithm", "flow.parameters", "decode"} <= set(header.origin["unknown"])
    assert (
        "algorithm   not known, step 1; imported from"
        in describe_dataset(tmp_path / "out").summary()
    )
    run(tmp_path / "tree", tmp_path / "told", algorithm="dis")
    assert "flow.algorithm" not in open_dataset(tmp_path / "told").header.origin["unknown"]


def test_an_extract_into_an_imported_set_is_refused(tmp_path: Path, videos: Manifest) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3})
    run(tmp_path / "tree", tmp_path / "out")
    config = open_dataset(tmp_path / "out").config
    with pytest.raises(ConfigMismatchError, match="implementation: imported in the data set"):
        flowprep.extract(videos, tmp_path / "out", config, executor="inline")
    assert_whole(tmp_path / "out")


def test_an_import_into_an_extracted_set_is_refused(tmp_path: Path, copied: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3})
    with pytest.raises(ConfigMismatchError, match="imported in this run"):
        run(tmp_path / "tree", copied)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/file").touch()
    with pytest.raises(DatasetError, match=r"not a flowprep data set \(it holds file\)"):
        run(tmp_path / "tree", tmp_path / "foreign")


def test_frames_come_along_where_they_fit(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3}, rgb=True)
    run(tmp_path / "tree", tmp_path / "out")
    assert_whole(tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.config.encode.keep_rgb
    path = tmp_path / "tree/run/a/img_00004.jpg"
    assert dataset.jpegs("run/a", "rgb", 3, 1) == [path.read_bytes()]
    path.unlink()
    (tmp_path / "tree/run/a/img_00003.jpg").unlink()
    report = run(tmp_path / "tree", tmp_path / "second")
    assert report.exit_code == 1
    reason, message = failures(tmp_path / "second")["run/a"]
    assert reason == "incomplete"
    assert "3 flows at step 1 have 4 frames, but there are 2; import with --no-rgb" in message
    # Nothing is stored, so the next import may have other options.
    report = run(tmp_path / "tree", tmp_path / "second", keep_rgb=False)
    assert report.exit_code == 0
    assert report.notes == [
        f"{tmp_path}/second held no video yet, so it was begun anew with this command "
        "(RGB frames changed)"
    ]
    assert_whole(tmp_path / "second")


def test_the_real_rawframes_of_mmaction2(test_data: Path, tmp_path: Path) -> None:
    tree = test_data / "rawframes"
    listed = tree / "rawframe_test_list.txt"
    report = run(tree, tmp_path / "out", lists=(f"test={listed}",))
    assert failures(tmp_path / "out")["imgs"][1].startswith("5 flows at step 1 have 6 frames")
    assert report.exit_code == 1
    report = run(tree, tmp_path / "flow", lists=(f"test={listed}",), keep_rgb=False)
    assert report.exit_code == 0
    assert_whole(tmp_path / "flow")
    dataset = open_dataset(tmp_path / "flow")
    (video,) = dataset.videos
    assert (video.key, video.label, video.split) == ("imgs", 127, "test")
    assert (video.num_flows, video.width, video.height) == (5, 320, 240)
    for t in range(5):
        for axis in "xy":
            (jpeg,) = dataset.jpegs("imgs", f"flow_{axis}", t, 1)
            assert jpeg == (tree / f"imgs/{axis}_{t + 1:05d}.jpg").read_bytes()
    export_dataset(tmp_path / "flow", tmp_path / "again", ExportSpec("mmaction2"), num_workers=1)
    (one,) = readers.mmaction2(
        tmp_path / "again-lists/flow_test.txt", tmp_path / "again", "{}_{:05d}.jpg", 1
    )
    assert one.label == (127,)
    np.testing.assert_array_equal(one.levels, dataset.quantized("imgs", 0, 5))


# ---- what does not fit is a failure with a reason


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def cut(folder: Path) -> None:
    path = folder / "flow_y_00002.jpg"
    path.write_bytes(path.read_bytes()[:-40])


def cut_with_an_end(folder: Path) -> None:
    path = folder / "flow_y_00002.jpg"
    path.write_bytes(path.read_bytes()[:-40] + b"\xff\xd9")


def smaller(folder: Path) -> None:
    readers.write_gray(folder / "flow_y_00003.jpg", readers.field(1, (16, 16)))


def colour(folder: Path) -> None:
    readers.write_gray(folder / "flow_x_00002.jpg", np.dstack([readers.field(1)] * 3))


def png(folder: Path) -> None:
    done, data = cv2.imencode(".png", readers.field(1))
    assert done
    (folder / "flow_x_00002.jpg").write_bytes(data.tobytes())


def bomb(folder: Path) -> None:
    path = folder / "flow_x_00001.jpg"
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
    path.write_bytes(data)


def pipe(folder: Path) -> None:
    (folder / "flow_x_00002.jpg").unlink()
    os.mkfifo(folder / "flow_x_00002.jpg")


def twice(folder: Path) -> None:
    shutil.copy(folder / "flow_x_00002.jpg", folder / "flow_x_000002.jpg")


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "x without y": (lose("flow_y_00004.jpg"), "incomplete", "there are 4 flow_x, 3 flow_y"),
    "gap": (
        lose("flow_x_00002.jpg"),
        "incomplete",
        "number 2 of flow_x is missing: flow_x_00003.jpg",
    ),
    "late begin": (lose("flow_x_00001.jpg"), "incomplete", "begins at flow_x_00002.jpg, not at 1"),
    "empty": (write("flow_x_00003.jpg", b""), "damaged", "flow_x_00003.jpg is empty"),
    "text": (write("flow_x_00003.jpg", b"no"), "unreadable", "flow_x_00003.jpg is not a JPEG"),
    "png": (png, "unreadable", "flow_x_00002.jpg is not a JPEG"),
    "cut": (cut, "damaged", "flow_y_00002.jpg is cut"),
    "cut inside": (cut_with_an_end, "damaged", "flow_y_00002.jpg does not decode"),
    "size": (smaller, "size-change", "flow_y_00003.jpg is 16x16, others are 24x16"),
    "colour": (colour, "unreadable", "flow_x_00002.jpg must be gray"),
    "bomb": (bomb, "unreadable", "says that it is 60000x60000"),
    "pipe": (pipe, "unreadable", "flow_x_00002.jpg is not a file"),
    "twice": (twice, "incomplete", "have the same number"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_video_is_a_failure_with_a_reason(tmp_path: Path, damage: str) -> None:
    spoil, reason, message = DAMAGES[damage]
    readers.write_tree(tmp_path / "tree", {"run/bad": 4, "run/good": 4})
    spoil(tmp_path / "tree/run/bad")
    report = run(tmp_path / "tree", tmp_path / "out")
    assert (report.exit_code, report.num_complete, report.num_failed) == (1, 1, 1)
    found = failures(tmp_path / "out")
    assert list(found) == ["run/bad"]
    assert found["run/bad"][0] == reason
    assert message in found["run/bad"][1]
    assert_whole(tmp_path / "out")
    assert [video.key for video in open_dataset(tmp_path / "out").videos] == ["run/good"]


# ---- lists


def listed(tmp_path: Path, name: str, *lines: str) -> str:
    path = tmp_path / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_lists_give_labels_and_splits(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3, "run/b": 3, "swim/c": 4, "swim/d": 2})
    lists = (
        "train=" + listed(tmp_path, "train.txt", "run/a 3 1", "/data/old/place/swim/c 5 0"),
        "val=" + listed(tmp_path, "val.txt", "run/b 3 1", "run/b 3 1"),
    )
    report = run(tmp_path / "tree", tmp_path / "out", lists=lists)
    assert report.notes == [
        "1 videos are in no list and get no label; add them to a list for labels"
    ]
    dataset = open_dataset(tmp_path / "out")
    assert {v.key: (v.labels, v.split) for v in dataset.videos} == {
        "run/a": ((1,), "train"),
        "run/b": ((1,), "val"),
        "swim/c": ((0,), "train"),
        "swim/d": ((), None),
    }
    # Folder and label say the same.
    assert dataset.class_names == ("swim", "run")


def test_a_list_that_counts_more_than_there_is_shows_what_is_lost(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3, "b": 3})
    path = listed(tmp_path, "list.txt", "a 12 0", "b 4 0", "gone 7 1")
    report = run(tmp_path / "tree", tmp_path / "out", lists=(path,))
    assert report.exit_code == 1
    found = failures(tmp_path / "out")
    assert found["a"] == ("incomplete", f"there are 3 flows, but line 1 of {path} says 12")
    assert found["gone"][0] == "missing"
    assert [video.key for video in open_dataset(tmp_path / "out").videos] == ["b"]
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a 3"], r"line 1 of .* must be PATH COUNT LABEL, got 'a 3'"),
        (["a 3 0", "a 3 1"], "with other counts, labels or splits; name it once"),
        ([], "names no video"),
    ],
)
def test_lists_that_make_no_sense_are_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3})
    with pytest.raises(InputError, match=message):
        run(tmp_path / "tree", tmp_path / "out", lists=(listed(tmp_path, "l.txt", *lines),))


def test_a_split_whose_name_no_sidecar_holds_is_refused(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3})
    lists = (f"tr\udce4in={listed(tmp_path, 'l.txt', 'a 3 0')}",)
    with pytest.raises(InputError, match=r"the split of --list must be UTF-8, got 'tr\\udce4in'"):
        run(tmp_path / "tree", tmp_path / "out", lists=lists)


# ---- what is asked for


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    readers.write_tree(tree, {"run/a": 3})
    with pytest.raises(
        ConfigError,
        match="bound_px must be given, because the images do not say",
    ):
        run(tree, tmp_path / "out", bound_px=None)
    with pytest.raises(ConfigError, match="bound_px must be > 0, got -3"):
        run(tree, tmp_path / "out", bound_px=-3)
    with pytest.raises(ConfigError, match="directions must be forward for layout tsn"):
        ImportSpec("tsn", bound_px=20, directions=("backward",))
    with pytest.raises(ConfigError, match=r"layout must be one of mmaction2, .*, got 'frames'"):
        ImportSpec("frames")
    with pytest.raises(InputError, match="TREE does not exist"):
        run(tmp_path / "tre", tmp_path / "out")
    with pytest.raises(InputError, match=r"lies inside TREE .*; choose a folder outside"):
        run(tree, tree / "out")
    with pytest.raises(InputError, match=r"holds no flow images such as u/VIDEO/frame000001.jpg"):
        run(tree, tmp_path / "out", "gpu-flow")
    assert not (tmp_path / "out").exists()


# ---- again, and after a crash


def bytes_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("shards/*"))}


def _import(tree: Path, out: Path) -> None:
    run(tree, out, videos_per_shard=3)


def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    readers.write_tree(tree, {f"run/{n:02d}": 6 for n in range(9)} | {"run/bad": 2})
    (tree / "run/bad/flow_x_00002.jpg").unlink()
    _import(tree, tmp_path / "whole")
    wanted = bytes_of(tmp_path / "whole")
    num_unfinished = 0
    for attempt in range(4):
        out = tmp_path / str(attempt)
        code = (
            "from flowprep.exchange.import_tree import ImportSpec, import_tree\n"
            "spec = ImportSpec('mmaction2', bound_px=20, videos_per_shard=3)\n"
            f"import_tree({str(tree)!r}, {str(out)!r}, spec, num_workers=1)"
        )
        readers.kill_after(code, out / "manifest.jsonl", 0.008 * attempt)
        num_unfinished += len(list(out.glob("shards/*.json"))) < 4
        _import(tree, out)
        assert bytes_of(out) == wanted
        assert_whole(out)
        assert list(failures(out)) == ["run/bad"]
    assert num_unfinished > 0


def test_failures_are_listed_before_their_shard_is_public(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    readers.write_tree(tree, {"a": 3, "bad": 2})
    (tree / "bad/flow_x_00002.jpg").unlink()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowprep.exchange.import_tree.publish_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tree, out)
    assert list(failures(out)) == ["bad"]
    assert list(out.glob("shards/*")) == []


def test_run_again_nothing_changes_and_new_videos_are_added(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    readers.write_tree(tree, {"a": 3, "b": 2})
    run(tree, out)
    before = bytes_of(out)
    report = run(tree, out)
    assert (report.num_done_before, report.num_complete, report.exit_code) == (2, 0, 0)
    assert bytes_of(out) == before
    readers.write_tree(tree, {"c": 4})
    report = run(tree, out)
    assert (report.num_done_before, report.num_complete) == (2, 1)
    assert before.items() <= bytes_of(out).items()
    assert_whole(out)
    with pytest.raises(ConfigMismatchError, match="--bound: 20"):
        run(tree, out, bound_px=32.0)


def test_processes_make_the_same(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    readers.write_tree(tree, {f"run/{n}": 3 for n in range(4)}, rgb=True)
    spec = ImportSpec("mmaction2", bound_px=20, videos_per_shard=2)
    import_tree(tree, tmp_path / "one", spec, num_workers=1)
    import_tree(tree, tmp_path / "two", spec, num_workers=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert_whole(tmp_path / "two")


def test_a_lost_sidecar_is_rebuilt(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    readers.write_tree(tree, {"a": 3, "b": 2})
    run(tree, out)
    (out / "shards/000000.json").unlink()
    tar = (out / "shards/000000.tar").read_bytes()
    report = run(tree, out)
    assert report.num_done_before == 2
    assert (out / "shards/000000.tar").read_bytes() == tar
    assert_whole(out)


FILES = ["dataset.json", "manifest.jsonl", "failures.jsonl", "shards/000000.json"]


@pytest.mark.parametrize(
    "lost", [*itertools.combinations(FILES, 1), *itertools.combinations(FILES, 2)]
)
def test_the_same_import_brings_back_what_is_lost(tmp_path: Path, lost: tuple[str, ...]) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    readers.write_tree(tree, {"a": 3, "bad": 2, "c": 2})
    (tree / "bad/flow_x_00002.jpg").unlink()
    run(tree, out, videos_per_shard=2)

    def content() -> dict[Path, bytes]:
        files = (path for path in out.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if path.name != LEASE_FILE}

    before = content()
    for name in lost:
        (out / name).unlink()
    report = run(tree, out, videos_per_shard=2)
    # Without both records of the failure its shard is published again, with the stored part.
    assert (report.num_complete + report.num_done_before, report.num_failed) == (2, 1)
    assert content() == before
    assert_whole(out)


def test_another_bound_is_refused_where_the_header_is_lost(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    readers.write_tree(tree, {"a": 3})
    run(tree, out)
    (out / "dataset.json").unlink()
    with pytest.raises(ConfigMismatchError, match="--bound: 20"):
        run(tree, out, bound_px=32.0)
    assert not (out / "dataset.json").exists()


# ---- statistics


@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
def test_statistics_of_levels_are_those_of_the_flow_that_they_decode_to(quantizer: str) -> None:
    spec = FlowSpec("dis", bound_px=7.0, quantizer=quantizer)
    random = np.random.default_rng(4)
    levels = random.integers(0, 256, (3, 20, 30, 2)).astype(np.uint8)
    levels[1] = spec.zero_level
    found = LevelStatistics()
    wanted = FieldQuantizer(spec)
    for field in levels:
        found.add(field[..., 0], field[..., 1], spec.zero_level)
        wanted.quantize(dequantize(field, spec))
    values = msgspec.to_builtins(FlowSummary.of(found.flow_statistics(spec)))
    expected = msgspec.to_builtins(FlowSummary.of(wanted.statistics))
    assert values.keys() == expected.keys()
    # A value beyond the bound is stored as 0 or 255; a stored field of zeros is not 0 px for all.
    assert values.pop("num_clipped") == int(np.isin(levels, (0, 255)).sum())
    assert values.pop("num_zero_fields") == 1
    for name in ("num_clipped", "num_zero_fields"):
        expected.pop(name)
    # A magnitude on the edge of a bin may fall to either side in float32.
    a, b = (np.array(one.pop("magnitude_histogram")) for one in (values, expected))
    assert np.abs(np.pad(a, (0, 60))[:60] - np.pad(b, (0, 60))[:60]).sum() <= 4
    assert a.sum() == b.sum()
    assert values == pytest.approx(expected, abs=1e-3)


def test_metadata_has_the_statistics(made_once: Path, tmp_path: Path) -> None:
    export_dataset(made_once, tmp_path / "tree", ExportSpec("tsm"), num_workers=1)
    run(tmp_path / "tree", tmp_path / "out", "tsm")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    old = before.metadata("walk/b").flow["forward"]
    new = after.metadata("walk/b").flow["forward"]
    assert new.num_values == old.num_values
    # JPEG moves a value by a few levels.
    assert new.max_px == pytest.approx(old.max_px, abs=1.0)
    assert sum(new.magnitude_histogram) == sum(old.magnitude_histogram)


def test_trees_larger_than_a_chunk_are_read_whole(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 70})
    run(tmp_path / "tree", tmp_path / "out")
    dataset: FlowDataset = open_dataset(tmp_path / "out")
    levels = dataset.quantized("a", 0, 70)
    for t in range(70):
        path = tmp_path / f"tree/a/flow_x_{t + 1:05d}.jpg"
        np.testing.assert_array_equal(levels[t, ..., 0], readers.gray(path))


def test_a_progressive_jpeg_is_taken(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3})
    path = tmp_path / "tree/a/flow_x_00002.jpg"
    parameters = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    done, jpeg = cv2.imencode(".jpg", readers.field(9), parameters)
    assert done
    path.write_bytes(jpeg.tobytes())
    assert run(tmp_path / "tree", tmp_path / "out").exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(dataset.quantized("a", 1, 1)[0, ..., 0], readers.gray(path))


@pytest.mark.parametrize(
    "text",
    ["{}", "[", "null", '{"file_format": "npy"}', '{"decode": 3}', "[" * 100000],
)
def test_a_forged_description_is_refused(tmp_path: Path, text: str) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3})
    (tmp_path / "tree/flowprep.json").write_text(text)
    with pytest.raises(DatasetError, match=r"flowprep.json cannot be taken"):
        run(tmp_path / "tree", tmp_path / "out")


def test_a_forged_key_stays_inside(made_once: Path, tmp_path: Path) -> None:
    export_dataset(made_once, tmp_path / "tree", ExportSpec("tsm"), num_workers=1)
    path = tmp_path / "tree-lists/flowprep-videos.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["key"] = "../../escape"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match="malformed key"):
        run(tmp_path / "tree", tmp_path / "out", "tsm")


def test_the_configuration_of_a_foreign_tree_says_no_more_than_was_told(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"a": 3})
    run(tmp_path / "tree", tmp_path / "out", bound_px=32.0)
    config = open_dataset(tmp_path / "out").config
    encode = EncodeSpec(("forward",), keep_rgb=False)
    assert config == ExtractConfig(config.decode, FlowSpec(bound_px=32.0), encode)
    assert str(config.decode.resize) == "none"
