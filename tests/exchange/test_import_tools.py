"""Trees as each tool writes them, with its own names, numbers and counts."""

from __future__ import annotations

import itertools
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigMismatchError
from flowprep.exchange.import_tree import ImportReport
from flowprep.flow import create_estimator
from flowprep.inputs.manifest import collect_videos
from flowprep.synthetic import Layer, Scene, write_video
from tests.exchange import readers
from tests.exchange.test_import_tree import assert_whole, failures, run

NUM_FRAMES = 6


def level(t: int, axis: str) -> int:
    """The level of the flow from frame t to frame t + 1, all over the image."""
    return 100 + 10 * t + (axis == "y")


def write_flow_image(path: Path, t: int, axis: str) -> None:
    readers.write_gray(path, np.full((16, 24), level(t, axis), np.uint8))


def write_frame(path: Path, t: int) -> None:
    readers.write_gray(path, np.full((16, 24, 3), 40 * t, np.uint8))


def read(out: Path, key: str) -> tuple[list[int], list[int]]:
    """Returns which frames are stored, and at which frame each stored flow begins."""
    dataset: FlowDataset = open_dataset(out)
    video = dataset.videos[key]
    levels = dataset.quantized(key, 0, video.num_flows)
    assert (levels == levels[:, :1, :1]).all()
    x, y = levels[:, 0, 0, 0].astype(int), levels[:, 0, 0, 1].astype(int)
    np.testing.assert_array_equal(y, x + 1)
    frames = []
    if dataset.config.encode.keep_rgb:
        jpegs = dataset.jpegs(key, "rgb", 0, video.num_frames)
        images = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1) for jpeg in jpegs]
        frames = [round(float(image.mean()) / 40) for image in images]
    return frames, ((x - 100) // 10).tolist()


def test_dense_flow_has_as_many_frames_as_flows(tmp_path: Path) -> None:
    """extract_gpu -o dir of yjxiong/dense_flow, as TSN's and two-stream-pytorch's build_of.py call
    it: VIDEO/flow_x_00001.jpg and so on. The image beside a flow is the frame where it ends."""
    for t in range(NUM_FRAMES - 1):
        for axis in "xy":
            write_flow_image(tmp_path / f"tree/v_a/flow_{axis}_{t + 1:05d}.jpg", t, axis)
        write_frame(tmp_path / f"tree/v_a/img_{t + 1:05d}.jpg", t + 1)
    for layout in ("tsn", "tsm", "mmaction2"):
        report = run(tmp_path / "tree", tmp_path / layout, layout)
        assert report.exit_code == 0
        assert_whole(tmp_path / layout)
        # The flow of each stored frame is that to the next one.
        assert read(tmp_path / layout, "v_a") == ([1, 2, 3, 4, 5], [1, 2, 3, 4])
        note = report.video_notes["first-flow-dropped"]
        assert note.first_text == "5 frames and flows; flow_x_00001.jpg is left out"
        assert "import with --no-rgb to keep all flow" in report.summary()
    report = run(tmp_path / "tree", tmp_path / "flow", "tsn", keep_rgb=False)
    assert report.video_notes == {}
    assert read(tmp_path / "flow", "v_a") == ([], [0, 1, 2, 3, 4])
    # Its lists give the number of images.
    listed = tmp_path / "list.txt"
    listed.write_text(f"{tmp_path}/tree/v_a 5 0\n")
    assert run(tmp_path / "tree", tmp_path / "listed", "tsn", lists=(str(listed),)).exit_code == 0
    # Over longer steps dense_flow skips frames, so what is what cannot be told.
    assert run(tmp_path / "tree", tmp_path / "step", "tsn", step=2).exit_code == 1
    assert (
        "5 flows at step 2 have 7 frames, but there are 5; import with --no-rgb"
        in (failures(tmp_path / "step")["v_a"][1])
    )


def test_dense_flow_in_zips(tmp_path: Path) -> None:
    """extract_gpu -o zip: VIDEO/flow_x.zip with x_00001.jpg, flow_y.zip and img.zip."""
    folder = tmp_path / "tree/v_a"
    folder.mkdir(parents=True)
    for name, stream in (("flow_x", "x"), ("flow_y", "y"), ("img", "img")):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for t in range(NUM_FRAMES - 1):
                path = tmp_path / "image.jpg"
                if stream == "img":
                    write_frame(path, t + 1)
                else:
                    write_flow_image(path, t, stream)
                archive.write(path, f"{stream}_{t + 1:05d}.jpg")
    report = run(tmp_path / "tree", tmp_path / "out", "tsn")
    assert report.exit_code == 0
    assert_whole(tmp_path / "out")
    assert read(tmp_path / "out", "v_a") == ([1, 2, 3, 4, 5], [1, 2, 3, 4])
    assert "first-flow-dropped" in report.video_notes


@pytest.mark.parametrize("first_frame", [0, 1])
def test_denseflow_begins_at_zero(tmp_path: Path, first_frame: int) -> None:
    """open-mmlab/denseflow: CLASS/VIDEO/flow_x_00000.jpg. Frames are its own, or another tool's."""
    folder = tmp_path / "tree/clap/v 1"
    for t in range(NUM_FRAMES):
        write_frame(folder / f"img_{t + first_frame:05d}.jpg", t)
    for t in range(NUM_FRAMES - 1):
        for axis in "xy":
            write_flow_image(folder / f"flow_{axis}_{t:05d}.jpg", t, axis)
    done = tmp_path / "tree/.done/clap"
    done.mkdir(parents=True)
    (done / "v 1").touch()
    for layout in ("denseflow", "mmaction2"):
        report = run(tmp_path / "tree", tmp_path / layout, layout, bound_px=32.0)
        assert report.exit_code == 0
        assert_whole(tmp_path / layout)
        assert read(tmp_path / layout, "clap/v%201") == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4])
        assert ("numbers-differ" in report.video_notes) == (first_frame == 1)


