"""Differences of flows that are known: by an offset, by an algorithm, by nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flowprep
from flowprep.config import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, Resize
from flowprep.errors import ConfigError, InputError, StorageError, VideoError
from flowprep.flow.metrics import endpoint_error
from flowprep.look.compare import compare_algorithms, compare_datasets
from flowprep.synthetic import action_scene, write_video

NUM_FRAMES = 7
DIS = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
FARNEBACK = dataclasses.replace(DIS, flow=FlowSpec("farneback"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "videos"
    folder.mkdir()
    for seed, action in enumerate(("move_left", "zoom_in", "rotate_clockwise")):
        scene = action_scene(action, num_frames=NUM_FRAMES, width=64, height=48, seed=seed)
        write_video(folder / f"{action}.mp4", (scene.frame(t) for t in range(NUM_FRAMES)))
    return folder


@pytest.fixture(scope="module")
def dis(videos: Path) -> Path:
    return extracted(videos, "dis", DIS)


@pytest.fixture(scope="module")
def farneback(videos: Path) -> Path:
    return extracted(videos, "farneback", FARNEBACK)


def extracted(videos: Path, name: str, config: ExtractConfig) -> Path:
    out = videos.parent / name
    assert flowprep.extract(videos, out, config, executor="inline").is_complete
    return out


def test_a_data_set_is_no_way_from_itself(dis: Path) -> None:
    found = compare_datasets(dis, dis)
    assert found.differing == {}
    assert found.only_in == ((), ())
    total = found.total
    assert (total.num_fields, total.mean_px, total.p99_px, total.max_px) == (18, 0, 0, 0)
    assert (total.equal_share, total.within_one_share) == (1, 1)


def test_statistics_are_those_of_all_fields(dis: Path, farneback: Path) -> None:
    found = compare_datasets(dis, farneback, num_sampled=None)
    assert list(found.videos) == ["move_left", "rotate_clockwise", "zoom_in"]
    assert found.differing == {
        "flow.algorithm": ("dis", "farneback"),
        "implementation": (
            flowprep.open_dataset(dis).header.implementation,
            flowprep.open_dataset(farneback).header.implementation,
        ),
    }
    one, other = flowprep.open_dataset(dis), flowprep.open_dataset(farneback)
    errors, equal = [], []
    for key, statistics in found.videos.items():
        a, b = (x.flow(key, 0, NUM_FRAMES - 1) for x in (one, other))
        error = endpoint_error(a, b)
        errors.append(error)
        p, q = (x.quantized(key, 0, NUM_FRAMES - 1).astype(int) for x in (one, other))
        equal.append(np.abs(p - q))
        assert statistics.mean_px == pytest.approx(error.mean())
        assert statistics.max_px == pytest.approx(error.max())
        for share, value in ((0.5, "median_px"), (0.9, "p90_px"), (0.99, "p99_px")):
            assert getattr(statistics, value) == pytest.approx(np.quantile(error, share), abs=0.011)
    assert found.total.mean_px == pytest.approx(np.mean(errors))
    assert found.total.equal_share == pytest.approx((np.stack(equal) == 0).mean())
    assert found.total.within_one_share == pytest.approx((np.stack(equal) <= 1).mean())
    assert found.total.num_fields == 3 * (NUM_FRAMES - 1)
    means = np.stack(errors).mean(axis=(2, 3))
    assert found.worst[0].mean_px == pytest.approx(means.max())
    assert len(found.worst) == 8
    ranked = [one.mean_px for one in found.worst]
    assert ranked == pytest.approx(sorted(means.ravel(), reverse=True)[:8])


def test_a_sample_is_spread_over_the_video(dis: Path, farneback: Path) -> None:
    found = compare_datasets(dis, farneback, num_sampled=2, num_worst=99)
    assert found.total.num_fields == 6
    assert {one.index for one in found.worst} == {1, 4}
    one = compare_datasets(dis, farneback, num_sampled=1, direction="backward")
    assert {worst.index for worst in one.worst} == {3}


def test_levels_that_mean_different_things_are_not_compared(videos: Path, dis: Path) -> None:
    wider = dataclasses.replace(DIS, flow=FlowSpec("dis", bound_px=30))
    found = compare_datasets(dis, extracted(videos, "wider", wider))
    assert found.total.equal_share is None
    assert found.differing == {"flow.bound_px": (20.0, 30.0)}
    (note,) = found.notes
    assert "A has bound 20 px and quantizer round and B has bound 30 px" in note
    # The same flow, but for half a level of each and the JPEGs.
    assert found.total.mean_px < 0.2
    assert "flow.bound_px  20.0 | 30" in found.summary()
    assert "equal" not in found.summary()


def test_videos_that_only_one_has_are_named(videos: Path, dis: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(videos / "zoom_in.mp4", folder / "zoom_in.mp4")
    shutil.copy(videos / "zoom_in.mp4", folder / "other.mp4")
    flowprep.extract(folder, tmp_path / "out", DIS, executor="inline")
    found = compare_datasets(dis, tmp_path / "out")
    assert found.only_in == (("move_left", "rotate_clockwise"), ("other",))
    assert found.total.mean_px == 0
    assert "only in A: 2 videos: move_left, rotate_clockwise" in found.summary()
    assert "only in B: 1 video: other" in found.summary()
    (folder / "zoom_in.mp4").unlink()
    flowprep.extract(folder, tmp_path / "strange", DIS, executor="inline")
    with pytest.raises(InputError, match=r"must have a video in common, got none: move_left, rot"):
        compare_datasets(dis, tmp_path / "strange")


def test_another_size_step_or_direction_is_refused(videos: Path, dis: Path) -> None:
    smaller = dataclasses.replace(DIS, decode=DecodeSpec(resize=Resize.parse("32x24")))
    with pytest.raises(
        InputError, match=r"move_left must have the same size .* 64x48 in .* 32x24 in"
    ):
        compare_datasets(dis, extracted(videos, "smaller", smaller))
    two = dataclasses.replace(DIS, flow=FlowSpec("dis", step=2))
    with pytest.raises(
        InputError, match=r"both must have the same step, got 1 in .* and 2 in .*two"
    ):
        compare_datasets(dis, extracted(videos, "two", two))
    forward = dataclasses.replace(DIS, encode=EncodeSpec(directions=("forward",), keep_rgb=False))
    with pytest.raises(ConfigError, match=r"has only forward, got backward"):
        compare_datasets(dis, extracted(videos, "forward", forward), direction="backward")


def test_the_worst_are_drawn(dis: Path, farneback: Path, tmp_path: Path) -> None:
    found = compare_datasets(dis, farneback, num_worst=3)
    paths = found.write_pictures(tmp_path / "made" / "worst")
    assert [path.name for path in paths] == [
        f"{number:02d}-{one.key}-{one.index:06d}.png" for number, one in enumerate(found.worst, 1)
    ]
    for path in paths:
        with Image.open(path) as image:
            # Four panels of 64x48 px, each enlarged four times.
            assert image.size == (2 * 14 + 4 * 256 + 3 * 12, image.height)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file cannot be made"):
        found.write_pictures(tmp_path / "file")


def test_a_comparison_is_json(dis: Path, farneback: Path) -> None:
    values = json.loads(json.dumps(compare_datasets(dis, farneback).to_dict()))
    assert values["all"]["num_fields"] == 18
    assert set(values["videos"]) == {"move_left", "rotate_clockwise", "zoom_in"}
    assert len(values["worst"]) == 8


# ---- algorithms on one video


def test_two_algorithms_are_compared_before_anything_is_stored(videos: Path) -> None:
    video = videos / "zoom_in.mp4"
    same = compare_algorithms(video, (DIS, DIS), num_sampled=None)
    assert (same.total.mean_px, same.total.equal_share) == (0, 1)
    assert same.total.num_fields == NUM_FRAMES - 1
    found = compare_algorithms(video, (DIS, FARNEBACK), num_sampled=2)
    assert (found.total.num_fields, {one.index for one in found.worst}) == (2, {1, 4})
    assert 0 < found.total.mean_px < 1
    frame, flow, other = found.worst[0].read()
    assert frame is not None
    assert frame.shape == (48, 64, 3)
    assert endpoint_error(flow, other).mean() == pytest.approx(found.worst[0].mean_px)
    assert found.differing == {"flow.algorithm": ("dis", "farneback")}


def test_what_cannot_be_compared(videos: Path, dis: Path) -> None:
    video = videos / "zoom_in.mp4"
    with pytest.raises(ConfigError, match="num_sampled must be >= 1, got 0"):
        compare_datasets(dis, dis, num_sampled=0)
    with pytest.raises(ConfigError, match="num_worst must be >= 1, got 0"):
        compare_datasets(dis, dis, num_worst=0)
    two = dataclasses.replace(DIS, flow=FlowSpec("dis", step=2))
    with pytest.raises(ConfigError, match="the same decoding and the same step"):
        compare_algorithms(video, (DIS, two))
    far = dataclasses.replace(DIS, flow=FlowSpec("dis", step=50))
    with pytest.raises(VideoError, match=r"zoom_in.mp4 must have a pair of frames at step 50"):
        compare_algorithms(video, (far, far))
    with pytest.raises(VideoError, match=r"nowhere.mp4: the file does not exist"):
        compare_algorithms("nowhere.mp4", (DIS, DIS))
