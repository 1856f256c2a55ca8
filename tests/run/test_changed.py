"""A source that changed after it was extracted: noted, found, and computed again when asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import flowprep
from flowprep.config import ExtractConfig, RunOptions
from flowprep.dataset import write
from flowprep.dataset.layout import read_failures, shard_name, sidecar_name
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import DatasetError
from flowprep.inputs.manifest import Manifest, collect_videos
from flowprep.run.driver import run_extract
from flowprep.run.estimate import estimate_run
from flowprep.run.progress import RunReport
from flowprep.storage import Storage
from tests.dataset.conftest import CONFIG, write_clip

REDO = RunOptions(executor="inline", redo_changed=True, progress=False)
PLAIN = RunOptions(executor="inline", progress=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, one of which is none; never changed."""
    folder = tmp_path_factory.mktemp("clips")
    for name, seed, num_frames in (("a", 1, 6), ("b", 2, 5), ("d", 3, 7), ("e", 4, 4)):
        write_clip(folder / f"{name}.mp4", seed, num_frames)
    (folder / "c.mp4").write_bytes(b"this is not a video" * 100)
    return folder


@pytest.fixture
def top(clips: Path, tmp_path: Path) -> Path:
    """A folder with `videos` and their data set `flow`."""
    shutil.copytree(clips, tmp_path / "videos")
    extract(tmp_path / "videos", tmp_path / "flow", PLAIN)
    return tmp_path


def extract(
    videos: Path | str, out: Path, options: RunOptions, config: ExtractConfig = CONFIG
) -> RunReport:
    return run_extract(collect_videos(videos), str(out), config, options)