def test_mmaction2_with_frames_from_one_and_names_without_flow(tmp_path: Path) -> None:
    """Rawframes of mmaction2's own data: x_00001.jpg, y_00001.jpg and img_00001.jpg."""
    folder = tmp_path / "tree/clap/v1"
    for t in range(NUM_FRAMES):
        write_frame(folder / f"img_{t + 1:05d}.jpg", t)
    for t in range(NUM_FRAMES - 1):
        for axis in "xy":
            write_flow_image(folder / f"{axis}_{t + 1:05d}.jpg", t, axis)
    assert run(tmp_path / "tree", tmp_path / "out").video_notes == {}
    assert read(tmp_path / "out", "clap/v1") == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("path", ["v_a", "run/v_a"])
@pytest.mark.parametrize(
    ("layout", "folders"),
    [("gpu-flow", ("u", "v", "jpegs_256")), ("gpu-flow-xy", ("x", "y", "rgb"))],
)
def test_gpu_flow(tmp_path: Path, layout: str, folders: tuple[str, str, str], path: str) -> None:
    """feichtenhofer/gpu_flow writes N frames and N - 1 flows, each as frame000001.jpg and so on;
    jeffreyyihuang's two-stream code reads it without class folders."""
    x, y, rgb = folders
    for t in range(NUM_FRAMES):
        write_frame(tmp_path / f"tree/{rgb}/{path}/frame{t + 1:06d}.jpg", t)
    for t in range(NUM_FRAMES - 1):
        write_flow_image(tmp_path / f"tree/{x}/{path}/frame{t + 1:06d}.jpg", t, "x")
        write_flow_image(tmp_path / f"tree/{y}/{path}/frame{t + 1:06d}.jpg", t, "y")
    assert run(tmp_path / "tree", tmp_path / "out", layout).exit_code == 0
    assert_whole(tmp_path / "out")
    assert read(tmp_path / "out", path) == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4])
    assert open_dataset(tmp_path / "out").class_names == (("run",) if "/" in path else ())


@pytest.mark.parametrize("top", ["", "flow/"])
def test_epic_kitchens(tmp_path: Path, top: str) -> None:
    """Archives of flow unpack to P01_01/u/frame_0000000001.jpg and P01_01/v/..., at half the rate
    of the frames, which are in other archives."""
    for t in range(NUM_FRAMES - 1):
        for axis, name in (("x", "u"), ("y", "v")):
            place = tmp_path / f"tree/{top}P01/P01_01/{name}"
            write_flow_image(place / f"frame_{t + 1:010d}.jpg", t, axis)
    assert run(tmp_path / "tree", tmp_path / "out", "epic-kitchens").exit_code == 0
    assert_whole(tmp_path / "out")
    assert read(tmp_path / "out", "P01/P01_01") == ([], [0, 1, 2, 3, 4])


