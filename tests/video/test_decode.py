"""Decoding against ffmpeg itself, on real files and on files made here."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from flowprep.config import DecodeSpec, Resize
from flowprep.errors import VideoError
from flowprep.inputs.video import Video
from flowprep.video import decord_reader
from flowprep.video.decode import DECODERS, open_video, probe_video
from flowprep.video.reader import target_size
from flowprep.video.types import Frame

NATIVE = Resize.parse("none")
ODD_GOOD = {  # name: (frames, width, height, rotation)
    "-video-with-dash-.mp4": (5, 1, 1, 0),
    "av1.mkv": (125, 640, 360, 0),
    "h264_10bits.mp4": (30, 200, 200, 0),
    "one_frame.mp4": (1, 320, 240, 0),
    "rotated_video.mp4": (44, 480, 640, 90),
    "video_0.mov": (3, 568, 320, 0),
    "video_90.mov": (3, 320, 568, 90),
    "video_180.mov": (3, 568, 320, 180),
    "video_270.mov": (3, 320, 568, 270),
}
ODD_BAD = {
    "audio_only.mp4": ("no-video-stream", "only sound"),
    "not_a_video.mp4": ("unreadable", "Invalid data"),
}


def spec(decoder: str = "pyav", fps: float | None = None, resize: Resize = NATIVE) -> DecodeSpec:
    return DecodeSpec(decoder=decoder, fps=fps, resize=resize)  # type: ignore[arg-type]


def read(path: Path | str, options: DecodeSpec | None = None, **video: float) -> list[Frame]:
    with open_video(Video("key", str(path), **video), options or spec()) as reader:  # type: ignore[arg-type]
        return list(reader)


def failure(path: Path | str, options: DecodeSpec | None = None, **video: float) -> VideoError:
    with pytest.raises(VideoError) as caught:
        read(path, options, **video)
    assert str(path) not in caught.value.message
    return caught.value


def checksums(frames: list[Frame]) -> list[str]:
    return [f"0x{zlib.adler32(frame.rgb.tobytes(), 0):08x}" for frame in frames]


@pytest.fixture
def ffmpeg_checksums(ffmpeg: str) -> Callable[..., list[str]]:
    """What ffmpeg itself decodes: the checksum of each RGB frame, rotated, after a filter."""

    def run(path: Path | str, video_filter: str = "null") -> list[str]:
        command = [ffmpeg, "-v", "error", "-nostdin", "-threads", "1", "-i", f"file:{path}"]
        command += ["-map", "0:v:0", "-vf", video_filter, "-fps_mode", "passthrough"]
        command += ["-c:v", "rawvideo", "-pix_fmt", "rgb24", "-f", "framecrc", "-"]
        lines = subprocess.run(command, capture_output=True, check=False).stdout.decode()
        return [line.split(",")[-1].strip() for line in lines.splitlines() if line[0] != "#"]

    return run


@pytest.fixture
def make(ffmpeg: str, tmp_path: Path) -> Callable[..., Path]:
    """Encodes ffmpeg's test picture into `name` with the given options."""

    def run(name: str, *options: str, size: str = "160x120", seconds: float = 2) -> Path:
        source = f"testsrc2=s={size}:r=30:d={seconds}"
        command = [ffmpeg, "-v", "error", "-nostdin", "-f", "lavfi", "-i", source, *options]
        subprocess.run([*command, f"file:{tmp_path / name}"], check=True)
        return tmp_path / name

    return run


# --- sizes -------------------------------------------------------------------------------------

sides = st.integers(1, 5000)
wanted = st.integers(8, 1024)


@given(sides, sides, wanted, st.booleans())
def test_short_side_keeps_the_aspect(width: int, height: int, px: int, upscale: bool) -> None:
    options = DecodeSpec(resize=Resize.parse(f"short:{px}"), allow_upscale=upscale)
    stored = target_size(width, height, options)
    if not upscale and min(width, height) <= px:
        assert stored == (width, height)
    else:
        side = min(width, height)
        assert min(stored) == px
        # In whole numbers: |stored - width * px / side| <= 0.5
        assert 2 * abs(stored[0] * side - width * px) <= side
        assert 2 * abs(stored[1] * side - height * px) <= side


