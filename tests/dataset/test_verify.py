"""Verification: a whole set is whole, and every single damage is found and named."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import flowprep
from flowprep.config import ExtractConfig
from flowprep.dataset.layout import (
    LEASE_FILE,
    Failure,
    Sidecar,
    read_failures,
    read_sidecar,
    shard_name,
    sidecar_name,
    write_failures,
)
from flowprep.dataset.verify import VerifyReport, verify_dataset
from flowprep.errors import DatasetError
from flowprep.inputs.manifest import Manifest
from flowprep.local_files import TEMPORARY_MARK
from flowprep.storage import Storage
from tests.dataset.conftest import CONFIG, Truth

LONG_KEY = f"Dr%2E%20No/{'x' * 120}"


# ---- whole


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_set_is_whole(made_once: Path, deep: bool) -> None:
    report = verify_dataset(made_once, deep=deep)
    assert report == VerifyReport(
        location=str(made_once),
        num_videos=5,
        num_stored=4,
        num_partial=0,
        num_failed=1,
        num_flows=5 + 4 + 6 + 3,
        num_jpegs=4 * (5 + 4 + 6 + 3) + (6 + 5 + 7 + 4),
        num_bytes=sum(path.stat().st_size for path in (made_once / "shards").glob("*.tar")),
        keys=report.keys,
    )
    assert report.is_whole
    assert len(report.keys) == 5


def test_a_set_of_one_direction_is_whole(forward_only: Path) -> None:
    report = verify_dataset(forward_only, deep=True)
    assert report.is_whole
    assert report.num_jpegs == 2 * (4 + 3 + 5 + 2)


def test_a_set_in_a_store_is_whole(memory: str, made_once: Path) -> None:
    storage = Storage(memory)
    for path in made_once.rglob("*"):
        if path.is_file() and path.name != ".lock":
            storage.write_bytes(str(path.relative_to(made_once)), path.read_bytes())
    assert verify_dataset(memory, deep=True).is_whole


def test_verifying_changes_nothing(copied: Path) -> None:
    def content() -> dict[str, bytes]:
        files = (path for path in copied.rglob("*") if path.is_file())
        # Who repairs holds the lease meanwhile, which counts its holders.
        return {str(path): path.read_bytes() for path in files if path.name != LEASE_FILE}

    before = content()
    verify_dataset(copied, deep=True)
    verify_dataset(copied, repair=True)
    assert content() == before


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"is not a flowprep data set: no dataset\.json; name"):
        verify_dataset(tmp_path)


def test_a_set_without_its_plan_is_refused(copied: Path) -> None:
    (copied / "manifest.jsonl").unlink()
    with pytest.raises(DatasetError, match=r" has no manifest\.jsonl; run the same"):
        verify_dataset(copied)


# ---- damages, one by one


def change(path: Path, old: bytes, new: bytes, count: int = 1) -> None:
    data = path.read_bytes()
    assert data.count(old) == count, (old, data.count(old))
    path.write_bytes(data.replace(old, new))


def edit_sidecar(out: Path, shard: int, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the first video of a sidecar."""
    path = out / sidecar_name(shard)
    values = json.loads(path.read_bytes())
    edit(values["videos"][0])
    path.write_text(json.dumps(values))


def seal(out: Path, shard: int) -> None:
    """Makes the sidecar's checksum that of the tar as it is now."""
    path = out / sidecar_name(shard)
    values = json.loads(path.read_bytes())
    values["sha256"] = hashlib.sha256((out / shard_name(shard)).read_bytes()).hexdigest()
    path.write_text(json.dumps(values))


def jpeg_place(out: Path, shard: int, stream: str, number: int) -> tuple[int, int]:
    """Where a JPEG of the first video lies in its tar: offset and size."""
    tar = (out / shard_name(shard)).read_bytes()
    video = read_sidecar(Storage(out), shard).videos[0]
    offset, size = video.members["json"]
    sizes = json.loads(tar[offset : offset + size])["sizes"][stream]
    return video.members[stream][0] + sum(sizes[:number]), sizes[number]


