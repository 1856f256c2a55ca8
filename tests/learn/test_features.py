"""Features: those of the network itself, of a data set and of raw videos alike."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import flowprep
from flowprep.config import DecodeSpec, ExtractConfig, FlowSpec, Resize, RunOptions
from flowprep.dataset.layout import read_failures
from flowprep.dataset.read import FlowDataset, open_dataset
from flowprep.errors import ConfigError, ConfigMismatchError, DatasetError, InputError, WeightsError
from flowprep.learn.checkpoint import Checkpoint, restore_model, save_checkpoint
from flowprep.learn.clips.clip import load_views
from flowprep.learn.clips.transforms import Crop
from flowprep.learn.clips.transforms import test_crops as view_crops
from flowprep.learn.config import ClipSpec
from flowprep.learn.create import create_model
from flowprep.learn.features import (
    FeatureReport,
    FeatureSpec,
    VideoFeatures,
    extract_features,
    open_features,
)
from flowprep.learn.forward import arrange_clips
from flowprep.learn.placement import place_model
from flowprep.learn.weights.files import save_weights
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.learn.small import FLOW, RGB, make_checkpoint
from tests.torch_devices import one_thread
from tests.video.test_damage import end_a_picture

__all__ = ["one_thread"]

QUIET = RunOptions(executor="inline", progress=False)
BIDIRECTIONAL = ClipSpec("flow", 4, stack="bidirectional", crop_px=32)
VOLUME = ClipSpec("flow", 8, crop_px=32)
SEGMENTS = ClipSpec("rgb", 1, num_segments=3, crop_px=32)


@pytest.fixture(scope="module")
def dataset(motion: Path) -> FlowDataset:
    return open_dataset(motion)


@pytest.fixture(scope="module")
def folder(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the videos, with their class folders, and checkpoints for them."""
    root = tmp_path_factory.mktemp("features")
    data = open_dataset(motion)
    for place in (0, 9, 17):
        key = data.videos[place].key
        path = root / "videos" / f"{key}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((motion.parent / "videos" / f"{key}.mp4").read_bytes())
    for name, checkpoint in (
        ("flow", make_checkpoint(data)),
        ("rgb", make_checkpoint(data, clip=RGB)),
    ):
        save_checkpoint(root / f"{name}.pt", checkpoint)
    return root


def make(
    videos: object, to: Path, spec: FeatureSpec | None = None, **options: Any
) -> dict[str, VideoFeatures]:
    """Makes features without a worker, and reads them."""
    report = extract_features(
        videos,  # type: ignore[arg-type]
        to,
        spec,
        **{"num_loaders": 0, "options": QUIET, "executor": "inline"} | options,
    )
    assert report.is_complete, report.summary()
    return {video.key: video for video in open_features(to)}


def own_features(
    dataset: FlowDataset, key: str, checkpoint: Checkpoint, starts: Sequence[int], crops: list[Crop]
) -> NDArray[np.float32]:
    """The network's own features of clips that begin at these frames, pooled; no code shared with
    the command but the clip maker's."""
    model, clip = restore_model(checkpoint), checkpoint.config.clip
    # As in a test: other layouts in memory round differently.
    place_model(model, torch.device("cpu"))
    video = dataset.videos[key]
    (one,) = model.inputs
    clips = [
        load_views(dataset, video, start + np.arange(one.num_frames), crops, clip, one)
        for start in starts
    ]
    # In one pass, because convolutions round otherwise for another number of clips.
    views = torch.from_numpy(np.concatenate(clips)).unsqueeze(1)
    with torch.inference_mode():
        features = model.extract_features(*arrange_clips(model, [views]))
    if model.joins_segments:
        features = features[:, 0]
    pooled = features.flatten(2).mean(2) if features.dim() > 2 else features
    return pooled.view(len(starts), len(crops), -1).mean(1).numpy()


