"""Named labels: the file, its checks, its writer, and what a reader that asks for a name sees."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import flowprep
from flowprep import open_dataset
from flowprep.dataset.describe import describe_dataset
from flowprep.dataset.labels import (
    VideoLabels,
    check_labels_name,
    labels_content,
    labels_file,
    list_labels,
    publish_labels,
    remove_temporary_labels,
    summarize_labels,
)
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError, DatasetError
from flowprep.exchange.export import export_dataset
from flowprep.exchange.export_spec import ExportSpec
from flowprep.inputs.video import Video
from flowprep.storage import Storage
from tests import object_store
from tests.dataset.made_index import make_index

CLASSES = ("clap", "wave")
KEYS = ["clap/v%2E%201", "clap/whole", "wave/cut", "wave/empty", "wave/long"]
"""Of the data set of version 1; wave/empty failed."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A data set with real shards, that may be written to."""
    source = Path(__file__).parents[1] / "data" / "v1" / "flow"
    return shutil.copytree(source, tmp_path / "flow")


def write_labels(out: Path, name: str, *lines: object, classes: object = CLASSES) -> Path:
    """Writes a file of named labels as it stands."""
    path = out / "labels" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    head = json.dumps({"class_names": classes, "source": "a test"})
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (head, *lines)]
    path.write_text("\n".join(texts) + "\n")
    return path


def line(key: str, *labels: int, split: str | None = None) -> dict[str, object]:
    return {"key": key, "labels": labels, "split": split}


def digests(out: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file but the labels."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.parent.name != "labels"
    }


# ---- what a reader sees


def test_a_name_overrides_manifest_sidecar_and_metadata(out: Path) -> None:
    write_labels(
        out,
        "mine",
        line(KEYS[0], 2, split="val"),
        line(KEYS[1], 0, 2),
        line(KEYS[3], 1, split="val"),
        line("gone", 1),
        classes=("a", "b", "c"),
    )
    before = digests(out)
    plain, dataset = open_dataset(out), open_dataset(out, labels="mine")
    assert dataset.class_names == ("a", "b", "c")
    assert (dataset.labels_name, plain.labels_name) == ("mine", None)
    found = {video.key: (video.labels, video.label, video.split) for video in dataset.videos}
    assert found == {
        KEYS[0]: ((2,), 2, "val"),
        KEYS[1]: ((0, 2), None, None),
        KEYS[2]: ((), None, None),
        KEYS[4]: ((), None, None),
    }
    assert dataset.num_unlabelled == 2
    (note,) = dataset.labels_notes
    assert "2 videos of 4" in note
    assert "labels mine" in note
    for video in dataset.videos:
        metadata, stored = dataset.metadata(video.key), plain.metadata(video.key)
        assert metadata.labels == list(video.labels)
        assert metadata.split == video.split
        names = {"labels": [], "split": None}
        assert replace(metadata, **names) == replace(stored, **names)
        assert dataset.flow(video.key, 0, 1).tolist() == plain.flow(video.key, 0, 1).tolist()
        assert dataset.videos[video.key] == video
    assert [video.labels for video in plain.videos] == [(0,), (0,), (1,), (1,)]
    assert plain.class_names == CLASSES
    assert plain.labels_notes == []
    assert digests(out) == before
    again = pickle.loads(pickle.dumps(dataset))
    assert [video.labels for video in again.videos] == [video.labels for video in dataset.videos]
    assert again.labels_name == "mine"


