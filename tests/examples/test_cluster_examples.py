"""The examples for clusters: scripts start real Ray clusters, manifests hold known fields."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowprep.dataset.verify import verify_dataset
from flowprep.learn.checkpoint import load_checkpoint
from flowprep.synthetic import action_scene, write_video
from tests.learn.conftest import extract_actions
from tests.run.faults import descendants, kill, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "cluster"
OPTIONS = ("--algorithm", "farneback", "--resize", "none")

# Two Ray clusters after each other, on a machine that may be busy.
pytestmark = pytest.mark.timeout(1200)

SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$FAKE_LOG"
if [[ $1 == show ]]; then hostname; for n in ${SLURM_JOB_NODELIST#*,}; do echo "$n"; done; fi
"""
# Starts a command as often as there are nodes to start it on, all of them this machine, and hands
# on a signal, as srun does.
SRUN = """#!/bin/bash
echo "srun $*" >> "$FAKE_LOG"
while [[ $1 == --* ]]; do
    [[ $1 == --ntasks=* ]] && count=${1#*=}
    shift
done
for ((n = 0; n < count; n++)); do "$@" & tasks+=($!); done
trap 'kill "${tasks[@]}" 2> /dev/null' TERM INT
for task in "${tasks[@]}"; do wait "$task"; done
wait
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(4):
        scene = action_scene("move_left", num_frames=8, width=128, height=96, seed=number)
        write_video(folder / f"{number}.mp4", map(scene.frame, range(8)))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """What a login on a node has: this Python's programs, and nothing about Ray."""
    values = {name: value for name, value in os.environ.items() if "RAY" not in name}
    path = f"{Path(sys.executable).parent}:{values['PATH']}"
    # Kernels that are compiled already stay at hand.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return values | {"HOME": str(home), "PATH": path, "XDG_CACHE_HOME": cache}


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that end with the test, and all that they started."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        kill([*descendants(process.pid), process.pid])
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# ---- SLURM