@given(sides, sides, wanted, wanted, st.booleans())
def test_exact_and_height(width: int, height: int, x: int, y: int, upscale: bool) -> None:
    exact = target_size(width, height, DecodeSpec(resize=Resize.parse(f"{x}x{y}")))
    assert exact == ((x, y) if x <= width and y <= height else (width, height))
    options = DecodeSpec(resize=Resize.parse(f"height:{y}"), allow_upscale=upscale)
    stored = target_size(width, height, options)
    assert stored[1] == (y if upscale else min(y, height))
    assert min(stored) >= 1
    assert target_size(width, height, spec()) == (width, height)


def test_sizes_round_half_up() -> None:
    assert target_size(25, 16, DecodeSpec(resize=Resize.parse("height:8"))) == (13, 8)
    assert target_size(2000, 8, DecodeSpec(resize=Resize.parse("height:8"))) == (2000, 8)
    assert target_size(1, 5000, DecodeSpec(resize=Resize.parse("height:8"))) == (1, 8)


# --- the real files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_GOOD)
def test_odd_files_that_are_good(
    name: str, test_data: Path, ffmpeg_checksums: Callable[..., list[str]]
) -> None:
    path = test_data / "odd" / name
    num_frames, width, height, _ = ODD_GOOD[name]
    with open_video(Video("key", str(path)), spec()) as reader:
        frames = list(reader)
    info = reader.info
    assert (len(frames), info.width, info.height, info.rotation) == ODD_GOOD[name]
    assert reader.num_frames_decoded == num_frames
    assert reader.size == (width, height)
    assert frames[0].seconds == 0
    truth = ffmpeg_checksums(path)
    assert len(truth) == num_frames
    if name != "h264_10bits.mp4":  # there the ffmpeg program places chroma otherwise
        assert checksums(frames) == truth
    assert probe_video(Video("key", str(path))) == info


@pytest.mark.parametrize("name", ODD_BAD)
@pytest.mark.parametrize("decoder", DECODERS)
def test_odd_files_that_are_bad(name: str, decoder: str, test_data: Path) -> None:
    error = failure(test_data / "odd" / name, spec(decoder))
    assert error.reason == ODD_BAD[name][0]
    assert ODD_BAD[name][1] in error.message
    assert error.num_frames == 0


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_file_damaged_in_the_middle_gives_what_came_before(decoder: str, test_data: Path) -> None:
    video = Video("key", str(test_data / "odd" / "corrupted.mp4"))
    num_frames = 0
    error = None
    with open_video(video, spec(decoder)) as reader:
        frames = iter(reader)
        while error is None:
            try:
                next(frames)
                num_frames += 1
            except VideoError as raised:
                error = raised
    assert (error.reason, error.num_frames) == ("damaged", num_frames)
    if decoder == "pyav":
        assert num_frames == 28
        assert "after frame 28 of 50" in error.message


def test_every_healthy_file_equals_ffmpeg_with_both_decoders(
    test_data: Path, ffmpeg_checksums: Callable[..., list[str]]
) -> None:
    paths = sorted((test_data / "ucf101").rglob("*.avi")) + sorted(
        (test_data / "asl").glob("*.mkv")
    )
    paths += sorted((test_data / "clips").iterdir())
    assert len(paths) == 48
    for path in paths:
        frames = read(path)
        assert checksums(frames) == ffmpeg_checksums(path), path
        seconds = [frame.seconds for frame in frames]
        assert seconds == sorted(set(seconds)), path
        others = read(path, spec("decord"))
        assert len(others) == len(frames), path
        for frame, other in zip(frames, others, strict=True):
            assert frame.seconds == other.seconds
            if not np.array_equal(frame.rgb, other.rgb):
                # decord carries an older FFmpeg, whose MPEG-4 part 2 rounds a few pixels otherwise.
                assert path.suffix == ".avi"
                assert cv2.norm(frame.rgb, other.rgb, cv2.NORM_INF) <= 8, path
                assert cv2.norm(frame.rgb, other.rgb, cv2.NORM_L1) <= 0.01 * frame.rgb.size, path


