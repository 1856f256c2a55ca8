"""Any file of a data set but the tars may be lost, and any two: it comes back, or is named."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

import flowprep
from flowprep.config import ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.labels import VideoLabels, labels_content, publish_labels
from flowprep.dataset.layout import (
    LEASE_FILE,
    LOCK_FILE,
    DatasetHeader,
    read_failures,
    read_manifest,
)
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigMismatchError, DatasetError
from flowprep.inputs.manifest import Manifest
from flowprep.run.driver import run_extract
from flowprep.run.progress import Progress, RunReport
from flowprep.storage import Storage
from tests.dataset.conftest import CONFIG

PLAN = {"dataset.json", "manifest.jsonl"}
OF_A_RUN = {LOCK_FILE, LEASE_FILE}
"""Each run writes its own name there."""
SIDECAR = "shards/000000.json"
"""Of the shard with the failed video."""
FILES = [
    *("dataset.json", "manifest.jsonl", "failures.jsonl"),
    *(SIDECAR, "shards/000001.json", "shards/000002.json"),
    *("labels/other.jsonl", "logs/progress.json", "logs/RUN.log", ".lock", LEASE_FILE),
]
LOSSES = [(name,) for name in FILES] + list(itertools.combinations(FILES, 2))


@pytest.fixture(scope="module")
def labelled(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual data set, with one log and with named labels; never to be changed."""
    out = shutil.copytree(made_once, tmp_path_factory.mktemp("labelled") / "out")
    (log,) = (out / "logs").glob("*.log")
    log.rename(out / "logs" / "RUN.log")
    lines = [VideoLabels("jump/a", (1,), "test")]
    publish_labels(Storage(out), "other", labels_content(["x", "y"], "me", lines), replace=False)
    assert {name for name in content(out) if not name.endswith(".tar")} == set(FILES)
    return out


