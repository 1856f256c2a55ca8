"""Other formats than JPEGs in folders: what an export wrote comes back, and what others write."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from flowprep.config import FlowSpec
from flowprep.dataset.quantize import dequantize, quantize
from flowprep.dataset.read import open_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, DatasetError, InputError
from flowprep.exchange.exact_jpeg import encode_exactly
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.exchange.layouts import LAYOUTS
from tests.exchange import readers
from tests.exchange.test_import_tree import assert_whole, failures, run

PAIRS = [
    (name, file_format)
    for name in ("mmaction2", "denseflow")
    for file_format in LAYOUTS[name].formats
    if file_format != "jpg"
]


def field(seed: int, num_flows: int = 4, largest_px: float = 15.0) -> np.ndarray:
    """Smooth flow in px, (N, H, W, 2) float32."""
    random = np.random.default_rng(seed)
    small = random.uniform(-largest_px, largest_px, (num_flows, 2, 4, 5)).astype(np.float32)
    large = [[cv2.resize(plane, (42, 30)) for plane in pair] for pair in small]
    return np.moveaxis(np.array(large, np.float32), 1, 3)


def assert_close(found: np.ndarray, flow: np.ndarray, spec: FlowSpec) -> None:
    """Equal up to half a level and what a JPEG of quality 95 loses, a few levels."""
    wanted = np.clip(flow, -spec.bound_px, spec.bound_px)
    assert np.abs(found - wanted).max() < 10 * spec.px_per_level
    assert np.abs(found - wanted).mean() < spec.px_per_level


# ---- there and back


@pytest.mark.parametrize(("layout", "file_format"), PAIRS)
@pytest.mark.parametrize("source", ["made_once", "forward_only"])
def test_an_export_comes_back_with_equal_levels(
    request: pytest.FixtureRequest, tmp_path: Path, layout: str, file_format: str, source: str
) -> None:
    dataset = open_dataset(request.getfixturevalue(source))
    spec = ExportSpec(layout, format=file_format)
    export_dataset(dataset, tmp_path / "tree", spec, num_workers=1)
    report = run(tmp_path / "tree", tmp_path / "out", layout, bound_px=None)
    assert (report.exit_code, report.notes, report.video_notes) == (0, [], {})
    assert_whole(tmp_path / "out")
    after = open_dataset(tmp_path / "out")
    assert {video.key for video in after.videos} == {video.key for video in dataset.videos}
    assert after.class_names == dataset.class_names
    assert after.config.flow == dataset.config.flow
    for video in dataset.videos:
        found = after.videos[video.key]
        for name in ("labels", "split", "num_frames", "num_flows", "width", "height", "fps"):
            assert getattr(found, name) == getattr(video, name)
        np.testing.assert_array_equal(
            after.quantized(video.key, 0, video.num_flows),
            dataset.quantized(video.key, 0, video.num_flows),
        )
        if after.config.encode.keep_rgb:
            count = video.num_frames
            jpegs = (one.jpegs(video.key, "rgb", 0, count) for one in (after, dataset))
            assert next(jpegs) == next(jpegs)
    holds_rgb = file_format in ("zip", "webdataset") and dataset.config.encode.keep_rgb
    assert after.config.encode.keep_rgb == holds_rgb


@pytest.mark.parametrize("file_format", ["jpg", "npy", "webdataset"])
def test_original_names_come_back(tmp_path: Path, file_format: str) -> None:
    """HMDB51's `#20_...`, blanks, dots, dashes, per cents, and what is not ASCII."""
    names = ("#20_Rhythm_clap_u_nm_np1_fr_goo_0", "a b", "-abc", "v.1", "50% off", "caf\u00e9", "b")
    readers.write_tree(tmp_path / "plain", {f"class {n}/{name}": 2 for n, name in enumerate(names)})
    run(tmp_path / "plain", tmp_path / "before")
    before = open_dataset(tmp_path / "before")
    spec = ExportSpec("denseflow", format=file_format)
    export_dataset(before, tmp_path / "tree", spec, num_workers=1)
    if file_format == "jpg":
        kept = {path.name for path in (tmp_path / "tree").glob("*/*")}
        assert {"#20_Rhythm_clap_u_nm_np1_fr_goo_0", "-abc", "v.1", "caf\u00e9"} <= kept
    run(tmp_path / "tree", tmp_path / "after", "denseflow", bound_px=None)
    after = open_dataset(tmp_path / "after")
    assert {(v.key, v.labels) for v in after.videos} == {(v.key, v.labels) for v in before.videos}
    assert after.class_names == before.class_names