def write_clip(
    path: Path, num_frames: int, *, width: int = 64, height: int = 48, codec: str = "libx264"
) -> None:
    """Writes a video at 10 frames per second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = action_scene(
        "move_left", num_frames=num_frames, width=width, height=height, seed=num_frames
    )
    pixels = "yuv420p" if codec == "libx264" else "yuvj420p"
    frames = map(scene.frame, range(num_frames))
    write_video(path, frames, 10, codec=codec, pixel_format=pixels)


def tree(folder: Path) -> dict[str, bytes]:
    """All files of features by name, without logs and what holds the folder for a run."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: str(path.relative_to(folder)) for path in paths}
    return {
        name: path.read_bytes()
        for path, name in names.items()
        if not name.startswith(("logs/", ".lease", ".lock"))
    }


# ---- the numbers


@pytest.mark.parametrize(
    ("model", "clip"),
    [
        ("resnet18", FLOW),
        ("resnet18", RGB),
        ("resnet18", BIDIRECTIONAL),
        ("tsn-resnet18", SEGMENTS),
        ("i3d", VOLUME),
    ],
)
def test_features_are_those_of_the_network(
    folder: Path, dataset: FlowDataset, tmp_path: Path, model: str, clip: ClipSpec
) -> None:
    checkpoint = make_checkpoint(dataset, clip=clip, model=model)
    save_checkpoint(tmp_path / "one.pt", checkpoint)
    spec = FeatureSpec(stride=2)
    stored = make(dataset, tmp_path / "stored", spec, checkpoint=tmp_path / "one.pt")
    raw = make(folder / "videos", tmp_path / "raw", spec, checkpoint=tmp_path / "one.pt")
    assert len(raw) == 3
    assert len(stored) == len(dataset.videos)
    for key, video in raw.items():
        starts = video.frames[:, 0].tolist()
        own = own_features(dataset, key, checkpoint, starts, view_crops(64, 48, clip, 1))
        (features,) = video.features.values()
        assert list(video.features) == [clip.stream]
        np.testing.assert_allclose(features, own, rtol=0, atol=1e-5)
        assert np.ptp(own, axis=0).max() > 1e-3
        np.testing.assert_array_equal(features, stored[key].features[clip.stream])
        # 14 frames, and 13 fields at 25 frames per second.
        last = (14 if clip.stream == "rgb" else 13) - clip.num_frames
        assert starts == list(range(0, last + 1, 2))
        np.testing.assert_array_equal(video.start_seconds, np.array(starts) / 25)
        np.testing.assert_allclose(video.end_seconds, (np.array(starts) + clip.num_frames) / 25)


def test_networks_of_several_lengths_share_their_windows(
    folder: Path, dataset: FlowDataset, tmp_path: Path
) -> None:
    checkpoints = [folder / "flow.pt", folder / "rgb.pt"]
    both = make(folder / "videos", tmp_path / "both", checkpoint=checkpoints)
    flow = make(folder / "videos", tmp_path / "flow", checkpoint=folder / "flow.pt")
    rgb = make(folder / "videos", tmp_path / "rgb", checkpoint=folder / "rgb.pt")
    for key, video in both.items():
        assert list(video.features) == ["rgb", "flow"]
        np.testing.assert_array_equal(video.features["flow"], flow[key].features["flow"])
        # Three fields last from frame 0 to 3, and the frame in their middle is 1.
        picks = video.frames[:, 0] + 1
        np.testing.assert_array_equal(video.features["rgb"], rgb[key].features["rgb"][picks])