@pytest.mark.parametrize("fps", [7, 10, 23.976, 25, 29.97, 60])
def test_sampling_equals_the_fps_filter(
    fps: float,
    test_data: Path,
    make: Callable[..., Path],
    ffmpeg_checksums: Callable[..., list[str]],
) -> None:
    drop = "select='not(mod(n,7))+not(mod(n,5))'"
    paths = [
        make("vfr.mp4", "-vf", drop, "-fps_mode", "vfr", seconds=4),
        make("vfr.mkv", "-vf", drop, "-fps_mode", "vfr", seconds=4),
        make("late.ts", "-bf", "3"),  # the clock of a transport stream does not begin at 0
        test_data / "asl" / "milk.mkv",  # the first frame comes 33 ms after the sound
        test_data / "odd" / "rotated_video.mp4",  # 8.8 fps, uneven
        test_data / "odd" / "video_90.mov",
        test_data / "clips" / "TrumanShow_wave_f_nm_np1_fr_med_26.avi",  # packed B-frames
        test_data / "clips" / "v_ApplyEyeMakeup_g01_c01.avi",
    ]
    for path in paths:
        assert checksums(read(path, spec(fps=fps))) == ffmpeg_checksums(path, f"fps={fps}"), path


# --- what containers and codecs do ---------------------------------------------------------------


def encode(path: Path, width: int, height: int, pixel_format: str = "yuv420p") -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        y, x = np.mgrid[:height, :width]
        for shift in range(6):
            rgb = np.stack([(x * 3 + shift * 9) % 256, (y * 5) % 256, (x + y) % 256], 2)
            picture = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("width", "height", "pixel_format"),
    [(321, 241, "yuv444p"), (322, 242, "yuv420p"), (64, 48, "yuvj420p"), (17, 9, "yuv444p")],
)
def test_odd_sizes_and_pixel_formats(
    width: int,
    height: int,
    pixel_format: str,
    decoder: str,
    tmp_path: Path,
    ffmpeg_checksums: Callable[..., list[str]],
) -> None:
    path = tmp_path / "picture.mp4"
    encode(path, width, height, pixel_format)
    frames = read(path, spec(decoder))
    assert frames[0].rgb.shape == (height, width, 3)
    assert checksums(frames) == ffmpeg_checksums(path)


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "a:b.mp4", "100%d.mp4", "Übung ü 動画.mp4", "a b?.mp4"]
)
def test_names_are_not_read_as_something_else(name: str, tmp_path: Path) -> None:
    encode(tmp_path / "plain.mp4", 64, 48)
    (tmp_path / "plain.mp4").rename(tmp_path / name)
    assert len(read(tmp_path / name)) == len(read(tmp_path / name, spec("decord"))) == 6


def test_frames_are_contiguous_resized_and_gray(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 322, 242)
    (native, *_) = read(tmp_path / "a.mp4")
    for name, flag in [
        ("area", cv2.INTER_AREA),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
    ]:
        options = DecodeSpec(resize=Resize.parse("100x60"), interpolation=name)  # type: ignore[arg-type]
        (frame, *_) = read(tmp_path / "a.mp4", options)
        assert frame.rgb.shape == (60, 100, 3)
        assert np.array_equal(frame.rgb, cv2.resize(native.rgb, (100, 60), interpolation=flag))
        assert np.array_equal(frame.gray, cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY))
        assert frame.rgb.flags.c_contiguous
        assert frame.gray.flags.c_contiguous
    larger = DecodeSpec(resize=Resize.parse("644x484"), allow_upscale=True)
    (frame, *_) = read(tmp_path / "a.mp4", larger)
    bilinear = cv2.resize(native.rgb, (644, 484), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(frame.rgb, bilinear)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("long.mp4", ["-bf", "3", "-g", "48"]),
        ("open.mp4", ["-x264-params", "open-gop=1:keyint=40:bframes=3"]),
        ("long.mkv", ["-bf", "3", "-g", "100"]),
        ("long.ts", ["-c:v", "mpeg2video", "-bf", "2"]),
        ("long.avi", ["-c:v", "mpeg4", "-bf", "2", "-g", "40"]),
    ],
)
def test_a_range_found_by_seeking_equals_one_found_by_decoding(
    name: str, options: list[str], make: Callable[..., Path]
) -> None:
    path = make(name, *options, seconds=20)
    everything = read(path)
    for start, end in [(0.5, 1.2), (7, 8), (13.3, 15.1), (18.5, 99.0), (12, 12.04)]:
        video = Video("key", str(path), start_seconds=start, end_seconds=end)
        with open_video(video, spec()) as reader:
            frames = list(reader)
        assert reader.num_frames_decoded < 250  # of 600
        expected = [frame for frame in everything if start <= frame.seconds < end]
        assert [frame.seconds for frame in frames] == [frame.seconds for frame in expected]
        assert checksums(frames) == checksums(expected)


