"""Runs against a real S3 server of which 5 % of the requests fail: the same bytes as on a disk."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import flowprep
from flowprep import DecodeSpec, EncodeSpec, ExtractConfig, FlowSpec, RunOptions, open_dataset
from flowprep import storage as storage_module
from flowprep.config import Resize
from flowprep.dataset import lease as lease_module
from flowprep.dataset.layout import LEASE_FILE, read_failures
from flowprep.dataset.lease import Holder
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, InputError, StorageError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.exchange.import_tree import ImportSpec, import_tree
from flowprep.inputs.manifest import collect_videos
from flowprep.run.estimate import estimate_run
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests import object_store
from tests.object_store import FaultyProxy
from tests.run.faults import kill, start_extract, wait_until

NUM_VIDEOS = 8
CONFIG = ExtractConfig(
    DecodeSpec(resize=Resize.parse("none")),
    FlowSpec("farneback"),
    EncodeSpec(videos_per_shard=4),
)
OPTIONS = ("--algorithm", "farneback", "--resize", "none", "--shard-size", "4")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_VIDEOS):
        action = ("move_left", "zoom_in")[number % 2]
        scene = action_scene(action, num_frames=6, width=96, height=72, seed=number)
        (folder / action).mkdir(exist_ok=True)
        write_video(folder / action / f"{number:02d}.mp4", map(scene.frame, range(6)))
    return folder


@pytest.fixture(scope="module")
def undisturbed(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set on a disk, that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(clips, out).is_complete
    return out


@pytest.fixture
def videos(bucket: str, s3_endpoint: str, clips: Path) -> str:
    """URL of the clips on the server."""
    client = object_store.client(s3_endpoint)
    for path in clips.rglob("*.mp4"):
        client.upload_file(str(path), bucket, f"videos/{path.relative_to(clips)}")
    return f"s3://{bucket}/videos"


@pytest.fixture
def faulty(bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """5 % of the requests fail."""
    monkeypatch.setattr(storage_module, "RETRY_FIRST_WAIT_SECONDS", 0.05)
    with FaultyProxy(s3_endpoint, share=0.05, seed=7) as proxy:
        object_store.use_endpoint(monkeypatch, proxy.endpoint)
        yield proxy


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder with a name that is short enough for the sockets that Ray makes in it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(
    videos: str | Path, out: str | Path, config: ExtractConfig = CONFIG, **options: object
) -> flowprep.RunReport:
    settings = RunOptions(progress=False, **options)  # type: ignore[arg-type]
    return flowprep.extract(videos, out, config, executor="inline", options=settings)


def objects(bucket: str, endpoint: str) -> dict[str, bytes]:
    """Everything in a bucket, as another program sees it."""
    client = object_store.client(endpoint)
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        entry["Key"]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in listed
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lasting(files: dict[str, bytes]) -> dict[str, object]:
    """A data set's files, without what differs from run to run: logs, seconds, attempts, lock."""
    kept: dict[str, object] = {}
    for name, content in files.items():
        if name.startswith("logs/") or name in (".lock", LEASE_FILE):
            continue
        kept[name] = content
        if name.startswith("shards/") and name.endswith(".json"):
            sidecar = json.loads(content)
            for video in sidecar["videos"]:
                video.pop("seconds", None)
                video.pop("attempts", None)
            kept[name] = sidecar
    return kept


def below(files: dict[str, bytes], folder: str) -> dict[str, bytes]:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix): c for name, c in files.items() if name.startswith(prefix)}


def upload(folder: Path, bucket: str, endpoint: str) -> str:
    """Copies a data set to the server, by another program; returns its URL."""
    for name, content in on_disk(folder).items():
        object_store.client(endpoint).put_object(Bucket=bucket, Key=f"flow/{name}", Body=content)
    return f"s3://{bucket}/flow"


def num_faults(proxy: FaultyProxy) -> int:
    return sum(proxy.done.values()) - proxy.done["none"]