def test_times_and_gaps_of_a_folder_of_images(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "images/clip"
    place.mkdir(parents=True)
    scene = action_scene("move_left", num_frames=9, width=64, height=48)
    for number in (1, 2, 3, 4, 7, 8, 9):
        cv2.imwrite(str(place / f"img_{number:05d}.png"), scene.frame(number - 1))
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    found = make(tmp_path / "images", tmp_path / "f", decode={"on_gaps": "ignore"}, **options)
    (video,) = found.values()
    assert (video.num_windows, video.num_frames, video.fps) == (2, 7, None)
    assert np.isnan([*video.start_seconds, *video.end_seconds]).all()
    (note,) = video.notes
    assert note.startswith("image numbers are missing, and the images were used as if")
    assert "between img_00004.png and img_00007.png" in note
    timed = {"on_gaps": "ignore", "image_fps": 2}
    found = make(tmp_path / "images", tmp_path / "g", decode=timed, **options)
    assert found[video.key].end_seconds.tolist() == [1.5, 3]


def test_crops(folder: Path, dataset: FlowDataset, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(dataset)
    for crops, boxes in (
        ("ten", view_crops(64, 48, FLOW, 10)),
        ("whole", [Crop(0, 0, 64, 48)]),
    ):
        spec = FeatureSpec(crops=crops)  # type: ignore[arg-type]
        found = make(folder / "videos", tmp_path / crops, spec, checkpoint=folder / "flow.pt")
        for key, video in found.items():
            own = own_features(dataset, key, checkpoint, video.frames[:, 0].tolist(), boxes)
            np.testing.assert_allclose(video.features["flow"], own, rtol=0, atol=1e-5)


def test_layers_and_maps(folder: Path, dataset: FlowDataset, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(dataset)
    model = restore_model(checkpoint)
    place_model(model, torch.device("cpu"))
    key = dataset.videos[0].key
    views = load_views(
        dataset, dataset.videos[0], range(3), view_crops(64, 48, FLOW, 1), FLOW, model.inputs[0]
    )
    kept: list[torch.Tensor] = []
    model.get_submodule("layer3").register_forward_hook(lambda *call: kept.append(call[2]))
    with torch.inference_mode():
        model(*arrange_clips(model, [torch.from_numpy(views).unsqueeze(1)]))
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    maps = make(
        folder / "videos", tmp_path / "maps", FeatureSpec(layer="layer3", maps=True), **options
    )
    own = kept[0][0].numpy()
    assert own.ndim == 3
    np.testing.assert_allclose(maps[key].features["flow"][0], own, rtol=0, atol=1e-5)
    pooled = make(folder / "videos", tmp_path / "pooled", FeatureSpec(layer="layer3"), **options)
    np.testing.assert_allclose(pooled[key].features["flow"][0], own.mean((1, 2)), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match=r"layer must be pool or one of .*layer3.*'layer33'.*did"):
        make(folder / "videos", tmp_path / "no", FeatureSpec(layer="layer33"), **options)


# ---- windows at the ends


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 3, 8 and 9 frames in a folder; windows of FLOW have 3 fields."""
    root = tmp_path_factory.mktemp("ends")
    for number in (3, 8, 9):
        write_clip(root / f"n{number}.mp4", number)
    return root


def test_short_videos_and_tails(folder: Path, ends: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    drop = make(ends, tmp_path / "drop", FeatureSpec(stride=2), **options)
    last = make(ends, tmp_path / "last", FeatureSpec(stride=2, tail="last"), **options)
    # 2, 7 and 8 fields.
    assert drop["n3"].frames.tolist() == last["n3"].frames.tolist() == [[0, 3]]
    assert drop["n8"].frames[:, 0].tolist() == last["n8"].frames[:, 0].tolist() == [0, 2, 4]
    assert drop["n9"].frames[:, 0].tolist() == [0, 2, 4]
    assert last["n9"].frames[:, 0].tolist() == [0, 2, 4, 5]
    assert drop["n3"].notes == (
        "the video has 3 frames, and a window needs 4; the only window repeats the video from its "
        "beginning",
    )
    assert drop["n8"].notes == last["n8"].notes == last["n9"].notes == ()
    assert drop["n9"].notes == ("no window holds the last 1 frame of the video",)
    np.testing.assert_array_equal(drop["n9"].features["flow"], last["n9"].features["flow"][:3])
    np.testing.assert_allclose(last["n9"].end_seconds, [0.3, 0.5, 0.7, 0.8])


def test_windows_further_apart_than_they_are_long(folder: Path, ends: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    dense = make(ends, tmp_path / "dense", FeatureSpec(stride=1), **options)
    sparse = make(ends, tmp_path / "sparse", FeatureSpec(stride=5), **options)
    assert sparse["n9"].frames[:, 0].tolist() == [0, 5]
    np.testing.assert_array_equal(
        sparse["n9"].features["flow"], dense["n9"].features["flow"][[0, 5]]
    )


def test_a_damaged_video(folder: Path, ends: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos/cut.avi", 60, codec="mjpeg")
    data = (tmp_path / "videos/cut.avi").read_bytes()
    (tmp_path / "videos/cut.avi").write_bytes(end_a_picture(data))
    (tmp_path / "videos/good.mp4").write_bytes((ends / "n9.mp4").read_bytes())
    (tmp_path / "videos/text.mp4").write_text("no video")
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt", "options": QUIET}
    report = extract_features(tmp_path / "videos", tmp_path / "f", executor="inline", **options)
    assert (report.num_done, report.num_failed, report.exit_code) == (1, 2, 1)
    failures = read_failures(Storage(tmp_path / "f"))
    assert set(failures) == {"cut", "text"}
    assert [video.key for video in open_features(tmp_path / "f")] == ["good"]
    assert "2 videos, listed in failures.jsonl" in report.summary()
    # They are not tried again, unless asked for.
    again = extract_features(tmp_path / "videos", tmp_path / "f", executor="inline", **options)
    assert (again.num_done, again.num_done_before, again.num_failed_before) == (0, 1, 2)
    retried = dataclasses.replace(QUIET, retry_failed=True)
    kept = extract_features(
        tmp_path / "videos",
        tmp_path / "f",
        executor="inline",
        decode={"on_damage": "cut"},
        **options | {"options": retried},
    )
    assert (kept.num_done, kept.num_failed) == (1, 1)
    (video,) = (one for one in open_features(tmp_path / "f") if one.key == "cut")
    assert 0 < video.num_frames < 60
    assert video.frames.max() <= video.num_frames
    assert any(note.startswith("the video is damaged; the windows are") for note in video.notes)
    assert "the windows end before the damage (first cut" in kept.summary()
    concealed = extract_features(
        tmp_path / "videos/cut.avi",
        tmp_path / "concealed",
        executor="inline",
        decode={"on_damage": "conceal"},
        **options,
    )
    (video,) = open_features(tmp_path / "concealed")
    assert (concealed.num_done, video.num_frames) == (1, 60)
    assert any(note.startswith("damaged pictures were kept") for note in video.notes)


# ---- files


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, VideoFeatures]:
    """The features of both streams, as .npy files in `plain` of the folder."""
    checkpoints = [folder / "flow.pt", folder / "rgb.pt"]
    return make(folder / "videos", folder / "plain", checkpoint=checkpoints)


@pytest.mark.parametrize("axes", ["tc", "ct"])
@pytest.mark.parametrize("format", ["npy", "h5", "webdataset"])
def test_every_format_is_read_as_it_was_made(
    folder: Path, plain: dict[str, VideoFeatures], tmp_path: Path, format: str, axes: str
) -> None:
    checkpoints = [folder / "flow.pt", folder / "rgb.pt"]
    for joined in (False, True):
        to = tmp_path / f"{joined}"
        spec = FeatureSpec(format=format, axes=axes, joined=joined)  # type: ignore[arg-type]
        found = make(folder / "videos", to, spec, checkpoint=checkpoints)
        assert list(found) == sorted(plain)
        for key, video in found.items():
            for name in ("start_seconds", "end_seconds", "frames", "labels", "split", "notes"):
                np.testing.assert_array_equal(getattr(video, name), getattr(plain[key], name))
            assert list(video.features) == ["rgb", "flow"]
            for stream, array in video.features.items():
                np.testing.assert_array_equal(array, plain[key].features[stream])
        opened = open_features(to)
        assert opened.class_names == tuple(sorted({key.partition("/")[0] for key in plain}))
        assert opened.keys() == sorted(plain)
        assert opened.streams == ("rgb", "flow")
        before = tree(to)
        again = extract_features(
            folder / "videos",
            to,
            spec,
            checkpoint=checkpoints,
            executor="inline",
            options=QUIET,
        )
        assert (again.num_done, again.num_done_before) == (0, 3)
        assert tree(to) == before
        assert not (to / ".parts").exists()


def test_files_are_what_other_tools_read(
    folder: Path, plain: dict[str, VideoFeatures], tmp_path: Path
) -> None:
    checkpoints = [folder / "flow.pt", folder / "rgb.pt"]
    key, video = next(iter(plain.items()))
    count, channels = video.num_windows, 32
    # video_features' names (utils/utils.py, make_path), and its times in ms.
    assert np.load(folder / f"plain/{key}_rgb.npy").shape == (count, channels)
    assert np.load(folder / f"plain/{key}_flow.npy").shape == (count, channels)
    assert float(np.load(folder / f"plain/{key}_fps.npy")) == 25
    times = np.load(folder / f"plain/{key}_timestamps_ms.npy")
    np.testing.assert_allclose(times, video.end_seconds * 1000)
    # MS-TCN: np.load(features_path + vid + ".npy"), and frames along the second axis.
    spec = FeatureSpec(axes="ct", joined=True)
    make(folder / "videos", tmp_path / "ct", spec, checkpoint=checkpoints)
    joined = np.load(tmp_path / f"ct/{key}.npy")
    assert joined.shape == (2 * channels, count)
    np.testing.assert_array_equal(joined[:channels].T, video.features["rgb"])
    make(folder / "videos", tmp_path / "h5", FeatureSpec(format="h5"), checkpoint=checkpoints)
    with h5py.File(tmp_path / "h5/features.h5") as file:
        np.testing.assert_array_equal(file[key]["flow"], video.features["flow"])
        np.testing.assert_array_equal(file[key]["end_seconds"], video.end_seconds)
    spec = FeatureSpec(format="webdataset")
    make(folder / "videos", tmp_path / "tar", spec, checkpoint=checkpoints)
    with tarfile.open(tmp_path / "tar/features-000000.tar") as tar:
        names = tar.getnames()
    assert names[:3] == [f"{key}.json", f"{key}.rgb.npy", f"{key}.flow.npy"]


def test_videos_are_added_and_a_damaged_file_is_said(
    folder: Path, ends: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    for format in ("npy", "h5", "webdataset"):
        spec = FeatureSpec(format=format)  # type: ignore[arg-type]
        to = tmp_path / format
        make(ends / "n9.mp4", to, spec, **options)
        make([ends / "n3.mp4", ends / "n8.mp4"], to, spec, **options)
        assert open_features(to).keys() == ["n3", "n8", "n9"]
        victim = next(
            path
            for name in ("n3_flow.npy", "features.h5", "features-000001.tar")
            if (path := to / name).exists()
        )
        victim.write_bytes(victim.read_bytes()[:200])
        with pytest.raises(DatasetError, match="is damaged, or not features of flowprep"):
            list(open_features(to))
    with pytest.raises(DatasetError, match="no features at"):
        open_features(tmp_path)


def test_a_run_with_other_options_is_refused(folder: Path, ends: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    make(ends, tmp_path / "f", **options)
    with pytest.raises(ConfigMismatchError, match=r"stride: 3 in features.json, 2 in this run"):
        make(ends, tmp_path / "f", FeatureSpec(stride=2), **options)
    with pytest.raises(ConfigMismatchError, match=r"networks\.flow\.model: resnet18 in feat"):
        make(ends, tmp_path / "f", checkpoint=folder / "rgb.pt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/n9.mp4").write_bytes((ends / "n8.mp4").read_bytes())
    with pytest.raises(InputError, match=r"holds features of n9 from .*/ends0/n9\.mp4, and this"):
        make(tmp_path / "other", tmp_path / "f", **options)


# ---- networks


def test_foreign_weights_of_both_streams(folder: Path, ends: Path, tmp_path: Path) -> None:
    models = {}
    for seed, stream in enumerate(("flow", "rgb")):
        torch.manual_seed(seed)
        models[stream] = create_model("i3d", stream=stream, num_classes=7, num_frames=8)  # type: ignore[arg-type]
        save_weights(models[stream], tmp_path / f"{stream}.safetensors")
    config = ExtractConfig(DecodeSpec(resize=Resize.parse("none")), FlowSpec("dis"))
    given: dict[str, Any] = {
        "model": "i3d",
        "weights": [tmp_path / "flow.safetensors", tmp_path / "rgb.safetensors"],
        "stream": "both",
        "clip": {"crop_px": 32},
        "config": config,
    }
    spec = FeatureSpec(window=8, stride=4)
    # By a recipe, they saw other data.
    with pytest.raises(ConfigMismatchError, match="not like the data of recipe i3d, by which the"):
        make(ends / "n9.mp4", tmp_path / "e", spec, recipe="i3d", **given)
    found = make(ends / "n9.mp4", tmp_path / "f", spec, **given)
    video = found["n9"]
    assert {name: array.shape for name, array in video.features.items()} == {
        "rgb": (1, 1024),
        "flow": (1, 1024),
    }
    flowprep.extract(ends / "n9.mp4", tmp_path / "data", config, options=QUIET, executor="inline")
    data = open_dataset(tmp_path / "data")
    for stream, model in models.items():
        clip = ClipSpec(stream, 8, crop_px=32)  # type: ignore[arg-type]
        (one,) = model.inputs
        views = load_views(data, data.videos[0], range(8), view_crops(64, 48, clip, 1), clip, one)
        with torch.inference_mode():
            own = model.eval().extract_features(torch.from_numpy(views)).flatten(2).mean(2)
        np.testing.assert_allclose(video.features[stream], own.numpy(), rtol=0, atol=1e-5)
    with pytest.raises(WeightsError, match="holds weights for RGB, and stream flow needs others"):
        make(
            ends,
            tmp_path / "g",
            FeatureSpec(window=8),
            model="i3d",
            weights=tmp_path / "rgb.safetensors",
            stream="flow",
            clip={"crop_px": 32},
        )


def test_options_that_do_not_fit(folder: Path, motion: Path, tmp_path: Path) -> None:
    flow: dict[str, Any] = {"checkpoint": folder / "flow.pt"}
    videos = folder / "videos"
    for message, data, spec, options in (
        ("checkpoint must be given, or a model", videos, None, {}),
        ("weights and a model need each other, got i3d alone", videos, None, {"model": "i3d"}),
        (
            "stream must be that of a checkpoint, flow, got rgb",
            videos,
            None,
            flow | {"stream": "rgb"},
        ),
        ("stream both needs checkpoints of flow and", videos, None, flow | {"stream": "both"}),
        (
            "checkpoint must be one for each stream",
            videos,
            None,
            {"checkpoint": 2 * [folder / "flow.pt"]},
        ),
        ("window must be the length of the networks' clips", videos, FeatureSpec(window=64), flow),
        ("config is for foreign weights", videos, None, flow | {"config": ExtractConfig()}),
        ("crop_px is for foreign weights", videos, None, flow | {"clip": {"crop_px": 32}}),
        ("labels are those", videos, None, flow | {"labels": "x"}),
        ("keep_dataset is for raw videos", motion, None, flow | {"keep_dataset": tmp_path / "k"}),
        ("stream must be given for weights", videos, None, {"model": "i3d", "weights": "x"}),
    ):
        with pytest.raises(ConfigError, match=message):
            make(data, tmp_path / "f", spec, **options)
    assert not (tmp_path / "f").exists()
    with pytest.raises(ConfigError, match="stride must be at least 1, got 0"):
        FeatureSpec(stride=0)


def test_frames_that_are_too_small_fail_alone(
    folder: Path, ends: Path, dataset: FlowDataset, tmp_path: Path
) -> None:
    wide = ClipSpec("flow", 3, crop_px=56)
    save_checkpoint(tmp_path / "wide.pt", make_checkpoint(dataset, clip=wide))
    write_clip(tmp_path / "v/large.mp4", 9, width=96, height=80)
    (tmp_path / "v/small.mp4").write_bytes((ends / "n9.mp4").read_bytes())
    options: dict[str, Any] = {
        "checkpoint": tmp_path / "wide.pt",
        "options": QUIET,
        "executor": "inline",
        "num_loaders": 0,
    }
    config = dataset.config
    flowprep.extract(tmp_path / "v", tmp_path / "data", config, options=QUIET, executor="inline")
    for name, videos in (("raw", tmp_path / "v"), ("stored", tmp_path / "data")):
        report = extract_features(videos, tmp_path / name, **options)
        assert (report.num_done, report.num_failed) == (1, 1)
        (failure,) = read_failures(Storage(tmp_path / name)).values()
        assert (failure.key, failure.reason) == ("small", "too-small")
        assert (
            "crop_px must be <= the short side of the frames, got 56 for 64x48" in failure.message
        )


def test_a_damaged_data_set_fails_video_by_video(
    folder: Path, motion: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    for path in motion.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(motion)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(motion)).write_bytes(path.read_bytes())
    data = open_dataset(copy)
    victim = data.videos[3]
    shard = copy / f"shards/{victim.shard:06d}.tar"
    content = bytearray(shard.read_bytes())
    begin, length = victim.members["flow_x"]
    content[begin : begin + length] = bytes(length)
    shard.write_bytes(content)
    report = extract_features(
        copy, tmp_path / "f", checkpoint=folder / "flow.pt", num_loaders=0, options=QUIET
    )
    assert (report.num_done, report.num_failed) == (len(data.videos) - 1, 1)
    assert set(read_failures(Storage(tmp_path / "f"))) == {victim.key}


def test_the_data_set_may_be_kept(folder: Path, ends: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": [folder / "flow.pt", folder / "rgb.pt"]}
    kept = make(ends, tmp_path / "kept", keep_dataset=tmp_path / "data", **options)
    raw = make(ends, tmp_path / "raw", **options)
    assert [video.key for video in open_dataset(tmp_path / "data").videos] == ["n3", "n8", "n9"]
    for key, video in raw.items():
        for stream, array in video.features.items():
            np.testing.assert_array_equal(array, kept[key].features[stream])


def test_the_report_and_the_configuration(folder: Path, ends: Path, tmp_path: Path) -> None:
    report: FeatureReport = extract_features(
        ends, tmp_path / "f", checkpoint=folder / "flow.pt", executor="inline", options=QUIET
    )
    assert report.summary().splitlines()[0] == (
        f"complete: features of 3 of 3 videos in {tmp_path / 'f'}"
    )
    assert "1 video: shorter than a window" in report.summary()
    content = json.loads((tmp_path / "f/features.json").read_text())
    assert content["config"]["window"] == content["config"]["stride"] == 3
    assert content["config"]["extract"]["flow"]["algorithm"] == "dis"
    assert content["config"]["networks"]["flow"]["clip"]["crop_px"] == 32