def test_the_lists_of_an_export_may_be_elsewhere(made_once: Path, tmp_path: Path) -> None:
    spec = ExportSpec("tsm", format="npz", lists=str(tmp_path / "far/lists"))
    export_dataset(made_once, tmp_path / "tree", spec, num_workers=1)
    with pytest.raises(ConfigError, match="bound_px must be given, because flow is clipped to it"):
        run(tmp_path / "tree", tmp_path / "out", "tsm", bound_px=None)
    with pytest.raises(InputError, match=r"lists must be the folder .* holds no flowprep\.json"):
        run(tmp_path / "tree", tmp_path / "out", "tsm", bound_px=None, export_lists=str(tmp_path))
    lists = str(tmp_path / "far/lists")
    report = run(tmp_path / "tree", tmp_path / "out", "tsm", bound_px=None, export_lists=lists)
    assert (report.exit_code, report.num_complete) == (0, 4)


@pytest.mark.parametrize("file_format", ["npy", "npz", "hdf5"])
def test_levels_and_backward_flow_come_back(
    made_once: Path, tmp_path: Path, file_format: str
) -> None:
    spec = ExportSpec("tsm", format=file_format, values="levels", direction="backward")
    export_dataset(made_once, tmp_path / "tree", spec, num_workers=1)
    run(tmp_path / "tree", tmp_path / "out", "tsm", bound_px=None)
    assert_whole(tmp_path / "out")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    assert after.config.encode.directions == ("backward",)
    for video in before.videos:
        levels = [
            one.quantized(video.key, 0, video.num_flows, "backward") for one in (before, after)
        ]
        np.testing.assert_array_equal(*levels)


def test_real_flow_comes_back_with_equal_levels(test_data: Path) -> None:
    video = cv2.VideoCapture(str(test_data / "clips/v_ApplyEyeMakeup_g01_c01.avi"))
    first, second = (cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(2))
    flow = cv2.DISOpticalFlow.create(1).calc(first, second, None)  # type: ignore[call-overload]
    # 240 rows are whole blocks, 317 columns are not.
    levels = quantize(flow[:, :317], FlowSpec(bound_px=20))
    num_plain = 0
    for axis in range(2):
        _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(levels[..., axis]), [1, 95])
        decoded = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED), np.uint8)
        again, num_changed = encode_exactly(decoded, 95)
        assert num_changed == 0
        found = cv2.imdecode(np.frombuffer(again, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, decoded)
        assert len(again) < 1.1 * len(jpeg)
        _, plain = cv2.imencode(".jpg", decoded, [1, 95])
        num_plain += int((cv2.imdecode(plain, cv2.IMREAD_UNCHANGED) != decoded).sum())
    assert num_plain > 100  # What encoding once more would change.


def test_levels_of_no_jpeg_are_counted_as_changed() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 24)).astype(np.uint8)
    jpeg, num_changed = encode_exactly(noise, 95)
    found = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_UNCHANGED)
    assert num_changed == (found != noise).sum() > 0


@pytest.mark.parametrize("quantizer", ["round", "floor", "centered"])
def test_every_level_comes_back_from_px(quantizer: str) -> None:
    spec = FlowSpec(bound_px=7.3, quantizer=quantizer)  # type: ignore[arg-type]
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(quantize(dequantize(levels, spec), spec), levels)


# ---- arrays of others