def test_a_run_over_faults_equals_one_on_a_disk(
    clips: Path, undisturbed: Path, faulty: FaultyProxy, bucket: str, s3_endpoint: str
) -> None:
    out = f"s3://{bucket}/flow"
    assert run(clips, out).is_complete
    files = below(objects(bucket, s3_endpoint), "flow")
    assert lasting(files) == lasting(on_disk(undisturbed))
    assert verify_dataset(out, deep=True).problems == []
    again = run(clips, out)
    assert (again.num_done_before, again.num_complete) == (NUM_VIDEOS, 0)

    expected, dataset = open_dataset(undisturbed), open_dataset(out)
    for video in expected.videos:
        for direction in ("forward", "backward"):
            ours = dataset.flow(video.key, 1, 3, direction)
            assert np.array_equal(ours, expected.flow(video.key, 1, 3, direction))
        assert np.array_equal(dataset.frames(video.key, [0, 5]), expected.frames(video.key, [0, 5]))
    assert num_faults(faulty) >= 5


def test_a_killed_driver_goes_on_from_another_place(
    videos: str,
    bucket: str,
    s3_endpoint: str,
    tmp_path: Path,
    short_path: Path,
    faulty: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`kill -9` of a Ray run, then the same without Ray and with another HOME and TMPDIR."""

    def start(place: str, *options: str) -> subprocess.Popen[str]:
        for name in ("home", "tmp"):
            (short_path / place / name).mkdir(parents=True)
        monkeypatch.setenv("HOME", str(short_path / place / "home"))
        monkeypatch.setenv("TMPDIR", str(short_path / place / "tmp"))
        out = f"s3://{bucket}/flow"
        return start_extract(videos, out, *OPTIONS, *options)  # type: ignore[arg-type]

    def num_finished() -> int:
        time.sleep(0.1)  # The server shares the machine.
        listed = object_store.client(s3_endpoint).list_objects_v2(
            Bucket=bucket, Prefix="flow/.parts/"
        )
        return sum(e["Key"].endswith(".json") for e in listed.get("Contents", []))

    first = start("a", "--workers", "2")
    wait_until(lambda: num_finished() >= 2, first)
    kill([first.pid])
    text, _ = first.communicate()
    assert first.returncode == -9, text
    assert f"flow/{LEASE_FILE}" in objects(bucket, s3_endpoint)

    second = start("b", "--executor", "inline")
    text, _ = second.communicate()
    assert second.returncode == 0, text
    assert int((re.search(r"done before +(\d+) videos", text) or [0, 0])[1]) >= 2, text
    assert verify_dataset(f"s3://{bucket}/flow", deep=True).problems == []
    assert list((short_path / "b" / "tmp").glob("flowprep-*")) == []

    # The same inputs onto a disk, over a server that does not fail.
    object_store.use_endpoint(monkeypatch, s3_endpoint)
    run(videos, tmp_path / "quiet")
    files = objects(bucket, s3_endpoint)
    assert lasting(below(files, "flow")) == lasting(on_disk(tmp_path / "quiet"))
    assert_no_secret(files, text)


def assert_no_secret(files: dict[str, bytes], *texts: str) -> None:
    for name, content in {**files, **{str(n): t.encode() for n, t in enumerate(texts)}}.items():
        for secret in (object_store.SECRET, object_store.KEY):
            assert secret.encode() not in content, name


def test_a_second_driver_is_refused_and_the_first_one_named(
    clips: Path, bucket: str, tmp_path: Path
) -> None:
    out = f"s3://{bucket}/flow"
    first = start_extract(clips, out, *OPTIONS, "--executor", "inline")  # type: ignore[arg-type]
    try:
        storage = Storage(out)
        wait_until(lambda: storage.exists("manifest.jsonl"), first)
        os.kill(first.pid, signal.SIGSTOP)
        expected = re.escape(f"another run is writing to {out} (process {first.pid} on ")
        with pytest.raises(StorageError, match=expected) as caught:
            run(clips, out)
        assert caught.value.exit_code == 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
        text, _ = first.communicate()
    assert first.returncode == 0, text
    holder = Holder.from_json(storage.read_bytes(LEASE_FILE))
    assert holder is not None
    assert (holder.pid, holder.released) == (first.pid, True)


class TakeOverAfterThree(logging.Handler):
    """Another machine's driver, which takes the lease when three videos are finished."""

    def __init__(self, storage: Storage, lease: bytes) -> None:
        super().__init__()
        self.storage = storage
        self.lease = lease
        self.num_finished = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.num_finished += "complete," in record.getMessage()
        if self.num_finished == 3:
            self.storage.write_bytes(LEASE_FILE, self.lease)


def test_a_run_that_was_taken_over_stops_and_removes_nothing(
    clips: Path, bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)
    out = f"s3://{bucket}/flow"
    other = msgspec.structs.replace(Holder.this_process(), host="node-7", machine="another boot")
    handler = TakeOverAfterThree(Storage(out), other.to_json())
    logging.getLogger("flowprep").addHandler(handler)
    try:
        with pytest.raises(StorageError, match=r"another run took over .* \(process .* on node-7"):
            run(clips, out, dataclasses.replace(CONFIG, encode=EncodeSpec(videos_per_shard=100)))
    finally:
        logging.getLogger("flowprep").removeHandler(handler)
    files = below(objects(bucket, s3_endpoint), "flow")
    assert files[LEASE_FILE] == other.to_json()
    assert any(name.startswith(".parts/") for name in files)
    # The other one says no more.
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.5)
    assert run(clips, out).is_complete
    assert verify_dataset(out, deep=True).problems == []


