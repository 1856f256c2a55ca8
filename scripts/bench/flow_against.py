"""The native flow estimators of this checkout against those of another, in turn in one run.

`compare` starts one process for each side, on the same core. Each has its own code and its own
frames. They take turns task by task, and a ratio is taken for each turn, so a machine whose speed
drifts favors neither. Times are processor time, of which other programs take none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

ROOT = Path(__file__).resolve().parents[2]
CALLS = {"tvl1": 1, "farneback": 8}
"""The algorithms, and how often a pair is computed in a turn."""
PAIR_TURNS, CLIP_TURNS = 11, 5
NUM_CLIP_FRAMES = 10


@dataclass(frozen=True)
class Row:
    """A task, in turn on both sides."""

    before_ms: float
    """Per field, as the other times: the median of the turns."""
    now_ms: float
    ratio: float
    """The median of the turns' ratios."""
    difference_px: float
    """Mean endpoint difference of the two sides' fields; 0 if all bits are equal."""


def compare(
    before: Path,
    pairs: Sequence[tuple[Frames, Frames]],
    clips: Sequence[Sequence[Frames]],
    environment: Mapping[str, str],
) -> None:
    """Prints how many times as fast this checkout is as the one in the folder `before`.

    `pairs` are for single calls. Of each clip the first `NUM_CLIP_FRAMES` frames are computed.
    `environment` is added to that of both sides.
    """
    still = int(np.argmin([np.abs(a.astype(int) - b).mean() for a, b in pairs]))
    with tempfile.TemporaryDirectory(prefix="flowprep-against-") as name:
        folder = Path(name)
        np.save(folder / "pairs.npy", np.array(pairs))
        np.save(folder / "clips.npy", np.array([clip[:NUM_CLIP_FRAMES] for clip in clips]))
        sides = [_Side(tree, folder, environment) for tree in (before.resolve(), ROOT)]
        try:
            print(
                "| | before, ms | now, ms | ratio (least, most) | fields |\n|---|---|---|---|---|"
            )
            for algorithm in CALLS:
                rows = [
                    _in_turn(sides, PAIR_TURNS, algorithm, "pair", number)
                    for number in range(len(pairs))
                ]
                _print(f"{algorithm}, single calls, {len(pairs)} pairs", rows)
                _print(f"{algorithm}, the stillest of these pairs", [rows[still]])
                for task, title in (
                    ("calls", "single calls along a clip"),
                    ("video", "videos in both directions"),
                ):
                    rows = [
                        _in_turn(sides, CLIP_TURNS, algorithm, task, number)
                        for number in range(len(clips))
                    ]
                    _print(f"{algorithm}, {title}", rows)
        finally:
            for side in sides:
                side.end()


def _print(title: str, rows: Sequence[Row]) -> None:
    before, now = (
        statistics.median(times)
        for times in ([row.before_ms for row in rows], [row.now_ms for row in rows])
    )
    ratios = [row.ratio for row in rows]
    spread = f" ({min(ratios):.2f}, {max(ratios):.2f})" if len(rows) > 1 else ""
    apart = statistics.fmean(row.difference_px for row in rows)
    fields = f"{apart:.4f} px apart" if any(row.difference_px for row in rows) else "the same bits"
    print(
        f"| {title} | {before:.2f} | {now:.2f} | {statistics.median(ratios):.3f}{spread} "
        f"| {fields} |",
        flush=True,
    )


def _in_turn(sides: Sequence[_Side], turns: int, algorithm: str, task: str, number: int) -> Row:
    """Lets both sides do a task alternately; each begins every other turn."""
    fields = [side.fields(algorithm, task, number) for side in sides]
    difference_px = 0.0
    if fields[0][0] != fields[1][0]:
        apart = np.linalg.norm(np.load(fields[0][1]) - np.load(fields[1][1]), axis=-1)
        difference_px = float(apart.mean())
    times: list[list[float]] = [[], []]
    for turn in range(turns):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            times[place].append(sides[place].time_ms(algorithm, task, number))
    ratios = [before / now for before, now in zip(*times, strict=True)]
    return Row(
        statistics.median(times[0]),
        statistics.median(times[1]),
        statistics.median(ratios),
        difference_px,
    )


class _Side:
    """A process with the code of one checkout."""

    def __init__(self, tree: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment | {"PYTHONPATH": str(tree)},
        )
        loaded = Path(self._ask("where"))
        if tree not in loaded.parents:
            self.end()
            sys.exit(f"--against must be a checkout of flowprep, got {tree}: Python took {loaded}")

    def fields(self, algorithm: str, task: str, number: int) -> tuple[str, str]:
        """Does a task; returns the digest of its fields, and the file in which they are."""
        digest, path = self._ask("fields", algorithm, task, number)
        return digest, path

    def time_ms(self, algorithm: str, task: str, number: int) -> float:
        """Does a task; returns its processor time per field."""
        return float(self._ask("time", algorithm, task, number))

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, *request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit("a side ended before it answered; what it wrote is above")
        return json.loads(answer)


# ---- in the process of a side, whose flowprep may be an earlier one


def serve(folder: Path) -> None:
    """Answers the requests of `_Side` until the input ends."""
    import flowprep
    from flowprep.flow import create_estimator

    pairs, clips = np.load(folder / "pairs.npy"), np.load(folder / "clips.npy")
    estimators = {name: create_estimator(name) for name in CALLS}

    def pair(algorithm: str, number: int) -> list[Any]:
        return [estimators[algorithm](*pairs[number]) for _ in range(CALLS[algorithm])]

    def calls(algorithm: str, number: int) -> list[Any]:
        return [estimators[algorithm](*two) for two in itertools.pairwise(clips[number])]

    def video(algorithm: str, number: int) -> list[Any]:
        both = list(estimators[algorithm].pairs(list(clips[number])))
        return [flow for pair in both for flow in (pair.forward, pair.backward)]

    tasks: dict[str, Callable[[str, int], list[Any]]] = {"pair": pair, "calls": calls}
    tasks["video"] = video
    for line in sys.stdin:
        kind, *request = json.loads(line)
        answer: Any = flowprep.__file__
        if kind != "where":
            algorithm, task, number = request
            began = time.process_time()
            fields = tasks[task](algorithm, number)
            answer = 1000 * (time.process_time() - began) / len(fields)
        if kind == "fields":
            path = folder / f"fields-{os.getpid()}.npy"
            np.save(path, fields)
            answer = hashlib.sha256(path.read_bytes()).hexdigest(), str(path)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
