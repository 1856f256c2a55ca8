"""`--camera-motion` on the whole way: what is stored, refused and said, and that it is the same."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

import flowprep
from flowprep import ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep.config import DecodeSpec, EncodeSpec, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.metadata import VideoMetadata
from flowprep.dataset.verify import verify_dataset
from flowprep.dataset.verify_video import _check_homographies
from flowprep.differences import find_extraction_differences, flatten
from flowprep.errors import ConfigError, ConfigMismatchError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.flow import create_estimator
from flowprep.flow.homography import IDENTITY
from flowprep.flow.stabilized import StabilizedPairs
from flowprep.run.flow_streams import FlowStreams, flow_between
from flowprep.synthetic import camera_scene, write_video
from flowprep.video.types import Frame
from tests.flow.scenes import gray

PLAIN = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"), EncodeSpec(videos_per_shard=2)
)
WARPED = dataclasses.replace(PLAIN, flow=FlowSpec("dis", camera_motion="homography"))


def run(videos: Path, out: Path, config: ExtractConfig = WARPED, segment_frames: int = 0) -> Path:
    options = RunOptions(progress=False, segment_frames=segment_frames)
    report = flowprep.extract(videos, out, config, executor="inline", options=options)
    assert report.num_failed == 0
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moving camera, one that stands still, a cut and a black video."""
    folder = tmp_path_factory.mktemp("videos")
    for camera in ("all", "still"):
        scene = camera_scene(camera, seed=1)
        write_video(folder / f"{camera}.mp4", map(scene.frame, range(9)))
    scenes = camera_scene("pan", seed=2), camera_scene("zoom", seed=3)
    write_video(folder / "cut.mp4", (scenes[t > 2].frame(t) for t in range(6)))
    write_video(folder / "black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 4)
    return folder


@pytest.fixture(scope="module")
def warped(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(videos, tmp_path_factory.mktemp("warped") / "out")


@pytest.fixture(scope="module")
def plain(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(videos, tmp_path_factory.mktemp("plain") / "out", PLAIN)


def test_the_homography_of_each_pair_is_stored(warped: Path) -> None:
    assert verify_dataset(warped, deep=True).problems == []
    dataset = open_dataset(warped)
    found = dataset.homographies("all")
    assert found is not None
    assert found.shape == (8, 3, 3)
    scene = camera_scene("all", seed=1)
    center = np.array([160.0, 120.0, 1.0])
    for t, matrix in enumerate(found):
        one, other = matrix @ center, scene.camera_matrix(t) @ center
        np.testing.assert_allclose(one[:2] / one[2], other[:2] / other[2], atol=0.2)
    still = dataset.metadata("still").homographies
    assert still == [IDENTITY] * 8
    assert "camera_motion" in dataset.metadata("all").config["flow"]  # type: ignore[index]


def test_the_description_says_it(warped: Path, plain: Path) -> None:
    line = "  camera      its motion is taken out"
    assert line in describe_dataset(warped).summary().splitlines()
    assert line not in describe_dataset(plain).summary().splitlines()


def test_a_note_counts_the_pairs_that_are_left_plain(warped: Path) -> None:
    dataset = open_dataset(warped)
    wanted = {
        "black": {"camera-unknown": "3 of 3 pairs without enough matches"},
        "cut": {"camera-unknown": "1 of 5 pairs without enough matches"},
        "all": {},
        "still": {},
    }
    assert {video.key: dataset.metadata(video).notes for video in dataset} == wanted
    records = [
        video
        for path in warped.glob("shards/*.json")
        for video in json.loads(path.read_bytes())["videos"]
    ]
    assert {one["key"]: one.get("notes", {}) for one in records} == wanted
    matrices = dataset.homographies("cut")
    assert matrices is not None
    assert np.isnan(matrices).all(axis=(1, 2)).tolist() == [False, False, True, False, False]


def test_flow_is_that_of_the_actors(warped: Path, plain: Path) -> None:
    own = camera_scene("all", seed=1).own_flow(3)
    errors = [
        np.linalg.norm(open_dataset(out).flow("all", 3, 1)[0] - own, axis=-1).mean()
        for out in (warped, plain)
    ]
    assert errors[0] < 0.3 * errors[1]


def test_flow_of_a_camera_that_stands_still_is_the_plain_one(warped: Path, plain: Path) -> None:
    one, other = open_dataset(warped), open_dataset(plain)
    for key in ("still", "black"):
        for stream in ("flow_x", "flow_y", "back_x", "back_y", "rgb"):
            assert one.jpegs(key, stream) == other.jpegs(key, stream)


def test_without_it_nothing_of_it_is_stored(plain: Path) -> None:
    dataset = open_dataset(plain)
    assert dataset.homographies("all") is None
    for content in (plain.joinpath("dataset.json").read_bytes(), _key_json(plain, "all")):
        assert b"camera" not in content
        assert b"homograph" not in content


def _key_json(out: Path, key: str) -> bytes:
    for path in out.glob("shards/*.tar"):
        with tarfile.open(path) as tar:
            if f"{key}.json" in tar.getnames():
                member = tar.extractfile(f"{key}.json")
                assert member is not None
                return member.read()
    raise AssertionError(key)


@pytest.mark.parametrize(
    ("flow", "encode"), [({}, {}), ({"step": 2}, {"directions": ("backward",), "keep_rgb": False})]
)
def test_segments_give_the_same_bytes(
    flow: dict[str, int], encode: dict[str, object], videos: Path, tmp_path: Path
) -> None:
    config = dataclasses.replace(
        WARPED,
        flow=dataclasses.replace(WARPED.flow, **flow),  # type: ignore[arg-type]
        encode=EncodeSpec(**encode),  # type: ignore[arg-type]
    )
    for name in ("all", "cut"):
        outs = [tmp_path / f"{name}-{number}" for number in (0, 1)]
        for segment_frames, out in enumerate(outs):
            run(videos / f"{name}.mp4", out, config, segment_frames)
        logs = "".join(path.read_text() for path in outs[1].glob("logs/*.log"))
        assert "cut into" in logs
        shards = [(out / "shards/000000.tar").read_bytes() for out in outs]
        assert shards[0] == shards[1]


def test_another_choice_is_refused_with_both_values(
    videos: Path, warped: Path, plain: Path
) -> None:
    for out, config, words in (
        (warped, PLAIN, "flow.camera_motion: homography in the data set, none in this run"),
        (plain, WARPED, "flow.camera_motion: none in the data set, homography in this run"),
    ):
        with pytest.raises(ConfigMismatchError) as caught:
            run(videos, out, config)
        assert words in str(caught.value)
    run(videos, warped)


def test_a_network_trained_on_one_flow_refuses_the_other() -> None:
    values = [flatten(config.to_dict()) for config in (PLAIN, WARPED)]
    assert find_extraction_differences(values[0], values[1], sees_flow=True) == {
        "flow.camera_motion": ("none", "homography")
    }
    assert find_extraction_differences(values[0], values[1], sees_flow=False) == {}


def test_the_choice_survives_storing() -> None:
    for config in (PLAIN, WARPED):
        assert ExtractConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="camera_motion must be one of none, homography"):
        FlowSpec(camera_motion="affine")  # type: ignore[arg-type]


def test_lost_homographies_are_problems(warped: Path) -> None:
    metadata = open_dataset(warped).metadata("all")
    assert _check_homographies(metadata, WARPED) == []
    (said,) = _check_homographies(metadata, PLAIN)
    assert "dataset.json says that the flow has camera_motion none" in said
    short = msgspec.structs.replace(metadata, homographies=[None])
    assert _check_homographies(short, WARPED) == ["it has 1 homographies for 8 flows"]
    lost = msgspec.structs.replace(metadata, homographies=msgspec.UNSET)
    (said,) = _check_homographies(lost, WARPED)
    assert said.startswith("it has no homographies")
    values = metadata.to_dict()
    for wrong in ([1, 0, 0, 0, 1, 0, 0, 0, 2], [1.0] * 8, ["a"] * 9):
        with pytest.raises(ValueError, match="homographies"):
            VideoMetadata.from_json(json.dumps(values | {"homographies": [wrong]}).encode())


def test_an_exported_tree_is_imported_as_warped_flow(warped: Path, tmp_path: Path) -> None:
    export_dataset(warped, tmp_path / "frames", ExportSpec(), num_workers=1)
    import_tree(tmp_path / "frames", tmp_path / "back", ImportSpec(), num_workers=1)
    assert verify_dataset(tmp_path / "back").problems == []
    back, first = open_dataset(tmp_path / "back"), open_dataset(warped)
    assert back.config.flow.camera_motion == "homography"
    for key in ("all", "cut"):
        assert back.metadata(key).homographies == first.metadata(key).homographies


# ---- one pair, and estimators on a device


def pictures(camera: str, num_frames: int) -> list[Frame]:
    scene = camera_scene(camera, seed=1)
    return [Frame(rgb, gray(rgb), 0.0) for rgb in map(scene.frame, range(num_frames))]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_one_pair_is_that_of_the_streams(direction: flowprep.config.Direction) -> None:
    first, last = pictures("all", 2)
    estimator = create_estimator("dis")
    stabilized = StabilizedPairs(step=1, directions=(direction,))
    (pair,) = stabilized.pairs(estimator, [first.gray, last.gray])
    np.testing.assert_array_equal(
        flow_between(estimator, WARPED.flow, first, last, direction), getattr(pair, direction)
    )


def test_fields_on_a_device_are_stored_alike() -> None:
    pytest.importorskip("torch")
    from tests.flow.torch_copying import CopyingTorch

    stored = []
    for is_far in (False, True):
        estimator = CopyingTorch(device="cpu")
        estimator.reduces_fields = is_far
        streams = FlowStreams(
            dataclasses.replace(WARPED.flow, bound_px=300.0), EncodeSpec(), estimator
        )
        streams.compute(pictures("zoom", 4))
        assert len(streams.homographies or ()) == 3
        stored.append({name: one.rewound().read() for name, one in streams.streams.items()})
        streams.close()
    assert stored[0] == stored[1]