def test_storage_that_is_down_for_good_stops_the_run_and_it_goes_on_later(
    videos: str, faulty: FaultyProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "RETRY_FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(storage_module, "RETRY_LONGEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(storage_module, "_S3_REQUEST_ATTEMPTS", 1)
    out = f"s3://{bucket}/flow"

    def down(method: str, path: str) -> tuple[int, str] | None:
        num_parts = sum(m == "PUT" and "/.parts/" in p for m, p in faulty.requests)
        return (503, "SlowDown") if num_parts >= 9 else None

    faulty.refuses = down
    with pytest.raises(StorageError, match=r"given up after 8 attempts") as caught:
        run(videos, out)
    assert caught.value.exit_code == 1
    faulty.refuses = lambda method, path: None
    report = run(videos, out)
    assert report.is_complete
    assert report.num_done_before >= 3
    assert verify_dataset(out, deep=True).problems == []


def test_what_is_missing_or_forbidden_costs_itself_alone(
    videos: str, faulty: FaultyProxy, bucket: str, s3_endpoint: str, tmp_path: Path
) -> None:
    def forbid(method: str, path: str) -> tuple[int, str] | None:
        return (403, "AccessDenied") if path.endswith("/00.mp4") else None

    faulty.refuses = forbid
    manifest = collect_videos(videos)
    object_store.client(s3_endpoint).delete_object(Bucket=bucket, Key="videos/zoom_in/01.mp4")
    report = flowprep.extract(
        manifest, tmp_path / "out", CONFIG, executor="inline", options=RunOptions(progress=False)
    )
    assert (report.num_complete, report.failures) == (NUM_VIDEOS - 2, {"missing": 2})
    failures = read_failures(Storage(tmp_path / "out"))
    assert failures["move_left/00"].message == "the object does not exist or may not be read"
    assert failures["zoom_in/01"].message == "the object does not exist"
    assert failures["zoom_in/01"].source == f"{videos}/zoom_in/01.mp4"


def test_wrong_credentials_stop_the_run_and_blame_no_video(
    videos: str, faulty: FaultyProxy, tmp_path: Path
) -> None:
    manifest = collect_videos(videos)
    faulty.refuses = lambda method, path: (403, "InvalidAccessKeyId")
    with pytest.raises(StorageError, match="credentials are missing, wrong or expired"):
        flowprep.extract(manifest, tmp_path / "out", CONFIG, executor="inline")
    assert faulty.num_refused <= 2
    assert not read_failures(Storage(tmp_path / "out"))


def test_metadata_names_the_object(videos: str, clips: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "out")
    metadata = open_dataset(tmp_path / "out").metadata("move_left/00")
    assert metadata.source == f"{videos}/move_left/00.mp4"
    assert metadata.source_bytes == (clips / "move_left" / "00.mp4").stat().st_size
    assert abs(metadata.source_mtime_ns / 1e9 - time.time()) < 3600
    assert re.fullmatch("[0-9a-f]{32}", metadata.source_etag)
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert f'"source":"{videos}/move_left/00.mp4"' in manifest


def test_signed_urls_are_read_and_never_written_down(
    videos: str, bucket: str, s3_endpoint: str, tmp_path: Path
) -> None:
    """A list of signed addresses, with one that is gone: its signature is in no file or message."""
    client = object_store.client(s3_endpoint)
    signed = [
        client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": f"videos/{name}"}
        )
        for name in ("move_left/00.mp4", "zoom_in/01.mp4", "zoom_in/gone.mp4")
    ]
    assert all("Signature=" in url for url in signed)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{url} {n % 2}\n" for n, url in enumerate(signed)))
    process = start_extract(listed, tmp_path / "out", *OPTIONS, "--executor", "inline")
    text, _ = process.communicate()
    assert process.returncode == 1, text
    assert "2 of 3 videos" in text
    assert [video.key for video in open_dataset(tmp_path / "out").videos] == [
        *("move_left/00", "zoom_in/01")
    ]
    secrets = [re.search("Signature=([^&]+)", url) for url in signed]
    files = on_disk(tmp_path / "out")
    assert_no_secret(files, text)
    for secret in secrets:
        assert secret is not None
        assert not any(
            secret[1].encode() in content for content in (*files.values(), text.encode())
        )
    assert b"/videos/move_left/00.mp4?..." in files["manifest.jsonl"]
    # Known again, whatever the signature.
    assert run(listed, tmp_path / "out").num_done_before == 2


