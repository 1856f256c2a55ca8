"""A long run of many videos: is the memory of driver, workers and Ray's store constant?

Extracts one clip under thousands of names, with one broken file per fifty, for the given time. Then
the script ends the run like Ctrl-C. Every few seconds it reads the memory of each part of the run
from /proc. It compares the last third of the time with the second third. The exit code is 1 if a
part has grown by more than 3 % and 10 MB.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import descendants, machine

import flowprep
from flowprep.run.status import read_status
from flowprep.synthetic import action_scene, write_video

PARTS = ("driver", "workers", "Ray", "store")


def memory_mb(driver: int) -> dict[str, float]:
    """Returns the resident memory of each part in MB. Shared pages count only for the store."""
    found = dict.fromkeys(PARTS, 0.0)
    for pid in [driver, *descendants(driver)]:
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            kb = {
                name: int(rest.split()[0])
                for name, _, rest in (x.partition(":") for x in lines)
                if name in ("RssAnon", "RssShmem")
            }
            own = kb.get("RssAnon", 0) / 1000
            if pid == driver:
                found["driver"] += own
            elif command.startswith(b"ray::"):
                # Only the largest worker counts, because their number changes when one is replaced.
                found["workers"] = max(found["workers"], own)
            else:
                found["Ray"] += own
            if b"raylet/raylet" in command:
                found["store"] = kb.get("RssShmem", 0) / 1000
    return found


def main() -> int:
    """Runs the soak test."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--videos", type=int, default=60_000, help="names; more than get their turn"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    # A shell makes background commands ignore Ctrl-C, and their child processes inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"flowprep {flowprep.__version__} on {machine()}; {options.workers} workers\n")
    with tempfile.TemporaryDirectory() as name:
        videos, out = Path(name, "videos"), Path(name, "out")
        videos.mkdir()
        scene = action_scene("zoom_in", num_frames=12, width=160, height=120, seed=0)
        write_video(videos / "clip-000000.mp4", map(scene.frame, range(12)))
        clip = videos / "clip-000000.mp4"
        for number in range(1, options.videos):
            if number % 50:
                os.link(clip, videos / f"clip-{number:06d}.mp4")
            else:
                (videos / f"clip-{number:06d}.mp4").write_bytes(b"no video")
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "flowprep", "extract", str(videos), str(out)),
                *("--workers", str(options.workers), "--device", "cpu", "--no-progress"),
            ],
            stdout=subprocess.DEVNULL,
        )
        began = time.monotonic()
        samples: list[dict[str, float]] = []
        shown = 0
        print(f"{'minutes':>8}{'videos':>8}" + "".join(f"{part + ' MB':>12}" for part in PARTS))
        while (minutes := (time.monotonic() - began) / 60) < options.minutes:
            time.sleep(5)
            if process.poll() is not None:
                print(f"the run ended after {minutes:.1f} minutes, exit code {process.returncode}")
                return 1
            samples.append(memory_mb(process.pid))
            if minutes >= shown * options.minutes / 10:
                shown += 1
                with contextlib.suppress(flowprep.FlowprepError):
                    num_done = read_status(out).num_done
                    row = "".join(f"{samples[-1][part]:12.1f}" for part in PARTS)
                    print(f"{minutes:8.1f}{num_done:8d}{row}", flush=True)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        num_done = read_status(out).num_done
    third = len(samples) // 3
    print(f"\n{num_done} videos; medians of the middle and of the last third:")
    has_grown = False
    for part in PARTS:
        middle = statistics.median(sample[part] for sample in samples[third : 2 * third])
        last = statistics.median(sample[part] for sample in samples[2 * third :])
        grew = last > 1.03 * middle and last > middle + 10
        has_grown |= grew
        print(f"  {part:8}{middle:8.1f} MB{last:8.1f} MB  {'GREW' if grew else 'flat'}")
    return int(has_grown)


if __name__ == "__main__":
    sys.exit(main())
