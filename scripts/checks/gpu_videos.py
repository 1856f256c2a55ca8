"""Measures how much several videos at a time on one device speed it up, from frames to JPEGs.

Each video is in a process of its own, as with `--workers-per-gpu`: flow forward and backward,
levels, JPEGs in memory. Frames are made beforehand, so nothing is decoded. All processes start
once, and then 1, 2, 4 and 8 of them (never more than cores) work at the same time. The last line is
JSON. With --device torch-cpu, one and two processes compute tiny videos by the portable version.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from typing import IO, Any

import numpy as np
import torch

from flowprep.config import EncodeSpec, FlowSpec
from flowprep.flow.estimators import build_estimator
from flowprep.flow.parameters import TVL1Parameters
from flowprep.flow.trial import drawn_frames
from flowprep.machine import usable_cores
from flowprep.run.flow_streams import FlowStreams
from flowprep.video.types import Frame

SECONDS = 4.0
COUNTS = 1, 2, 4, 8
NUM_FRAMES = 145
"""Three batches of the CUDA kernel at 340x256 px."""


def main() -> None:
    """Measures, or works as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "torch-cpu"), default="cuda")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.device)
    else:
        print(json.dumps(measure(options.device)))


def measure(device: str) -> dict[str, Any]:
    """Returns pairs/s and the seconds of all processes by stage, by the number of processes."""
    is_gpu = device != "torch-cpu"
    counts = [one for one in COUNTS if one <= max(2, usable_cores() if is_gpu else 2)]
    command = [sys.executable, __file__, "--worker", "--device", device]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(counts[-1])
    ]
    try:
        for worker in workers:
            answer_of(worker)
        numbers: dict[str, Any] = {}
        for count in counts:
            for worker in workers[:count]:
                print(SECONDS if is_gpu else 0.0, file=input_of(worker), flush=True)
            answers = [answer_of(worker) for worker in workers[:count]]
            stages: Counter[str] = Counter()
            for answer in answers:
                stages.update(answer["stages"])
            numbers[str(count)] = {
                "pairs_per_second": sum(one["pairs"] / one["seconds"] for one in answers),
                "pairs": sum(one["pairs"] for one in answers),
                "seconds_of_processes": {name: round(took, 3) for name, took in stages.items()},
            }
        return numbers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def input_of(worker: subprocess.Popen[str]) -> IO[str]:
    """Returns what the process reads its orders from."""
    assert worker.stdin is not None
    return worker.stdin


def answer_of(worker: subprocess.Popen[str]) -> Any:
    """Waits for a process to be ready or to have measured."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"a process of the measurement ended with exit code {worker.wait()}")
    return json.loads(line)


def work(device: str) -> None:
    """Computes the same video over and over for as many seconds as each line of stdin says."""
    if device == "torch-cpu":
        # Threads of several processes would wait for each other's cores.
        torch.set_num_threads(1)
        size, num_frames, p = (48, 60), 4, TVL1Parameters(nscales=2, warps=2)
    else:
        size, num_frames, p = (256, 340), NUM_FRAMES, TVL1Parameters()
    spec, encode = FlowSpec("tvl1", p), EncodeSpec(keep_rgb=False)
    drawn = [Frame(np.dstack([gray] * 3), gray, 0.0) for gray in drawn_frames(*size)]
    frames = (drawn * num_frames)[:num_frames]
    estimator = build_estimator("tvl1", p, device)

    def compute() -> FlowStreams:
        streams = FlowStreams(spec, encode, estimator)
        streams.compute(frames)
        streams.close()
        return streams

    compute()  # compiles, allocates memory and loads code
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        began, num_pairs, stages = time.monotonic(), 0, Counter[str]()
        while not num_pairs or time.monotonic() - began < float(line):
            done = compute()
            num_pairs += done.num_flows
            stages.update(done.clock.seconds)
        seconds = time.monotonic() - began
        print(json.dumps({"pairs": num_pairs, "seconds": seconds, "stages": stages}), flush=True)


if __name__ == "__main__":
    main()