def write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip_a_byte_of_a_jpeg(out: Path) -> None:
    offset, size = jpeg_place(out, 0, "flow_y", 2)
    tar = out / shard_name(0)
    byte = tar.read_bytes()[offset + size // 2]
    write_at(tar, offset + size // 2, bytes([byte ^ 0x10]))


def flip_a_byte_of_the_padding(out: Path) -> None:
    write_at(out / shard_name(0), (out / shard_name(0)).stat().st_size - 1, b"\x01")


def break_a_marker(out: Path) -> None:
    offset, _ = jpeg_place(out, 0, "back_x", 3)
    write_at(out / shard_name(0), offset, b"\x00")
    seal(out, 0)


def truncate(out: Path) -> None:
    tar = out / shard_name(1)
    os.truncate(tar, tar.stat().st_size - 5000)


def append(out: Path) -> None:
    with open(out / shard_name(1), "ab") as file:
        file.write(bytes(512))


def swap_streams(out: Path) -> None:
    def swap(video: dict[str, Any]) -> None:
        members = video["members"]
        members["flow_x"], members["flow_y"] = members["flow_y"], members["flow_x"]

    edit_sidecar(out, 0, swap)


def swap_tars(out: Path) -> None:
    first, second = (out / shard_name(shard) for shard in (0, 1))
    first.rename(out / "x")
    second.rename(first)
    (out / "x").rename(second)


def duplicate_a_manifest_line(out: Path) -> None:
    manifest = out / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join([*lines, lines[2]]))


def remove_a_manifest_line(out: Path) -> None:
    manifest = out / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(lines[:2] + lines[3:]))


def add_a_manifest_line(out: Path) -> None:
    with open(out / "manifest.jsonl", "a") as file:
        file.write('{"key":"new","source":"/new.mp4","labels":[],"split":null,"shard":2}\n')


def fail_a_stored_video(out: Path) -> None:
    storage = Storage(out)
    failure = Failure("walk/d", "/d.mp4", "damaged", "it is")
    write_failures(storage, [*read_failures(storage).values(), failure])


def fail_an_unknown_video(out: Path) -> None:
    storage = Storage(out)
    failure = Failure("walk/z", "/z.mp4", "damaged", "it is")
    write_failures(storage, [*read_failures(storage).values(), failure])


def climb_out(out: Path) -> None:
    # All records agree on the evil name: only the name itself gives it away.
    for name in ("manifest.jsonl", sidecar_name(0), shard_name(0)):
        data = (out / name).read_bytes()
        (out / name).write_bytes(data.replace(b"jump/a", b"../../"))
    seal(out, 0)


def lose_members(out: Path) -> None:
    edit_sidecar(out, 0, lambda video: video.pop("members"))


def lose_a_stream(out: Path) -> None:
    edit_sidecar(out, 0, lambda video: video["members"].pop("rgb"))


def break_metadata(out: Path) -> None:
    change(out / shard_name(0), b'"num_frames":', b'"num_frames"!')
    seal(out, 0)


def shorten_metadata(out: Path) -> None:
    """Leaves the line feed at its end out of what the index says of it."""

    def shorten(video: dict[str, Any]) -> None:
        offset, size = video["members"]["json"]
        video["members"]["json"] = [offset, size - 1]

    edit_sidecar(out, 0, shorten)


def lose_a_frame(out: Path) -> None:
    """One frame fewer is accounted for than was decoded."""
    change(out / shard_name(0), b'"dropped":0', b'"dropped":9')
    seal(out, 0)


def edit_metadata_sizes(out: Path) -> None:
    tar = out / shard_name(0)
    data = tar.read_bytes()
    match = re.search(rb'"sizes":\{"flow_x":\[(\d+),', data)
    assert match is not None
    write_at(tar, match.start(1), b"1" * len(match[1]))
    seal(out, 0)