def test_a_range_is_sampled_from_its_own_start(
    make: Callable[..., Path], ffmpeg_checksums: Callable[..., list[str]]
) -> None:
    path = make("a.mp4", seconds=8)
    frames = read(path, spec(fps=10), start_seconds=6.2, end_seconds=7.2)
    assert len(frames) == 10
    truth = ffmpeg_checksums(path, "trim=6.2:7.2,setpts=PTS-6.2/TB,fps=10")
    assert checksums(frames) == truth
    others = read(path, spec("decord", fps=10), start_seconds=6.2, end_seconds=7.2)
    assert checksums(others) == truth


def test_an_empty_range_is_an_error(make: Callable[..., Path]) -> None:
    error = failure(make("a.mp4", seconds=1), start_seconds=50)
    assert error.reason == "no-frames"
    assert error.message == "no frame lies from 50 s to the end of a video of 1 s"


def test_times_are_exact_at_the_bounds_of_a_range(make: Callable[..., Path]) -> None:
    path = make("a.mp4", "-r", "10", seconds=2)
    frames = read(path, start_seconds=0.2, end_seconds=0.7)
    assert [round(frame.seconds, 3) for frame in frames] == [0.2, 0.3, 0.4, 0.5, 0.6]


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_change_of_size_is_found(decoder: str, tmp_path: Path, make: Callable[..., Path]) -> None:
    for name, codec in [("a.m2v", "mpeg2video"), ("b.h264", "libx264"), ("c.ts", "libx264")]:
        parts = [
            make(f"{size}.{name}", "-c:v", codec, "-bf", "0", size=size).read_bytes()
            for size in ("160x120", "320x240")
        ]
        (tmp_path / name).write_bytes(b"".join(parts))
        error = failure(tmp_path / name, spec(decoder))
        if decoder == "decord" and error.reason == "unreadable":
            continue  # decord does not open these streams, or shows them wrongly from the begin
        assert error.reason == "size-change"
        assert "from 160x120 to 320x240 at frame" in error.message
        assert error.num_frames > 50


def test_decord_reads_in_chunks_and_never_shows_a_wrong_frame(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decord_reader, "DECORD_CHUNK_BYTES", 160 * 120 * 3 * 17)
    path = make("a.mp4", "-bf", "3", "-g", "40", seconds=3)
    assert checksums(read(path, spec("decord"))) == checksums(read(path))
    # decord fills most of a transport stream with its first frame.
    error = failure(make("a.ts", "-bf", "3"), spec("decord"))
    assert error.reason == "unreadable"
    assert "try --decoder pyav" in error.message


def test_decord_refuses_what_it_cannot_do(test_data: Path) -> None:
    for name, what in [
        ("av1.mkv", "cannot open this av1"),
        ("h264_10bits.mp4", "has no right conversion"),
    ]:
        error = failure(test_data / "odd" / name, spec("decord"))
        assert error.reason == "unreadable"
        assert what in error.message
        assert "try --decoder pyav" in error.message


# --- broken files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut.mp4", ["-movflags", "+faststart"]),
        ("cut.avi", ["-c:v", "mpeg4"]),
        ("cut.avi", ["-c:v", "mjpeg"]),
    ],
)
def test_a_file_that_ends_early_is_damaged(
    name: str, options: list[str], make: Callable[..., Path]
) -> None:
    path = make(name, *options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    error = failure(path)
    assert error.reason == "damaged"
    assert 10 < error.num_frames < 50
    assert "decoding broke off after frame" in error.message
    assert "of 60: " in error.message


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", []), ("a.avi", ["-c:v", "mpeg4", "-g", "60"]), ("a.mkv", []), ("a.ts", [])],
)
def test_garbage_in_the_middle_is_damage(
    name: str, options: list[str], make: Callable[..., Path]
) -> None:
    path = make(name, *options)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(bytes(content))
    error = failure(path)
    assert error.reason == "damaged"
    assert 0 < error.num_frames < 60