@pytest.fixture
def slurm(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An allocation of two nodes of one core, both of them this machine."""
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    job = str(os.getpid())
    return environment | {
        "PATH": f"{tmp_path / 'bin'}:{environment['PATH']}",
        "FAKE_LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NODELIST": "this,other",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_CPUS_ON_NODE": "1",
    }


def sbatch(
    environment: dict[str, str], *arguments: str, script: str = "slurm.sh"
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(EXAMPLES / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        env=environment,
    )


def test_slurm_script_works_and_cleans_up(
    clips: Path, home: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    out = tmp_path / "out"
    process = sbatch(slurm, str(clips), str(out), *OPTIONS)
    ray_folder = Path(f"/tmp/ray-{slurm['SLURM_JOB_ID']}")
    wait_until(lambda: any(home.glob(".flowprep-*/token")), process)
    (token,) = home.glob(".flowprep-*/token")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "4 of 4 videos" in text
    assert verify_dataset(out, deep=True).problems == []
    steps = (tmp_path / "log").read_text()
    assert re.search(r"srun .*--nodelist=\S+ ray start --head .*--include-dashboard=false", steps)
    assert re.search(r"srun --nodes=1 --ntasks=1 .*--exclude=\S+ ray start --address=", steps)
    assert not list(home.iterdir())
    assert not ray_folder.exists()
    assert "requeue" not in steps


def test_slurm_script_goes_back_into_the_queue_when_its_time_is_up(
    clips: Path, home: Path, tmp_path: Path, slurm: dict[str, str]
) -> None:
    out = tmp_path / "out"
    # Enough work that the signal comes before the end.
    for copy in range(300):
        shutil.copytree(clips, tmp_path / "many" / str(copy))
    process = sbatch(slurm, str(tmp_path / "many"), str(out), *OPTIONS)
    wait_until(lambda: any(out.glob(".parts/*/*.json")), process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 1, text
    assert "goes on when it is its turn again" in text
    assert "Interrupted" in text
    assert f"scontrol requeue {slurm['SLURM_JOB_ID']}" in (tmp_path / "log").read_text()
    assert not list(home.iterdir())


def test_slurm_training_writes_a_checkpoint_and_goes_on_when_it_is_its_turn(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    data, run = extract_actions(tmp_path, "data", seed=0), tmp_path / "run"
    num_steps = 300
    options = "--model cnn-m-2048 --width 0.05 --crop 42 --frames 3 --batch-size 8 --device cpu "
    options += f"--log-every 1 --steps {num_steps} --test-split none --loaders 1 --no-tensorboard"
    arguments = [str(data), "--run", str(run), *options.split()]

    def last_step() -> int:
        path = run / "metrics.csv"
        lines = path.read_text().splitlines() if path.exists() else []
        return int(lines[-1].partition(",")[0]) if len(lines) > 1 else 0

    threads = {"OMP_NUM_THREADS": "1"}
    process = sbatch(
        slurm | threads | {"SLURM_GPUS_ON_NODE": "2"}, *arguments, script="slurm-train.sh"
    )
    wait_until(lambda: last_step() >= 3, process)
    # To the script alone, as --signal=B: asks for.
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate()
    assert process.returncode == 1, text
    assert "goes on when it is its turn again" in text
    requeue = f"scontrol requeue {slurm['SLURM_JOB_ID']}\n"
    assert (tmp_path / "log").read_text() == requeue
    done = load_checkpoint(run / "last.pt").step
    assert 3 <= done == last_step() < num_steps
    process = sbatch(slurm | threads, *arguments, script="slurm-train.sh")
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert f"trained: {num_steps} steps" in text
    assert re.search(r"this run +(\d+) steps", text)[1] == str(num_steps - done)  # type: ignore[index]
    assert (tmp_path / "log").read_text() == requeue


@pytest.mark.parametrize(
    ("script", "arguments"), [("slurm.sh", ["only-one"]), ("slurm-train.sh", [])]
)
def test_slurm_scripts_say_how_they_are_used(
    slurm: dict[str, str], script: str, arguments: list[str]
) -> None:
    process = sbatch(slurm, *arguments, script=script)
    text, _ = process.communicate()
    assert (process.returncode, text.startswith(f"usage: sbatch {script}")) == (2, True)


# ---- by hand


def free_ports(count: int) -> int:
    """Returns the first of `count` ports in a row that nobody listens at."""
    for first in range(30000, 60000, 1000):
        with socket.socket() as probe:
            if all(probe.connect_ex(("127.0.0.1", first + n)) for n in range(count)):
                return first
    raise AssertionError("no free ports")


def test_two_machines_by_hand(
    clips: Path,
    home: Path,
    tmp_path: Path,
    environment: dict[str, str],
    started: list[subprocess.Popen[str]],
) -> None:
    port = free_ports(10)

    def by_hand(*command: str, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=environment | variables,
        )
        started.append(process)
        return process

    stranger = by_hand(str(EXAMPLES / "worker.sh"), f"127.0.0.1:{port}")
    text, _ = stranger.communicate()
    assert (stranger.returncode, "no token in" in text) == (1, True)

    head = by_hand(str(EXAMPLES / "head.sh"), PORT=str(port))
    assert head.stdout is not None
    said = ""
    while "Ray runtime started" not in said and (line := head.stdout.readline()):
        said += line
    token = home / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() not in said
    address = re.search(r"worker\.sh (\S+)", said)
    assert address, said
    worker = by_hand(
        str(EXAMPLES / "worker.sh"), address[1], PORT=str(port + 1000), CPUS="1", GPUS="0"
    )
    assert worker.stdout is not None
    joined = ""
    while "Ray runtime started" not in joined and (line := worker.stdout.readline()):
        joined += line
    assert "Ray runtime started" in joined, joined

    # As head.sh says.
    extract = re.search(r"    (flowprep extract) VIDEOS OUT (--address \S+)", said)
    assert extract, said
    out = tmp_path / "out"
    line = f"{extract[1]} {clips} {out} {' '.join(OPTIONS)} {extract[2]}"
    exports = re.search(r"    (export .*)", said)
    assert exports, said
    process = by_hand("bash", "-c", f"{exports[1]}\n{line}")
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert verify_dataset(out, deep=True).problems == []


# ---- manifests

# From the v1 schema of KubeRay 1.7.0.
RAY_JOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
    "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy",
    "metadata", "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML",
    "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate",
    "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
RAY_CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
    "headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend",
    "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
AUTOSCALER = {
    "args", "command", "env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy",
    "resources", "securityContext", "upscalingMode", "version", "volumeMounts",
}  # fmt: skip
HEAD_GROUP = {
    "enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType",
    "template",
}  # fmt: skip
WORKER_GROUP = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts",
    "priority", "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


def with_gpus(text: str) -> str:
    """The manifest with its GPU group, which stands there as a comment."""
    return re.sub(r"(?m)^      # (- groupName: gpu|  )", r"      \1", text)


@pytest.mark.parametrize("has_gpus", [False, True])
def test_kubernetes_manifest_has_known_fields(has_gpus: bool) -> None:
    text = (EXAMPLES / "kuberay.yaml").read_text()
    job = yaml.safe_load(with_gpus(text) if has_gpus else text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) <= RAY_JOB
    assert set(cluster) <= RAY_CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    assert set(cluster["autoscalerOptions"]) <= AUTOSCALER
    assert cluster["autoscalerOptions"]["upscalingMode"] in (
        "Default",
        "Aggressive",
        "Conservative",
    )
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    groups = cluster["workerGroupSpecs"]
    assert [group["groupName"] for group in groups] == ["cpu", "gpu"][: 1 + has_gpus]
    ray_options = known_ray_options()
    claims = set()
    for group in [cluster["headGroupSpec"], *groups]:
        assert {f"--{name}" for name in group["rayStartParams"]} <= ray_options
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        # Ray's workers must all have one version of Python and Ray.
        assert container["image"].endswith(f":{cluster['rayVersion']}-py311")
        assert [mount["name"] for mount in container["volumeMounts"]] == [
            volume["name"] for volume in pod["volumes"]
        ]
        claims |= {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    assert len(claims) == 1
    for group in groups:
        assert set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert yaml.safe_load(spec["runtimeEnvYAML"]).keys() == {"pip"}
    # No address: a submitted job knows its cluster.
    assert spec["entrypoint"].split()[:2] == ["flowprep", "extract"]


def known_ray_options() -> set[str]:
    from ray.scripts.scripts import start

    return {flag for option in start.params for flag in option.opts}


def test_launcher_configuration_is_what_ray_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given: dict[str, Any] = yaml.safe_load((EXAMPLES / "ray-up.yaml").read_text())
    config = prepare_config(given)
    validate_config(config)
    assert config["available_node_types"]["spot"]["node_config"]["InstanceMarketOptions"] == {
        "MarketType": "spot"
    }
    # Nothing that opens a door stands in the file.
    assert not re.search(r"(?i)secret|access_key|AKIA|token [=:]", yaml.safe_dump(given))
    # What the head does after `ray start` is one command a line, as the shell reads it.
    for command in [*given["head_start_ray_commands"], *given["worker_start_ray_commands"]]:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0
        flags = re.findall(r"--[a-z-]+", command.partition("ray start")[2])
        assert set(flags) <= known_ray_options() | {"--"}


@pytest.mark.parametrize("script", sorted(path.name for path in EXAMPLES.glob("*.sh")))
def test_scripts_are_sound_and_name_known_options(script: str) -> None:
    path = EXAMPLES / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text()
    assert "set -euo pipefail" in text
    if script == "slurm-train.sh":
        return  # starts no Ray
    started = "".join(re.findall(r"(?s)(?:ray start|^options=\().*?(?:[^\\]\n|\)\n)", text, re.M))
    flags = set(re.findall(r"--[a-z-]+", started))
    assert flags
    assert flags <= known_ray_options()