def test_credentials_in_a_url_are_refused(clips: Path, tmp_path: Path) -> None:
    url = f"s3://{object_store.KEY}:{object_store.SECRET}@bucket/videos"
    for arguments in ((url, str(tmp_path / "out")), (str(clips), url)):
        process = start_extract(*arguments, "--executor", "inline")  # type: ignore[arg-type]
        text, _ = process.communicate()
        assert process.returncode == 2, text
        assert "a URL must not hold credentials" in text
        assert_no_secret({}, text)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_probes_a_few_objects(videos: str, bucket: str) -> None:
    out = f"s3://{bucket}/flow"
    estimate = estimate_run(collect_videos(videos, out=out), out, CONFIG, RunOptions())
    assert estimate.num_pairs == pytest.approx(NUM_VIDEOS * 5, rel=0.2)
    assert estimate.probe_failures == ()
    assert not Storage(out).exists("dataset.json")


def test_a_folder_of_frames_is_fetched_whole(bucket: str, tmp_path: Path) -> None:
    import cv2

    scene = action_scene("move_left", num_frames=4, width=64, height=48, seed=1)
    (tmp_path / "frames").mkdir()
    store = Storage(f"s3://{bucket}/videos/walk/clip")
    for number in range(4):
        path = tmp_path / "frames" / f"img_{number:05d}.png"
        cv2.imwrite(str(path), scene.frame(number))
        store.write_bytes(path.name, path.read_bytes())
    run(f"s3://{bucket}/videos", tmp_path / "there")
    run(tmp_path / "frames", tmp_path / "here")
    (there,) = open_dataset(tmp_path / "there").videos
    (here,) = open_dataset(tmp_path / "here").videos
    assert (there.key, there.num_flows) == ("walk/clip", 3)
    assert np.array_equal(
        open_dataset(tmp_path / "there").flow(there.key, 0, 3),
        open_dataset(tmp_path / "here").flow(here.key, 0, 3),
    )


