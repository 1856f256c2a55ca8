"""Fuzzing: thousands of damaged files by chance that a seed fixes.

videos       damaged videos of every container at hand go through `flowprep extract` on Ray, many in
             one run. The run ends by itself; each video is stored or has a reason; what is stored
             is what a plain decoding gives; the sound videos among them are as in an undisturbed
             run.
shards       a data set with one damage at a time goes through reader, verifier, export and the
             rest. What is wrong is refused or noticed, in bounded time and memory.
checkpoints  a checkpoint that is damaged, or forged with right checksums, is restored and taken for
             first weights. It is refused or what it was, in bounded time and memory.
runs         the folder of a stopped training with one damage at a time, and the same command again.
             It is refused, or ends in the weights of an undisturbed training.

Prints what became of the cases as a Markdown table. A case that breaks a rule is kept, with the
command that repeats it, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

import flowprep
from tests.conftest import DATA
from tests.fuzzing.checkpoints import fuzz_checkpoints
from tests.fuzzing.outcomes import Outcomes
from tests.fuzzing.runs import fuzz_runs
from tests.fuzzing.shards import fuzz_shards
from tests.fuzzing.videos import fuzz_videos

_SUBJECTS = {"shards": fuzz_shards, "checkpoints": fuzz_checkpoints, "runs": fuzz_runs}


def main() -> int:
    """Runs it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("videos", *_SUBJECTS))
    parser.add_argument("--count", type=int, default=2000, help="how many cases (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the chance (default: 0)")
    parser.add_argument("--only", type=int, help="repeat this case alone")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path(tempfile.gettempdir(), "flowprep-fuzz"),
        help="folder for the cases that break a rule (default: %(default)s)",
    )
    options = parser.parse_args()
    began = time.monotonic()
    count = options.count if options.only is None else max(options.count, options.only + 1)
    with tempfile.TemporaryDirectory(prefix="flowprep-fuzz-") as folder:
        outcomes: Outcomes
        if options.what == "videos":
            outcomes = fuzz_videos(
                ffmpeg=str(imageio_ffmpeg.get_ffmpeg_exe()),
                data=DATA if DATA.is_dir() else None,
                folder=Path(folder),
                keep=options.keep,
                count=count,
                seed=options.seed,
                only=options.only,
            )
        else:
            outcomes = _SUBJECTS[options.what](
                folder=Path(folder),
                keep=options.keep,
                count=count,
                seed=options.seed,
                only=options.only,
            )
    print(f"\n{_versions()}")
    print(f"{outcomes.num_cases} cases in {(time.monotonic() - began) / 60:.0f} minutes\n")
    print(outcomes.report())
    return 1 if outcomes.broken else 0


def _versions() -> str:
    import av
    import cv2
    import numpy as np
    import ray

    return (
        f"flowprep {flowprep.__version__}, Python {platform.python_version()}, PyAV "
        f"{av.__version__} (FFmpeg {av.ffmpeg_version_info}), OpenCV {cv2.__version__}, numpy "
        f"{np.__version__}, Ray {ray.__version__}; {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    sys.exit(main())
