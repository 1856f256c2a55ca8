"""Peak memory of a worker on a long, large video.

Makes a 1080p H.264 video with ffmpeg's test picture, extracts its flow with one worker, and prints
the largest resident memory of any worker process, for each decoder and length. A worker streams, so
the memory must not depend on the length. --features makes the features of I3D, with random weights
and a window every 30 seconds, straight from the video.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
from processes import machine, watch

import flowprep
from flowprep.learn.create import create_model
from flowprep.learn.features import open_features
from flowprep.learn.weights.files import save_weights


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10])
    parser.add_argument("--decoders", nargs="+", default=["pyav", "decord"])
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--resize", default="short:256", help="of the stored frames")
    parser.add_argument("--features", action="store_true", help="features in place of flow")
    options = parser.parse_args()
    print(f"flowprep {flowprep.__version__} on {machine()}")
    print(f"{options.size} H.264 at 25 fps, stored at {options.resize}, DIS ultrafast\n")
    print(f"{'decoder':8} {'minutes':>8} {'pairs':>7} {'pairs/s':>8} {'worker peak':>12}")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "i3d.safetensors")
        if options.features:
            save_weights(create_model("i3d", stream="flow", num_classes=400), weights)
        for minutes in options.minutes:
            video = Path(folder, f"{minutes:g}.mp4")
            source = f"testsrc2=size={options.size}:rate=25:duration={60 * minutes}"
            subprocess.run(
                [
                    *(imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source),
                    *("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(video)),
                ],
                check=True,
            )
            for decoder in options.decoders:
                out = Path(folder, f"{decoder}-{minutes:g}")
                command = ["extract", str(video), str(out)]
                if options.features:
                    command = ["features", str(video), "--to", str(out), "--stream", "flow"]
                    command += ["--model", "i3d", "--weights", str(weights), "--stride", "750"]
                usage = watch(
                    [
                        *(sys.executable, "-m", "flowprep", *command),
                        *("--algorithm", "dis", "--dis-preset", "ultrafast", "--workers", "1"),
                        *("--resize", options.resize, "--decoder", decoder),
                    ]
                )
                if options.features:
                    num_pairs = next(iter(open_features(out))).num_frames - 1
                else:
                    num_pairs = flowprep.open_dataset(out).videos[0].num_flows
                print(
                    f"{decoder:8} {minutes:8g} {num_pairs:7d} {num_pairs / usage.wall_seconds:8.1f}"
                    f" {usage.peak_worker_mb:9.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
