"""The chaos's own judgement: what it calls equal is equal, and several calls add up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import flowprep
from flowprep import EncodeSpec, ExtractConfig, FlowSpec
from flowprep.synthetic import action_scene, write_video
from tests.chaos import results
from tests.chaos.runs import difference


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos")
    scene = action_scene("zoom_in", num_frames=5, width=64, height=48, seed=0)
    (folder / "videos").mkdir()
    for number in range(2):
        write_video(folder / "videos" / f"{number}.mp4", map(scene.frame, range(5)))
    config = ExtractConfig(flow=FlowSpec("farneback"), encode=EncodeSpec(videos_per_shard=1))
    flowprep.extract(folder / "videos", folder / "out", config, executor="inline")
    return folder / "out"


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_record(path: Path) -> None:
    sidecar = json.loads(path.read_bytes())
    sidecar["videos"][0]["num_frames"] += 1
    path.write_text(json.dumps(sidecar))


def test_a_copy_is_equal_also_where_seconds_and_attempts_differ(
    complete: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(complete, out)
    sidecar = out / "shards" / "000001.json"
    content = json.loads(sidecar.read_bytes())
    content["videos"][0] |= {"seconds": {"flow": 3.0}, "attempts": 2}
    sidecar.write_text(json.dumps(content))
    assert difference(out, complete) == ""


@pytest.mark.parametrize(
    ("change", "name", "found"),
    [
        (flip_byte, "shards/000000.tar", "shards/000000.tar has other bytes"),
        (flip_byte, "manifest.jsonl", "manifest.jsonl has other bytes"),
        (change_record, "shards/000001.json", "shards/000001.json says something else"),
        (Path.unlink, "shards/000001.tar", "shards: ['000001.tar']"),
        (Path.unlink, "failures.jsonl", "failures.jsonl is not there"),
    ],
)
def test_whatever_differs_is_named(
    change: object, name: str, found: str, complete: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(complete, out)
    assert callable(change)
    change(out / name)
    assert difference(out, complete) == found


def test_results_of_several_calls_make_one_table(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    well = {"problem": "", "blamed": [], "commit": "a"}
    results.append(path, {"seed": 1, "events": ["raylet", "worker"], **well})
    results.append(path, {"seed": 0, "events": ["worker"], **well, "blamed": ["key: crashed: x"]})
    assert results.done_seeds(path, "a") == {0, 1}
    assert results.done_seeds(path, "b") == set()
    assert results.table(results.read(path)).splitlines()[2:] == [
        "| worker | 2 | 2 of 2 | 1 |",
        "| raylet | 1 | 1 of 1 | 0 |",
        "| all | 2 | 2 of 2 | 1 |",
    ]
    # A seed that is repeated counts once, as it was at last.
    results.append(path, {"seed": 0, "events": ["worker"], **well, "problem": "other bytes"})
    assert results.table(results.read(path)).splitlines()[-1] == "| all | 2 | 1 of 2 | 0 |"