def shorten_a_stream(out: Path) -> None:
    # One comma becomes a space: two sizes become a syntax error; a digit becomes one number less.
    tar = out / shard_name(0)
    data = tar.read_bytes()
    match = re.search(rb'"rgb":\[(\d+),(\d+),', data)
    assert match is not None
    spaces = b" " * (match.end() - match.start(1))
    write_at(tar, match.start(1), spaces)
    seal(out, 0)


def edit_the_size(out: Path) -> None:
    size = (out / shard_name(0)).stat().st_size
    change(out / sidecar_name(0), f'"size": {size}'.encode(), f'"size": {size + 1}'.encode())


def edit_the_checksum(out: Path) -> None:
    sidecar = out / sidecar_name(0)
    values = json.loads(sidecar.read_bytes())
    values["sha256"] = "0" * 64
    sidecar.write_text(json.dumps(values))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte in a JPEG": (
        flip_a_byte_of_a_jpeg,
        r"shards/000000\.tar has another SHA-256 than its sidecar says; it is damaged",
    ),
    "a flipped byte at the end": (
        flip_a_byte_of_the_padding,
        r"shards/000000\.tar has another SHA-256 than its sidecar says; it is damaged",
    ),
    "a broken marker": (
        break_a_marker,
        r"shards/000000\.tar: jump/a: back_x 3 is not a whole JPEG",
    ),
    "a cut tar": (
        truncate,
        r"shards/000001\.tar has \d+ bytes, but its sidecar says \d+; it is damaged",
    ),
    "a grown tar": (
        append,
        r"shards/000001\.tar has \d+ bytes, but its sidecar says \d+; it is damaged",
    ),
    "a lost tar": (
        lambda out: (out / shard_name(2)).unlink(),
        r"shards/000002\.tar is missing; run the same extract command again",
    ),
    "a lost sidecar": (
        lambda out: (out / sidecar_name(2)).unlink(),
        r"shards/000002\.json is missing; `flowprep verify --repair` rebuilds it",
    ),
    "a lost shard": (
        lambda out: [(out / name(2)).unlink() for name in (shard_name, sidecar_name)],
        r"shards/000002\.tar is missing; run the same extract command again",
    ),
    "a cut sidecar": (
        lambda out: os.truncate(out / sidecar_name(1), 100),
        r".*shards/000001\.json is damaged \(.*\); remove it and run `flowprep verify --repair` .*",
    ),
    "swapped tars": (
        swap_tars,
        r"shards/000000\.tar has \d+ bytes, but its sidecar says \d+; it is damaged",
    ),
    "an edited number of flows": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(num_flows=4)),
        r"shards/000000\.tar: jump/a: num_flows is 5 in its metadata and 4 in the sidecar",
    ),
    "an edited number of frames": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(num_frames=7)),
        r"shards/000000\.tar: jump/a: num_frames is 6 in its metadata and 7 in the sidecar",
    ),
    "an edited size of the frames": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(width=64)),
        r"shards/000000\.tar: jump/a: width is 56 in its metadata and 64 in the sidecar",
    ),
    "an edited share of clipped values": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(num_clipped=17)),
        r"shards/000000\.tar: jump/a: num_clipped is \d+ in its metadata and 17 in the sidecar",
    ),
    "edited labels": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(labels=[1])),
        r"shards/000000\.tar: jump/a: labels is \(1,\), but the manifest says \(0,\)",
    ),
    "edited labels in the plan": (
        lambda out: change(
            out / "manifest.jsonl",
            b'a.mp4","labels":[0]',
            b'a.mp4","labels":[1]',
        ),
        r"shards/000000\.tar: jump/a: labels is \(0,\), but the manifest says \(1,\)",
    ),
    "an edited split": (
        lambda out: edit_sidecar(out, 0, lambda video: video.update(split="test")),
        r"shards/000000\.tar: jump/a: split is test, but the manifest says train",
    ),
    "swapped streams": (
        swap_streams,
        r"shards/000000\.tar: jump/a: flow_x has \d+ bytes, but its index says \d+",
    ),
    "lost members": (
        lose_members,
        r"shards/000000\.tar: the index of jump/a points outside of its place",
    ),
    "a lost stream": (
        lose_a_stream,
        r"shards/000000\.tar: jump/a: its members are json, .*, wanted json, .*, rgb",
    ),
    "an offset outside of the tar": (
        lambda out: edit_sidecar(out, 0, lambda v: v["members"].update(rgb=[10**9, 5])),
        r"shards/000000\.tar: the index of jump/a points outside of its place",
    ),
    "broken metadata": (
        break_metadata,
        r"shards/000000\.tar: jump/a: its metadata is damaged: JSONDecodeError: .*",
    ),
    "cut metadata": (
        shorten_metadata,
        r"shards/000000\.tar: jump/a: its metadata is damaged: ValueError: it does not end .*",
    ),
    "a lost frame": (
        lose_a_frame,
        r"shards/000000\.tar: jump/a: it says that 6 frames were decoded, and accounts for 15: .*",
    ),
    "edited sizes": (
        edit_metadata_sizes,
        r"shards/000000\.tar: jump/a: flow_x has \d+ bytes, but its index says \d+",
    ),
    "sizes too few": (
        shorten_a_stream,
        r"shards/000000\.tar: jump/a: rgb has 4 JPEGs, but needs 6",
    ),
    "an edited size of the tar": (
        edit_the_size,
        r"shards/000000\.tar has \d+ bytes, but its sidecar says \d+; it is damaged",
    ),
    "an edited checksum": (
        edit_the_checksum,
        r"shards/000000\.tar has another SHA-256 than its sidecar says; it is damaged",
    ),
    "a stray file": (
        lambda out: (out / "notes.txt").write_text("mine"),
        r"notes\.txt does not belong to the data set; remove it",
    ),
    "a stray shard": (
        lambda out: shutil.copy(out / shard_name(0), out / shard_name(9)),
        r"shards/000009\.tar does not belong to the data set; remove it",
    ),
    "a half-written file": (
        lambda out: (out / f"{shard_name(0)}{TEMPORARY_MARK}ab12").write_bytes(b"x"),
        r"shards/000000\.tar\.tmp-ab12 does not belong to the data set; remove it",
    ),
    "parts of an unfinished run": (
        lambda out: (out / ".parts").mkdir(),
        r"\.parts holds videos of an unfinished run; run the same extract again",
    ),
    "a line twice in the plan": (
        duplicate_a_manifest_line,
        r"manifest\.jsonl names walk/b more than once",
    ),
    "a line less in the plan": (
        remove_a_manifest_line,
        r"shards/000001\.tar holds walk/b, which the manifest does not put there",
    ),
    "a line more in the plan": (
        add_a_manifest_line,
        r"new is in no shard and not in failures\.jsonl; run the same extract again",
    ),
    "a failure that is not listed": (
        lambda out: (out / "failures.jsonl").write_bytes(b""),
        r"failures\.jsonl does not name jump/broken, which failed; `flowprep verify --repair` .*",
    ),
    "no list of failures": (
        lambda out: (out / "failures.jsonl").unlink(),
        r"failures\.jsonl is missing; `flowprep verify --repair` .*",
    ),
    "a video failed and stored": (
        fail_a_stored_video,
        r"walk/d is in a shard and in failures\.jsonl; `flowprep verify --repair` .*",
    ),
    "a failure of an unknown video": (
        fail_an_unknown_video,
        r"failures\.jsonl names walk/z, which is not in manifest\.jsonl; `flowprep verify .*",
    ),
    "a key that climbs out of its folder": (
        climb_out,
        r"shards/000000\.tar: \.\./\.\./: malformed key '\.\./\.\./': .*",
    ),
}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damage_is_found_and_named(copied: Path, name: str) -> None:
    damage, expected = DAMAGES[name]
    damage(copied)
    report = verify_dataset(copied)
    assert not report.is_whole
    found = [problem for problem in report.problems if re.fullmatch(expected, problem)]
    assert len(found) == 1, report.problems