FETCH_AND_DIE = """
import os, signal, sys
from flowprep.video.fetch import fetched
from flowprep.inputs.video import Video
with fetched(Video("a", sys.argv[1])) as local:
    assert os.path.getsize(local.video.source) > 0
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_fetched_is_removed_by_the_next_one(
    videos: str, tmp_path: Path
) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    for how, num_left in (("die", 1), ("live", 0)):
        command = [sys.executable, "-c", FETCH_AND_DIE, f"{videos}/move_left/00.mp4", how]
        subprocess.run(command, check=False, env=environment)
        assert len(list(tmp_path.iterdir())) == num_left


def test_out_among_the_inputs_is_refused_there_too(videos: str) -> None:
    with pytest.raises(InputError, match="lies inside VIDEOS"):
        collect_videos(videos, out=f"{videos}/flow")
    with pytest.raises(InputError, match="lies inside OUT"):
        collect_videos(f"{videos}/move_left", out=videos)
    with pytest.raises(ConfigError, match="must not hold credentials"):
        collect_videos("s3://a:b@bucket/videos")


@pytest.mark.parametrize("kind", ["jpg", "webdataset"])
def test_an_export_is_the_same_over_faults_and_goes_on(
    undisturbed: Path,
    faulty: FaultyProxy,
    bucket: str,
    s3_endpoint: str,
    tmp_path: Path,
    kind: str,
) -> None:
    spec = ExportSpec("mmaction2", kind, videos_per_shard=4)
    source = upload(undisturbed, bucket, s3_endpoint)
    export_dataset(undisturbed, tmp_path / "here", spec, num_workers=1)
    report = export_dataset(source, tmp_path / "there", spec, num_workers=1)
    assert (report.num_exported, report.exit_code) == (NUM_VIDEOS, 0)
    here, there = (on_disk(tmp_path / name) for name in ("here", "there"))
    states = [tmp_path / f"{name}-lists/flowprep.json" for name in ("here", "there")]
    origins = [json.loads(state.read_bytes())["source"] for state in states]
    assert origins == [str(undisturbed), source]
    assert lasting(there) == lasting(here)
    assert num_faults(faulty) >= 3

    # One video, or one tar, is lost; nothing else is fetched again.
    lost = next((tmp_path / "there").rglob("*.tar" if kind == "webdataset" else "00"))
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    again = export_dataset(source, tmp_path / "there", spec, num_workers=1)
    assert again.num_exported == (4 if kind == "webdataset" else 1)
    assert again.num_done_before == NUM_VIDEOS - again.num_exported
    files = on_disk(tmp_path / "there")
    assert lasting(files) == lasting(here)


def test_trees_of_other_projects_are_of_this_machine(undisturbed: Path, bucket: str) -> None:
    """They are renamed folder by folder, and read by programs that know no object store."""
    url = f"s3://{bucket}/tree"
    with pytest.raises(ConfigError, match=f"DEST must be a folder on this machine, got {url}; "):
        export_dataset(undisturbed, url, ExportSpec())
    with pytest.raises(ConfigError, match=f"TREE must be a folder on this machine, got {url}; "):
        import_tree(url, f"s3://{bucket}/flow", ImportSpec(bound_px=20))
    secret = f"s3://{object_store.KEY}:{object_store.SECRET}@bucket/tree"
    with pytest.raises(ConfigError) as caught:
        export_dataset(undisturbed, secret, ExportSpec())
    assert_no_secret({}, str(caught.value))
    assert not Storage(f"s3://{bucket}/flow").exists("dataset.json")


def test_training_reads_the_same_over_faults(
    clips: Path, undisturbed: Path, faulty: FaultyProxy, bucket: str, s3_endpoint: str
) -> None:
    torch = pytest.importorskip("torch")
    from flowprep.learn.clips.streaming import StreamingClips, streaming_loader
    from flowprep.learn.clips.training import TrainingClips
    from flowprep.learn.config import ClipSpec, TrainConfig

    out = upload(undisturbed, bucket, s3_endpoint)
    config = TrainConfig(clip=ClipSpec("flow", 3, crop_px=32), seed=5, train_split="all")
    there = StreamingClips(out, config, config.inputs)
    here = StreamingClips(undisturbed, config, config.inputs)
    for ours, expected in zip(
        streaming_loader(there, batch_size=4, num_loaders=1),
        streaming_loader(here, batch_size=4),
        strict=True,
    ):
        assert all(torch.equal(ours[name], expected[name]) for name in ("label", "video"))
        assert torch.equal(ours["clips"]["flow"], expected["clips"]["flow"])
    ours, expected = (
        TrainingClips([open_dataset(one)], config, config.inputs) for one in (out, undisturbed)
    )
    for position in range(2 * NUM_VIDEOS):
        sample = expected[position]
        found = ours[position]
        assert (found["label"], found["task"]) == (sample["label"], sample["task"])
        assert torch.equal(found["clips"]["flow"], sample["clips"]["flow"])
    assert num_faults(faulty) >= 3