def tars(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").glob("*.tar")}


def undisturbed(top: Path) -> dict[str, bytes]:
    """The tars of an extraction of the videos as they are now, into the same plan."""
    shutil.rmtree(top / "again", ignore_errors=True)
    extract(top / "videos", top / "again", PLAIN)
    return tars(top / "again")


def change(top: Path, name: str = "b", num_frames: int = 6) -> None:
    write_clip(top / "videos" / f"{name}.mp4", 9, num_frames)


def change_contents_alone(path: Path) -> None:
    """Changes a byte within, and nothing of the size."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_nothing_is_computed_again_unasked(top: Path) -> None:
    before = tars(top / "flow")
    change(top)
    report = extract(top / "videos", top / "flow", PLAIN)
    assert (report.num_complete, report.num_done_before) == (0, 4)
    assert tars(top / "flow") == before


def test_changed_videos_are_computed_again_when_asked(top: Path) -> None:
    before = tars(top / "flow")
    change(top)
    assert (
        "dry run: 1 of 5 videos to do"
        in estimate_run(collect_videos(top / "videos"), str(top / "flow"), CONFIG, REDO).summary()
    )
    report = extract(top / "videos", top / "flow", REDO)
    assert (report.num_complete, report.num_done_before, report.num_failed) == (1, 3, 1)
    assert report.notes == ["1 video changed after it was extracted (b); computing again"]
    after = tars(top / "flow")
    assert after == undisturbed(top)
    assert [name for name in before if after[name] != before[name]] == ["000000.tar"]
    assert list(read_failures(Storage(top / "flow"))) == ["c"]
    found = verify_dataset(top / "flow", sources=True, hash_sources=True)
    assert (found.problems, found.notes) == ([], [])
    assert extract(top / "videos", top / "flow", REDO).notes == []


def test_a_shard_whose_videos_all_changed(top: Path) -> None:
    change(top, "a")
    change(top, "b", 7)
    report = extract(top / "videos", top / "flow", REDO)
    assert (report.num_complete, report.num_failed) == (2, 1)
    assert tars(top / "flow") == undisturbed(top)
    assert verify_dataset(top / "flow").problems == []


def test_contents_that_changed_alone(top: Path) -> None:
    change_contents_alone(top / "videos/d.mp4")
    assert verify_dataset(top / "flow", sources=True).problems == []
    (problem,) = verify_dataset(top / "flow", hash_sources=True).problems
    assert problem.startswith("1 video changed after it was extracted (d): their sources have")
    extract(top / "videos", top / "flow", REDO)
    assert tars(top / "flow") == undisturbed(top)


def test_another_time_alone_is_no_change(top: Path) -> None:
    before = tars(top / "flow")
    os.utime(top / "videos/a.mp4", ns=(0, 10**18))
    found = verify_dataset(top / "flow", sources=True)
    assert found.problems == []
    (note,) = found.notes
    assert note.startswith("the sources of 1 video have another time than when they were extracted")
    found = verify_dataset(top / "flow", sources=True, hash_sources=True)
    assert (found.problems, found.notes) == ([], [])
    report = extract(top / "videos", top / "flow", REDO)
    assert (report.num_complete, report.notes) == (0, [])
    assert tars(top / "flow") == before


def test_a_source_that_is_gone_is_noted(top: Path) -> None:
    (top / "videos/a.mp4").unlink()
    found = verify_dataset(top / "flow", sources=True)
    assert found.problems == []
    assert found.notes == ["the sources of 1 video are not there any more (first: a)"]
    assert verify_dataset(top / "flow").notes == []


def test_folders_and_ranges_have_no_checksum(top: Path) -> None:
    clip = collect_videos(top / "videos").videos[0]
    part = flowprep.inputs.video.Video("part", clip.source, start_seconds=0.0, end_seconds=0.1)
    out = top / "parts"
    run_extract(Manifest((part,), (), 0, ()), str(out), CONFIG, PLAIN)
    found = verify_dataset(out, sources=True, hash_sources=True)
    assert found.problems == []
    (note,) = found.notes
    assert note.startswith("1 video could not be compared by contents (part)")
    os.utime(clip.source, ns=(0, 10**18))
    report = run_extract(Manifest((part,), (), 0, ()), str(out), CONFIG, REDO)
    assert report.num_complete == 0
    (note,) = report.notes
    assert note.startswith("1 video not computed again: the sources have another time")


def test_a_cut_video_has_the_checksum_of_its_file(top: Path) -> None:
    cut = RunOptions(executor="inline", segment_frames=2, progress=False)
    extract(top / "videos", top / "cut", cut)
    assert tars(top / "cut") == tars(top / "flow")
    assert verify_dataset(top / "cut", hash_sources=True).notes == []


@pytest.mark.parametrize("step", range(7))
def test_it_may_be_ended_at_any_step(top: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two parts and their records, then the two files of the shard: whatever was done, the same
    # command ends alike, and no reader ever finds an index without its tar.
    out = top / "flow"
    change(top, "d")
    calls = [step]

    def limited(name: str):  # type: ignore[no-untyped-def]
        real = getattr(Storage, name)

        def call(self: Storage, path: str, *args: object, **options: object) -> object:
            if path.startswith((".parts/", "shards/")):
                if not calls[0]:
                    raise KeyboardInterrupt
                calls[0] -= 1
            return real(self, path, *args, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("atomic_file", "write_bytes", "remove"):
            patch.setattr(Storage, name, limited(name))
        with pytest.raises(KeyboardInterrupt):
            extract(top / "videos", out, REDO)
    for sidecar in (out / "shards").glob("*.json"):
        assert sidecar.with_suffix(".tar").exists()
    for video in flowprep.open_dataset(out).videos:
        assert flowprep.open_dataset(out).flow(video.key, 0, 1).shape[0] == 1
    extract(top / "videos", out, REDO)
    assert tars(out) == undisturbed(top)
    assert verify_dataset(out, sources=True, hash_sources=True).problems == []


def test_a_damaged_shard_is_not_believed(top: Path) -> None:
    out = top / "flow"
    change(top, "a")
    tar = out / shard_name(0)
    data = bytearray(tar.read_bytes())
    data[-2000] ^= 1  # of b, which would be kept
    tar.write_bytes(data)
    with pytest.raises(DatasetError, match=r"^shards/000000\.tar has another SHA-256 than its "):
        extract(top / "videos", out, REDO)
    assert (out / sidecar_name(0)).exists()
    assert not (out / ".parts/000000").exists()


def test_a_shard_is_the_same_when_it_was_taken_apart(top: Path) -> None:
    out = top / "flow"
    before = tars(out)
    storage = Storage(out)
    for shard, keys in ((0, "ab"), (1, "cd"), (2, "e")):
        lines = {key: "abcde".index(key) for key in keys}
        sidecar = flowprep.dataset.layout.read_sidecar(storage, shard)
        write.reopen_shard(storage, sidecar, lines, ())
    assert tars(out) == {}
    report = extract(top / "videos", out, PLAIN)
    assert (report.num_complete, report.num_failed) == (0, 1)
    assert tars(out) == before


# ---- on a store, whose listing has the sizes


def test_a_listing_that_has_sizes_says_what_changed(top: Path, memory: str) -> None:
    storage = Storage(memory)
    for path in (top / "videos").iterdir():
        storage.write_bytes(f"videos/{path.name}", path.read_bytes())
    out = top / "stored"
    extract(f"{memory}/videos", out, PLAIN)
    assert extract(f"{memory}/videos", out, PLAIN).notes == []
    change(top, "b", 7)
    storage.write_bytes("videos/b.mp4", (top / "videos/b.mp4").read_bytes())
    before = tars(out)
    report = extract(f"{memory}/videos", out, PLAIN)
    assert report.notes == [
        "1 video changed after it was extracted (b); `--redo-changed` computes again"
    ]
    assert tars(out) == before
    (problem,) = verify_dataset(out, sources=True).problems
    assert problem.startswith("1 video changed after it was extracted (b)")
    assert extract(f"{memory}/videos", out, REDO).num_complete == 1
    assert verify_dataset(out, sources=True, hash_sources=True).problems == []
    assert extract(f"{memory}/videos", out, PLAIN).notes == []