@pytest.mark.parametrize("name", list(DAMAGES))
def test_the_deep_check_finds_no_less(copied: Path, name: str) -> None:
    damage, _ = DAMAGES[name]
    damage(copied)
    shallow = verify_dataset(copied)
    deep = verify_dataset(copied, deep=True)
    assert len(deep.problems) >= len(shallow.problems) > 0


def test_every_damage_is_found_at_once(copied: Path) -> None:
    for name in ("a lost sidecar", "a stray file", "a cut tar", "an edited number of flows"):
        DAMAGES[name][0](copied)
    report = verify_dataset(copied)
    for name in ("a lost sidecar", "a stray file", "a cut tar", "an edited number of flows"):
        expected = DAMAGES[name][1]
        assert any(re.fullmatch(expected, problem) for problem in report.problems), name


@pytest.mark.parametrize("seed", range(8))
def test_any_flipped_bit_of_a_tar_is_found(copied: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tar = copied / shard_name(int(rng.integers(3)))
    offset = int(rng.integers(tar.stat().st_size))
    byte = tar.read_bytes()[offset]
    write_at(tar, offset, bytes([byte ^ (1 << int(rng.integers(8)))]))
    report = verify_dataset(copied)
    assert any(f"shards/{tar.name}" in problem for problem in report.problems), (seed, offset)


@pytest.mark.parametrize("seed", range(8))
def test_any_flipped_bit_of_a_record_is_reported_or_harmless(copied: Path, seed: int) -> None:
    # Never a traceback: whatever a damaged record says, verify says something of it.
    rng = np.random.default_rng(100 + seed)
    path = copied / ("manifest.jsonl", sidecar_name(0), sidecar_name(1))[int(rng.integers(3))]
    for _ in range(25):
        data = path.read_bytes()
        offset = int(rng.integers(len(data)))
        write_at(path, offset, bytes([data[offset] ^ (1 << int(rng.integers(7)))]))
        with contextlib.suppress(DatasetError):
            verify_dataset(copied)
        path.write_bytes(data)


# ---- what only decoding finds


def damage_entropy(out: Path, stream: str) -> None:
    """Fills half of a JPEG with ones, which are no Huffman code, and seals the tar."""
    offset, size = jpeg_place(out, 0, stream, 1)
    tar = (out / shard_name(0)).read_bytes()
    scan = tar.index(b"\xff\xda", offset, offset + size)
    begin = scan + 2 + int.from_bytes(tar[scan + 2 : scan + 4], "big")
    middle = (begin + offset + size) // 2
    # A byte of ones in picture data is followed by a zero; the end marker stays.
    ones = b"\xff\x00" * ((offset + size - 2 - middle) // 2)
    write_at(out / shard_name(0), offset + size - 2 - len(ones), ones)
    seal(out, 0)


@pytest.mark.parametrize("stream", ["flow_x", "back_y", "rgb"])
def test_only_the_deep_check_finds_damaged_picture_data(
    copied: Path, stream: str, capfd: pytest.CaptureFixture[str]
) -> None:
    damage_entropy(copied, stream)
    assert verify_dataset(copied).is_whole
    report = verify_dataset(copied, deep=True)
    (problem,) = report.problems
    assert re.fullmatch(
        rf"shards/000000\.tar: jump/a: {stream} 1 is damaged: Corrupt JPEG data: .*", problem
    )
    assert "Corrupt" not in capfd.readouterr().err


def test_only_the_deep_check_finds_another_size(copied: Path) -> None:
    offset, size = jpeg_place(copied, 0, "flow_x", 0)
    tar = (copied / shard_name(0)).read_bytes()
    header = tar.index(b"\xff\xc0", offset, offset + size)
    write_at(copied / shard_name(0), header + 5, (39).to_bytes(2, "big"))
    seal(copied, 0)
    assert verify_dataset(copied).is_whole
    (problem,) = verify_dataset(copied, deep=True).problems
    assert problem == ("shards/000000.tar: jump/a: flow_x 0 has shape (39, 56), wanted (40, 56)")


def test_only_the_deep_check_finds_what_is_no_picture(copied: Path) -> None:
    offset, size = jpeg_place(copied, 0, "rgb", 5)
    write_at(copied / shard_name(0), offset + 2, bytes(size - 4))
    seal(copied, 0)
    assert verify_dataset(copied).is_whole
    (problem,) = verify_dataset(copied, deep=True).problems
    assert problem == "shards/000000.tar: jump/a: rgb 5 does not decode"


# ---- repair


@pytest.mark.parametrize("damage", ["a lost sidecar", "a cut sidecar"])
def test_repair_rebuilds_a_sidecar(copied: Path, made_once: Path, damage: str) -> None:
    DAMAGES[damage][0](copied)
    report = verify_dataset(copied, repair=True)
    (name,) = report.repaired
    shard = int(name[-8:-5])
    assert report.is_whole
    old, new = (read_sidecar(Storage(out), shard) for out in (made_once, copied))
    assert new == without_run(old)
    assert verify_dataset(copied, deep=True).is_whole
    before, after = flowprep.open_dataset(made_once), flowprep.open_dataset(copied)
    assert list(before.videos) == list(after.videos)


def without_run(sidecar: Sidecar) -> Sidecar:
    videos = [msgspec.structs.replace(video, seconds={}, attempts=1) for video in sidecar.videos]
    return msgspec.structs.replace(sidecar, videos=tuple(videos))


def test_repair_keeps_failed_videos(copied: Path, made_once: Path) -> None:
    (copied / sidecar_name(0)).unlink()
    assert verify_dataset(copied, repair=True).repaired == ["shards/000000.json"]
    old, new = (read_sidecar(Storage(out), 0) for out in (made_once, copied))
    assert new == without_run(old)


def test_repair_rebuilds_no_sidecar_of_a_cut_tar(copied: Path) -> None:
    (copied / sidecar_name(1)).unlink()
    truncate(copied)
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert any(
        problem.startswith("shards/000001.json cannot be rebuilt: shards/000001.tar ")
        for problem in report.problems
    )
    assert not (copied / sidecar_name(1)).exists()


def test_repair_leaves_other_damage_reported(copied: Path) -> None:
    flip_a_byte_of_a_jpeg(copied)
    report = verify_dataset(copied, repair=True)
    assert report.repaired == []
    assert not report.is_whole


# ---- a set that was retried


def test_a_set_whose_failed_video_was_tried_again_is_whole(
    videos: Manifest, copied: Path, truth: Callable[[str, ExtractConfig], Truth]
) -> None:
    broken = next(video for video in videos.videos if video.key == "jump/broken")
    good = next(video for video in videos.videos if video.key == "walk/d")
    mended = dataclasses.replace(broken, source=good.source)
    manifest = dataclasses.replace(
        videos, videos=tuple(mended if v is broken else v for v in videos.videos)
    )
    options = flowprep.RunOptions(retry_failed=True)
    report = flowprep.extract(manifest, copied, CONFIG, executor="inline", options=options)
    assert report.is_complete
    found = verify_dataset(copied, deep=True)
    assert found.problems == []
    assert (found.num_stored, found.num_failed) == (5, 0)
    dataset = flowprep.open_dataset(copied)
    np.testing.assert_array_equal(
        dataset.quantized("jump/broken", 0, 3), truth("walk/d", CONFIG).stored["forward"]
    )


@pytest.mark.parametrize("shard", [0, 3])
def test_a_retried_set_survives_the_loss_of_a_sidecar(
    videos: Manifest, copied: Path, shard: int
) -> None:
    options = flowprep.RunOptions(retry_failed=True)
    flowprep.extract(videos, copied, CONFIG, executor="inline", options=options)
    assert verify_dataset(copied).problems == []
    (copied / sidecar_name(shard)).unlink()
    report = verify_dataset(copied, repair=True)
    assert report.repaired == [sidecar_name(shard)]
    assert report.problems == []
