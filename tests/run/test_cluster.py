"""Runs on a real Ray cluster of several nodes: code sent to them, and nodes that come and go.

FLOWPREP_FAULT_RUNS makes as many runs over the 24 UCF101 clips, in which nodes are added and killed
at random; 10 take about a quarter of an hour on two cores.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

import flowprep
from flowprep.config import ExtractConfig, FlowSpec, RunOptions
from flowprep.dataset.layout import read_failures
from flowprep.dataset.verify import verify_dataset
from flowprep.errors import ConfigError
from flowprep.run import retries
from flowprep.run.cluster import job_runtime_env, parse_runtime_env
from flowprep.run.executor import InlineExecutor
from flowprep.run.executors import EXECUTORS
from flowprep.run.job import ExtractJob, Job, WorkerLost
from flowprep.run.retries import MAX_LOST_NODES
from flowprep.run.status import read_status
from flowprep.storage import Storage
from flowprep.synthetic import action_scene, write_video
from tests.own_estimators import GRAY_MODULE
from tests.run.clusters import LocalCluster
from tests.run.faults import kill, wait_until
from tests.run.test_faults import assert_equal_data_sets, records

NUM_RUNS = int(os.environ.get("FLOWPREP_FAULT_RUNS", "0"))
NUM_CLIPS = 6
OPTIONS = ("--algorithm", "farneback", "--resize", "none", "--shard-size", "3")


def start(
    videos: Path, out: Path, environment: dict[str, str], *options: str
) -> subprocess.Popen[str]:
    """Starts `flowprep extract` as a user would."""
    command = [sys.executable, "-m", "flowprep", "extract", str(videos), str(out), *OPTIONS]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


def write_clips(folder: Path, count: int, num_frames: int) -> Path:
    folder.mkdir()
    for number in range(count):
        action = ("move_left", "zoom_in")[number % 2]
        scene = action_scene(action, num_frames=num_frames, width=256, height=192, seed=number)
        write_video(folder / f"{number:02d}.mp4", map(scene.frame, range(num_frames)))
    return folder


# ---- nodes that come and go


def test_nodes_come_and_go(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", NUM_CLIPS, 16)
    finish(start(clips, tmp_path / "expected", dict(os.environ), "--executor", "inline"))
    out = tmp_path / "out"
    with LocalCluster(head_cpus=0) as cluster:
        # An autoscaler begins with nothing, and sees what waits.
        process = start(clips, out, cluster.environment, "--address", cluster.address)
        wait_until(lambda: "has no CPU" in run_log(out), process)
        for name in ("killed", "terminated"):
            cluster.add(name)
            wait_until(lambda name=name: cluster.pause(name) > 0, process)  # type: ignore[misc]
        cluster.kill("killed")
        cluster.terminate("terminated")
        # Both videos go to a node that came after them.
        cluster.add("last")
        text = finish(process)
    assert re.search(r"lost workers +2,", text)
    assert run_log(out).count("its node went away") == 2
    # What went with a node was not the video's fault.
    assert {record.get("attempts", 1) for record in records(out)} == {1}
    assert verify_dataset(out, deep=True).problems == []
    assert_equal_data_sets(out, tmp_path / "expected")


def run_log(out: Path) -> str:
    return "".join(path.read_text() for path in sorted(out.glob("logs/*.log")))


def test_a_video_under_which_nodes_keep_going_away_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = write_clips(tmp_path / "clips", 3, 2)
    submitted: list[str] = []

    class Doomed(InlineExecutor):
        """A cluster that a certain video brings down, node after node."""

        def submit(self, job: Job) -> None:
            if not isinstance(job, ExtractJob):
                super().submit(job)
                return
            submitted.append(job.video.key)
            # A node may also go away under any other once.
            if job.video.key == "01" or submitted.count(job.video.key) == 1:
                lost = WorkerLost("crashed", "its node went away", node_died=True)
                self._ended.append((job, lost))
            else:
                super().submit(job)

    monkeypatch.setitem(EXECUTORS, "inline", Doomed)
    monkeypatch.setattr(retries, "MAX_PAUSE_SECONDS", 0.01)
    options = RunOptions(progress=False, max_attempts=1)
    config = ExtractConfig(flow=FlowSpec("farneback"))
    out = tmp_path / "out"
    report = flowprep.extract(clips, out, config, executor="inline", options=options)
    assert Counter(submitted) == {"00": 2, "01": MAX_LOST_NODES, "02": 2}
    assert (report.num_complete, report.num_failed) == (2, 1)
    ((key, failure),) = read_failures(Storage(str(out))).items()
    assert (key, failure.reason) == ("01", "crashed")
    assert "its node went away" in failure.message


@pytest.fixture(scope="module")
def undisturbed(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of the UCF101 clips that nothing happened to, from one process without Ray."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    videos = test_data / "ucf101" / "videos"
    finish(start(videos, out, dict(os.environ), "--executor", "inline"))
    return out


@pytest.mark.skipif(not NUM_RUNS, reason="long: set FLOWPREP_FAULT_RUNS to the number of runs")
@pytest.mark.parametrize("run", range(NUM_RUNS))
def test_random_losses_end_in_the_undisturbed_data_set(
    run: int, test_data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rng = random.Random(run)
    videos, out = test_data / "ucf101" / "videos", tmp_path / "out"
    began = time.monotonic()
    num_added = num_killed = num_drivers = 0
    with LocalCluster(head_cpus=0) as cluster:
        nodes = []

        def add() -> None:
            nonlocal num_added
            nodes.append(f"node{num_added}")
            cluster.add(nodes[-1])
            num_added += 1

        for _ in range(3):
            add()
        process = start(videos, out, cluster.environment, "--address", cluster.address)
        while process.poll() is None:
            time.sleep(rng.uniform(0.5, 5.0))
            what = rng.random()
            if what < 0.35 and nodes:
                name = nodes.pop(rng.randrange(len(nodes)))
                rng.choice([cluster.kill, cluster.kill, cluster.terminate])(name)
                num_killed += 1
            elif what < 0.9 and len(nodes) < 3:
                add()
            elif what >= 0.93 and num_drivers < 2:
                # The driver moves: its process ends, and another one goes on.
                kill([process.pid])
                process.communicate()
                num_drivers += 1
                process = start(videos, out, cluster.environment, "--address", cluster.address)
        text = finish(process)
    seconds = time.monotonic() - began
    print(
        f"\nrun {run}: {num_added} nodes added, {num_killed} killed, {num_drivers} drivers killed"
    )
    print(f"{seconds:.0f} s; {'; '.join(re.findall(r'lost workers.*|this run.*', text))}")
    assert verify_dataset(out, deep=True).problems == []
    assert_equal_data_sets(out, undisturbed)
    assert not (out / ".parts").exists()
    assert sorted(path.suffix for path in out.glob("shards/*")) == ([".json"] * 8 + [".tar"] * 8)
    status = read_status(out)
    assert status.progress is not None
    assert status.progress.state == "complete"


# ---- code that the nodes lack


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has all that flowprep needs, but no flowprep."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # The other environment's .pth files, which bring an editable flowprep, are not read from here.
    needed = Path(sys.modules["numpy"].__file__ or "").parents[1]
    (site / "needed.pth").write_text(f"{needed}\n")
    python = folder / "bin" / "python"
    lacks = subprocess.run(
        [python, "-c", "import ray, cv2, av, flowprep"], cwd="/", text=True, capture_output=True
    )
    if "No module named 'flowprep'" not in lacks.stderr:
        pytest.skip("flowprep is not installed apart from what it needs (pip install -e .)")
    return python


@pytest.fixture(scope="module")
def bare_cluster(bare_python: Path) -> Iterator[LocalCluster]:
    with LocalCluster(head_cpus=1, python=bare_python) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("code") / "clips", 2, 4)


def test_nodes_without_flowprep_get_it(
    bare_cluster: LocalCluster, bare_python: Path, two_clips: Path, tmp_path: Path
) -> None:
    here = ("--address", bare_cluster.address)
    environment = bare_cluster.environment
    finish(start(two_clips, tmp_path / "shipped", environment, *here))
    assert verify_dataset(tmp_path / "shipped", deep=True).problems == []

    process = start(two_clips, tmp_path / "not", environment, *here, "--no-ship-code")
    text, _ = process.communicate()
    assert process.returncode == 1
    assert "a worker cannot run flowprep" in text
    assert "No module named 'flowprep'" in text
    assert "Traceback" not in text.replace("Traceback (most recent call last):", "", 1)


@pytest.mark.parametrize("name", ["my_flow", "flows.gray"])
def test_nodes_get_the_module_of_a_user_s_estimator(
    name: str, bare_cluster: LocalCluster, two_clips: Path, tmp_path: Path
) -> None:
    # Of this folder the driver alone knows.
    folder = tmp_path / "modules"
    path = folder / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(parents=True)
    path.write_text(GRAY_MODULE)
    environment = dict(bare_cluster.environment)
    known = [str(folder), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, known))
    command = [sys.executable, "-m", "flowprep", "extract", str(two_clips), str(tmp_path / "out")]
    options = ["--estimator", f"{name}:GrayFlow", "--address", bare_cluster.address]
    done = subprocess.run(
        [*command, *options], env=environment, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert verify_dataset(tmp_path / "out", deep=True).problems == []
    header = flowprep.open_dataset(tmp_path / "out").header
    assert header.implementation.startswith(f"{name}:GrayFlow 1.0, source ")


def test_nodes_with_another_version_are_refused_or_get_this_one(
    bare_cluster: LocalCluster, bare_python: Path, two_clips: Path, tmp_path: Path
) -> None:
    (site,) = bare_python.parents[1].glob("lib/python*/site-packages")
    shutil.copytree(Path(flowprep.__file__).parent, site / "flowprep")
    (site / "flowprep" / "_version.py").write_text('__version__ = "0.0.7"\n')
    here = ("--address", bare_cluster.address)
    environment = bare_cluster.environment
    process = start(two_clips, tmp_path / "not", environment, *here, "--no-ship-code")
    text, _ = process.communicate()
    assert process.returncode == 1
    assert f"has flowprep 0.0.7 where the driver has {flowprep.__version__}; their numbers" in text

    finish(start(two_clips, tmp_path / "shipped", environment, *here))
    assert verify_dataset(tmp_path / "shipped", deep=True).problems == []


@pytest.mark.parametrize("how", ["option", "submitted"])
def test_runtime_env_reaches_the_workers_beside_the_code(
    how: str, bare_cluster: LocalCluster, two_clips: Path, tmp_path: Path
) -> None:
    # A worker that is told so keeps its compiled kernels there.
    env = {"env_vars": {"FLOWPREP_CACHE_DIR": str(tmp_path / "cache")}}
    environment, options = bare_cluster.environment, ["--address", bare_cluster.address]
    if how == "option":
        (tmp_path / "env.yaml").write_text(json.dumps(env))
        options += ["--runtime-env", str(tmp_path / "env.yaml")]
    else:
        # So `ray job submit --runtime-env-json` hands it to its driver.
        environment = environment | {
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": env})
        }
    finish(start(two_clips, tmp_path / "out", environment, *options))
    assert any((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "runtime_env cannot be read: "),
        ("/no/such/file", "runtime_env cannot be read: .*No such file"),
        ("{1: 2}", r"runtime_env must be an object such as .*, got \{"),
    ],
)
def test_runtime_env_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_runtime_env(text)


def test_code_is_sent_beside_the_user_s_but_not_over_a_submitted_job_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = str(Path(flowprep.__file__).parent)
    given = RunOptions(runtime_env='{"py_modules": ["s3://b/m.zip"], "env_vars": {"A": "1"}}')
    assert job_runtime_env(given, "auto") == {
        "py_modules": [package, "s3://b/m.zip"],
        "env_vars": {"A": "1"},
    }
    assert job_runtime_env(RunOptions(), None) is None
    assert job_runtime_env(RunOptions(), None, "dis") is None
    assert job_runtime_env(RunOptions(ship_code=False), "auto") is None
    job = {"runtime_env": {"py_modules": ["gcs://their.zip"]}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert job_runtime_env(RunOptions(), "auto") is None


# ---- strangers


def test_a_process_without_the_token_is_turned_away(two_clips: Path, tmp_path: Path) -> None:
    program = (
        "from flowprep.run.ray_start import start_ray\n"
        "ray, _ = start_ray(None, num_cpus=1)\n"
        "print(ray.get_runtime_context().gcs_address, flush=True)\n"
        "input()"
    )
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    host = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        address = host.stdout.readline().strip()
        assert re.fullmatch(r"[0-9.]+:[0-9]+", address)
        process = start(two_clips, tmp_path / "out", environment, "--address", address)
        text, _ = process.communicate()
    finally:
        host.communicate("\n")
    assert process.returncode == 1
    assert "cannot reach or start Ray on" in text
    assert "RAY_AUTH_TOKEN" in text
    assert not list(tmp_path.glob("out/shards/*"))


# ---- numbers to watch


@pytest.mark.skipif(
    not all(map(find_spec, ("aiohttp_cors", "opencensus", "prometheus_client"))),
    reason="Ray exports metrics only as ray[default]",
)
def test_ray_exports_the_run_s_numbers(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", NUM_CLIPS, 16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalCluster(head_cpus=0, metrics_port=port) as cluster:
        process = start(clips, tmp_path / "out", cluster.environment, "--address", cluster.address)

        def exported() -> str:
            with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                return str(page.read().decode())
            return ""

        pattern = rf"(?m)^ray_flowprep_videos_remaining\{{.*\}} {NUM_CLIPS}\.0$"
        wait_until(lambda: bool(re.search(pattern, exported())))
        cluster.add("node")
        finish(process)