@pytest.fixture
def lossy(labelled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(labelled, tmp_path / "out")


def content(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def lose(out: Path, names: Collection[str]) -> None:
    for name in names:
        (out / name).unlink()


def seen(out: Path) -> list[Any]:
    """What a reader sees: videos, labels, places."""
    return [*flowprep.open_dataset(out).videos, flowprep.open_dataset(out).class_names]


def same_command(videos: Manifest, out: Path) -> RunReport:
    return flowprep.extract(videos, out, CONFIG, executor="inline")


def without_run(sidecar: bytes) -> Any:
    """What a sidecar says but for what only the run knew."""
    values = json.loads(sidecar)
    for video in values["videos"]:
        video.pop("seconds", None)
        video.pop("attempts", None)
    return values


def check_same(before: dict[str, bytes], after: dict[str, bytes], lost: Collection[str]) -> None:
    """Every file is as it was; of a sidecar, but for the seconds that were spent."""
    for name in before:
        if name.startswith(("logs/", "labels/")) or name in OF_A_RUN:
            continue
        if name in lost and name.startswith("shards/"):
            assert without_run(after[name]) == without_run(before[name])
        else:
            assert after[name] == before[name], name


@pytest.mark.parametrize("lost", LOSSES, ids="+".join)
def test_the_same_command_brings_back_what_is_lost(
    labelled: Path, lossy: Path, videos: Manifest, lost: tuple[str, ...]
) -> None:
    before, was_seen = content(labelled), seen(labelled)
    lose(lossy, lost)
    report = same_command(videos, lossy)
    assert (report.num_complete, report.num_done_before, report.num_failed) == (0, 4, 1)
    assert report.exit_code == 1  # one video failed, as before
    told = " ".join(report.notes)
    assert all(
        name in told
        for name in lost
        if name.endswith(("t.json", "0.json", "s.jsonl")) and not name.startswith("l")
    )
    assert seen(lossy) == was_seen
    if {SIDECAR, "failures.jsonl"} <= set(lost):
        # Nobody knows why it failed: it was tried again, and its shard was published again.
        (failure,) = read_failures(Storage(lossy)).values()
        assert (failure.key, failure.reason) == ("jump/broken", "unreadable")
    check_same(before, content(lossy), lost)
    found = verify_dataset(lossy)
    assert (found.problems, found.num_stored, found.num_failed) == ([], 4, 1)
    assert same_command(videos, lossy).notes == []


@pytest.mark.parametrize("lost", LOSSES, ids="+".join)
def test_repair_brings_back_what_is_lost_or_names_it(
    labelled: Path, lossy: Path, lost: tuple[str, ...]
) -> None:
    before = content(labelled)
    lose(lossy, lost)
    if plan := PLAN & set(lost):
        with pytest.raises(DatasetError) as caught:
            verify_dataset(lossy, repair=True)
        assert min(plan) in str(caught.value)
        assert "same command" in str(caught.value)
        return
    wanted = [name for name in lost if name.startswith(("shards/", "failures"))]
    found = verify_dataset(lossy)
    assert [name for name in wanted if not any(name in one for one in found.problems)] == []
    found = verify_dataset(lossy, repair=True)
    assert (found.problems, sorted(found.repaired)) == ([], sorted(wanted))
    assert (found.num_stored, found.num_failed) == (4, 1)
    assert seen(lossy) == seen(labelled)
    if {SIDECAR, "failures.jsonl"} <= set(lost):
        (failure,) = read_failures(Storage(lossy)).values()
        assert (failure.key, failure.reason) == ("jump/broken", "record-lost")
    else:
        check_same(before, content(lossy), lost)
    assert verify_dataset(lossy, repair=True).repaired == []


def test_lost_labels_are_named_by_who_asks_for_them(lossy: Path) -> None:
    lose(lossy, ["labels/other.jsonl"])
    with pytest.raises(DatasetError, match=r"has no labels other, it has none; `flowprep label "):
        flowprep.open_dataset(lossy, labels="other")


# ---- failures.jsonl


@pytest.mark.parametrize("damage", ["cut", "no JSON", "stale", "another reason", "a stored video"])
@pytest.mark.parametrize("by", ["extract", "repair"])
def test_the_sidecars_count_where_the_list_of_failures_is_wrong(
    labelled: Path, lossy: Path, videos: Manifest, damage: str, by: str
) -> None:
    path = lossy / "failures.jsonl"
    good = path.read_bytes()
    stored = good.replace(b"jump/broken", b"jump/a")
    path.write_bytes(
        {
            "cut": good[:-20],
            "no JSON": b"nothing\n",
            "stale": b"",
            "another reason": good.replace(b"unreadable", b"too-small"),
            "a stored video": good + stored,
        }[damage]
    )
    assert [one for one in verify_dataset(lossy).problems if "failures.jsonl" in one] != []
    if by == "extract":
        same_command(videos, lossy)
    else:
        assert verify_dataset(lossy, repair=True).repaired == ["failures.jsonl"]
    assert path.read_bytes() == good
    assert verify_dataset(lossy).problems == []


# ---- the plan


def test_another_configuration_is_refused_where_the_header_is_lost(
    lossy: Path, videos: Manifest
) -> None:
    lose(lossy, ["dataset.json"])
    before = content(lossy)
    other = ExtractConfig(CONFIG.decode, FlowSpec("farneback", bound_px=8.0), CONFIG.encode)
    with pytest.raises(ConfigMismatchError, match=r"bound_px: 20\.0 in the data set, 8\.0 in"):
        flowprep.extract(videos, lossy, other, executor="inline")
    after = content(lossy)
    assert {name: after[name] for name in before if name not in OF_A_RUN} == {
        name: before[name] for name in before if name not in OF_A_RUN
    }
    assert "dataset.json" not in after


def test_a_folder_of_other_tars_is_no_data_set_that_lost_its_header(
    tmp_path: Path, videos: Manifest
) -> None:
    (tmp_path / "out/shards").mkdir(parents=True)
    (tmp_path / "out/shards/000000.tar").write_bytes(b"another's")
    with pytest.raises(DatasetError, match=r"is not empty and not a flowprep data set"):
        flowprep.extract(videos, tmp_path / "out", CONFIG, executor="inline")


def test_a_lost_plan_that_grew_comes_back(tmp_path: Path, videos: Manifest) -> None:
    # b and d first, then the rest, which stand before them in the listing; one is tried again.
    out = tmp_path / "out"
    some = Manifest(videos.videos[2::2], ("walk",), 0, ())
    numbered = [flowprep.inputs.video.Video(v.key, v.source, (0,), v.split) for v in some.videos]
    flowprep.extract(Manifest(tuple(numbered), ("walk",), 0, ()), out, CONFIG, executor="inline")
    flowprep.extract(videos, out, CONFIG, executor="inline")
    again = RunOptions(executor="inline", retry_failed=True)
    flowprep.extract(videos, out, CONFIG, executor="inline", options=again)
    header, plan = DatasetHeader.read(Storage(out)), read_manifest(Storage(out))
    assert header.class_names == ("walk", "jump")
    assert {entry.video.key: entry.shard for entry in plan} == {
        "walk/b": 0,
        "walk/d": 0,
        "jump/a": 1,
        "jump/broken": 3,
        videos.videos[3].key: 2,
    }
    lose(out, PLAN)
    report = flowprep.extract(videos, out, CONFIG, executor="inline")
    assert report.num_complete == 0
    assert DatasetHeader.read(Storage(out)) == header
    assert read_manifest(Storage(out)) == plan
    assert verify_dataset(out).problems == []


# ---- an interrupted run


@pytest.fixture(scope="module")
def undisturbed(videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tars of a run with a video cut into segments."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    go_on(videos, out)
    return {name: data for name, data in content(out).items() if name.endswith(".tar")}


def go_on(videos: Manifest, out: Path) -> RunReport:
    return run_extract(
        videos, str(out), CONFIG, RunOptions(executor="inline", segment_frames=2, progress=False)
    )


@pytest.fixture(scope="module")
def interrupted(videos: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose run was ended in the middle of its second shard."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        num_left = [5]

        def refresh(_: Progress) -> None:
            num_left[0] -= 1
            if not num_left[0]:
                raise KeyboardInterrupt

        patch.setattr(Progress, "refresh", refresh)
        with pytest.raises(KeyboardInterrupt):
            go_on(videos, out)
    return out


def test_an_interrupted_run_goes_on_without_any_of_its_files(
    interrupted: Path, undisturbed: dict[str, bytes], videos: Manifest, tmp_path: Path
) -> None:
    names = [
        name
        for name in content(interrupted)
        if not name.startswith("logs/") and name not in OF_A_RUN
    ]
    names = [name for name in names if not name.endswith(".tar") or name.startswith(".parts/")]
    # A finished video, one cut into segments, and one of them finished.
    assert {name.rpartition(".")[2] for name in names if name.startswith(".parts/")} == {
        *("tar", "json", "cut", "mjpg", "segment")
    }
    assert "shards/000000.json" in names
    losses: Iterator[tuple[str, ...]] = itertools.chain(
        ((name,) for name in names), itertools.combinations(names, 2)
    )
    for number, lost in enumerate(losses):
        out = shutil.copytree(interrupted, tmp_path / str(number))
        lose(out, lost)
        assert go_on(videos, out).num_failed == 1, lost
        after = {name: data for name, data in content(out).items() if name.endswith(".tar")}
        assert after == undisturbed, lost
        assert verify_dataset(out).problems == [], lost