def test_pytorch_i3d(tmp_path: Path) -> None:
    """Charades' archives: VID/VID-000001x.jpg, with frames below another root."""
    for t in range(NUM_FRAMES):
        write_frame(tmp_path / f"tree/rgb/0A8CF/0A8CF-{t + 1:06d}.jpg", t)
    for t in range(NUM_FRAMES - 1):
        for axis in "xy":
            write_flow_image(tmp_path / f"tree/flow/0A8CF/0A8CF-{t + 1:06d}{axis}.jpg", t, axis)
    assert run(tmp_path / "tree", tmp_path / "out", "pytorch-i3d").exit_code == 0
    assert read(tmp_path / "out", "0A8CF") == ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4])


def test_frames_and_flow_of_a_real_case_fit(test_data: Path, tmp_path: Path) -> None:
    """Frames from 1 beside flow from 0: warped by its flow, a frame becomes the next one."""
    for layout in ("mmaction2", "denseflow"):
        report = run(test_data / "cases/import_rgb1_flow0", tmp_path / layout, layout)
        assert report.exit_code == 0
        assert "numbers-differ" in report.video_notes
        dataset = open_dataset(tmp_path / layout)
        (video,) = dataset.videos
        flow = dataset.flow(video.key, 0, 8)
        jpegs = dataset.jpegs(video.key, "rgb", 0, 9)
        gray = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), 0) for jpeg in jpegs]
        estimator = create_estimator("farneback")
        own = [estimator(*pair) for pair in itertools.pairwise(gray)]
        errors = [
            sum(float(np.abs(flow[t] - own[t + shift]).mean()) for t in range(1, 7))
            for shift in (-1, 0, 1)
        ]
        assert errors[1] == min(errors)


# ---- an OUT without a video


def import_(tmp_path: Path, **options: object) -> ImportReport:
    return run(tmp_path / "tree", tmp_path / "out", **options)  # type: ignore[arg-type]


def test_an_import_that_stored_nothing_may_have_other_options(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3, "run/b": 4})
    report = import_(tmp_path, bound_px=20.0, directions=None, keep_rgb=True)
    assert (report.num_complete, report.num_failed) == (0, 2)
    listed = tmp_path / "list.txt"
    listed.write_text("run/a 3 1\nrun/b 4 0\n")
    # Labels, the bound and the streams are others now.
    report = import_(tmp_path, bound_px=32.0, lists=(str(listed),))
    assert (report.exit_code, report.num_complete, report.num_failed) == (0, 2, 0)
    assert report.notes == [
        f"{tmp_path}/out held no video yet, so it was begun anew with this command "
        "(RGB frames, --bound changed)"
    ]
    assert_whole(tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.config.flow.bound_px == 32
    assert [video.label for video in dataset.videos] == [1, 0]
    assert failures(tmp_path / "out") == {}
    # Now there are videos, and the options are those of the data set.
    with pytest.raises(ConfigMismatchError, match=r"--bound: 32.0 in the data set, 8.0 in"):
        import_(tmp_path, bound_px=8.0)
    with pytest.raises(ConfigMismatchError, match="RGB frames: --no-rgb in the data set, "):
        import_(tmp_path, bound_px=32.0, keep_rgb=True)


def test_one_stored_video_binds(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "tree", {"run/a": 3, "run/b": 4})
    (tmp_path / "tree/run/b/flow_x_00002.jpg").unlink()
    assert import_(tmp_path, videos_per_shard=1).num_complete == 1
    with pytest.raises(ConfigMismatchError):
        import_(tmp_path, bound_px=8.0)


def test_an_extract_that_stored_nothing_may_have_other_options(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"no video")
    config = ExtractConfig(
        DecodeSpec(resize=Resize("none", short_px=None)),
        FlowSpec("farneback"),
        EncodeSpec(("forward",), keep_rgb=False),
    )
    manifest = collect_videos(tmp_path / "videos")
    report = flowprep.extract(manifest, tmp_path / "out", config, executor="inline")
    assert report.num_failed == 1
    other = ExtractConfig(config.decode, FlowSpec("dis", bound_px=8), config.encode)
    scene = Scene(32, 24, (Layer(1, ()),))
    write_video(tmp_path / "videos/b.mp4", (scene.frame(t) for t in range(3)))
    manifest = collect_videos(tmp_path / "videos")
    report = flowprep.extract(manifest, tmp_path / "out", other, executor="inline")
    assert (report.num_complete, report.num_failed) == (1, 1)
    assert report.notes[0].startswith(f"{tmp_path}/out held no video yet, so it was begun anew")
    assert "flow.bound_px" in report.notes[0]
    assert_whole(tmp_path / "out")
    with pytest.raises(ConfigMismatchError):
        flowprep.extract(manifest, tmp_path / "out", config, executor="inline")