_NAMES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1)
_SPLITS = st.none() | _NAMES


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=3, unique=True), _SPLITS, st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.lists(_NAMES, min_size=5, max_size=5, unique=True),
)
def test_what_is_written_is_read(
    rows: list[tuple[list[int], str | None, bool]], classes: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_index(out, [Video(f"v{n}", f"/v{n}.mp4", (7,), "old") for n in range(len(rows))])
        lines = [
            VideoLabels(f"v{number}", tuple(labels), split)
            for number, (labels, split, is_named) in enumerate(rows)
            if is_named
        ]
        content = labels_content(classes, "test", reversed(lines))
        publish_labels(Storage(out), "x", content, replace=False)
        dataset = open_dataset(out, labels="x")
        assert dataset.class_names == tuple(classes)
        for video, (labels, split, is_named) in zip(dataset.videos, rows, strict=True):
            assert video.labels == (tuple(labels) if is_named else ())
            assert video.split == (split if is_named else None)
        assert dataset.num_unlabelled == len(rows) - len(lines)
        summary = summarize_labels(Storage(out), "x")
        assert summary.num_videos == len(lines)
        assert summary.splits.total() == sum(one.split is not None for one in lines)


def test_keys_that_share_their_hash_keep_their_own_labels(tmp_path: Path) -> None:
    # CRC-32 of eight characters collides within a few hundred thousand.
    seen: dict[int, str] = {}
    pairs: list[tuple[str, str]] = []
    number = 0
    while len(pairs) < 2:
        key = hashlib.blake2b(b"%d" % number, digest_size=6).hexdigest()
        other = seen.setdefault(zlib.crc32(key.encode()), key)
        if other != key:
            pairs.append((other, key))
        number += 1
    keys = [key for pair in pairs for key in pair]
    make_index(tmp_path, [Video(key, f"/{key}") for key in [*keys[:3], "x"]])
    write_labels(tmp_path, "mine", *(line(key, n) for n, key in enumerate(keys)), classes=[])
    dataset = open_dataset(tmp_path, labels="mine")
    assert [video.labels for video in dataset.videos] == [(0,), (1,), (2,), ()]


def test_an_export_has_the_named_labels(out: Path, tmp_path: Path) -> None:
    write_labels(out, "mine", line(KEYS[0], 1, split="val"), line(KEYS[1], 0, split="train"))
    dataset = open_dataset(out, labels="mine")
    spec = ExportSpec(layout="mmaction2", classes=("clap", "wave"))
    report = export_dataset(dataset, tmp_path / "dest", spec, num_workers=1)
    assert any("labels mine give no label and no split to" in note for note in report.notes)
    assert sorted(path.name for path in (tmp_path / "dest-lists").glob("*.txt")) == [
        *("classInd.txt", "flow_train.txt", "flow_val.txt", "rgb_train.txt", "rgb_val.txt"),
    ]
    assert (tmp_path / "dest-lists/flow_val.txt").read_text().split()[-1] == "1"
    # In the folder of the class that it has under this name.
    assert (tmp_path / "dest-lists/flow_val.txt").read_text().startswith("wave/")
    with pytest.raises(DatasetError, match="--labels: mine there, nothing in this run"):
        export_dataset(out, tmp_path / "dest", spec, num_workers=1)
    write_labels(out, "mine", line(KEYS[0], 0, split="val"), line(KEYS[1], 0, split="train"))
    with pytest.raises(DatasetError, match="labels of OUT"):
        export_dataset(open_dataset(out, labels="mine"), tmp_path / "dest", spec, num_workers=1)
    tars = ExportSpec(layout="mmaction2", format="webdataset")
    export_dataset(open_dataset(out, labels="mine"), tmp_path / "tars", tars, num_workers=1)
    shutil.unpack_archive(tmp_path / "tars/val-000000.tar", tmp_path / "unpacked")
    described = json.loads((tmp_path / "unpacked" / f"{KEYS[0]}.json").read_text())
    assert (described["labels"], described["split"]) == ([0], "val")


def test_a_description_counts_them_and_lists_the_names(out: Path) -> None:
    write_labels(out, "a", line(KEYS[0], 1, split="val"))
    write_labels(out, "b", "{")
    description = describe_dataset(out, labels_name="a")
    assert (dict(description.splits), dict(description.labels)) == ({"val": 1}, {1: 1})
    assert "labels      a, 3 videos not named" in description.summary()
    assert "named       a: 1 video, val 1, 2 classes, from a test" in description.summary()
    assert "labels/b.jsonl line 2 is damaged" in description.summary()
    own = describe_dataset(out)
    assert own.labels_name is None
    assert dict(own.labels) == {0: 2, 1: 2}


# ---- damage


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        (["{"], "line 2", "truncated"),
        ([line(KEYS[0]), line(KEYS[0])], "line 3", "stands on line 2 too"),
        ([line(KEYS[0]), "", line(KEYS[1])], "line 3", "damaged"),
        ([line("../x")], "line 2", "malformed key"),
        ([line(KEYS[0], 0), line(KEYS[1], 2)], "line 3", "label 2 is not among the 2 classes"),
        ([line(KEYS[0], -1)], "line 2", ">= 0"),
        ([line(KEYS[0], split="")], "line 2", "length >= 1"),
        ([{**line(KEYS[0]), "more": 1}], "line 2", "unknown field"),
        ([{"labels": [1]}], "line 2", "key"),
        ([[1]], "line 2", "object"),
        (['{"key":' + "[" * 100_000], "line 2", "damaged"),
        ([line("gone"), line("gone")], "line 3", "stands on line 2 too"),
    ],
)
def test_damage_is_named_with_its_line(
    out: Path, lines: list[object], where: str, what: str
) -> None:
    write_labels(out, "mine", *lines)
    with pytest.raises(DatasetError, match=rf"labels/mine\.jsonl {where} is damaged") as error:
        open_dataset(out, labels="mine")
    assert what in str(error.value)
    assert "--replace" in str(error.value)
    (problem,) = verify_dataset(out).problems
    assert problem == str(error.value)
    # Whoever does not ask for them is not concerned.
    assert len(open_dataset(out).videos) == 4


