"""Damage: a video fails, is kept up to the damage, or goes on as the decoder conceals it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, ExtractConfig, FlowSpec, RunOptions
from flowprep.config import OnDamage, Resize
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, VideoError
from flowprep.inputs.video import Video
from flowprep.look.findings.checks import find_in_statistics
from flowprep.look.findings.statistics import describe_video
from flowprep.run.status import read_status
from flowprep.synthetic import action_scene, write_video
from flowprep.video.decode import open_video
from tests.video.test_clock import ffmpeg_count

NUM_FRAMES = 40


def scratch(data: bytes, begin: float, num_bytes: int) -> bytes:
    """Returns the file with random bytes from a share of its length on."""
    place = int(begin * len(data))
    noise = np.random.default_rng(0).bytes(num_bytes)
    return data[:place] + noise + data[place + num_bytes :]


def end_a_picture(data: bytes) -> bytes:
    """Returns an AVI file in which one JPEG ends half-way."""
    begin = data.index(b"\xff\xda", len(data) // 2) + 60
    return data[:begin] + b"\xff\xd9" + bytes(200) + data[begin + 202 :]


DAMAGE: dict[str, tuple[str, list[str], Callable[[bytes], bytes]]] = {
    # a name: suffix, encoder, what happens to the bytes
    "h264 scratched": (".mp4", ["libx264", "-g", "10"], lambda data: scratch(data, 0.5, 300)),
    "mpeg2 scratched": (".ts", ["mpeg2video"], lambda data: scratch(data, 0.5, 2000)),
    "mjpeg cut": (".avi", ["mjpeg"], lambda data: end_a_picture(data)),
    "mp4 cut": (".mp4", ["libx264", "-movflags", "+faststart"], lambda data: data[:-3000]),
    "avi cut": (".avi", ["mpeg4"], lambda data: data[: len(data) // 2]),
}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> Path:
    """A folder of damaged videos of 40 frames, and a sound one."""
    folder = tmp_path_factory.mktemp("damaged")
    scene = action_scene("move_left", num_frames=NUM_FRAMES, width=96, height=64)
    write_video(folder / "sound.mp4", (scene.frame(t) for t in range(NUM_FRAMES)))
    for name, (suffix, encoder, harm) in DAMAGE.items():
        path = folder / f"{name.replace(' ', '-')}{suffix}"
        command = [ffmpeg, "-v", "error", "-i", str(folder / "sound.mp4"), "-c:v", *encoder]
        subprocess.run([*command, str(path)], check=True)
        path.write_bytes(harm(path.read_bytes()))
    return folder


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '-')}{DAMAGE[name][0]}"


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_fails_unless_it_is_concealed(name: str, damaged: Path) -> None:
    with (
        pytest.raises(VideoError) as caught,
        open_video(Video("key", str(path_of(damaged, name))), DecodeSpec()) as reader,
    ):
        list(reader)
    assert caught.value.reason == "damaged"
    assert 0 < caught.value.num_frames < NUM_FRAMES


@pytest.mark.parametrize("name", DAMAGE)
def test_concealed_damage_gives_the_frames_that_ffmpeg_gives(
    name: str, damaged: Path, ffmpeg: str
) -> None:
    path = path_of(damaged, name)
    with open_video(Video("key", str(path)), DecodeSpec(on_damage="conceal")) as reader:
        frames = list(reader)
        assert reader.num_damaged > 0
        assert "edit-list" not in reader.notes
    assert len(frames) == ffmpeg_count(path, ffmpeg)


def test_a_sound_video_is_the_same_under_all_three(damaged: Path) -> None:
    choices: tuple[OnDamage, ...] = ("fail", "cut", "conceal")
    found = []
    for choice in choices:
        video = Video("key", str(damaged / "sound.mp4"))
        with open_video(video, DecodeSpec(on_damage=choice)) as reader:
            found.append(b"".join(frame.rgb.tobytes() for frame in reader))
            assert (reader.num_damaged, reader.notes) == (0, {})
    assert found[0] == found[1] == found[2]


def test_decord_conceals_nothing() -> None:
    with pytest.raises(ConfigError, match="on_damage conceal needs decoder pyav, got decord"):
        DecodeSpec(decoder="decord", on_damage="conceal")


def test_concealed_videos_are_complete_and_counted_everywhere(
    damaged: Path, tmp_path: Path
) -> None:
    decode = DecodeSpec(resize=Resize.parse("none"), on_damage="conceal")
    config = ExtractConfig(decode, FlowSpec("dis"))
    options = RunOptions(progress=False)
    report = flowprep.extract(damaged, tmp_path / "out", config, executor="inline", options=options)
    num_damaged = len(DAMAGE)
    assert (report.num_complete, report.num_concealed) == (num_damaged + 1, num_damaged)
    assert report.video_notes["concealed"].num_videos == num_damaged
    assert f"note          {num_damaged} videos: damaged pictures were kept" in report.summary()
    found = verify_dataset(tmp_path / "out", deep=True)
    assert (found.problems, found.num_concealed) == ([], num_damaged)
    assert read_status(tmp_path / "out").num_concealed == num_damaged
    assert describe_dataset(tmp_path / "out").num_concealed == num_damaged
    dataset = flowprep.open_dataset(tmp_path / "out")
    for video in dataset.videos:
        metadata = dataset.metadata(video.key)
        kinds = [one.kind for one in find_in_statistics(describe_video(metadata, config))]
        assert ("concealed" in kinds) == (metadata.num_damaged > 0) == (video.key != "sound")


def test_fail_and_cut_share_a_data_set_and_conceal_does_not(damaged: Path, tmp_path: Path) -> None:
    def run(choice: OnDamage, **options: bool) -> flowprep.RunReport:
        decode = DecodeSpec(resize=Resize.parse("none"), on_damage=choice)
        config = ExtractConfig(decode, FlowSpec("dis"))
        settings = RunOptions(progress=False, **options)  # type: ignore[arg-type]
        path = path_of(damaged, "h264 scratched")
        return flowprep.extract(path, tmp_path / "out", config, executor="inline", options=settings)

    assert run("fail").num_failed == 1
    report = run("cut", retry_failed=True)
    assert (report.num_partial, report.num_failed) == (1, 0)
    with pytest.raises(
        flowprep.FlowprepError,
        match=r"decode\.on_damage: fail in the data set, conceal in this run",
    ):
        run("conceal")


def test_the_damaged_case(test_data: Path, ffmpeg: str, tmp_path: Path) -> None:
    path = test_data / "cases" / "damaged_middle.mp4"
    found = {}
    for choice in ("fail", "cut", "conceal"):
        decode = DecodeSpec(resize=Resize.parse("none"), on_damage=choice)  # type: ignore[arg-type]
        config = ExtractConfig(decode, FlowSpec("dis"))
        out = tmp_path / choice
        flowprep.extract(path, out, config, executor="inline", options=RunOptions(progress=False))
        lines = (out / "failures.jsonl").read_text().splitlines()
        failures = [json.loads(line)["reason"] for line in lines]
        found[choice] = failures or [
            video.num_frames for video in flowprep.open_dataset(out).videos
        ]
    assert found == {"fail": ["damaged"], "cut": [18], "conceal": [42]}
