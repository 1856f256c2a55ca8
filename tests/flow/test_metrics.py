"""Measures against numbers computed by hand, and both file formats against their definitions."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowprep.errors import ConfigError, InputError
from flowprep.flow import create_estimator
from flowprep.flow.files import read_flow, write_flow
from flowprep.flow.metrics import (
    angular_error,
    endpoint_error,
    find_flow_pairs,
    score_files,
    score_flow,
    total_score,
)


def field(*vectors: tuple[float, float]) -> np.ndarray:
    return np.array([vectors], np.float32)


# ---- measures


def test_endpoint_errors_of_known_offsets() -> None:
    truth = np.random.default_rng(0).normal(0, 5, (6, 7, 2))
    assert endpoint_error(truth, truth).tolist() == np.zeros((6, 7)).tolist()
    assert np.allclose(endpoint_error(truth + np.array([3, -4]), truth), 5)


def test_angular_errors_by_hand() -> None:
    flow = field((0, 0), (1, 0), (0, 0), (1, 0), (2, 1))
    truth = field((0, 0), (1, 0), (1, 0), (-1, 0), (2, 1))
    # (0, 0, 1) to (1, 0, 1) is 45 degrees, (1, 0, 1) to (-1, 0, 1) is 90.
    assert angular_error(flow, truth)[0].tolist() == pytest.approx([0, 0, 45, 90, 0], abs=1e-12)


def test_angles_are_those_of_middlebury() -> None:
    rng = np.random.default_rng(1)
    flow, truth = rng.normal(0, 4, (2, 50, 2))
    product = (flow * truth).sum(-1) + 1
    lengths = np.sqrt((flow**2).sum(-1) + 1) * np.sqrt((truth**2).sum(-1) + 1)
    assert np.allclose(angular_error(flow, truth), np.degrees(np.arccos(product / lengths)))


def test_an_outlier_is_off_by_3_px_and_by_5_percent() -> None:
    #        3.1 of 10: both    2.9 of 10: one    4 of 100: one   6 of 100: both   4 of 0: both
    truth = field((10, 0), (10, 0), (100, 0), (100, 0), (0, 0))
    flow = field((13.1, 0), (12.9, 0), (104, 0), (106, 0), (0, 4))
    score = score_flow(flow, truth)
    assert (score.num_outliers, score.fl_all) == (3, 0.6)
    assert score.epe_px == pytest.approx((3.1 + 2.9 + 4 + 6 + 4) / 5, rel=1e-6)


def test_only_what_is_known_in_both_is_scored() -> None:
    truth = field((1, 0), (1, 0), (1, 0), (1, 0))
    flow = field((1, 0), (np.nan, 0), (50, 0), (2, 0))
    truth_known = np.array([[True, True, False, True]])
    score = score_flow(flow, truth, truth_known=truth_known)
    assert (score.num_pixels, score.num_true, score.num_scored) == (4, 3, 2)
    assert (score.epe_px, score.valid_share, score.density) == (0.5, 0.5, 2 / 3)
    nothing = score_flow(flow, truth, known=np.zeros((1, 4), bool))
    assert math.isnan(nothing.epe_px)
    assert nothing.to_dict()["epe_px"] is None


def test_a_total_is_over_pixels() -> None:
    one = score_flow(field((1, 0)), field((0, 0)))
    other = score_flow(field((4, 0), (4, 0), (4, 0)), field((0, 0), (0, 0), (0, 0)))
    total = total_score([one, other])
    assert (total.epe_px, total.fl_all, total.num_scored) == (13 / 4, 0.75, 4)


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"a.flo must have the size of its truth, 3x1, got 2x1"):
        score_flow(field((0, 0), (0, 0)), field((0, 0), (0, 0), (0, 0)), name="a.flo")


@pytest.mark.parametrize(("algorithm", "epe_px"), [("tvl1", 0.156), ("farneback", 0.361)])
def test_rubber_whale(test_data: Path, tmp_path: Path, algorithm: str, epe_px: float) -> None:
    whale = test_data / "groundtruth" / "RubberWhale"
    prev, following = (
        np.asarray(cv2.imread(str(whale / name), cv2.IMREAD_GRAYSCALE), np.uint8)
        for name in ("frame10.png", "frame11.png")
    )
    write_flow(tmp_path / "flow10.flo", create_estimator(algorithm)(prev, following))
    score = score_files(tmp_path / "flow10.flo", whale / "flow10.flo")
    assert score.epe_px == pytest.approx(epe_px, abs=0.001)
    assert 0.9 < score.valid_share < 1
    assert score.density == 1


# ---- files


def test_a_flo_is_what_the_specification_says(tmp_path: Path) -> None:
    data = struct.pack("<f", 202021.25) + struct.pack("<ii", 2, 1)
    data += struct.pack("<ffff", 1.5, -2.25, 1.7e9, 1.7e9)
    assert data[:4] == b"PIEH"
    (tmp_path / "a.flo").write_bytes(data)
    flow, known = read_flow(tmp_path / "a.flo")
    assert flow.tolist() == [[[1.5, -2.25], [0, 0]]]
    assert known.tolist() == [[True, False]]
    write_flow(tmp_path / "b.flo", flow, known)
    again = (tmp_path / "b.flo").read_bytes()
    assert again[:20] == data[:20]
    assert min(struct.unpack("<ff", again[20:])) > 1e9


def test_a_kitti_png_is_what_the_specification_says(tmp_path: Path) -> None:
    rgb = np.array([[[32768 + 96, 32768 - 64, 1], [0, 0, 0]]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    flow, known = read_flow(tmp_path / "a.png")
    assert flow.tolist() == [[[1.5, -1], [0, 0]]]
    assert known.tolist() == [[True, False]]
    write_flow(tmp_path / "b.png", flow, known)
    stored = cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    assert np.array_equal(stored[..., ::-1], rgb)


@pytest.mark.parametrize(("suffix", "error_px"), [("flo", 0), ("png", 1 / 128)])
def test_files_give_back_what_was_written(tmp_path: Path, suffix: str, error_px: float) -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 60, (13, 21, 2)).astype(np.float32)
    known = rng.random((13, 21)) < 0.8
    flow[2, 3] = np.nan
    known[2, 3] = True
    path = tmp_path / f"f.{suffix.upper()}"
    write_flow(path, flow, known)
    again, again_known = read_flow(path)
    known[2, 3] = False
    assert np.array_equal(again_known, known)
    assert np.abs(again - flow)[known].max() <= error_px
    assert not again[~known].any()
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_opencv_reads_our_flo_and_we_read_its_own(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(0, 9, (5, 8, 2)).astype(np.float32)
    write_flow(tmp_path / "ours.flo", flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "ours.flo")), flow)
    assert cv2.writeOpticalFlow(str(tmp_path / "its.flo"), flow)
    assert np.array_equal(read_flow(tmp_path / "its.flo")[0], flow)


def broken_files() -> dict[str, tuple[str, bytes, str]]:
    whole = struct.pack("<fii", 202021.25, 2, 1) + bytes(16)
    png = cv2.imencode(".png", np.ones((9, 9, 3), np.uint16))[1].tobytes()
    gray = cv2.imencode(".png", np.ones((9, 9), np.uint8))[1].tobytes()
    return {
        "empty flo": (".flo", b"", "is cut: a .flo begins with 12 B, it has 0"),
        "other magic": (
            ".flo",
            bytes(28),
            "is not a .flo file: it must begin with 202021.25, got 0",
        ),
        "cut": (".flo", whole[:-1], "is cut: 2x1 px take 28 B, it has 27"),
        "too long": (".flo", whole + b"x", "is too long: 2x1 px take 28 B, it has 29"),
        "no side": (
            ".flo",
            struct.pack("<fii", 202021.25, 0, 1),
            "sides must be from 1 to 99999 px, got 0x1",
        ),
        "negative": (".flo", struct.pack("<fii", 202021.25, -2, -1) + bytes(16), "got -2x-1"),
        "empty png": (".png", b"", "is cut off, damaged or not a PNG"),
        "text": (".png", b"no picture", "is cut off, damaged or not a PNG"),
        "damaged png": (".png", png[:50] + b"?" + png[51:], "is cut off, damaged or not a PNG"),
        "cut png": (".png", png[:-20], "is cut off, damaged or not a PNG"),
        "a frame": (".png", gray, "it must be 16-bit RGB, got 8-bit of 1 channel"),
    }


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_is_said_to_be(tmp_path: Path, name: str) -> None:
    suffix, data, message = broken_files()[name]
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        read_flow(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    flow = np.zeros((2, 3, 2), np.float32)
    with pytest.raises(InputError, match=r"nowhere.flo cannot be read: No such file"):
        read_flow(tmp_path / "nowhere.flo")
    with pytest.raises(InputError, match=r"must end in .flo or .png, got .*flow.npy"):
        read_flow(tmp_path / "flow.npy")
    with pytest.raises(ConfigError, match=r"flow must be \(H, W, 2\) and not empty, got shape"):
        write_flow(tmp_path / "a.flo", flow[0])
    with pytest.raises(ConfigError, match=r"known must be \(2, 3\) as the flow is, got \(3, 2\)"):
        write_flow(tmp_path / "a.flo", flow, np.ones((3, 2), bool))
    with pytest.raises(ConfigError, match=r"holds flow from -511.98 to 511.98 px, got 600.00"):
        write_flow(tmp_path / "a.png", flow + 600)
    write_flow(tmp_path / "a.png", flow + 600, np.zeros((2, 3), bool))


# ---- folders


def test_folders_are_paired_by_name_and_formats_may_mix(tmp_path: Path) -> None:
    flow = np.ones((2, 3, 2), np.float32)
    for name in ("est/a.flo", "est/deep/b.flo", "est/only.flo", "true/a.png", "true/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_flow(tmp_path / name, flow)
    # Beside .flo, a PNG is a picture.
    (tmp_path / "est/a.png").write_bytes(b"a frame")
    pairs = find_flow_pairs(tmp_path / "est", tmp_path / "true")
    assert [name for name, *_ in pairs] == ["a", "deep/b"]
    assert [path.suffix for _, *both in pairs for path in both] == [".flo", ".png"] * 2
    (tmp_path / "est/a.flo").unlink()
    with pytest.raises(InputError, match=r"must have an estimate for each truth .* none for a$"):
        find_flow_pairs(tmp_path / "est", tmp_path / "true")


def test_what_cannot_be_paired(tmp_path: Path) -> None:
    write_flow(tmp_path / "a.flo", np.ones((2, 3, 2), np.float32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="TRUTH does not exist"):
        find_flow_pairs(tmp_path / "a.flo", tmp_path / "b.flo")
    with pytest.raises(InputError, match="two files or two folders, got a file and a folder"):
        find_flow_pairs(tmp_path / "a.flo", tmp_path)
    with pytest.raises(InputError, match=r"empty holds no .flo or .png file"):
        find_flow_pairs(tmp_path, tmp_path / "empty")