@pytest.mark.parametrize(
    "head",
    [
        "",
        "[]",
        "{}",
        '{"class_names": ["a", "a"], "source": "x"}',
        '{"class_names": [1], "source": "x"}',
        '{"class_names": [], "source": "x", "more": 1}',
        "\udcff",
    ],
)
def test_a_damaged_first_line_is_named(out: Path, head: str) -> None:
    path = write_labels(out, "mine")
    path.write_bytes(head.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(DatasetError, match="line 1 is damaged"):
        open_dataset(out, labels="mine")


def test_a_file_without_its_last_line_feed_is_read(out: Path) -> None:
    path = write_labels(out, "mine", line(KEYS[0], 1))
    path.write_text(path.read_text().rstrip("\n"))
    assert open_dataset(out, labels="mine").videos[KEYS[0]].labels == (1,)


def test_a_name_that_is_not_there_names_those_that_are(out: Path) -> None:
    with pytest.raises(DatasetError, match=r"it has none; `flowprep label .* --name split2`"):
        open_dataset(out, labels="split2")
    write_labels(out, "split1")
    with pytest.raises(DatasetError, match="it has split1; did you mean split1"):
        open_dataset(out, labels="split2")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "..", "a b", "x.tmp-1", "\u00e4", "x" * 101])