def test_files_that_are_no_video(tmp_path: Path) -> None:
    contents = {
        "empty.mp4": b"",
        "garbage.mp4": np.random.default_rng(1).bytes(5000),
        "text.txt": b"just some words\n" * 50,
        "list.m3u8": b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert failure(tmp_path / name).reason == "unreadable", name
    assert "empty" in failure(tmp_path / "empty.mp4").message
    assert failure(tmp_path / "absent.mp4").reason == "missing"


def test_a_cover_picture_is_not_a_video(tmp_path: Path, ffmpeg: str) -> None:
    cv2.imwrite(str(tmp_path / "cover.png"), np.zeros((40, 40, 3), np.uint8))
    command = [
        ffmpeg,
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "sine=d=1",
        "-i",
        "cover.png",
        "-map",
        "0",
    ]
    command += ["-map", "1", "-c:v", "copy", "-disposition:v:0", "attached_pic", "song.m4a"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert failure(tmp_path / "song.m4a").reason == "no-video-stream"


def test_a_stream_without_frames(make: Callable[..., Path]) -> None:
    assert failure(make("none.mp4", "-t", "0")).reason in ("no-frames", "no-video-stream")


# --- folders of images ---------------------------------------------------------------------------


def write_images(folder: Path, names: list[str], picture: NDArray[np.uint8] | None = None) -> None:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        image = np.full((12, 16, 3), index * 10, np.uint8) if picture is None else picture
        assert cv2.imwrite(str(folder / name), image)


def test_raw_frames_leave_flow_images_aside(test_data: Path) -> None:
    folder = test_data / "rawframes" / "imgs"
    with open_video(Video("key", str(folder)), spec()) as reader:
        frames = list(reader)
    assert len(frames) == reader.num_frames_decoded == 10
    assert [frame.seconds for frame in frames] == list(range(10))
    assert (reader.info.codec, reader.info.fps, reader.info.duration_seconds) == (
        "images",
        None,
        None,
    )
    image = cv2.imread(str(folder / "img_00003.jpg"))
    assert image is not None
    third = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    assert np.array_equal(frames[2].rgb, third)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif"])
def test_images_are_sorted_naturally(suffix: str, tmp_path: Path) -> None:
    names = [f"img_{number}.{suffix}" for number in (8, 9, 10, 11, 12)]
    write_images(tmp_path / "a", names)
    flows = ["flow_x_1.png", "flow_y_p2_00001.png", "x_00001.jpg", "v_00001.jpg", "VID-000001x.jpg"]
    write_images(tmp_path / "a", flows)
    (tmp_path / "a" / ".hidden_1.png").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_bytes(b"x")
    frames = read(tmp_path / "a")
    assert [round(frame.rgb.mean() / 10) for frame in frames] == [0, 1, 2, 3, 4]


def test_images_of_all_depths_become_rgb(tmp_path: Path) -> None:
    color = np.full((12, 16, 4), (10, 100, 200, 0), np.uint8)
    write_images(tmp_path / "alpha", ["1.png"], color)
    assert read(tmp_path / "alpha")[0].rgb[0, 0].tolist() == [200, 100, 10]
    cv2.imwrite(str(tmp_path / "alpha" / "1.png"), np.full((12, 16), 128 * 256, np.uint16))
    assert read(tmp_path / "alpha")[0].rgb[0, 0].tolist() == [128, 128, 128]


def test_folders_that_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "two", ["left_1.png", "left_2.png", "right_1.png"])
    error = failure(tmp_path / "two")
    assert error.reason == "unreadable"
    assert "left_1.png, right_1.png" in error.message
    write_images(tmp_path / "twice", ["img_1.png", "img_1.jpg"])
    assert "img_1.jpg and img_1.png" in failure(tmp_path / "twice").message
    write_images(tmp_path / "flow", ["flow_x_00001.jpg", "flow_y_00001.jpg"])
    assert failure(tmp_path / "flow").reason == "no-frames"
    write_images(tmp_path / "sizes", ["img_1.png"])
    write_images(tmp_path / "sizes", ["img_2.png"], np.zeros((12, 18, 3), np.uint8))
    error = failure(tmp_path / "sizes")
    assert (error.reason, error.num_frames) == ("size-change", 1)
    assert error.message == "img_2.png is 18x12, but img_1.png is 16x12"
    (tmp_path / "sizes" / "img_2.png").write_bytes(b"not an image")
    assert failure(tmp_path / "sizes").reason == "damaged"
    assert "frame rate" in failure(tmp_path / "sizes", spec(fps=25)).message


def test_a_reader_is_read_once(tmp_path: Path) -> None:
    write_images(tmp_path / "a", ["1.png", "2.png"])
    with open_video(Video("key", str(tmp_path / "a")), spec()) as reader:
        assert len(list(reader)) == 2
        with pytest.raises(RuntimeError, match="open the video again"):
            list(reader)
