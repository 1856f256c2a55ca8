"""The worker that stays on a GPU: it gets ready within a time, or its process ends."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import time
from flowprep.config import FlowSpec
from flowprep.run import run_job

def hang_on_the_device(spec, device):
    time.sleep(600)

run_job.START_SECONDS = 0.5
run_job._estimator = hang_on_the_device
run_job.DeviceWorker(FlowSpec("tvl1"), "cuda").prepare()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_worker_that_hangs_before_its_first_video_is_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    # Where it hung.
    assert "hang_on_the_device" in done.stderr


def test_what_ends_in_time_has_no_limit_any_more() -> None:
    script = (
        "import time\n"
        "from flowprep.run.watchdog import time_limit\n"
        "with time_limit(0.3): pass\n"
        "time.sleep(1)\n"
        "print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