def test_a_name_that_no_file_should_have_is_refused(out: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name of labels"):
        check_labels_name(name)
    with pytest.raises(ConfigError, match="name of labels"):
        open_dataset(out, labels=name)


# ---- writing


def test_other_labels_of_a_name_are_replaced_only_by_request(out: Path) -> None:
    storage = Storage(out)
    one, other = (labels_content_of(text) for text in ("one", "other"))
    assert publish_labels(storage, "x", one, replace=False) == "written"
    assert publish_labels(storage, "x", one, replace=False) == "unchanged"
    with pytest.raises(ConfigError, match=r"new: .* has other labels under 'x', from one"):
        publish_labels(storage, "x", other, replace=False)
    assert publish_labels(storage, "x", other, replace=True) == "replaced"
    assert storage.read_bytes(labels_file("x")) == other
    assert list_labels(storage) == ["x"]
    assert os.listdir(out / "labels") == ["x.jsonl"]


def labels_content_of(source: str) -> bytes:
    return labels_content(CLASSES, source, [])


def test_files_of_killed_processes_go_and_those_in_writing_stay(out: Path) -> None:
    storage = Storage(out)
    publish_labels(storage, "x", labels_content_of("x"), replace=False)
    stray = out / "labels/x.jsonl.tmp-0123456789ab"
    stray.write_bytes(b"half")
    report = verify_dataset(out)
    assert report.is_whole
    assert any(stray.name in note for note in report.notes)
    assert list_labels(storage) == ["x"]
    # Another process is writing.
    folder = os.open(out / "labels", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_SH)
    remove_temporary_labels(storage)
    assert stray.exists()
    os.close(folder)
    flowprep.label(out, "y", rename={"wave": "hello"})
    assert not stray.exists()
    assert verify_dataset(out).notes == []


_ENDLESS = """
import sys
import flowprep
number = 0
while True:
    flowprep.label(sys.argv[1], "x", class_names=[f"a{number}", f"b{number}"], replace=True)
    number += 1
    if number == 3:
        print("ready", flush=True)
"""


def test_kill_leaves_the_old_labels_or_the_new_ones(out: Path) -> None:
    for attempt in range(int(os.environ.get("FLOWPREP_FAULT_RUNS", "4"))):
        with subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(out)], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                # Somewhere within the next call.
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.003 * attempt)
            finally:
                process.send_signal(signal.SIGKILL)
        one, other = open_dataset(out, labels="x").class_names
        assert one[1:] == other[1:]
        report = verify_dataset(out)
        assert report.problems == []
    flowprep.label(out, "y", rename={"wave": "hello"})
    assert sorted(os.listdir(out / "labels")) == ["x.jsonl", "y.jsonl"]


# ---- proof


def test_verify_knows_the_folder(out: Path) -> None:
    write_labels(out, "mine", line(KEYS[3], 0), line("gone/1", 1), line("gone/2", 1))
    report = verify_dataset(out, deep=True)
    assert report.problems == []
    (note,) = report.notes
    assert "2 videos that the manifest does not hold, so readers ignore them; first: gone/1" in note
    (out / "labels/notes.txt").write_text("x")
    (out / "labels/.x.jsonl").write_text("x")
    assert verify_dataset(out).problems == [
        "labels/.x.jsonl does not belong to the data set; remove it",
        "labels/notes.txt does not belong to the data set; remove it",
    ]


def test_a_lost_sidecar_is_rebuilt_without_them(out: Path) -> None:
    write_labels(out, "mine", line(KEYS[0], 1))
    sidecar = out / "shards/000000.json"
    sidecar.unlink()
    report = verify_dataset(out, repair=True)
    assert (report.problems, report.repaired) == ([], ["shards/000000.json"])
    assert open_dataset(out).videos[KEYS[0]].labels == (0,)
    assert open_dataset(out, labels="mine").videos[KEYS[0]].labels == (1,)


def test_an_object_store(out: Path, bucket: str, upload: Callable[[Path, str], None]) -> None:
    upload(out, "flow")
    url = f"s3://{bucket}/flow"
    report = flowprep.label(url, "mine", rename={"wave": "hello"})
    assert report.outcome == "written"
    assert flowprep.label(url, "mine", rename={"wave": "hello"}).outcome == "unchanged"
    with pytest.raises(ConfigError, match="--replace"):
        flowprep.label(url, "mine", rename={"wave": "bye"})
    assert flowprep.label(url, "mine", rename={"wave": "bye"}, replace=True).outcome == "replaced"
    dataset = open_dataset(url, labels="mine")
    assert dataset.class_names == ("clap", "bye")
    assert dataset.num_unlabelled == 0
    assert verify_dataset(url).problems == []
    assert describe_dataset(url).label_sets[0].num_videos == 5
    with pytest.raises(DatasetError, match="it has mine"):
        open_dataset(url, labels="other")


@pytest.fixture
def upload(bucket: str, s3_endpoint: str) -> Callable[[Path, str], None]:
    client = object_store.client(s3_endpoint)

    def copy(folder: Path, name: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), bucket, f"{name}/{path.relative_to(folder)}")

    return copy