def write_flo(path: Path, flow: np.ndarray) -> None:
    """As flowIO.cpp writes it: tag, width, height, and u and v by turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = flow.shape[:2]
    size = np.array([width, height], "<i4").tobytes()
    path.write_bytes(b"PIEH" + size + flow.astype("<f4").tobytes())


def test_flo_files_of_others(tmp_path: Path) -> None:
    flow = field(1)
    flow[2, 3, 4] = 1.6e9  # unknown
    for t in range(4):
        write_flo(tmp_path / f"tree/run/a/frame_{t + 1:04d}.flo", flow[t])
    report = run(tmp_path / "tree", tmp_path / "out")
    assert report.exit_code == 0
    assert_whole(tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.class_names == ("run",)
    (video,) = dataset.videos
    assert (video.key, video.num_flows, video.num_frames) == ("run/a", 4, 5)
    flow[2, 3, 4] = 0
    flow[2, 2:5, 3:6] = found = dataset.flow("run/a", 0, 4)[2, 2:5, 3:6]  # ringing around it
    assert np.abs(found).max() < 20
    assert report.video_notes["flow-unknown"].num_videos == 1
    assert "flow-clipped" not in report.video_notes
    metadata = dataset.metadata("run/a").flow["forward"]
    assert metadata.num_invalid == 2
    (tmp_path / "tree/run/a/frame_0002.flo").unlink()
    run(tmp_path / "tree", tmp_path / "gap")
    assert failures(tmp_path / "gap")["run/a"] == (
        "incomplete",
        "frame_0003.flo follows frame_0001.flo: one is missing",
    )


def test_flow_beyond_the_bound_is_clipped_and_said(tmp_path: Path) -> None:
    flow = field(2, largest_px=30.0)
    (tmp_path / "tree").mkdir()
    np.save(tmp_path / "tree/a.npy", flow)
    report = run(tmp_path / "tree", tmp_path / "out", bound_px=12.0)
    dataset = open_dataset(tmp_path / "out")
    assert_close(dataset.flow("a", 0, 4), flow, FlowSpec(bound_px=12.0))
    share = 100 * (np.abs(flow) > 12).mean()
    text = report.video_notes["flow-clipped"].first_text
    assert text.startswith(f"{share:.1f} % of the values are beyond 12 px, up to ")
    assert float(text.split()[-2]) == pytest.approx(np.abs(flow).max(), abs=0.01)
    assert "--bound" in report.summary()
    assert dataset.metadata("a").flow["forward"].num_clipped == (np.abs(flow) > 12).sum()


@pytest.mark.parametrize("how", ["last", "second", "first", "batch", "half", "double"])
def test_arrays_may_have_their_axes_and_types(tmp_path: Path, how: str) -> None:
    flow = field(3)
    array = {
        "last": flow,
        "second": np.moveaxis(flow, 3, 1),
        "first": np.moveaxis(flow, 3, 0),
        "batch": flow[None],
        "half": flow.astype(np.float16),
        "double": np.asfortranarray(flow.astype(">f8")),
    }[how]
    (tmp_path / "tree").mkdir()
    np.save(tmp_path / "tree/a.npy", array)
    np.savez_compressed(tmp_path / "tree/b.npz", array)
    with h5py.File(tmp_path / "tree/c.h5", "w") as file:
        file["flow"] = array
        file["other"] = [1]
    for name, key in (("npy", "a"), ("npz", "b"), ("hdf5", "c")):
        report = run(tmp_path / "tree", tmp_path / name, format=name)
        assert (report.exit_code, report.notes) == (0, [])
        dataset = open_dataset(tmp_path / name)
        assert [video.key for video in dataset.videos] == [key]
        assert_close(dataset.flow(key, 0, 4), flow, FlowSpec())
    # One is taken, and that is said.
    report = run(tmp_path / "tree", tmp_path / "out")
    assert "1 npz, 1 hdf5 beside 1 npy, which were taken; give --format" in report.notes[0]


def test_arrays_of_kinetics_i3d(tmp_path: Path) -> None:
    """data/v_CricketShot_g04_c01_flow.npy of google-deepmind/kinetics-i3d is (1, N, 224, 224, 2)
    from -1 to 1, which stand for -20 and 20 px, beside the RGB array of the same video."""
    flow = field(4, largest_px=25.0)
    (tmp_path / "tree").mkdir()
    np.save(tmp_path / "tree/v_Cricket_g04_flow.npy", np.clip(flow, -20, 20)[None] / 20)
    np.save(tmp_path / "tree/v_Cricket_g04_rgb.npy", np.zeros((1, 4, 30, 42, 3), np.float32))
    report = run(tmp_path / "tree", tmp_path / "out", "pytorch-i3d", unit="bound")
    assert (report.exit_code, report.video_notes) == (0, {})
    dataset = open_dataset(tmp_path / "out")
    assert [video.key for video in dataset.videos] == ["v_Cricket_g04"]
    assert_close(dataset.flow("v_Cricket_g04", 0, 4), flow, FlowSpec())
    # As px, they would be a fraction of a level; that is asked.
    report = run(tmp_path / "tree", tmp_path / "wrong", "pytorch-i3d")
    assert "import to a new OUT with --unit bound" in report.summary()


def test_levels_of_others(tmp_path: Path) -> None:
    levels = quantize(field(5), FlowSpec())
    (tmp_path / "tree").mkdir()
    np.savez(tmp_path / "tree/a.npz", flow=levels, more=np.zeros(3))
    assert run(tmp_path / "tree", tmp_path / "out").exit_code == 0
    found = open_dataset(tmp_path / "out").quantized("a", 0, 4)
    assert np.abs(found.astype(int) - levels).max() < 5


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 9, 9, 3), np.float32), r"has the shape \(4, 9, 9, 3\)"),
        (np.zeros((0, 9, 9, 2), np.float32), r"has the shape \(0, 9, 9, 2\)"),
        (np.zeros((4, 9, 9, 2), np.int16), "holds int16; flow is floats, or levels of uint8"),
        (np.array([{"a": 1}], object), "cannot be read"),
        (b"\x93NUMPY\x01\x00\xff", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_other_arrays_are_failures_with_a_reason(
    tmp_path: Path, array: np.ndarray | bytes, message: str, ending: str
) -> None:
    (tmp_path / "tree").mkdir()
    path = tmp_path / f"tree/a.{ending}"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif ending == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, array)
    report = run(tmp_path / "tree", tmp_path / "out")
    assert report.exit_code == 1
    reason, text = failures(tmp_path / "out")["a"]
    assert reason == "unreadable"
    assert re.search(message, text), text


def test_hdf5_that_is_none_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.h5").write_bytes(b"none")
    with h5py.File(tmp_path / "tree/b.h5", "w") as file:
        file["u"], file["v"] = np.zeros((3, 9, 9)), np.zeros((3, 9, 9))
    run(tmp_path / "tree", tmp_path / "out")
    found = failures(tmp_path / "out")
    assert "a.h5 is not HDF5, or damaged" in found["a"][1]
    assert found["b"][1] == "b.h5 must hold one array, or one with the name flow; it holds u, v"


# ---- zips and tars


def zipped(source: Path, target: Path, arcnames: dict[str, str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, arcname in arcnames.items():
            archive.write(source / name, arcname)


def test_a_zip_for_each_video(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "plain", {"run/a": 3, "swim/b": 2}, rgb=True)
    run(tmp_path / "plain", tmp_path / "wanted")
    for key, inside in (("run/a", ""), ("swim/b", "b/")):
        names = sorted(path.name for path in (tmp_path / "plain" / key).iterdir())
        target = tmp_path / f"tree/{key}.zip"
        zipped(tmp_path / "plain" / key, target, {name: f"{inside}{name}" for name in names})
    report = run(tmp_path / "tree", tmp_path / "out")
    assert (report.exit_code, report.notes) == (0, [])
    assert_whole(tmp_path / "out")
    wanted, found = open_dataset(tmp_path / "wanted"), open_dataset(tmp_path / "out")
    assert found.class_names == wanted.class_names == ("run", "swim")
    for video in wanted.videos:
        for stream in ("flow_x", "flow_y", "rgb"):
            count = video.num_frames if stream == "rgb" else video.num_flows
            jpegs = [one.jpegs(video.key, stream, 0, count) for one in (wanted, found)]
            assert jpegs[0] == jpegs[1]


def test_a_damaged_zip_is_a_failure(tmp_path: Path) -> None:
    readers.write_tree(tmp_path / "plain", {"a": 3})
    names = sorted(path.name for path in (tmp_path / "plain/a").iterdir())
    whole = {name: name for name in names}
    zipped(tmp_path / "plain/a", tmp_path / "tree/good.zip", whole)
    zipped(tmp_path / "plain/a", tmp_path / "tree/cut.zip", whole)
    zipped(tmp_path / "plain/a", tmp_path / "tree/gap.zip", dict(list(whole.items())[1:]))
    data = bytearray((tmp_path / "tree/good.zip").read_bytes())
    (tmp_path / "tree/cut.zip").write_bytes(data[: len(data) // 2])
    data[60:90] = bytes(30)
    (tmp_path / "tree/changed.zip").write_bytes(data)
    report = run(tmp_path / "tree", tmp_path / "out")
    assert (report.num_complete, report.num_failed) == (1, 3)
    found = failures(tmp_path / "out")
    assert found["cut"][1].startswith("cut.zip is no zip")
    assert found["changed"][0] == "damaged"
    assert found["gap"][0] == "incomplete"


def test_samples_of_webdataset_say_what_they_are(made_once: Path, tmp_path: Path) -> None:
    spec = ExportSpec("mmaction2", format="webdataset", videos_per_shard=2)
    export_dataset(made_once, tmp_path / "tree", spec, num_workers=1)
    (tmp_path / "alone").mkdir()
    for tar in (tmp_path / "tree").glob("*.tar"):
        shutil.copy(tar, tmp_path / "alone")
    run(tmp_path / "alone", tmp_path / "out")
    before, after = open_dataset(made_once), open_dataset(tmp_path / "out")
    for video in before.videos:
        found = after.videos[video.key]
        assert (found.labels, found.split, found.fps) == (video.labels, video.split, video.fps)
        np.testing.assert_array_equal(
            after.quantized(video.key, 0, video.num_flows),
            before.quantized(video.key, 0, video.num_flows),
        )


def test_a_tar_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.tar").write_bytes(b"none")
    with pytest.raises(DatasetError, match=r"a\.tar cannot be read"):
        run(tmp_path / "tree", tmp_path / "out")
    with tarfile.open(tmp_path / "tree/a.tar", "w") as tar:
        info = tarfile.TarInfo("one.json")
        text = json.dumps(["no", "mapping"]).encode()
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    report = run(tmp_path / "tree", tmp_path / "out")
    assert failures(tmp_path / "out")["one"][0] == "missing"
    assert report.exit_code == 1


# ---- options


def test_options_that_do_not_fit_the_format_are_refused(made_once: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    np.save(tmp_path / "tree/a.npy", field(6))
    with pytest.raises(InputError, match="holds no flow in the format zip; check the folder"):
        run(tmp_path / "tree", tmp_path / "out", format="zip")
    with pytest.raises(ConfigError, match=r"rgb is not in arrays of flow \(npy\)"):
        run(tmp_path / "tree", tmp_path / "out", keep_rgb=True)
    with pytest.raises(ConfigError, match="directions must be one of forward, backward for npy"):
        run(
            tmp_path / "tree",
            tmp_path / "out",
            "denseflow",
            directions=("forward", "backward"),
        )
    readers.write_tree(tmp_path / "images", {"a": 3})
    with pytest.raises(ConfigError, match="unit must be px for jpg, which holds levels"):
        run(tmp_path / "images", tmp_path / "out", unit="bound")
    spec = ExportSpec("mmaction2", format="npy")
    export_dataset(made_once, tmp_path / "export", spec, num_workers=1)
    with pytest.raises(ConfigError, match=r"format must be npy, as .*flowprep\.json says, got npz"):
        run(tmp_path / "export", tmp_path / "out", bound_px=None, format="npz")
    with pytest.raises(ConfigError, match=r"unit must be px, as .*flowprep\.json says"):
        run(tmp_path / "export", tmp_path / "out", bound_px=None, unit="bound")
    assert not (tmp_path / "out").exists()


def test_processes_make_the_same_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(3):
        np.savez(tmp_path / f"tree/{number}.npz", field(number, num_flows=11))
    spec = ImportSpec(bound_px=20, videos_per_shard=2)
    import_tree(tmp_path / "tree", tmp_path / "one", spec, num_workers=1)
    import_tree(tmp_path / "tree", tmp_path / "two", spec, num_workers=2)
    tars = [sorted((tmp_path / name / "shards").glob("*.tar")) for name in ("one", "two")]
    assert [path.read_bytes() for path in tars[0]] == [path.read_bytes() for path in tars[1]]
    assert verify_dataset(tmp_path / "two", deep=True).problems == []
